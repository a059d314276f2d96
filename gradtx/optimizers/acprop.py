"""ACProp: the gradient over the deviation of those before it."""

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Mask, NonNegative, Rate
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import abs_sq, guarded_ratio, one_minus_power, root_plus_eps, running_mean, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.optimizers.adabelief import ScaleByBeliefState
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


class scale_by_acprop(Transformation, keeps_zero=True):
    """ACProp's direction: `g / (sqrt(s_hat) + eps)`, with `s_hat` of the steps before.

    `s = b2*s + (1-b2)*|g-m|^2 + eps_root` and `m = b1*m + (1-b1)*g` follow after, each from the
    other's last value; `s_hat = s/(1-b2^t)`. The first step is `g / (1 + eps)`. A gradient is so
    divided by a deviation that does not hold it, which converges for any `b2`.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added to the second moment at every step, >= 0; in units of the gradient squared.

    State: `ScaleByBeliefState(count int32, mu, nu)`; 8 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, grads = gradtx.scale_by_acprop(), jnp.array([0.5, -2.0])
      >>> _, state = tx.update(grads, tx.init(jnp.zeros(2)))
      >>> [round(float(u), 3) for u in tx.update(grads, state)[0]]
      [1.0, -1.0]

    Source: Zhuang et al. 2021, arXiv:2110.05454, algorithm 1.

    **Differs:** Optax keeps half-precision parameters' moments in half precision.
    """

    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-16
    eps_root: NonNegative = 1e-16

    def init(self, params: Params) -> ScaleByBeliefState:
        return ScaleByBeliefState(zero_count(), zeros_like(params), real_full_like(params, 0))

    def step(
        self, updates: Updates, state: ScaleByBeliefState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByBeliefState]:
        first = state.count == 0
        c2 = one_minus_power(self.b2, jnp.maximum(state.count, 1))

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, s: jax.Array) -> tuple[jax.Array, ...]:
            u = guarded_ratio(g, root_plus_eps(jnp.where(first, 1, s / c2), self.eps))
            return u, running_mean(m, g, self.b1), running_mean(s, abs_sq(g - m), self.b2) + self.eps_root

        updates, mu, nu = rule(updates, state.mu, state.nu)
        return updates, ScaleByBeliefState(safe_increment(state.count), mu, nu)


class acprop(Preset):
    """ACProp with decoupled weight decay: `-learning_rate * (u + weight_decay * p)`.

    `u` is the direction of `scale_by_acprop`. Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step where
        gradients are noise, and by more where they agree. Often 1e-3.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added to the second moment at every step, >= 0; in units of the gradient squared.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `(ScaleByBeliefState, WeightDecayState, ScaleByLearningRateState)`; 8 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.acprop(1e-3)
      acprop(learning_rate=0.001)

    Source: Zhuang et al. 2021, arXiv:2110.05454.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-16
    eps_root: NonNegative = 1e-16
    weight_decay: Rate = 0.0
    mask: Mask | None = None

    def chain(self) -> Transformation:
        return chain(
            scale_by_acprop(self.b1, self.b2, self.eps, self.eps_root),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )
