"""Finding and replacing entries of optimizer states, however deep; public in `gradtx.tree`."""

from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, GetAttrKey, KeyPath

from gradtx.core import checks
from gradtx.core.numerics import is_key, is_tracer
from gradtx.core.paths import path_str
from gradtx.core.types import Tree, TreeDef


class NamedTupleKey(NamedTuple):
    """A step of a path into a NamedTuple: the tuple's class name and the field's name."""

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


REPORTS = frozenset({"ScaleByLearningRateState.learning_rate"})
"""Fields that a transformation writes and never reads."""

Name = Hashable
"""What an entry is called: a field, a key of a dict, the name of a class."""
Found = tuple[KeyPath, Tree]
"""An entry, after the path to it."""
Filter = Callable[[KeyPath, Tree], bool]


def get_all_with_path(tree: Tree, key: Name, filtering: Filter | None = None) -> list[Found]:
    """Everything in a tree that is called `key`, with the path to it.

    Args:
      tree: any tree, such as an optimizer state.
      key: field of a NamedTuple, key of a dict, or name of a NamedTuple class.
      filtering: function from a path and a value to whether to keep it. Paths are tuples of
        `jax.tree_util` keys, with `NamedTupleKey(tuple_name, name)` for fields.

    Returns:
      Pairs `(path, value)`; outer entries before those inside them.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> state = gradtx.adam(1e-3).init(jnp.zeros(2))
      >>> [gradtx.path_str(path) for path, value in gradtx.tree.get_all_with_path(state, "count")]
      ['0/ScaleByAdamState.count']
    """
    found = [(path, value) for name, path, value in _entries((), tree) if name == key]
    found = [(path, value) for path, value in found if not _is_left_empty(path[-1:], value)] or found
    return found if filtering is None else [pair for pair in found if filtering(*pair)]


def get(tree: Tree, key: Name, default: Tree = None, filtering: Filter | None = None) -> Tree:
    """The one value in a tree that is called `key`.

    What `inject_hyperparams` keeps in its state stands for the copies of it further in.

    Args:
      tree: any tree, such as an optimizer state.
      key: field of a NamedTuple, key of a dict, or name of a NamedTuple class.
      default: what to return if there is none.
      filtering: as in `get_all_with_path`.

    Returns:
      The value, or `default`.

    Raises:
      KeyError: there are several; the message names their paths.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> state = gradtx.adamw(1e-3).init(jnp.zeros(2))
      >>> gradtx.tree.get(state, "learning_rate").round(4)
      Array(0.001, dtype=float32)
      >>> adam_only = lambda path, value: path[-1].tuple_name == "ScaleByAdamState"
      >>> int(gradtx.tree.get(state, "count", filtering=adam_only))
      0
    """
    found = _without_copies(get_all_with_path(tree, key, filtering))
    if len(found) > 1:
        raise KeyError(
            f"tree.get: {key!r} is found {len(found)} times, expected once: {_paths(found)}. "
            "Choose one with filtering=lambda path, value: ..., or use get_all_with_path."
        )
    return found[0][1] if found else default


def _without_copies(found: list[Found]) -> list[Found]:
    """Without what is inside a state whose injected hyperparameters have it already."""
    injected, inner = (NamedTupleKey("InjectHyperparamsState", field) for field in ("hyperparams", "inner_state"))
    hidden = [(*path[: path.index(injected)], inner) for path, _ in found if injected in path]
    return [(path, value) for path, value in found if not any(path[: len(h)] == h for h in hidden)]


def set(tree: Tree, filtering: Filter | None = None, /, **kwargs: Tree) -> Tree:
    """A copy of a tree in which everything called by one of the keywords has the new value.

    Args:
      tree: any tree, such as an optimizer state.
      filtering: as in `get_all_with_path`; entries that it turns down stay.
      **kwargs: new values by name: field of a NamedTuple, key of a dict, or name of a NamedTuple
        class.

    Returns:
      The new tree. A value of the structure and shapes of the old one takes its dtypes, weak types
      and device placement, so that compiled steps are not traced again; any other value is put in
      as it is.

    Raises:
      KeyError: nothing has such a name.
      ValueError: a fraction for an integer; a learning rate that the state only reports, outside of
        `inject_hyperparams`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=0.1)
      >>> state = gradtx.tree.set(tx.init(jnp.zeros(1)), learning_rate=0.5)
      >>> tx.update(jnp.ones(1), state)[0]
      Array([-0.5], dtype=float32)

    **Differs:** Optax puts values in verbatim: a Python float where an array was, so the next step
    compiles again and `lax.scan` fails.
    """
    for key in kwargs:
        if found := get_all_with_path(tree, key, filtering):
            if all(str(path[-1]) in REPORTS for path, _ in found):
                raise ValueError(
                    f"tree.set: {key!r} at {_paths(found)} only reports what the transformation uses; setting it changes nothing. "
                    f"What gradtx.inject_hyperparams(adamw)({key}=...) makes can be set, for example."
                )
            continue
        if turned_down := get_all_with_path(tree, key):
            raise KeyError(f"tree.set: {key!r} is found at {_paths(turned_down)}, but filtering turned that down.")
        known = {name for name, _, _ in _entries((), tree) if isinstance(name, str)}
        raise KeyError(f"tree.set: {key!r} is not found in the tree.{checks.did_you_mean(key, sorted(known))}")

    in_use = {name for name, path, value in _entries((), tree) if isinstance(name, str) and not _is_left_empty(path[-1:], value)}

    def chosen(name: Name | None, path: KeyPath, value: Tree) -> TypeGuard[str]:
        if not isinstance(name, str) or name not in kwargs or (name in in_use and _is_left_empty(path[-1:], value)):
            return False
        return filtering is None or filtering(path, value)

    def replaced(path: KeyPath, node: Tree) -> Tree:
        name = _class_name(node)
        if name is not None and chosen(name, path, node):
            return _fit(name, kwargs[name], node)
        children, treedef = children_of(node)
        if treedef is None:
            return node
        return treedef.unflatten([new_child((*path, key), child) for key, child in children])

    def new_child(path: KeyPath, child: Tree) -> Tree:
        name = _entry_name(path[-1])
        return _fit(name, kwargs[name], child) if chosen(name, path, child) else replaced(path, child)

    return replaced((), tree)


def _entries(path: KeyPath, node: Tree) -> Iterator[tuple[Name, KeyPath, Tree]]:
    """Name, path and value of everything that has a name, at and below a node."""
    if (name := _class_name(node)) is not None:
        yield name, path, node
    children = [((*path, key), child) for key, child in children_of(node)[0]]
    for below, child in children:
        if (name := _entry_name(below[-1])) is not None:
            yield name, below, child
    for below, child in children:
        yield from _entries(below, child)


def children_of(node: Tree) -> tuple[list[tuple[Hashable, Tree]], TreeDef | None]:
    """A node's children with their keys, and its structure; for a leaf no children and None."""
    flat, treedef = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    if len(flat) == 1 and not flat[0][0]:
        return [], None
    name = _class_name(node)
    if name is None:
        return [(path[0], child) for path, child in flat], treedef
    return [(NamedTupleKey(name, field), child) for field, (_, child) in zip(node._fields, flat, strict=True)], treedef


def _class_name(node: Tree) -> str | None:
    return type(node).__name__ if isinstance(node, tuple) and hasattr(node, "_fields") else None


def _is_left_empty(last: KeyPath, value: Tree) -> bool:
    """Whether a field may be out of use, as a count kept for schedules alone may be.

    Others of its name come first.
    """
    return value is None and bool(last) and isinstance(last[0], NamedTupleKey)


def _entry_name(key: Hashable) -> Name | None:
    match key:
        case NamedTupleKey():
            return key.name
        case DictKey():
            return key.key
        case _:
            return None


def _paths(found: list[Found]) -> str:
    return ", ".join(f"`{path_str(path)}`" for path, _ in found)


def _fit(name: str, new: Tree, old: Tree) -> Tree:
    """`new` in the dtypes of `old`, where the two have one structure; else as it is."""
    structure = jax.tree.structure(old)
    if jax.tree.structure(new) != structure:
        boxed = [path for path, _ in jax.tree_util.tree_leaves_with_path(old)] == [(GetAttrKey("value"),)]
        if not boxed or not jax.tree_util.all_leaves([new]):
            return new
        # The new value goes into the box (an NNX variable, a Linen box) of the old one.
        new = structure.unflatten([new])
    return jax.tree.map(lambda n, o: _fit_leaf(name, n, o), new, old)


def _fit_leaf(name: str, new: Tree, old: Tree) -> Tree:
    is_number = isinstance(new, (bool, int, float, complex, np.ndarray, np.generic, jax.Array))
    if (
        not isinstance(old, (jax.Array, np.ndarray, np.generic))
        or not is_number
        or np.shape(new) != old.shape
        or is_key(old)
        or is_key(new)
    ):
        return new
    fractional = jnp.issubdtype(jnp.result_type(new), jnp.floating) and not is_tracer(new)
    if jnp.issubdtype(old.dtype, jnp.integer) and fractional and np.any(np.asarray(new) % 1 != 0):
        raise ValueError(f"tree.set: {name} is {checks.kind(new)}, expected a whole number: it replaces one of dtype {old.dtype}.")
    if isinstance(old, jax.Array) and old.weak_type and old.shape == ():
        value = jax.lax.full_like(old, jnp.asarray(new))
    else:
        value = jnp.asarray(new).astype(jnp.result_type(old))
    if isinstance(old, jax.Array) and not (is_tracer(old) or is_tracer(value)) and old.committed:
        return jax.device_put(value, old.sharding)
    return value
