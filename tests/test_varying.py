"""Inside `jax.shard_map` with its checks: every row, where parameters, gradients or some of them vary over devices.

Types are known when a function is traced, on a mesh without devices. `sharded_values.py` compares values on 8.
"""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from case import half_squares
from cases import Case, rows
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

import gradtx

MESH = AbstractMesh((4, 2), ("x", "y"))
PARAMS = {"bias": jnp.ones(4), "fan": jnp.ones((2, 16)), "kernel": jnp.ones((8, 4)), "scalar": jnp.ones(())}
SOME = {"bias": 0.0, "fan": 0.0, "kernel": 1.0, "scalar": 0.0}


def traced(function: Any, axes: set[str]) -> Any:
    """Traces `function(v)` inside a `shard_map`, with a scalar `v` that varies over the axes."""
    jax.eval_shape(
        jax.shard_map(lambda v: function(jnp.sum(v)) * jnp.ones(1), mesh=MESH, in_specs=P(tuple(axes)), out_specs=P(("x", "y"))),
        jax.ShapeDtypeStruct((8,), jnp.float32),
    )


def varying(v: Any, tree: Any) -> Any:
    return jax.tree.map(lambda x: x * v, tree)


def partly(v: Any) -> Any:
    return {name: x * v if SOME[name] else x for name, x in PARAMS.items()}


PLACES = {
    "all": lambda v: (varying(v, PARAMS), varying(v, PARAMS)),
    "gradients": lambda v: (varying(v, PARAMS), PARAMS),
    "one leaf": lambda v: (partly(v), partly(v)),
}


@pytest.mark.parametrize("place", PLACES)
@rows(2, 1)
def test_two_steps(case: Case, place: str) -> None:
    tx = case.make()

    def run(v: Any) -> Any:
        grads, params = PLACES[place](v)
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(grads, state, params, **case.extra_for(params))
        return half_squares(updates) * v

    traced(run, {"x"})


OPTIMIZERS = {
    "adam": gradtx.adam(0.1),
    "lbfgs": gradtx.lbfgs(),
    "backtracking": gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(5, store_grad=True)),
    "sam": gradtx.sam_wrapper(gradtx.sgd(0.1)),
    "skipping": gradtx.skip_nonfinite(gradtx.perturbed_gd(0.1, 0.1, 0.1, 2)),
    "accumulated": gradtx.accumulate(gradtx.sgd(0.1), 2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("place", ["start", "data"])
def test_minimize(name: str, place: str) -> None:
    def run(v: Any) -> Any:
        start, data = (v if place == key else jnp.float32(1) for key in ("start", "data"))
        loss = lambda w, c: jnp.sum((w["w"] - c) ** 2)  # noqa: E731
        params, result = gradtx.minimize(loss, {"w": start * jnp.ones(2)}, OPTIMIZERS[name], data, max_steps=5)
        assert jax.typeof(result.steps).manual_axis_type.varying == {"x"}  # each device ends by itself
        return jnp.sum(params["w"]) * v

    traced(run, {"x"})


def test_minimize_of_a_loss_over_all_devices_leaves_them_equal() -> None:
    def run(v: Any) -> Any:
        loss = lambda w, c: jax.lax.pmean(jnp.sum((w - c) ** 2), "x")  # noqa: E731
        found = gradtx.minimize(loss, jnp.ones(2), gradtx.lbfgs(), v, max_steps=5)
        assert all(not jax.typeof(x).manual_axis_type.varying for x in jax.tree.leaves(found))
        return v

    traced(run, {"x"})


@pytest.mark.parametrize("place", ["params", "data", "both"])
def test_microbatches(place: str) -> None:
    def run(v: Any) -> Any:
        w, x = (v if place in (key, "both") else jnp.float32(1) for key in ("params", "data"))
        loss = lambda w, x: (jnp.mean((w * x) ** 2), x)  # noqa: E731
        batch = x * jnp.ones((4, 2))
        found = gradtx.microbatched(jax.value_and_grad(loss, has_aux=True), 2, has_aux=True)(w, batch)
        alone = jax.value_and_grad(loss, has_aux=True)(w, batch)
        assert jax.tree.map(axes, (found[0][0], found[1])) == jax.tree.map(axes, (alone[0][0], alone[1]))
        gradtx.sam_value_and_grad(loss, 0.1, groups=2, has_aux=True)(w, batch)
        return found[0][0] * v

    traced(run, {"x"})


def axes(x: Any) -> Any:
    return jax.typeof(x).manual_axis_type.varying


def test_projections_and_conditions() -> None:
    def run(v: Any) -> Any:
        tree = {"a": v * jnp.ones(3), "b": jnp.ones(2)}
        ones = jnp.ones(2)
        kept = gradtx.periodic_update(ones, v * ones, jnp.int32(3), 2)
        sets = (gradtx.projections.simplex(1.0), gradtx.projections.l1_ball(0.5), gradtx.projections.linf_sphere(0.5))
        return sum(half_squares(project(tree)) for project in sets) + jnp.sum(kept) + v

    traced(run, {"x", "y"})
