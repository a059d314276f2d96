"""Which axes of a parameter make a matrix, and the matrices of a parameter as one stack."""

import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from gradtx.compose.labels import resolve
from gradtx.core import checks
from gradtx.core.leaves import is_masked_or_none
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.types import Leaf, Params, Tree
from gradtx.core.value import record


@record
class MuonDimensionNumbers(NamedTuple):
    """Which axes of a parameter make a matrix; all axes not named are a batch of matrices.

    Attributes:
      reduction_axis: the input axis, or axes that are one together (of `x @ W`, axis 0).
      output_axis: the output axis or axes.
      output_blocks: how many matrices of one width lie side by side along the output (3 for fused
        query, key and value; the number of heads for a matrix each), or their widths where these
        differ, `(queries, keys, values)`.
      input_blocks: how many lie one below the other along the input axis (the number of heads in
        the projection that leads out of them).

    **Differs:** Optax has no blocks.
    """

    reduction_axis: int | Sequence[int] = 0
    output_axis: int | Sequence[int] = 1
    output_blocks: int | Sequence[int] = 1
    input_blocks: int = 1


Numbers = tuple[MuonDimensionNumbers | None, ...]
"""For each leaf of a tree its dimension numbers; None where it is no matrix."""
MatrixRule = Tree | Callable[[Params], Tree]
"""A tree of dimension numbers, a prefix of one, or a function from parameters to one."""


def numbers_once(what: str, numbers: MatrixRule | None) -> Callable[[Params], Numbers]:
    """`numbers_for` that answers once for each structure and shapes of a tree.

    An answer depends on nothing else: `init` finds the numbers, and each later trace of a step only
    looks them up.
    """
    known: dict[Hashable, Numbers] = {}

    def found(params: Params) -> Numbers:
        leaves, treedef = jax.tree.flatten(params)
        key = (treedef, tuple(map(np.shape, leaves)))
        if key not in known:
            known[key] = tuple(numbers_for(what, numbers, params))
        return known[key]

    return found


def numbers_for(what: str, numbers: MatrixRule | None, params: Params) -> list[MuonDimensionNumbers | None]:
    """The dimension numbers of each leaf of `params`, from a tree of them, a prefix, or a function.

    None gives every leaf of two axes a plain matrix, and no numbers to those of fewer. An empty
    leaf has no matrix.
    """
    named = leaves_by_path(params)
    if numbers is None:
        return [_plain(what, parts, np.shape(leaf)) for parts, leaf in named.items()]

    def is_entry(x: Leaf) -> bool:
        return is_masked_or_none(x) or isinstance(x, MuonDimensionNumbers)

    given = leaves_by_path(
        numbers if isinstance(numbers, MuonDimensionNumbers) else resolve(what, numbers, params), is_leaf=is_entry
    )
    entries: list[MuonDimensionNumbers | None] = []
    for parts, leaf in named.items():
        path = "/".join(parts) or ROOT
        owner = next((parts[:i] for i in range(len(parts), -1, -1) if parts[:i] in given), None)
        if owner is None:
            hint = " Rules by path go through gradtx.matrix_axes({...})." if isinstance(numbers, Mapping) else ""
            raise checks.WrongValue(f"{what} has nothing for the leaf `{path}`.{hint}")
        entry = given[owner]
        if is_masked_or_none(entry) or not math.prod(np.shape(leaf)):
            entries.append(None)
            continue
        if not isinstance(entry, MuonDimensionNumbers):
            raise checks.WrongType(f"{what} gives {checks.kind(entry)} for `{path}`, expected MuonDimensionNumbers or None.")
        entries.append(checked_numbers(what, path, entry, np.shape(leaf)))
    return entries


def _plain(what: str, parts: tuple[str, ...], shape: tuple[int, ...]) -> MuonDimensionNumbers | None:
    if len(shape) > 2:
        raise checks.WrongValue(
            f"the leaf `{'/'.join(parts) or ROOT}` has shape {shape}, expected at most two "
            f"axes. Pass {what}=gradtx.matrix_axes({{...}}), or dimension numbers for each leaf."
        )
    return MuonDimensionNumbers() if len(shape) == 2 and math.prod(shape) else None


def checked_numbers(what: str, path: str, numbers: MuonDimensionNumbers, shape: tuple[int, ...]) -> MuonDimensionNumbers:
    """The numbers, after a check, in a form that has a hash."""
    found = f"{what} gives {numbers} for `{path}` of shape {shape}"
    sides = [(axes,) if isinstance(axes, (int, np.integer)) else tuple(axes) for axes in numbers[:2]]
    if any(not -len(shape) <= i < len(shape) for side in sides for i in side) or not all(sides):
        raise checks.WrongValue(f"{found}, expected axes that it has.")
    named = [i % len(shape) for side in sides for i in side]
    if len(set(named)) < len(named):
        raise checks.WrongValue(f"{found}, expected axes that are all different.")
    rows = shape[sides[0][0]]
    if numbers.input_blocks < 1 or rows % numbers.input_blocks:
        raise checks.WrongValue(f"{found}, expected input_blocks that divide the {rows} elements of its first input axis.")
    blocks = _checked_blocks(found, numbers.output_blocks, [shape[i] for i in sides[1]])
    return MuonDimensionNumbers(
        *(tuple(axes) if isinstance(axes, list) else axes for axes in numbers[:2]), blocks, numbers.input_blocks
    )


def _checked_blocks(found: str, blocks: int | Sequence[int], sizes: Sequence[int]) -> int | tuple[int, ...]:
    """Blocks along outputs of these sizes: a number where all have one width, else their widths."""
    outputs, inner = math.prod(sizes), math.prod(sizes[1:])
    if isinstance(blocks, (int, np.integer)):
        if blocks < 1 or outputs % blocks:
            raise checks.WrongValue(f"{found}, expected output_blocks that divide its {outputs} outputs.")
        return int(blocks)
    widths = tuple(map(int, blocks))
    if sum(widths) != outputs or min(widths) < 1:
        raise checks.WrongValue(f"{found}, expected output_blocks that add up to its {outputs} outputs.")
    if len(set(widths)) == 1:
        return len(widths)
    if any(width % inner for width in widths):
        raise checks.WrongValue(f"{found}, expected output_blocks that end where its first output axis does, multiples of {inner}.")
    return widths


@functools.lru_cache(maxsize=4096)
def axes_of(numbers: MuonDimensionNumbers, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Batch, reduction and output axes, none negative."""
    reduction, output = (
        tuple(int(i) % ndim for i in ((axes,) if isinstance(axes, (int, np.integer)) else axes))
        for axes in (numbers.reduction_axis, numbers.output_axis)
    )
    return tuple(i for i in range(ndim) if i not in reduction + output), reduction, output


@functools.lru_cache(maxsize=4096)
def fan(numbers: MuonDimensionNumbers, shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of one matrix."""
    _, reduction, output = axes_of(numbers, len(shape))
    inputs, outputs = (math.prod(shape[i] for i in side) for side in (reduction, output))
    return inputs // numbers.input_blocks, outputs // numbers.output_blocks


def to_matrices(x: jax.Array, numbers: MuonDimensionNumbers) -> jax.Array:
    """The matrices of a leaf: `(batch, inputs, outputs)`."""
    batch, reduction, output = axes_of(numbers, x.ndim)
    inputs, outputs = fan(numbers, x.shape)
    x = x if batch + reduction + output == tuple(range(x.ndim)) else x.transpose(batch + reduction + output)
    if numbers.output_blocks == 1:
        return x.reshape(-1, inputs, outputs)
    return x.reshape(-1, inputs, numbers.output_blocks, outputs).swapaxes(1, 2).reshape(-1, inputs, outputs)


def from_matrices(matrices: jax.Array, numbers: MuonDimensionNumbers, shape: tuple[int, ...]) -> jax.Array:
    """The leaf of `shape` whose matrices these are."""
    order = sum(axes_of(numbers, len(shape)), ())
    inputs, outputs = fan(numbers, shape)
    if numbers.output_blocks > 1:
        matrices = matrices.reshape(-1, numbers.output_blocks, inputs, outputs).swapaxes(1, 2)
    if order == tuple(range(len(shape))):
        return matrices.reshape(shape)
    return matrices.reshape([shape[i] for i in order]).transpose([int(i) for i in np.argsort(order)])
