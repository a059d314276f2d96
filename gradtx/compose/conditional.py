"""Transformations that run at some steps only."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.base import GradientTransformation, member
from gradtx.core.checks import Flag, Function, Transformation
from gradtx.core.leaves import cast_like
from gradtx.core.numerics import cond, safe_increment, zero_count
from gradtx.core.values import factory


class ConditionallyTransformState(NamedTuple):
    """The wrapped transformation's state, and the steps taken."""

    inner_state: Any
    step: jax.Array


class ConditionallyMaskState(NamedTuple):
    """The steps taken, and the wrapped transformation's state."""

    step: jax.Array
    inner_state: Any


@factory(composite=True, keeps_zero=True)
def conditionally_transform(
    inner: Transformation, should_transform_fn: Function, forward_extra_args: Flag = False
) -> GradientTransformation:
    """Applies a transformation at the steps where a condition holds; at the others updates and its state pass unchanged.

    Args:
      inner: the transformation.
      should_transform_fn: function of the steps taken (int32), and of the extra arguments if forwarded, to a boolean scalar.
      forward_extra_args: whether the condition gets the extra arguments too.

    State: `ConditionallyTransformState(inner_state, step int32)`; 4 bytes and the inner state.

    Returns:
      The transformation.

    Raises:
      TypeError: `inner` is no transformation, or the condition no function.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.conditionally_transform(gradtx.scale(10.0), lambda step: step >= 1)
      >>> state, seen = tx.init(jnp.zeros(())), []
      >>> for _ in range(3):
      ...     u, state = tx.update(jnp.array(1.0), state)
      ...     seen.append(float(u))
      >>> seen
      [1.0, 10.0, 10.0]
    """
    inner = member(inner)
    run = _when(inner, should_transform_fn, forward_extra_args, lambda updates: updates)

    def init(params: Any) -> ConditionallyTransformState:
        return ConditionallyTransformState(inner.init(params), zero_count())

    def update(
        updates: Any, state: ConditionallyTransformState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, ConditionallyTransformState]:
        updates, inner_state = run(updates, state.inner_state, params, state.step, extra_args)
        return updates, ConditionallyTransformState(inner_state, safe_increment(state.step))

    return GradientTransformation(init, update)


@factory(composite=True, keeps_zero=True)
def conditionally_mask(
    inner: Transformation, should_transform_fn: Function, forward_extra_args: Flag = False
) -> GradientTransformation:
    """Applies a transformation at the steps where a condition holds; at the others updates are zero and its state stays.

    Args:
      inner: the transformation.
      should_transform_fn: function of the steps taken (int32), and of the extra arguments if forwarded, to a boolean scalar.
      forward_extra_args: whether the condition gets the extra arguments too.

    State: `ConditionallyMaskState(step int32, inner_state)`; 4 bytes and the inner state.

    Returns:
      The transformation.

    Raises:
      TypeError: `inner` is no transformation, or the condition no function.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.conditionally_mask(gradtx.sgd(1.0), lambda step: step % 2 == 0)
      >>> state, seen = tx.init(jnp.zeros(())), []
      >>> for _ in range(3):
      ...     u, state = tx.update(jnp.array(1.0), state)
      ...     seen.append(float(u))
      >>> seen
      [-1.0, 0.0, -1.0]
    """
    inner = member(inner)
    run = _when(inner, should_transform_fn, forward_extra_args, lambda updates: jax.tree.map(jnp.zeros_like, updates))

    def init(params: Any) -> ConditionallyMaskState:
        return ConditionallyMaskState(zero_count(), inner.init(params))

    def update(
        updates: Any, state: ConditionallyMaskState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, ConditionallyMaskState]:
        updates, inner_state = run(updates, state.inner_state, params, state.step, extra_args)
        return updates, ConditionallyMaskState(safe_increment(state.step), inner_state)

    return GradientTransformation(init, update)


def _when(
    inner: GradientTransformation, condition: Callable[..., Any], forward: bool, otherwise: Callable[[Any], Any]
) -> Callable[..., tuple[Any, Any]]:
    """The inner update where the condition holds, else `otherwise(updates)` and the state as it was."""

    def run(updates: Any, inner_state: Any, params: Any, step: jax.Array, extra_args: dict[str, Any]) -> tuple[Any, Any]:
        holds = condition(step, **(extra_args if forward else {}))

        def transform() -> tuple[Any, Any]:
            changed, after = inner.update(updates, inner_state, params, **extra_args)
            return cast_like(changed, updates), after

        return cond(holds, transform, lambda: (otherwise(updates), inner_state))

    return run
