"""MADGRAD: dual averaging under cube roots, with momentum."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, NonNegative, Rate, scheduled_value
from gradtx.core.leaves import copies, each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import abs_sq, default_float, guarded_ratio, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.transforms.decay import add_decayed_weights


class MadgradState(NamedTuple):
    """Steps taken, weighted sums of squares and of gradients, the start, and the rate in use."""

    count: jax.Array
    grad_sum_sq: Updates
    s: Updates
    x0: Params
    learning_rate: jax.Array


class scale_by_madgrad(Transformation, final=True, keeps_zero=True, needs_params=True):
    """MADGRAD: `p = momentum*p + (1-momentum)*z`, with `z = x0 - s/(cbrt(v) + eps)`.

    With `w = (learning_rate + eps) * sqrt(t)`, `s = s + w*g`, `v = v + w*|g|^2`, and `x0` the
    parameters at the start. Its update needs `params`, and must be applied as it is.

    Args:
      learning_rate: number >= 0 or schedule; in units of the parameters. Often 1e-2.
      momentum: decay of the momentum, in [0, 1).
      eps: added to the rate and to the root, >= 0.

    State: `MadgradState(count int32, grad_sum_sq, s, x0, learning_rate)`; 12 bytes a parameter. It
      holds the start: make a new state for new parameters, or they return there.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.scale_by_madgrad(0.1, momentum=0.0), jnp.ones(2)
      >>> updates, state = tx.update(jnp.array([1.0, -8.0]), tx.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [-0.215, 0.431]

    Source: Defazio and Jelassi 2021, arXiv:2101.11075, algorithm 1; `eps` in the rate as in the
    authors' code.

    **Differs:** Optax computes `p_new - p`, which rounds more than `(1-momentum)*(z - p)`.
    """

    learning_rate: Rate
    momentum: Decay = 0.9
    eps: NonNegative = 1e-6

    def rate(self, count: jax.Array) -> jax.Array:
        """The rate at a step, as it is in the state."""
        return jnp.array(scheduled_value("learning_rate", self.learning_rate, count), default_float())

    def init(self, params: Params) -> MadgradState:
        count = zero_count()
        return MadgradState(count, real_full_like(params, 0), zeros_like(params), copies(params), self.rate(count))

    def step(
        self, updates: Updates, state: MadgradState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, MadgradState]:
        rate, count = self.rate(state.count), safe_increment(state.count)
        weight = (rate + self.eps) * jnp.sqrt(count.astype(rate.dtype))

        @each_leaf
        def rule(g: jax.Array, v: jax.Array, s: jax.Array, x0: jax.Array, p: jax.Array) -> tuple[jax.Array, ...]:
            v, s = v + weight * abs_sq(g), s + weight * g
            z = x0 - guarded_ratio(s, jnp.cbrt(v) + self.eps, self.eps)
            return (z - p) * (1 - self.momentum), v, s

        updates, v, s = rule(updates, state.grad_sum_sq, state.s, state.x0, params)
        return updates, MadgradState(count, v, s, state.x0, rate)


class madgrad(Preset, final=True):
    """MADGRAD with an L2 penalty before it; see `scale_by_madgrad`.

    Its update needs `params`, and must be applied as it is.

    Args:
      learning_rate: number >= 0 or schedule; in units of the parameters. Often 1e-2.
      momentum: decay of the momentum, in [0, 1).
      weight_decay: number >= 0 or schedule, of the L2 penalty.
      eps: added to the rate and to the root, >= 0.

    State: `(WeightDecayState, MadgradState)`; 12 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.madgrad(0.01)
      madgrad(learning_rate=0.01)

    Source: Defazio and Jelassi 2021, arXiv:2101.11075.
    """

    learning_rate: Rate
    momentum: Decay = 0.9
    weight_decay: Rate = 0.0
    eps: NonNegative = 1e-6

    def chain(self) -> Transformation:
        return chain(add_decayed_weights(self.weight_decay), scale_by_madgrad(self.learning_rate, self.momentum, self.eps))
