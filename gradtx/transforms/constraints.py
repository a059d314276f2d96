"""Updates that keep a promise: no NaN, no negative parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.leaves import map_leaves
from gradtx.core.transformation import EmptyState, Params, Transformation, Updates
from gradtx.core.trees import require_params


class ZeroNansState(NamedTuple):
    """For each leaf, whether its last update had a NaN."""

    found_nan: Any


def _no_nan(u: jax.Array) -> jax.Array:
    return jnp.where(jnp.isnan(u), jnp.zeros_like(u), u)


class zero_nans(Transformation, keeps_zero=True):
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
        self, updates: Updates, state: ZeroNansState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, ZeroNansState]:
        found = jax.tree.map(lambda u: jnp.any(jnp.isnan(u)), updates)
        return map_leaves(_no_nan, updates), ZeroNansState(found)


def _stop_at_zero(u: jax.Array, p: jax.Array) -> jax.Array:
    return jnp.where(p + u < 0, -p, u)


class keep_params_nonnegative(Transformation):
    """Shortens updates so that parameters do not fall below zero: `max(u, -p)`. Put it last in a chain.

    Parameters must not be negative at the start.

    State: `EmptyState()`, 0 bytes.

    Returns:
      The transformation; its update needs `params`.

    Raises:
      ValueError: `params` was not passed to `update`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.keep_params_nonnegative())
      >>> params = jnp.array([1.0, 3.0])
      >>> updates, _ = tx.update(jnp.array([2.0, 2.0]), tx.init(params), params)
      >>> params + updates
      Array([0., 1.], dtype=float32)
    """

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, EmptyState]:
        return map_leaves(_stop_at_zero, updates, require_params(params)), state
