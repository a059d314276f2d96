"""Yogi: Adam with a second moment that changes by bounded steps."""

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, NonNegative, Rate
from gradtx.core.leaves import each_leaf, full_like, real_full_like
from gradtx.core.numerics import (
    abs_sq,
    guarded_ratio,
    one_minus_power,
    root_plus_eps,
    running_mean,
    safe_increment,
    zero_count,
)
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.transforms.scaling import scale_by_learning_rate


class scale_by_yogi(Transformation):
    """Yogi's direction: `m_hat / (sqrt(v_hat + eps_root) + eps)`.

    With `m = b1*m + (1-b1)*g`, `v = v - (1-b2)*sign(v - |g|^2)*|g|^2`, `m_hat = m/(1-b1^t)`,
    `v_hat = v/(1-b2^t)`. A step changes `v` by at most `(1-b2)*|g|^2`, so a few small gradients
    cannot shrink it fast, as in Adam.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared.
      initial_accumulator_value: what both moments start at, >= 0.

    State: `ScaleByAdamState(count int32, mu, nu)`; 8 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_yogi()
      >>> updates, state = tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))
      >>> updates.round(2)
      Array([ 1., -1.], dtype=float32)

    Source: Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization", algorithm 2; the bias
    corrections and the start of the first moment as in Optax.

    **Differs:** Optax keeps half-precision parameters' moments in half precision.
    """

    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-3
    eps_root: NonNegative = 0.0
    initial_accumulator_value: NonNegative = 1e-6

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        """A first moment that starts above zero moves parameters without gradients."""
        initial = self.initial_accumulator_value
        return isinstance(initial, (int, float)) and initial == 0

    def init(self, params: Params) -> ScaleByAdamState:
        start = self.initial_accumulator_value
        return ScaleByAdamState(zero_count(), full_like(params, start), real_full_like(params, start))

    def step(
        self, updates: Updates, state: ScaleByAdamState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByAdamState]:
        t = safe_increment(state.count)
        c1, c2 = one_minus_power(self.b1, t), one_minus_power(self.b2, t)

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m, square = running_mean(m, g, self.b1), abs_sq(g)
            v = v - (1 - self.b2) * jnp.sign(v - square) * square
            return guarded_ratio(m / c1, root_plus_eps(v / c2, self.eps, self.eps_root), self.eps), m, v

        updates, mu, nu = rule(updates, state.mu, state.nu)
        return updates, ScaleByAdamState(t, mu, nu)


class yogi(Preset):
    """Yogi: `-learning_rate * m_hat / (sqrt(v_hat) + eps)`; see `scale_by_yogi`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. Often
        1e-2.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.

    State: `(ScaleByAdamState, ScaleByLearningRateState)`; 8 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.yogi(0.01)
      yogi(learning_rate=0.01)

    Source: Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization".
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-3

    def chain(self) -> Transformation:
        return chain(scale_by_yogi(self.b1, self.b2, self.eps), scale_by_learning_rate(self.learning_rate))
