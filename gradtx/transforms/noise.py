"""Noise on updates: Gaussian of falling variance, on a sphere, of Langevin dynamics."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gradtx.core.domains import Domain, NonNegative, Positive, Rate, scheduled_value
from gradtx.core.leaves import each_leaf
from gradtx.core.numerics import default_float, guarded_ratio, is_key, root_sum_squares, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import DType, ExtraArg, Params, Scalar, Updates
from gradtx.transforms.scaling import scaled
from gradtx.tree.creation import random_like


class AddNoiseState(NamedTuple):
    """Steps taken, and the key for the next step's noise."""

    count: jax.Array
    rng_key: jax.Array


class AddSphereNoiseState(NamedTuple):
    """The key for the next step's noise."""

    rng_key: jax.Array


class AddLangevinNoiseState(NamedTuple):
    """Steps taken, and the key for the next step's noise."""

    count: jax.Array
    rng_key: jax.Array


def _is_key_or_seed(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return True
    return is_key(value) or (isinstance(value, jax.Array) and value.dtype == jnp.uint32 and value.ndim == 1)


Key = Annotated[int | jax.Array, Domain("a random key of jax.random, or a whole number to seed one", _is_key_or_seed)]


def as_key(key: int | jax.Array) -> jax.Array:
    """A typed random key: a whole number seeds one, an old-style array of uint32 is wrapped."""
    if isinstance(key, int):
        return jax.random.key(key)
    return key if is_key(key) else jax.random.wrap_key_data(jnp.array(key))


def _normal(key: jax.Array, shape: Sequence[int], dtype: DType, *, out_sharding: NamedSharding | None = None) -> jax.Array:
    """Standard normal numbers; of complex ones, the real and the imaginary part each."""
    parts = jnp.sqrt(2.0) if jnp.issubdtype(dtype, jnp.complexfloating) else 1
    return (parts * jax.random.normal(key, shape, dtype, out_sharding=out_sharding)).astype(dtype)


def gaussian_like(key: jax.Array, tree: Updates, sampler: Callable[..., jax.Array] = _normal) -> Updates:
    """Standard normal numbers in the shapes and dtypes of a tree, other ones for each leaf."""
    return random_like(key, tree, sampler) if jax.tree.leaves(tree) else tree


@jax.jit
def sphere_like(key: jax.Array, tree: Updates, radius: Scalar) -> Updates:
    """Noise like a tree, uniform on the sphere of a radius; the whole tree is one vector."""
    xi = gaussian_like(key, tree)
    return scaled(guarded_ratio(radius, root_sum_squares(jax.tree.leaves(xi))), xi)


def _plus(updates: Updates, xi: Updates, deviation: Scalar = 1) -> Updates:
    return each_leaf(lambda u, x: u + deviation * x)(updates, xi)


class add_noise(Transformation):
    """Adds Gaussian noise of falling variance: `u + sqrt(eta / t^gamma) * xi`.

    `xi` is standard normal, and `t` counts steps from 1.

    Args:
      eta: variance at the first step, >= 0, in units of the update squared.
      gamma: how fast it falls, >= 0; 0 keeps it.
      key: random key, or a whole number to seed one.

    State: `AddNoiseState(count int32, rng_key)`, one key.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.add_noise(eta=0.01, gamma=0.55, key=0)
      >>> u, state = tx.update(jnp.zeros(10_000), tx.init(jnp.zeros(10_000)))
      >>> round(float(u.std()), 2)
      0.1

    Source: Neelakantan et al. 2015, arXiv:1511.06807, equation 1.

    **Differs:** `key` is required, and Optax's deprecated `seed` is gone.
    """

    eta: NonNegative
    gamma: NonNegative
    key: Key

    def init(self, params: Params) -> AddNoiseState:
        return AddNoiseState(zero_count(), as_key(self.key))

    def step(
        self, updates: Updates, state: AddNoiseState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, AddNoiseState]:
        t = safe_increment(state.count)
        deviation = jnp.sqrt(self.eta / t.astype(default_float()) ** self.gamma)
        next_key, now = jax.random.split(state.rng_key)
        xi = gaussian_like(now, updates, jax.random.normal)
        return _plus(updates, xi, deviation), AddNoiseState(t, next_key)


class add_sphere_noise(Transformation):
    """Adds noise of a fixed length: `u + xi`, `xi` uniform on the sphere `|xi| = radius`.

    The whole tree is one vector: the squares of all leaves' noise add up to `radius**2`.

    Args:
      radius: length of the noise, > 0, in units of the update.
      key: random key, or a whole number to seed one.

    State: `AddSphereNoiseState(rng_key)`, one key.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}
      >>> tx = gradtx.add_sphere_noise(radius=2.0, key=0)
      >>> u, state = tx.update(params, tx.init(params))
      >>> round(float(gradtx.global_norm(u)), 4)
      2.0

    Source: Ge et al. 2015, arXiv:1503.02101, algorithm 1, where the radius is 1. Normal numbers
    divided by their norm are uniform on the sphere: Muller 1959.
    """

    radius: Positive
    key: Key

    def init(self, params: Params) -> AddSphereNoiseState:
        return AddSphereNoiseState(as_key(self.key))

    def step(
        self, updates: Updates, state: AddSphereNoiseState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, AddSphereNoiseState]:
        next_key, now = jax.random.split(state.rng_key)
        return _plus(updates, sphere_like(now, updates, self.radius)), AddSphereNoiseState(next_key)


class add_langevin_noise(Transformation):
    """Adds the noise of Langevin dynamics: `u + sqrt(2 * learning_rate * temperature) * xi`.

    `xi` is standard normal. Put it after the learning rate, which would scale the noise too:
    `chain(sgd(rate), add_langevin_noise(rate, key=0))`.

    Args:
      learning_rate: number >= 0 or schedule of the steps taken so far: the rate that made the
        step `u`.
      temperature: >= 0; 1 samples from `exp(-loss)`, 0 adds nothing.
      key: random key, or a whole number to seed one.

    State: `AddLangevinNoiseState(count int32, rng_key)`, one key.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.add_langevin_noise(0.02, temperature=0.25, key=0)
      >>> u, state = tx.update(jnp.zeros(10_000), tx.init(jnp.zeros(10_000)))
      >>> round(float(u.std()), 2)
      0.1

    Source: Welling and Teh 2011, equation 4, whose step size is `2 * learning_rate`.
    """

    learning_rate: Rate
    temperature: NonNegative = 1.0
    _: KW_ONLY
    key: Key

    def init(self, params: Params) -> AddLangevinNoiseState:
        return AddLangevinNoiseState(zero_count(), as_key(self.key))

    def step(
        self, updates: Updates, state: AddLangevinNoiseState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, AddLangevinNoiseState]:
        rate = jnp.asarray(scheduled_value("learning_rate", self.learning_rate, state.count), default_float())
        deviation = jnp.sqrt(2 * rate * self.temperature)
        next_key, now = jax.random.split(state.rng_key)
        return _plus(updates, gaussian_like(now, updates), deviation), AddLangevinNoiseState(safe_increment(state.count), next_key)
