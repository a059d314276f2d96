"""Runs SOAP and its kin on 8 host devices, and prints what was measured as JSON; `test_distributed_soap.py` asserts it."""

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

STEPS = 4


def normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """With singular values far apart, so that no eigenvector is arbitrary."""
    return np.random.default_rng(seed).standard_normal(shape) * np.geomspace(1, 0.1, shape[-1])


def squares(count: int) -> dict[str, np.ndarray]:
    return {f"w{i:02}": normal(i, (16, 16)) for i in range(count)} | {"bias": normal(99, (16,))}


def mixed() -> dict[str, np.ndarray]:
    return {
        "wide": normal(1, (16, 32)),
        "tall": normal(2, (32, 16)),
        "experts": normal(3, (8, 16, 24)),
        "odd": normal(4, (5, 7)),
        "vector": normal(5, (16,)),
    }


def step(tx: Any) -> Any:
    def run(params: Any, state: Any, factor: Any) -> Any:
        grads = jax.tree.map(lambda p: jnp.cos(factor * p) * p, params)
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    return run


def followed(run: Any, params: Any, state: Any) -> Any:
    for i in range(STEPS):
        params, state = run(params, state, 1.0 + i)
    return params, state


def measured(tx: Any, params: Any, kind: AxisType, shape: tuple[int, ...], spec: P) -> dict[str, Any]:
    """Parameters after some steps and where they lie, the parts of the state that devices share, and what one step sends."""
    expected, _ = followed(jax.jit(step(tx)), params, tx.init(params))
    mesh = jax.make_mesh(shape, ("x", "y")[: len(shape)], axis_types=(kind,) * len(shape))
    specs = {name: P(*spec[: x.ndim]) if x.ndim > 1 and x.shape[0] % 8 == 0 else P() for name, x in params.items()}
    with jax.set_mesh(mesh):
        placed = {name: jax.device_put(x, NamedSharding(mesh, specs[name])) for name, x in params.items()}
        state = gradtx.init_sharded(tx, placed)
        places = jax.tree.map(lambda x: x.sharding, (placed, state))
        compiled = jax.jit(step(tx), out_shardings=places if kind == AxisType.Auto else None).lower(placed, state, 1.0).compile()
        found, after = followed(compiled, placed, state)
    kept = jax.tree.map(lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim), (found, after), (placed, state))
    error = max(float(np.max(np.abs(jax.device_get(found[name]) - expected[name]))) for name in params)
    stated = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, gradtx.state_sharding(tx, placed))
    arrays = jax.tree.leaves(state[0].matrices)
    share = sum(x.addressable_shards[0].data.size for x in arrays) / sum(x.size for x in arrays)
    return {
        "moved": max(float(np.max(np.abs(expected[name] - x))) for name, x in params.items()),
        "error": error,
        "kept": all(jax.tree.leaves(kept)),
        "stated": all(jax.tree.leaves(stated)),
        "share": share,
        "collectives": collectives(compiled.as_text() or ""),
    }


def main() -> None:
    jax.config.update("jax_enable_x64", True)  # so that what is left is no rounding
    auto, explicit = AxisType.Auto, AxisType.Explicit
    rules = gradtx.matrix_axes({"experts": gradtx.MuonDimensionNumbers(1, 2)})
    soap = gradtx.soap(0.1, precondition_frequency=2)
    one_sided = gradtx.soap(0.1, precondition_frequency=2, one_sided=True, weight_dimension_numbers=rules)
    out = {
        "rows, auto": measured(soap, squares(16), auto, (8,), P("x")),
        "rows, explicit": measured(soap, squares(16), explicit, (8,), P("x")),
        "two axes, auto": measured(soap, squares(8), auto, (4, 2), P("x", "y")),
        "two axes, explicit": measured(soap, squares(8), explicit, (4, 2), P("x", "y")),
        "replicated": measured(soap, squares(8), auto, (8,), P()),
        "three matrices": measured(soap, squares(3), auto, (8,), P("x")),
        "experts": measured(one_sided, {"experts": normal(3, (8, 16, 24))}, auto, (8,), P("x")),
        "shapes, auto": measured(one_sided, mixed(), auto, (8,), P("x")),
        "shapes, explicit": measured(one_sided, mixed(), explicit, (4, 2), P("x", "y")),
    }
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
