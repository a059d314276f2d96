"""Arithmetic on trees of arrays, leaf by leaf; public as `gradtx.tree`, with the names and meanings of `optax.tree`.

What holds for all functions here:

- Entries that are None or `MaskedNode` stay as they are, and empty arrays pass.
- Trees that go together have one structure and, leaf by leaf, one shape, or a `ValueError` names the first path that
  differs. Leaves that are scalars go with any shape in arithmetic; nothing else is broadcast.
- **Differs:** leaves are computed in at least float32. A result is stored in the dtype of the first tree's leaf, unless that
  cannot hold it (an integer a fraction, a real a complex number). Sums and norms stay in at least float32.
"""

import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from gradtx.core import checks
from gradtx.core.leaves import is_inexact, is_masked_or_none, map_leaves
from gradtx.core.lookup import NamedTupleKey, difference, entries_like, get, get_all_with_path, map_params, set
from gradtx.core.numerics import abs_sq, compute_dtype, default_float, is_key, one_minus_power, promote, root_sum_squares
from gradtx.core.paths import ROOT, leaves_by_path

__all__ = [
    "NamedTupleKey", "add", "add_scale", "allclose", "batch_shape", "bias_correction", "cast", "cast_like", "clip", "conj", "div",
    "dtype", "full_like", "get", "get_all_with_path", "global_norm", "map_params", "max", "min", "mul", "norm", "ones_like",
    "random_like", "real", "scale", "set", "size", "split_key_like", "sub", "sum", "unwrap_random_key_data",
    "update_infinity_moment", "update_moment", "update_moment_per_elem_norm", "vdot", "where", "zeros_like",
]  # fmt: skip


# Arithmetic -----------------------------------------------------------------------------------------------


def add(tree_x: Any, tree_y: Any, *other_trees: Any) -> Any:
    """`x + y + ...`.

    Example:
      >>> import gradtx
      >>> gradtx.tree.add({"w": 1.0}, {"w": 2.0}, {"w": 3.0})
      {'w': Array(6., dtype=float32)}
    """
    others = {f"other_trees[{i}]": tree for i, tree in enumerate(other_trees)}
    return _lift("add", _add, {"tree_x": tree_x, "tree_y": tree_y} | others)


def sub(tree_x: Any, tree_y: Any) -> Any:
    """`x - y`.

    Example:
      >>> import gradtx
      >>> gradtx.tree.sub([3.0], [1.0])
      [Array(2., dtype=float32)]
    """
    return _lift("sub", operator.sub, {"tree_x": tree_x, "tree_y": tree_y})


def mul(tree_x: Any, tree_y: Any) -> Any:
    """`x * y`, element by element.

    Example:
      >>> import gradtx
      >>> gradtx.tree.mul([3.0], [2.0])
      [Array(6., dtype=float32)]
    """
    return _lift("mul", operator.mul, {"tree_x": tree_x, "tree_y": tree_y})


def div(tree_x: Any, tree_y: Any) -> Any:
    """`x / y`, element by element; integers give floats.

    Example:
      >>> import gradtx
      >>> gradtx.tree.div([3], [2])
      [Array(1.5, dtype=float32)]
    """
    return _lift("div", operator.truediv, {"tree_x": tree_x, "tree_y": tree_y}, holds=1.0)


def scale(scalar: ArrayLike, tree: Any) -> Any:
    """`scalar * x`.

    Raises:
      TypeError: `scalar` is none.

    Example:
      >>> import gradtx
      >>> gradtx.tree.scale(0.5, {"w": 3.0})
      {'w': Array(1.5, dtype=float32)}
    """
    return _lift("scale", _scale, {"tree": tree}, scalar=_scalar("scale", "scalar", scalar))


def add_scale(tree_x: Any, scalar: ArrayLike, tree_y: Any) -> Any:
    """`x + scalar * y`; None where `x` is None, whatever `y` has there.

    Raises:
      TypeError: `scalar` is none.

    Example:
      >>> import gradtx
      >>> gradtx.tree.add_scale([1.0, None], -0.5, [4.0, 2.0])
      [Array(-1., dtype=float32), None]
    """
    trees = {"tree_x": tree_x, "tree_y": tree_y}
    return _lift("add_scale", _add_scale, trees, first_decides=True, scalar=_scalar("add_scale", "scalar", scalar))


def clip(tree: Any, min_value: ArrayLike | None = None, max_value: ArrayLike | None = None) -> Any:
    """`min(max(x, min_value), max_value)`; None is no bound.

    Raises:
      TypeError: a bound is no scalar.
      ValueError: a leaf is complex.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.clip(jnp.array([-3.0, 0.5, 3.0]), min_value=-1.0, max_value=2.0)
      Array([-1. ,  0.5,  2. ], dtype=float32)
    """
    low = None if min_value is None else _scalar("clip", "min_value", min_value)
    high = None if max_value is None else _scalar("clip", "max_value", max_value)
    return _lift("clip", _clip, {"tree": tree}, low=low, high=high)


def conj(tree: Any) -> Any:
    """The complex conjugate.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.conj(jnp.array([1 + 2j]))
      Array([1.-2.j], dtype=complex64)
    """
    return jax.tree.map(jnp.conj, tree)


def real(tree: Any) -> Any:
    """The real part.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.real(jnp.array([1 + 2j]))
      Array([1.], dtype=float32)
    """
    return jax.tree.map(jnp.real, tree)


def where(condition: ArrayLike, tree_x: Any, tree_y: Any) -> Any:
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
        columns, put_back = _aligned({"tree_x": tree_x, "tree_y": tree_y})
        return put_back([_choose(condition, x, y) for x, y in zip(*columns, strict=True)])


# From trees to numbers ------------------------------------------------------------------------------------


def sum(tree: Any, associative_reduction: bool = False) -> jax.Array:
    """The sum of all elements, in at least float32; integers stay integers.

    Args:
      tree: tree of arrays.
      associative_reduction: taken for Optax's sake and without effect; leaves' sums are always added in one reduction.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.sum({"w": jnp.ones(1000, jnp.bfloat16), "b": 0.5})
      Array(1000.5, dtype=float32)
    """
    del associative_reduction
    return _total([jnp.sum(promote(x)) for x in jax.tree.leaves(tree)])


def vdot(tree_x: Any, tree_y: Any) -> jax.Array:
    """The inner product `sum(conj(x) * y)`, in at least float32 on every device.

    Raises:
      ValueError: structures or shapes differ.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.vdot([jnp.array([1.0, 2.0])], [jnp.array([3.0, 4.0])])
      Array(11., dtype=float32)
    """
    with checks.calling("tree.vdot"):
        (xs, ys), _ = _aligned({"tree_x": tree_x, "tree_y": tree_y}, shapes="equal")
    # Multiplied element by element, since matrix units of TPUs and GPUs may round float32 factors; it also shards.
    return _total([jnp.sum(jnp.conj(promote(x)) * promote(y)) for x, y in zip(xs, ys, strict=True)])


def norm(tree: Any, ord: int | str | float | None = None, squared: bool = False) -> jax.Array:
    """The norm of all elements as one vector; real also for complex trees.

    Args:
      tree: tree of arrays.
      ord: None or 2 for the Euclidean norm, 1 for the sum of magnitudes, `inf` (or "inf", "infinity") for the largest.
      squared: whether to return the norm's square.

    Returns:
      A scalar in at least float32; 0 for a tree without elements.

    Raises:
      ValueError: another `ord`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.norm({"w": jnp.array([3e30, 4j * 1e30])}) / 1e30
      Array(5., dtype=float32)

    **Differs:** the Euclidean norm does not overflow where squares would. In Optax the infinity norm of an empty tree is -inf.
    """
    leaves = [promote(x) if is_inexact(x) else jnp.asarray(x, default_float()) for x in jax.tree.leaves(tree)]
    if ord is None or ord == 2:
        return _total([jnp.sum(abs_sq(x)) for x in leaves]) if squared else root_sum_squares(leaves)
    if ord == 1:
        value = _total([jnp.sum(jnp.abs(x)) for x in leaves])
    elif ord in (np.inf, "inf", "infinity"):
        value = _extreme(jnp.max, [jnp.abs(x) for x in leaves], jnp.zeros((), default_float()))
    else:
        raise ValueError(f"tree.norm: ord is {checks.kind(ord)}, expected None, 1, 2 or inf.")
    return value * value if squared else value


def global_norm(updates: Any) -> jax.Array:
    """The Euclidean norm of all elements: `tree.norm(updates)`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.global_norm({"w": jnp.array([3.0]), "b": jnp.array(4.0)})
      Array(5., dtype=float32)
    """
    return norm(updates)


def max(tree: Any) -> jax.Array:
    """The largest element; -inf for a tree without elements.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.max([jnp.array([1, 5]), jnp.array([3])])
      Array(5, dtype=int32)

    **Differs:** Optax turns integers into floats.
    """
    return _extreme(jnp.max, jax.tree.leaves(tree), jnp.asarray(-jnp.inf, default_float()))


def min(tree: Any) -> jax.Array:
    """The smallest element; inf for a tree without elements.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.min([jnp.array([1, 5]), jnp.array([3])])
      Array(1, dtype=int32)

    **Differs:** Optax turns integers into floats.
    """
    return _extreme(jnp.min, jax.tree.leaves(tree), jnp.asarray(jnp.inf, default_float()))


def size(tree: Any) -> int:
    """The number of elements.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.size({"w": jnp.ones((2, 3)), "b": 1.0})
      7
    """
    total = 0
    for leaf in jax.tree.leaves(tree):
        total += np.size(leaf)
    return total


def allclose(a: Any, b: Any, rtol: ArrayLike = 1e-05, atol: ArrayLike = 1e-08, equal_nan: bool = False) -> jax.Array:
    """Whether `|a - b| <= atol + rtol * |b|` for all elements.

    Args:
      a: tree of arrays.
      b: tree of the same structure and shapes.
      rtol: relative tolerance.
      atol: absolute tolerance.
      equal_nan: whether NaN equals NaN.

    Raises:
      ValueError: structures or shapes differ.

    Example:
      >>> import gradtx
      >>> bool(gradtx.tree.allclose([1.0], [1.000001])), bool(gradtx.tree.allclose([1.0], [1.1]))
      (True, False)
    """
    with checks.calling("tree.allclose"):
        (xs, ys), _ = _aligned({"a": a, "b": b}, shapes="equal")
    close = [jnp.allclose(promote(x), promote(y), rtol, atol, equal_nan) for x, y in zip(xs, ys, strict=True)]
    return jnp.all(jnp.asarray(close, bool))


# Dtypes and new trees -------------------------------------------------------------------------------------


def cast(tree: Any, dtype: DTypeLike | None) -> Any:
    """Leaves in `dtype`; None leaves them as they are.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.cast({"w": 1.0}, jnp.bfloat16)
      {'w': Array(1, dtype=bfloat16)}
    """
    return tree if dtype is None else jax.tree.map(lambda x: jnp.asarray(x).astype(dtype), tree)


def cast_like(tree: Any, other_tree: Any) -> Any:
    """Leaves in the dtypes of the other tree's leaves, whatever their shapes; Python numbers there change nothing.

    Raises:
      ValueError: structures differ.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.cast_like([1.0], [jnp.ones(3, jnp.float16)])
      [Array(1., dtype=float16)]
    """
    with checks.calling("tree.cast_like"):
        (xs, others), put_back = _aligned({"tree": tree, "other_tree": other_tree}, shapes="any")
    pairs = zip(xs, others, strict=True)
    return put_back([jnp.asarray(x).astype(o.dtype) if hasattr(o, "dtype") else x for x, o in pairs])


def dtype(tree: Any, mixed_dtype_handler: str | None = None) -> Any:
    """The dtype of the leaves; the default float for a tree without any.

    Args:
      tree: tree of arrays.
      mixed_dtype_handler: what to return if dtypes differ: "promote" for the one that JAX promotes them to, "highest" or
        "lowest" for the leaf's dtype to which all others promote, or which promotes to all others; None is an error.

    Raises:
      ValueError: dtypes differ and there is no handler, none of them is the highest or lowest, or the handler is unknown.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.dtype([jnp.ones(1, jnp.float16), jnp.ones(1)], "lowest")
      dtype('float16')
    """
    found = {jnp.result_type(x): "/".join(parts) or ROOT for parts, x in reversed(leaves_by_path(tree).items())}
    if mixed_dtype_handler not in (None, "promote", "highest", "lowest"):
        given = checks.kind(mixed_dtype_handler)
        raise ValueError(f"tree.dtype: mixed_dtype_handler is {given}, expected None, 'promote', 'highest' or 'lowest'.")
    if not found:
        return default_float()
    if len(found) == 1:
        return next(iter(found))
    shown = " and ".join(f"{kind} (`{path}`)" for kind, path in reversed(found.items()))
    if mixed_dtype_handler is None:
        raise ValueError(f"tree.dtype: leaves are {shown}, expected one dtype, or a mixed_dtype_handler.")
    if mixed_dtype_handler == "promote":
        return functools.reduce(jnp.promote_types, found)
    chosen = operator.itemgetter(0 if mixed_dtype_handler == "highest" else 1)
    for candidate in found:
        if all(jnp.promote_types(candidate, other) == chosen((candidate, other)) for other in found):
            return candidate
    raise ValueError(f"tree.dtype: leaves are {shown}, of which none is the {mixed_dtype_handler}: not all promote to one another.")


def zeros_like(tree: Any, dtype: DTypeLike | None = None) -> Any:
    """Zeros in `dtype`, or in each leaf's own.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.zeros_like([jnp.ones(2)])
      [Array([0., 0.], dtype=float32)]
    """
    return full_like(tree, 0, dtype)


def ones_like(tree: Any, dtype: DTypeLike | None = None) -> Any:
    """Ones in `dtype`, or in each leaf's own.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.ones_like([jnp.zeros(2)])
      [Array([1., 1.], dtype=float32)]
    """
    return full_like(tree, 1, dtype)


def full_like(tree: Any, fill_value: ArrayLike, dtype: DTypeLike | None = None) -> Any:
    """`fill_value` everywhere, in `dtype` or in each leaf's own.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.full_like([jnp.zeros(2)], 7)
      [Array([7., 7.], dtype=float32)]
    """
    return jax.tree.map(lambda x: jnp.full_like(x, fill_value, dtype=dtype or jnp.result_type(x)), tree)


def batch_shape(tree: Any, shape: tuple[int, ...] = ()) -> Any:
    """Leaves repeated along new leading axes of `shape`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.batch_shape(jnp.ones(3), (2, 4)).shape
      (2, 4, 3)
    """
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *np.shape(x))), tree)


# Random trees ---------------------------------------------------------------------------------------------


def split_key_like(rng_key: jax.Array, target_tree: Any) -> Any:
    """A tree of independent PRNG keys, one for each leaf.

    Example:
      >>> import jax, gradtx
      >>> keys = gradtx.tree.split_key_like(jax.random.key(0), {"w": 1.0, "b": 2.0})
      >>> bool(keys["w"] == keys["b"])
      False
    """
    treedef = jax.tree.structure(target_tree)
    return treedef.unflatten(list(jax.random.split(rng_key, treedef.num_leaves)))


def random_like(
    rng_key: jax.Array, target_tree: Any, sampler: Callable[..., Any] = jax.random.normal, dtype: DTypeLike | None = None
) -> Any:
    """Random numbers in the shapes of a tree, drawn independently for each leaf.

    Args:
      rng_key: PRNG key.
      target_tree: tree of arrays.
      sampler: function `(key, shape, dtype)`, such as those of `jax.random`.
      dtype: dtype of the numbers; None is each leaf's own.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> noise = gradtx.tree.random_like(jax.random.key(0), {"w": jnp.zeros((2, 3), jnp.float16)})
      >>> noise["w"].shape, noise["w"].dtype
      ((2, 3), dtype('float16'))

    **Differs:** numbers in half precision are drawn in float32 and rounded. Drawn in bfloat16 itself, as in Optax,
    `jax.random.normal` has but 128 values, none beyond 2.52.
    """
    shards = "out_sharding" in inspect.signature(sampler).parameters

    def sample(leaf: Any, key: jax.Array) -> jax.Array:
        wanted = np.dtype(dtype or jnp.result_type(leaf))
        placed = {"out_sharding": jax.typeof(leaf).sharding} if shards else {}
        return jnp.asarray(sampler(key, np.shape(leaf), compute_dtype(wanted), **placed)).astype(wanted)

    return jax.tree.map(sample, target_tree, split_key_like(rng_key, target_tree))


def unwrap_random_key_data(input_tree: Any) -> Any:
    """PRNG keys as their integers, so that trees can be compared or saved; other leaves as they are.

    Example:
      >>> import jax, gradtx
      >>> gradtx.tree.unwrap_random_key_data([jax.random.key(1), 2.0])
      [Array([0, 1], dtype=uint32), 2.0]
    """
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, input_tree)


# Moments --------------------------------------------------------------------------------------------------


def update_moment(updates: Any, moments: Any, decay: ArrayLike, order: ArrayLike) -> Any:
    """`(1 - decay) * g**order + decay * m`, in the dtypes of the moments; None where the update is.

    Example:
      >>> import gradtx
      >>> gradtx.tree.update_moment([2.0], [0.0], decay=0.5, order=2)
      [Array(2., dtype=float32)]
    """
    return _moment("update_moment", _power_moment, updates, moments, decay=decay, order=order)


def update_moment_per_elem_norm(updates: Any, moments: Any, decay: ArrayLike, order: ArrayLike) -> Any:
    """`(1 - decay) * |g|**order + decay * m` for complex updates, `update_moment` for real ones.

    Example:
      >>> import gradtx
      >>> gradtx.tree.update_moment_per_elem_norm([3 + 4j], [0.0], decay=0.5, order=2)
      [Array(12.5, dtype=float32)]
    """
    return _moment("update_moment_per_elem_norm", _norm_moment, updates, moments, decay=decay, order=order)


def update_infinity_moment(updates: Any, moments: Any, decay: ArrayLike, eps: ArrayLike) -> Any:
    """`max(|g| + eps, decay * m)`, in the dtypes of the moments; None where the update is.

    Example:
      >>> import gradtx
      >>> gradtx.tree.update_infinity_moment([-2.0], [3.0], decay=0.5, eps=0.0)
      [Array(2., dtype=float32)]
    """
    return _moment("update_infinity_moment", _infinity_moment, updates, moments, decay=decay, eps=eps)


def bias_correction(moment: Any, decay: ArrayLike, count: ArrayLike) -> Any:
    """`m / (1 - decay**count)`, where the denominator is 0 (`count` = 0) `m`.

    Example:
      >>> import gradtx
      >>> gradtx.tree.bias_correction([0.1], decay=0.9, count=1)[0].round(4)
      Array(1., dtype=float32)

    **Differs:** `1 - decay**count` is computed without cancellation; Optax gives NaN at `count` = 0.
    """
    c = one_minus_power(decay, count)
    return _lift("bias_correction", _divide, {"moment": moment}, c=jnp.where(c > 0, c, 1))


# Rules for one array, and how trees are laid side by side -------------------------------------------------


def _add(*xs: jax.Array) -> jax.Array:
    return functools.reduce(operator.add, xs)


def _scale(x: jax.Array, *, scalar: Any) -> jax.Array:
    return scalar * x


def _add_scale(x: jax.Array, y: jax.Array, *, scalar: Any) -> jax.Array:
    return x + scalar * y


def _clip(x: jax.Array, *, low: Any, high: Any) -> jax.Array:
    return jnp.clip(x, low, high)


def _divide(x: jax.Array, *, c: Any) -> jax.Array:
    return x / c


def _power_moment(m: jax.Array, g: jax.Array, *, decay: Any, order: Any) -> jax.Array:
    return (1 - decay) * g**order + decay * m


def _norm_moment(m: jax.Array, g: jax.Array, *, decay: Any, order: Any) -> jax.Array:
    if not jnp.iscomplexobj(g):
        return _power_moment(m, g, decay=decay, order=order)
    half = order // 2 if isinstance(order, int) and order % 2 == 0 else order / 2
    return _power_moment(m, abs_sq(g), decay=decay, order=half)


def _infinity_moment(m: jax.Array, g: jax.Array, *, decay: Any, eps: Any) -> jax.Array:
    return jnp.maximum(jnp.abs(g) + eps, decay * m)


def _choose(condition: ArrayLike, x: Any, y: Any) -> jax.Array:
    shape = np.broadcast_shapes(np.shape(x), np.shape(y))
    try:
        fits = np.broadcast_shapes(np.shape(condition), shape) == shape
    except ValueError:
        fits = False
    if not fits:
        given = checks.kind(condition)
        raise ValueError(f"{checks.where()}: condition is {given}, expected a boolean, or booleans for leaves of shape {shape}.")
    chosen = jnp.where(condition, x, y)
    if is_key(chosen):
        return chosen
    own = jnp.result_type(x)
    return chosen.astype(chosen.dtype if _kind(chosen.dtype) > _kind(own) else own)


def _total(parts: list[jax.Array]) -> jax.Array:
    return jnp.sum(jnp.stack(parts)) if parts else jnp.zeros((), default_float())


def _extreme(reduction: Callable[[Any], jax.Array], leaves: list[Any], of_none: jax.Array) -> jax.Array:
    parts = [reduction(jnp.asarray(x)) for x in leaves if np.size(x)]
    return reduction(jnp.stack(parts)) if parts else of_none


def _scalar(name: str, argument: str, value: Any) -> jax.Array:
    """A scalar as an array, so that eager code is not compiled again for each value."""
    if np.shape(value) != ():
        raise TypeError(f"tree.{name}: {argument} is {checks.kind(value)}, expected a scalar.")
    return jnp.asarray(value)


def _moment(name: str, rule: Callable[..., Any], updates: Any, moments: Any, **scalars: Any) -> Any:
    with checks.calling(f"tree.{name}"):
        (gs, ms), put_back = _aligned({"updates": updates, "moments": moments}, first_decides=True, shapes="equal")
        return put_back(map_leaves(rule, ms, gs, **scalars) if gs else [])


def _lift(
    name: str, rule: Callable[..., Any], trees: Mapping[str, Any], first_decides: bool = False, holds: Any = False, **scalars: Any
) -> Any:
    """`map_leaves` for trees that may hold integers and scalars; `holds` is a number that results can hold."""
    with checks.calling(f"tree.{name}"):
        columns, put_back = _aligned(trees, first_decides=first_decides)
        numbers = [holds, *(x for x in scalars.values() if x is not None)]
        firsts = [_wide_enough(row, numbers) for row in zip(*columns, strict=True)]
        return put_back(map_leaves(rule, firsts, *columns[1:], **scalars) if firsts else [])


def _wide_enough(row: tuple[Any, ...], numbers: list[Any]) -> Any:
    """The first leaf of a row, in a shape and a kind of dtype that can hold a result made from all of them."""
    first = row[0]
    own, together = jnp.result_type(first), jnp.result_type(*row, *numbers)
    shape = np.broadcast_shapes(*map(np.shape, row))
    if np.shape(first) != shape:
        first = jnp.broadcast_to(first, shape)
    return jnp.asarray(first, together) if _kind(together) > _kind(own) else first


def _kind(dtype: Any) -> int:
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    return next((i for i, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind)), -1)


def _aligned(
    trees: Mapping[str, Any], *, first_decides: bool = False, shapes: str = "scalars"
) -> tuple[list[list[Any]], Callable[[list[Any]], Any]]:
    """The trees' leaves side by side, without entries that are None or masked, and how to put results in their places.

    Args:
      trees: trees of one structure by the names that errors call them.
      first_decides: whether the other trees may have anything where the first has None or `MaskedNode`.
      shapes: "equal", "scalars" (equal or scalar) or "any".
    """
    (first_name, first), *others = trees.items()
    entries, treedef = jax.tree.flatten(first, is_leaf=is_masked_or_none)
    columns, known = [entries], [np.shape(x) for x in entries]
    for name, tree in others:
        column = entries_like(treedef, tree)
        if column is None or not all(_go_together(x, y, first_decides) for x, y in zip(entries, column, strict=True)):
            raise ValueError(f"{checks.where()}: {difference(first_name, first, name, tree)}.")
        for i, (x, y) in enumerate(zip(entries, column, strict=True)):
            if is_masked_or_none(x) or shapes == "any" or np.shape(y) == known[i]:
                continue
            if shapes == "equal" or () not in (np.shape(y), known[i]):
                path = "/".join(list(leaves_by_path(first, is_leaf=is_masked_or_none))[i]) or ROOT
                raise ValueError(
                    f"{checks.where()}: {name} leaf `{path}` has shape {np.shape(y)}, but {first_name} has {known[i]} there; "
                    "shapes must be equal, nothing is broadcast."
                )
            known[i] = known[i] or np.shape(y)
        columns.append(column)
    present = [i for i, x in enumerate(entries) if not is_masked_or_none(x)]

    def put_back(results: list[Any]) -> Any:
        out = list(entries)
        for i, result in zip(present, results, strict=True):
            out[i] = result
        return treedef.unflatten(out)

    return [[column[i] for i in present] for column in columns], put_back


def _go_together(x: Any, y: Any, first_decides: bool) -> bool:
    if is_masked_or_none(x):
        return first_decides or is_masked_or_none(y)
    return not is_masked_or_none(y) and jax.tree_util.all_leaves([y])
