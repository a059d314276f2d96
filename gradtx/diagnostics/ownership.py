"""Which transformations touch a parameter, and which arrays of a state belong to it."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.labels import spread_mask
from gradtx.compose.partition import partition
from gradtx.compose.plain import set_to_zero
from gradtx.core.composites import Preset
from gradtx.core.leaves import is_masked
from gradtx.core.pairs import GradientTransformation
from gradtx.core.paths import leaves_by_path
from gradtx.core.transformation import Part, Transformation
from gradtx.core.trees import is_inexact
from gradtx.core.types import Leaf, Params, State, Tree, TreeDef


class Node(NamedTuple):
    """A transformation and what it sees. Parameters are numbered in the order of the whole tree.

    Attributes:
      tx: the transformation.
      params: what it sees.
      slots: the numbers of those, None where one is masked out.
      got: the same without None.
      touched: those that it does something with by itself, apart from what is inside it.
      inside: the transformations inside it.
    """

    tx: Transformation
    params: Params
    slots: list[int | None]
    got: frozenset[int]
    touched: frozenset[int]
    inside: "list[Node]"

    @property
    def name(self) -> str:
        """Of its class."""
        return type(self.tx).__name__

    def texts(self, place: int) -> list[str]:
        """What touches a parameter, in order: names, each with what it is made of."""
        if isinstance(self.tx, GradientTransformation):
            return []
        inner = [text for node in self.inside for text in node.texts(place)]
        if self.tx.transparent:
            return inner
        if inner:
            return [f"{self.name}({', '.join(inner)})"]
        return [self.name] if place in self.touched else []

    def rules(self, place: int) -> list[Transformation]:
        """What touches a parameter by itself, in order; a wrapper before what is inside it."""
        inner = [tx for node in self.inside for tx in node.rules(place)]
        if not inner:
            return [self.tx] if place in self.touched and not self.tx.transparent else []
        return inner if self.tx.transparent or isinstance(self.tx, Preset) else [self.tx, *inner]

    def guarded(self) -> frozenset[int]:
        """The parameters for whose rounding something inside makes up."""
        return self.got if self.tx.guards else frozenset[int]().union(*(node.guarded() for node in self.inside))

    def idle(self) -> Iterator[str]:
        """Labels and masks inside that no parameter has."""
        if isinstance(self.tx, partition):
            labels = self.tx.labels_of(self.params)
            for label in self.tx.transforms:
                if label not in labels:
                    yield f"partition: no parameter has the label {label!r}."
        mask = None if self.inside else self.tx.arguments.get("mask")
        if mask is not None and not any(spread_mask("mask", mask, self.params)):
            yield f"{self.name}: its mask is True for no parameter."
        for node in self.inside:
            if node.got:
                yield from node.idle()
            elif self.tx.transparent and not isinstance(self.tx, partition):
                yield f"{self.name}: {node.name} touches no parameter."

    def foreign(self) -> Iterator[str]:
        """Transformations of other libraries inside."""
        for node in self.inside:
            if (name := foreign_name(node.tx)) is not None and foreign_name(self.tx) is None:
                unknown = "which is no transformation of gradtx: which parameters it touches is not known."
                yield f"{self.name} has {name} in it, {unknown}"
            yield from node.foreign()


def node_of(tx: Transformation, params: Params, state: State) -> Node:
    """What is inside a transformation, with the numbers of the parameters that each sees."""
    numbers = {id(leaf): i for i, leaf in enumerate(jax.tree.leaves(params))}
    paths = {path: i for i, path in enumerate(leaves_by_path(params))}

    def node(part: Part, outer: frozenset[int]) -> Node:
        slots: list[int | None] = []
        for path, leaf in leaves_by_path(part.params, is_leaf=is_masked).items():
            # Copies are known by their paths.
            slots.append(None if is_masked(leaf) else numbers.get(id(leaf), paths.get(path)))
        got = frozenset(place for place in slots if place is not None)
        # A tree of another kind is taken for all that the caller had.
        if len(got) < len(jax.tree.leaves(part.params)):
            got = outer
        inside = [node(inner, got) for inner in part.tx.parts(part.params, part.state)]
        new = Node(part.tx, part.params, slots, got, frozenset(), inside)
        return new._replace(touched=_touched(new, part.state))

    return node(Part(tx, params, state), frozenset(numbers.values()))


def _touched(node: Node, state: State) -> frozenset[int]:
    if node.inside:  # what a wrapper does not hand on, or has state for
        handed = frozenset[int]().union(*(inner.got for inner in node.inside))
        return (node.got - handed) | {place for place in owners(state, None, [node]) if place is not None}
    places = [place for place in node.slots if place is not None]
    if node.got - set(places):  # it sees the parameters in another form, such as one vector
        return node.got
    return frozenset(itertools.compress(places, node.tx.touches(node.params)))


def owners(state: State, params: Params, roots: list[Node]) -> list[int | None]:
    """For each array of a state the number of its parameter; None where no single one has it.

    A part of the state belongs to parameters if it is a tree like them, or like those that a
    transformation inside got.
    """
    known: dict[TreeDef, Sequence[int | None]] = {}
    if params is not None:
        count = itertools.count()
        known[_skeleton(params)] = [None if is_masked(x) else next(count) for x in jax.tree.leaves(params, is_leaf=is_masked)]
    for node in _flat(roots):
        known.setdefault(_skeleton(node.params), node.slots)
    one = params if len(jax.tree.leaves(params)) == 1 and jax.tree.leaves(params)[0] is params else None
    found: list[int | None] = []

    def walk(part: Tree) -> None:
        leaves = jax.tree.leaves(part, is_leaf=is_masked)
        children = jax.tree.leaves(part, is_leaf=lambda x: x is not part)
        # One array, which belongs to a parameter only if there is only that one.
        if len(children) == 1 and children[0] is part:
            found.append(0 if one is not None and _like(part, one) else None)
        elif len(places := known.get(_skeleton(part), ())) == len(leaves) > 0:
            found.extend(place for place, leaf in zip(places, leaves, strict=True) if not is_masked(leaf))
        else:
            for child in children:
                walk(child)

    walk(state)
    return found


def is_frozen(rules: Sequence[Transformation]) -> bool:
    """Whether `set_to_zero` touches a parameter, and nothing after it can add to the update."""
    zeroing = [i for i, tx in enumerate(rules) if isinstance(tx, set_to_zero)]
    return bool(zeroing) and all(tx.keeps_zero or tx.observes for tx in rules[zeroing[-1] :])


def foreign_name(tx: Transformation) -> str | None:
    """What to call a pair of functions of another library; None for a transformation of gradtx."""
    if not isinstance(tx, GradientTransformation):
        return None
    return getattr(tx.update_fn, "__qualname__", type(tx.update_fn).__name__).partition(".")[0]


def _flat(roots: list[Node]) -> Iterator[Node]:
    for node in roots:
        yield node
        yield from _flat(node.inside)


def _skeleton(tree: Tree) -> TreeDef:
    """The structure of a tree, the same whether parameters are masked out or not."""
    return jax.tree.structure(tree, is_leaf=is_masked)


def _like(part: Tree, param: Params) -> bool:
    shape = np.shape(param)
    return is_inexact(part) and np.shape(part)[len(np.shape(part)) - len(shape) :] == shape


def nbytes(array: Leaf) -> int:
    """The bytes of an array, or of one that is only a shape and a dtype."""
    return int(np.prod(np.shape(array), dtype=np.int64)) * jnp.result_type(array).itemsize
