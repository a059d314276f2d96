"""Arithmetic leaf by leaf, and moments."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.core import checks
from gradtx.core.leaves import map_leaves
from gradtx.core.numerics import abs_sq, as_data, is_key, one_minus_power, with_complement
from gradtx.core.types import Leaf, LeafRule, Scalar, Tree, Updates
from gradtx.tree.align import aligned, lift, rank, scalar_array


def add(tree_x: Tree, tree_y: Tree, *other_trees: Tree) -> Tree:
    """`x + y + ...`.

    Example:
      >>> import gradtx
      >>> gradtx.tree.add({"w": 1.0}, {"w": 2.0}, {"w": 3.0})
      {'w': Array(6., dtype=float32)}
    """
    others = {f"other_trees[{i}]": tree for i, tree in enumerate(other_trees)}
    return lift("add", _add, {"tree_x": tree_x, "tree_y": tree_y} | others)


def sub(tree_x: Tree, tree_y: Tree) -> Tree:
    """`x - y`.

    Example:
      >>> import gradtx
      >>> gradtx.tree.sub([3.0], [1.0])
      [Array(2., dtype=float32)]
    """
    return lift("sub", operator.sub, {"tree_x": tree_x, "tree_y": tree_y})


def mul(tree_x: Tree, tree_y: Tree) -> Tree:
    """`x * y`, element by element.

    Example:
      >>> import gradtx
      >>> gradtx.tree.mul([3.0], [2.0])
      [Array(6., dtype=float32)]
    """
    return lift("mul", operator.mul, {"tree_x": tree_x, "tree_y": tree_y})


def div(tree_x: Tree, tree_y: Tree) -> Tree:
    """`x / y`, element by element; integers give floats.

    Example:
      >>> import gradtx
      >>> gradtx.tree.div([3], [2])
      [Array(1.5, dtype=float32)]
    """
    return lift("div", operator.truediv, {"tree_x": tree_x, "tree_y": tree_y}, holds=1.0)


def scale(scalar: ArrayLike, tree: Tree) -> Tree:
    """`scalar * x`.

    Raises:
      TypeError: `scalar` is none.

    Example:
      >>> import gradtx
      >>> gradtx.tree.scale(0.5, {"w": 3.0})
      {'w': Array(1.5, dtype=float32)}
    """
    return lift("scale", _scale, {"tree": tree}, scalar=scalar_array("scale", "scalar", scalar))


def add_scale(tree_x: Tree, scalar: ArrayLike, tree_y: Tree) -> Tree:
    """`x + scalar * y`; None where `x` is None, whatever `y` has there.

    Raises:
      TypeError: `scalar` is none.

    Example:
      >>> import gradtx
      >>> gradtx.tree.add_scale([1.0, None], -0.5, [4.0, 2.0])
      [Array(-1., dtype=float32), None]
    """
    trees = {"tree_x": tree_x, "tree_y": tree_y}
    return lift("add_scale", _add_scale, trees, first_decides=True, scalar=scalar_array("add_scale", "scalar", scalar))


def clip(tree: Tree, min_value: ArrayLike | None = None, max_value: ArrayLike | None = None) -> Tree:
    """`min(max(x, min_value), max_value)`; None is no bound.

    Raises:
      TypeError: a bound is no scalar.
      ValueError: a leaf is complex.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.clip(jnp.array([-3.0, 0.5, 3.0]), min_value=-1.0, max_value=2.0)
      Array([-1. ,  0.5,  2. ], dtype=float32)
    """
    low = None if min_value is None else scalar_array("clip", "min_value", min_value)
    high = None if max_value is None else scalar_array("clip", "max_value", max_value)
    return lift("clip", _clip, {"tree": tree}, low=low, high=high)


def conj(tree: Tree) -> Tree:
    """The complex conjugate.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.conj(jnp.array([1 + 2j]))
      Array([1.-2.j], dtype=complex64)
    """
    return jax.tree.map(jnp.conj, tree)


def real(tree: Tree) -> Tree:
    """The real part.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.real(jnp.array([1 + 2j]))
      Array([1.], dtype=float32)
    """
    return jax.tree.map(jnp.real, tree)


def where(condition: ArrayLike, tree_x: Tree, tree_y: Tree) -> Tree:
    """`x` where the condition holds, else `y`; leaves may be PRNG keys.

    Args:
      condition: a boolean, or booleans that broadcast to the shape of each leaf.
      tree_x: the one tree.
      tree_y: the other.

    Raises:
      ValueError: `condition` does not fit a leaf.

    Example:
      >>> import gradtx
      >>> gradtx.tree.where(True, {"w": 1.0}, {"w": 2.0})
      {'w': Array(1., dtype=float32)}
    """
    with checks.calling("tree.where"):
        columns, put_back = aligned({"tree_x": tree_x, "tree_y": tree_y})
        return put_back([_choose(condition, x, y) for x, y in zip(*columns, strict=True)])


def update_moment(updates: Updates, moments: Tree, decay: ArrayLike, order: ArrayLike) -> Tree:
    """`(1 - decay) * g**order + decay * m`, in the dtypes of the moments; None where the update is.

    Example:
      >>> import gradtx
      >>> gradtx.tree.update_moment([2.0], [0.0], decay=0.5, order=2)
      [Array(2., dtype=float32)]
    """
    return _average("update_moment", _power_moment, updates, moments, decay, order)


def update_moment_per_elem_norm(updates: Updates, moments: Tree, decay: ArrayLike, order: ArrayLike) -> Tree:
    """`(1 - decay) * |g|**order + decay * m` for complex updates, `update_moment` for real ones.

    Example:
      >>> import gradtx
      >>> gradtx.tree.update_moment_per_elem_norm([3 + 4j], [0.0], decay=0.5, order=2)
      [Array(12.5, dtype=float32)]
    """
    return _average("update_moment_per_elem_norm", _norm_moment, updates, moments, decay, order)


def update_infinity_moment(updates: Updates, moments: Tree, decay: ArrayLike, eps: ArrayLike) -> Tree:
    """`max(|g| + eps, decay * m)`, in the dtypes of the moments; None where the update is.

    Example:
      >>> import gradtx
      >>> gradtx.tree.update_infinity_moment([-2.0], [3.0], decay=0.5, eps=0.0)
      [Array(2., dtype=float32)]
    """
    return _moment("update_infinity_moment", _infinity_moment, updates, moments, decay=as_data(decay), eps=as_data(eps))


def bias_correction(moment: Tree, decay: ArrayLike, count: ArrayLike) -> Tree:
    """`m / (1 - decay**count)`, where the denominator is 0 (`count` = 0) `m`.

    Example:
      >>> import gradtx
      >>> gradtx.tree.bias_correction([0.1], decay=0.9, count=1)[0].round(4)
      Array(1., dtype=float32)

    **Differs:** `1 - decay**count` is computed without cancellation; Optax gives NaN at
    `count = 0`.
    """
    c = one_minus_power(decay, count)
    return lift("bias_correction", _divide, {"moment": moment}, c=jnp.where(c > 0, c, 1))


def _add(*xs: jax.Array) -> jax.Array:
    return functools.reduce(operator.add, xs)


def _scale(x: jax.Array, *, scalar: Scalar) -> jax.Array:
    return scalar * x


def _add_scale(x: jax.Array, y: jax.Array, *, scalar: Scalar) -> jax.Array:
    return x + scalar * y


def _clip(x: jax.Array, *, low: Scalar, high: Scalar) -> jax.Array:
    return jnp.clip(x, low, high)


def _divide(x: jax.Array, *, c: Scalar) -> jax.Array:
    return x / c


def _power_moment(m: jax.Array, g: jax.Array, *, decay: Scalar, rest: Scalar, order: Scalar) -> jax.Array:
    power = order if isinstance(order, (int, float)) else order.astype(g.real.dtype)
    return rest * g**power + decay * m


def _norm_moment(m: jax.Array, g: jax.Array, *, decay: Scalar, rest: Scalar, order: Scalar) -> jax.Array:
    if not jnp.iscomplexobj(g):
        return _power_moment(m, g, decay=decay, rest=rest, order=order)
    half = order // 2 if isinstance(order, int) and order % 2 == 0 else order / 2
    return _power_moment(m, abs_sq(g), decay=decay, rest=rest, order=half)


def _infinity_moment(m: jax.Array, g: jax.Array, *, decay: Scalar, eps: Scalar) -> jax.Array:
    return jnp.maximum(jnp.abs(g) + eps, decay * m)


def _choose(condition: ArrayLike, x: Leaf, y: Leaf) -> jax.Array:
    shape = np.broadcast_shapes(np.shape(x), np.shape(y))
    try:
        fits = np.broadcast_shapes(np.shape(condition), shape) == shape
    except ValueError:
        fits = False
    if not fits:
        given = checks.kind(condition)
        raise checks.WrongValue(f"condition is {given}, expected a boolean, or booleans for leaves of shape {shape}.")
    chosen = jnp.where(condition, x, y)
    if is_key(chosen):
        return chosen
    own = jnp.result_type(x)
    return chosen.astype(chosen.dtype if rank(chosen.dtype) > rank(own) else own)


def _average(name: str, rule: LeafRule, updates: Updates, moments: Tree, decay: Scalar, order: Scalar) -> Tree:
    decay, rest = with_complement(decay)
    return _moment(name, rule, updates, moments, decay=decay, rest=rest, order=order)


def _moment(name: str, rule: LeafRule, updates: Updates, moments: Tree, **scalars: Scalar) -> Tree:
    with checks.calling(f"tree.{name}"):
        (gs, ms), put_back = aligned({"updates": updates, "moments": moments}, first_decides=True, shapes="equal")
        return put_back(map_leaves(rule, ms, gs, **scalars) if gs else [])
