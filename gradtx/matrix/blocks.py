"""Leaves as stacks of equal blocks, and work on stacks that devices share.

A method that works on small tensors one by one sees all tensors of one shape as one stack, so it
compiles once for each shape. On a mesh every device gets its share of a stack, whole tensors, and
keeps the state that belongs to them: gradients move there and updates back, states stay.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from gradtx.core import checks
from gradtx.core.numerics import abs_sq, compute_dtype
from gradtx.core.types import DType, Leaf, Params, Tree
from gradtx.linalg.eigenbasis import after
from gradtx.matrix.automatic import ANY, Share
from gradtx.matrix.dimensions import MatrixRule, MuonDimensionNumbers, fan, from_matrices, numbers_for, to_matrices
from gradtx.matrix.on_mesh import mesh_and_kind, working_axes
from gradtx.matrix.parts import are_plain

Stacks = tuple[jax.Array, ...]
"""An array for each group of equal blocks, stacked along the first axis."""
Run = Callable[..., Tree]
"""A function of the arrays of one group that gives arrays; along first axes it works one by one."""


class Cut(NamedTuple):
    """How a leaf is cut into equal blocks, the last along an axis filled up with zeros.

    Attributes:
      shape: of the leaf.
      numbers: which axes make matrices; None takes the leaf as one tensor.
      tensor: the shape of one tensor, without axes of one element.
      block: the shape of one block.
      counts: how many blocks lie along each axis.
    """

    shape: tuple[int, ...]
    numbers: MuonDimensionNumbers | None
    tensor: tuple[int, ...]
    block: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def stacked(self) -> int:
        """How many blocks the leaf has."""
        return math.prod(self.shape) // math.prod(self.tensor) * math.prod(self.counts)

    def to_blocks(self, x: jax.Array) -> jax.Array:
        """The blocks of a leaf, `(stacked, *block)`."""
        if self.numbers is not None:
            x = to_matrices(x, self.numbers)
        x = x.reshape(-1, *self.tensor)
        if math.prod(self.counts) == 1:
            return x
        whole = [n * b for n, b in zip(self.counts, self.block, strict=True)]
        x = jnp.pad(x, [(0, 0), *((0, w - n) for w, n in zip(whole, self.tensor, strict=True))])
        x = x.reshape(-1, *(n for pair in zip(self.counts, self.block, strict=True) for n in pair))
        rank = len(self.block)
        return x.transpose(0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2)).reshape(-1, *self.block)

    def from_blocks(self, blocks: jax.Array) -> jax.Array:
        """The leaf whose blocks these are."""
        x, rank = blocks, len(self.block)
        if math.prod(self.counts) > 1:
            x = x.reshape(-1, *self.counts, *self.block)
            x = x.transpose(0, *(i for k in range(1, rank + 1) for i in (k, k + rank)))
            x = x.reshape(-1, *(n * b for n, b in zip(self.counts, self.block, strict=True)))
            x = x[(slice(None), *(slice(n) for n in self.tensor))]
        if self.numbers is None:
            return x.reshape(self.shape)
        return from_matrices(x.reshape(-1, *fan(self.numbers, self.shape)), self.numbers, self.shape)


def cut(shape: tuple[int, ...], numbers: MuonDimensionNumbers | None, most: int | None) -> Cut:
    """How a leaf is cut: as few blocks as `most` elements along an axis allow, of equal size."""
    axes = shape if numbers is None else fan(numbers, shape)
    tensor = tuple(n for n in axes if n > 1) or (1,)
    counts = tuple(1 if most is None else -(-n // most) for n in tensor)
    return Cut(shape, numbers, tensor, tuple(-(-n // k) for n, k in zip(tensor, counts, strict=True)), counts)


class Group(NamedTuple):
    """Blocks of one shape and dtype: their leaves, and how many each has."""

    block: tuple[int, ...]
    dtype: DType
    leaves: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many blocks there are."""
        return sum(self.counts)


class Stacking:
    """How the leaves of a tree make stacks: a group for each shape of a block and each dtype.

    Attributes:
      cuts: for each leaf; None where it is empty.
      groups: in the order of their first leaves.
    """

    def __init__(self, leaves: Sequence[Leaf], numbers: Sequence[MuonDimensionNumbers | None], most: int | None):
        known = zip(map(np.shape, leaves), numbers, strict=True)
        self.cuts = [cut(shape, entry, most) if math.prod(shape) else None for shape, entry in known]
        members: dict[Hashable, list[int]] = {}
        for i, (x, own) in enumerate(zip(leaves, self.cuts, strict=True)):
            if own is not None:
                members.setdefault((own.block, compute_dtype(jnp.result_type(x))), []).append(i)
        self.groups = [
            Group(block, dtype, tuple(found), tuple(one.stacked for i in found if (one := self.cuts[i]) is not None))
            for (block, dtype), found in members.items()  # type: ignore[misc]
        ]

    def stack(self, *trees: Sequence[jax.Array]) -> Stacks:
        """The blocks of some trees by group, `(size, trees, *block)`, which move together."""
        share = _share(trees[0])
        return tuple(self._stacked(trees, group, share) for group in self.groups)

    def _stacked(self, trees: Sequence[Sequence[jax.Array]], group: Group, share: Share | None) -> jax.Array:
        parts = []
        for i in group.leaves:
            own = self.cuts[i]
            assert own is not None
            part = jnp.stack([own.to_blocks(leaves[i]).astype(group.dtype) for leaves in trees], axis=1)
            parts.append(part if share is None else share.lying(part, None, *[ANY] * (part.ndim - 1)))
        return jnp.concatenate(parts) if len(parts) > 1 else parts[0]

    def norms(self, leaves: Sequence[jax.Array]) -> Stacks:
        """The norms of all blocks by group, which all devices have whole."""
        found, share = [], _share(leaves)
        for group in self.groups:
            blocks = [one.to_blocks(leaves[i]) for i in group.leaves if (one := self.cuts[i]) is not None]
            axes = tuple(range(1, len(group.block) + 1))
            norms = [jnp.sqrt(jnp.sum(abs_sq(x), axis=axes)) for x in blocks]
            found.append(jnp.concatenate(norms if share is None else [share.lying(x, None) for x in norms]))
        return tuple(found)

    def unstack(self, stacks: Stacks, leaves: Sequence[jax.Array]) -> list[jax.Array]:
        """The leaves that these stacks are of; an empty leaf as it is in `leaves`."""
        found, share = list(leaves), _share(leaves)
        if share is not None:
            stacks = tuple(share.joined(x, 0, axes_along(len(x), share.mesh)) for x in stacks)
        for stack, group in zip(stacks, self.groups, strict=True):
            ends = np.cumsum(group.counts)
            for i, start, end in zip(group.leaves, [0, *ends[:-1]], ends, strict=True):
                own = self.cuts[i]
                assert own is not None
                found[i] = own.from_blocks(stack[start:end])
        return found


def stacking_once(what: str, numbers: MatrixRule | None, most: int | None = None) -> Callable[[Params], Stacking]:
    """The stacking of a tree, found once for each structure, shapes and dtypes."""
    known: dict[Hashable, Stacking] = {}

    def found(params: Params) -> Stacking:
        leaves, treedef = jax.tree.flatten(params)
        key = (treedef, tuple((np.shape(x), jnp.result_type(x)) for x in leaves))
        if key not in known:
            entries = [None] * len(leaves) if numbers is None else numbers_for(what, numbers, params)
            for entry in entries:
                if entry is not None and not are_plain(entry):
                    raise checks.WrongValue(f"{what} gives {entry}, expected output_blocks that are a number, and input_blocks=1.")
            known[key] = Stacking(leaves, entries, most)
        return known[key]

    return found


def _share(leaves: Sequence[Leaf]) -> Share | None:
    """How devices share work on automatic axes; None where nothing is to be shared."""
    mesh, kind = mesh_and_kind(leaves)
    return Share(mesh, working_axes(mesh)) if kind == AxisType.Auto else None


def axes_along(size: int, mesh: AbstractMesh) -> tuple[str, ...]:
    """The mesh axes that share a stack of a size: as many as divide it."""
    chosen: tuple[str, ...] = ()
    for axis in working_axes(mesh):
        if size % mesh.shape[axis] == 0:
            chosen += (axis,)
            size //= mesh.shape[axis]
    return chosen


def lying_as_a_stack(x: jax.Array, leaves: Sequence[Leaf]) -> jax.Array:
    """A new state of a stack where devices work on it: along its first axis, if they divide it.

    Types have to say where leaves lie (explicit axes), as they do while `state_sharding` looks.
    """
    mesh, kind = mesh_and_kind(leaves)
    if kind != AxisType.Explicit:
        return x
    return jax.sharding.reshard(x, NamedSharding(mesh, PartitionSpec(axes_along(len(x), mesh) or None)))


def on_shares(run: Run, moved: Sequence[Tree], kept: Sequence[Tree], shared: Tree, leaves: Sequence[jax.Array]) -> list[Tree]:
    """`run(moved, kept, shared)` for the arrays of each group; devices of a mesh share it.

    Args:
      run: function of one group's arrays, all with one first axis, and of `shared`.
      moved: for each group, a tree of arrays that lie as leaves do.
      kept: for each group, a tree of arrays that lie as `lying_as_a_stack` says.
      shared: arrays that all devices have whole, such as a count.
      leaves: whose mesh it is.
    """
    mesh_share = _share(leaves)

    def local(moved: Sequence[Tree], kept: Sequence[Tree], shared: Tree) -> list[Tree]:
        found: list[Tree] = []
        for one, other in zip(moved, kept, strict=True):
            found.append(run(one, other, after(shared, found)))
        return found

    if mesh_share is None:
        return local(moved, kept, shared)
    share = mesh_share
    along = [axes_along(len(jax.tree.leaves(tree)[0]), share.mesh) for tree in moved]
    cut = [jax.tree.map(lambda x, axes=axes: share.cut(x, 0, axes), tree) for tree, axes in zip(moved, along, strict=True)]
    whole, specs = PartitionSpec(), [PartitionSpec(axes or None) for axes in along]
    over = jax.shard_map(
        local,
        mesh=share.mesh,
        in_specs=(specs, specs, whole),
        out_specs=specs,
        axis_names=set(share.mesh.axis_names),
        check_vma=False,
    )
    return over(cut, list(kept), shared)


def outer(x: jax.Array, axis: int, precision: jax.lax.PrecisionLike = "highest") -> jax.Array:
    """The products `X X^H` of each tensor of a stack, along one of its axes."""
    others = [i for i in range(x.ndim) if i not in (0, axis + 1)]
    return jax.lax.dot_general(x, x.conj(), ((others, others), ((0,), (0,))), precision=precision)


def along(matrices: jax.Array, x: jax.Array, axis: int, precision: jax.lax.PrecisionLike = "highest") -> jax.Array:
    """Each tensor of a stack times a matrix along one of its axes."""
    moved = jax.lax.dot_general(matrices, x, (((2,), (axis + 1,)), ((0,), (0,))), precision=precision)
    return jnp.moveaxis(moved, 1, axis + 1)
