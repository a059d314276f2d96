"""Moments of any optimizer in 8 or 4 bits."""

from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.labels import spread
from gradtx.compose.recompute import twice
from gradtx.core import checks
from gradtx.core.composites import Wrapper
from gradtx.core.domains import Domain, PositiveInt, check_argument, one_of
from gradtx.core.numerics import promote
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.platforms import on_platform
from gradtx.core.types import ExtraArg, Leaf, Params, State, Tree, Updates
from gradtx.storage.cast import KEEP
from gradtx.storage.codes import decode, decode_pair, encode, encode_pair, largest, scales_shape
from gradtx.storage.kinds import kinds_in
from gradtx.storage.precision import Rounding
from gradtx.transforms.noise import Key, as_key

LABEL = one_of("moment", "squares", KEEP)
Bits = Annotated[int, Domain("8 or 4", lambda value: type(value) is int and value in (8, 4))]
Rule = Annotated[
    Callable[[State], Tree],
    Domain(
        "a function from the state to 'moment', 'squares' or 'keep' for each array, such as by_path",
        lambda value: callable(value) and not checks.is_factory(value),
    ),
]


class QuantizeState(NamedTuple):
    """What is kept of the wrapped transformation's state.

    Attributes:
      inner_state: that state, with codes in the place of moments: int8, or two codes to a uint8.
      scales: of their blocks, in dicts by the paths of `inner_state`.
      rng_key: of random rounding, else None.
    """

    inner_state: State
    scales: Tree
    rng_key: jax.Array | None


class quantize_state(Wrapper, keeps_zero=True):
    """Stores the moments of any optimizer in 8 or 4 bits; steps are made in float32.

    Each block of a moment has a scale, its largest absolute value. With `n` an element over the
    scale, its code is `127 * sign(n) * sqrt(|n|)` for running means of gradients, `255 * sqrt(n)`
    for those of squares, rounded; 7 and 15 in 4 bits. Levels are close where numbers are small, and
    no positive square becomes 0, since steps are divided by it. A step uses the moments before they
    are rounded again.

    Moments are what states declare as such: fields of a named tuple annotated `Moment` or
    `Squares`. Weights (averages, slow weights, `z` of schedule-free), sums that never decay
    (AdaGrad's, whose errors would add up), differences of moments, cached gradients and what other
    libraries keep stay as they are, unless a rule names them.

    A block is a row, the last axis of an array, or its part on one device where parameters say how
    they lie: arrays with explicit axes, and placed arrays outside of `jit`. So nothing is sent to
    find a scale, and XLA fuses all of it into the step, also for TPUs, where cutting rows into
    blocks would move every moment as float32.

    Args:
      inner: the transformation to wrap.
      bits: 8 or 4 a number.
      block_size: most elements that share a scale, >= 1, in equal parts of a row. None is a row (up
        to 32,768 elements; 256 of a vector).
      min_size: smaller arrays, >= 1 element, stay as they are.
      codes: None, or what arrays of the state are, by their paths, in the place of what they
        declare: `by_path({".*mu/.*": "moment", ".*nu/.*": "squares"}, default="keep")`.
      rounding: 'stochastic', one of the two levels around a value, at random, so that the level is
        right on average; or 'nearest', by which what changes by less than half a level in a step
        never changes.
      key: random key of 'stochastic', or a whole number to seed one.

    State: `QuantizeState(inner_state, scales, rng_key)`; 1 byte an element of a moment in place of
      4, and 4 for each row: 2.01 bytes a parameter for AdamW with rows of 768. In 4 bits a moment
      and the squares of the same parameter share a byte, 1.01 bytes a parameter; a moment without
      partner, as Muon's, takes 8.

    Raises:
      ValueError: a rule has a path that the state has not, or leaves one out.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> params = {"w": jnp.ones((64, 256))}
      >>> for bits in (8, 4):
      ...     state = gradtx.quantize_state(gradtx.adamw(1e-3), bits).init(params)
      ...     print(round(sum(x.nbytes for x in jax.tree.leaves(state)) / params["w"].size, 3))
      2.032
      1.032

    Source: Dettmers et al. 2021, "8-bit Optimizers via Block-wise Quantization", arXiv:2110.02861,
    for blocks and nonlinear codes; FlashOptim, arXiv:2602.23349, for roots of squares, here of both
    moments; Li et al. 2023, "Memory Efficient Optimizers with 4-bit States", arXiv:2309.01507, for
    squares without a 0.
    """

    bits: Bits = 8
    block_size: PositiveInt | None = None
    min_size: PositiveInt = 4096
    _: KW_ONLY
    codes: Rule | None = None
    rounding: Rounding = "stochastic"
    key: Key = 0

    def init(self, params: Params) -> QuantizeState:
        state = self.inner.init(params)
        leaves, treedef = jax.tree.flatten(state)
        coded = {}
        for i, (path, kind) in enumerate(self.kinds(state)):
            if kind is not None and self._takes(leaves[i]):
                coded[i] = Coded(path, kind, scales_shape(leaves[i], self.block_size))
                leaves[i] = promote(leaves[i])
        pairs = {i: j for i, j in _partners(coded).items() if self.bits == 4 and leaves[i].shape == leaves[j].shape}
        leaves, scales = _encoded(leaves, leaves, coded, pairs, [None] * len(leaves))
        return QuantizeState(treedef.unflatten(leaves), scales, as_key(self.key) if self.rounding == "stochastic" else None)

    def step(
        self, updates: Updates, state: QuantizeState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, QuantizeState]:
        leaves, treedef = jax.tree.flatten(state.inner_state)
        scales = leaves_by_path(state.scales)
        coded = {}
        for i, (path, kind) in enumerate(self.kinds(state.inner_state)):
            if kind is not None and (own := scales.get(path)) is not None:
                coded[i] = Coded(path, kind, own.shape)
        pairs = {i: j for i, j in _partners(coded).items() if leaves[j].size == 0}

        def run(updates: Updates, leaves: list[Leaf], params: Params | None) -> tuple[Updates, list[Leaf]]:
            wide = treedef.unflatten(_decoded(leaves, coded, pairs, scales))
            updates, inner_state = self.inner.advance(updates, wide, params, extra_args)
            return updates, jax.tree.leaves(inner_state)

        key, seeds = self._seeds(state.rng_key, len(leaves))

        def encoded(platform: str, leaves: list[Leaf]) -> tuple[list[Leaf], dict[str, Tree]]:
            same = again()[1] if platform == "cpu" else leaves
            return _encoded(leaves, same, coded, pairs, seeds, platform)

        (updates, leaves), again = twice(run, updates, leaves, params)
        leaves, after = on_platform(encoded, leaves)
        return updates, QuantizeState(treedef.unflatten(leaves), after, key)

    def kinds(self, state: State) -> list[tuple[tuple[str, ...], str | None]]:
        """The path of each array of a state, and 'moment', 'squares' or None."""
        paths = list(leaves_by_path(state))
        if self.codes is None:
            return list(zip(paths, kinds_in(state), strict=True))
        labels = spread("codes", self.codes, state)
        for path, label in zip(paths, labels, strict=True):
            check_argument("", f"codes for `{'/'.join(path) or ROOT}`", label, LABEL)
        return [(path, None if label == KEEP else label) for path, label in zip(paths, labels, strict=True)]

    def _takes(self, x: Leaf) -> bool:
        real = jnp.issubdtype(jnp.result_type(x), jnp.floating)
        return bool(real) and np.ndim(x) > 0 and np.size(x) >= self.min_size

    def _seeds(self, key: jax.Array | None, count: int) -> tuple[jax.Array | None, list[jax.Array | None]]:
        """The key for the next step, and a seed for each leaf."""
        if key is None:
            return None, [None] * count
        key, now = jax.random.split(key)
        return key, list(jax.random.bits(now, (count,), jnp.uint32))


class Coded(NamedTuple):
    """An array of a state in codes: its path, what it is, the shape of its scales."""

    path: tuple[str, ...]
    kind: str
    scales: tuple[int, ...]


def _partners(coded: dict[int, Coded]) -> dict[int, int]:
    """For each moment the squares of the same parameter: those whose path differs in one name."""
    moments = {but_one: i for i, one in coded.items() if one.kind == "moment" for but_one in _all_but_one(one.path)}
    found: dict[int, int] = {}
    for j, one in coded.items():
        if one.kind == "squares":
            near = (moments.get(but_one) for but_one in _all_but_one(one.path))
            i = next((i for i in near if i is not None and i not in found), None)
            if i is not None:
                found[i] = j
    return found


def _all_but_one(path: tuple[str, ...]) -> list[tuple[str | None, ...]]:
    return [(*path[:k], None, *path[k + 1 :]) for k in range(len(path))]


def _encoded(
    given: list[Leaf],
    same: list[Leaf],
    coded: dict[int, Coded],
    pairs: dict[int, int],
    seeds: list[jax.Array | None],
    platform: str = "",
) -> tuple[list[Leaf], dict[str, Tree]]:
    """The leaves of a state with codes in their place, and the scales.

    Scales are those of the leaves given, and codes of the same leaves, which may have been computed
    anew.
    """
    leaves, scales = list(given), {}
    own = {i: largest(given[i], one.scales, platform) for i, one in coded.items()}
    for i, j in pairs.items():
        leaves[i] = encode_pair(same[i], same[j], own[i], own[j], (seeds[i], seeds[j]))
        leaves[j] = jnp.zeros((0,), jnp.uint8)
    for i in _alone(coded, pairs):
        leaves[i] = encode(same[i], own[i], coded[i].kind, seeds[i])
    for i, one in coded.items():
        _put(scales, one.path, own[i])
    return leaves, scales


def _decoded(leaves: list[Leaf], coded: dict[int, Coded], pairs: dict[int, int], scales: dict[tuple[str, ...], Leaf]) -> list[Leaf]:
    leaves = list(leaves)
    for i, j in pairs.items():
        leaves[i], leaves[j] = decode_pair(leaves[i], scales[coded[i].path], scales[coded[j].path])
    for i in _alone(coded, pairs):
        leaves[i] = decode(leaves[i], scales[coded[i].path], coded[i].kind)
    return leaves


def _alone(coded: dict[int, Coded], pairs: dict[int, int]) -> list[int]:
    """The arrays that share no bytes with others."""
    return sorted(coded.keys() - pairs.keys() - set(pairs.values()))


def _put(tree: dict[str, Tree], path: tuple[str, ...], leaf: Leaf) -> None:
    """Sets a leaf of nested dicts."""
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = leaf
