"""Averages of the parameters beside any optimizer: exponential, and plain (SWA, Polyak and Ruppert)."""

import functools
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.apply import apply_updates
from gradtx.core.checks import Decay, Flag, NonNegativeInt, PositiveInt
from gradtx.core.leaves import cast_like, copies, map_leaves, widen
from gradtx.core.numerics import default_float, one_minus_power, safe_increment, zero_count
from gradtx.core.transformation import Inner, Params, Transformation, Updates, as_transformation, check_steps
from gradtx.core.trees import require_params


class EmaParamsState(NamedTuple):
    """The wrapped transformation's state, steps taken, and the average (the initial parameters before any step)."""

    inner_state: Any
    count: jax.Array
    average: Any

    def eval_params(self, params: Any) -> Any:
        """What `gradtx.eval_params` gives."""
        return self.average


class SwaState(NamedTuple):
    """The wrapped transformation's state, steps taken, how many points were averaged, and their mean (the parameters, if none)."""

    inner_state: Any
    count: jax.Array
    averaged: jax.Array
    average: Any

    def eval_params(self, params: Any) -> Any:
        """What `gradtx.eval_params` gives."""
        return self.average


def _mix(average: jax.Array, p: jax.Array, *, share: Any) -> jax.Array:
    return (1 - share) * average + share * p


def _mix_if(average: jax.Array, p: jax.Array, *, share: Any, due: Any) -> jax.Array:
    return jnp.where(due, _mix(average, p, share=share), average)


class ema_params(Transformation, final=True, keeps_zero=True):
    """An exponential moving average of the parameters: `average = decay*average + (1-decay)*p`, with `p` after each step.

    Training goes on as without it; `gradtx.eval_params(state, params)` gives the average. It holds about `1/(1-decay)` steps.

    Args:
      inner: the transformation to wrap: a whole optimizer, with its learning rate.
      decay: in [0, 1).
      debias: True averages the parameters after steps 1 to t alone: a start at zero, over `1 - decay^t`. False starts at the
        initial parameters, whose weight falls as `decay^t`.

    State: `EmaParamsState(inner_state, count int32, average)`; 4 bytes a parameter more than the wrapped one's (float32, also for
      half-precision parameters, which would stall an average of their own dtype).

    Returns:
      The transformation; its update needs `params`. Its updates are those of `inner`; nothing may change them before they are
      applied: put it around the whole chain.

    Raises:
      ValueError, TypeError: an argument outside its domain, `inner` accumulates, or `params` was not passed to `update`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.ema_params(gradtx.sgd(1.0), decay=0.5), jnp.array(0.0)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array(-3.0), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      >>> params, gradtx.eval_params(state, params)  # (0.25*3 + 0.5*6) / (1 - 0.25)
      (Array(6., dtype=float32), Array(5., dtype=float32))

    Source: Polyak and Juditsky 1992 for averaging; the bias correction is that of Kingma and Ba 2014, arXiv:1412.6980, section 3.
    """

    inner: Inner
    decay: Decay
    _: KW_ONLY
    debias: Flag = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("ema_params", "inner", self.inner)

    @functools.cached_property
    def tx(self) -> Any:
        return as_transformation(self.inner)

    def init(self, params: Params) -> EmaParamsState:
        return EmaParamsState(self.tx.init(params), zero_count(), copies(params))

    def step(
        self, updates: Updates, state: EmaParamsState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, EmaParamsState]:
        steps, inner_state = self.tx.advance(widen(updates), state.inner_state, require_params(params), extra_args)
        steps = cast_like(steps, updates)
        count = safe_increment(state.count)
        # With these shares the stored average is the corrected one at every step, so that reading it needs no division.
        share = (1 - self.decay) / one_minus_power(self.decay, count) if self.debias else 1 - self.decay
        average = map_leaves(_mix, state.average, apply_updates(params, steps), share=share)
        return steps, EmaParamsState(inner_state, count, average)


class swa(Transformation, final=True, keeps_zero=True):
    """Stochastic weight averaging: the plain mean of the parameters after steps `start`, `start + every`, `start + 2*every`, ...

    `n += 1`, `average += (p - average) / n`. Training goes on as without it; `gradtx.eval_params(state, params)` gives the mean,
    or the parameters before its first point. With the defaults it is the average of Polyak and Ruppert: all steps count.

    Args:
      inner: the transformation to wrap: a whole optimizer, with its learning rate.
      start: steps before the average begins, >= 0; about three quarters of the training in the paper.
      every: steps from one point to the next, >= 1; an epoch, or a cycle of the learning rate, in the paper.

    State: `SwaState(inner_state, count int32, averaged int32, average)`; 4 bytes a parameter more than the wrapped one's
      (float32, also for half-precision parameters).

    Returns:
      The transformation; its update needs `params`. Its updates are those of `inner`; nothing may change them before they are
      applied: put it around the whole chain. Statistics of batch normalization belong to the last parameters, not to the mean:
      compute them anew for it.

    Raises:
      ValueError, TypeError: an argument outside its domain, `inner` accumulates, or `params` was not passed to `update`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.swa(gradtx.sgd(1.0), start=2, every=2), jnp.array(0.0)
      >>> state = tx.init(params)
      >>> for _ in range(4):
      ...     updates, state = tx.update(jnp.array(-1.0), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      ...     print(params, gradtx.eval_params(state, params))
      1.0 1.0
      2.0 2.0
      3.0 2.0
      4.0 3.0

    Source: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", arXiv:1803.05407,
    algorithm 1; Polyak and Juditsky 1992.
    """

    inner: Inner
    start: NonNegativeInt = 0
    every: PositiveInt = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("swa", "inner", self.inner)

    @functools.cached_property
    def tx(self) -> Any:
        return as_transformation(self.inner)

    def init(self, params: Params) -> SwaState:
        return SwaState(self.tx.init(params), zero_count(), zero_count(), copies(params))

    def step(self, updates: Updates, state: SwaState, params: Params | None = None, **extra_args: Any) -> tuple[Updates, SwaState]:
        steps, inner_state = self.tx.advance(widen(updates), state.inner_state, require_params(params), extra_args)
        steps = cast_like(steps, updates)
        count = safe_increment(state.count)
        due = (count >= self.start) & ((count - self.start) % self.every == 0)
        averaged = jnp.where(due, safe_increment(state.averaged), state.averaged)
        share = 1 / jnp.maximum(averaged, 1).astype(default_float())
        follows = due | (state.averaged == 0)  # with a share of 1 before the first point
        average = map_leaves(_mix_if, state.average, apply_updates(params, steps), share=share, due=follows)
        return steps, SwaState(inner_state, count, averaged, average)
