"""What one update costs on each device, from the program that XLA compiles; nothing runs."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gradtx.compose.labels import spread
from gradtx.core import checks
from gradtx.core.apply import apply_updates
from gradtx.core.checked import checked
from gradtx.core.pairs import Inner, as_transformation
from gradtx.core.trees import check_no_module
from gradtx.core.types import ExtraArg, Json, Params, State, Tree
from gradtx.diagnostics.hlo import cost
from gradtx.storage.sharding import mesh_of, state_shapes


class Collective(NamedTuple):
    """How often a kind of collective runs, and how many bytes a device takes part with in all."""

    number: int
    nbytes: float


class StepCost(NamedTuple):
    """What one update costs on each device. Prints as a table.

    Attributes:
      name: the transformation, as it prints.
      devices: how many share the work.
      parameters: numbers in the parameters.
      held: how many of them a device has.
      flops: operations of floating-point arithmetic, as XLA counts them; loops count once.
      traffic: bytes that instructions read from and write to main memory. What loops repeat counts
        as often; of a conditional the branch that moves most.
      arguments: bytes of parameters, state and gradients on a device.
      temporary: bytes that the program needs besides.
      collectives: by kind, such as `all-reduce`.
    """

    name: str
    devices: int
    parameters: int
    held: int
    flops: float
    traffic: float
    arguments: int
    temporary: int
    collectives: dict[str, Collective]

    def as_dict(self) -> dict[str, Json]:
        """The numbers for JSON."""
        return {**self._asdict(), "collectives": {kind: one._asdict() for kind, one in self.collectives.items()}}

    def __str__(self) -> str:
        each = self.held or math.nan
        rows = [
            ("arithmetic", f"{_short(self.flops)}flop", f"{self.flops / each:.3g} a parameter"),
            ("memory traffic", f"{_short(self.traffic)}B", f"{self.traffic / each:.3g} a parameter"),
            ("parameters, state, gradients", f"{_short(self.arguments)}B", f"{self.arguments / each:.3g} a parameter"),
            ("temporary memory", f"{_short(self.temporary)}B", f"{self.temporary / each:.3g} a parameter"),
        ]
        rows += [(kind, f"{_short(one.nbytes)}B", f"in {one.number}") for kind, one in sorted(self.collectives.items())]
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        where = f" on each of {self.devices:,} devices, which holds {self.held:,}" if self.devices > 1 else ""
        title = f"one update of {self.parameters:,} parameters{where}: {self.name}"
        return "\n".join([title, *(f"{a.ljust(widths[0])}  {b.rjust(widths[1])}  {c}" for a, b, c in rows)])

    __repr__ = __str__


@checked
def step_cost(
    tx: Inner, params: Params, shardings: Tree | None = None, topology: str | None = None, **extra_args: ExtraArg
) -> StepCost:
    """What one update and `apply_updates` cost on each device, from the program of XLA.

    The program is compiled, not run, and nothing is allocated: `params` may be shapes. Parameters
    and state are donated, gradients lie as parameters.

    Args:
      tx: any transformation.
      params: the parameters, or their shapes.
      shardings: a `NamedSharding` for each parameter, or one for all below; the state lies as
        `state_sharding` says. For devices that are not here, on an `AbstractMesh` of their axes.
        None: one device.
      topology: TPUs to compile for, such as 'v5e:2x4' or 'v5e:16x16', which need not be here;
        libtpu does it (`pip install 'gradtx[tpu]'`). None: the devices here.
      **extra_args: extra arguments of the update.

    Returns:
      A `StepCost`: numbers, and a table as text.

    Raises:
      TypeError: a parameter has no `NamedSharding`.
      ValueError: the mesh has more devices than there are; libtpu is missing, or does not know the
        topology.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> cost = gradtx.step_cost(gradtx.sgd(0.1, momentum=0.9), {"w": jnp.zeros((64, 1024))})
      >>> cost.arguments // 65536, cost.collectives
      (12, {})
    """
    tx = as_transformation(tx)
    check_no_module(params)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), jax.numpy.result_type(x)), params)
    shapes, mesh = _placed(shapes, shardings, topology)
    state = state_shapes(tx, shapes)

    def step(params: Params, state: State, grads: Tree) -> tuple[Params, State]:
        with mesh_of(shapes):
            updates, state = tx.update(grads, state, params, **extra_args)
            return apply_updates(params, updates), state

    where = jax.tree.map(lambda x: x.sharding, (shapes, state))
    program = jax.jit(step, donate_argnums=(0, 1), out_shardings=where).lower(shapes, state, shapes).compile()
    found, memory = cost(program.as_text() or ""), program.memory_analysis()
    assert memory is not None
    return StepCost(
        name=repr(tx),
        devices=mesh.size,
        parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)),
        held=sum(math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(shapes)),
        flops=(program.cost_analysis() or {}).get("flops", math.nan),
        traffic=found.hbm,
        arguments=memory.argument_size_in_bytes,
        temporary=memory.temp_size_in_bytes,
        collectives={kind: Collective(number, found.moved[kind]) for kind, number in found.number.items()},
    )


def _like(tree: Tree, shardings: Tree) -> Tree:
    """Shapes with shardings."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def _placed(shapes: Params, shardings: Tree | None, topology: str | None) -> tuple[Params, Mesh]:
    """The shapes of the parameters with their shardings, on a mesh of devices."""
    devices = jax.devices() if topology is None else _devices(topology)
    if shardings is None:
        mesh = Mesh(np.array(devices[:1]), ("device",))
        return _like(shapes, jax.tree.map(lambda x: NamedSharding(mesh, PartitionSpec()), shapes)), mesh
    found = spread("shardings", shardings, shapes)
    if not found or not all(isinstance(x, NamedSharding) for x in found):
        raise checks.WrongType("shardings has an entry that is no NamedSharding, expected one for each parameter, or one for all.")
    given = found[0].mesh
    if topology is None and isinstance(given, Mesh):
        mesh = given
    else:
        if given.size > len(devices):
            what = f"the topology {topology!r} has" if topology else "there are"
            hint = "" if topology else " topology='v5e:16x16' compiles for TPUs that are not here."
            raise checks.WrongValue(f"the mesh of shardings has {given.size} devices, but {what} {len(devices)}.{hint}")
        grid = np.array(devices[: given.size]).reshape(given.axis_sizes)
        mesh = Mesh(grid, given.axis_names, axis_types=given.axis_types)
    placed = [NamedSharding(mesh, x.spec) for x in found]
    return _like(shapes, jax.tree.structure(shapes).unflatten(placed)), mesh


def _devices(topology: str) -> Any:
    """The devices of a TPU slice, which need not be here."""
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # whatever libtpu, or its absence, raises
        raise checks.WrongValue(
            f"topology is {topology!r}, for which nothing can be compiled here: {error}. It needs libtpu "
            "(pip install 'gradtx[tpu]') and a name such as 'v5e:2x4'."
        ) from error


def _short(number: float) -> str:
    """A number with a unit of thousands."""
    for unit in ("", "k", "M", "G"):
        if abs(number) < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} T"
