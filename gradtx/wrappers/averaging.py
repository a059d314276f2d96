"""Averages of the parameters beside any optimizer: exponential and plain (SWA, Polyak-Ruppert)."""

from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.apply import apply_updates
from gradtx.core.composites import Wrapper
from gradtx.core.domains import Decay, Flag, NonNegativeInt, PositiveInt
from gradtx.core.leaves import copies, each_leaf
from gradtx.core.numerics import default_float, one_minus_power, safe_increment, zero_count
from gradtx.core.types import ExtraArg, Params, Scalar, State, Updates
from gradtx.core.walk import check_steps


class EmaParamsState(NamedTuple):
    """The wrapped transformation's state, steps taken, and the average.

    Before any step the average is the initial parameters.
    """

    inner_state: State
    count: jax.Array
    average: Params

    def eval_params(self, params: Params) -> Params:
        """What `gradtx.eval_params` gives."""
        return self.average


class SwaState(NamedTuple):
    """The wrapped transformation's state, steps taken, how many points were averaged, their mean.

    Without a point the mean is the parameters.
    """

    inner_state: State
    count: jax.Array
    averaged: jax.Array
    average: Params

    def eval_params(self, params: Params) -> Params:
        """What `gradtx.eval_params` gives."""
        return self.average


class ema_params(Wrapper, final=True, keeps_zero=True, needs_params=True):
    """A moving average of the parameters: `average = decay*average + (1-decay)*p`.

    `p` are the parameters after each step. Training is the same as without it;
    `gradtx.eval_params(state, params)` gives the average, which spans about `1/(1-decay)` steps.
    The updates are those of `inner`. Nothing may change them before they are applied: put it around
    the whole chain. An accumulation stands around it:
    `accumulate(ema_params(inner, decay), every_k)`. `update` needs `params`.

    Args:
      inner: the transformation to wrap: a whole optimizer, with its learning rate.
      decay: in [0, 1).
      debias: True averages the parameters after steps 1 to t alone: a start at zero, over
        `1 - decay^t`. False starts at the initial parameters, whose weight falls as `decay^t`.
      start: steps before the average begins, >= 0: until then it is the parameters, and `t` counts
        from there.

    State: `EmaParamsState(inner_state, count int32, average)`; 4 bytes a parameter more than the
      wrapped one's (float32, also for half-precision parameters, which would stall an average of
      their own dtype).

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.ema_params(gradtx.sgd(1.0), decay=0.5), jnp.array(0.0)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array(-3.0), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      >>> params, gradtx.eval_params(state, params)  # (0.25*3 + 0.5*6) / (1 - 0.25)
      (Array(6., dtype=float32), Array(5., dtype=float32))

      An average of the tail, blended with the last parameters at the end:

      >>> tail = gradtx.ema_params(gradtx.sgd(1.0), decay=1 - 1/150, debias=False, start=2)
      >>> average = gradtx.eval_params(tail.init(params), params)
      >>> blended = gradtx.incremental_update(average, params, step_size=0.6)

    Source: Polyak and Juditsky 1992 for averaging; the bias correction is that of Kingma and Ba
    2014, arXiv:1412.6980, section 3.
    """

    decay: Decay
    _: KW_ONLY
    debias: Flag = True
    start: NonNegativeInt = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("ema_params", "inner", self.inner)

    def init(self, params: Params) -> EmaParamsState:
        return EmaParamsState(self.inner.init(params), zero_count(), copies(params))

    def step(
        self, updates: Updates, state: EmaParamsState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmaParamsState]:
        updates, inner_state = self.inner.advance(updates, state.inner_state, params, extra_args)
        count = safe_increment(state.count)
        # With these shares the stored average is the corrected one: no division to read it.
        since = count - self.start
        correction = one_minus_power(self.decay, jnp.maximum(since, 1)) if self.debias else 1
        share: Scalar = (1 - self.decay) / correction
        if self.start:
            share = jnp.where(since > 0, share, 1)

        @each_leaf
        def mix(average: jax.Array, p: jax.Array) -> jax.Array:
            return (1 - share) * average + share * p

        average = mix(state.average, apply_updates(params, updates))
        return updates, EmaParamsState(inner_state, count, average)


class swa(Wrapper, final=True, keeps_zero=True, needs_params=True):
    """Stochastic weight averaging: the plain mean of the parameters at every `every`-th step.

    After steps `start`, `start + every`, `start + 2*every`, ...: `n += 1`,
    `average += (p - average) / n`. Training is the same as without it;
    `gradtx.eval_params(state, params)` gives the mean, or the parameters before its first point.
    With the defaults it is the average of Polyak and Ruppert: all steps count. The updates are
    those of `inner`. Nothing may change them before they are applied: put it around the whole
    chain. An accumulation stands around it: `accumulate(swa(inner), every_k)`. `update` needs
    `params`. Statistics of batch normalization belong to the last parameters, not to the mean:
    compute them anew for it.

    Args:
      inner: the transformation to wrap: a whole optimizer, with its learning rate.
      start: steps before the average begins, >= 0; about three quarters of the training in the
        paper.
      every: steps from one point to the next, >= 1; an epoch, or a cycle of the learning rate, in
        the paper.

    State: `SwaState(inner_state, count int32, averaged int32, average)`; 4 bytes a parameter more
      than the wrapped one's (float32, also for half-precision parameters).

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

    Source: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better
    Generalization", arXiv:1803.05407, algorithm 1; Polyak and Juditsky 1992.
    """

    start: NonNegativeInt = 0
    every: PositiveInt = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("swa", "inner", self.inner)

    def init(self, params: Params) -> SwaState:
        return SwaState(self.inner.init(params), zero_count(), zero_count(), copies(params))

    def step(
        self, updates: Updates, state: SwaState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, SwaState]:
        updates, inner_state = self.inner.advance(updates, state.inner_state, params, extra_args)
        count = safe_increment(state.count)
        due = (count >= self.start) & ((count - self.start) % self.every == 0)
        averaged = jnp.where(due, safe_increment(state.averaged), state.averaged)
        share = 1 / jnp.maximum(averaged, 1).astype(default_float())
        follows = due | (state.averaged == 0)  # with a share of 1 before the first point

        @each_leaf
        def mix(average: jax.Array, p: jax.Array) -> jax.Array:
            return jnp.where(follows, (1 - share) * average + share * p, average)

        average = mix(state.average, apply_updates(params, updates))
        return updates, SwaState(inner_state, count, averaged, average)
