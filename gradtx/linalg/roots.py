"""Roots of positive semidefinite matrices."""

import jax
import jax.numpy as jnp

from gradtx.core.types import Scalar


def apply_inverse_sqrt(matrix: jax.Array, vector: jax.Array, eps: Scalar = 0.0) -> jax.Array:
    """`Q (sqrt(lambda) + eps)^-1 Q^H x`, for `matrix = Q lambda Q^H`.

    This is the inverse root of a semidefinite matrix times `x`. Eigenvalues are known to about
    `n * rounding * largest` only, so smaller ones (negative ones too) count as that; and a
    component of `x` along an eigenvector that is no more than rounding (`n * rounding * |x|`)
    counts as 0. So noise in a direction in which both are zero is not amplified (a few
    `sqrt(rounding)` are left at most), while a direction of small but true components moves.

    Args:
      matrix: `(n, n)`, symmetric or Hermitian, positive semidefinite up to rounding; float32,
        float64 or complex.
      vector: `(n,)`.
      eps: added to the roots, >= 0.

    Returns:
      `(n,)`; zeros where the matrix is zero.
    """
    n = matrix.shape[0]
    if n == 0:
        return vector
    eigenvalues, q = jnp.linalg.eigh(matrix)
    rounding = n * jnp.finfo(eigenvalues.dtype).eps
    along = jnp.matmul(q.conj().T, vector, precision="highest")
    along = jnp.where(jnp.abs(along) <= rounding * jnp.linalg.norm(vector), 0, along)
    floor = rounding * jnp.maximum(eigenvalues[-1], 0)
    nothing = floor == 0  # written so that NaN stays NaN
    roots = jnp.sqrt(jnp.where(nothing, 1, jnp.maximum(eigenvalues, floor))) + eps
    return jnp.matmul(q, jnp.where(nothing, 0, along / roots), precision="highest")


def inverse_root(matrices: jax.Array, root: Scalar, eps: Scalar = 0.0) -> jax.Array:
    """`(A + eps I)^(-1/root)` of each matrix, from its eigenvalues.

    Eigenvalues are known to about `n * rounding * largest` only. Where one is below that, or below
    `eps`, all are shifted so that the smallest is the larger of the two: a direction in which there
    is nothing but rounding is not amplified beyond it.

    Args:
      matrices: `(..., n, n)`, symmetric or Hermitian, positive semidefinite up to rounding.
      root: > 0; 2 gives the inverse square root.
      eps: added to the diagonal, >= 0. With 0, the root of a zero matrix is 0.

    Returns:
      An array like `matrices`; NaN for a matrix that is not finite.
    """
    largest = jnp.max(jnp.abs(matrices), axis=(-2, -1), keepdims=True)
    finite = jnp.isfinite(largest)
    matrices = jnp.where(finite, matrices, 0)  # from an infinite entry LAPACK may not return
    values, q = jnp.linalg.eigh(matrices + eps * jnp.eye(matrices.shape[-1], dtype=matrices.dtype))
    least = values[..., :1]
    floor = jnp.maximum(eps, matrices.shape[-1] * jnp.finfo(values.dtype).eps * values[..., -1:]).astype(values.dtype)
    values = jnp.where(least < floor, values - least + floor, values)
    positive = values > 0
    roots = jnp.where(positive, jnp.where(positive, values, 1) ** (-1 / root), 0)
    powers = jnp.matmul(q * roots[..., None, :], q.conj().swapaxes(-2, -1), precision="highest")
    return jnp.where(finite, powers, 0 * largest)
