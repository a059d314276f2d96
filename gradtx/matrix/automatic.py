"""Matrix signs of parameters on automatic mesh axes: every device works on its share of them.

How parameters lie on automatic axes, JAX does not know when it traces a program. So matrices are
stacked, and a constraint says that the stack lies with its matrices apart, each whole on a device.
XLA, which knows how the stack lay before, then moves it by an all-to-all for each mesh axis.
"""

import collections
import math
import re
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from gradtx.core.numerics import is_tracer
from gradtx.core.types import DType, Leaf, Scalar
from gradtx.linalg.msign import Recipe
from gradtx.linalg.msign_many import msign_many
from gradtx.matrix.dimensions import MuonDimensionNumbers, axes_of, fan, from_matrices, to_matrices
from gradtx.matrix.distribute import ROUND_ELEMENTS, gram_sum, summing_is_cheaper

ANY = PartitionSpec.UNCONSTRAINED
OUT = re.compile(r"(w?o|out|output|c)(_?proj(ection)?)?|proj(ection)?", re.IGNORECASE)
"""Names of square matrices that lead out of a block: tensor parallelism cuts their inputs."""


class Share(NamedTuple):
    """The mesh, and those of its axes along which devices share the work."""

    mesh: AbstractMesh
    axes: tuple[str, ...]

    @property
    def devices(self) -> int:
        """How many devices share the work."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes)

    def lying(self, x: jax.Array, *spec: Leaf) -> jax.Array:
        """`x` as it lies by a spec."""
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(*spec)))

    def cut(self, x: jax.Array, axis: int, axes: tuple[str, ...]) -> jax.Array:
        """`x` with one axis cut along mesh axes, and no other axis cut.

        One mesh axis at a time: for two at once XLA gathers all of `x` on every device.
        """
        for end in range(1, len(axes) + 1):
            spec: list[Leaf] = [ANY if end < len(axes) else None] * x.ndim
            spec[axis] = axes[:end]
            x = self.lying(x, *spec)
        return x

    def joined(self, x: jax.Array, axis: int, axes: tuple[str, ...]) -> jax.Array:
        """`x` with one axis no longer cut along mesh axes, and the others as XLA finds best."""
        for end in range(len(axes) - 1, -1, -1):
            spec: list[Leaf] = [ANY] * x.ndim
            spec[axis] = axes[:end] or None
            x = self.lying(x, *spec)
        return x


class _Task(NamedTuple):
    """What devices have to do with one array.

    Attributes:
      array: it lies as `spec` says.
      spec: such that every device has whole matrices, or parts along their long sides.
      signs: from what one device has of the array to the same of the signs.
      results: from the array of the signs to the leaves in it, by their indices.
    """

    array: jax.Array
    spec: PartitionSpec
    signs: Callable[[jax.Array], jax.Array]
    results: Callable[[jax.Array], dict[int, jax.Array]]


class _Matrix(NamedTuple):
    """A leaf that is one matrix.

    Attributes:
      index: which leaf it is.
      leaf: the leaf.
      numbers: its dimension numbers.
      role: its path without numbers: equal roles, in other layers, lie alike.
      turned: whether its transpose takes part.
    """

    index: int
    leaf: jax.Array
    numbers: MuonDimensionNumbers
    role: str
    turned: bool

    def result(self, sign: jax.Array) -> dict[int, jax.Array]:
        """The leaf of a sign."""
        return {self.index: from_matrices(sign, self.numbers._replace(output_blocks=1), self.leaf.shape)}


class _Work(NamedTuple):
    """How to work, and where."""

    recipe: Recipe
    eps: Scalar
    share: Share

    def several(self, index: int, leaf: jax.Array, numbers: MuonDimensionNumbers) -> _Task:
        """A leaf that is a batch of matrices."""
        axes, devices = self.share.axes, self.share.devices
        batch, _, _ = axes_of(numbers, leaf.ndim)
        axis = next((i for i in reversed(batch) if leaf.shape[i] % devices == 0), None)
        if axis is None:
            task, joined, _ = self.spread(to_matrices(leaf, numbers._replace(output_blocks=1)), numbers.output_blocks, 0)

            def results(x: jax.Array) -> dict[int, jax.Array]:
                sign = from_matrices(joined(x), numbers._replace(output_blocks=1), leaf.shape)
                return {index: sign}

            return task._replace(results=results)

        def signs(x: jax.Array) -> jax.Array:
            (sign,) = msign_many([to_matrices(x, numbers)], self.recipe, self.eps)
            return from_matrices(sign, numbers, x.shape)

        def divided(x: jax.Array) -> dict[int, jax.Array]:
            return {index: self.share.joined(x, axis, axes)}

        return _Task(self.share.cut(leaf, axis, axes), PartitionSpec(*[None] * axis, axes), signs, divided)

    def stacked(self, members: list[_Matrix], first: int) -> tuple[_Task, int]:
        """Matrices of one shape; the first device to work on them, and after the last."""
        blocks = members[0].numbers.output_blocks
        roles: dict[Hashable, list[_Matrix]] = collections.defaultdict(list)
        for one in members:
            roles[one.role, one.turned].append(one)
        stacks = [self.share.lying(jnp.stack([_matrix(one) for one in same]), None, ANY, ANY) for same in roles.values()]
        together = jnp.concatenate([_turned(x, same[0]) for x, same in zip(stacks, roles.values(), strict=True)])
        task, joined, last = self.spread(together, blocks, first)

        def results(x: jax.Array) -> dict[int, jax.Array]:
            found: dict[int, jax.Array] = {}
            parts = jnp.split(joined(x), np.cumsum([len(same) for same in roles.values()])[:-1])
            for same, part in zip(roles.values(), parts, strict=True):
                for one, sign in zip(same, _turned(part, same[0]), strict=True):
                    found |= one.result(sign)
            return found

        return task._replace(results=results), last

    def spread(self, stack: jax.Array, blocks: int, first: int) -> tuple[_Task, Callable[[jax.Array], jax.Array], int]:
        """A stack of matrices over devices from `first` on, or from 0 on if too few are left."""
        axes, devices, count = self.share.axes, self.share.devices, stack.shape[0]
        each = -(-count // devices)
        busy = -(-count // each)
        first = first if first + busy <= devices else 0
        low = self.recipe.method != "svd" and self.recipe.dtype == "bfloat16"
        wire = stack.astype(jnp.bfloat16) if low else stack
        start = first * each
        padded = self.share.lying(jnp.pad(wire, ((start, devices * each - start - count), (0, 0), (0, 0))), None, ANY, ANY)

        def run(x: jax.Array) -> jax.Array:
            numbers = MuonDimensionNumbers(1, 2, blocks)
            (sign,) = msign_many([to_matrices(x, numbers)], self.recipe, self.eps)
            return from_matrices(sign, numbers, x.shape)

        def signs(x: jax.Array) -> jax.Array:
            if busy == devices:
                return run(x)
            index = jax.lax.axis_index(axes)
            return jax.lax.cond((index >= first) & (index < first + busy), run, jnp.zeros_like, x)

        def joined(x: jax.Array) -> jax.Array:
            return self.share.joined(x, 0, axes)[start : start + count].astype(stack.dtype)

        return _Task(self.share.cut(padded, 0, axes), PartitionSpec(axes), signs, lambda x: {}), joined, first + busy

    def summed(self, one: _Matrix) -> _Task:
        """A matrix that stays cut along its long side: devices sum its Gram matrices."""
        axes = self.share.axes
        x = _turned(_matrix(one), one)
        n, m = x.shape
        padded = jnp.pad(x, ((0, 0), (0, -m % self.share.devices)))

        def results(y: jax.Array) -> dict[int, jax.Array]:
            return one.result(_turned(self.share.joined(y, 1, axes)[:, :m], one))

        def signs(x: jax.Array) -> jax.Array:
            return gram_sum(x, (n, m), axes, self.recipe, self.eps)

        return _Task(self.share.cut(padded, 1, axes), PartitionSpec(None, axes), signs, results)


def _matrix(one: _Matrix) -> jax.Array:
    return to_matrices(one.leaf, one.numbers._replace(output_blocks=1))[0]


def _turned(x: jax.Array, one: _Matrix) -> jax.Array:
    return x.swapaxes(-2, -1) if one.turned else x


def shared_msign(
    leaves: Sequence[jax.Array],
    numbers: Sequence[MuonDimensionNumbers],
    paths: Sequence[tuple[str, ...]],
    recipe: Recipe,
    eps: Scalar,
    mesh: AbstractMesh,
) -> list[jax.Array]:
    """`msign` of the matrices of each leaf, with the work shared by the devices of a mesh.

    Leaves whose paths differ only in numbers are expected to lie alike; where they do not, XLA
    moves some of them once more.

    Args:
      leaves: parameters with at least one matrix each.
      numbers: their dimension numbers.
      paths: where they are in their tree.
      recipe, eps: as in `msign_many`.
      mesh: its axes are automatic. All of its devices share the work.
    """
    # The last mesh axis moves first: where several cut one axis of an array, it is the innermost.
    axes = tuple(axis for axis in reversed(mesh.axis_names) if mesh.shape[axis] > 1)
    run = _shared if any(map(is_tracer, leaves)) else _shared_compiled
    return run(list(leaves), eps, tuple(numbers), tuple(paths), recipe, Share(mesh, axes))


def _shared(
    leaves: list[jax.Array],
    eps: Scalar,
    numbers: tuple[MuonDimensionNumbers, ...],
    paths: tuple[tuple[str, ...], ...],
    recipe: Recipe,
    share: Share,
) -> list[jax.Array]:
    work = _Work(recipe, eps, share)
    tasks: list[_Task] = []
    groups: dict[tuple[int, int, int, bool, DType], list[_Matrix]] = collections.defaultdict(list)
    for i, (leaf, entry, path) in enumerate(zip(leaves, numbers, paths, strict=True)):
        n, m = fan(entry, leaf.shape)
        if leaf.size > n * m * entry.output_blocks:
            tasks.append(work.several(i, leaf, entry))
            continue
        turned = entry.output_blocks == 1 and (n > m or (n == m and any(map(OUT.fullmatch, path))))
        one = _Matrix(i, leaf, entry, re.sub(r"\d+", "#", "/".join(path)), turned)
        groups[min(n, m), max(n, m), entry.output_blocks, n <= m or turned, leaf.dtype].append(one)
    first = 0
    for (n, m, blocks, *_), members in groups.items():
        if blocks == 1 and summing_is_cheaper(len(members), n, m, share.devices, recipe, share.mesh):
            tasks += map(work.summed, members)
            continue
        most = max(share.devices, share.devices * ROUND_ELEMENTS // (n * m * blocks))
        for start in range(0, len(members), most):
            task, first = work.stacked(members[start : start + most], first)
            tasks.append(task)

    def local(arrays: list[jax.Array]) -> list[jax.Array]:
        return [task.signs(x) for task, x in zip(tasks, arrays, strict=True)]

    specs = [task.spec for task in tasks]
    names = set(share.mesh.axis_names)
    run = jax.shard_map(local, mesh=share.mesh, in_specs=(specs,), out_specs=specs, axis_names=names, check_vma=False)
    found: dict[int, jax.Array] = {}
    for task, signs in zip(tasks, run([task.array for task in tasks]), strict=True):
        found |= task.results(signs)
    # A NaN makes its whole sign NaN: this changes nothing, but XLA lets results lie as leaves do.
    return [jnp.where(jnp.isnan(leaf), leaf, found[i].astype(leaf.dtype)) for i, leaf in enumerate(leaves)]


_shared_compiled = jax.jit(_shared, static_argnums=(2, 3, 4, 5))
