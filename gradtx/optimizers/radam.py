"""RAdam: Adam whose step is rectified while its second moment is uncertain."""

import math
from dataclasses import KW_ONLY
from typing import Annotated

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import INF, Decay, Flag, NonNegative, Rate, interval
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import (
    default_float,
    first_moment,
    guarded_ratio,
    moments,
    one_minus_power,
    root_plus_eps,
    safe_increment,
    zero_count,
)
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, Updates
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.transforms.scaling import scale_by_learning_rate

Threshold = Annotated[ArrayLike, interval(4, INF, "[)", lambda _: " At or below 4 the variance is infinite.")]


def _langevin(x: jax.Array) -> jax.Array:
    """`coth(x) - 1/x` for `x` in [0, 1], as Gauss's continued fraction: no terms that cancel."""
    d = jnp.full_like(x, 21)
    for k in range(19, 1, -2):
        d = k + x * x / d
    return x / d


def approximate_length(b2: Scalar, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lengths of like simple averages: `rho = rho_inf - 2*t*b2^t/(1-b2^t)` now, `rho_inf` at last.

    In float32 this form loses the first ten steps at b2 = 0.9999: it is a small difference of
    numbers near 20,000. With `u = -log(b2)` and `L(x) = coth(x) - 1/x` it equals
    `t*(1 - L(t*u/2)) + L(u/2)`, which serves while `t*u/2 < 1`.
    """
    t = count.astype(default_float())
    if isinstance(b2, (int, float)):
        u = jnp.asarray(-math.log(b2) if b2 > 0 else math.inf, t.dtype)
        rho_inf = jnp.asarray((1 + b2) / (1 - b2), t.dtype)
    else:
        b2 = jnp.asarray(b2, t.dtype)
        u, rho_inf = -jnp.log(b2), (1 + b2) / (1 - b2)
    x = t * u / 2
    early = x < 1
    first = t * (1 - _langevin(jnp.where(early, x, 0))) + _langevin(jnp.where(early, u / 2, 0))
    return jnp.where(early, first, rho_inf - 2 * t / jnp.expm1(2 * jnp.where(early, 1, x))), rho_inf


def rectification(rho: jax.Array, rho_inf: jax.Array, threshold: Scalar) -> tuple[jax.Array, jax.Array]:
    """Whether the variance is known well enough, and the factor `r` for it (1 where it is not)."""
    tractable = (rho >= threshold) & (rho > 4)
    rho, limit = jnp.where(tractable, rho, 5), jnp.where(tractable, rho_inf, 5)
    return tractable, jnp.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))


class scale_by_radam(Transformation, keeps_zero=True):
    """RAdam's direction: `r * m_hat / (sqrt(v_hat + eps_root) + eps)` once `rho >= threshold`.

    Until then it is `m_hat` alone. With `m = b1*m + (1-b1)*g`, `v = b2*v + (1-b2)*|g|^2`,
    `m_hat = m/(1-b1^t)`, `v_hat = v/(1-b2^t)`, `rho_inf = 2/(1-b2) - 1`,
    `rho = rho_inf - 2*t*b2^t/(1-b2^t)`,
    `r = sqrt((rho-4) * (rho-2) * rho_inf / ((rho_inf-4) * (rho_inf-2) * rho))`; with `nesterov`,
    `m_hat = b1*m/(1-b1^(t+1)) + (1-b1)*g/(1-b1^t)`.

    `rho` is about `t` at first: at the usual `b2` the sixth step is the first that adapts. For `b2`
    up to 0.6 `rho` never exceeds 4, and no step does. One unit of a learning rate after it moves
    each parameter by about 1 a step once it adapts; by the size of the gradient before.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared.
      threshold: least `rho` at which steps adapt, >= 4. In the paper `rho > 4` is enough
        (`threshold=4`); PyTorch and Optax have 5.
      nesterov: whether to look one step of momentum ahead (Nadam).

    State: `ScaleByAdamState(count int32, mu, nu)`; 8 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_radam()
      >>> state = tx.init(jnp.zeros(2))
      >>> for _ in range(6):
      ...     updates, state = tx.update(jnp.array([0.5, -2.0]), state)
      ...     print([round(float(u), 3) for u in updates])
      [0.5, -2.0]
      [0.5, -2.0]
      [0.5, -2.0]
      [0.5, -2.0]
      [0.5, -2.0]
      [0.026, -0.026]

    Source: Liu et al. 2019, "On the Variance of the Adaptive Learning Rate and Beyond",
    arXiv:1908.03265, algorithm 2.

    **Differs:** Optax takes a threshold below 4, where `r` is imaginary, and its `rho` is a
    difference of large numbers in float32. PyTorch adds `eps` to the root of `v` before its bias is
    corrected.
    """

    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    threshold: Threshold = 5.0
    _: KW_ONLY
    nesterov: Flag = False

    def init(self, params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(zero_count(), zeros_like(params), real_full_like(params, 0))

    def step(
        self, updates: Updates, state: ScaleByAdamState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByAdamState]:
        b1, b2, eps, t = self.b1, self.b2, self.eps, safe_increment(state.count)
        m_hat, c2 = first_moment(b1, t, self.nesterov), one_minus_power(b2, t)
        tractable, r = rectification(*approximate_length(b2, t), self.threshold)

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m, v = moments(g, m, v, b1, b2)
            root = jnp.where(tractable, root_plus_eps(v / c2, eps, self.eps_root), 1)
            return guarded_ratio(r * m_hat(g, m), root, eps), m, v

        updates, mu, nu = rule(updates, state.mu, state.nu)
        return updates, ScaleByAdamState(t, mu, nu)


class radam(Preset):
    """Rectified Adam: `-learning_rate * r * m_hat / (sqrt(v_hat + eps_root) + eps)`.

    The first steps, while the second moment is uncertain, are `-learning_rate * m_hat`; see
    `scale_by_radam`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step once
        it adapts.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared.
      threshold: least `rho` at which steps adapt, >= 4. In the paper `rho > 4` is enough
        (`threshold=4`); PyTorch and Optax have 5.
      nesterov: whether to look one step of momentum ahead (Nadam).

    State: `(ScaleByAdamState, ScaleByLearningRateState)`; 8 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.radam(1e-3, threshold=4.0)
      radam(learning_rate=0.001, threshold=4.0)

    Source: Liu et al. 2019, arXiv:1908.03265, algorithm 2.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    threshold: Threshold = 5.0
    _: KW_ONLY
    nesterov: Flag = False

    def chain(self) -> Transformation:
        return chain(
            scale_by_radam(self.b1, self.b2, self.eps, self.eps_root, self.threshold, nesterov=self.nesterov),
            scale_by_learning_rate(self.learning_rate),
        )
