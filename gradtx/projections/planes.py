"""Sets of linear equations: a line through 0, hyperplane, halfspace, affine set.

The whole tree is one vector.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.core import checks
from gradtx.core.domains import Number
from gradtx.core.leaves import each_leaf
from gradtx.core.numerics import compute_dtype, promote, root_sum_squares
from gradtx.core.sharding import gathered, placed_like
from gradtx.core.types import Leaf, Tree
from gradtx.core.vectors import from_vector, to_vector
from gradtx.projections.inputs import known, like, parts, projection


@projection
def projection_vector(x: Tree, a: Tree) -> Tree:
    """The nearest multiple of `a`: `a * <a, x>/<a, a>`.

    Args:
      x: tree of real floating arrays, as one vector.
      a: direction: a tree like `x`, not zero.

    Returns:
      The projected tree, in the dtypes of `x`.

    Raises:
      ValueError: `a` is zero, or has another structure or shape than `x`.
      TypeError: a leaf is no real floating array.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> x, a = jnp.array([3.0, 1.0]), jnp.array([1.0, 1.0])
      >>> gradtx.projections.projection_vector(x, a).round(3)
      Array([2., 2.], dtype=float32)
    """
    length, along = _along(x, a)
    return each_leaf(lambda x, a: placed_like(along * (a / length), x))(x, a)


@projection
def projection_hyperplane(x: Tree, a: Tree, b: Number) -> Tree:
    """The nearest tree with `<a, y> = b`: `x + a * (b - <a, x>)/<a, a>`.

    Args:
      x: tree of real floating arrays, as one vector.
      a: normal vector: a tree like `x`, not zero.
      b: offset, a number.

    Returns:
      The projected tree, in the dtypes of `x`.

    Raises:
      ValueError: `a` is zero, or has another structure or shape than `x`; `b` is not finite.
      TypeError: a leaf is no real floating array.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> x, a = jnp.array([3.0, 1.0]), jnp.array([1.0, 1.0])
      >>> gradtx.projections.projection_hyperplane(x, a, 2.0).round(3)
      Array([2., 0.], dtype=float32)
    """
    length, along = _along(x, a)
    return _moved(x, a, length, _offset(b, length) - along)


@projection
def projection_halfspace(x: Tree, a: Tree, b: Number) -> Tree:
    """The nearest tree with `<a, y> <= b`: `x + a * min(b - <a, x>, 0)/<a, a>`.

    Args:
      x: tree of real floating arrays, as one vector.
      a: normal vector, pointing out of the set: a tree like `x`, not zero.
      b: offset, a number.

    Returns:
      The projected tree, in the dtypes of `x`.

    Raises:
      ValueError: `a` is zero, or has another structure or shape than `x`; `b` is not finite.
      TypeError: a leaf is no real floating array.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> x, a = jnp.array([-3.0, 1.0]), jnp.array([1.0, 1.0])
      >>> gradtx.projections.projection_halfspace(x, a, 2.0)
      Array([-3.,  1.], dtype=float32)
    """
    length, along = _along(x, a)
    return _moved(x, a, length, jnp.minimum(_offset(b, length) - along, 0))


@projection
def projection_affine_set(x: Tree, a: ArrayLike, b: ArrayLike) -> Tree:
    """The nearest tree with `A y = b`: `x - pinv(A) (A x - b)`.

    Args:
      x: tree of real floating arrays, as one vector: the leaves in the order of `jax.tree.leaves`,
        each row by row.
      a: matrix `A` of shape (equations, elements of `x`), of any rank.
      b: right-hand sides, of shape (equations,). Where no `y` solves them, the nearest of the
        least-squares solutions is given.

    Returns:
      The projected tree, in the dtypes of `x`.

    Raises:
      ValueError: `a` or `b` has another shape.
      TypeError: a leaf is no real floating array.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> x = {"v": jnp.array([1.0, 2.0]), "w": jnp.array(4.0)}
      >>> a, b = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]]), jnp.array([1.0, 6.0])
      >>> y = gradtx.projections.projection_affine_set(x, a, b)
      >>> [round(float(v), 3) for v in (*y["v"], y["w"])]
      [0.0, 1.0, 3.0]

    **Differs:** Optax has none.
    """
    xs = parts(x)
    check_equations(a, b)
    size = sum(leaf.size for leaf in xs)
    if np.shape(a)[1] != size:
        raise checks.WrongValue(f"a has {np.shape(a)[1]} columns, but the tree has {size} elements; expected as many.")
    if not xs:
        return x
    flat = to_vector(x, jnp.result_type(*xs))
    matrix, offsets = (gathered(jnp.asarray(v)).astype(flat.dtype) for v in (a, b))
    excess = jnp.matmul(matrix, flat, precision="highest") - offsets
    flat = flat - jnp.linalg.lstsq(matrix, excess)[0]
    return from_vector(flat, x)


def check_equations(a: Leaf, b: Leaf) -> None:
    """Raises a `ValueError` unless `a` is a matrix and `b` a vector of as many rows."""
    if np.ndim(a) != 2 or np.shape(b) != np.shape(a)[:1]:
        found = f"a has shape {np.shape(a)} and b {np.shape(b)}"
        raise checks.WrongValue(f"{found}, expected (equations, elements) and (equations,).")


def check_normal(a: Tree) -> None:
    """Raises a `ValueError` where all of `a` is known to be zero."""
    numbers = [known(leaf) for leaf in jax.tree.leaves(a) if np.size(leaf)]
    if numbers and all(n is not None and not np.any(n) for n in numbers):
        raise checks.WrongValue("a is zero, expected a vector with a direction.")


def _along(x: Tree, a: Tree) -> tuple[jax.Array, jax.Array]:
    """The length of `a`, and that of `x` along it."""
    xs = parts(x)
    a = like("a", a, x, scalars=False)
    check_normal(a)
    normals = [promote(jnp.asarray(n, compute_dtype(v.dtype))) for n, v in zip(_with_elements(a), xs, strict=True)]
    length = root_sum_squares(normals)
    unit = jnp.where(length > 0, length, 1)
    products = [jnp.sum(n / unit.astype(n.dtype) * v) for n, v in zip(normals, xs, strict=True)]
    return unit, jnp.sum(jnp.stack(products)) if products else jnp.zeros((), length.dtype)


def _with_elements(tree: Tree) -> list[Leaf]:
    return [leaf for leaf in jax.tree.leaves(tree) if np.size(leaf)]


def _offset(b: Leaf, length: jax.Array) -> jax.Array:
    return jnp.asarray(b).astype(length.dtype) / length


def _moved(x: Tree, a: Tree, length: jax.Array, by: jax.Array) -> Tree:
    """`x`, moved along `a` by a length."""
    return each_leaf(lambda x, a: x + by * (a / length))(x, a)
