"""Bases of eigenvectors of semidefinite matrices, and matrices in such bases on either side."""

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike

from gradtx.core.numerics import real_dtype
from gradtx.core.types import Tree

Basis = jax.Array | None
"""An orthogonal matrix with eigenvectors as rows, conjugated; None is the identity.

As rows, since LAPACK takes matrices by columns: what goes there and comes back is not copied.
"""


def rotate(x: jax.Array, left: Basis, right: Basis, precision: PrecisionLike = None) -> jax.Array:
    """`left x right^H`: a matrix in the bases."""
    x = x if left is None else jnp.matmul(left, x, precision=precision)
    return x if right is None else jnp.matmul(x, right.conj().T, precision=precision)


def rotate_back(x: jax.Array, left: Basis, right: Basis, precision: PrecisionLike = None) -> jax.Array:
    """`left^H x right`: the matrix that is `x` in the bases."""
    x = x if left is None else jnp.matmul(left.conj().T, x, precision=precision)
    return x if right is None else jnp.matmul(x, right, precision=precision)


def eigenbasis(matrix: jax.Array) -> jax.Array:
    """The eigenvectors of a Hermitian matrix, by falling eigenvalues."""
    return jnp.linalg.eigh(matrix.conj().T)[1].conj().T[::-1]


def tracked(matrix: jax.Array, basis: jax.Array, precision: PrecisionLike = None) -> jax.Array:
    """`Q` of `matrix Q_before = Q R`: one step of the orthogonal iteration.

    It follows the eigenvectors of a matrix that changes slowly, without finding them anew.
    """
    return _orthogonal(jnp.matmul(basis, matrix, precision=precision))


def sorted_and_tracked(matrix: jax.Array, basis: jax.Array, precision: PrecisionLike = None) -> tuple[jax.Array, jax.Array]:
    """`tracked`, with eigenvectors by falling Rayleigh quotients; and the order of the old ones."""
    images = jnp.matmul(basis, matrix, precision=precision)
    quotients = jnp.sum((images * basis.conj()).real, axis=1).astype(real_dtype(images.dtype))
    order = jnp.argsort(quotients, descending=True)
    return _orthogonal(images[order]), order


def after(x: Tree, first: Tree) -> Tree:
    """`x`, in programs that have `first` before they go on with it.

    JAX's calls of LAPACK wait for threads of the pool that runs them (jax 0.10): two calls at a
    time, on two threads, wait for each other for good. So each call here is made to need the one
    before. The condition always holds, which XLA does not know; a barrier would be gone when it
    orders the calls.
    """
    numbers = [jnp.ravel(y)[:1].real for y in jax.tree.leaves(first) if y.size]
    always = jnp.all(jnp.stack([jnp.all((y < 0) | (y >= 0) | jnp.isnan(y)) for y in numbers])) if numbers else True
    return jax.tree.map(lambda y: jnp.where(always, y, jnp.zeros_like(y)), x)


def _orthogonal(rows: jax.Array) -> jax.Array:
    """The rows made orthogonal, each to those before it."""
    return jnp.linalg.qr(rows.conj().T)[0].conj().T
