"""What the arrays of a state are: running means of gradients, of squares, or neither.

The named tuples of states say so by the annotations of their fields (`mu: Moment`, `nu: Squares`).
Nothing else may lose bits unless the user says so by path: weights, sums that never decay, cached
gradients, and the states of libraries that declare nothing.
"""

import functools
from collections.abc import Iterator
from typing import get_args

import jax

from gradtx.core.types import Moment, Squares, State, Tree
from gradtx.core.value import hints_of

KINDS = {Moment: "moment", Squares: "squares"}


def kinds_in(state: State) -> list[str | None]:
    """'moment', 'squares' or None for each leaf of a state, in order."""
    return list(_walk(state, None))


@functools.lru_cache(maxsize=256)
def _declared(cls: type) -> dict[str, str]:
    """The kinds of the fields of a named tuple that declare one, `Moment | None` too."""
    found = {}
    for field, hint in hints_of(cls).items():
        for part in (hint, *get_args(hint)):
            for declared, kind in KINDS.items():
                if part == declared:
                    found[field] = kind
    return found


def _walk(node: Tree, kind: str | None) -> Iterator[str | None]:
    if hasattr(node, "_fields"):
        declared = _declared(type(node))
        for field, child in zip(node._fields, node, strict=True):
            yield from _walk(child, declared.get(field, kind))
        return
    children = jax.tree.leaves(node, is_leaf=lambda x: x is not node)
    if len(children) == 1 and children[0] is node:
        yield kind
    else:
        for child in children:
            yield from _walk(child, kind)
