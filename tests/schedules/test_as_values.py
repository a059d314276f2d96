"""Schedules print, compare, hash, pickle, and take traced hyperparameters."""

import json
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schedule_cases import CYCLES, EVERY, Case

import gradtx

# Values that print, compare, hash, pickle -----------------------------------------------------------------


@EVERY
def test_is_a_value(case: Case) -> None:
    schedule, other = case.make(gradtx), gradtx.constant_schedule(123.0)
    assert eval(repr(schedule), vars(gradtx).copy()) == schedule
    assert schedule == case.make(gradtx)
    assert schedule != other
    assert len({schedule, case.make(gradtx), other}) == 2
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    config = json.loads(json.dumps(gradtx.to_config(schedule)))
    assert gradtx.from_config(config) == schedule
    assert gradtx.from_config(config)(7) == schedule(7)


def test_repr() -> None:
    assert repr(gradtx.cosine_decay_schedule(0.1, 10)) == "cosine_decay_schedule(init_value=0.1, decay_steps=10)"
    joined = gradtx.join_schedules([gradtx.constant_schedule(1.0), gradtx.step_decay_schedule(1.0, 9)], [5])
    inner = "[constant_schedule(value=1.0), step_decay_schedule(init_value=1.0, step_size=9)]"
    assert repr(joined) == f"join_schedules(schedules={inner}, boundaries=[5])"


def test_equal_schedules_share_a_compiled_step() -> None:
    traces = []

    def step(schedule: Any, count: Any) -> Any:
        traces.append(1)
        return schedule(count)

    compiled = jax.jit(step, static_argnums=0)
    for _ in range(3):
        compiled(gradtx.cosine_decay_schedule(0.1, 10), jnp.int32(3))
    assert len(traces) == 1


def test_later_changes_of_a_dict_or_list_do_not_reach_the_schedule() -> None:
    scales, cycles, boundaries = {2: 0.5}, [dict(CYCLES[0])], [2]
    made = [
        gradtx.piecewise_constant_schedule(1.0, scales),
        gradtx.sgdr_schedule(cycles),
        gradtx.join_schedules([gradtx.constant_schedule(1.0), gradtx.constant_schedule(0.5)], boundaries),
    ]
    before = [float(schedule(5)) for schedule in made]
    scales[3], cycles[0]["peak_value"], boundaries[0] = 0.1, 9.0, 10
    assert [float(schedule(5)) for schedule in made] == before


# Traced hyperparameters -----------------------------------------------------------------------------------

TRACED = {
    "constant": lambda v: gradtx.constant_schedule(v),
    "linear": lambda v: gradtx.linear_schedule(v, v / 2, 50),
    "polynomial": lambda v: gradtx.polynomial_schedule(v, 0.1, v, 50),
    "exponential": lambda v: gradtx.exponential_decay(v, 10, v / 2, end_value=v / 3),
    "natural exponential": lambda v: gradtx.natural_exponential_decay(v, v / 10),
    "steps": lambda v: gradtx.step_decay_schedule(v, 10, v / 2),
    "inverse power": lambda v: gradtx.inverse_power_schedule(v, v),
    "cool-down": lambda v: gradtx.cooldown_schedule(v, 10, 20, v, v / 2),
    "inverse root": lambda v: gradtx.inverse_sqrt_schedule(v, 10, v / 10),
    "cosine": lambda v: gradtx.cosine_decay_schedule(v, 50, v / 10, v),
    "cosine annealing": lambda v: gradtx.cosine_annealing_schedule(v, 50, v / 10),
    "sgdr": lambda v: gradtx.sgdr_schedule([{"init_value": v, "peak_value": 2 * v, "warmup_steps": 5, "decay_steps": 20}]),
    "warm-up, constant": lambda v: gradtx.warmup_constant_schedule(v / 10, v, 20),
    "warm-up, cosine": lambda v: gradtx.warmup_cosine_decay_schedule(v / 10, v, 20, 50, v / 5, v),
    "warm-up, exponential": lambda v: gradtx.warmup_exponential_decay_schedule(v / 10, v, 20, 10, v / 2),
    "warm-up, stable, decay": lambda v: gradtx.warmup_stable_decay_schedule(v / 10, v, 5, 5, 20, v / 5),
    "piecewise constant": lambda v: gradtx.piecewise_constant_schedule(v, {10: v}),
    "piecewise cosine": lambda v: gradtx.piecewise_interpolate_schedule("cosine", v, {10: v, 40: 0.5}),
    "linear one-cycle": lambda v: gradtx.linear_onecycle_schedule(50, v, div_factor=10 * v, final_div_factor=v),
    "cosine one-cycle": lambda v: gradtx.cosine_onecycle_schedule(50, v, div_factor=10 * v, final_div_factor=v),
    "joined": lambda v: gradtx.join_schedules([gradtx.constant_schedule(v), gradtx.linear_schedule(v, 0.0, 20)], [15]),
}


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in TRACED.items()])
def test_hyperparameters_may_be_traced(make: Callable[[Any], Any]) -> None:
    """A sweep is one `vmap`; every hyperparameter that is no number of steps can be in it."""
    rates, t = (0.5, 1.25), 27
    swept = jax.vmap(lambda v: make(v)(t))(jnp.array(rates))
    np.testing.assert_allclose(swept, [make(v)(t) for v in rates], rtol=3e-6)
    grid = jax.jit(jax.vmap(jax.vmap(lambda v, t: make(v)(t), (None, 0)), (0, None)))(jnp.array(rates), jnp.arange(4))
    assert (grid.shape, grid.dtype) == ((2, 4), jnp.float32)


def test_half_precision_hyperparameters_are_computed_in_float32() -> None:
    half = jnp.bfloat16(0.1)
    value = gradtx.linear_onecycle_schedule(100, half, div_factor=jnp.bfloat16(3))(0)
    np.testing.assert_allclose(value, float(half) / 3, rtol=1e-6)
    value = gradtx.piecewise_constant_schedule(half, {0: half})(0)
    np.testing.assert_allclose(value, float(half) ** 2, rtol=1e-6)


def test_gradient_with_respect_to_hyperparameters() -> None:
    for count in (0, 25, 50, 99):
        gradient = jax.grad(lambda v, count=count: gradtx.cosine_decay_schedule(v, 50, 0.1, v)(count))(1.0)
        assert jnp.isfinite(gradient)
