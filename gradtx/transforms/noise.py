"""Noise on gradients."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.base import GradientTransformation
from gradtx.core.checks import Domain, NonNegative
from gradtx.core.leaves import map_leaves
from gradtx.core.numerics import default_float, is_key, safe_increment, zero_count
from gradtx.core.values import factory


class AddNoiseState(NamedTuple):
    """Steps taken, and the key for the next step's noise."""

    count: jax.Array
    rng_key: jax.Array


def _is_key_or_seed(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return True
    return is_key(value) or (isinstance(value, jax.Array) and value.dtype == jnp.uint32 and value.ndim == 1)


Key = Annotated[int | jax.Array, Domain("a random key of jax.random, or a whole number to seed one", _is_key_or_seed)]


def as_key(key: int | jax.Array) -> jax.Array:
    """A typed random key: a whole number seeds one, an old-style array of uint32 is wrapped."""
    if isinstance(key, int):
        return jax.random.key(key)
    return key if is_key(key) else jax.random.wrap_key_data(key)


def _plus_noise(u: jax.Array, key: jax.Array, *, deviation: Any) -> jax.Array:
    return u + deviation * jax.random.normal(key, u.shape, u.dtype)


@factory()
def add_noise(eta: NonNegative, gamma: NonNegative, key: Key) -> GradientTransformation:
    """Adds Gaussian noise of falling variance: `u + sqrt(eta / t^gamma) * xi`, `t = 1, 2, ...`.

    Args:
      eta: variance at the first step, >= 0, in units of the update squared.
      gamma: how fast it falls, >= 0; 0 keeps it.
      key: random key, or a whole number to seed one.

    State: `AddNoiseState(count int32, rng_key)`, one key.

    Returns:
      The transformation.

    Raises:
      ValueError: `eta` or `gamma` is negative.
      TypeError: `key` is no key.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.add_noise(eta=0.01, gamma=0.55, key=0)
      >>> u, state = tx.update(jnp.zeros(10_000), tx.init(jnp.zeros(10_000)))
      >>> round(float(u.std()), 2)
      0.1

    Source: Neelakantan et al. 2015, arXiv:1511.06807, equation 1.

    **Differs:** `key` is required, and Optax's deprecated `seed` is gone.
    """

    def init(params: Any) -> AddNoiseState:
        return AddNoiseState(zero_count(), as_key(key))

    def update(updates: Any, state: AddNoiseState, params: Any = None, **extra_args: Any) -> tuple[Any, AddNoiseState]:
        count = safe_increment(state.count)
        deviation = jnp.sqrt(eta / count.astype(default_float()) ** gamma)
        next_key, now = jax.random.split(state.rng_key)
        treedef = jax.tree.structure(updates)
        state = AddNoiseState(count, next_key)
        if not treedef.num_leaves:
            return updates, state
        keys = treedef.unflatten(list(jax.random.split(now, treedef.num_leaves)))
        return map_leaves(_plus_noise, updates, keys, deviation=deviation), state

    return GradientTransformation(init, update)
