"""Balls and spheres of three norms, and the simplex. The whole tree is one vector.

Multipliers of the constraints are found by Newton's method in sums over leaves: no sort, and no
copy of the tree as one array, so that sharded leaves stay where they are.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradtx.core.domains import Positive
from gradtx.core.leaves import each_leaf
from gradtx.core.numerics import abs_sq, common_dtype, real_dtype, root_sum_squares, stacked
from gradtx.core.types import Scalar, Tree
from gradtx.core.varying import while_loop
from gradtx.projections.boxes import positive_part, shorten
from gradtx.projections.inputs import check_weights, parts, projection

LEAST_WEIGHT = 1e-30
"""Least weight, as a part of the largest: an element without cost needs a place to go."""

FARTHEST = 1e30
"""From so many radii on, the nearest point of a weighted ball stays the same up to rounding."""


@projection
def projection_simplex(tree: Tree, scale: Positive = 1) -> Tree:
    """The nearest tree of non-negative elements with the sum `scale`: `max(x - theta, 0)`.

    Args:
      tree: tree of real floating arrays, as one vector.
      scale: what the elements sum to, > 0; 1 is the probability simplex.

    Returns:
      The projected tree, in the dtypes of `tree`. An element that is not finite makes elements NaN,
      unless it is -inf.

    Raises:
      ValueError: `scale` is not positive.
      TypeError: a leaf is no real floating array.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.projection_simplex({"w": jnp.array([2.5, 3.25]), "b": jnp.array(0.5)})
      {'b': Array(0., dtype=float32), 'w': Array([0.125, 0.875], dtype=float32)}

    Source: Michelot 1986, "A finite algorithm for finding the projection of a point onto the
    canonical simplex".

    **Differs:** Optax sorts all elements; here `theta` is computed from the largest element down,
    so that it stays right for elements far from zero.
    """
    xs = parts(tree)
    if not xs:
        return tree
    top, theta = _threshold(xs, scale)
    return each_leaf(lambda x: positive_part((x - top) - theta))(tree)


@projection
def projection_l1_ball(tree: Tree, scale: Positive = 1) -> Tree:
    """The nearest tree with `sum |x| <= scale`: `sign(x) * max(|x| - theta, 0)`.

    Args:
      tree: tree of floating or complex arrays, as one vector.
      scale: radius, > 0.

    Returns:
      The projected tree, in the dtypes of `tree`. An element that is not finite makes elements NaN.

    Raises:
      ValueError: `scale` is not positive.
      TypeError: a leaf is no floating or complex array.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.projection_l1_ball(jnp.array([-2.0, 1.5, 0.25]))
      Array([-0.75,  0.25,  0.  ], dtype=float32)

    Source: Duchi et al. 2008, "Efficient projections onto the l1-ball for learning in high
    dimensions".
    """
    sizes = [jnp.abs(x) for x in parts(tree, ordered=False)]
    if not sizes:
        return tree
    top, theta = _threshold(sizes, scale)
    inside = _total(sizes) <= scale
    return _shrunk(tree, jnp.where(inside, 0, top), jnp.where(inside, 0, theta))


@projection
def projection_l1_sphere(tree: Tree, scale: Positive = 1) -> Tree:
    """The nearest tree with `sum |x| = scale`: `sign(x) * max(|x| - theta, 0)`, `sign(0) = 1`.

    Args:
      tree: tree of floating or complex arrays, as one vector. Of zeros, all elements become equal.
      scale: radius, > 0.

    Returns:
      The projected tree, in the dtypes of `tree`. An element that is not finite makes elements NaN.

    Raises:
      ValueError: `scale` is not positive.
      TypeError: a leaf is no floating or complex array.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.projection_l1_sphere(jnp.array([-0.25, 0.0]))
      Array([-0.625,  0.375], dtype=float32)

    **Differs:** in Optax zeros stay zero, where the result is not on the sphere.
    """
    sizes = [jnp.abs(x) for x in parts(tree, ordered=False)]
    if not sizes:
        return tree
    top, theta = _threshold(sizes, scale)
    return _shrunk(tree, top, theta)


@projection
def projection_l2_ball(tree: Tree, scale: Positive = 1, *, weights: Tree = None) -> Tree:
    """The nearest tree with `||x|| <= scale`: `x * min(1, scale/||x||)`.

    With weights, the `y` in the ball that has the least `sum w_i*(y_i - x_i)^2`:
    `y_i = w_i*x_i/(w_i + mu)`, where `mu >= 0` makes the norm `scale`.

    Args:
      tree: tree of floating or complex arrays, as one vector.
      scale: radius, > 0.
      weights: costs `w` of moving each element, >= 0: one number, or a tree like `tree` of numbers
        and arrays. Only ratios matter; an element that costs nothing moves first. None is equal
        costs.

    Returns:
      The projected tree, in the dtypes of `tree`; a tree inside the ball as it is. An element that
      is not finite makes elements NaN.

    Raises:
      ValueError: `scale` is not positive, a weight is negative, or `weights` has another structure
        or shape than `tree`.
      TypeError: a leaf is no floating or complex array.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> x = {"w": jnp.array([3.0]), "b": jnp.array(4.0)}
      >>> gradtx.projections.projection_l2_ball(x, 2.5)
      {'b': Array(2., dtype=float32), 'w': Array([1.5], dtype=float32)}
      >>> y = gradtx.projections.projection_l2_ball(x, 2.5, weights={"w": 100.0, "b": 1.0})
      >>> round(float(y["w"][0]), 3), round(float(y["b"]), 3)
      (2.493, 0.187)

    Source: Moré and Sorensen 1983, "Computing a trust region step", for the equation of `mu`.

    **Differs:** Optax has no `weights`.
    """
    xs = parts(tree, ordered=False)
    if weights is not None:
        weights = check_weights(weights, tree)
    if not xs:
        return tree
    length = root_sum_squares(xs)
    inside = length <= scale
    if weights is None:
        factor = jnp.where(inside, 1, scale / jnp.where(inside, 1, length))
        return each_leaf(lambda x: x * factor)(tree)
    weights = _relative(weights, tree)
    ws = [w for w, x in zip(jax.tree.leaves(weights), jax.tree.leaves(tree), strict=True) if x.size]
    mu, factor = _multiplier(xs, ws, length, scale)
    mu, factor = jnp.where(inside, 0, mu), jnp.where(inside, 1, factor)
    return each_leaf(lambda x, w: x * (w / (w + mu)) * factor)(tree, weights)


@projection
def projection_l2_sphere(tree: Tree, scale: Positive = 1) -> Tree:
    """The nearest tree with `||x|| = scale`: `scale * x/||x||`.

    Args:
      tree: tree of floating or complex arrays, as one vector. Of zeros, all elements become equal.
      scale: radius, > 0.

    Returns:
      The projected tree, in the dtypes of `tree`. An element that is not finite makes elements NaN.

    Raises:
      ValueError: `scale` is not positive.
      TypeError: a leaf is no floating or complex array.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.projection_l2_sphere(jnp.array([0.3, 0.4])).round(3)
      Array([0.6, 0.8], dtype=float32)

    **Differs:** Optax makes zeros NaN.
    """
    xs = parts(tree, ordered=False)
    if not xs:
        return tree
    length, each = root_sum_squares(xs), 1 / math.sqrt(sum(x.size for x in xs))
    return each_leaf(lambda x: scale * jnp.where(length == 0, each, x / jnp.where(length == 0, 1, length)))(tree)


@projection
def projection_linf_sphere(tree: Tree, scale: Positive = 1) -> Tree:
    """The nearest tree whose largest magnitude is `scale`.

    All are cut to `scale`, and the largest is moved there.

    Args:
      tree: tree of floating or complex arrays, as one vector. Of elements that are equally large up
        to rounding the first is moved.
      scale: radius, > 0.

    Returns:
      The projected tree, in the dtypes of `tree`. NaN stays NaN.

    Raises:
      ValueError: `scale` is not positive.
      TypeError: a leaf is no floating or complex array.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.projection_linf_sphere(jnp.array([0.25, -0.5]))
      Array([ 0.25, -1.  ], dtype=float32)

    **Differs:** Optax has none.
    """
    xs = parts(tree, ordered=False)
    if not xs:
        return tree
    leaves, treedef = jax.tree.flatten(tree)
    tops = [jnp.max(jnp.abs(x)) if x.size else jnp.asarray(-1.0, real_dtype(x.dtype)) for x in leaves]
    best = jnp.argmax(stacked(tops))
    at = [jnp.where(best == k, _first(x, top), -1) for k, (x, top) in enumerate(zip(leaves, tops, strict=True))]

    @each_leaf
    def push(x: jax.Array, at: jax.Array) -> jax.Array:
        return jnp.where(_places(x) == at, _sign(x) * scale, shorten(x, scale))

    return push(tree, treedef.unflatten(at))


# Multipliers --------------------------------------------------------------------------------------


def _total(xs: list[jax.Array]) -> jax.Array:
    return jnp.sum(jnp.stack([jnp.sum(x) for x in xs]))


def _newton(step: Callable[..., jax.Array], *data: Tree) -> jax.Array:
    """The root to which `step(root, *data)` rises from 0.

    It is Newton's method for a convex falling function, from the left of the root. It ends where
    rounding lets it rise no more. One more step carries derivatives: at the root, those of a Newton
    step are those of the root.
    """
    fixed = jax.lax.stop_gradient(data)

    def rises(carry: tuple[jax.Array, jax.Array, Scalar]) -> jax.Array:
        before, after, steps = carry
        return (after > before) & (steps < 200)

    start = step(jnp.zeros_like(fixed[-1]), *fixed)
    root, _, _ = while_loop(
        rises, lambda carry: (carry[1], step(carry[1], *fixed), carry[2] + 1), (jnp.zeros_like(start), start, 0)
    )
    return step(root, *data)


# Jitted, since eager loops and conditions would be compiled anew at every call.
@jax.jit
def _threshold(xs: list[jax.Array], scale: Scalar) -> tuple[jax.Array, jax.Array]:
    """`top`, the largest element, and `theta` so that `sum max(x - top - theta, 0) = scale`."""
    dtype = common_dtype(*xs)
    scale = jnp.asarray(scale).astype(dtype)
    top = jax.lax.stop_gradient(jnp.stack([jnp.max(x).astype(dtype) for x in xs]).max())
    gaps = [jnp.maximum(x - top.astype(x.dtype), -scale.astype(x.dtype)) + scale.astype(x.dtype) for x in xs]
    return top, _newton(_simplex_step, gaps, scale) - scale


def _simplex_step(theta: jax.Array, xs: list[jax.Array], scale: jax.Array) -> jax.Array:
    excess = _total([jnp.maximum(x - theta.astype(x.dtype), 0) for x in xs]) - scale
    count = _total([jnp.where(x > theta.astype(x.dtype), 1, 0).astype(x.dtype) for x in xs])
    return (theta + excess / count).astype(theta.dtype)


@jax.jit
def _multiplier(xs: list[jax.Array], ws: list[jax.Array], length: jax.Array, scale: Scalar) -> tuple[jax.Array, jax.Array]:
    """`mu` of the weighted ball, and the factor that brings its point onto the sphere."""
    ratio = jnp.clip(length / scale, 1, FARTHEST).astype(length.dtype)
    unit = jnp.where(length > 0, length, 1)
    xs = [x / unit.astype(real_dtype(x.dtype)) for x in xs]
    mu = _newton(_ball_step, xs, ws, ratio)
    left = root_sum_squares(_weigh_all(xs, ws, mu))
    return mu, jax.lax.stop_gradient(scale / (unit * jnp.where(left == 0, 1, left))).astype(length.dtype)


def _weigh_all(xs: list[jax.Array], ws: list[jax.Array], mu: jax.Array) -> list[jax.Array]:
    # Not `x / (1 + mu / w)`: XLA makes the two one division, by a product that overflows.
    return [x * (w / (w + mu.astype(w.dtype))) for x, w in zip(xs, ws, strict=True)]


def _ball_step(mu: jax.Array, xs: list[jax.Array], ws: list[jax.Array], ratio: jax.Array) -> jax.Array:
    ys = _weigh_all(xs, ws, mu)
    length = root_sum_squares(ys)
    unit = jnp.where(length > 0, length, 1)
    slope = _total([abs_sq(y / unit.astype(w.dtype)) / (w + mu.astype(w.dtype)) for y, w in zip(ys, ws, strict=True)])
    return (mu + (length * ratio - 1) / jnp.where(slope > 0, slope, 1)).astype(mu.dtype)


# Parts of rules -----------------------------------------------------------------------------------


def _sign(x: jax.Array) -> jax.Array:
    return jnp.where(x == 0, 1, jnp.sign(x))


def _shrunk(tree: Tree, top: jax.Array, theta: jax.Array) -> Tree:
    """Magnitudes less `top + theta`, or 0."""
    return each_leaf(lambda x: _sign(x) * positive_part((jnp.abs(x) - top) - theta))(tree)


def _relative(weights: Tree, tree: Tree) -> Tree:
    """Weights as parts of the largest one, in the precision of the leaves that they are for."""
    weights = jax.tree.map(lambda w, x: jnp.asarray(w).astype(real_dtype(x.dtype)), weights, tree)
    largest = jnp.stack([jnp.max(w) for w, x in zip(jax.tree.leaves(weights), jax.tree.leaves(tree), strict=True) if x.size]).max()
    largest = jnp.where(largest > 0, largest, 1)
    return jax.tree.map(lambda w: jnp.maximum(w / largest.astype(w.dtype), LEAST_WEIGHT), weights)


@jax.jit  # so that the mesh of `x` is found where none is set
def _places(x: jax.Array) -> jax.Array:
    """The place of each element in row-major order, sharded as `x` is."""
    sharding, places = jax.typeof(x).sharding, jnp.zeros_like(x, jnp.int32)
    for axis, size in enumerate(x.shape):
        places = places * size + jax.lax.broadcasted_iota(jnp.int32, x.shape, axis, out_sharding=sharding)
    return places


@jax.jit
def _first(x: jax.Array, top: jax.Array) -> jax.Array:
    """The first place where `|x|` is `top`, or beyond all places where `top` is NaN.

    Up to rounding: XLA may compute `x` twice.
    """
    largest = jnp.abs(x) >= top * (1 - 4 * jnp.finfo(x.dtype).eps)
    return jnp.min(jnp.where(largest, _places(x), x.size), initial=x.size)
