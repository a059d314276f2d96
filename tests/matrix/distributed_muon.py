"""Runs Muon on 8 host devices in every layout, and prints what was measured as JSON; `test_distribute.py` asserts it."""

import json
import os
import re
import sys

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx.matrix import distribute as module

jax.config.update("jax_disable_most_optimizations", True)  # it compiles much and computes little
COLLECTIVE = re.compile(r"= (.*?) (all-to-all|all-gather|all-reduce|collective-permute|reduce-scatter)(-start)?\(")
ARRAY = re.compile(r"(?:bf16|f32|f64)\[([\d,]*)\]")


def collectives(text: str) -> dict[str, list[int]]:
    """Elements that each collective of compiled HLO gives a device, by kind."""
    found: dict[str, list[int]] = {}
    for line in text.splitlines():
        if match := COLLECTIVE.search(line):
            sizes = [int(np.prod([int(n) for n in shape.split(",") if n])) for shape in ARRAY.findall(match[1])]
            found.setdefault(match[2], []).append(sum(sizes))
    return found


def layers(d: int, depth: int) -> dict[str, np.ndarray]:
    shapes = [(d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)] * depth
    return {f"w{i:02}": np.asarray(jax.random.normal(jax.random.key(i), s)) for i, s in enumerate(shapes)}


def measured(grads, kind, shape, spec, tx, reference) -> dict[str, object]:
    mesh = jax.make_mesh(shape, ("x", "y")[: len(shape)], axis_types=(kind,) * len(shape))
    with jax.set_mesh(mesh):
        placed = {name: jax.device_put(g, NamedSharding(mesh, spec)) for name, g in grads.items()}
        state = tx.init(placed)
        same = jax.tree.map(lambda x: x.sharding, (placed, state))
        step = jax.jit(tx.update, out_shardings=same if kind == AxisType.Auto else None).lower(placed, state).compile()
        updates, _ = step(placed, state)
    error = max(float(np.max(np.abs(jax.device_get(updates[name]) - reference[name]))) for name in grads)
    kept = all(updates[name].sharding.is_equivalent_to(placed[name].sharding, updates[name].ndim) for name in grads)
    return {"error": error, "kept": kept, "collectives": collectives(step.as_text())}


def msign(scale=None, weight_dimension_numbers=None, **arguments):
    """Momentum, matrix signs, and a scale by shape."""
    numbers = {"weight_dimension_numbers": weight_dimension_numbers}
    scales = [] if scale is None else [gradtx.scale_by_shape(scale, **numbers)]
    return gradtx.chain(gradtx.trace(0.95, nesterov=True), gradtx.orthogonalize(**arguments, **numbers), *scales)


def plain(grads, **arguments):
    tx = msign(**arguments)
    return jax.device_get(tx.update(grads, tx.init(grads))[0])


def main() -> None:
    out = {}
    many, few = layers(64, 12), layers(16, 1)
    auto, explicit = AxisType.Auto, AxisType.Explicit
    reference = plain(many)
    out["rows, auto"] = measured(many, auto, (8,), P("x"), msign(distribute="x"), reference)
    out["rows, explicit"] = measured(many, explicit, (8,), P("x"), msign(distribute="x"), reference)
    zero1 = gradtx.Distribution("x", P())
    out["replicated, auto"] = measured(many, auto, (8,), P(), msign(distribute=zero1), reference)
    reference = plain(few)
    out["replicated, explicit"] = measured(few, explicit, (8,), P(), msign(distribute="x"), reference)
    both = gradtx.Distribution(("x", "y"), P("x", "y"))
    out["two axes, auto"] = measured(few, auto, (4, 2), P("x", "y"), msign(distribute=both), reference)
    out["two axes, explicit"] = measured(few, explicit, (4, 2), P("x", "y"), msign(distribute=("x", "y")), reference)
    for name, kind, shape, spec in (
        ("fsdp", auto, (8,), P("x")),
        ("fsdp, explicit", explicit, (8,), P("x")),
        ("tensor, explicit", explicit, (8,), P(None, "x")),
        ("both, explicit", explicit, (4, 2), P("x", "y")),
    ):
        out[f"undistributed, {name}"] = measured(few, kind, shape, spec, msign(), reference)
    long = {
        "a": np.asarray(jax.random.normal(jax.random.key(0), (16, 128))),
        "b": np.asarray(jax.random.normal(jax.random.key(1), (16, 128))),
    }
    out["long side"] = measured(long, explicit, (8,), P(None, "x"), msign(distribute="x"), plain(long))
    experts = {"w": np.asarray(jax.random.normal(jax.random.key(6), (8, 16, 12)))}
    batched = {"weight_dimension_numbers": gradtx.MuonDimensionNumbers(1, 2)}
    out["a batch and its matrices cut"] = measured(
        experts, explicit, (4, 2), P("x", None, "y"), msign(distribute=("x", "y"), **batched), plain(experts, **batched)
    )
    module.ROUND_ELEMENTS = 100
    out["rounds"] = measured(few, explicit, (8,), P("x"), msign(distribute="x"), reference)
    module.ROUND_ELEMENTS = 2**27
    mixed = {
        "conv": np.asarray(jax.random.normal(jax.random.key(0), (3, 3, 8, 16))),
        "qkv": np.asarray(jax.random.normal(jax.random.key(1), (16, 48))),
        "experts": np.asarray(jax.random.normal(jax.random.key(2), (8, 4, 6))),
        "odd": np.asarray(jax.random.normal(jax.random.key(3), (5, 7))),
        "vector": np.asarray(jax.random.normal(jax.random.key(4), (8,))),
    }
    rules = gradtx.matrix_axes({"experts": gradtx.MuonDimensionNumbers(1, 2), "odd": "muon"})
    shared = {"weight_dimension_numbers": rules, "scale": "rms"}
    out["shapes"] = measured(mixed, auto, (8,), P(), msign(distribute="x", **shared), plain(mixed, **shared))
    out["svd"] = measured(few, explicit, (8,), P("x"), msign(distribute="x", method="svd"), plain(few, method="svd"))
    tall = {"conv": np.asarray(jax.random.normal(jax.random.key(5), (2, 8, 8, 9)))}
    numbers = {"weight_dimension_numbers": gradtx.MuonDimensionNumbers((1, 2), 3)}
    narrow = msign(distribute="x", dtype="bfloat16", **numbers)
    out["tall, bfloat16"] = measured(tall, explicit, (8,), P(None, "x"), narrow, plain(tall, **numbers))
    mesh = jax.make_mesh((8,), ("x",), axis_types=(explicit,))
    with jax.set_mesh(mesh):  # every device its own gradients, inside a shard_map of the user's
        batch = jnp.stack([jnp.roll(few["w00"], i) for i in range(8)])
        tx = msign()
        own = jax.jit(jax.shard_map(lambda g: tx.update(g, tx.init(g))[0], in_specs=P("x"), out_specs=P("x")))
        tx = msign(weight_dimension_numbers=gradtx.MuonDimensionNumbers(1, 2))
        found = jax.device_get(own(jax.device_put(batch, NamedSharding(mesh, P("x")))))
    expected = plain({"w": batch}, weight_dimension_numbers=gradtx.MuonDimensionNumbers(1, 2))["w"]
    out["inside shard_map"] = {"error": float(np.max(np.abs(found - expected))), "kept": True, "collectives": {}}
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
