"""Norms and clipping inside `shard_map` on 8 host devices; prints how far they are from one device's, as JSON."""

import json
import os
import sys
from typing import Any

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

import gradtx

SPECS = {"bias": P(), "columns": P(None, "model"), "kernel": P("data", "model"), "rows": P("data")}
UPDATES = {
    "bias": jnp.linspace(-1.0, 2.0, 6),
    "columns": jnp.linspace(0.1, 3.0, 8).reshape(2, 4),
    "kernel": jnp.linspace(-2.0, 1.0, 32).reshape(8, 4),
    "rows": jnp.linspace(2.0, 1.0, 8),
}
AXES = ("data", "model")
PAIRS = {
    "clip_by_global_norm": lambda axis_name: gradtx.clip_by_global_norm(0.5, axis_name=axis_name),
    "normalize_by_update_norm": lambda axis_name: gradtx.normalize_by_update_norm(2.0, axis_name=axis_name),
}


GUARDED = {
    "clip_by_block_rms": lambda axis_name: gradtx.clip_by_block_rms(0.5, axis_name=axis_name),
    "scale_by_trust_ratio": lambda axis_name: gradtx.scale_by_trust_ratio(axis_name=axis_name),
    "skip_nonfinite": lambda axis_name: gradtx.skip_nonfinite(gradtx.sgd(0.1), axis_name=axis_name),
    "skip_outliers": lambda axis_name: gradtx.skip_outliers(gradtx.sgd(0.1), window=4, axis_name=axis_name),
    "skip_spikes": lambda axis_name: gradtx.skip_spikes(gradtx.sgd(0.1), window=4, axis_name=axis_name),
}
GRADS = [{**UPDATES, "kernel": UPDATES["kernel"].at[0, 0].multiply(size)} for size in (1.0, 1.1, jnp.nan, 1e4, 0.9)]
"""One device alone holds the NaN, and the spike."""


def guarded(tx: Any, params: Any, grads: list[Any]) -> Any:
    """Updates of each step, and what the last state counted."""
    state, found = tx.init(params), []
    for g in grads:
        updates, state = tx.update(g, state, params, value=1.0)
        found.append(updates)
    return found, list(gradtx.metrics(state).values())


def off(found: Any, expected: Any) -> float:
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    same = [(np.isnan(x) & np.isnan(y)) | (x == y) for x, y in pairs]
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), same, strict=True)
    return max(float(np.max(np.where(z, 0, np.abs(x - y) / np.maximum(np.abs(y), 1)))) for x, y, z in pairs)


def main() -> None:
    mesh = jax.make_mesh((4, 2), AXES, axis_types=(jax.sharding.AxisType.Auto,) * 2)
    errors = {}
    for name, make in PAIRS.items():
        alone, tx = make(None), make(AXES)
        expected = alone.update(UPDATES, alone.init(UPDATES))
        run = jax.shard_map(lambda u, tx=tx: tx.update(u, tx.init(u)), mesh=mesh, in_specs=(SPECS,), out_specs=(SPECS, P()))
        errors[name] = off(jax.device_get(jax.jit(run)(UPDATES)), expected)
    for name, make in GUARDED.items():
        alone, tx = make(None), make(AXES)
        expected = guarded(alone, UPDATES, GRADS)
        specs = [SPECS] * len(GRADS)
        run = jax.shard_map(
            lambda p, g, tx=tx: guarded(tx, p, g), mesh=mesh, in_specs=(SPECS, specs), out_specs=(specs, [P()] * len(expected[1]))
        )
        errors[name] = off(jax.device_get(jax.jit(run)(UPDATES, GRADS)), expected)
    for scale in (0.0, 1e25, jnp.inf, jnp.nan):
        large = jax.tree.map(lambda x: x * scale, UPDATES)  # noqa: B023
        norm = jax.shard_map(lambda u: gradtx.global_norm(u, axis_name=AXES), mesh=mesh, in_specs=(SPECS,), out_specs=P())
        found, expected = jax.device_get(jax.jit(norm)(large)), jax.device_get(gradtx.global_norm(large))
        errors[f"norm of {scale}"] = float(not np.isclose(found, expected, rtol=1e-6, equal_nan=True))
    shards = {name: UPDATES[name] for name in ("kernel",)}  # where types do not tell, every leaf is a shard
    norm = jax.shard_map(
        lambda u: gradtx.global_norm(u, axis_name=AXES),
        mesh=mesh,
        in_specs=({"kernel": SPECS["kernel"]},),
        out_specs=P(),
        check_vma=False,
    )
    errors["unchecked"] = off(jax.jit(norm)(shards), gradtx.global_norm(shards))
    json.dump(errors, sys.stdout)


if __name__ == "__main__":
    main()
