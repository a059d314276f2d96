"""Rules for one array, lifted to trees: the one place where dtypes change and where trees are compared."""

import collections
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import checks
from gradtx.core.numerics import compute_dtype, is_tracer, promote, real_dtype
from gradtx.core.paths import ROOT, leaves_by_path, structure_difference


class MaskedNode(NamedTuple):
    """Stands in a tree where a leaf was masked out: a node without leaves, so without state."""


def is_masked(x: Any) -> bool:
    """Whether a node stands for a leaf that was masked out: `MaskedNode`, or Optax's class, which is known by its form.

    Optax's may stand for a whole subtree: a mask can have one False for all below it.
    """
    return isinstance(x, tuple) and not x and type(x).__name__ == MaskedNode.__name__


def is_masked_or_none(x: Any) -> bool:
    """Whether a node stands for a leaf that is not there."""
    return x is None or is_masked(x)


_STATIC = (bool, np.bool_, int, float, complex, str, tuple, type(None))


def map_leaves(rule: Callable[..., Any], *trees: Any, **scalars: Any) -> Any:
    """Applies a rule for one array to every leaf of trees of one structure.

    Leaves enter the rule in at least float32 (`compute_dtype`). Its k-th result is stored in the dtype of the k-th
    tree; trees beyond the results are only read. Leaves of one shape and dtype share one traced and
    lowered function, so that a thousand leaves cost little more to trace than a few.

    Args:
      rule: function at module level, from one leaf of each tree and the scalars by name, to one array or a tuple.
      *trees: trees of one structure; updates come first.
      **scalars: what all leaves share. Python scalars are constants of the rule; arrays enter in the leaf's dtype.

    Returns:
      One tree, or a tuple of trees, as the rule gives one array or a tuple.

    Raises:
      ValueError: the trees differ in structure, or a leaf is neither a scalar nor of the shape of the first tree's.
    """
    first, treedef = jax.tree.flatten(trees[0])
    columns = [first]
    for tree in trees[1:]:
        column, other = jax.tree.flatten(tree)
        if other != treedef:
            raise_unlike(trees[0], tree)
        if any(np.shape(x) != np.shape(u) and np.shape(x) != () for u, x in zip(first, column, strict=True)):
            raise_other_shape(trees[0], tree)
        columns.append(column)
    static = tuple((k, v) for k, v in scalars.items() if isinstance(v, _STATIC))
    shared = {k: v for k, v in scalars.items() if not isinstance(v, _STATIC)}
    rows = list(zip(*columns, strict=True))
    signatures = [tuple((np.shape(x), getattr(x, "dtype", type(x))) for x in row) for row in rows]
    times = collections.Counter(signatures)
    traced = any(is_tracer(x) for x in first)
    results = [
        (_apply if times[signature] > 1 or not traced else _apply_plain)(rule, static, row, shared)
        for row, signature in zip(rows, signatures, strict=True)
    ]
    if not results:  # a tree without leaves: only the number of results is wanted
        probe = jax.eval_shape(functools.partial(_apply, rule, static), (jnp.zeros(()),) * len(trees), shared)
        return tuple(trees[: len(probe)]) if isinstance(probe, tuple) else trees[0]
    if isinstance(results[0], tuple):
        for k, column in enumerate(columns[1 : len(results[0])], start=1):  # no state grows to the shape of its update
            if any(np.shape(x) != np.shape(row[k]) for x, row in zip(column, results, strict=True)):
                raise_other_shape(trees[0], trees[k], scalars=False)
        return tuple(treedef.unflatten(column) for column in zip(*results, strict=True))
    return treedef.unflatten(results)


def _apply_plain(
    rule: Callable[..., Any], static: tuple[tuple[str, Any], ...], leaves: tuple[Any, ...], shared: dict[str, Any]
) -> Any:
    dtypes = [jnp.asarray(leaf).dtype for leaf in leaves]
    wide = compute_dtype(dtypes[0])
    shared = {k: _as_scalar_of(v, wide) for k, v in shared.items()}
    out = rule(*map(promote, leaves), **dict(static), **shared)
    if isinstance(out, tuple):
        return tuple(_store(x, dtype) for x, dtype in zip(out, dtypes, strict=False))
    return _store(out, dtypes[0])


# Traced leaves that share a shape share one trace and one lowered function; for a shape of its own, a leaf would pay
# for both without sharing either. Eager leaves always run compiled: one kernel instead of one for each operation.
_apply = jax.jit(_apply_plain, static_argnums=(0, 1))


def _store(x: Any, dtype: Any) -> jax.Array:
    """`x` in `dtype`, strongly typed."""
    x = jnp.asarray(x)
    return x if x.dtype == dtype and not x.weak_type else x.astype(dtype)


def _as_scalar_of(value: Any, dtype: Any) -> Any:
    """A floating scalar in the real dtype that goes with leaves of `dtype`; anything else as it is."""
    return value.astype(real_dtype(dtype)) if jnp.issubdtype(jnp.result_type(value), jnp.floating) else value


def zeros_like(params: Any, dtype: Any = None) -> Any:
    """Zeros for a moment of `params`: in `dtype`, or in each leaf's compute dtype; sharded as the parameters are.

    Complex leaves stay complex, since no dtype here can hold half of one.
    """
    return full_like(params, 0, dtype)


def full_like(params: Any, value: Any, dtype: Any = None) -> Any:
    """`zeros_like` with another value."""

    def full(p: Any) -> jax.Array:
        own = compute_dtype(jnp.result_type(p))
        chosen = own if dtype is None or jnp.issubdtype(own, jnp.complexfloating) else dtype
        return jnp.full_like(p, value, dtype=chosen)

    return jax.tree.map(full, params)


def all_finite(tree: Any) -> jax.Array:
    """Whether no element of a floating or complex leaf is NaN or infinite."""
    leaves = [x for x in jax.tree.leaves(tree) if is_inexact(x)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves])) if leaves else jnp.asarray(True)


def select_tree(condition: jax.Array, new: Any, old: Any) -> Any:
    """`new` where the condition holds, else `old`, leaf by leaf; random keys too."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)


def copies(params: Any) -> Any:
    """The parameters in arrays of their own (so that a step may be given both to overwrite), in at least float32."""
    return jax.tree.map(lambda p: jnp.array(p, compute_dtype(jnp.result_type(p))), params)


def own(state: Any, others: Iterable[Any]) -> Any:
    """`state` without an array that occurs twice in it or is one of `others`: such are copied, so that a step may overwrite it.

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


def real_full_like(params: Any, value: Any, dtype: Any = None) -> Any:
    """`full_like` for a second moment: real also where the parameters are complex."""

    def full(p: Any) -> jax.Array:
        return jnp.full_like(p, value, dtype=dtype or real_dtype(compute_dtype(jnp.result_type(p))))

    return jax.tree.map(full, params)


def widen(tree: Any) -> Any:
    """Narrow floating leaves in float32, all other leaves untouched."""
    return jax.tree.map(lambda x: promote(x) if _is_narrow(x) else x, tree)


def cast_like(tree: Any, like: Any) -> Any:
    """Leaves in the dtypes of the leaves of `like`."""
    dtypes = [jnp.result_type(x) for x in jax.tree.leaves(like)]
    values, treedef = jax.tree.flatten(tree)
    return treedef.unflatten([x if jnp.result_type(x) == d else x.astype(d) for x, d in zip(values, dtypes, strict=True)])


def in_dtypes_of(tree: Any, like: Any) -> Any:
    """Floating leaves in the dtypes of those of `like`; all others as they are.

    A tree of another structure is left for those to name who run into it.
    """
    values, treedef = jax.tree.flatten(tree)
    others, other = jax.tree.flatten(like)
    changed = [i for i, (x, y) in enumerate(zip(values, others, strict=False)) if x is not y and _floats_differ(x, y)]
    if treedef != other or not changed:
        return tree
    for i in changed:
        values[i] = values[i].astype(others[i].dtype)
    return treedef.unflatten(values)


def _floats_differ(x: Any, y: Any) -> bool:
    """Whether two arrays are of different floating dtypes."""
    a, b = getattr(x, "dtype", None), getattr(y, "dtype", None)
    if a is None or b is None or a == b:
        return False
    return bool(jnp.issubdtype(a, jnp.floating) and jnp.issubdtype(b, jnp.floating))


def _is_narrow(x: Any) -> bool:
    dtype = getattr(x, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype != compute_dtype(dtype)


# Checks ---------------------------------------------------------------------------------------------------


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf is a floating or complex array, or a Python number of that kind."""
    if isinstance(leaf, (float, complex)):
        return True
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


_WHOLE_MODEL = (
    " Was a whole model handed over? Pass its arrays alone: nnx.state(model, nnx.Param) in Flax NNX, "
    "variables['params'] in Linen, eqx.filter(model, eqx.is_inexact_array) in Equinox."
)


def check_no_module(params: Any) -> None:
    """Raises a `TypeError` for a module of Flax, whose statistics and random streams are no parameters."""
    if any(base.__name__ == "Module" and base.__module__.startswith("flax.") for base in type(params).__mro__):
        raise TypeError(f"{checks.where()}: params is a {type(params).__name__}, expected a tree of arrays.{_WHOLE_MODEL}")


def check_leaves(argument: str, tree: Any) -> None:
    """Raises a `TypeError` that names the first leaf of `tree` that is no floating or complex array."""
    if all(map(is_inexact, jax.tree.leaves(tree))):
        return
    for parts, leaf in leaves_by_path(tree).items():
        if not is_inexact(leaf):
            raise TypeError(
                f"{checks.where()}: {argument} leaf `{'/'.join(parts) or ROOT}` is {checks.kind(leaf)}, "
                f"expected a floating or complex array.{_leaf_hint(leaf)}"
            )


def _leaf_hint(leaf: Any) -> str:
    dtype = getattr(leaf, "dtype", None)
    if dtype == jax.dtypes.float0:
        return " float0 is the gradient of an integer parameter: leave it out of the parameters, or mask it with gradtx.freeze."
    if dtype is not None or isinstance(leaf, (bool, int)):
        return " Keep integers and booleans out of the parameters, or wrap the whole optimizer: gradtx.masked(tx, mask)."
    if callable(leaf) or inspect.isroutine(leaf):
        return _WHOLE_MODEL
    return ""


def check_same_shapes(updates: Any, params: Any) -> None:
    """Raises a `ValueError` unless updates and parameters agree in structure and in every shape: nothing broadcasts."""
    leaves, treedef = jax.tree.flatten(updates)
    others, other = jax.tree.flatten(params)
    if treedef != other:
        raise_unlike(updates, params, "params")
    for update, param in zip(leaves, others, strict=True):
        if np.shape(update) != np.shape(param):
            raise_other_shape(updates, params, "params", scalars=False)


def check_returned(returned: Any, updates: Any, params: Any) -> None:
    """Raises a `ValueError` unless an update returned the tree and shapes of the updates that it got, or of the parameters."""
    found, treedef = jax.tree.flatten(returned)
    like = updates if params is None or treedef == jax.tree.structure(updates) else params
    expected, other = jax.tree.flatten(like)
    if treedef != other:
        difference = structure_difference("what update returned", returned, "the updates that it got", updates)
        raise ValueError(f"{checks.where()}: {difference}; expected the same tree.")
    if any(np.shape(x) != np.shape(y) for x, y in zip(found, expected, strict=True)):
        for (parts, x), y in zip(leaves_by_path(returned).items(), expected, strict=True):
            if np.shape(x) != np.shape(y):
                raise ValueError(
                    f"{checks.where()}: update returned leaf `{'/'.join(parts) or ROOT}` of shape {np.shape(x)}, "
                    f"expected {np.shape(y)}, the shape of the update that it got."
                )


def require_params(params: Any) -> Any:
    """`params`, or a `ValueError` that shows the call where they were left out."""
    if params is None:
        raise ValueError(f"{checks.where()}: needs the parameters; call tx.update(updates, state, params).")
    return params


def raise_wrong_state(state: Any, expected: type, detail: str = "") -> None:
    """Raises the `TypeError` for a state of the wrong type."""
    raise TypeError(
        f"{checks.where()}: state is {checks.kind(state)}, expected {detail or expected.__name__}; {_cause(state, expected)} "
        "The call is tx.update(updates, state, params), with the state of tx.init(params)."
    )


def _cause(state: Any, expected: type) -> str:
    """Why a state may be of the wrong type. Some checkpoints turn tuples to lists, named tuples to dicts, empty ones to None."""
    restored = "was it restored from a checkpoint without a target? Restore it into tx.init(params)."
    fields = getattr(expected, "_fields", None)
    if (isinstance(state, Mapping) and fields is not None and set(state) == set(fields)) or (state is None and fields == ()):
        return restored
    if isinstance(state, list):
        return f"{restored} Or were state and params swapped?"
    return "does it belong to another optimizer?" if isinstance(state, tuple) else "were state and params swapped?"


def raise_unlike(updates: Any, other: Any, name: str = "the tree in the state") -> None:
    """Raises the `ValueError` for two trees of unlike structure; names the first path that only one has."""
    cause = "Were the gradients taken with respect to another argument, or the state made from other parameters?"
    if isinstance(updates, tuple) and len(updates) == 2 and getattr(updates[0], "shape", None) == ():
        cause = "Was the pair (loss, grads) of jax.value_and_grad handed over?"
    raise ValueError(f"{checks.where()}: {structure_difference('updates', updates, name, other)}. {cause}")


def raise_other_shape(
    updates: Any, other: Any, name: str = "the tree in the state", scalars: bool = True, own: str = "updates"
) -> None:
    """Raises the `ValueError` for the first leaf whose shape differs between two trees of one structure."""
    others = leaves_by_path(other)
    for parts, update in leaves_by_path(updates).items():
        found, expected = np.shape(update), np.shape(others.get(parts, update))
        if found != expected and not (scalars and expected == ()):
            raise ValueError(
                f"{checks.where()}: {own} leaf `{'/'.join(parts) or ROOT}` has shape {found}, but {name} has {expected} there; "
                "shapes must be equal, nothing is broadcast."
            )
