"""Leaves of matrices that lie side by side in unequal widths, or one below the other, as parts."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.core.sharding import placed_like
from gradtx.matrix.dimensions import MuonDimensionNumbers, axes_of

Parts = list[tuple[jax.Array, MuonDimensionNumbers]]
"""Arrays with plain dimension numbers."""


def are_plain(numbers: MuonDimensionNumbers) -> bool:
    """Whether a leaf is its only part."""
    return numbers.input_blocks == 1 and isinstance(numbers.output_blocks, int)


def parts_of(x: jax.Array, numbers: MuonDimensionNumbers) -> Parts:
    """The parts of a leaf: one for each width of blocks along its output.

    Blocks along the input are a new batch axis.
    """
    if are_plain(numbers):
        return [(x, numbers)]
    _, inputs, outputs = axes_of(numbers, x.ndim)
    x = _uncut(x, [inputs[0]] * (numbers.input_blocks > 1) + [outputs[0]] * (not isinstance(numbers.output_blocks, int)))
    if numbers.input_blocks > 1:
        place, blocks = inputs[0], numbers.input_blocks
        x = x.reshape(*x.shape[:place], blocks, x.shape[place] // blocks, *x.shape[place + 1 :])
        inputs, outputs = (tuple(i + (i >= place) for i in side) for side in (inputs, outputs))
    if isinstance(numbers.output_blocks, int):
        return [(x, MuonDimensionNumbers(inputs, outputs, numbers.output_blocks))]
    plain, inner = MuonDimensionNumbers(inputs, outputs), math.prod(x.shape[i] for i in outputs[1:])
    ends = np.cumsum([width // inner for width in numbers.output_blocks])
    return [(part, plain) for part in jnp.split(x, ends[:-1], axis=outputs[0])]


def joined(parts: Sequence[jax.Array], numbers: MuonDimensionNumbers, like: jax.Array) -> jax.Array:
    """The leaf that has these parts, which lies as another one."""
    if len(parts) == 1:
        return placed_like(parts[0].reshape(like.shape), like)
    _, inputs, outputs = axes_of(numbers, like.ndim)
    place = outputs[0] + (numbers.input_blocks > 1 and outputs[0] >= inputs[0])
    return placed_like(jnp.concatenate(parts, axis=place).reshape(like.shape), like)


def _uncut(x: jax.Array, axes: Sequence[int]) -> jax.Array:
    """An array that no mesh axis cuts along some axes, where types say how it lies."""
    sharding = jax.typeof(x).sharding
    if not any(sharding.spec[i] for i in axes if i < len(sharding.spec)):
        return x
    spec = [None if i in axes else entry for i, entry in enumerate(sharding.spec)]
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec(*spec)))


def each_part(
    rule: Callable[[jax.Array, MuonDimensionNumbers], jax.Array], x: jax.Array, numbers: MuonDimensionNumbers
) -> jax.Array:
    """A leaf with a rule applied to each part."""
    if are_plain(numbers):
        return rule(x, numbers)
    return joined([rule(part, plain) for part, plain in parts_of(x, numbers)], numbers, x)


def all_parts(leaves: Sequence[jax.Array], numbers: Sequence[MuonDimensionNumbers]) -> tuple[Parts, list[int]]:
    """The parts of all leaves in a row, and how many each has."""
    parts = [parts_of(leaf, entry) for leaf, entry in zip(leaves, numbers, strict=True)]
    return [part for own in parts for part in own], [len(own) for own in parts]


def all_joined(
    parts: Sequence[jax.Array], counts: Sequence[int], numbers: Sequence[MuonDimensionNumbers], like: Sequence[jax.Array]
) -> list[jax.Array]:
    """The leaves of `all_parts`."""
    rest, leaves = list(parts), []
    for count, entry, leaf in zip(counts, numbers, like, strict=True):
        own, rest = rest[:count], rest[count:]
        leaves.append(own[0] if are_plain(entry) else joined(own, entry, leaf))
    return leaves
