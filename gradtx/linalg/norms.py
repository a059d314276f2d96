"""Norms with a floor, whose derivatives are right where the floor holds."""

import jax
import jax.numpy as jnp

from gradtx.core.numerics import abs_sq, promote
from gradtx.core.types import Leaf, Scalar


def safe_norm(
    x: Leaf,
    min_norm: Scalar,
    ord: int | float | str | None = None,
    axis: tuple[int, ...] | int | None = None,
    keepdims: bool = False,
) -> jax.Array:
    """`max(|x|, min_norm)`, whose derivative is 0 where `|x| <= min_norm`, at 0 too.

    Args:
      x: array.
      min_norm: the floor.
      ord: which norm, as in `jnp.linalg.norm`.
      axis: the axis, or the two of matrices, over which the norm is taken, as there.
      keepdims: whether those axes stay, with size 1.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx.optax as optax
      >>> jax.grad(optax.safe_norm)(jnp.zeros(2), 1e-3)
      Array([0., 0.], dtype=float32)

    **Differs:** half precision is computed in float32.
    """
    x = jnp.asarray(x)
    wide = promote(x)
    small = jnp.linalg.norm(wide, ord=ord, axis=axis, keepdims=True) <= min_norm
    norm = jnp.linalg.norm(jnp.where(small, 1, wide), ord=ord, axis=axis, keepdims=keepdims)
    norm = jnp.where(small if keepdims else jnp.squeeze(small, axis=axis), min_norm, norm)
    return norm.astype(jnp.real(x).dtype) if wide.dtype != x.dtype else norm


def safe_root_mean_squares(x: Leaf, min_rms: Scalar) -> jax.Array:
    """`max(sqrt(mean(|x|^2)), min_rms)`, whose derivative is 0 where `min_rms` holds, at 0 too.

    Args:
      x: array.
      min_rms: the floor.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx.optax as optax
      >>> jax.grad(optax.safe_root_mean_squares)(jnp.zeros(2), 1e-3)
      Array([0., 0.], dtype=float32)

    **Differs:** half precision is computed in float32.
    """
    x = jnp.asarray(x)
    wide = promote(x)
    small = jnp.sqrt(jnp.mean(abs_sq(wide))) <= min_rms
    rms = jnp.where(small, min_rms, jnp.sqrt(jnp.mean(abs_sq(jnp.where(small, 1, wide)))))
    return rms.astype(jnp.real(x).dtype) if wide.dtype != x.dtype else rms
