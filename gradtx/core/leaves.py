"""Rules for one array, lifted to trees: the one place where dtypes change."""

import collections
import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.numerics import compute_dtype, is_tracer, promote, real_dtype
from gradtx.core.trees import is_inexact, raise_other_shape, raise_unlike
from gradtx.core.types import DType, Leaf, Params, State, Tree


class MaskedNode(NamedTuple):
    """Stands in a tree where a leaf was masked out: a node without leaves, so without state."""


def is_masked(x: Leaf) -> bool:
    """Whether a node stands for a leaf that was masked out: `MaskedNode`, or Optax's class.

    Optax's is known by its form. It may stand for a whole subtree: a mask can have one False for
    all below it.
    """
    return isinstance(x, tuple) and not x and type(x).__name__ == MaskedNode.__name__


def is_masked_or_none(x: Leaf) -> bool:
    """Whether a node stands for a leaf that is not there."""
    return x is None or is_masked(x)


def each_leaf(rule: Callable[..., Any]) -> Callable[..., Any]:
    """Lifts a rule for single arrays to trees of one structure.

    A decorator, for a closure over the scalars of a step.

    Half-precision leaves enter the rule as float32. The k-th result gets the precision with which
    the k-th leaf entered (float32 for a bfloat16 leaf; `update` casts back), whatever the precision
    of the scalars, so results stand in the order of the trees: `updates, m = rule(updates, m)`.
    Leaves of one shape and dtype share one trace: a thousand cost little more than a few.

    Args:
      rule: function of one leaf of each tree that gives one array, or a tuple of arrays.

    Returns:
      A function of trees that gives one tree, or a tuple of trees.

    Raises:
      ValueError: the trees differ in structure, or a leaf is neither a scalar nor of the shape of
        the first tree's.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> scale = 2.0
      >>> @gradtx.each_leaf
      ... def rule(g, p):
      ...     return scale * g + p
      >>> rule({"w": jnp.ones(2)}, {"w": jnp.ones(2)})
      {'w': Array([3., 3.], dtype=float32)}
    """

    @functools.wraps(rule)
    def lifted(*given: Tree) -> Tree:
        rows, treedef = _rows(given)
        if not rows:  # a tree without leaves: only the number of results is wanted
            probe = jax.eval_shape(rule, *[jnp.zeros(())] * len(given))
            return tuple(given[:1] * len(probe)) if isinstance(probe, tuple) else given[0]
        kinds = [tuple(map(_form, row)) for row in rows]
        times = collections.Counter(kinds)
        shared = jax.jit(rule) if any(map(isinstance, rows[0], [Tracer] * len(given))) else rule  # eager, it would compile anew
        results: list[list[Any]] = []
        out: Any = None
        for row, kind in zip(rows, kinds, strict=True):
            out = (shared if times[kind] > 1 else rule)(*row)
            results.append(list(out) if isinstance(out, tuple) else [out])
            for k, (x, before) in enumerate(zip(results[-1], row, strict=False)):
                if _strong(x) != (before.shape, before.dtype, False):
                    if k and np.shape(x) != before.shape:  # no state grows to the shape of its update
                        raise_other_shape(given[0], given[k], scalars=False)
                    results[-1][k] = _cast(x, before.dtype)
        trees = list(map(treedef.unflatten, zip(*results, strict=True)))
        return tuple(trees) if isinstance(out, tuple) else trees[0]

    return lifted


_form = operator.attrgetter("shape", "dtype")
_strong = operator.attrgetter("shape", "dtype", "weak_type")


def _rows(given: tuple[Any, ...]) -> tuple[list[tuple[Any, ...]], Any]:
    """The leaves of trees of one structure, side by side, in at least float32."""
    columns, treedef = [], None
    for tree in given:
        column, own = jax.tree.flatten(tree)
        if treedef is not None and own != treedef:
            raise_unlike(given[0], tree)
        for i, x in enumerate(column):
            if not isinstance(x, jax.Array) or compute_dtype(x.dtype) != x.dtype:
                column[i] = promote(x)
            if columns and column[i].shape not in ((), columns[0][i].shape):
                raise_other_shape(given[0], tree)
        columns.append(column)
        treedef = own
    return list(zip(*columns, strict=True)), treedef


def map_leaves(rule: Callable[..., Any], *trees: Tree, **scalars: Any) -> Tree:
    """`each_leaf` for functions of plain trees: the result has the dtypes of the first tree.

    Args:
      rule: function of one leaf of each tree, and the scalars by name, that gives one array.
      *trees: trees of one structure.
      **scalars: what all leaves share. Floating arrays enter in the leaf's precision.
    """

    def of_leaf(*row: jax.Array) -> jax.Array:
        return rule(*row, **{name: _as_scalar_of(x, row[0].dtype) for name, x in scalars.items()})

    return in_dtypes_of(each_leaf(of_leaf)(*trees), trees[0])


def _as_scalar_of(value: Any, dtype: DType) -> Any:
    """A floating scalar in the real dtype that goes with `dtype`; anything else as it is."""
    return value.astype(real_dtype(dtype)) if jnp.issubdtype(getattr(value, "dtype", bool), jnp.floating) else value


def zeros_like(params: Params, dtype: DType = None) -> Tree:
    """Zeros for a moment of `params`, sharded as they are.

    In `dtype`, or in float32, or wider where a parameter is.

    Those of complex leaves are complex, whatever `dtype` says.
    """
    return full_like(params, 0, dtype)


def full_like(params: Params, value: Any, dtype: DType = None) -> Tree:
    """`zeros_like` with another value."""

    def full(p: Leaf) -> jax.Array:
        own = compute_dtype(jnp.result_type(p))
        chosen = own if dtype is None or jnp.issubdtype(own, jnp.complexfloating) else dtype
        return jnp.full_like(p, value, dtype=chosen)

    return jax.tree.map(full, params)


def all_finite(tree: Tree) -> jax.Array:
    """Whether no element of a floating or complex leaf is NaN or infinite.

    It is the least over leaves, by a sort: XLA on CPU repeats a reduction in each kernel that uses
    it, and compiles for a minute where a hundred leaves depend on a hundred.
    """
    leaves = [x for x in jax.tree.leaves(tree) if is_inexact(x)]
    return jnp.sort(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))[0] if leaves else jnp.asarray(True)


def select_tree(condition: jax.Array, new: Tree, old: Tree) -> Tree:
    """`new` where the condition holds, else `old`, leaf by leaf; random keys too."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)


def copies(params: Params) -> Tree:
    """The parameters in arrays of their own, to be overwritten, in at least float32."""
    return jax.tree.map(lambda p: jnp.array(p, compute_dtype(jnp.result_type(p))), params)


def own(state: State, others: Iterable[Any]) -> Any:
    """`state` in arrays of its own, so that a step may overwrite it.

    An array that occurs twice in it, or is one of `others`, is copied.

    Under tracing nothing is shared: each result of a compiled function has memory of its own.
    """
    values, treedef = jax.tree.flatten(state)
    seen, shared = set(map(id, others)), set()
    for i, x in enumerate(values):
        if isinstance(x, jax.Array) and not is_tracer(x) and id(x) in seen:
            shared.add(i)
        seen.add(id(x))
    if not shared:
        return state
    return treedef.unflatten(jnp.copy(x) if i in shared else x for i, x in enumerate(values))


def real_full_like(params: Params, value: Any, dtype: DType = None) -> Tree:
    """`full_like` for a second moment: real also where the parameters are complex."""

    def full(p: Leaf) -> jax.Array:
        return jnp.full_like(p, value, dtype=dtype or real_dtype(compute_dtype(jnp.result_type(p))))

    return jax.tree.map(full, params)


def widen(tree: Tree) -> Tree:
    """Narrow floating leaves in float32, all other leaves untouched."""
    values, treedef = jax.tree.flatten(tree)
    narrow = False
    for i, x in enumerate(values):
        if (dtype := getattr(x, "dtype", None)) is not None and compute_dtype(dtype) != dtype:
            values[i], narrow = promote(x), True
    return treedef.unflatten(values) if narrow else tree


def cast_like(tree: Tree, like: Tree) -> Tree:
    """Leaves in the dtypes of the leaves of `like`."""
    dtypes = [jnp.result_type(x) for x in jax.tree.leaves(like)]
    values, treedef = jax.tree.flatten(tree)
    return treedef.unflatten([x if jnp.result_type(x) == d else x.astype(d) for x, d in zip(values, dtypes, strict=True)])


def in_dtypes_of(tree: Tree, like: Tree) -> Tree:
    """Leaves in the dtypes of those of `like`, strongly typed, where both are real or both complex.

    A tree of another structure is left as it is.
    """
    values, treedef = jax.tree.flatten(tree)
    others, other = jax.tree.flatten(like)
    if treedef != other:
        return tree
    for i, (x, before) in enumerate(zip(values, others, strict=True)):
        dtype = getattr(before, "dtype", None)
        if x is not before and dtype is not None and (getattr(x, "dtype", None) != dtype or getattr(x, "weak_type", False)):
            values[i] = _cast(x, dtype)
    return treedef.unflatten(values)


def _cast(x: Leaf, dtype: DType) -> Any:
    """A number of the same kind in a dtype, strongly typed; of another kind as it is."""
    own = jnp.result_type(x)
    kinds = (jnp.floating, jnp.complexfloating)
    alike = own == dtype or any(jnp.issubdtype(own, kind) and jnp.issubdtype(dtype, kind) for kind in kinds)
    return jnp.asarray(x).astype(dtype) if alike else x
