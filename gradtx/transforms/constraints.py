"""Updates that keep a promise: no NaN, no negative parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.leaves import each_leaf
from gradtx.core.transformation import EmptyState, Transformation
from gradtx.core.types import ExtraArg, Params, Updates


class ZeroNansState(NamedTuple):
    """For each leaf, whether its last update had a NaN."""

    found_nan: Updates


class zero_nans(Transformation, keeps_zero=True, rests=True):
    """Replaces NaN by 0, element by element; inf stays.

    State: `ZeroNansState(found_nan)`, one boolean a leaf: whether the last update had a NaN there.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.zero_nans()
      >>> updates, state = tx.update(jnp.array([1.0, jnp.nan]), tx.init(jnp.zeros(2)))
      >>> updates, bool(state.found_nan)
      (Array([1., 0.], dtype=float32), True)
    """

    def init(self, params: Params) -> ZeroNansState:
        return ZeroNansState(jax.tree.map(lambda p: jnp.zeros((), jnp.bool_), params))

    def step(
        self, updates: Updates, state: ZeroNansState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ZeroNansState]:
        @each_leaf
        def rule(u: jax.Array) -> tuple[jax.Array, jax.Array]:
            is_nan = jnp.isnan(u)
            return jnp.where(is_nan, 0, u), jnp.any(is_nan)

        updates, found_nan = rule(updates)
        return updates, ZeroNansState(found_nan)


class keep_params_nonnegative(Transformation, needs_params=True, rests=True):
    """Shortens updates so that parameters do not fall below zero: `max(u, -p)`.

    Put it last in a chain. Parameters must not be negative at the start. Its update needs `params`.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.keep_params_nonnegative())
      >>> params = jnp.array([1.0, 3.0])
      >>> updates, _ = tx.update(jnp.array([2.0, 2.0]), tx.init(params), params)
      >>> params + updates
      Array([0., 1.], dtype=float32)
    """

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        @each_leaf
        def rule(u: jax.Array, p: jax.Array) -> jax.Array:
            return jnp.where(p + u < 0, -p, u)

        return rule(updates, params), state
