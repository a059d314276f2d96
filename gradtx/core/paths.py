"""Where a leaf is: one spelling of paths, for dicts, attributes, sequences, Linen and NNX."""

import collections
from collections.abc import Callable, Container

import jax
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, KeyPath, SequenceKey

from gradtx.core.types import Leaf, Tree

ROOT = "(root)"


def path_parts(path: KeyPath) -> tuple[str, ...]:
    """The names along a key path, without a last attribute `value` (Linen boxes, NNX variables)."""
    keys = tuple(path)
    if keys and isinstance(keys[-1], GetAttrKey) and keys[-1].name == "value":
        keys = keys[:-1]
    return tuple(_key_name(key) for key in keys)


def path_str(path: KeyPath) -> str:
    """A key path of `jax.tree_util` as text.

    NNX shows `tx.init` its variables (`l1.kernel.value`) and `tx.update` plain arrays
    (`l1.kernel`): both have the path `l1/kernel`.

    Args:
      path: key path, as in `jax.tree_util.tree_flatten_with_path`.

    Returns:
      The names joined by `/`; `(root)` for a tree that is a single leaf.

    Example:
      >>> import jax, gradtx
      >>> leaves = jax.tree_util.tree_leaves_with_path({"layers": [{"kernel": 1.0}]})
      >>> gradtx.path_str(leaves[0][0])
      'layers/0/kernel'
    """
    return "/".join(path_parts(path)) or ROOT


def leaves_by_path(tree: Tree, is_leaf: Callable[[Tree], bool] | None = None) -> dict[tuple[str, ...], Leaf]:
    """Leaves keyed by their path parts, in the order of the tree.

    An attribute `value` with siblings keeps its name.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    full = [tuple(map(_key_name, path)) for path, _ in leaves]
    below = collections.Counter(path[:i] for path in set(full) for i in range(len(path)))
    short = [path_parts(path) for path, _ in leaves]
    return {s if s == f or below[s] == 1 else f: leaf for s, f, (_, leaf) in zip(short, full, leaves, strict=True)}


def beginning(path: tuple[str, ...], places: Container[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The shortest beginning of a path (or all of it) that is among `places`, or None."""
    return next((path[:i] for i in range(len(path) + 1) if path[:i] in places), None)


def structure_difference(first_name: str, first: Tree, second_name: str, second: Tree) -> str:
    """How two trees differ in structure, in words: a path in only one, or unlike containers."""
    paths = leaves_by_path(first), leaves_by_path(second)
    for name, these, those in ((first_name, *paths), (second_name, *reversed(paths))):
        for path in these:
            if path not in those:
                return f"{first_name} and {second_name} differ in structure: `{'/'.join(path) or ROOT}` is only in {name}"
    path, one, other = _unlike_nodes((), first, second) or ((), first, second)
    found = f"`{path_str(path)}` is a {_container(one)} in one, a {_container(other)} in the other"
    return f"{first_name} and {second_name} differ in structure: {found}"


def _unlike_nodes(path: KeyPath, a: Tree, b: Tree) -> tuple[KeyPath, Tree, Tree] | None:
    """The first place, from the root on, where nodes of two trees are of unlike types."""
    if type(a) is not type(b):
        return path, a, b
    children = [jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x, node=node: x is not node)[0] for node in (a, b)]
    for (key, x), (_, y) in zip(*children, strict=False):
        if key and (found := _unlike_nodes((*path, *key), x, y)):
            return found
    return None


def _container(tree: Tree) -> str:
    module = type(tree).__module__.partition(".")[0]
    return type(tree).__name__ if module == "builtins" else f"{module} {type(tree).__name__}"


def _key_name(key: object) -> str:
    match key:
        case DictKey():
            return str(key.key)
        case GetAttrKey():
            return key.name
        case SequenceKey():
            return str(key.idx)
        case FlattenedIndexKey():
            return str(key.key)
        case _:
            return str(key)
