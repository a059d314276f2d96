"""Parameters whose types say how they lie on a mesh (JAX's explicit axes): every row, every set, curvature.

Types are known when a function is traced, for a mesh without devices too. `sharded_values.py` runs on 8 what could go wrong.
"""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from cases import CASES, Case
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
from projection_cases import SETS, Set

from gradtx import diagnostics

MESH = AbstractMesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
ONE = AbstractMesh((1,), ("x",), axis_types=(AxisType.Explicit,))


def sharded(mesh: AbstractMesh, shape: tuple[int, ...], *spec: str | None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))


PARAMS = {
    "bias": sharded(MESH, (16,), "x"),
    "fan": sharded(MESH, (4, 16), None, "x"),
    "kernel": sharded(MESH, (8, 4), "x", "y"),
    "scalar": sharded(MESH, ()),
}


def layout(tree: Any) -> Any:
    """Shapes, dtypes, weak types and how arrays lie."""
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type, tuple(x.sharding.spec)), tree)


def types(function: Callable[..., Any], mesh: AbstractMesh, *args: Any) -> Any:
    """The types of what a function gives, as seen inside it."""
    seen = []
    with jax.sharding.use_abstract_mesh(mesh):
        jax.eval_shape(lambda *xs: seen.append(jax.tree.map(jax.typeof, (xs, function(*xs)))), *args)
    return seen[0]


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_updates_and_state_lie_as_the_parameters(case: Case) -> None:
    tx = case.make()

    def run(grads: Any, params: Any) -> Any:
        state = tx.init(params)
        return state, *tx.update(grads, state, params, **case.extra_for(params))

    (grads, params), (before, updates, after) = types(run, MESH, PARAMS, PARAMS)
    assert layout(updates) == layout(grads)
    assert layout(after) == layout(before)
    if "sharding" in case.exceptions:
        return
    specs = {p.shape: p.sharding.spec for p in params.values() if p.shape}
    for path, leaf in jax.tree.leaves_with_path(after):
        own = next((specs[leaf.shape[i:]] for i in range(leaf.ndim) if leaf.shape[i:] in specs), None)
        if own is not None:
            assert (None,) * (leaf.ndim - len(own)) + tuple(own) == tuple(leaf.sharding.spec), path
        else:
            assert leaf.size < 16 or any(leaf.sharding.spec), path


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in SETS.items()])
def test_projections_lie_as_what_is_projected(row: Set) -> None:
    tree = {"w": sharded(ONE, (3,), "x"), "b": sharded(ONE, (2,), "x")}
    (before,), after = types(row.make(), ONE, tree)
    assert layout(after) == layout(before)


def loss(params: Any) -> jax.Array:
    return sum((jnp.sum(jnp.cos(x)) for x in jax.tree.leaves(params)), start=jnp.zeros(()))


def test_vectors_of_the_diagnostics_lie_as_the_parameters() -> None:
    def run(params: Any) -> Any:
        others = [jax.tree.map(f, params) for f in (jnp.sin, jnp.cos)]
        pairs = diagnostics.top_eigenvalues(loss, params, k=2, steps=3)
        return pairs.vectors, diagnostics.trajectory_plane([params, *others]).directions

    (params,), (vectors, directions) = types(run, MESH, PARAMS)
    assert layout(directions) == layout((params, params))
    for name, p in params.items():
        assert tuple(vectors[name].sharding.spec) == (None, *p.sharding.spec)


def test_trace_and_spectral_density_take_sharded_parameters() -> None:
    def run(params: Any) -> Any:
        trace = diagnostics.hessian_trace(loss, params, samples=2)
        return trace, diagnostics.spectral_density(loss, params, samples=2, steps=3).nodes

    _, (trace, nodes) = types(run, MESH, PARAMS)
    assert trace.value.shape == ()
    assert nodes.shape == (2, 3)


def test_values_on_eight_devices_are_those_on_one() -> None:
    script = pathlib.Path(__file__).with_name("sharded_values.py")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found) == 11
    assert max(found.values()) < 2e-5, found
