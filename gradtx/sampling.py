"""Sampling as a random vector `v`, `E[v_i] = 1`: a stochastic form of a mean of losses.

`mean(v * losses)` is then an unbiased estimate of `mean(losses)`, and its gradient one of the
gradient, whatever the sampling: mini-batches, independent or by importance. Keys are those of
`jax.random`; sizes are static; all of it runs under `jit` and `vmap`.
"""

import math
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.core import checks
from gradtx.core.checked import checked
from gradtx.core.domains import Domain, PositiveInt
from gradtx.core.numerics import default_float, is_key, is_tracer, promote


def _is_single_key(value: object) -> bool:
    old = isinstance(value, jax.Array) and value.dtype == jnp.uint32 and value.ndim == 1
    return old or (is_key(value) and value.ndim == 0)


def _key_hint(value: object) -> str:
    return " Make one with jax.random.key(seed)." if isinstance(value, int) else ""


Key = Annotated[jax.Array, Domain("a single random key of jax.random", _is_single_key, _key_hint)]

SUM_TOLERANCE = 1e-4
"""How far from 1 probabilities may sum. They are normalized: this tells mistakes from rounding."""


@checked
def minibatch(key: Key, n: PositiveInt, batch_size: PositiveInt) -> jax.Array:
    """A batch of `batch_size` of `n` losses, without replacement.

    `v_i` is `n/batch_size` in it, 0 elsewhere.

    Args:
      key: random key of `jax.random`.
      n: number of losses, >= 1; static.
      batch_size: from 1 to `n`; static.

    Returns:
      `v`, float32 of shape (n,).

    Raises:
      ValueError: `n < 1`, or `batch_size` is not from 1 to `n`.
      TypeError: `key` is no key, or a size is no whole number.

    Example:
      >>> import jax, gradtx
      >>> v = gradtx.sampling.minibatch(jax.random.key(0), n=6, batch_size=4)
      >>> sorted(v.tolist())
      [0.0, 0.0, 1.5, 1.5, 1.5, 1.5]

    Source: Gower et al. 2019, arXiv:1901.09401 (tau-nice sampling).
    """
    if batch_size > n:
        raise checks.WrongValue(f"batch_size is {batch_size}, expected at most n = {n}. Sampling is without replacement.")
    return jnp.where(jax.random.permutation(key, n) < batch_size, jnp.float32(n / batch_size), 0)


@checked
def independent(key: Key, probabilities: ArrayLike) -> jax.Array:
    """Each loss by itself: `v_i = 1/p_i` with probability `p_i`, else 0.

    Args:
      key: random key of `jax.random`.
      probabilities: `p`, of shape (n,), each in (0, 1]; their sum is the expected size of the
        batch.

    Returns:
      `v`, float32 of shape (n,).

    Raises:
      ValueError: a probability is outside (0, 1], or `probabilities` has another shape.
      TypeError: `key` is no key.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> v = gradtx.sampling.independent(jax.random.key(0), jnp.array([1.0, 0.5, 0.5]))
      >>> float(v[0]), set(v[1:].tolist()) <= {0.0, 2.0}
      (1.0, True)

    Source: Gower et al. 2019, arXiv:1901.09401.
    """
    p = _checked_probabilities(probabilities)
    # With mode "low" those below 1e-7 come too often.
    return jnp.where(jax.random.bernoulli(key, p, mode="high"), 1 / p, 0)


@checked
def importance(key: Key, probabilities: ArrayLike, batch_size: PositiveInt) -> jax.Array:
    """`batch_size` draws with replacement by probability: `v_i = count_i/(batch_size * p_i)`.

    With `p_i` in proportion to the size of the i-th gradient, the variance is the least.

    Args:
      key: random key of `jax.random`.
      probabilities: `p`, of shape (n,), each in (0, 1], with the sum 1. Draws resolve them to about
        1e-7.
      batch_size: number of draws, >= 1; static.

    Returns:
      `v`, float32 of shape (n,).

    Raises:
      ValueError: a probability is outside (0, 1], they do not sum to 1, `probabilities` has another
        shape, or `batch_size < 1`.
      TypeError: `key` is no key, or `batch_size` is no whole number.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> p = jnp.array([0.5, 0.25, 0.25])
      >>> v = gradtx.sampling.importance(jax.random.key(0), p, batch_size=8)
      >>> float(jnp.sum(v * p))
      1.0

    Source: Needell, Srebro and Ward 2014, arXiv:1310.5715, section 3.
    """
    p = _checked_probabilities(probabilities)
    total = None if is_tracer(probabilities) else np.asarray(probabilities, np.float64).sum()
    if total is not None and abs(total - 1) > SUM_TOLERANCE:
        raise checks.WrongValue(f"probabilities sum to {total:g}, expected 1. Divide them by their sum.")
    p = p / jnp.sum(p)
    drawn = jax.random.choice(key, p.size, (batch_size,), p=p)
    return jnp.zeros_like(p).at[drawn].add(1) / (batch_size * p)


@checked
def sampled_loss(losses: jax.Array, v: jax.Array) -> jax.Array:
    """The sampled objective: `mean(v * losses)`, an unbiased estimate of `mean(losses)`.

    Args:
      losses: one loss for each example, of shape (n,).
      v: sampling vector of the same shape.

    Returns:
      A scalar in at least float32. A loss that was not sampled takes no part, even where it is not
      finite.

    Raises:
      ValueError: the shapes differ.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.sampling.sampled_loss(jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 1.5, 1.5]))
      Array(2.5, dtype=float32)

    Source: Gower et al. 2019, arXiv:1901.09401.
    """
    if np.ndim(losses) != 1 or np.shape(losses) != np.shape(v):
        found = f"losses has shape {np.shape(losses)} and v {np.shape(v)}"
        raise checks.WrongValue(f"{found}, expected (n,) for both. The losses of the examples are wanted, not their mean.")
    losses, v = promote(losses), promote(v)
    return jnp.mean(v * jnp.where(v == 0, 0, losses))


class MultiNormal(NamedTuple):
    """A normal distribution of independent components; see `multi_normal`."""

    loc: jax.Array
    log_scale: jax.Array

    @property
    def params(self) -> list[jax.Array]:
        """Mean and logarithm of the deviation."""
        return [self.loc, self.log_scale]

    def sample(self, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
        """Draws of shape `shape`, each of the shape of the parameters."""
        own = jnp.broadcast_shapes(self.loc.shape, self.log_scale.shape)
        return jax.random.normal(key, (*shape, *own)) * jnp.exp(self.log_scale) + self.loc

    def log_prob(self, x: ArrayLike) -> jax.Array:
        """The logarithm of the density, summed over the axes of the parameters."""
        own = jnp.broadcast_shapes(self.loc.shape, self.log_scale.shape)
        z = (jnp.asarray(x) - self.loc) * jnp.exp(-self.log_scale)
        density = -(z**2) / 2 - self.log_scale - math.log(2 * math.pi) / 2
        return jnp.sum(density, axis=tuple(range(-len(own), 0)))


def multi_normal(loc: ArrayLike, log_scale: ArrayLike) -> MultiNormal:
    """A normal distribution of independent components, with `sample`, `log_prob` and `params`.

    Args:
      loc: the means.
      log_scale: logarithms of the deviations.

    Example:
      >>> import jax, gradtx.optax as optax
      >>> normal = optax.multi_normal(0.0, 0.0)
      >>> normal.sample((3,), jax.random.key(0)).shape, round(float(normal.log_prob(0.0)), 4)
      ((3,), -0.9189)
    """
    return MultiNormal(jnp.asarray(loc, default_float()), jnp.asarray(log_scale, default_float()))


def _checked_probabilities(probabilities: ArrayLike) -> jax.Array:
    shape = np.shape(probabilities)
    if len(shape) != 1 or not shape[0]:
        raise checks.WrongValue(f"probabilities has shape {shape}, expected (n,): one for each loss.")
    if not is_tracer(probabilities):
        values = np.asarray(probabilities, np.float64)
        bad = ~((values > 0) & (values <= 1))
        if bad.any():
            i = int(np.argmax(bad))
            raise checks.WrongValue(f"probabilities[{i}] is {values[i]:g}, expected a number in (0, 1].")
    return jnp.asarray(probabilities, jnp.float32)
