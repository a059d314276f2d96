"""What methods that share their work over a mesh ask of it: its axes, and a way to leave them."""

import math
from collections.abc import Callable, Sequence

import jax
from jax.sharding import AbstractMesh, AxisType

from gradtx.core.types import Leaf, Tree
from gradtx.matrix.distribute import mesh_of


def mesh_and_kind(leaves: Sequence[Leaf]) -> tuple[AbstractMesh, AxisType | None]:
    """The mesh that arrays are on, and the kind of its axes; None where nothing is to be shared."""
    mesh = mesh_of(leaves)
    kinds = set(mesh.axis_types) if math.prod(mesh.axis_sizes) > 1 else set()
    return mesh, kinds.pop() if len(kinds) == 1 and kinds != {AxisType.Manual} else None


def working_axes(mesh: AbstractMesh) -> tuple[str, ...]:
    """Mesh axes to share work along; the last, innermost where several cut one array, first."""
    return tuple(axis for axis in reversed(mesh.axis_names) if mesh.shape[axis] > 1)


def on_automatic_axes(step: Callable[..., Tree], leaves: Sequence[Leaf], out_like: Tree, *args: Tree) -> Tree:
    """`step(*args)` where mesh axes are automatic; with explicit ones results lie as `out_like`."""
    mesh, kind = mesh_and_kind(leaves)
    if kind != AxisType.Explicit:
        return step(*args)
    where = jax.tree.map(lambda x: jax.typeof(x).sharding.spec, out_like)  # a count may be on no mesh
    return jax.sharding.auto_axes(step, axes=mesh.axis_names, out_sharding=where)(*args)
