"""Lookahead: fast weights run ahead, slow weights follow them part of the way every few steps."""

from typing import NamedTuple, Self

import jax
import jax.numpy as jnp

from gradtx.core import checks
from gradtx.core.apply import apply_updates
from gradtx.core.composites import Preset
from gradtx.core.domains import Flag, Fraction, PositiveInt
from gradtx.core.leaves import cast_like, copies, each_leaf, select_tree
from gradtx.core.numerics import zero_count
from gradtx.core.pairs import Inner
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import ExtraArg, Params, State, Updates
from gradtx.core.walk import check_not_final, check_steps


class LookaheadParams(NamedTuple):
    """Fast and slow weights side by side, as Optax's `lookahead` wants its parameters.

    Gradients are taken at `fast`.
    """

    fast: Params
    slow: Params

    @classmethod
    def init_synced(cls, params: Params) -> Self:
        """The pair at the start; the slow weights are copies, since a step may overwrite both."""
        return cls(fast=params, slow=jax.tree.map(jnp.array, params))

    def gradient_point(self) -> Params:
        """What gradients have the shape of."""
        return self.fast


class LookaheadState(NamedTuple):
    """The wrapped transformation's state, steps since the weights met, and the slow weights.

    `slow` is None where the parameters hold them.
    """

    fast_state: State
    steps_since_sync: jax.Array
    slow: Params | None

    def eval_params(self, params: Params) -> Params:
        """What `gradtx.eval_params` gives: the slow weights."""
        return LookaheadParams(params.slow, params.slow) if isinstance(params, LookaheadParams) else self.slow


class lookahead(Transformation, final=True, needs_params=True):
    """Lookahead: each `sync_period` steps `phi += alpha * (theta - phi)`, then `theta = phi`.

    `theta` are the fast weights, which `fast_optimizer` moves at every step; `phi` are the slow
    ones, which start where `theta` does. Parameters are ordinary trees, the fast weights; the slow
    ones are in the state, and `gradtx.eval_params(state, params)` gives them. Code written for
    Optax may hand over the pair `LookaheadParams(fast, slow)` instead, in `init` and in `update`
    (with gradients taken at `params.fast`), and gets a pair of updates.

    Nothing may change the updates before they are applied: put it around the whole chain, and no
    scaling after it. An accumulation stands around it too. `update` needs `params`; every extra
    argument reaches the wrapped transformation.

    Args:
      fast_optimizer: the transformation to wrap: a whole optimizer, with its learning rate; none
        that keeps averages of the parameters itself.
      sync_period: steps from one meeting of the weights to the next, >= 1.
      slow_step_size: `alpha`, in [0, 1]: how far the slow weights follow.
      reset_state: whether the wrapped transformation starts anew, with a fresh state (schedules
        too), when the weights meet.

    State: `LookaheadState(fast_state, steps_since_sync int32, slow)`; 4 bytes a parameter more than
      the wrapped one's (float32, also for half-precision parameters); `slow` is None for pairs.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax
      >>> tx = gradtx.optax.lookahead(gradtx.sgd(1.0), sync_period=2, slow_step_size=0.5)
      >>> params = jnp.array(0.0)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array(-1.0), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      ...     print(params, gradtx.eval_params(state, params))
      1.0 0.0
      1.0 1.0

    Source: Zhang et al. 2019, "Lookahead Optimizer: k steps forward, 1 step back",
    arXiv:1907.08610, algorithm 1.

    **Differs:** Optax demands the pair, drops extra arguments, selects by arithmetic on booleans (a
    NaN in what is not selected stays, and a random key in the state is an error), and resets the
    state for the weights before the last step.
    """

    fast_optimizer: Inner
    sync_period: PositiveInt
    slow_step_size: Fraction
    reset_state: Flag = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_final("lookahead", "fast_optimizer", self.fast_optimizer)
        check_steps("lookahead", "fast_optimizer", self.fast_optimizer)

    @property
    def inside(self) -> tuple[Transformation, ...]:
        return (self.fast_optimizer,)

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        fast = params.fast if isinstance(params, LookaheadParams) else params
        return (Part(self.fast_optimizer, fast, state.fast_state),)

    def init(self, params: Params) -> LookaheadState:
        if isinstance(params, LookaheadParams):
            return LookaheadState(self.fast_optimizer.init(params.fast), zero_count(), None)
        return LookaheadState(self.fast_optimizer.init(params), zero_count(), copies(params))

    def step(
        self, updates: Updates, state: LookaheadState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, LookaheadState]:
        fast, slow = params if isinstance(params, LookaheadParams) else (params, state.slow)
        if slow is None:
            raise checks.WrongType(
                f"params is {checks.kind(params)}, but the state was made from LookaheadParams; pass the pair to update as well."
            )
        alpha, sync = self.slow_step_size, state.steps_since_sync == self.sync_period - 1
        updates, fast_state = self.fast_optimizer.advance(updates, state.fast_state, fast, extra_args)

        @each_leaf
        def rule(u: jax.Array, phi: jax.Array, theta: jax.Array) -> tuple[jax.Array, ...]:
            new = jnp.where(sync, phi + alpha * (theta + u - phi), phi)
            return jnp.where(sync, new - theta, u), new, new - phi

        updates, new, moved = rule(updates, slow, fast)
        if self.reset_state:
            fast_state = select_tree(sync, self.fast_optimizer.init(apply_updates(fast, updates)), fast_state)
        after = LookaheadState(fast_state, jnp.where(sync, 0, state.steps_since_sync + 1), None if state.slow is None else new)
        if isinstance(params, LookaheadParams):  # not the gradients' tree, so not cast like them
            return LookaheadParams(cast_like(updates, fast), cast_like(moved, slow)), after
        return updates, after


class lookahead_wrapper(Preset, final=True):
    """`lookahead` with the paper's usual settings: each 5 steps `theta = phi = (theta + phi) / 2`.

    `gradtx.eval_params(state, params)` gives the slow weights `phi`. Nothing may change the updates
    before they are applied; see `lookahead`. `update` needs `params`.

    Args:
      inner: the transformation to wrap: a whole optimizer, with its learning rate; none that keeps
        averages of the parameters.
      sync_period: steps from one meeting of the weights to the next, >= 1.
      slow_step_size: how far the slow weights follow, in [0, 1].

    State: `LookaheadState(fast_state, steps_since_sync int32, slow)`; 4 bytes a parameter more than
      the wrapped one's.

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

    def chain(self) -> lookahead:
        return lookahead(self.inner, self.sync_period, self.slow_step_size)
