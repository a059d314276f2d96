"""AdaMax: Adam with the infinity norm."""

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Mask, NonNegative, Rate
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import guarded_ratio, one_minus_power, running_mean, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


class scale_by_adamax(Transformation, keeps_zero=True):
    """AdaMax's direction: `m / (1-b1^t) / v`, `m = b1*m + (1-b1)*g`, `v = max(b2*v, |g| + eps)`.

    One unit of a learning rate after it moves each parameter by about 1 a step.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the running maximum, in [0, 1).
      eps: added to the gradient's magnitude, >= 0; in units of the gradient.

    State: `ScaleByAdamState(count int32, mu, nu)`; 8 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_adamax()
      >>> tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 1., -1.], dtype=float32)

    Source: Kingma and Ba 2014, arXiv:1412.6980, algorithm 2; eps as in PyTorch.
    """

    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8

    def init(self, params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(zero_count(), zeros_like(params), real_full_like(params, 0))

    def step(
        self, updates: Updates, state: ScaleByAdamState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByAdamState]:
        b1, b2, eps, t = self.b1, self.b2, self.eps, safe_increment(state.count)
        c1 = one_minus_power(b1, t)

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m = running_mean(m, g, b1)
            v = jnp.maximum(b2 * v, jnp.abs(g) + eps)
            return guarded_ratio(m / c1, v, eps), m, v

        updates, mu, nu = rule(updates, state.mu, state.nu)
        return updates, ScaleByAdamState(t, mu, nu)


class adamax(Preset):
    """AdaMax: `-learning_rate * m / (1-b1^t) / v`; see `scale_by_adamax`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. The
        paper's is 2e-3.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the running maximum, in [0, 1).
      eps: added to the gradient's magnitude, >= 0; in units of the gradient.

    State: `(ScaleByAdamState, ScaleByLearningRateState)`; 8 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.adamax(2e-3)
      adamax(learning_rate=0.002)

    Source: Kingma and Ba 2014, arXiv:1412.6980, algorithm 2.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8

    def chain(self) -> Transformation:
        return chain(scale_by_adamax(self.b1, self.b2, self.eps), scale_by_learning_rate(self.learning_rate))


class adamaxw(Preset):
    """AdaMax with decoupled weight decay: `-learning_rate * (adamax(g) + weight_decay * p)`.

    Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. The
        paper's is 2e-3.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the running maximum, in [0, 1).
      eps: added to the gradient's magnitude, >= 0; in units of the gradient.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `(ScaleByAdamState, WeightDecayState, ScaleByLearningRateState)`; 8 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.adamaxw(2e-3, weight_decay=0.01)
      adamaxw(learning_rate=0.002, weight_decay=0.01)

    Source: Kingma and Ba 2014, arXiv:1412.6980, algorithm 2; Loshchilov and Hutter 2017,
    arXiv:1711.05101.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8
    weight_decay: Rate = 1e-4
    mask: Mask | None = None

    def chain(self) -> Transformation:
        return chain(
            scale_by_adamax(self.b1, self.b2, self.eps),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )
