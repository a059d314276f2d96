"""Bases of eigenvectors of semidefinite matrices, and matrices in such bases on either side."""

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike

from gradtx.core.numerics import real_dtype

Basis = jax.Array | None
"""An orthogonal matrix of eigenvectors as columns; None is the identity."""


def rotate(x: jax.Array, left: Basis, right: Basis, precision: PrecisionLike = None) -> jax.Array:
    """`left^H x right`: a matrix in the bases."""
    x = x if left is None else jnp.matmul(left.conj().T, x, precision=precision)
    return x if right is None else jnp.matmul(x, right, precision=precision)


def rotate_back(x: jax.Array, left: Basis, right: Basis, precision: PrecisionLike = None) -> jax.Array:
    """`left x right^H`: the matrix that is `x` in the bases."""
    x = x if left is None else jnp.matmul(left, x, precision=precision)
    return x if right is None else jnp.matmul(x, right.conj().T, precision=precision)


def eigenbasis(matrix: jax.Array) -> jax.Array:
    """The eigenvectors of a Hermitian matrix, by falling eigenvalues."""
    return jnp.linalg.eigh(matrix)[1][:, ::-1]


def tracked(matrix: jax.Array, basis: jax.Array, precision: PrecisionLike = None) -> jax.Array:
    """`Q` of `matrix @ basis = Q R`: one step of the orthogonal iteration.

    It follows the eigenvectors of a matrix that changes slowly, without finding them anew.
    """
    return jnp.linalg.qr(jnp.matmul(matrix, basis, precision=precision))[0]


def sorted_and_tracked(matrix: jax.Array, basis: jax.Array, precision: PrecisionLike = None) -> tuple[jax.Array, jax.Array]:
    """`tracked`, with the columns by falling Rayleigh quotients; and the order of the old ones."""
    images = jnp.matmul(matrix, basis, precision=precision)
    quotients = jnp.sum((basis.conj() * images).real, axis=0).astype(real_dtype(images.dtype))
    order = jnp.argsort(quotients, descending=True)
    return jnp.linalg.qr(images[:, order])[0], order
