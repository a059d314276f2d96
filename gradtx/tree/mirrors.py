"""Mapping over the parts of states that mirror the parameters; public in `gradtx.tree`."""

from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey

from gradtx.core import checks
from gradtx.core.leaves import is_masked_or_none
from gradtx.core.paths import structure_difference
from gradtx.core.trees import is_inexact
from gradtx.core.types import Leaf, Params, State, Tree, TreeDef
from gradtx.tree.lookup import children_of


class _Mark:
    """A node that `init` is shown for parameters, to see where they come out in the state."""

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
    """Maps a function over the parts of a state that mirror the parameters, such as moments.

    To find them, `init` is evaluated abstractly on marked parameters; nothing is computed.

    Args:
      initable: the transformation, or its `init`.
      f: function of one entry of such a part and of the corresponding leaves of `rest`.
      state: the state, of arrays or of anything else in the same structure.
      *rest: trees like the parameters, such as shardings; their leaves go to `f`.
      transform_non_params: function for all other leaves (counts, rates); None leaves them as they
        are.
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
      ...     tx,
      ...     lambda m, name: name,
      ...     tx.init(params),
      ...     {"w": "like w"},
      ...     transform_non_params=lambda x: "scalar",
      ... )
      >>> names[0]
      ScaleByAdamState(count='scalar', mu={'w': 'like w'}, nu={'w': 'like w'})

    **Differs:** works with masks and labels given as trees, and skips masked entries; Optax calls
    `f` on them where `is_leaf` holds.
    """
    init = getattr(initable, "init", initable)
    if checks.is_factory(initable) or isinstance(initable, type) or not callable(init):
        hint = f" This is the factory itself: call it, {initable.__name__}(...)." if checks.is_factory(initable) else ""
        raise TypeError(f"tree.map_params: initable is {checks.kind(initable)}, expected a transformation or its init.{hint}")
    shown, reason = None, None
    for probe in _probes(state, rest):
        try:
            shown = jax.eval_shape(init, probe)
        # Whatever a user's init raises on parameters that are not the true ones.
        except Exception as error:
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
    """What to show to `init`: first one mark without leaves.

    It passes for parameters of any structure. A mask or labels given as a tree want the parameters'
    paths, however. The structure that has them is that of a tree of `rest` or, largest first, of a
    subtree of the state (the moments).
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
    for _, child in children_of(node)[0]:
        yield from _subtrees(child)


def _stand_in(column: Iterable[Leaf]) -> jax.ShapeDtypeStruct:
    """A parameter's shape and dtype, from the entries that the state has for it."""
    found = next((x for x in column if hasattr(x, "shape") and is_inexact(x)), None)
    return jax.ShapeDtypeStruct((), jnp.float32) if found is None else jax.ShapeDtypeStruct(found.shape, found.dtype)


def _is_mirror(node: Tree, probe: Params) -> bool:
    """Whether a node is like the probe: marks or masked entries as leaves, one mark at least."""

    def is_mark(x: Leaf) -> bool:
        return isinstance(x, _Mark) or is_masked_or_none(x)

    leaves, treedef = jax.tree.flatten(node, is_leaf=is_mark)
    some = any(isinstance(leaf, _Mark) for leaf in leaves)
    return some and all(map(is_mark, leaves)) and treedef == jax.tree.structure(probe, is_leaf=is_mark)


def _match(shown: State, probe: Params, state: State) -> list[Tree] | None:
    """The state's parts in the places of the shown state; None where the two do not fit."""
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
    """What a tree has in the places of a structure's leaves (perhaps subtrees), or None."""
    try:
        return list(treedef.flatten_up_to(tree))
    except (ValueError, TypeError, KeyError):
        return None
