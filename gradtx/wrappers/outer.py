"""An outer loop: every few steps a second optimizer moves the weights by what the first did."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.composites import Wrapper
from gradtx.core.domains import PositiveInt
from gradtx.core.leaves import copies, each_leaf, select_tree
from gradtx.core.numerics import zero_count
from gradtx.core.pairs import Inner
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import ExtraArg, Params, State, Updates
from gradtx.core.walk import check_not_final, check_steps
from gradtx.optimizers.sgd import sgd


class OuterState(NamedTuple):
    """Both optimizers' states, steps since the last outer step, and the slow weights."""

    inner_state: State
    outer_state: State
    steps_since_sync: jax.Array
    slow: Params

    def eval_params(self, params: Params) -> Params:
        """What `gradtx.eval_params` gives: the slow weights."""
        return self.slow


class outer(Wrapper, final=True, needs_params=True):
    """Each `sync_period` steps an outer step: `slow = slow + v`, and the parameters go on there.

    `v` is the update of `outer_optimizer` for `s = slow - p`, minus the way that `inner` has gone,
    as a gradient. With the default it is Nesterov's: `b = 0.5*b + s`, `v = -0.7 * (s + 0.5*b)`. The
    state of `inner` goes on. `gradtx.eval_params(state, params)` gives the slow weights. Nothing
    may change the updates before they are applied: put it around the whole chain. An accumulation
    stands around it. `update` needs `params`; extra arguments reach `inner`.

    Args:
      inner: the transformation to wrap: a whole optimizer, with its learning rate; none that keeps
        averages of the parameters itself.
      sync_period: steps from one outer step to the next, >= 1.
      outer_optimizer: a whole optimizer, with its learning rate. `sgd(alpha)` is Lookahead's.

    State: `OuterState(inner_state, outer_state, steps_since_sync int32, slow)`; 4 bytes a parameter
      (float32, also for half-precision parameters) and the outer optimizer's state more than the
      wrapped one's.

    Raises:
      ValueError: one of the optimizers keeps averages of the parameters, or accumulates.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.outer(gradtx.sgd(1.0), 2, gradtx.sgd(0.5)), jnp.array(0.0)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jnp.array(-1.0), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      ...     print(params, gradtx.eval_params(state, params))
      1.0 0.0
      1.0 1.0

    Source: Douillard et al. 2023, "DiLoCo", arXiv:2311.08105, algorithm 1, on one worker; Kallusky
    et al. 2025, "Snoo", arXiv:2510.15830.
    """

    sync_period: PositiveInt = 30
    outer_optimizer: Inner = sgd(0.7, 0.5, nesterov=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument, tx in (("inner", self.inner), ("outer_optimizer", self.outer_optimizer)):
            check_not_final("outer", argument, tx)
            check_steps("outer", argument, tx)

    @property
    def inside(self) -> tuple[Transformation, ...]:
        return (self.inner, self.outer_optimizer)

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        return (Part(self.inner, params, state.inner_state), Part(self.outer_optimizer, params, state.outer_state))

    def init(self, params: Params) -> OuterState:
        return OuterState(self.inner.init(params), self.outer_optimizer.init(params), zero_count(), copies(params))

    def step(
        self, updates: Updates, state: OuterState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, OuterState]:
        moved, inner_state = self.inner.advance(updates, state.inner_state, params, extra_args)
        sync = state.steps_since_sync == self.sync_period - 1
        way = each_leaf(lambda u, slow, p: slow - p - u)(moved, state.slow, params)
        v, outer_state = self.outer_optimizer.advance(way, state.outer_state, state.slow, {})

        @each_leaf
        def rule(u: jax.Array, slow: jax.Array, v: jax.Array, p: jax.Array) -> tuple[jax.Array, jax.Array]:
            new = jnp.where(sync, slow + v, slow)
            return jnp.where(sync, new - p, u), new

        moved, slow = rule(moved, state.slow, v, params)
        outer_state = select_tree(sync, outer_state, state.outer_state)
        return moved, OuterState(inner_state, outer_state, jnp.where(sync, 0, state.steps_since_sync + 1), slow)
