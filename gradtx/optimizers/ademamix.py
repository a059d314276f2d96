"""AdEMAMix: Adam with a second, slow momentum; and its simplified form with one."""

from typing import NamedTuple

import jax

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, DecayOrSchedule, FloatDType, Mask, NonNegative, Rate, scheduled_value
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
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
from gradtx.core.types import ExtraArg, Moment, Params, Squares, Updates
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


class ScaleByAdemamixState(NamedTuple):
    """Steps taken, twice as in Optax, the fast and the slow momentum, the second moment."""

    count: jax.Array
    count_m2: jax.Array
    m1: Moment
    m2: Updates
    nu: Squares


class scale_by_ademamix(Transformation, keeps_zero=True):
    """AdEMAMix's direction: `(m1_hat + alpha*m2) / (sqrt(v_hat + eps_root) + eps)`.

    With `m1 = b1*m1 + (1-b1)*g`, `m2 = b3*m2 + (1-b3)*g`, `v = b2*v + (1-b2)*|g|^2`. The slow
    momentum `m2` has no bias correction, so that it grows over its first `1/(1-b3)` steps.

    Args:
      b1: decay of the fast momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      b3: decay of the slow momentum, in [0, 1), or a schedule of the steps taken so far.
      alpha: weight of the slow momentum, >= 0, or a schedule.
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared.
      mu_dtype: dtype in which the momenta are stored; None is float32, or wider for wider
        parameters.

    State: `ScaleByAdemamixState(count int32, count_m2 int32, m1, m2, nu)`; 12 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_ademamix(b3=0.99, alpha=5.0)
      >>> updates, state = tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))
      >>> [round(float(u), 3) for u in updates]
      [1.05, -1.05]

    Source: Pagliardini et al. 2024, arXiv:2409.03137, algorithm 1.

    **Differs:** Optax stores the second moment in `mu_dtype` too.
    """

    b1: Decay = 0.9
    b2: Decay = 0.999
    b3: DecayOrSchedule = 0.9999
    alpha: Rate = 6.0
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: FloatDType | None = None

    def init(self, params: Params) -> ScaleByAdemamixState:
        m1, m2 = (zeros_like(params, self.mu_dtype) for _ in range(2))
        return ScaleByAdemamixState(zero_count(), zero_count(), m1, m2, real_full_like(params, 0))

    def step(
        self, updates: Updates, state: ScaleByAdemamixState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByAdemamixState]:
        b3, alpha = scheduled_value("b3", self.b3, state.count_m2), scheduled_value("alpha", self.alpha, state.count_m2)
        t = safe_increment(state.count)
        c1, c2 = one_minus_power(self.b1, t), one_minus_power(self.b2, t)

        @each_leaf
        def rule(g: jax.Array, m1: jax.Array, m2: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m1, m2, v = running_mean(m1, g, self.b1), running_mean(m2, g, b3), running_mean(v, abs_sq(g), self.b2)
            return guarded_ratio(m1 / c1 + alpha * m2, root_plus_eps(v / c2, self.eps, self.eps_root), self.eps), m1, m2, v

        updates, m1, m2, nu = rule(updates, state.m1, state.m2, state.nu)
        return updates, ScaleByAdemamixState(t, safe_increment(state.count_m2), m1, m2, nu)


class ademamix(Preset):
    """AdEMAMix with decoupled weight decay: `-learning_rate * (u + weight_decay * p)`.

    `u` is the direction of `scale_by_ademamix`. Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 to
        `1 + alpha` a step.
      b1: decay of the fast momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      b3: decay of the slow momentum, in [0, 1), or a schedule of the steps taken so far.
      alpha: weight of the slow momentum, >= 0, or a schedule.
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared.
      mu_dtype: dtype in which the momenta are stored; None is float32, or wider for wider
        parameters.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `(ScaleByAdemamixState, WeightDecayState, ScaleByLearningRateState)`; 12 bytes a
    parameter.

    Example:
      >>> import gradtx
      >>> warmup = gradtx.linear_schedule(0.0, 5.0, 10_000)
      >>> tx = gradtx.ademamix(1e-3, alpha=warmup, weight_decay=0.1)

    Source: Pagliardini et al. 2024, arXiv:2409.03137.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.999
    b3: DecayOrSchedule = 0.9999
    alpha: Rate = 5.0
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: FloatDType | None = None
    weight_decay: Rate = 0.0
    mask: Mask | None = None

    def chain(self) -> Transformation:
        return chain(
            scale_by_ademamix(self.b1, self.b2, self.b3, self.alpha, self.eps, self.eps_root, self.mu_dtype),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )


class ScaleBySimplifiedAdEMAMixState(NamedTuple):
    """Steps taken, momentum, second moment."""

    t: jax.Array
    m: Moment
    n: Squares


class scale_by_simplified_ademamix(Transformation, keeps_zero=True):
    """AdEMAMix with one momentum: `(m + alpha*g) / (sqrt(v_hat + eps_root) + eps)`.

    With `m = b1*m + g`, which grows to `1/(1-b1)` times the gradient, and
    `v = b2*v + (1-b2)*|g|^2`.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      alpha: weight of the gradient beside the momentum, >= 0, or a schedule of the steps taken so
        far.
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared.

    State: `ScaleBySimplifiedAdEMAMixState(t int32, m, n)`; 8 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_simplified_ademamix(alpha=2.0)
      >>> updates, state = tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))
      >>> [round(float(u), 3) for u in updates]
      [3.0, -3.0]

    Source: Morwani et al. 2025, arXiv:2502.02431.

    **Differs:** Optax keeps half-precision parameters' moments in half precision.
    """

    b1: Decay = 0.99
    b2: Decay = 0.95
    alpha: Rate = 0.0
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0

    def init(self, params: Params) -> ScaleBySimplifiedAdEMAMixState:
        return ScaleBySimplifiedAdEMAMixState(zero_count(), zeros_like(params), real_full_like(params, 0))

    def step(
        self, updates: Updates, state: ScaleBySimplifiedAdEMAMixState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleBySimplifiedAdEMAMixState]:
        alpha, t = scheduled_value("alpha", self.alpha, state.t), safe_increment(state.t)
        c2 = one_minus_power(self.b2, t)

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m, v = m * self.b1 + g, running_mean(v, abs_sq(g), self.b2)
            return guarded_ratio(m + alpha * g, root_plus_eps(v / c2, self.eps, self.eps_root), self.eps), m, v

        updates, m, n = rule(updates, state.m, state.n)
        return updates, ScaleBySimplifiedAdEMAMixState(t, m, n)


class simplified_ademamix(Preset):
    """Simplified AdEMAMix with decoupled weight decay: `-learning_rate * (u + weight_decay * p)`.

    `u` is the direction of `scale_by_simplified_ademamix`. Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by up to `1/(1-b1)` a
        step: `1-b1` times Adam's rate.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      alpha: weight of the gradient beside the momentum, >= 0, or a schedule of the steps taken so
        far.
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `(ScaleBySimplifiedAdEMAMixState, WeightDecayState, ScaleByLearningRateState)`; 8 bytes a
    parameter.

    Example:
      >>> import gradtx
      >>> gradtx.simplified_ademamix(1e-5, alpha=100.0)
      simplified_ademamix(learning_rate=1e-05, alpha=100.0)

    Source: Morwani et al. 2025, arXiv:2502.02431.
    """

    learning_rate: Rate
    b1: Decay = 0.99
    b2: Decay = 0.95
    alpha: Rate = 0.0
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    weight_decay: Rate = 0.0
    mask: Mask | None = None

    def chain(self) -> Transformation:
        return chain(
            scale_by_simplified_ademamix(self.b1, self.b2, self.alpha, self.eps, self.eps_root),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )
