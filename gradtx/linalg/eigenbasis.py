"""Bases of eigenvectors of semidefinite matrices, and matrices in such bases on either side."""

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike

from gradtx.core.numerics import real_dtype

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


def _orthogonal(rows: jax.Array) -> jax.Array:
    """The rows made orthogonal, each to those before it."""
    return jnp.linalg.qr(rows.conj().T)[0].conj().T
