"""Names for the arrays of a state that outlive an edit of the optimizer.

A name is a field of a state and what lies below it: `mu/layers/0/kernel`, `count`. It says neither
where in a chain a transformation stands nor how its state's class is called. Only if two names are
equal do labels and names of transformations come before them.
"""

import collections
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.tree_util import DictKey, SequenceKey

from gradtx.core import checks, trees
from gradtx.core.composites import Preset
from gradtx.core.pairs import Inner, as_transformation
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import Leaf, State


class Entry(NamedTuple):
    """An array of a state.

    Attributes:
      labels: of `partition` and `named_chain`, from the outside in.
      owner: presets and labels around it, and the transformation whose state it is in.
      field: the field of the state, and the path below it.
      leaf: the array.
    """

    labels: tuple[str, ...]
    owner: tuple[str, ...]
    field: str
    leaf: Leaf


def entries_of(tx: Inner, state: State) -> list[Entry]:
    """The arrays of a state with what they belong to, in the order of the tree."""
    return list(_walk(as_transformation(tx), (), (), state))


def names_of(entries: list[Entry]) -> list[str]:
    """The shortest name of each entry that no other has.

    It is the field; with labels before it, as `metrics` spells them; with the transformation; with
    all around it; with a number among equals.
    """
    times = collections.Counter((entry.owner, entry.field) for entry in entries)
    seen: collections.Counter[tuple[tuple[str, ...], str]] = collections.Counter()
    rows = []
    for labels, owner, field, _ in entries:
        key = owner, field
        seen[key] += 1
        row = [(field,), (*labels, field), (owner[-1], field), (*labels, owner[-1], field), (*owner, field)]
        last = [(*owner[:-1], f"{owner[-1]}-{seen[key]}", field)] * (times[key] > 1)
        rows.append(list(dict.fromkeys(map("/".join, row + last))))
    taken = collections.Counter(spelling for row in rows for spelling in row)
    return [next((spelling for spelling in row if taken[spelling] == 1), row[-1]) for row in rows]


def _walk(tx: Transformation, labels: tuple[str, ...], owner: tuple[str, ...], node: State) -> Iterator[Entry]:
    """The entries at and below a transformation's state."""
    if isinstance(tx, Preset):
        yield from _walk(tx.stands_for, labels, owner if tx.transparent else (*owner, tx.called), node)
        return
    inside = {id(part.state): part.tx for part in _parts(tx, node)}
    if (same := inside.get(id(node))) is not None:  # a wrapper that adds no state
        yield from _walk(same, labels, owner, node)
        return

    def is_part(x: State) -> bool:
        return id(x) in inside

    for (path, x), parts in zip(
        jax.tree_util.tree_leaves_with_path(node, is_leaf=is_part), leaves_by_path(node, is_leaf=is_part), strict=True
    ):
        if is_part(x):
            own = tuple(str(key.key) for key in path if isinstance(key, DictKey))
            yield from _walk(inside[id(x)], (*labels, *own), (*owner, *own), x)
        else:
            places = next((i for i, key in enumerate(path) if not isinstance(key, SequenceKey)), len(path))
            yield Entry(labels, (*owner, tx.called), "/".join(parts[places:]) or ROOT, x)


def _parts(tx: Transformation, state: State) -> tuple[Part, ...]:
    """Those inside a transformation with their states, after a check that the state may be its."""
    with checks.calling(tx.called):
        if not isinstance(state, tx.state_type):
            trees.raise_wrong_state(state, tx.state_type)
        try:
            return tx.parts(None, state)
        except (AttributeError, KeyError, TypeError, ValueError):
            trees.raise_wrong_state(state, tx.state_type, f"the state of {tx!r}")
            raise
