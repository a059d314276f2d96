"""Which transformations touch which parameters, and which parameter each array of a state belongs to."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.labels import spread, spread_mask
from gradtx.compose.partition import partition
from gradtx.core.base import Update, set_to_zero, transformations_in
from gradtx.core.leaves import is_inexact, is_masked
from gradtx.core.paths import leaves_by_path
from gradtx.core.values import Call
from gradtx.core.watch import Seen


class Node(NamedTuple):
    """A transformation whose `init` was called. Parameters are numbered in the order of the whole tree.

    Attributes:
      call: its factory and arguments.
      params: what its `init` got.
      slots: the numbers of those, None where one is masked out.
      got: the same without None.
      touched: those that it does something with by itself, apart from what is inside it.
      preset: whether it only stands for a chain, as `adam` does: its state is a plain tuple.
      inside: the transformations whose `init` it called.
    """

    call: Call
    params: Any
    slots: list[int | None]
    got: frozenset[int]
    touched: frozenset[int]
    preset: bool
    inside: "list[Node]"

    @property
    def name(self) -> str:
        """That of its factory."""
        return self.call.factory.__name__

    def texts(self, place: int) -> list[str]:
        """What touches a parameter, in order: names, each with what it is made of."""
        inner = [text for node in self.inside for text in node.texts(place)]
        if self.call.traits.transparent:
            return inner
        if inner:
            return [f"{self.name}({', '.join(inner)})"]
        return [self.name] if place in self.touched else []

    def rules(self, place: int) -> list[Call]:
        """The calls that a preset is made of; those of others than presets stand before what is inside them."""
        inner = [call for node in self.inside for call in node.rules(place)]
        if self.call.traits.transparent or (inner and self.preset):
            return inner
        return [self.call, *inner] if inner or place in self.touched else []

    def idle(self) -> Iterator[str]:
        """Labels and masks inside that no parameter has."""
        arguments = self.call.arguments
        if self.call.factory is partition:
            labels = spread("param_labels", arguments["param_labels"], self.params)
            for label in arguments["transforms"]:
                if label not in labels:
                    yield f"partition: no parameter has the label {label!r}."
        elif not self.inside and not self.touched and arguments.get("mask") is not None:
            yield f"{self.name}: its mask is True for no parameter."
        for node in self.inside:
            if node.got:
                yield from node.idle()
            elif self.call.traits.transparent and self.call.factory is not partition:
                yield f"{self.name}: {node.name} touches no parameter."

    def foreign(self) -> Iterator[str]:
        """Transformations that no factory declared, among the arguments."""
        for tx in transformations_in(self.call.arguments):
            if (name := foreign_name(tx)) is not None:
                yield f"{self.name} has {name} in it, which no factory declared: which parameters it touches is not known."
        for node in self.inside:
            yield from node.foreign()


def nodes(seen: list[Seen], params: Any) -> list[Node]:
    """What was seen during `init(params)`, with the numbers of the parameters."""
    numbers = {id(leaf): i for i, leaf in enumerate(jax.tree.leaves(params))}
    paths = {path: i for i, path in enumerate(leaves_by_path(params))}

    def node(one: Seen, outer: frozenset[int]) -> Node:
        slots: list[int | None] = []
        for path, leaf in leaves_by_path(one.params, is_leaf=is_masked).items():
            slots.append(None if is_masked(leaf) else numbers.get(id(leaf), paths.get(path)))  # copies are known by their paths
        got = frozenset(place for place in slots if place is not None)
        if len(got) < len(jax.tree.leaves(one.params)):  # a tree of another kind is taken for all that the caller had
            got = outer
        inside = [node(inner, got) for inner in one.inside]
        preset = type(one.state) is tuple
        new = Node(one.call, one.params, slots, got, frozenset(), preset, inside)
        return new._replace(touched=_touched(new, one.state))

    return [node(one, frozenset(numbers.values())) for one in seen]


def _touched(node: Node, state: Any) -> frozenset[int]:
    if node.inside:  # what a wrapper does not hand on, or has state for
        handed = frozenset[int]().union(*(inner.got for inner in node.inside))
        return (node.got - handed) | {place for place in owners(state, None, [node]) if place is not None}
    mask = node.call.arguments.get("mask")
    if mask is None:
        return node.got
    places = [place for place in node.slots if place is not None]
    return frozenset(itertools.compress(places, spread_mask("mask", mask, node.params)))


def owners(state: Any, params: Any, roots: list[Node]) -> list[int | None]:
    """For each array of a state the number of the parameter that it belongs to; None for those that no single one has.

    A part of the state belongs to parameters if it is a tree like them, or like those that a transformation inside got.
    """
    known: dict[Any, Sequence[int | None]] = {}
    if params is not None:
        count = itertools.count()
        known[_skeleton(params)] = [None if is_masked(x) else next(count) for x in jax.tree.leaves(params, is_leaf=is_masked)]
    for node in _flat(roots):
        known.setdefault(_skeleton(node.params), node.slots)
    one = params if len(jax.tree.leaves(params)) == 1 and jax.tree.leaves(params)[0] is params else None
    found: list[int | None] = []

    def walk(part: Any) -> None:
        leaves = jax.tree.leaves(part, is_leaf=is_masked)
        children = jax.tree.leaves(part, is_leaf=lambda x: x is not part)
        if len(children) == 1 and children[0] is part:  # one array, which belongs to a parameter only if there is only that one
            found.append(0 if one is not None and _like(part, one) else None)
        elif len(places := known.get(_skeleton(part), ())) == len(leaves) > 0:
            found.extend(place for place, leaf in zip(places, leaves, strict=True) if not is_masked(leaf))
        else:
            for child in children:
                walk(child)

    walk(state)
    return found


def is_frozen(rules: Sequence[Call]) -> bool:
    """Whether `set_to_zero` is among what touches a parameter, and all that follows keeps zero."""
    for call in reversed(rules):
        if call.factory is set_to_zero:
            return True
        if not (call.traits.keeps_zero or call.traits.observes):
            return False
    return False


def foreign_name(tx: Any) -> str | None:
    """What to call a transformation that no factory declared; None for one that is."""
    if isinstance(tx.update, Update):
        return None
    return getattr(tx.update, "__qualname__", type(tx).__name__).partition(".")[0]


def _flat(roots: list[Node]) -> Iterator[Node]:
    for node in roots:
        yield node
        yield from _flat(node.inside)


def _skeleton(tree: Any) -> Any:
    """The structure of a tree, the same whether parameters are masked out or not."""
    return jax.tree.structure(tree, is_leaf=is_masked)


def _like(part: Any, param: Any) -> bool:
    shape = np.shape(param)
    return is_inexact(part) and np.shape(part)[len(np.shape(part)) - len(shape) :] == shape


def nbytes(array: Any) -> int:
    """The bytes of an array, or of one that is only a shape and a dtype."""
    return int(np.prod(np.shape(array), dtype=np.int64)) * jnp.result_type(array).itemsize
