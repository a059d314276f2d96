"""Runs Muon on automatic axes of 8 host devices without an argument, and prints what was measured as JSON; `test_automatic.py` asserts it."""

import contextlib
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
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx.matrix import automatic

RULES = gradtx.matrix_axes(
    {
        "table": "muon",
        "scanned": gradtx.MuonDimensionNumbers(1, 2),
        "experts": gradtx.MuonDimensionNumbers(2, 3),
        "odd": "muon",
    }
)


def normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(jax.random.normal(jax.random.key(seed), shape))


def blocks(d: int = 32, depth: int = 3) -> dict[str, Any]:
    shapes = dict.fromkeys(("query", "key", "value", "out"), (d, d)) | {"up": (d, 4 * d), "down": (4 * d, d)}
    return {f"layer{i}": {name: normal(6 * i + k, s) for k, (name, s) in enumerate(shapes.items())} for i in range(depth)}


def others() -> dict[str, Any]:
    shapes = {"table": (2000, 16), "scanned": (12, 16, 32), "experts": (3, 16, 8, 8), "odd": (5, 7)}
    shapes |= {"c_attn": (16, 48), "conv": (3, 3, 8, 16), "bias": (16,)}
    return {name: normal(100 + i, shape) for i, (name, shape) in enumerate(shapes.items())}


def spec(layout: str, path: Any, x: Any) -> P:
    """Where the two last axes lie; of tensor parallelism as its matrices are multiplied."""
    if x.ndim < 2 or layout == "replicated" or x.shape[-1] % 2:
        return P()
    sides = (-2, -1) if path[-1].key in ("out", "down", "table") else (-1, -2)
    axes: list[Any] = [None] * x.ndim
    if layout == "rows":
        axes[-2] = ("x", "y")
    if layout in ("tensor", "both"):
        axes[sides[0]] = "y"
    if layout == "both":
        axes[sides[1]] = "x"
    return P(*axes)


def placed(params: Any, shape: tuple[int, int], layout: str) -> tuple[Any, Mesh]:
    mesh = Mesh(np.array(jax.devices()).reshape(shape), ("x", "y"))
    place = jax.tree_util.tree_map_with_path
    return place(lambda path, x: jax.device_put(x, NamedSharding(mesh, spec(layout, path, x))), params), mesh


def links(rules: Any = None, **arguments: Any) -> Any:
    return gradtx.chain(gradtx.trace(0.9), gradtx.orthogonalize(**arguments, weight_dimension_numbers=rules))


def far(one: Any, other: Any) -> float:
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.max(np.abs(np.asarray(a) - np.asarray(b)))), one, other)))


def measured(params: Any, shape: tuple[int, int], layout: str, tx: Any, *, known: bool = False) -> dict[str, Any]:
    """Two steps, and how far they are from one device's; `known`: under `set_mesh`, and places of results are stated."""

    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(params, state, params)
        return gradtx.apply_updates(params, updates), state

    def twice(run: Any, params: Any) -> Any:
        return run(*run(params, tx.init(params)))[0]

    expected = twice(jax.jit(step), params)
    there, mesh = placed(params, shape, layout)
    places = (jax.tree.map(lambda x: x.sharding, there), None) if known else None
    with jax.set_mesh(mesh) if known else contextlib.nullcontext():
        run = jax.jit(step, out_shardings=places)
        found = twice(run, there)
        text = run.lower(there, tx.init(there)).compile().as_text()
    kept = all(jax.tree.leaves(jax.tree.map(lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim), found, there)))
    return {"error": far(found, expected), "kept": kept, "collectives": collectives(text)}


def modes(params: Any, there: Any, tx: Any) -> dict[str, float]:
    """How far transformations of an update are from one device's."""

    def update(params: Any) -> Any:
        return tx.update(params, tx.init(params), params)[0]

    def loss(params: Any) -> jax.Array:
        return sum((jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(update(params))), start=jnp.zeros(()))

    def two(params: Any) -> Any:
        return jax.vmap(lambda scale: update(jax.tree.map(lambda x: x + scale * jnp.cos(x), params)))(jnp.array([0.5, 1.0]))

    def step(params: Any, _: None) -> Any:
        return gradtx.apply_updates(params, update(params)), None

    functions = {
        "eager": update,
        "vmap": jax.jit(two),
        "grad": jax.jit(jax.grad(loss)),
        "jvp": jax.jit(lambda p: jax.jvp(update, (p,), (p,))),
        "scan": jax.jit(lambda p: jax.lax.scan(step, p, None, 2)[0]),
    }
    return {name: far(run(there), run(params)) for name, run in functions.items()}


def main(every: bool) -> None:
    out: dict[str, Any] = {}
    tx, many = links(), blocks()
    for layout, shape in {"rows": (8, 1), "tensor": (1, 8), "both": (2, 4), "replicated": (8, 1)}.items():
        out[f"blocks, {layout}"] = measured(many, shape, layout, tx)
        if every or layout == "both":
            out[f"others, {layout}"] = measured(others(), shape, layout, links(RULES), known=True)
    out["bfloat16"] = measured(many, (2, 4), "both", links(dtype="bfloat16"))
    if every:
        out["rows of two axes"] = measured(many, (2, 4), "rows", tx)
        out["half replicated"] = measured(many, (2, 4), "tensor", tx)
        out["svd"] = measured(many, (2, 4), "both", links(method="svd"))
        automatic.ROUND_ELEMENTS = 100
        out["rounds"] = measured(many, (8, 1), "rows", tx)
        automatic.ROUND_ELEMENTS = 2**27
    few = blocks(16, 1) | {"table": normal(7, (1000, 16))}
    out["modes"] = modes(few, placed(few, (2, 4), "both")[0], tx)
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main(every="all" in sys.argv)
