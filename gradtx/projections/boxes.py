"""Sets that bound each element by itself: box, hypercube, non-negative orthant, L-infinity ball.

Each element is projected alone, so that weights, of whatever value, change nothing.
"""

import jax
import jax.numpy as jnp

from gradtx.core.domains import Positive
from gradtx.core.leaves import each_leaf
from gradtx.core.types import Scalar, Tree
from gradtx.projections.inputs import check_bounds, check_each, check_weights, like, parts, projection


@projection
def projection_non_negative(tree: Tree) -> Tree:
    """The nearest tree without negative elements: `max(x, 0)`.

    Args:
      tree: tree of real floating arrays.

    Returns:
      The projected tree, in the dtypes of `tree`. NaN stays NaN.

    Raises:
      TypeError: a leaf is no real floating array.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.projection_non_negative({"w": jnp.array([-1.0, 2.0])})
      {'w': Array([0., 2.], dtype=float32)}
    """
    parts(tree)
    return each_leaf(positive_part)(tree)


@projection
def projection_box(tree: Tree, lower: Scalar, upper: Scalar, *, weights: Tree = None) -> Tree:
    """The nearest tree between two bounds: `min(max(x, lower), upper)`.

    Args:
      tree: tree of real floating arrays.
      lower: lower bound: one number, or a tree like `tree` of numbers and arrays; -inf is no bound.
      upper: upper bound, in the same form, nowhere below `lower`; inf is no bound.
      weights: costs of moving each element, >= 0; checked, and without effect here.

    Returns:
      The projected tree, in the dtypes of `tree`. NaN stays NaN.

    Raises:
      ValueError: `lower > upper` somewhere, or a bound or `weights` has another structure or shape
        than `tree`.
      TypeError: a leaf is no real floating array, or a bound is no number.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tree, upper = {"w": jnp.array([-3.0, 0.5, 3.0])}, {"w": jnp.array([9.0, 9.0, 2.0])}
      >>> gradtx.projections.projection_box(tree, -1.0, upper)
      {'w': Array([-1. ,  0.5,  2. ], dtype=float32)}

    **Differs:** Optax takes one number for both bounds only where `tree` is a single array, and has
    no `weights`.
    """
    parts(tree)
    lows, highs = like("lower", lower, tree), like("upper", upper, tree)
    check_bounds(lower, upper)
    if weights is not None:
        check_weights(weights, tree)
    return each_leaf(jnp.clip)(tree, lows, highs)


@projection
def projection_hypercube(tree: Tree, scale: Scalar = 1) -> Tree:
    """The nearest tree in a cube at the origin: `min(max(x, 0), scale)`.

    Args:
      tree: tree of real floating arrays.
      scale: edge, > 0: one number, or a tree like `tree` of numbers and arrays.

    Returns:
      The projected tree, in the dtypes of `tree`. NaN stays NaN.

    Raises:
      ValueError: `scale` is not positive, or has another structure or shape than `tree`.
      TypeError: a leaf is no real floating array.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.projection_hypercube(jnp.array([-3.0, 0.5, 3.0]))
      Array([0. , 0.5, 1. ], dtype=float32)
    """
    parts(tree)
    scales = like("scale", scale, tree)
    check_edge(scale)
    return each_leaf(lambda x, edge: jnp.clip(x, 0, edge))(tree, scales)


@projection
def projection_linf_ball(tree: Tree, scale: Positive = 1) -> Tree:
    """The nearest tree with no magnitude above `scale`: `min(max(x, -scale), scale)`.

    For complex numbers: `x * min(1, scale/|x|)`.

    Args:
      tree: tree of floating or complex arrays.
      scale: radius, > 0.

    Returns:
      The projected tree, in the dtypes of `tree`. NaN stays NaN.

    Raises:
      ValueError: `scale` is not positive.
      TypeError: a leaf is no floating or complex array.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.projection_linf_ball(jnp.array([-3.0, 0.5, 3.0]))
      Array([-1. ,  0.5,  1. ], dtype=float32)
    """
    parts(tree, ordered=False)
    return each_leaf(lambda x: shorten(x, scale))(tree)


def check_edge(scale: Scalar) -> None:
    """Raises a `ValueError` unless the edges of a hypercube, where known, are positive."""
    check_each("scale", scale, lambda s: s > 0, "numbers > 0")


def positive_part(x: jax.Array) -> jax.Array:
    """`max(x, 0)`, whose derivative at 0 is 0; NaN stays NaN."""
    return jnp.where(x <= 0, 0, x)


def shorten(x: jax.Array, scale: Scalar) -> jax.Array:
    """Cuts magnitudes to `scale`."""
    if not jnp.iscomplexobj(x):
        return jnp.clip(x, -scale, scale)
    size = jnp.abs(x)
    return jnp.where(size > scale, x * (scale / jnp.where(size > scale, size, 1)), x)
