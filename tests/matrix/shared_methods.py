"""Runs methods of stacks on 8 host devices, and prints what was measured as JSON; `test_shared_methods.py` asserts it."""

import json
import os
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))
os.environ["NPROC"] = "16"  # threads: devices of the host wait for each other, in more than one group at a time

import jax
import jax.numpy as jnp
import numpy as np
from distributed_muon import collectives
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx

PARTS = gradtx.matrix_axes({"w0": gradtx.MuonDimensionNumbers(0, 1, (20, 8, 4)), "w1": gradtx.MuonDimensionNumbers(0, 1, 1, 2)})
METHODS = {
    "scion": lambda: gradtx.scion(0.1, balls=gradtx.norm_balls({"bias": gradtx.NormBall("rms", 2.0)}, radius=2.0)),
    "adamuon": lambda: gradtx.adamuon(0.1),
    "shampoo": lambda: gradtx.shampoo(0.1, b2=0.9, eps=0.1, frequency=2, start=1),
    "kron": lambda: gradtx.kron(0.1, preconditioner_update_probability=0.5),
    "dion2": lambda: gradtx.dion2(0.1),
    "parts": lambda: gradtx.muon(0.1, muon_weight_dimension_numbers=PARTS),
}
STACKED = ("shampoo", "kron")
LAYOUTS = (("rows", 8), ("both", 3), ("replicated", 8))  # how parameters lie, and how many matrices there are


def normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(jax.random.normal(jax.random.key(seed), shape))


def matrices(depth: int) -> dict[str, Any]:
    params = {f"w{i}": normal(i, (16, 32)) for i in range(depth)}
    return params | {"bias": normal(9, (16,))}


def spec(x: Any, layout: str) -> P:
    if layout == "replicated":
        return P()
    return P("y", "x") if layout == "both" and x.ndim == 2 else P(("x", "y"))


def far(one: Any, other: Any) -> float:
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.max(np.abs(np.asarray(a) - np.asarray(b)))), one, other)))


def after(tx: Any, params: Any, state: Any, update: Any, times: int = 3) -> Any:
    """The parameters after some steps down `sum(cosh(p))`."""
    for _ in range(times):
        params, state = update(params, state)
    return jax.device_get(params), state


def step_of(tx: Any) -> Any:
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(jax.tree.map(jnp.sinh, params), state, params)
        return gradtx.apply_updates(params, updates), state

    return step


def measured(tx: Any, params: Any, kind: AxisType, layout: str, expected: Any) -> dict[str, Any]:
    """Three steps on 8 devices, and how far they end from one device's."""
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind,) * 2)
    with jax.set_mesh(mesh):
        placed = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, spec(x, layout))), params)
        state = gradtx.init_sharded(tx, placed)
        same = jax.tree.map(lambda x: x.sharding, (placed, state))
        step = jax.jit(step_of(tx), out_shardings=same if kind == AxisType.Auto else None).lower(placed, state).compile()
        found, last = after(tx, placed, state, step)
    kept = [a.sharding.is_equivalent_to(b.sharding, a.ndim) for a, b in zip(*map(jax.tree.leaves, (last, state)), strict=True)]
    sizes = {k: len(v) for k, v in collectives(step.as_text() or "").items()}
    share = (
        max(x.addressable_shards[0].data.size / x.size for x in stacks)
        if (stacks := [x for x in jax.tree.leaves(state) if x.ndim == 3 and len(x) > 1])
        else 1.0
    )
    return {"error": far(found, expected), "kept": all(kept), "collectives": sizes, "share": share}


def main() -> None:
    out: dict[str, Any] = {}
    for name, make in METHODS.items():
        for layout, depth in LAYOUTS if name in STACKED else LAYOUTS[: 2 if name == "parts" else 1]:
            tx, params = make(), matrices(depth)
            expected, _ = after(tx, params, tx.init(params), jax.jit(step_of(tx)))
            for kind in (AxisType.Auto, AxisType.Explicit):
                out[f"{name}, {layout}, {kind.name}"] = measured(tx, params, kind, layout, expected)
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
