"""Transformations that run at some steps only."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.composites import Wrapper
from gradtx.core.domains import Flag, Function
from gradtx.core.numerics import cond, safe_increment, zero_count
from gradtx.core.pairs import Inner
from gradtx.core.types import ExtraArg, Params, State, Updates


class ConditionallyTransformState(NamedTuple):
    """The wrapped transformation's state, and the steps taken."""

    inner_state: State
    step: jax.Array


class ConditionallyMaskState(NamedTuple):
    """The steps taken, and the wrapped transformation's state."""

    step: jax.Array
    inner_state: State


class conditionally_transform(Wrapper, keeps_zero=True):
    """Applies a transformation at the steps where a condition holds.

    At the other steps updates pass unchanged, and its state stays.

    Args:
      inner: the transformation.
      should_transform_fn: function of the steps taken (int32), and of the extra arguments if
        forwarded, to a boolean scalar.
      forward_extra_args: whether the condition gets the extra arguments too.

    State: `ConditionallyTransformState(inner_state, step int32)`; 4 bytes and the inner state.

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

    inner: Inner
    should_transform_fn: Function
    forward_extra_args: Flag = False

    def init(self, params: Params) -> ConditionallyTransformState:
        """Steps taken, and the state of the wrapped transformation."""
        return ConditionallyTransformState(self.inner.init(params), zero_count())

    def step(
        self, updates: Updates, state: ConditionallyTransformState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ConditionallyTransformState]:
        """A step of the wrapped transformation where the condition holds."""
        holds = self.should_transform_fn(state.step, **(extra_args if self.forward_extra_args else {}))
        updates, inner_state = cond(
            holds,
            lambda: self.inner.advance(updates, state.inner_state, params, extra_args),
            lambda: (updates, state.inner_state),
        )
        return updates, ConditionallyTransformState(inner_state, safe_increment(state.step))


class conditionally_mask(Wrapper, keeps_zero=True):
    """Applies a transformation at the steps where a condition holds; other steps move nothing.

    At the other steps updates are zero and its state stays.

    Args:
      inner: the transformation.
      should_transform_fn: function of the steps taken (int32), and of the extra arguments if
        forwarded, to a boolean scalar.
      forward_extra_args: whether the condition gets the extra arguments too.

    State: `ConditionallyMaskState(step int32, inner_state)`; 4 bytes and the inner state.

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

    inner: Inner
    should_transform_fn: Function
    forward_extra_args: Flag = False

    def init(self, params: Params) -> ConditionallyMaskState:
        """Steps taken, and the state of the wrapped transformation."""
        return ConditionallyMaskState(zero_count(), self.inner.init(params))

    def step(
        self, updates: Updates, state: ConditionallyMaskState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ConditionallyMaskState]:
        """A step of the wrapped transformation where the condition holds."""
        holds = self.should_transform_fn(state.step, **(extra_args if self.forward_extra_args else {}))
        updates, inner_state = cond(
            holds,
            lambda: self.inner.advance(updates, state.inner_state, params, extra_args),
            lambda: (jax.tree.map(jnp.zeros_like, updates), state.inner_state),
        )
        return updates, ConditionallyMaskState(safe_increment(state.step), inner_state)
