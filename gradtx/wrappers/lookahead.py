"""Lookahead: fast weights run ahead, slow weights follow them part of the way every few steps."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks
from gradtx.core.apply import apply_updates
from gradtx.core.checks import Flag, Fraction, PositiveInt
from gradtx.core.leaves import cast_like, copies, map_leaves, widen
from gradtx.core.numerics import zero_count
from gradtx.core.transformation import (
    Inner,
    Params,
    Preset,
    Transformation,
    Updates,
    as_transformation,
    check_not_final,
    check_steps,
)
from gradtx.core.trees import require_params


class LookaheadParams(NamedTuple):
    """Fast and slow weights side by side, as Optax's `lookahead` wants its parameters. Gradients are taken at `fast`."""

    fast: Any
    slow: Any

    @classmethod
    def init_synced(cls, params: Any) -> "LookaheadParams":
        """The pair at the start, both weights at `params`; the slow ones are copies, so that a step may overwrite both."""
        return cls(fast=params, slow=jax.tree.map(jnp.array, params))

    def gradient_point(self) -> Any:
        """What gradients have the shape of."""
        return self.fast


class LookaheadState(NamedTuple):
    """The wrapped transformation's state, steps since the weights met, and the slow weights (None: they are in the parameters)."""

    fast_state: Any
    steps_since_sync: jax.Array
    slow: Any

    def eval_params(self, params: Any) -> Any:
        """What `gradtx.eval_params` gives: the slow weights."""
        return LookaheadParams(params.slow, params.slow) if isinstance(params, LookaheadParams) else self.slow


def _synced(u: jax.Array, slow: jax.Array, p: jax.Array, *, alpha: Any, sync: Any) -> tuple[jax.Array, jax.Array]:
    phi = slow + alpha * (p + u - slow)
    return jnp.where(sync, phi - p, u), jnp.where(sync, phi, slow)


def _minus(x: jax.Array, y: jax.Array) -> jax.Array:
    return x - y


def _select(condition: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)


class lookahead(Transformation, final=True):
    """Lookahead around any optimizer: each `sync_period` steps `phi += alpha * (theta - phi)`, then `theta = phi`.

    `theta` are the fast weights, which `fast_optimizer` moves at every step; `phi` are the slow ones, which start where `theta`
    does. Parameters are ordinary trees, the fast weights; the slow ones are in the state, and `gradtx.eval_params(state, params)`
    gives them. Code written for Optax may hand over the pair `LookaheadParams(fast, slow)` instead, in `init` and in `update`
    (with gradients taken at `params.fast`), and gets a pair of updates.

    Args:
      fast_optimizer: the transformation to wrap: a whole optimizer, with its learning rate.
      sync_period: steps from one meeting of the weights to the next, >= 1.
      slow_step_size: `alpha`, in [0, 1]: how far the slow weights follow.
      reset_state: whether the wrapped transformation starts anew, with a fresh state (schedules too), when the weights meet.

    State: `LookaheadState(fast_state, steps_since_sync int32, slow)`; 4 bytes a parameter more than the wrapped one's (float32,
      also for half-precision parameters); `slow` is None for pairs.

    Returns:
      The transformation; its update needs `params`. Nothing may change its updates before they are applied: put it around
      the whole chain, and no scaling after it. Every extra argument reaches the wrapped transformation.

    Raises:
      ValueError, TypeError: an argument outside its domain, `fast_optimizer` keeps averages of the parameters itself or
        accumulates, `params` was not passed to `update`, or a state that was made from a pair meets plain parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.lookahead(gradtx.sgd(1.0), sync_period=2, slow_step_size=0.5), jnp.array(0.0)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array(-1.0), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      ...     print(params, gradtx.eval_params(state, params))
      1.0 0.0
      1.0 1.0

    Source: Zhang et al. 2019, "Lookahead Optimizer: k steps forward, 1 step back", arXiv:1907.08610, algorithm 1.

    **Differs:** Optax demands the pair, drops extra arguments, selects by arithmetic on booleans (a NaN in what is not selected
    stays, and a random key in the state is an error), and resets the state for the weights before the last step.
    """

    fast_optimizer: Inner
    sync_period: PositiveInt
    slow_step_size: Fraction
    reset_state: Flag = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_final("lookahead", "fast_optimizer", self.fast_optimizer)
        check_steps("lookahead", "fast_optimizer", self.fast_optimizer)

    @functools.cached_property
    def inner(self) -> Any:
        return as_transformation(self.fast_optimizer)

    def init(self, params: Params) -> LookaheadState:
        if isinstance(params, LookaheadParams):
            return LookaheadState(self.inner.init(params.fast), zero_count(), None)
        return LookaheadState(self.inner.init(params), zero_count(), copies(params))

    def step(
        self, updates: Updates, state: LookaheadState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, LookaheadState]:
        params = require_params(params)
        fast, slow = params if isinstance(params, LookaheadParams) else (params, state.slow)
        if slow is None and jax.tree.leaves(fast):
            raise checks.WrongType(
                f"params is {checks.kind(params)}, but the state was made from LookaheadParams; pass the pair to update as well."
            )
        steps, fast_state = self.inner.advance(widen(updates), state.fast_state, fast, extra_args)
        sync = state.steps_since_sync == self.sync_period - 1
        before = widen(slow)
        steps, after = map_leaves(_synced, steps, before, fast, alpha=self.slow_step_size, sync=sync)
        steps = cast_like(steps, updates)
        if self.reset_state:
            fast_state = _select(sync, self.inner.init(apply_updates(fast, steps)), fast_state)
        count = jnp.where(sync, 0, state.steps_since_sync + 1)
        new = LookaheadState(fast_state, count, None if state.slow is None else cast_like(after, state.slow))
        if isinstance(params, LookaheadParams):
            return LookaheadParams(steps, cast_like(map_leaves(_minus, after, before), updates)), new
        return steps, new


class lookahead_wrapper(Preset, final=True):
    """`lookahead` with the paper's usual settings: each 5 steps `phi += 0.5 * (theta - phi)`, then `theta = phi`.

    Args:
      inner: the transformation to wrap: a whole optimizer, with its learning rate.
      sync_period, slow_step_size: as in `lookahead`.

    State: `LookaheadState`; 4 bytes a parameter more than the wrapped one's.

    Returns:
      The transformation; its update needs `params`, a plain tree. `gradtx.eval_params(state, params)` gives the slow weights.

    Raises:
      ValueError, TypeError: as `lookahead`.

    Example:
      >>> import gradtx
      >>> gradtx.lookahead_wrapper(gradtx.adam(1e-3), sync_period=10)
      lookahead_wrapper(inner=adam(learning_rate=0.001), sync_period=10)

    Source: Zhang et al. 2019, arXiv:1907.08610, algorithm 1.
    """

    inner: Inner
    sync_period: PositiveInt = 5
    slow_step_size: Fraction = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_final("lookahead_wrapper", "inner", self.inner)
        check_steps("lookahead_wrapper", "inner", self.inner)

    def chain(self) -> Any:
        return lookahead(self.inner, self.sync_period, self.slow_step_size)
