"""AdaBelief: steps scaled by how far gradients lie from their mean."""

from dataclasses import KW_ONLY
from typing import NamedTuple

import jax

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Flag, NonNegative, Rate
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import (
    abs_sq,
    first_moment,
    guarded_ratio,
    one_minus_power,
    root_plus_eps,
    running_mean,
    safe_increment,
    zero_count,
)
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Moment, Params, Squares, Updates
from gradtx.transforms.scaling import scale_by_learning_rate


class ScaleByBeliefState(NamedTuple):
    """Steps taken, the mean of gradients, and the mean of squared distances from it."""

    count: jax.Array
    mu: Moment
    nu: Squares


class scale_by_belief(Transformation, keeps_zero=True):
    """AdaBelief's direction: `m_hat / (sqrt(s_hat) + eps)`.

    With `m = b1*m + (1-b1)*g`, `s = b2*s + (1-b2)*|g-m|^2 + eps_root`, `m_hat = m/(1-b1^t)`,
    `s_hat = s/(1-b2^t)`; with `nesterov`, `m_hat = b1*m/(1-b1^(t+1)) + (1-b1)*g/(1-b1^t)`. One unit
    of a learning rate after it moves a parameter by 1 where gradients scatter as far as they are
    large, and by more where they agree.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added to the second moment at every step, >= 0; in units of the gradient squared.
      nesterov: whether to look one step of momentum ahead.

    State: `ScaleByBeliefState(count int32, mu, nu)`; 8 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_belief()
      >>> updates, state = tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))
      >>> [round(float(u), 3) for u in updates]
      [1.111, -1.111]

    Source: Zhuang et al. 2020, arXiv:2010.07468, algorithm 2.

    **Differs:** Optax keeps half-precision parameters' moments in half precision.
    """

    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-16
    eps_root: NonNegative = 1e-16
    _: KW_ONLY
    nesterov: Flag = False

    def init(self, params: Params) -> ScaleByBeliefState:
        return ScaleByBeliefState(zero_count(), zeros_like(params), real_full_like(params, 0))

    def step(
        self, updates: Updates, state: ScaleByBeliefState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByBeliefState]:
        t = safe_increment(state.count)
        m_hat, c2 = first_moment(self.b1, t, self.nesterov), one_minus_power(self.b2, t)

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, s: jax.Array) -> tuple[jax.Array, ...]:
            m = running_mean(m, g, self.b1)
            s = running_mean(s, abs_sq(g - m), self.b2) + self.eps_root
            return guarded_ratio(m_hat(g, m), root_plus_eps(s / c2, self.eps)), m, s

        updates, mu, nu = rule(updates, state.mu, state.nu)
        return updates, ScaleByBeliefState(t, mu, nu)


class adabelief(Preset):
    """AdaBelief: `-learning_rate * m_hat / (sqrt(s_hat) + eps)`; see `scale_by_belief`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step where
        gradients are noise, and by more where they agree. Often 1e-3.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added to the second moment at every step, >= 0; in units of the gradient squared.
      nesterov: whether to look one step of momentum ahead.

    State: `(ScaleByBeliefState, ScaleByLearningRateState)`; 8 bytes a parameter.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.adabelief(0.1), jnp.array([3.0])
      >>> state = tx.init(params)
      >>> for _ in range(100):
      ...     updates, state = tx.update(jax.grad(lambda x: (x**2).sum())(params), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(abs(params[0]) < 0.1)
      True

    Source: Zhuang et al. 2020, arXiv:2010.07468.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-16
    eps_root: NonNegative = 1e-16
    _: KW_ONLY
    nesterov: Flag = False

    def chain(self) -> Transformation:
        return chain(
            scale_by_belief(self.b1, self.b2, self.eps, self.eps_root, nesterov=self.nesterov),
            scale_by_learning_rate(self.learning_rate),
        )
