"""Every row, and the other functions, under the modes of JAX that a user may have on."""

import gc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case, rows
from projection_cases import SETS, Set
from schedule_cases import ALL as SCHEDULES

import gradtx
from gradtx.wrappers.multi_steps import MultiSteps

ROWS = rows()


def tree(dtype: Any = jnp.float32, factor: float = 1.0) -> dict[str, Any]:
    """Parameters of few shapes, so that eager operations are compiled once for all rows."""
    kernel = factor * jnp.asarray([[0.1, 0.2], [0.3, 0.4]])
    return {"kernel": kernel.astype(dtype), "bias": (factor * jnp.asarray([0.5, 0.25])).astype(dtype)}


PARAMS = {
    "float32": tree(),
    "bfloat16": tree(jnp.bfloat16),
    "float16": tree(jnp.float16),
    "mixed": {"kernel": tree(jnp.bfloat16)["kernel"], "bias": tree()["bias"]},
}
EACH_TREE = pytest.mark.parametrize("params", list(PARAMS.values()), ids=list(PARAMS))


def steps(case: Case, params: Any, gradients: tuple[Any, ...]) -> Any:
    """What `init` and an update for each gradient give."""
    tx = case.make()
    state, moved = tx.init(params), []
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params, **case.extra_for(params))
        params = gradtx.apply_updates(params, updates)
        moved.append(updates)
    return moved, params, state


def two_steps(case: Case, params: Any) -> Any:
    return steps(case, params, (params, params))


def dtypes(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.dtype, tree)


@rows(2)
def test_strict_promotion(case: Case) -> None:
    """Tracing shows it; nothing is compiled."""
    for params in PARAMS.values():
        with jax.numpy_dtype_promotion("strict"):
            moved, after, _ = jax.eval_shape(lambda p: two_steps(case, p), params)
        assert dtypes(after) == dtypes(moved[0]) == dtypes(moved[1]) == dtypes(params)


@ROWS
def test_no_leaked_tracers(case: Case) -> None:
    """One step, since JAX traces every function anew while it looks for leaks."""
    params = {"kernel": tree()["kernel"], "bias": None}
    gc.freeze()  # JAX looks for who holds a tracer: among what is made here, not among all that other tests left
    with jax.checking_leaks():
        moved, after, _ = jax.eval_shape(lambda p: steps(case, p, (p,)), params)
    gc.unfreeze()
    assert dtypes(after) == dtypes(moved[0]) == dtypes(params)


@rows(2, 1)
def test_without_jit(case: Case) -> None:
    """Every operation runs by itself, and `debug_nans` sees every number on the way, at zero gradients too."""
    params, zeros = tree(), tree(factor=0.0)
    with jax.disable_jit(), jax.debug_nans("debug_nans without jit" not in case.exceptions):
        moved, after, _ = steps(case, params, (params, zeros))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves((moved, after)))


@ROWS
def test_zero_gradients_give_finite_updates_without_nans_or_transfers(case: Case) -> None:
    """From the start on, in leaves of every precision and form, where `debug_nans` watches and no array comes from the host.

    The contract's scan runs under both as well, with gradients that are not zero.
    """
    brain, half = tree(jnp.bfloat16)["kernel"], tree(jnp.float16)["bias"]
    others = {"brain": brain, "half": half, "scalar": jnp.asarray(0.75, jnp.float16), "empty": jnp.zeros((0, 3)), "none": None}
    tx, params = case.make(), tree() | others
    zeros = jax.tree.map(jnp.zeros_like, params)

    def run(params: Any, zeros: Any) -> Any:
        def step(state: Any, _: None) -> Any:
            updates, state = tx.update(zeros, state, params, **case.extra_for(params))
            return state, updates

        return jax.lax.scan(step, tx.init(params), None, 2)

    with jax.debug_nans(True), jax.transfer_guard("disallow"):
        result = jax.jit(run)(params, zeros)
    for leaf in jax.tree.leaves(result):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            assert bool(jnp.all(jnp.isfinite(leaf)))


def twice(function: Any) -> Any:
    """A function of two trees as one of a single one."""
    return lambda tree: function(tree, tree)


def half_squares(params: Any) -> Any:
    return sum((jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(params)), start=jnp.zeros(()))


def mean_of_microbatches(params: Any) -> Any:
    def loss(p: Any, batch: Any) -> Any:
        return jnp.mean(batch.astype(p["bias"].dtype) * p["bias"][0])

    return gradtx.microbatched(jax.value_and_grad(loss), 2)(params, jnp.ones(4))


ops, half = gradtx.tree, np.float32(0.5)
FUNCTIONS = {
    "MultiSteps": lambda t: steps(Case(lambda: MultiSteps(gradtx.adam(0.1), 2)), t, (t, t)),
    "tree.add": twice(ops.add),
    "tree.add_scale": lambda t: (ops.add_scale(t, 0.5, t), ops.add_scale(t, jnp.asarray(half), t)),
    "tree.allclose": twice(ops.allclose),
    "tree.batch_shape": lambda t: ops.batch_shape(t, (3,)),
    "tree.bias_correction": lambda t: ops.bias_correction(t, 0.9, jnp.int32(3)),
    "tree.cast": lambda t: ops.cast(t, jnp.bfloat16),
    "tree.cast_like": twice(ops.cast_like),
    "tree.clip": lambda t: ops.clip(t, -1, 0.5),
    "tree.conj": ops.conj,
    "tree.div": twice(ops.div),
    "tree.dtype": lambda t: ops.zeros_like(t, ops.dtype(t, "highest")),
    "tree.dtype, promoted": lambda t: ops.zeros_like(t, ops.dtype(t, "promote")),
    "tree.full_like": lambda t: ops.full_like(t, 0.5),
    "tree.global_norm": ops.global_norm,
    "tree.map_params": lambda t: ops.map_params(gradtx.adam(0.1), lambda p: p * 2, gradtx.adam(0.1).init(t)),
    "tree.max": ops.max,
    "tree.min": ops.min,
    "tree.mul": twice(ops.mul),
    "tree.norm": lambda t: [ops.norm(t, order) for order in (None, 1, 2, "inf")],
    "tree.ones_like": ops.ones_like,
    "tree.random_like": lambda t: ops.random_like(jax.random.key(0), t),
    "tree.real": ops.real,
    "tree.scale": lambda t: (ops.scale(0.5, t), ops.scale(jnp.asarray(half), t)),
    "tree.set": lambda t: ops.set(t, bias=0.0),
    "tree.sub": twice(ops.sub),
    "tree.sum": lambda t: (ops.sum(t), ops.sum(t, associative_reduction=True)),
    "tree.update_infinity_moment": lambda t: ops.update_infinity_moment(t, t, 0.9, 1e-8),
    "tree.update_moment": lambda t: (ops.update_moment(t, t, 0.9, 2), ops.update_moment(t, t, jnp.asarray(half), jnp.int32(2))),
    "tree.update_moment_per_elem_norm": lambda t: ops.update_moment_per_elem_norm(t, t, 0.9, 2),
    "tree.vdot": twice(ops.vdot),
    "tree.where": lambda t: ops.where(jnp.asarray(True), t, t),
    "incremental_update": lambda t: gradtx.incremental_update(t, t, 0.1),
    "microbatched": mean_of_microbatches,
    "minimize": lambda t: [gradtx.minimize(half_squares, t, make(0.1)) for make in (gradtx.adam, gradtx.lbfgs, gradtx.newton)],
    "msign": lambda t: [gradtx.msign(t["kernel"], method=method) for method in ("newton_schulz", "gram", "svd")],
    "periodic_update": lambda t: gradtx.periodic_update(t, t, jnp.int32(3), 2),
}


@EACH_TREE
@pytest.mark.parametrize("function", list(FUNCTIONS.values()), ids=list(FUNCTIONS))
def test_functions_under_strict_promotion(function: Any, params: Any) -> None:
    """The results are of the dtypes that they have without it."""
    expected = jax.eval_shape(lambda t: function(t), params)
    with jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(lambda t: function(t), params) == expected


@EACH_TREE
@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in SETS.items()])
def test_projections_under_strict_promotion(row: Set, params: Any) -> None:
    point = {"w": jnp.ones(3, params["kernel"].dtype), "b": jnp.ones(2, params["bias"].dtype)}
    with jax.numpy_dtype_promotion("strict"):
        assert dtypes(jax.eval_shape(row.make(), point)) == dtypes(point)


@pytest.mark.parametrize("schedule", [pytest.param(row.make(gradtx), id=name) for name, row in SCHEDULES.items()])
def test_schedules_under_strict_promotion(schedule: Any) -> None:
    with jax.numpy_dtype_promotion("strict"):
        for count in (jnp.int32(3), jnp.float32(3)):
            assert jax.eval_shape(schedule, count).dtype == jnp.float32
