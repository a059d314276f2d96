"""Runs on 8 host devices what reads parameters as one vector; prints how far results are from one device's, as JSON."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx import diagnostics, projections

jax.config.update("jax_disable_most_optimizations", True)  # it compiles much and computes little
SPECS = {"kernel": P("x", "y"), "bias": P("x"), "scalar": P()}
PARAMS = {
    "kernel": jnp.linspace(-0.5, 1.5, 32).reshape(8, 4),
    "bias": jnp.linspace(0.9, -0.7, 16),
    "scalar": jnp.float32(0.3),
}


def loss(params: Any) -> jax.Array:
    """Convex, with a Hessian that is no multiple of the identity."""
    return sum((jnp.sum((2.0 + i) * (jnp.cosh(x) - 0.3 * x)) for i, x in enumerate(jax.tree.leaves(params))), start=jnp.zeros(()))


def steps(tx: Any) -> Callable[[Any], Any]:
    """The parameters after three steps."""

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        grads = jax.grad(loss)(params)
        updates, state = tx.update(grads, state, params, value_fn=loss)
        return (gradtx.apply_updates(params, updates), state), None

    return jax.jit(lambda params: jax.lax.scan(step, (params, tx.init(params)), None, 3)[0][0])


def functions() -> dict[str, Callable[[Any], Any]]:
    equations = jnp.sin(jnp.arange(3 * 49.0)).reshape(3, 49)
    return {
        "adaptive_grad_clip": steps(gradtx.chain(gradtx.adaptive_grad_clip(0.01), gradtx.sgd(0.5))),
        "adagrad_full_matrix": steps(gradtx.adagrad_full_matrix(0.1)),
        "adagrad_full_matrix of the whole tree": steps(gradtx.adagrad_full_matrix(0.1, whole_tree=True)),
        "lbfgs": steps(gradtx.lbfgs(0.5, linesearch=None)),
        "bfgs": steps(gradtx.bfgs(0.5, linesearch=None)),
        "newton": steps(gradtx.newton()),
        "linf_sphere": jax.jit(projections.linf_sphere(0.7)),
        "affine_set": jax.jit(lambda p: projections.projection_affine_set(p, equations, jnp.ones(3))),
        "top_eigenvalues": jax.jit(lambda p: diagnostics.top_eigenvalues(loss, p, k=2, steps=49).vectors["kernel"]),
    }


def difference(found: Any, expected: Any) -> float:
    off = jax.tree.map(lambda a, b: np.max(np.abs(a - b) / np.maximum(np.abs(b), 1)), jax.device_get(found), expected)
    return float(max(jax.tree.leaves(off)))


def minimized(row: jax.Array) -> Any:
    """The minimum of a function of its own, and in how many steps."""
    params, result = gradtx.minimize(lambda w: jnp.sum(jnp.cosh(w - row)), jnp.zeros_like(row), gradtx.lbfgs(), tol=1e-4)
    return params, result.steps.astype(jnp.float32)


def skipping(row: jax.Array) -> Any:
    """Parameters and number of skipped steps after two steps, the first of which fails where a number is large."""
    tx, params = gradtx.skip_nonfinite(gradtx.adam(0.1)), row
    state = tx.init(params)
    for scale in (jnp.where(row > 3, jnp.nan, 1), 1):
        updates, state = tx.update(jnp.sin(params) * scale, state, params)
        params = gradtx.apply_updates(params, updates)
    return params, state.skipped.astype(jnp.float32)


def on_each_device(function: Callable[[jax.Array], Any]) -> Any:
    """What a function gives on 8 devices, each with a row of its own, inside `shard_map`; and what it gives row by row on one."""
    rows = jnp.linspace(0.1, 4.0, 16).reshape(8, 2)
    mesh = jax.make_mesh((8,), ("x",))
    own = jax.shard_map(lambda x: jax.tree.map(lambda y: y[None], function(x[0])), mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    placed = jax.device_put(rows, NamedSharding(mesh, P("x")))
    return jax.jit(own)(placed), jax.jit(lambda xs: jax.lax.map(function, xs))(rows)


def main() -> None:
    mesh = jax.make_mesh((4, 2), ("x", "y"))
    errors = {}
    for name, function in functions().items():
        expected = jax.device_get(function(PARAMS))
        with jax.set_mesh(mesh):
            placed = {leaf: jax.device_put(x, NamedSharding(mesh, SPECS[leaf])) for leaf, x in PARAMS.items()}
            found = function(placed)
        if isinstance(found, dict):
            assert jax.tree.map(jax.typeof, found) == jax.tree.map(jax.typeof, placed), name
        errors[name] = difference(found, expected)
    for function in (minimized, skipping):
        found, expected = jax.device_get(on_each_device(function))
        assert len(set(expected[1])) > 1, function  # some devices do other than others
        errors[function.__name__] = difference(found, expected)
    json.dump(errors, sys.stdout)


if __name__ == "__main__":
    main()
