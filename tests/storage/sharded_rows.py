"""Runs rows on 8 host devices, sharded and not, for 50 steps; prints what went wrong, as JSON: `test_sharding.py` reads it.

python sharded_rows.py fsdp,tensor,grid,zero1 auto,explicit [row,row,...]
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax

if jax.__version_info__ < (0, 11):  # XLA ends at a flag that it does not know; on a busy machine 8 devices wait for 2 cores
    os.environ["XLA_FLAGS"] += " --xla_cpu_collective_call_terminate_timeout_seconds=600"

import jax.numpy as jnp
import numpy as np
from case import objective
from cases import CASES, Case
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx

jax.config.update("jax_disable_most_optimizations", True)  # it compiles much and computes little
STEPS = int(os.environ.get("STEPS", "50"))
PARAMS = {
    "bias": np.linspace(0.9, -0.7, 16, dtype=np.float32),
    "kernel": np.random.default_rng(0).normal(0.3, 0.5, (8, 16)).astype(np.float32),  # of full rank, for matrix signs
    "scalar": np.float32(0.3),
}
MESHES: dict[str, tuple[tuple[int, ...], tuple[str, ...], dict[str, P]]] = {
    "fsdp": ((8,), ("data",), {"bias": P("data"), "kernel": P("data"), "scalar": P()}),
    "tensor": ((8,), ("model",), {"bias": P("model"), "kernel": P(None, "model"), "scalar": P()}),
    "zero1": ((8,), ("data",), {"bias": P(), "kernel": P(), "scalar": P()}),
    "grid": ((4, 2), ("data", "model"), {"bias": P("model"), "kernel": P("data", "model"), "scalar": P()}),
}


RATES = {"centralize": -0.1, "galore": 0.1}
"""Of links that make parameters grow without end, where elements near 0 would be rounding errors of the others; and of a basis that
is found anew from gradients near 0."""
SUMS = {"prodigy": "grad_sum"}
"""Fields whose elements are sums over steps of large numbers of both signs: off by a part of the largest element."""


def trained(tx: Any, case: Case, params: Any, state: Any, rate: float = 1.0, **shardings: Any) -> tuple[Any, Any, int]:
    """Parameters and state after the steps, and how often the step was traced."""
    traces = []

    def step(params: Any, state: Any) -> Any:
        traces.append(1)
        updates, state = tx.update(params, state, params, **case.extra_for(params))
        return gradtx.apply_updates(params, jax.tree.map(lambda u: rate * u, updates)), state

    compiled = jax.jit(step, donate_argnums=(0, 1), **shardings)
    # Alone, without a rate, a link that multiplies rounding errors grows them with the parameters.
    for _ in range(1 if "rounding" in case.exceptions else STEPS):
        params, state = jax.block_until_ready(compiled(params, state))  # more in flight than cores wait for each other
    return params, state, len(traces)


def numbers(tree: Any) -> list[np.ndarray]:
    leaves = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in jax.tree.leaves(tree)]
    return [np.asarray(x, np.float64) for x in leaves]


def moved(before: Any, after: Any) -> Iterator[str]:
    """Arrays that do not lie as they did."""
    for (path, x), sharding in zip(jax.tree.leaves_with_path(after), before, strict=True):
        if not x.sharding.is_equivalent_to(sharding, x.ndim):
            yield f"{jax.tree_util.keystr(path)}: {sharding.spec} -> {x.sharding.spec}"


def on_device_0(tree: Any) -> int:
    return sum(s.data.nbytes for x in jax.tree.leaves(tree) for s in x.addressable_shards if s.device == jax.devices()[0])


def faults(name: str, mesh_name: str, kind: str, expected: Any) -> Iterator[str]:
    case = CASES[name]
    sizes, names, specs = MESHES[mesh_name]
    mesh = jax.make_mesh(sizes, names, axis_types=({"auto": AxisType.Auto, "explicit": AxisType.Explicit}[kind],) * len(sizes))
    where = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    with jax.set_mesh(mesh):
        params = {name: jax.device_put(x, where[name]) for name, x in PARAMS.items()}
        tx = gradtx.zero1(case.make(), "data") if mesh_name == "zero1" else case.make()
        lies = gradtx.state_sharding(tx, params)
        state = gradtx.init_sharded(tx, params)
        yield from moved(jax.tree.leaves(lies), state)
        large = [x for x in jax.tree.leaves(state) if x.size >= 128 and x.shape[-2:] == (8, 16)]
        if on_device_0(large) * 8 > sum(x.nbytes for x in large):
            yield f"{on_device_0(large)} bytes of {sum(x.nbytes for x in large)} on device 0"
        out = {"out_shardings": (where, lies)} if kind == "auto" and mesh_name != "zero1" else {}
        params, state, traces = trained(tx, case, params, state, rate=RATES.get(name, 1.0), **out)
        yield from moved([*where.values(), *jax.tree.leaves(lies)], (params, state))
        if traces != 1:
            yield f"{traces} traces"
    found: Any = (params, state)
    if case.extra is objective:  # a search is at the minimum at once: what it remembers of later steps are rounding errors
        found, expected = params, expected[0]
    paths = [jax.tree_util.keystr(keys) for keys, _ in jax.tree.leaves_with_path(found)]
    rows = list(zip(paths, numbers(found), numbers(expected), strict=True))
    largest = max((np.max(abs(y)) for path, _, y in rows if SUMS.get(name, " ") in path), default=1)
    for path, x, y in rows:
        size = np.maximum(abs(y), largest if SUMS.get(name, " ") in path else 1)
        with np.errstate(invalid="ignore"):  # some links alone grow without end
            off = np.max(np.where((x == y) | np.isnan(x + y), np.isnan(x) != np.isnan(y), abs(x - y) / size), initial=0)
        if not off <= 1e-5:
            yield f"{path} is off by {off:.1e}"


def main(meshes: str, kinds: str, rows: str | None) -> None:
    found = {}
    for name in rows.split(",") if rows else CASES:
        params, tx = jax.tree.map(jnp.asarray, PARAMS), CASES[name].make()
        expected = trained(tx, CASES[name], params, tx.init(params), rate=RATES.get(name, 1.0))[:2]
        for mesh in meshes.split(","):
            for kind in kinds.split(","):
                try:
                    found[f"{name} {mesh} {kind}"] = list(faults(name, mesh, kind, expected))
                except Exception as error:
                    found[f"{name} {mesh} {kind}"] = [f"{type(error).__name__}: {str(error)[:500]}"]
                print(name, mesh, kind, found[f"{name} {mesh} {kind}"], file=sys.stderr, flush=True)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
