"""SAM as Optax writes it: steps of an adversarial optimizer, then one of the outer optimizer."""

from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.evaluation import gradient_at
from gradtx.core.domains import Domain, Flag, PositiveInt
from gradtx.core.leaves import cast_like, copies, each_leaf, in_dtypes_of
from gradtx.core.numerics import cond, guarded_ratio, zero_count
from gradtx.core.pairs import Inner
from gradtx.core.transformation import EmptyState, Part, Transformation
from gradtx.core.trees import require_params
from gradtx.core.types import ExtraArg, Params, State, Updates
from gradtx.core.walk import check_not_final
from gradtx.tree.reductions import norm
from gradtx.wrappers.ascent import beside, check_one_gradient, per_lane

AxisName = Annotated[str, Domain("the name of a mapped axis", lambda value: isinstance(value, str))]


class SAMState(NamedTuple):
    """Adversarial steps since the last outer one, both states, what to return to (None: opaque)."""

    steps_since_sync: jax.Array
    opt_state: State
    adv_state: State
    cache: Params | None

    def eval_params(self, params: Params) -> Params:
        """Those to return to amid adversarial steps, else `params`: for `gradtx.eval_params`."""
        if self.cache is None:
            return params
        return beside(lambda c, p: jnp.where(per_lane(self.steps_since_sync == 0, c), p.astype(c.dtype), c), self.cache, params)


class normalize(Transformation, keeps_zero=True):
    """Gives all updates together the norm 1: `u / |u|`, 0 at 0.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.normalize()
      >>> tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0]
      Array([0.6, 0.8], dtype=float32)

    **Differs:** in Optax, where it is `contrib.normalize`, zero updates become NaN.
    """

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        length = norm(updates)

        @each_leaf
        def rule(u: jax.Array) -> jax.Array:
            return guarded_ratio(u, length)

        return rule(updates), state


class sam(Transformation):
    """Optax's SAM: `sync_period - 1` steps uphill, then one of `optimizer` from where they began.

    `sam(sgd(0.1), chain(normalize(), sgd(0.05)))` is SAM with `rho` = 0.05. Unless opaque, each
    call of `update` is one of these steps, so the parameters are perturbed except after each
    `sync_period`-th call; `gradtx.eval_params(state, params)` gives those to return to. Its updates
    must then be applied as they are, and an average of the parameters belongs inside, in
    `optimizer`: outside, it would count the perturbed ones. Prefer `sam_wrapper` in new code: its
    parameters are never perturbed.

    Its update needs `params`. With `opaque_mode` it also needs `grad_fn(params, i)`, which gives
    the gradient at the parameters after `i + 1` steps uphill.

    Args:
      optimizer: the outer optimizer.
      adv_optimizer: the adversarial one; its updates are subtracted.
      sync_period: calls from one outer step to the next, >= 1; 1 is `optimizer` alone.
      reset_state: whether `adv_optimizer` starts anew after each outer step.
      opaque_mode: True takes all steps in one call, with gradients from the extra argument
        `grad_fn`.
      batch_axis_name: mapped axis over which an opaque SAM averages its gradients
        (`jax.lax.pmean`); None is none.

    State: `SAMState(steps_since_sync int32, opt_state, adv_state, cache)`: both states, and, unless
      opaque, 4 bytes a parameter.

    Raises:
      ValueError: a member calls `grad_fn` itself, or `adv_optimizer` keeps averages of the
        parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax
      >>> adversary = gradtx.chain(gradtx.normalize(), gradtx.sgd(0.5))
      >>> tx = gradtx.optax.contrib.sam(gradtx.sgd(0.1), adversary, opaque_mode=True)
      >>> w = jnp.array([3.0, 4.0])
      >>> [round(float(u), 4) for u in tx.update(w, tx.init(w), w, grad_fn=lambda w, i: w)[0]]
      [-0.33, -0.44]

    Source: Foret et al. 2020, arXiv:2010.01412; the form is that of Optax's `contrib.sam`.

    **Differs:** the cache is float32 for half-precision parameters; only the optimizer that is due
    runs, so the other one's NaN goes nowhere. In Optax `sync_period` = 1 steps from the parameters
    before last.
    """

    optimizer: Inner
    adv_optimizer: Inner
    sync_period: PositiveInt = 2
    reset_state: Flag = True
    opaque_mode: Flag = False
    batch_axis_name: AxisName | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_final("sam", "adv_optimizer", self.adv_optimizer)
        check_one_gradient("sam", "optimizer", self.optimizer)
        check_one_gradient("sam", "adv_optimizer", self.adv_optimizer)

    @property
    def final(self) -> bool:  # type: ignore[override]
        """Whether the state holds parameters to return to."""
        return not self.opaque_mode

    @property
    def takes(self) -> Mapping[str, bool]:  # type: ignore[override]
        """An opaque one takes gradients itself."""
        return {"grad_fn": True} if self.opaque_mode else {}

    @property
    def inside(self) -> tuple[Transformation, ...]:
        return (self.optimizer, self.adv_optimizer)

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        return (Part(self.optimizer, params, state.opt_state), Part(self.adv_optimizer, params, state.adv_state))

    def undone(self, before: SAMState, after: SAMState) -> SAMState:
        return before._replace(
            opt_state=self.optimizer.undone(before.opt_state, after.opt_state),
            adv_state=self.adv_optimizer.undone(before.adv_state, after.adv_state),
        )

    def init(self, params: Params) -> SAMState:
        cache = None if self.opaque_mode else copies(params)
        return SAMState(zero_count(), self.optimizer.init(params), self.adv_optimizer.init(params), cache)

    def step(
        self, updates: Updates, state: SAMState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, SAMState]:
        steps = self.all_steps if self.opaque_mode else self.one_step
        return steps(updates, state, require_params(params), **extra_args)

    def one_step(self, updates: Updates, state: SAMState, params: Params, **extra_args: ExtraArg) -> tuple[Updates, SAMState]:
        """Up by the adversarial optimizer, or, when due, down by the outer one from the start."""
        first, last = state.steps_since_sync == 0, state.steps_since_sync == self.sync_period - 1
        here = cast_like(params, state.cache)
        cache = jax.tree.map(lambda p, c: jnp.where(first, p, c), here, state.cache)

        @each_leaf
        def from_cache(u: jax.Array, c: jax.Array, p: jax.Array) -> jax.Array:
            return c - p + u

        def down() -> tuple[Updates, State, State]:
            u, opt_state = self.optimizer.advance(updates, state.opt_state, cast_like(cache, params), extra_args)
            return in_dtypes_of(from_cache(u, cache, here), updates), opt_state, self.adversary_after(state.adv_state, params)

        def up() -> tuple[Updates, State, State]:
            u, adv_state = self.adv_optimizer.advance(updates, state.adv_state, params, extra_args)
            return in_dtypes_of(jax.tree.map(lambda u: -u, u), updates), state.opt_state, adv_state

        updates, opt_state, adv_state = cond(last, down, up)
        return updates, SAMState((state.steps_since_sync + 1) % self.sync_period, opt_state, adv_state, cache)

    def all_steps(
        self, updates: Updates, state: SAMState, params: Params, *, grad_fn: Callable[..., Updates], **extra_args: ExtraArg
    ) -> tuple[Updates, SAMState]:
        """A whole period."""

        @each_leaf
        def uphill(p: jax.Array, u: jax.Array) -> jax.Array:
            return p - u

        gradient, adv_state, point = updates, state.adv_state, params
        for i in range(self.sync_period - 1):
            u, adv_state = self.adv_optimizer.advance(gradient, adv_state, cast_like(point, params), extra_args)
            point = uphill(point, u)
            gradient = cast_like(gradient_at(lambda at, i=i: grad_fn(at, i), point, params, updates), updates)
            if self.batch_axis_name is not None:
                gradient = jax.lax.pmean(gradient, self.batch_axis_name)
        u, opt_state = self.optimizer.advance(gradient, state.opt_state, params, extra_args)
        return u, SAMState(zero_count(), opt_state, self.adversary_after(adv_state, params), None)

    def adversary_after(self, adv_state: State, params: Params) -> State:
        """The adversarial optimizer's state after an outer step."""
        return in_dtypes_of(self.adv_optimizer.init(params), adv_state) if self.reset_state else adv_state
