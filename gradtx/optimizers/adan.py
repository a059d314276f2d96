"""Adan: Nesterov momentum from differences of gradients, under an adaptive step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Mask, NonNegative, Rate
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


class ScaleByAdanState(NamedTuple):
    """Means of gradients, of their differences and of squares, the last gradient, steps taken."""

    m: Moment
    v: Moment
    n: Squares
    g: Updates
    t: jax.Array


class scale_by_adan(Transformation, keeps_zero=True):
    """Adan's direction: `(m_hat + (1-b2)*v_hat) / (sqrt(n_hat + eps_root) + eps)`.

    With `d = g - g_last` (0 at the first step), `m = b1*m + (1-b1)*g`, `v = b2*v + (1-b2)*d`,
    `n = b3*n + (1-b3)*|g + (1-b2)*d|^2`, each over `1 - b^t`. Unlike most papers', its `b` are the
    weights of the past. One unit of a learning rate after it moves each parameter by about 1 a
    step.

    Args:
      b1: decay of the mean of gradients, in [0, 1).
      b2: decay of the mean of their differences, in [0, 1).
      b3: decay of the mean of squares, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared.

    State: `ScaleByAdanState(m, v, n, g, t int32)`; 16 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_adan()
      >>> updates, state = tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))
      >>> updates.round(4)
      Array([ 1., -1.], dtype=float32)

    Source: Xie et al. 2022, arXiv:2208.06677, algorithm 1; the bias corrections as in the authors'
    code.

    **Differs:** Optax keeps half-precision parameters' moments in half precision.
    """

    b1: Decay = 0.98
    b2: Decay = 0.92
    b3: Decay = 0.99
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0

    def init(self, params: Params) -> ScaleByAdanState:
        m, v, g = (zeros_like(params) for _ in range(3))
        return ScaleByAdanState(m, v, real_full_like(params, 0), g, zero_count())

    def step(
        self, updates: Updates, state: ScaleByAdanState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByAdanState]:
        t, ahead = safe_increment(state.t), 1 - self.b2
        c1, c2, c3 = (one_minus_power(b, t) for b in (self.b1, self.b2, self.b3))

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, v: jax.Array, n: jax.Array, last: jax.Array) -> tuple[jax.Array, ...]:
            d = jnp.where(state.t == 0, 0, g - last)
            m, v = running_mean(m, g, self.b1), running_mean(v, d, self.b2)
            n = running_mean(n, abs_sq(g + ahead * d), self.b3)
            return guarded_ratio(m / c1 + ahead * (v / c2), root_plus_eps(n / c3, self.eps, self.eps_root), self.eps), m, v, n, g

        updates, m, v, n, g = rule(updates, state.m, state.v, state.n, state.g)
        return updates, ScaleByAdanState(m, v, n, g, t)


class adan(Preset):
    """Adan with decoupled weight decay: `-learning_rate * (u + weight_decay * p)`.

    `u` is the direction of `scale_by_adan`. Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. Two
        to ten times Adam's.
      b1: decay of the mean of gradients, in [0, 1).
      b2: decay of the mean of their differences, in [0, 1).
      b3: decay of the mean of squares, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `(ScaleByAdanState, WeightDecayState, ScaleByLearningRateState)`; 16 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.adan(1e-3, weight_decay=0.02)
      adan(learning_rate=0.001, weight_decay=0.02)

    Source: Xie et al. 2022, arXiv:2208.06677.
    """

    learning_rate: Rate
    b1: Decay = 0.98
    b2: Decay = 0.92
    b3: Decay = 0.99
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 1e-8
    weight_decay: Rate = 0.0
    mask: Mask | None = None

    def chain(self) -> Transformation:
        return chain(
            scale_by_adan(self.b1, self.b2, self.b3, self.eps, self.eps_root),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )
