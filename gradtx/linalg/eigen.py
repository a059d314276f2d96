"""Eigenvalues of symmetric operators from their products with vectors: Lanczos's iteration."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks
from gradtx.core.checked import checked
from gradtx.core.domains import Function, PositiveInt
from gradtx.core.numerics import common_dtype, guarded_ratio, is_tracer
from gradtx.core.types import Leaf, Scalar

NOISE = 10  # times the rounding unit: what is left of a product in an invariant subspace


class Tridiagonal(NamedTuple):
    """A symmetric operator `A` of n dimensions as seen from m of them: `A Q = Q T + r e_m'`.

    Attributes:
      diagonal: `(m,)`, that of `T`.
      off_diagonal: `(m,)`; the first m - 1 stand beside the diagonal of `T`, the last is the norm
        of `r`. 0 where the iteration had found a whole invariant subspace and went on in another.
      basis: `(m, n)`, the orthonormal columns of `Q` as rows.
    """

    diagonal: jax.Array
    off_diagonal: jax.Array
    basis: jax.Array


class Ritz(NamedTuple):
    """Eigenpairs of `T`, approximately those of `A`.

    Attributes:
      values: `(m,)`, ascending.
      coefficients: `(m, m)`; column i is the unit eigenvector of `T`: `coefficients.T @ basis` are
        the vectors of `A`.
      residuals: `(m,)`, `|A v - value v|`, which bounds the distance to the nearest eigenvalue of
        `A`.
    """

    values: jax.Array
    coefficients: jax.Array
    residuals: jax.Array


@checked
def lanczos(matvec: Function, start: jax.Array, steps: PositiveInt, *, key: jax.Array | None = None) -> Tridiagonal:
    """Lanczos's iteration: `T = Q' A Q`, tridiagonal, and the orthonormal basis `Q`.

    It reorthogonalizes fully. Each new direction `A q_j` is made orthogonal to all before it,
    twice, so that rounding brings no copies of eigenvalues. Where nothing of it is left
    (`q_1, ..., q_j` span an invariant subspace), the iteration goes on from a random direction,
    orthogonal to all.

    Args:
      matvec: function from a vector to `A` times it, for a symmetric `A`. It is called in a loop in
        Python, so jit it; inside `jit` the loop is compiled.
      start: vector of n real numbers, not 0; its direction counts.
      steps: m, products with `A`; no more than n are made.
      key: of the random directions; None is `jax.random.key(0)`.

    Returns:
      `Tridiagonal(diagonal (m,), off_diagonal (m,), basis (m, n))` in the dtype of `start`, at
      least float32. Memory: m + 3 vectors. Time: m products, and `8 m n` operations for each, which
      read the basis four times.

    Raises:
      ValueError, TypeError: an argument outside its domain, or a product that is no vector of n
        real numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.diagnostics import lanczos, ritz
      >>> scale = jnp.array([3.0, 2.0, -1.0])
      >>> t = lanczos(lambda v: scale * v, jnp.ones(3), steps=3)
      >>> [round(float(x), 4) for x in ritz(t).values]
      [-1.0, 2.0, 3.0]

    Source: Lanczos 1950; Parlett, "The Symmetric Eigenvalue Problem", 1998, sections 6.9 ("twice is
    enough") and 13.
    """
    start = _real_vector("start", start)
    n, dtype = start.shape[0], start.dtype
    steps, key = min(steps, n), jax.random.key(0) if key is None else key
    start = start / power_of_two(start)
    basis = jnp.zeros((steps, n), dtype).at[0].set(start / jnp.linalg.norm(start))
    t = Tridiagonal(jnp.zeros(steps, dtype), jnp.zeros(steps, dtype), basis)

    def step(j: Scalar, t: Tridiagonal) -> Tridiagonal:
        return _grown(t, j, _real_vector("the product", matvec(t.basis[j]), n), key)

    if is_tracer(basis):
        return jax.lax.fori_loop(0, steps, step, t)
    for j in range(steps):
        t = step(j, t)
    return t


@partial(jax.jit, donate_argnums=0)
def _grown(t: Tridiagonal, j: Scalar, image: jax.Array, key: jax.Array) -> Tridiagonal:
    """`T` and `Q` after step j, in which `A q_j` is `image`."""
    diagonal, off_diagonal, basis = t
    image = image.astype(basis.dtype)
    size = power_of_two(image)
    image = image / size
    alpha = _dot(basis[j], image)
    rest = _orthogonal(image, basis)
    beta = jnp.linalg.norm(rest)
    before = jnp.maximum(jnp.max(jnp.abs(diagonal)), jnp.max(off_diagonal)) / size
    scale = jnp.maximum(jnp.abs(alpha), before)
    over = beta <= NOISE * jnp.finfo(basis.dtype).eps * scale
    fresh = partial(jax.random.normal, jax.random.fold_in(key, j), image.shape, image.dtype)
    rest = jax.lax.cond(over, lambda: _orthogonal(fresh(), basis), lambda: rest)
    unit = guarded_ratio(rest, jnp.linalg.norm(rest))
    beta = jnp.where(over, 0, beta)
    return Tridiagonal(
        diagonal.at[j].set(alpha * size), off_diagonal.at[j].set(beta * size), basis.at[j + 1].set(unit, mode="drop")
    )


@jax.jit
def ritz(t: Tridiagonal) -> Ritz:
    """Eigenvalues and eigenvectors of `T`, and how far they are from those of the operator.

    Args:
      t: what `lanczos` gives.

    Returns:
      `Ritz(values (m,), coefficients (m, m), residuals (m,))`. A residual is `|beta_m s_mi|`, the
      last off-diagonal times the last component, with `eps * sqrt(n) * |T|` added for the rounding
      of the products.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.diagnostics import lanczos, ritz
      >>> t = lanczos(lambda v: jnp.arange(100.0) * v, jnp.ones(100), steps=30)
      >>> values, coefficients, residuals = ritz(t)
      >>> bool(abs(values[-1] - 99) <= residuals[-1]), (coefficients.T @ t.basis).shape
      (True, (30, 100))

    Source: Parlett, "The Symmetric Eigenvalue Problem", 1998, section 13.2.
    """
    size = power_of_two(jnp.stack([t.diagonal, t.off_diagonal]))
    diagonal, off_diagonal = t.diagonal / size, t.off_diagonal / size
    beside = off_diagonal[:-1]
    values, coefficients = jnp.linalg.eigh(jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1))
    rounding = jnp.finfo(values.dtype).eps * t.basis.shape[1] ** 0.5 * jnp.max(jnp.abs(values))
    residuals = jnp.abs(off_diagonal[-1] * coefficients[-1]) + rounding
    return Ritz(values * size, coefficients, residuals * size)


def power_of_two(x: jax.Array) -> jax.Array:
    """The power of two that brings the largest magnitude of `x` into [1/2, 1).

    At the ends of the dtype it comes next to it. Squares then neither over- nor underflow, and
    dividing by it rounds nothing. 1 where nothing or no number is the largest.
    """
    largest, info = jnp.max(jnp.abs(x)), jnp.finfo(x.dtype)
    usable = (largest > 0) & jnp.isfinite(largest)
    exponent = jnp.frexp(jnp.where(usable, largest, 0.5))[1]
    return jnp.ldexp(jnp.ones((), x.dtype), jnp.clip(exponent, info.minexp, -info.minexp))


def _orthogonal(x: jax.Array, basis: jax.Array) -> jax.Array:
    """What is left of `x` without its parts along the rows of `basis`, which may be 0."""
    for _ in range(2):
        x = x - _dot(_dot(basis, x), basis)
    return x


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def _real_vector(what: str, x: Leaf, n: int | None = None) -> jax.Array:
    """`x` in at least float32, if it is a vector of (`n`) real numbers."""
    shape = (n,) if n else "(n,)"
    x = jnp.asarray(x)
    if x.ndim != 1 or not x.size or n not in (None, x.size) or not jnp.issubdtype(x.dtype, jnp.floating):
        raise checks.WrongValue(f"{what} is {checks.kind(x)}, expected a floating array of shape {shape}.")
    return x.astype(common_dtype(x.dtype, jnp.float32))
