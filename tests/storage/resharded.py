"""Saves on 8 host devices, loads on 8, 4, 2 and 1; prints what went wrong, as JSON."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx

SPECS = {"bias": P(), "kernel": P("data")}
PARAMS = {"bias": jnp.linspace(0.0, 1.0, 4), "kernel": jnp.linspace(-1.0, 1.0, 32).reshape(8, 4)}


def on(count: int) -> Any:
    mesh = jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])
    return {name: jax.device_put(x, NamedSharding(mesh, SPECS[name])) for name, x in PARAMS.items()}


def faults(tx: Any, params: Any, saved: Any, expected: Any) -> Iterator[str]:
    loaded = gradtx.load_state(gradtx.chain(gradtx.clip_by_global_norm(1.0), tx), params, saved, missing="init")
    if set(loaded.initialized) != {"steps", "clipped", "norm"}:
        yield str(loaded)
    state = loaded.state[1]
    for (path, x), y in zip(jax.tree.leaves_with_path(state), expected, strict=True):
        if not np.array_equal(x, y):
            yield f"{jax.tree_util.keystr(path)} differs"
    if isinstance(params["kernel"].sharding, NamedSharding):
        if not state[0].mu["kernel"].sharding.is_equivalent_to(params["kernel"].sharding, 2):
            yield str(state[0].mu["kernel"].sharding)
        if len(loaded.state[0].norm.sharding.device_set) != len(params["kernel"].sharding.device_set):
            yield str(loaded.state[0].norm.sharding)


def main() -> None:
    tx, params = gradtx.adamw(0.1), on(8)
    _, state = jax.jit(tx.update)(params, gradtx.init_sharded(tx, params), params)
    saved, expected = gradtx.state_dict(tx, state), jax.device_get(jax.tree.leaves(state))
    found = {str(count): list(faults(tx, on(count), saved, expected)) for count in (8, 4, 2, 1)}
    found["one device"] = list(faults(tx, PARAMS, jax.device_get(saved), expected))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
