"""Runs on 8 host devices what reads parameters as one vector; prints how far results are from one device's, as JSON."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

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
        off = jax.tree.map(lambda a, b: np.max(np.abs(a - b) / np.maximum(np.abs(b), 1)), jax.device_get(found), expected)
        errors[name] = float(max(jax.tree.leaves(off)))
    json.dump(errors, sys.stdout)


if __name__ == "__main__":
    main()
