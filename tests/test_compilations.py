"""Eager calls compile once: later calls with other numbers of the same shapes find every program that they need."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case, rows
from projection_cases import NORMAL, SETS, A

import gradtx
from gradtx import projections
from gradtx import tree as t

COMPILED: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: COMPILED.append(event) if "backend_compile" in event else None
)


@contextmanager
def no_compilation() -> Iterator[None]:
    before = len(COMPILED)
    yield
    assert len(COMPILED) == before, f"{len(COMPILED) - before} compilations"


def point(k: float) -> Any:
    return {"w": jnp.asarray([0.5 + k, -1.5, 2.0 * k]), "b": jnp.asarray([0.25, -k])}


def matrix(k: float) -> Any:
    return {"kernel": jnp.asarray([[0.5 + k, -1.5, 2.0], [1.0, 0.25 * k, -0.75]]), "bias": jnp.asarray([0.5, -0.5 - k, 1.0])}


# An update runs branches of its own at some steps, so that a row's first pass over a few steps meets them all.
@rows(2, 1)
def test_updates_compile_once(case: Case) -> None:
    if "compilations" in case.exceptions:
        pytest.skip(case.exceptions["compilations"])
    tx = case.make()

    def steps(first: float) -> None:
        state = tx.init(matrix(first))
        for k in range(4):
            params = matrix(first + k)
            _, state = tx.update(params, state, params, **case.extra_for(params))

    steps(1.0)
    with no_compilation():
        steps(1.5)


X, Y = point(1.0), point(2.0)
FUNCTIONS: dict[str, Callable[[float], Any]] = {
    "apply_updates": lambda k: gradtx.apply_updates(point(k), point(k)),
    "global_norm": lambda k: gradtx.global_norm(point(k)),
    "incremental_update": lambda k: gradtx.incremental_update(point(k), X, k / 9),
    "per_example_global_norm_clip": lambda k: gradtx.per_example_global_norm_clip(matrix(k)["kernel"], k),
    "per_example_layer_norm_clip": lambda k: gradtx.per_example_layer_norm_clip(matrix(k)["kernel"], k),
    "periodic_update": lambda k: [gradtx.periodic_update(point(k), X, step, 2) for step in range(2)],
    "add": lambda k: t.add(point(k), X, Y),
    "add_scale": lambda k: t.add_scale(point(k), k, X),
    "allclose": lambda k: t.allclose(point(k), X, 0.1 * k, 0.2 * k),
    "bias_correction": lambda k: t.bias_correction(point(k), 0.9 + 0.01 * k, int(k)),
    "cast": lambda k: t.cast(point(k), jnp.bfloat16),
    "cast_like": lambda k: t.cast_like(point(k), X),
    "clip": lambda k: t.clip(point(k), -k, k),
    "conj": lambda k: t.conj(point(k)),
    "div": lambda k: t.div(point(k), X),
    "full_like": lambda k: t.full_like(X, k),
    "max": lambda k: t.max(point(k)),
    "min": lambda k: t.min(point(k)),
    "mul": lambda k: t.mul(point(k), X),
    "norm": lambda k: [t.norm(point(k), ord, squared) for ord in (None, 1, "inf") for squared in (False, True)],
    "ones_like": lambda k: t.ones_like(point(k)),
    "random_like": lambda k: t.random_like(jax.random.key(int(k)), point(k)),
    "real": lambda k: t.real(point(k)),
    "scale": lambda k: t.scale(k, point(k)),
    "split_key_like": lambda k: t.split_key_like(jax.random.key(int(k)), point(k)),
    "sub": lambda k: t.sub(point(k), X),
    "sum": lambda k: t.sum(point(k)),
    "update_infinity_moment": lambda k: t.update_infinity_moment(point(k), X, 0.1 * k, 0.01 * k),
    "update_moment": lambda k: t.update_moment(point(k), X, 0.1 * k, 2),
    "update_moment_per_elem_norm": lambda k: t.update_moment_per_elem_norm(point(k), X, 0.1 * k, 2),
    "vdot": lambda k: t.vdot(point(k), X),
    "where": lambda k: t.where(k > 1.5, point(k), X),
    "zeros_like": lambda k: t.zeros_like(point(k)),
    "projection_affine_set": lambda k: projections.projection_affine_set(point(k), A, np.array([k, -1.0])),
    "projection_box": lambda k: projections.projection_box(point(k), -k, k),
    "projection_halfspace": lambda k: projections.projection_halfspace(point(k), NORMAL, k),
    "projection_hypercube": lambda k: projections.projection_hypercube(point(k), k),
    "projection_hyperplane": lambda k: projections.projection_hyperplane(point(k), NORMAL, k),
    "projection_l1_ball": lambda k: projections.projection_l1_ball(point(k), k / 3),
    "projection_l1_sphere": lambda k: projections.projection_l1_sphere(point(k), k),
    "projection_l2_ball": lambda k: projections.projection_l2_ball(point(k), k / 3),
    "projection_l2_ball, weighted": lambda k: projections.projection_l2_ball(point(k), k / 3, weights={"w": k, "b": 1.0}),
    "projection_l2_sphere": lambda k: projections.projection_l2_sphere(point(k), k),
    "projection_linf_ball": lambda k: projections.projection_linf_ball(point(k), k),
    "projection_linf_sphere": lambda k: projections.projection_linf_sphere(point(k), k),
    "projection_non_negative": lambda k: projections.projection_non_negative(point(k)),
    "projection_simplex": lambda k: projections.projection_simplex(point(k), k),
    "projection_vector": lambda k: projections.projection_vector(point(k), NORMAL),
} | {f"set {name}": (lambda k, make=row.make: make()(point(k))) for name, row in SETS.items()}

LOOK_UP = {
    "NamedTupleKey",
    "batch_shape",
    "dtype",
    "get",
    "get_all_with_path",
    "map_params",
    "set",
    "size",
    "unwrap_random_key_data",
}
"""What computes nothing on arrays."""


def test_every_function_has_a_row() -> None:
    projecting = {name for name in projections.__all__ if name.startswith("projection_")}
    assert {*t.__all__, *projecting} - LOOK_UP <= FUNCTIONS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_compile_once(name: str) -> None:
    FUNCTIONS[name](1.0)
    with no_compilation():
        FUNCTIONS[name](1.25)
        FUNCTIONS[name](2.5)
