"""Ranger: RAdam inside Lookahead."""

from dataclasses import KW_ONLY

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Fraction, Mask, NonNegative, PositiveInt, Rate
from gradtx.core.transformation import Transformation
from gradtx.optimizers.radam import Threshold, scale_by_radam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.wrappers.lookahead import lookahead


class ranger(Preset, final=True):
    """RAdam with decoupled weight decay, and slow weights that follow it.

    `theta -= learning_rate * (r * m_hat / (sqrt(v_hat) + eps) + weight_decay * theta)`, each
    `sync_period` steps `phi += slow_step_size * (theta - phi)`, `theta = phi`; see `scale_by_radam`
    and `lookahead`.

    Its update needs `params`. Evaluate with the slow weights: `gradtx.eval_params(state, params)`.
    Nothing may change its updates before they are applied. Wright's later versions also centralize
    gradients: `chain(centralize(), ranger(...))`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step once
        RAdam adapts, and half as far where the slow weights follow half of the way.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.
      sync_period: steps from one meeting of the weights to the next, >= 1.
      slow_step_size: how far the slow weights follow, in [0, 1].
      threshold: least `rho` at which steps adapt, >= 4. In the paper `rho > 4` is enough
        (`threshold=4`); PyTorch and Optax have 5.

    State: `LookaheadState(fast_state, steps_since_sync int32, slow)`; 12 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.ranger(1e-3, weight_decay=0.01)
      ranger(learning_rate=0.001, weight_decay=0.01)

    Source: Wright 2019, "Ranger", the defaults too; Liu et al. 2019, arXiv:1908.03265; Zhang et al.
    2019, arXiv:1907.08610. Wright adds `eps` to the root of `v` before its bias is corrected.
    """

    learning_rate: Rate
    b1: Decay = 0.95
    b2: Decay = 0.999
    eps: NonNegative = 1e-5
    weight_decay: Rate = 0.0
    mask: Mask | None = None
    _: KW_ONLY
    sync_period: PositiveInt = 6
    slow_step_size: Fraction = 0.5
    threshold: Threshold = 5.0

    def chain(self) -> Transformation:
        inner = chain(
            scale_by_radam(self.b1, self.b2, self.eps, threshold=self.threshold),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )
        return lookahead(inner, self.sync_period, self.slow_step_size)
