"""Finding, replacing and mapping entries of optimizer states, however deep they lie. Public in `gradtx.tree`."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, GetAttrKey, KeyPath

from gradtx.core import checks
from gradtx.core.leaves import is_masked_or_none
from gradtx.core.numerics import is_key, is_tracer
from gradtx.core.paths import path_str, structure_difference
from gradtx.core.trees import is_inexact
from gradtx.core.types import Leaf, Params, State, Tree, TreeDef


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
      filtering: function from a path and a value to whether to keep it. Paths are tuples of `jax.tree_util` keys, with
        `NamedTupleKey(tuple_name, name)` for fields.

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
      **kwargs: new values by name: field of a NamedTuple, key of a dict, or name of a NamedTuple class.

    Returns:
      The new tree. A value of the structure and shapes of the old one takes its dtypes, weak types and device
      placement, so that compiled steps are not traced again; any other value is put in as it is.

    Raises:
      KeyError: nothing has such a name.
      ValueError: a fraction for an integer; a learning rate that the state only reports, outside of `inject_hyperparams`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=0.1)
      >>> state = gradtx.tree.set(tx.init(jnp.zeros(1)), learning_rate=0.5)
      >>> tx.update(jnp.ones(1), state)[0]
      Array([-0.5], dtype=float32)

    **Differs:** Optax puts values in verbatim: a Python float where an array was, so the next step compiles again and
    `lax.scan` fails.
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
        children, treedef = _children(node)
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
    children = [((*path, key), child) for key, child in _children(node)[0]]
    for below, child in children:
        if (name := _entry_name(below[-1])) is not None:
            yield name, below, child
    for below, child in children:
        yield from _entries(below, child)


def _children(node: Tree) -> tuple[list[tuple[Hashable, Tree]], TreeDef | None]:
    """A node's children with their keys, and its structure to put children back; for a leaf no children and None."""
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
    """Whether a field of a state may be out of use, as a count that is kept for schedules alone; others of its name come first."""
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
        new = structure.unflatten([new])  # into the box (an NNX variable, a Linen box) that the old value is in
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


# Mapping over what mirrors the parameters -----------------------------------------------------------------


class _Mark:
    """A node of its own class that `init` is shown instead of parameters, to see where they come out in the state."""

    def __init__(self, *children: Tree):
        self.children = children


# The key is one that `path_parts` drops, so that a marked leaf has the path of the leaf.
jax.tree_util.register_pytree_with_keys(
    _Mark, lambda mark: (tuple((GetAttrKey("value"), child) for child in mark.children), None), lambda _, children: _Mark(*children)
)


def map_params(
    initable: object,
    f: Callable[..., Tree],
    state: State,
    /,
    *rest: Tree,
    transform_non_params: Callable[..., Tree] | None = None,
    is_leaf: Callable[[Tree], bool] | None = None,
) -> State:
    """Maps a function over the parts of an optimizer state that mirror the parameters, such as moments.

    To find them, `init` is evaluated abstractly on marked parameters; nothing is computed.

    Args:
      initable: the transformation, or its `init`.
      f: function of one entry of such a part and of the corresponding leaves of `rest`.
      state: the state, of arrays or of anything else in the same structure.
      *rest: trees like the parameters, such as shardings; their leaves go to `f`.
      transform_non_params: function for all other leaves (counts, rates); None leaves them as they are.
      is_leaf: what counts as one entry, as in `jax.tree.map`.

    Returns:
      A state with the results. Entries that are None or masked stay, without a call of `f`.

    Raises:
      TypeError: `initable` is no transformation and no function.
      ValueError: `state` has not the structure that `init` gives, or a tree of `rest` does not fit.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.adam(1e-3), {"w": jnp.ones(2)}
      >>> names = gradtx.tree.map_params(
      ...     tx, lambda m, name: name, tx.init(params), {"w": "like w"}, transform_non_params=lambda x: "scalar"
      ... )
      >>> names[0]
      ScaleByAdamState(count='scalar', mu={'w': 'like w'}, nu={'w': 'like w'})

    **Differs:** works with masks and labels given as trees, and skips masked entries; Optax calls `f` on them where
    `is_leaf` holds.
    """
    init = getattr(initable, "init", initable)
    if checks.is_factory(initable) or isinstance(initable, type) or not callable(init):
        hint = f" This is the factory itself: call it, {initable.__name__}(...)." if checks.is_factory(initable) else ""
        raise TypeError(f"tree.map_params: initable is {checks.kind(initable)}, expected a transformation or its init.{hint}")
    shown, reason = None, None
    for probe in _probes(state, rest):
        try:
            shown = jax.eval_shape(init, probe)
        except Exception as error:  # whatever a user's init raises on parameters that are not the true ones
            reason = error if reason is None else reason
            continue
        values = _match(shown, probe, state)
        if values is not None:
            break
    else:
        if shown is None:
            raise ValueError(
                f"tree.map_params: the state does not tell what the parameters were, and init needs to know: {reason} "
                "Pass a tree shaped like the parameters after the state; f gets its leaves too."
            ) from reason
        raise ValueError(
            "tree.map_params: state has not the structure that init gives; does it belong to another optimizer? "
            "The call is map_params(tx, f, state, *rest)."
        )
    marks, treedef = jax.tree.flatten(shown, is_leaf=lambda x: _is_mirror(x, probe))

    def result(mark: Tree, value: Tree) -> Tree:
        if _is_mirror(mark, probe):
            return _map_present(f, value, rest, is_leaf)
        return value if transform_non_params is None else transform_non_params(value)

    return treedef.unflatten(map(result, marks, values))


def _probes(state: State, rest: tuple[Tree, ...]) -> Iterator[Params]:
    """What to show to `init`: first one mark without leaves, which passes for parameters of any structure.

    A mask or labels given as a tree want the parameters' paths, however. The structure that has them is that of a tree
    of `rest` or, largest first, of a subtree of the state (the moments).
    """
    yield _Mark()
    subtrees = [(node, *jax.tree.flatten(node, is_leaf=is_masked_or_none)) for node in _subtrees(state)]
    structures = [jax.tree.structure(tree, is_leaf=is_masked_or_none) for tree in rest]
    structures += sorted({treedef for _, _, treedef in subtrees}, key=lambda treedef: -treedef.num_leaves)
    for structure in dict.fromkeys(structures):
        alike = [leaves for _, leaves, treedef in subtrees if treedef == structure]
        columns = zip(*alike, strict=True) if alike else [()] * structure.num_leaves
        yield structure.unflatten([_Mark(_stand_in(column)) for column in columns])


def _subtrees(node: Tree) -> Iterator[Tree]:
    yield node
    for _, child in _children(node)[0]:
        yield from _subtrees(child)


def _stand_in(column: Iterable[Leaf]) -> jax.ShapeDtypeStruct:
    """A parameter's shape and dtype, from the entries that the state has for it."""
    found = next((x for x in column if hasattr(x, "shape") and is_inexact(x)), None)
    return jax.ShapeDtypeStruct((), jnp.float32) if found is None else jax.ShapeDtypeStruct(found.shape, found.dtype)


def _is_mirror(node: Tree, probe: Params) -> bool:
    """Whether a node has the structure of the probe, with marks (or masked entries) as leaves, and at least one mark."""

    def is_mark(x: Leaf) -> bool:
        return isinstance(x, _Mark) or is_masked_or_none(x)

    leaves, treedef = jax.tree.flatten(node, is_leaf=is_mark)
    some = any(isinstance(leaf, _Mark) for leaf in leaves)
    return some and all(map(is_mark, leaves)) and treedef == jax.tree.structure(probe, is_leaf=is_mark)


def _match(shown: State, probe: Params, state: State) -> list[Tree] | None:
    """The state's parts in the places of the shown state's mirrors and leaves; None where the two do not fit."""
    places, treedef = jax.tree.flatten(shown, is_leaf=lambda x: _is_mirror(x, probe))
    values = entries_like(treedef, state)
    if values is None:
        return None
    like = jax.tree.structure(probe, is_leaf=lambda x: isinstance(x, _Mark))
    whole = isinstance(probe, _Mark) and not probe.children
    for place, value in zip(places, values, strict=True):
        if not _is_mirror(place, probe):
            fits = value is None or jax.tree_util.all_leaves([value])
        else:
            fits = whole or jax.tree.structure(value, is_leaf=is_masked_or_none) == like
        if not fits:
            return None
    return values


def _map_present(f: Callable[..., Tree], value: Tree, rest: tuple[Tree, ...], is_leaf: Callable[[Tree], bool] | None) -> Tree:
    entries, treedef = jax.tree.flatten(value, is_leaf=lambda x: is_masked_or_none(x) or (is_leaf is not None and is_leaf(x)))
    columns = [entries_like(treedef, tree) for tree in rest]
    if None in columns:
        i = columns.index(None)
        raise ValueError(f"tree.map_params: {structure_difference('the state', value, f'rest[{i}]', rest[i])}.")
    rows = zip(entries, *columns, strict=True)
    return treedef.unflatten([x if is_masked_or_none(x) else f(x, *others) for x, *others in rows])


def entries_like(treedef: TreeDef, tree: Tree) -> list[Tree] | None:
    """What a tree has in the places of a structure's leaves (subtrees, perhaps); None where it does not have that structure."""
    try:
        return list(treedef.flatten_up_to(tree))
    except (ValueError, TypeError, KeyError):
        return None
