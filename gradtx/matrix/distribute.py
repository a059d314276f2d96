"""Matrix signs of sharded parameters: matrices to devices and back, a collective each way."""

import collections
import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from gradtx.core import checks
from gradtx.core.numerics import common_dtype, is_tracer, promote
from gradtx.core.platforms import on_platform
from gradtx.core.types import Leaf, Scalar
from gradtx.core.value import record
from gradtx.linalg.msign import Recipe
from gradtx.linalg.msign_many import msign_many
from gradtx.linalg.newton_schulz import newton_schulz, newton_schulz_tall, products
from gradtx.matrix.dimensions import MuonDimensionNumbers, axes_of, from_matrices, to_matrices

ROUND_ELEMENTS = 2**27
"""Most elements of whole matrices on one device at a time (0.5 GiB in float32).

More run in rounds, each with its own collectives.
"""


@record
class Distribution(NamedTuple):
    """Which mesh axes share the work of matrix signs, and how parameters lie on them.

    Without it the devices of all axes share the work. State it to leave axes out, such as a slow
    network between slices, or to tell how parameters lie on automatic axes, where no program sees
    it: all matrices then move by one all-to-all, not by one for each shape and mesh axis.

    Attributes:
      axes: a mesh axis, or several.
      spec: how every parameter lies on automatic axes, such as `PartitionSpec("data", "model")`, or
        `PartitionSpec()` where every device has every parameter whole (as in ZeRO-1). None: along
        its first axis that the devices divide. With explicit axes the parameters themselves say it.
    """

    axes: str | Sequence[str]
    spec: PartitionSpec | None = None


Sharing = str | Sequence[str] | Distribution
"""The mesh axes that share the work: a name, several, or a `Distribution`."""


class _Piece(NamedTuple):
    """The local matrices of one leaf, `(batch, rows, columns)`, and the axes that cut these two."""

    leaf: int
    local: jax.Array
    rows: tuple[str, ...]
    columns: tuple[str, ...]


def distributed_msign(
    leaves: Sequence[jax.Array], numbers: Sequence[MuonDimensionNumbers], recipe: Recipe, eps: Scalar, distribute: Sharing
) -> list[jax.Array]:
    """`msign` of the matrices of each leaf, with the work shared by the devices along mesh axes.

    Each device gets an equal number of the matrices of every shape, whole, by one all-to-all of one
    buffer, and sends the results back by another. Parameters that every device has need one
    all-gather of the results. Long matrices, cut along their long sides, stay where they are if
    that is cheaper: devices sum their Gram matrices instead.

    Args:
      leaves: parameters with at least one matrix each.
      numbers: their dimension numbers.
      recipe, eps: as in `msign_many`.
      distribute: a mesh axis, a sequence of them, or a `Distribution`. The mesh is that of
        `jax.set_mesh`. Where parameters lie otherwise than it says, XLA moves them first.

    Raises:
      ValueError: no mesh is set, or it lacks an axis.
    """
    shared: Any = distribute if isinstance(distribute, Distribution) else Distribution(distribute)
    axes, spec = (shared.axes,) if isinstance(shared.axes, str) else tuple(shared.axes), shared.spec
    mesh = _mesh(axes, leaves)
    sizes = tuple((axis, mesh.shape[axis]) for axis in axes)
    explicit = any(kind == AxisType.Explicit for kind in mesh.axis_types)
    specs = [
        _spec(leaf, entry, dict(sizes), None if explicit else spec, explicit) for leaf, entry in zip(leaves, numbers, strict=True)
    ]
    run = _on_mesh if any(map(is_tracer, leaves)) else _on_mesh_compiled
    return run(list(leaves), eps, tuple(numbers), tuple(specs), sizes, recipe, mesh)


def _on_mesh(
    leaves: list[jax.Array],
    eps: Scalar,
    numbers: tuple[MuonDimensionNumbers, ...],
    specs: tuple[PartitionSpec, ...],
    sizes: tuple[tuple[str, int], ...],
    recipe: Recipe,
    mesh: AbstractMesh,
) -> list[jax.Array]:
    before = [jax.typeof(leaf).sharding.spec for leaf in leaves]
    explicit = any(kind == AxisType.Explicit for kind in mesh.axis_types)
    if explicit:
        leaves = [jax.sharding.reshard(leaf, NamedSharding(mesh, spec)) for leaf, spec in zip(leaves, specs, strict=True)]

    def local(shards: list[jax.Array]) -> list[jax.Array]:
        return _local(shards, numbers, specs, dict(sizes), recipe, eps)

    names = {axis for axis, _ in sizes}
    out = list(specs)
    share = jax.shard_map(local, mesh=mesh, in_specs=(out,), out_specs=out, axis_names=names, check_vma=False)
    results = share(list(leaves))
    if not explicit:
        return results
    return [jax.sharding.reshard(x, NamedSharding(mesh, spec)) for x, spec in zip(results, before, strict=True)]


_on_mesh_compiled = jax.jit(_on_mesh, static_argnums=(2, 3, 4, 5, 6))


def mesh_of(leaves: Sequence[jax.Array]) -> AbstractMesh:
    """The mesh on which arrays lie, as their types or `jax.set_mesh` say; empty if neither does."""
    meshes = (jax.typeof(leaf).sharding.mesh for leaf in leaves)
    return next((mesh for mesh in meshes if not mesh.empty), jax.sharding.get_abstract_mesh())


def _mesh(axes: tuple[str, ...], leaves: Sequence[jax.Array]) -> AbstractMesh:
    mesh = mesh_of(leaves)
    if mesh.empty:
        raise checks.WrongValue(f"distribute is {axes!r}, but there is no mesh. Call it under jax.set_mesh(mesh).")
    for axis in axes:
        if axis not in mesh.axis_names:
            raise checks.WrongValue(f"distribute has the axis {axis!r}, expected one of the mesh's: {mesh.axis_names}.")
    return mesh


def _spec(
    leaf: jax.Array, numbers: MuonDimensionNumbers, sizes: dict[str, int], stated: PartitionSpec | None, explicit: bool
) -> PartitionSpec:
    """How a leaf lies on the axes: as its type or the user says, else cut along one axis."""
    batch, _, output = axes_of(numbers, leaf.ndim)
    uncut = output if numbers.output_blocks > 1 else ()  # a cut through the output would mix blocks
    stated = jax.typeof(leaf).sharding.spec if explicit else stated
    if stated is not None:
        kept = [tuple(name for name in _names(entry) if name in sizes) for entry in stated][: leaf.ndim]
        if not any(kept):
            return PartitionSpec()
        divides = all(size % math.prod(sizes[a] for a in names) == 0 for size, names in zip(leaf.shape, kept, strict=False))
        complete = sorted(name for names in kept for name in names) == sorted(sizes)
        mixed = any(kept[i] for i in batch if i < len(kept)) and any(names for i, names in enumerate(kept) if i not in batch)
        if complete and divides and not mixed and not any(kept[i] for i in uncut if i < len(kept)):
            return PartitionSpec(*[names or None for names in kept])
    total = math.prod(sizes.values())
    for i, size in enumerate(leaf.shape):
        if size % total == 0 and i not in uncut:
            return PartitionSpec(*[None] * i, tuple(sizes))
    return PartitionSpec()


def _names(entry: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _local(
    shards: list[jax.Array],
    numbers: Sequence[MuonDimensionNumbers],
    specs: Sequence[PartitionSpec],
    sizes: dict[str, int],
    recipe: Recipe,
    eps: Scalar,
) -> list[jax.Array]:
    """What one device does."""
    results: list[Leaf] = [None] * len(shards)
    cut, whole, alone, summed = [], [], [], []
    pieces = []
    for i, (shard, entry, spec) in enumerate(zip(shards, numbers, specs, strict=True)):
        batch, reduction, output = axes_of(entry, shard.ndim)
        names = [_names(spec[axis]) if axis < len(spec) else () for axis in range(shard.ndim)]
        rows, columns = (tuple(name for axis in side for name in names[axis]) for side in (reduction, output))
        pieces.append(_Piece(i, to_matrices(shard, entry), rows, columns))
        if any(names[axis] for axis in batch):
            alone.append(pieces[-1])
        elif rows or columns:
            cut.append(pieces[-1])
        else:
            whole.append(pieces[-1])
    devices = math.prod(sizes.values())
    counts = collections.Counter()
    for piece in cut:
        counts[_key(piece)] += piece.local.shape[0]
    for piece in list(cut):
        n, m = _full(piece, sizes)
        long_side = piece.columns if n <= m else piece.rows
        along = long_side and not (piece.rows and piece.columns)
        if along and summing_is_cheaper(counts[_key(piece)], n, m, devices, recipe, jax.sharding.get_abstract_mesh()):
            cut.remove(piece)
            summed.append(piece)
    for piece, sign in zip(alone, msign_many([p.local for p in alone], recipe, eps), strict=True):
        results[piece.leaf] = sign
    for piece in summed:
        results[piece.leaf] = gram_sum(piece.local, _full(piece, sizes), piece.rows or piece.columns, recipe, eps)
    for some in _rounds(cut, sizes):
        results = _exchanged(some, sizes, recipe, eps, results)
    for some in _rounds(whole, sizes):
        results = _gathered(some, sizes, recipe, eps, results)
    return [
        from_matrices(sign, entry, shard.shape).astype(shard.dtype)
        for sign, entry, shard in zip(results, numbers, shards, strict=True)
    ]


def _key(piece: _Piece) -> Hashable:
    return piece.local.shape[1:], piece.rows, piece.columns


def _full(piece: _Piece, sizes: dict[str, int]) -> tuple[int, int]:
    _, n, m = piece.local.shape
    return n * math.prod(sizes[a] for a in piece.rows), m * math.prod(sizes[a] for a in piece.columns)


def _rounds(pieces: list[_Piece], sizes: dict[str, int]) -> list[list[_Piece]]:
    """The pieces in runs whose whole matrices take at most `ROUND_ELEMENTS` on a device."""
    rounds: list[list[_Piece]] = []
    room = 0
    for piece in sorted(pieces, key=lambda p: str(_key(p))):
        if not rounds or room < piece.local.size:
            rounds.append([])
            room = ROUND_ELEMENTS
        rounds[-1].append(piece)
        room -= piece.local.size
    return rounds


def _groups(pieces: list[_Piece]) -> dict[Hashable, list[_Piece]]:
    groups: dict[Hashable, list[_Piece]] = collections.defaultdict(list)
    for piece in pieces:
        groups[_key(piece)].append(piece)
    return groups


def _stacked(group: list[_Piece], devices: int) -> jax.Array:
    """The matrices of a group as `(devices, share, rows, columns)`; zeros fill the last shares."""
    stack = jnp.concatenate([promote(piece.local) for piece in group])
    share = -(-stack.shape[0] // devices)
    stack = jnp.pad(stack, ((0, share * devices - stack.shape[0]), (0, 0), (0, 0)))
    return stack.reshape(devices, share, *stack.shape[1:])


def _to_pieces(group: list[_Piece], stack: jax.Array, results: list[Leaf]) -> list[Leaf]:
    start = 0
    for piece in group:
        results[piece.leaf] = stack[start : start + piece.local.shape[0]]
        start += piece.local.shape[0]
    return results


def _wire(stacks: list[jax.Array], recipe: Recipe) -> jax.Array:
    """One buffer `(devices, length)` of all stacks, in bfloat16 where products take it."""
    dtype = jnp.bfloat16 if recipe.method != "svd" and recipe.dtype == "bfloat16" else common_dtype(*stacks)
    return jnp.concatenate([stack.reshape(stack.shape[0], -1).astype(dtype) for stack in stacks], axis=1)


def _unwired(buffer: jax.Array, like: list[jax.Array]) -> list[jax.Array]:
    ends = [0]
    for stack in like:
        ends.append(ends[-1] + stack.size // stack.shape[0])
    return [buffer[:, a:b].reshape(stack.shape).astype(stack.dtype) for a, b, stack in zip(ends[:-1], ends[1:], like, strict=True)]


def _exchanged(pieces: list[_Piece], sizes: dict[str, int], recipe: Recipe, eps: Scalar, results: list[Leaf]) -> list[Leaf]:
    """Every device gets its share of whole matrices, and gives back the parts of their signs."""
    axes, devices = tuple(sizes), math.prod(sizes.values())
    groups = list(_groups(pieces).values())
    stacks = [_stacked(group, devices) for group in groups]
    # Row s of what is received: what device s has of my matrices.
    received = jax.lax.all_to_all(_wire(stacks, recipe), axes, 0, 0, tiled=True)
    mine = [_assembled(part, group[0], sizes) for part, group in zip(_unwired(received, stacks), groups, strict=True)]
    signs = msign_many(mine, recipe, eps)
    parts = [_taken_apart(sign, group[0], sizes) for sign, group in zip(signs, groups, strict=True)]
    back = jax.lax.all_to_all(_wire(parts, recipe), axes, 0, 0, tiled=True)
    for group, stack in zip(groups, _unwired(back, stacks), strict=True):
        results = _to_pieces(group, stack.reshape(-1, *stack.shape[2:]), results)
    return results


def _assembled(parts: jax.Array, piece: _Piece, sizes: dict[str, int]) -> jax.Array:
    """Parts of shape `(devices, share, rows, columns)` as `(share, all rows, all columns)`.

    Rows and columns are in an order of their own. `msign` commutes with permutations of rows and
    columns, so the order need only be the one that `_taken_apart` undoes.
    """
    axes = tuple(sizes)
    parts = parts.reshape(*sizes.values(), *parts.shape[1:])
    share, rows, columns = (len(axes) + i for i in range(3))
    order = (share, *(axes.index(a) for a in piece.rows), rows, *(axes.index(a) for a in piece.columns), columns)
    return parts.transpose(order).reshape(parts.shape[share], *_full(piece, sizes))


def _taken_apart(matrices: jax.Array, piece: _Piece, sizes: dict[str, int]) -> jax.Array:
    axes = tuple(sizes)
    n, m = piece.local.shape[1:]
    names = ["share", *piece.rows, "rows", *piece.columns, "columns"]
    shape = (len(matrices), *(sizes[a] for a in piece.rows), n, *(sizes[a] for a in piece.columns), m)
    order = [names.index(name) for name in (*axes, "share", "rows", "columns")]
    return matrices.reshape(shape).transpose(order).reshape(math.prod(sizes.values()), len(matrices), n, m)


def _gathered(pieces: list[_Piece], sizes: dict[str, int], recipe: Recipe, eps: Scalar, results: list[Leaf]) -> list[Leaf]:
    """Every device has all matrices, signs its share, and all gather the results."""
    axes, devices = tuple(sizes), math.prod(sizes.values())
    groups = list(_groups(pieces).values())
    stacks = [_stacked(group, devices) for group in groups]
    index = jax.lax.axis_index(axes)
    signs = msign_many([jax.lax.dynamic_index_in_dim(stack, index, keepdims=False) for stack in stacks], recipe, eps)
    everybody = jax.lax.all_gather(_wire([sign[None] for sign in signs], recipe), axes, axis=0, tiled=True)
    for group, stack in zip(groups, _unwired(everybody, stacks), strict=True):
        results = _to_pieces(group, stack.reshape(-1, *stack.shape[2:]), results)
    return results


def gram_sum(x: jax.Array, shape: tuple[int, int], over: tuple[str, ...], recipe: Recipe, eps: Scalar) -> jax.Array:
    """The local parts of the signs of `n x m` matrices cut along their long side.

    Devices sum `R = X X^H` over the mesh axes `over`.
    """
    n, m = shape

    def on(platform: str, x: jax.Array) -> jax.Array:
        plan = recipe.plan(n, m, x.dtype, platform)
        assert plan is not None
        return (newton_schulz_tall if n > m else newton_schulz)(x, plan, eps, over)

    return on_platform(on, promote(x))


FLOPS_A_BYTE = 2000
"""What a device multiplies and adds while a byte comes from another: 2e14 and 1e11 a second."""


def summing_is_cheaper(count: int, n: int, m: int, devices: int, recipe: Recipe, mesh: AbstractMesh) -> bool:
    """Whether devices better sum Gram matrices of `count` matrices than exchange whole ones."""
    n, m = sorted((n, m))
    device = mesh.abstract_device
    plan = recipe.plan(n, m, jnp.float32, "tpu" if device is None else device.platform)
    if plan is None or n == 1 or devices == 1:
        return False
    product = 2 * n**3
    whole = -(-count // devices) * products(plan.segments, m / n) * product
    whole += 2 * 2 * 4 * count * n * m / devices * FLOPS_A_BYTE  # there and back; packing costs as much
    summed = count * products(plan.segments, m / n / devices) * product
    return summed + count * len(plan.segments) * 2 * 4 * n * n * FLOPS_A_BYTE < whole
