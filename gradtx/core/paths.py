"""Where a leaf is: one spelling of pytree paths, for dicts, attributes, sequences, Linen boxes and NNX variables."""

import collections
from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

ROOT = "(root)"


def path_parts(path: Iterable[Any]) -> tuple[str, ...]:
    """The names along a key path; a last attribute `value` (a Linen box, an NNX variable) is dropped."""
    keys = tuple(path)
    if keys and isinstance(keys[-1], GetAttrKey) and keys[-1].name == "value":
        keys = keys[:-1]
    return tuple(_key_name(key) for key in keys)


def path_str(path: Iterable[Any]) -> str:
    """A key path of `jax.tree_util` as text.

    NNX shows `tx.init` its variables (`l1.kernel.value`) and `tx.update` plain arrays (`l1.kernel`): both
    have the path `l1/kernel`.

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


def leaves_by_path(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[tuple[str, ...], Any]:
    """Leaves keyed by their path parts, in the order of the tree. An attribute `value` with siblings keeps its name."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    full = [tuple(map(_key_name, path)) for path, _ in leaves]
    below = collections.Counter(path[:i] for path in set(full) for i in range(len(path)))
    short = [path_parts(path) for path, _ in leaves]
    return {s if s == f or below[s] == 1 else f: leaf for s, f, (_, leaf) in zip(short, full, leaves, strict=True)}


def first_difference(a: Any, b: Any) -> tuple[str, str]:
    """For two trees of unlike structure: a path that only one has, and which ('first' or 'second') has it."""
    paths_a, paths_b = leaves_by_path(a), leaves_by_path(b)
    for path in paths_a:
        if path not in paths_b:
            return "/".join(path) or ROOT, "first"
    for path in paths_b:
        if path not in paths_a:
            return "/".join(path) or ROOT, "second"
    return ROOT, "both"  # same paths, other containers (a FrozenDict for a dict, a list for a tuple)


def _key_name(key: Any) -> str:
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
