"""Matrices of one shape as one stack: what methods with a state for each matrix compute on.

One program serves all matrices of a shape, so compile time grows with the number of shapes. On a
mesh the devices share the matrices of a stack, each whole on one device, and so lies what a state
keeps of them: a step moves gradients there and updates back, and nothing else.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from gradtx.core.numerics import compute_dtype, is_tracer
from gradtx.core.platforms import on_platform
from gradtx.core.types import DType, Params, State, Tree
from gradtx.linalg.eigenbasis import after
from gradtx.linalg.msign_many import equal_parts
from gradtx.matrix.automatic import ANY, Share
from gradtx.matrix.dimensions import MuonDimensionNumbers, Numbers, fan, from_matrices, to_matrices
from gradtx.matrix.on_mesh import mesh_and_kind, working_axes

Stacks = dict[str, Tree]
"""For each shape of matrices a stack `(count, n, m)`, or a tree of arrays with that first axis."""
Row = Any
"""What a state keeps of one matrix, or of a stack: a named tuple, None where it keeps nothing."""


class Member(NamedTuple):
    """A leaf in a stack: which one, its dimension numbers, its shape, how many matrices it has."""

    leaf: int
    numbers: MuonDimensionNumbers
    shape: tuple[int, ...]
    count: int


class Group(NamedTuple):
    """The matrices of one shape and dtype in a tree."""

    shape: tuple[int, int]
    dtype: DType
    members: tuple[Member, ...]

    @property
    def count(self) -> int:
        """How many matrices it has."""
        return sum(member.count for member in self.members)


Groups = dict[str, Group]
"""The groups by what states call their stacks: `4x16`, or `4x16_float64`."""


def groups_of(leaves: Sequence[jax.Array], numbers: Numbers) -> Groups:
    """The matrices of some leaves by shape; leaves without numbers are in no group."""
    found: dict[str, Group] = {}
    for i, (leaf, entry) in enumerate(zip(leaves, numbers, strict=True)):
        if entry is None:
            continue
        (n, m), dtype = fan(entry, leaf.shape), compute_dtype(leaf.dtype)
        name = f"{n}x{m}" if dtype == jnp.float32 else f"{n}x{m}_{dtype}"
        group = found.get(name, Group((n, m), dtype, ()))
        member = Member(i, entry, tuple(leaf.shape), math.prod(leaf.shape) // (n * m))
        found[name] = group._replace(members=(*group.members, member))
    return found


def to_stacks(leaves: Sequence[jax.Array] | dict[int, jax.Array], groups: Groups) -> Stacks:
    """The matrices of leaves, stacked by shape."""
    return {
        name: jnp.concatenate([to_matrices(leaves[one.leaf].astype(group.dtype), one.numbers) for one in group.members])
        for name, group in groups.items()
    }


def from_stacks(stacks: Stacks, groups: Groups, leaves: Sequence[jax.Array]) -> dict[int, jax.Array]:
    """Leaves by their indices, from the stacks of their matrices; `leaves` tell where they lie."""
    found = {}
    _, kind = mesh_and_kind(leaves)
    split = _parts if kind is None else _split
    for name, group in groups.items():
        for one, part in zip(group.members, split(stacks[name], [one.count for one in group.members]), strict=True):
            found[one.leaf] = from_matrices(part, one.numbers, one.shape)
    return found


def _split(stack: jax.Array, counts: list[int]) -> list[jax.Array]:
    return jnp.split(stack, list(itertools.accumulate(counts))[:-1])


def _parts(stack: jax.Array, counts: list[int]) -> list[jax.Array]:
    """On CPU, programs in which many parts compile quickly."""

    def on(platform: str, stack: jax.Array) -> list[jax.Array]:
        alike = platform == "cpu" and len(counts) > 1 and len(set(counts)) == 1
        return equal_parts(stack, len(counts)) if alike else _split(stack, counts)

    return on_platform(on, stack)


def row_of(kept: State, name: str) -> Row:
    """What a state keeps of one shape."""
    return type(kept)(*[field.get(name) for field in kept])


def from_rows(kind: type[Row], rows: dict[str, Row]) -> State:
    """The state of type `kind` with these rows: a dict by shape in each field."""
    return kind(*[{name: row[i] for name, row in rows.items() if row[i] is not None} for i in range(len(kind._fields))])


# How stacks lie, and who works on them ---------------------------------------------------------


def zeros_stack(shape: tuple[int, ...], dtype: DType, params: Params) -> jax.Array:
    """Zeros for what a state keeps of a stack of matrices, on the mesh that parameters are on.

    The matrices lie apart; where devices are left over, each matrix is cut too.
    """
    leaves = jax.tree.leaves(params)
    mesh, kind = mesh_and_kind(leaves)
    if kind is None:
        return jnp.zeros(shape, dtype)
    spec = spec_of(shape, mesh)
    if kind == AxisType.Explicit:
        return jnp.zeros(shape, dtype, out_sharding=NamedSharding(mesh, spec))
    placed = next((x for x in leaves if isinstance(getattr(x, "sharding", None), NamedSharding) and not is_tracer(x)), None)
    if placed is not None:
        return jnp.zeros(shape, dtype, device=NamedSharding(placed.sharding.mesh, spec))
    return jax.lax.with_sharding_constraint(jnp.zeros(shape, dtype), NamedSharding(mesh, spec))


def spec_of(shape: tuple[int, ...], mesh: AbstractMesh) -> PartitionSpec:
    """How a stack lies: along all mesh axes, each where it first divides what is left of an axis.

    In the order of `each_matrix`, the last mesh axis first.
    """
    left: list[int] = list(shape)
    names: list[tuple[str, ...]] = [() for _ in shape]
    for axis, size in reversed(mesh.shape.items()):
        place = next((i for i, length in enumerate(left) if length % size == 0 and length), None)
        if place is not None and size > 1:
            left[place] //= size
            names[place] = (*names[place], axis)
    return PartitionSpec(*[entry[0] if len(entry) == 1 else entry or None for entry in names])


def each_matrix(rule: Callable[..., Tree], stacks: Stacks, scalars: Tree, groups: Groups, leaves: Sequence[jax.Array]) -> Stacks:
    """`rule(scalars, *matrices)` for the matrices of each stack; the work is shared by devices.

    Args:
      rule: function of the scalars and of one matrix of each array of a stack, that gives a tree of
        arrays: the update first, then what is kept.
      stacks: for each shape a tuple of trees of arrays with one first axis.
      scalars: what all matrices share.
      groups: what the stacks are made of.
      leaves: the parameters or gradients; where they lie, the work is done.
    """
    mesh, kind = mesh_and_kind(leaves)
    if kind is None:
        return _local(rule, stacks, scalars)
    return _shared(rule, stacks, scalars, groups, Share(mesh, working_axes(mesh)))


def _local(rule: Callable[..., Tree], stacks: Stacks, scalars: Tree) -> Stacks:
    found: Stacks = {}
    for name, arrays in stacks.items():
        found[name] = jax.vmap(functools.partial(rule, scalars))(*arrays)
        scalars = after(scalars, found[name])
    return found


def _shared(rule: Callable[..., Tree], stacks: Stacks, scalars: Tree, groups: Groups, share: Share) -> Stacks:
    cut = PartitionSpec(share.axes)

    def padded(x: jax.Array) -> jax.Array:
        missing = -x.shape[0] % share.devices
        return jnp.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1))) if missing else x

    def moves(group: Group) -> bool:
        """Whether matrices come from many leaves; those of one may lie apart as they are."""
        return len(group.members) > 1 or group.count % share.devices > 0

    def apart(group: Group, gradient: jax.Array, *kept: Tree) -> Tree:
        together = share.lying(padded(gradient), None, ANY, ANY) if moves(group) else gradient
        return share.cut(together, 0, share.axes), *jax.tree.map(lambda x: share.lying(padded(x), *cut), kept)

    def back(group: Group, update: jax.Array, *kept: Tree) -> Tree:
        together = share.joined(update, 0, share.axes)[: group.count] if moves(group) else update
        return together, *jax.tree.map(
            lambda x: share.lying(x[: group.count], *spec_of((group.count, *x.shape[1:]), share.mesh)), kept
        )

    def local(stacks: Stacks, scalars: Tree) -> Stacks:
        return _local(rule, stacks, scalars)

    specs = {"in_specs": (cut, PartitionSpec()), "out_specs": cut, "axis_names": set(share.mesh.axis_names)}
    run = jax.shard_map(local, mesh=share.mesh, check_vma=False, **specs)
    found = run({name: apart(groups[name], *arrays) for name, arrays in stacks.items()}, scalars)
    return {name: back(groups[name], *arrays) for name, arrays in found.items()}
