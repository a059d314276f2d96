"""SAM as Optax writes it: steps of an adversarial optimizer, then one of the outer optimizer, under Optax's names."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.evaluation import gradient_at
from gradtx.core.checks import Domain, Flag, PositiveInt
from gradtx.core.leaves import cast_like, copies, map_leaves, widen
from gradtx.core.numerics import cond, guarded_ratio, zero_count
from gradtx.core.transformation import EmptyState, GradientTransformation, Inner, Params, Transformation, Updates, check_not_final
from gradtx.core.trees import require_params
from gradtx.core.values import factory
from gradtx.tree.reductions import norm
from gradtx.wrappers.ascent import beside, inner_of, per_lane

AxisName = Annotated[str, Domain("the name of a mapped axis", lambda value: isinstance(value, str))]


class SAMState(NamedTuple):
    """Adversarial steps since the last outer one, both optimizers' states, and the parameters to return to (None if opaque)."""

    steps_since_sync: jax.Array
    opt_state: Any
    adv_state: Any
    cache: Any

    def eval_params(self, params: Any) -> Any:
        """What `gradtx.eval_params` gives: the parameters themselves, or those to return to in the midst of adversarial steps."""
        if self.cache is None:
            return params
        return beside(lambda c, p: jnp.where(per_lane(self.steps_since_sync == 0, c), p.astype(c.dtype), c), self.cache, params)


def _over(u: jax.Array, *, length: Any) -> jax.Array:
    return guarded_ratio(u, length)


def _against(u: jax.Array, p: jax.Array) -> jax.Array:
    return p - u


def _return(u: jax.Array, c: jax.Array, p: jax.Array) -> jax.Array:
    return c - p + u


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
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, EmptyState]:
        return map_leaves(_over, updates, length=norm(updates)), state


@factory(last=lambda arguments: not arguments["opaque_mode"])
def sam(
    optimizer: Inner,
    adv_optimizer: Inner,
    sync_period: PositiveInt = 2,
    reset_state: Flag = True,
    opaque_mode: Flag = False,
    batch_axis_name: AxisName | None = None,
) -> GradientTransformation:
    """Optax's SAM: `sync_period - 1` steps uphill by `adv_optimizer`, then one of `optimizer` from where they began.

    `sam(sgd(0.1), chain(normalize(), sgd(0.05)))` is SAM with `rho` = 0.05. Unless opaque, each call of `update` is one of these
    steps, so that the parameters are perturbed ones after all but each `sync_period`-th call; `gradtx.eval_params(state, params)`
    gives those to return to. An average of the parameters belongs inside, in `optimizer`: around it would count the perturbed ones.
    `sam_wrapper` has no such states in between: prefer it in new code.

    Args:
      optimizer: the outer optimizer.
      adv_optimizer: the adversarial one; its updates are subtracted.
      sync_period: calls from one outer step to the next, >= 1; 1 is `optimizer` alone.
      reset_state: whether `adv_optimizer` starts anew after each outer step.
      opaque_mode: True takes all steps in one call, with gradients from the extra argument `grad_fn`.
      batch_axis_name: mapped axis over which an opaque SAM averages its gradients (`jax.lax.pmean`); None is none.

    State: `SAMState(steps_since_sync int32, opt_state, adv_state, cache)`: both states, and, unless opaque, 4 bytes a parameter.

    Returns:
      The transformation. Its update needs `params`; an opaque one also `grad_fn(params, i)`, which gives the gradient at the
      parameters after `i + 1` steps uphill. Unless opaque, nothing may change its updates before they are applied.

    Raises:
      ValueError, TypeError: an argument outside its domain, `params` or `grad_fn` was not passed to `update`, or a member calls
        `grad_fn` itself.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.sam(gradtx.sgd(0.1), gradtx.chain(gradtx.normalize(), gradtx.sgd(0.5)), opaque_mode=True)
      >>> w = jnp.array([3.0, 4.0])
      >>> [round(float(u), 4) for u in tx.update(w, tx.init(w), w, grad_fn=lambda w, i: w)[0]]
      [-0.33, -0.44]

    Source: Foret et al. 2020, arXiv:2010.01412; the form is that of Optax's `contrib.sam`.

    **Differs:** the cache is float32 for half-precision parameters; optimizers that are not due are not run, so that what they
    would have made of a NaN goes nowhere. In Optax `sync_period` = 1 steps from the parameters before last.
    """
    check_not_final("sam", "adv_optimizer", adv_optimizer)
    outer, adversary = inner_of("sam", optimizer, "optimizer"), inner_of("sam", adv_optimizer, "adv_optimizer")

    def init(params: Any) -> SAMState:
        return SAMState(zero_count(), outer.init(params), adversary.init(params), None if opaque_mode else copies(params))

    def one_step(updates: Any, state: SAMState, params: Any = None, **extra_args: Any) -> tuple[Any, SAMState]:
        params = require_params(params)
        first, last = state.steps_since_sync == 0, state.steps_since_sync == sync_period - 1
        wide = cast_like(params, state.cache)
        cache = jax.tree.map(lambda p, c: jnp.where(first, p, c), wide, state.cache)

        def down() -> Any:
            moved, opt_state = outer.advance(updates, state.opt_state, cast_like(cache, params), extra_args)
            adv_state = adversary.init(params) if reset_state else state.adv_state
            return cast_like(map_leaves(_return, widen(moved), cache, wide), updates), opt_state, adv_state

        def up() -> Any:
            moved, adv_state = adversary.advance(updates, state.adv_state, params, extra_args)
            return jax.tree.map(lambda u: -u, moved), state.opt_state, adv_state

        updates, opt_state, adv_state = cond(last, down, up)
        return updates, SAMState((state.steps_since_sync + 1) % sync_period, opt_state, adv_state, cache)

    def all_steps(
        updates: Any, state: SAMState, params: Any = None, *, grad_fn: Callable[..., Any], **extra_args: Any
    ) -> tuple[Any, SAMState]:
        gradient, adv_state, point = updates, state.adv_state, widen(require_params(params))
        for i in range(sync_period - 1):
            moved, adv_state = adversary.advance(gradient, adv_state, cast_like(point, params), extra_args)
            point = map_leaves(_against, widen(moved), point)
            gradient = gradient_at(lambda at, i=i: grad_fn(at, i), point, params, updates)
            if batch_axis_name is not None:
                gradient = jax.lax.pmean(gradient, batch_axis_name)
        if reset_state:
            adv_state = adversary.init(params)
        moved, opt_state = outer.advance(cast_like(gradient, updates), state.opt_state, params, extra_args)
        return moved, SAMState(zero_count(), opt_state, adv_state, None)

    return GradientTransformation(init, all_steps if opaque_mode else one_step)
