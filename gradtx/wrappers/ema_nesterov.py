"""EMA-Nesterov: gradients are taken ahead, along the average motion of the parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.composites import Wrapper
from gradtx.core.domains import Decay, Rate, scheduled_value
from gradtx.core.leaves import each_leaf, map_leaves, zeros_like
from gradtx.core.numerics import default_float, running_mean, safe_increment, zero_count
from gradtx.core.types import ExtraArg, Moment, Params, State, Updates
from gradtx.core.walk import check_not_final, check_steps


class EmaNesterovState(NamedTuple):
    """The wrapped transformation's state, steps taken, average motion, and how far ahead it is."""

    inner_state: State
    count: jax.Array
    motion: Moment
    ahead: jax.Array

    def eval_params(self, params: Params) -> Params:
        """What `gradtx.eval_params` gives: the parameters without the look ahead."""
        return map_leaves(lambda p, m, *, ahead: p - ahead * m, params, self.motion, ahead=self.ahead)


class ema_nesterov(Wrapper, final=True, keeps_zero=True):
    """Looks ahead along the average motion: `y = w + beta*m`, and gradients are taken at `y`.

    With `u` the update of `inner` at `y`: `w_new = y + u`, `m = decay*m + (1-decay)*(w_new - w)`.
    Your parameters are `y`; `gradtx.eval_params(state, params)` gives `w`. A schedule for `beta`
    starts and ends the look ahead, and may follow the learning rate. Nothing may change the updates
    before they are applied: put it around the whole chain. An accumulation stands around it.

    Args:
      inner: the transformation to wrap: a whole optimizer, with its learning rate; none that keeps
        averages of the parameters itself.
      beta: how far to look ahead, in units of the average motion, a number >= 0 or a schedule of
        the steps taken so far. Below `1/(1-decay)` the motion stays bounded.
      decay: of the average motion, in [0, 1).

    State: `EmaNesterovState(inner_state, count int32, motion, ahead float32)`; 4 bytes a parameter
      more than the wrapped one's.

    Raises:
      ValueError: `inner` keeps averages of the parameters, or accumulates.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> rate = gradtx.piecewise_constant_schedule(0.6, {900: 0.0})  # ends at step 900
      >>> tx, params = gradtx.ema_nesterov(gradtx.sgd(1.0), rate, decay=0.5), jnp.array(0.0)
      >>> updates, state = tx.update(jnp.array(-1.0), tx.init(params), params)
      >>> params = gradtx.apply_updates(params, updates)
      >>> params, gradtx.eval_params(state, params).round(4)  # 1 + 0.6 * 0.5
      (Array(1.3, dtype=float32), Array(1., dtype=float32))

    Source: "EMA-Nesterov" 2026, arXiv:2605.25395; used with `beta` 0.3 to 0.6 in
    https://github.com/KellerJordan/modded-nanogpt, track 3.
    """

    beta: Rate = 0.6
    decay: Decay = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_final("ema_nesterov", "inner", self.inner)
        check_steps("ema_nesterov", "inner", self.inner)

    def init(self, params: Params) -> EmaNesterovState:
        return EmaNesterovState(self.inner.init(params), zero_count(), zeros_like(params), jnp.zeros((), default_float()))

    def step(
        self, updates: Updates, state: EmaNesterovState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmaNesterovState]:
        moved, inner_state = self.inner.advance(updates, state.inner_state, params, extra_args)
        count = safe_increment(state.count)
        ahead = jnp.asarray(scheduled_value("beta", self.beta, count)).astype(state.ahead.dtype)

        @each_leaf
        def rule(u: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
            motion = u + state.ahead * m  # from w, which the state does not keep
            m = running_mean(m, motion, self.decay)
            return u + ahead * m, m

        moved, motion = rule(moved, state.motion)
        return moved, EmaNesterovState(inner_state, count, motion, ahead)
