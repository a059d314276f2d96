"""Schedules: closed forms in float64, Optax, PyTorch, and the promises that every schedule keeps."""

import itertools
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import schedules

LAST = 2**31 - 1
GOLDEN = json.loads((Path(__file__).parent / "golden" / "torch_schedules.json").read_text())["table"]


class Case(NamedTuple):
    """A schedule, made by gradtx or Optax, its closed form in Python floats, and its largest hyperparameter."""

    make: Callable[[Any], Any]
    value: Callable[[int], float]
    size: float = 1.0


def line(a: float, b: float, part: float) -> float:
    return a + (b - a) * min(max(part, 0.0), 1.0)


def cosine(a: float, b: float, part: float, exponent: float = 1.0) -> float:
    return b + (a - b) * ((1 + math.cos(math.pi * min(max(part, 0.0), 1.0))) / 2) ** exponent


def warm(t: int, a: float, b: float, steps: int, after: Callable[[int], float]) -> float:
    return line(a, b, t / steps) if t < steps else after(t - steps)


def interpolated(t: int, way: Callable[..., float], points: list[tuple[int, float]]) -> float:
    for (begin, a), (end, b) in itertools.pairwise(points):
        if begin <= t < end:
            return way(a, b, (t - begin) / (end - begin))
    return points[-1][1]


CYCLES = [
    {"init_value": 0.1, "peak_value": 1.0, "warmup_steps": 5, "decay_steps": 20},
    {"init_value": 0.0, "peak_value": 0.5, "warmup_steps": 0, "decay_steps": 30, "end_value": 0.05, "exponent": 2.0},
]


def sgdr(t: int) -> float:
    if t < 20:
        return warm(t, 0.1, 1.0, 5, lambda s: cosine(1.0, 0.0, s / 15))
    return cosine(0.5, 0.05, (t - 20) / 30, 2.0)


SHARED = {
    "constant": Case(lambda lib: lib.constant_schedule(0.3), lambda t: 0.3),
    "linear": Case(lambda lib: lib.linear_schedule(1.0, 0.1, 50, 10), lambda t: line(1.0, 0.1, (t - 10) / 50)),
    "linear up": Case(lambda lib: lib.linear_schedule(0.1, 1.0, 50), lambda t: line(0.1, 1.0, t / 50)),
    "polynomial": Case(
        lambda lib: lib.polynomial_schedule(1.0, 0.1, 2.5, 50, 10), lambda t: 0.1 + 0.9 * (1 - line(0, 1, (t - 10) / 50)) ** 2.5
    ),
    "root": Case(lambda lib: lib.polynomial_schedule(1.0, 0.0, 0.5, 50), lambda t: (1 - line(0, 1, t / 50)) ** 0.5),
    "exponential": Case(
        lambda lib: lib.exponential_decay(1.0, 7, 0.9, transition_begin=5, end_value=0.2),
        lambda t: max(0.2, 0.9 ** (max(t - 5, 0) / 7)),
    ),
    "exponential stairs": Case(lambda lib: lib.exponential_decay(1.0, 7, 0.9, staircase=True), lambda t: 0.9 ** (t // 7)),
    "exponential growth": Case(
        lambda lib: lib.exponential_decay(1.0, 7, 1.1, end_value=3.0), lambda t: min(3.0, 1.1 ** (t / 7)), 3.0
    ),
    "cosine": Case(lambda lib: lib.cosine_decay_schedule(1.0, 50), lambda t: cosine(1.0, 0.0, t / 50)),
    "cosine, floor and exponent": Case(
        lambda lib: lib.cosine_decay_schedule(0.5, 50, 0.1, 1.5), lambda t: cosine(0.5, 0.05, t / 50, 1.5), 0.5
    ),
    "piecewise constant": Case(
        lambda lib: lib.piecewise_constant_schedule(1.0, {60: 0.5, 30: 0.1}),
        lambda t: 1.0 * (0.1 if t >= 30 else 1) * (0.5 if t >= 60 else 1),
    ),
    "piecewise constant, none": Case(lambda lib: lib.piecewise_constant_schedule(0.7), lambda t: 0.7),
    "piecewise linear": Case(
        lambda lib: lib.piecewise_interpolate_schedule("linear", 1.0, {60: 0.5, 30: 0.1}),
        lambda t: interpolated(t, line, [(0, 1.0), (30, 0.1), (60, 0.05)]),
    ),
    "piecewise cosine": Case(
        lambda lib: lib.piecewise_interpolate_schedule("cosine", 1.0, {30: 0.1, 60: 2.0}),
        lambda t: interpolated(t, cosine, [(0, 1.0), (30, 0.1), (60, 0.2)]),
    ),
    "warm-up, constant": Case(lambda lib: lib.warmup_constant_schedule(0.1, 1.0, 30), lambda t: line(0.1, 1.0, t / 30)),
    "warm-up, cosine": Case(
        lambda lib: lib.warmup_cosine_decay_schedule(0.1, 1.0, 30, 100, 0.01, 1.5),
        lambda t: warm(t, 0.1, 1.0, 30, lambda s: cosine(1.0, 0.01, s / 70, 1.5)),
    ),
    "warm-up of 0, cosine": Case(
        lambda lib: lib.warmup_cosine_decay_schedule(0.1, 1.0, 0, 100), lambda t: cosine(1.0, 0.0, t / 100)
    ),
    "warm-up, exponential": Case(
        lambda lib: lib.warmup_exponential_decay_schedule(0.1, 1.0, 30, 20, 0.5, 10, True, 0.05),
        lambda t: warm(t, 0.1, 1.0, 30, lambda s: max(0.05, 0.5 ** (max(s - 10, 0) // 20))),
    ),
    "cosine one-cycle": Case(
        lambda lib: lib.cosine_onecycle_schedule(100, 1.0),
        lambda t: interpolated(t, cosine, [(0, 0.04), (30, 1.0), (100, 4e-6)]),
    ),
    "linear one-cycle": Case(
        lambda lib: lib.linear_onecycle_schedule(100, 1.0, 0.25, 0.8, 10.0, 100.0),
        lambda t: interpolated(t, line, [(0, 0.1), (25, 1.0), (80, 0.1), (100, 1e-3)]),
    ),
    "sgdr": Case(lambda lib: lib.sgdr_schedule(CYCLES), sgdr),
    "joined": Case(
        lambda lib: lib.join_schedules([lib.linear_schedule(0.0, 1.0, 20), lib.exponential_decay(1.0, 10, 0.5)], [30]),
        lambda t: line(0.0, 1.0, t / 20) if t < 30 else 0.5 ** ((t - 30) / 10),
    ),
}

OWN = {
    "natural exponential": Case(lambda lib: lib.natural_exponential_decay(1.0, 0.03), lambda t: math.exp(-0.03 * t)),
    "steps": Case(lambda lib: lib.step_decay_schedule(1.0, 30), lambda t: 0.1 ** (t // 30)),
    "cosine annealing": Case(lambda lib: lib.cosine_annealing_schedule(1.0, 50, 0.2), lambda t: cosine(1.0, 0.2, t / 50)),
    "inverse root": Case(lambda lib: lib.inverse_sqrt_schedule(1.0), lambda t: 1 / math.sqrt(t + 1)),
    "inverse root, warm-up": Case(
        lambda lib: lib.inverse_sqrt_schedule(1.0, 24, 0.1),
        lambda t: line(0.1, 1.0, t / 24) if t < 24 else math.sqrt(25 / (t + 1)),
    ),
    "warm-up, stable, decay": Case(
        lambda lib: lib.warmup_stable_decay_schedule(0.1, 1.0, 10, 60, 30, 0.01),
        lambda t: interpolated(t, line, [(0, 0.1), (10, 1.0), (70, 1.0), (100, 0.01)]),
    ),
}

ALL = SHARED | OWN
COUNTS = np.arange(120)
EVERY = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in ALL.items()])


def close(actual: Any, case: Case, counts: Any, error: float) -> None:
    expected = np.array([case.value(int(t)) for t in counts])
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=0, atol=error * case.size)


def test_every_schedule_has_a_case() -> None:
    names = {name for name, value in vars(schedules).items() if getattr(value, "__gradtx_factory__", False)}
    assert {case.make(gradtx).call.factory.__name__ for case in ALL.values()} == names
    assert {case.make(gradtx).call.factory.__name__ for case in SHARED.values()} == {n for n in names if hasattr(optax, n)}
    assert all(getattr(gradtx, name) is getattr(schedules, name) for name in names)


# Values ---------------------------------------------------------------------------------------------------


@EVERY
def test_closed_form(case: Case) -> None:
    close(case.make(gradtx)(jnp.arange(120)), case, COUNTS, 1e-6)


@EVERY
def test_closed_form_in_float64(case: Case) -> None:
    with jax.enable_x64(True):
        values = case.make(gradtx)(jnp.arange(120))
        assert values.dtype == jnp.float64
        close(values, case, COUNTS, 1e-14)


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in SHARED.items()])
def test_same_as_optax(case: Case) -> None:
    ours = case.make(gradtx)(jnp.arange(120))
    theirs = jax.vmap(case.make(optax))(jnp.arange(120))
    np.testing.assert_allclose(ours, jnp.broadcast_to(jnp.asarray(theirs), ours.shape), rtol=0, atol=1e-6 * case.size)


GOLDEN_CASES = {
    "schedule_cosine": lambda h: gradtx.cosine_annealing_schedule(h["init"], h["decay_steps"], h["end"]),
    "schedule_exponential": lambda h: gradtx.exponential_decay(h["init"], 1, h["decay"]),
    "schedule_step": lambda h: gradtx.step_decay_schedule(h["init"], h["every"], h["factor"]),
    "schedule_linear": lambda h: gradtx.linear_schedule(h["init"], h["init"] * h["end_factor"], h["steps"]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_same_as_torch(name: str) -> None:
    """PyTorch's list begins at step 0; its cosine rises again after the end, so it is compared up to there."""
    hyperparameters, expected = GOLDEN[name]["hyperparameters"], GOLDEN[name]["learning_rate"]
    if name == "schedule_cosine":
        expected = expected[: hyperparameters["decay_steps"] + 1]
    with jax.enable_x64(True):
        actual = GOLDEN_CASES[name](hyperparameters)(jnp.arange(len(expected)))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-10)


def test_resnet_milestones() -> None:
    schedule = gradtx.piecewise_constant_schedule(0.1, {epoch * 1000: 0.1 for epoch in (30, 60, 90)})
    counts = jnp.array([0, 29_999, 30_000, 59_999, 60_000, 90_000])
    np.testing.assert_allclose(schedule(counts), [0.1, 0.1, 0.01, 0.01, 0.001, 0.0001], rtol=1e-6)


def test_ends_are_exact() -> None:
    """No rounding at step 0, at a peak, on a plateau and at the end."""
    schedule = gradtx.warmup_stable_decay_schedule(1e-7, 0.3, 7, 20, 11, 1e-5)
    assert schedule(0) == jnp.float32(1e-7)
    assert (schedule(jnp.arange(7, 28)) == jnp.float32(0.3)).all()
    assert (schedule(jnp.array([38, 39, LAST])) == jnp.float32(1e-5)).all()
    assert gradtx.cosine_annealing_schedule(0.3, 7, 1e-5)(jnp.array([0, 7])).tolist() == [jnp.float32(0.3), jnp.float32(1e-5)]


# Counts ---------------------------------------------------------------------------------------------------


@EVERY
def test_every_kind_of_count_agrees(case: Case) -> None:
    schedule = case.make(gradtx)
    counts = jnp.arange(120)
    values = schedule(counts)
    assert (values.shape, values.dtype, values.weak_type) == ((120,), jnp.float32, False)
    t = 37
    for one in (t, np.int64(t), np.uint8(t), np.array(t), 37.0, np.float64(37), jnp.int32(t), jnp.uint32(t), jnp.bfloat16(t)):
        value = schedule(one)
        assert (value.shape, value.dtype, value.weak_type) == ((), jnp.float32, False)
        np.testing.assert_allclose(value, values[t], rtol=0, atol=1e-6 * case.size)
    for many in (np.arange(120), counts.astype(jnp.uint32), counts.astype(jnp.float32)):
        np.testing.assert_allclose(schedule(many), values, rtol=0, atol=1e-6 * case.size)
    np.testing.assert_allclose(jax.jit(schedule)(counts), values, rtol=0, atol=1e-6 * case.size)
    np.testing.assert_allclose(jax.jit(jax.vmap(schedule))(counts), values, rtol=0, atol=1e-6 * case.size)


def test_counts_outside_are_taken_as_the_nearest() -> None:
    schedule = gradtx.linear_schedule(1.0, 0.0, LAST)
    assert schedule(-5) == schedule(np.int64(-5)) == schedule(jnp.int32(-5)) == schedule(-5.0) == 1
    assert schedule(2**40) == schedule(np.int64(2**40)) == schedule(jnp.uint32(2**32 - 1)) == 0
    assert (schedule(jnp.array([0, 2**32 - 1], jnp.uint32)) == jnp.array([1, 0])).all()


def test_int64_and_uint64_counts() -> None:
    with jax.enable_x64(True):
        schedule = gradtx.linear_schedule(1.0, 0.0, 100)
        for dtype in (jnp.int64, jnp.uint64):
            assert schedule(jnp.array([0, 25, 2**40], dtype)).tolist() == [1.0, 0.75, 0.0]


@pytest.mark.parametrize("dtype", [np.int32, np.uint64])
def test_steps_may_be_numpy_integers(dtype: Any) -> None:
    a, b, c = map(dtype, (10**9, 2 * 10**9, 147_483_647))
    counts = jnp.array([0, 999_999_999, 10**9, 10**9 + 1, 1_999_999_999, 2 * 10**9, LAST])
    for make in (
        lambda a, b, c: gradtx.linear_schedule(1.0, 0.0, a, b),
        lambda a, b, c: gradtx.exponential_decay(1.0, a, 0.5, a, staircase=True),
        lambda a, b, c: gradtx.step_decay_schedule(1.0, a),
        lambda a, b, c: gradtx.inverse_sqrt_schedule(1.0, b),
        lambda a, b, c: gradtx.warmup_cosine_decay_schedule(0.0, 1.0, a, b),
        lambda a, b, c: gradtx.warmup_stable_decay_schedule(0.0, 1.0, a, a, c),
        lambda a, b, c: gradtx.piecewise_interpolate_schedule("cosine", 1.0, {a: 0.1, b: 0.5}),
        lambda a, b, c: gradtx.join_schedules([gradtx.constant_schedule(v) for v in (1.0, 2.0, 3.0)], [a, b]),
    ):
        np.testing.assert_array_equal(make(a, b, c)(counts), make(int(a), int(b), int(c))(counts))


BIG = 2_000_000_011
LARGE = {
    "linear": Case(lambda lib: lib.linear_schedule(1.0, 0.0, LAST), lambda t: 1 - t / LAST),
    "linear, late": Case(lambda lib: lib.linear_schedule(1.0, 0.0, 7, LAST - 9), lambda t: line(1.0, 0.0, (t - (LAST - 9)) / 7)),
    "root": Case(lambda lib: lib.polynomial_schedule(1.0, 0.0, 0.5, LAST), lambda t: (1 - t / LAST) ** 0.5),
    "exponential": Case(lambda lib: lib.exponential_decay(1.0, 1, 1 - 1e-9), lambda t: math.exp(t * math.log1p(-1e-9))),
    "exponential stairs": Case(
        lambda lib: lib.exponential_decay(1.0, 10**9, 0.5, transition_begin=BIG - 10**9, staircase=True),
        lambda t: 0.5 ** (max(t - (BIG - 10**9), 0) // 10**9),
    ),
    "natural exponential": Case(lambda lib: lib.natural_exponential_decay(1.0, 1e-9), lambda t: math.exp(-1e-9 * t)),
    "steps": Case(lambda lib: lib.step_decay_schedule(1.0, BIG, 0.5), lambda t: 0.5 ** (t // BIG)),
    "inverse root": Case(
        lambda lib: lib.inverse_sqrt_schedule(1.0, BIG), lambda t: t / BIG if t < BIG else math.sqrt((BIG + 1) / (t + 1))
    ),
    "cosine": Case(lambda lib: lib.cosine_decay_schedule(1.0, LAST), lambda t: cosine(1.0, 0.0, t / LAST)),
    "cosine, root": Case(
        lambda lib: lib.cosine_decay_schedule(1.0, LAST, 0.0, 0.5), lambda t: math.sin(math.pi / 2 * (LAST - t) / LAST)
    ),
    "warm-up, cosine": Case(
        lambda lib: lib.warmup_cosine_decay_schedule(0.0, 1.0, BIG, LAST),
        lambda t: warm(t, 0.0, 1.0, BIG, lambda s: cosine(1.0, 0.0, s / (LAST - BIG))),
    ),
    "piecewise constant": Case(
        lambda lib: lib.piecewise_constant_schedule(1.0, {BIG: 0.5, LAST: 0.5}), lambda t: 0.5 ** ((t >= BIG) + (t >= LAST))
    ),
    "piecewise linear": Case(
        lambda lib: lib.piecewise_interpolate_schedule("linear", 1.0, {BIG: 0.5, LAST: 0.5}),
        lambda t: interpolated(t, line, [(0, 1.0), (BIG, 0.5), (LAST, 0.25)]),
    ),
    "joined": Case(
        lambda lib: lib.join_schedules([lib.constant_schedule(1.0), lib.linear_schedule(1.0, 0.0, 10)], [BIG]),
        lambda t: line(1.0, 0.0, (t - BIG) / 10),
    ),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in LARGE.items()])
def test_large_counts(case: Case) -> None:
    near = [t + d for t in (2**24, 10**9, BIG - 10**9, BIG, LAST - 9) for d in (-1, 0, 1, 3, 7)]
    counts = np.array([0, 1, 2, *near, LAST - 1, LAST], np.int32)
    schedule = case.make(gradtx)
    close(schedule(counts), case, counts, 1e-6)
    close(jax.jit(schedule)(counts), case, counts, 1e-6)
    close([schedule(int(t)) for t in (BIG, LAST)], case, np.array([BIG, LAST]), 1e-6)


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


# Faults seen elsewhere ------------------------------------------------------------------------------------


def test_warm_up_of_no_steps_begins_at_the_peak() -> None:
    for schedule in (
        gradtx.warmup_constant_schedule(0.0, 1.0, 0),
        gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 0, 10),
        gradtx.warmup_exponential_decay_schedule(0.0, 1.0, 0, 10, 0.5),
        gradtx.warmup_stable_decay_schedule(0.0, 1.0, 0, 0, 10),
        gradtx.inverse_sqrt_schedule(1.0, 0, 0.0),
        gradtx.join_schedules([gradtx.constant_schedule(0.0), gradtx.constant_schedule(1.0)], [0]),
    ):
        assert schedule(0) == 1


def test_decay_close_to_one_keeps_its_digits() -> None:
    value = gradtx.exponential_decay(1.0, 1, 0.99999)(100_000)
    np.testing.assert_allclose(value, 0.99999**100_000, rtol=0, atol=1e-6)


def test_cosine_does_not_overflow_under_jit() -> None:
    schedule = gradtx.cosine_decay_schedule(1.0, 3_000_000_000 // 2)
    value = jax.jit(schedule)(jnp.int32(750_000_000))
    np.testing.assert_allclose(value, 0.5, atol=1e-6)


@pytest.mark.parametrize("more", [{}, {10: 0.5}])
def test_boundary_at_zero_applies_from_step_zero(more: dict[int, float]) -> None:
    constant = gradtx.piecewise_constant_schedule(1.0, {0: 0.1, **more})
    moving = gradtx.piecewise_interpolate_schedule("linear", 1.0, {0: 0.1, **more})
    np.testing.assert_allclose([constant(0), moving(0), constant(1)], 0.1, rtol=1e-6)
    np.testing.assert_allclose(moving(5), 0.075 if more else 0.1, rtol=1e-6)


def test_one_cycle_of_few_steps_is_finite_and_ends_low() -> None:
    for steps in (1, 2, 3):
        values = gradtx.linear_onecycle_schedule(steps, 1.0)(jnp.arange(steps + 2))
        assert ((values > 0) & (values <= 1)).all()
        np.testing.assert_allclose(values[steps:], 4e-6, rtol=1e-6)


def test_end_value_counts_where_the_peak_is_zero() -> None:
    np.testing.assert_allclose(gradtx.warmup_cosine_decay_schedule(0.0, 0.0, 2, 10, end_value=0.5)(10), 0.5)


def test_plain_functions_and_optax_schedules_can_be_joined() -> None:
    schedule = gradtx.join_schedules(
        [lambda t: 1 / (t + 1), optax.constant_schedule(0.25), optax.linear_schedule(1.0, 0.0, 4)], [4, 6]
    )
    values = schedule(jnp.arange(12))
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, [1, 1 / 2, 1 / 3, 1 / 4, 0.25, 0.25, 1, 0.75, 0.5, 0.25, 0, 0], rtol=1e-6)


def test_unused_branch_of_a_join_cannot_poison_a_gradient() -> None:
    root = lambda t: jnp.sqrt(t * 1.0)  # noqa: E731
    schedule = gradtx.join_schedules([gradtx.constant_schedule(1.0), root], [10])
    assert schedule(3) == 1
    assert schedule(14) == 2


# Errors ---------------------------------------------------------------------------------------------------

S = gradtx.constant_schedule(1.0)
CYCLE = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 10}
NATURAL, WHOLE = r"expected a whole number >= 1 \(and < 2\*\*31\)", r"expected a whole number >= 0 \(and < 2\*\*31\)"

ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: gradtx.linear_schedule(1.0, 0.0, 0),
        ValueError,
        rf"linear_schedule: transition_steps is 0 \(int\), {NATURAL}. For no steps at all use constant_schedule\(value\).",
    ),
    (lambda: gradtx.linear_schedule(1.0, 0.0, -3), ValueError, rf"transition_steps is -3 \(int\), {NATURAL}\.$"),
    (
        lambda: gradtx.linear_schedule(1.0, 0.0, 1e3),
        ValueError,
        rf"is 1000.0 \(float\), {NATURAL}. Steps are whole: int\(1000.0\).",
    ),
    (lambda: gradtx.linear_schedule(1.0, 0.0, 2**31), ValueError, rf"transition_steps is 2147483648 \(int\), {NATURAL}"),
    (lambda: gradtx.linear_schedule(1.0, 0.0, True), TypeError, rf"transition_steps is True \(bool\), {NATURAL}"),
    (lambda: gradtx.linear_schedule(1.0, 0.0, 5, -1), ValueError, rf"transition_begin is -1 \(int\), {WHOLE}"),
    (lambda: gradtx.linear_schedule(math.nan, 0.0, 5), ValueError, r"init_value is nan \(float\), expected a finite number"),
    (
        lambda: gradtx.linear_schedule("1", 0.0, 5),
        TypeError,
        r"init_value is '1' \(str\), expected a finite number. A number is wanted",
    ),
    (lambda: gradtx.constant_schedule(None), TypeError, "constant_schedule: value is None, expected a finite number"),
    (
        lambda: gradtx.polynomial_schedule(1.0, 0.0, 0, 5),
        ValueError,
        r"polynomial_schedule: power is 0 \(int\), expected a number > 0",
    ),
    (
        lambda: gradtx.polynomial_schedule(1.0, 0.0, 1, 0),
        ValueError,
        rf"polynomial_schedule: transition_steps is 0 \(int\), {NATURAL}",
    ),
    (
        lambda: gradtx.exponential_decay(1.0, 5, 0.0),
        ValueError,
        r"exponential_decay: decay_rate is 0.0 \(float\), expected a number > 0",
    ),
    (lambda: gradtx.exponential_decay(1.0, 0, 0.5), ValueError, rf"exponential_decay: transition_steps is 0 \(int\), {NATURAL}"),
    (lambda: gradtx.exponential_decay(1.0, 5, 0.5, 0, 1), TypeError, r"staircase is 1 \(int\), expected True or False"),
    (
        lambda: gradtx.exponential_decay(1.0, 5, 0.5, end_value="x"),
        TypeError,
        "end_value is 'x' .*, expected a finite number, or None",
    ),
    (
        lambda: gradtx.natural_exponential_decay(1.0, -0.1),
        ValueError,
        r"natural_exponential_decay: decay_rate is -0.1 \(float\), expected a number >= 0",
    ),
    (lambda: gradtx.step_decay_schedule(1.0, 0), ValueError, rf"step_decay_schedule: step_size is 0 \(int\), {NATURAL}"),
    (lambda: gradtx.inverse_sqrt_schedule(1.0, -1), ValueError, rf"inverse_sqrt_schedule: warmup_steps is -1 \(int\), {WHOLE}"),
    (lambda: gradtx.cosine_decay_schedule(1.0, 0), ValueError, rf"cosine_decay_schedule: decay_steps is 0 \(int\), {NATURAL}"),
    (lambda: gradtx.cosine_decay_schedule(1.0, 5, exponent=-1), ValueError, r"exponent is -1 \(int\), expected a number > 0"),
    (
        lambda: gradtx.cosine_annealing_schedule(1.0, 0),
        ValueError,
        rf"cosine_annealing_schedule: decay_steps is 0 \(int\), {NATURAL}",
    ),
    (lambda: gradtx.cosine_decay_schedule(1.0, decay_step=5), TypeError, "cosine_decay_schedule: .* Did you mean 'decay_steps'?"),
    (
        lambda: gradtx.warmup_constant_schedule(0.0, 1.0, -1),
        ValueError,
        rf"warmup_constant_schedule: warmup_steps is -1 \(int\), {WHOLE}",
    ),
    (
        lambda: gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 10),
        ValueError,
        r"warmup_cosine_decay_schedule: decay_steps is 10, expected more than warmup_steps \(10\). "
        "decay_steps is the length of the whole, warm-up included.",
    ),
    (
        lambda: gradtx.warmup_exponential_decay_schedule(0.0, 1.0, 1.5, 10, 0.5),
        ValueError,
        rf"warmup_exponential_decay_schedule: warmup_steps is 1.5 \(float\), {WHOLE}. Steps are whole: int\(1.5\).",
    ),
    (
        lambda: gradtx.warmup_exponential_decay_schedule(0.0, 1.0, 5, 10, -0.5),
        ValueError,
        r"warmup_exponential_decay_schedule: decay_rate is -0.5 \(float\), expected a number > 0",
    ),
    (lambda: gradtx.warmup_stable_decay_schedule(0.0, 1.0, 1, 1, 0), ValueError, rf"decay_steps is 0 \(int\), {NATURAL}"),
    (
        lambda: gradtx.warmup_stable_decay_schedule(0.0, 1.0, 2**30, 2**30, 5),
        ValueError,
        rf"warmup_stable_decay_schedule: the sum of all steps is 2147483653 \(int\), {NATURAL}",
    ),
    (
        lambda: gradtx.sgdr_schedule([]),
        ValueError,
        "sgdr_schedule: cosine_kwargs is a list of 0, expected a list of dicts, one for each cycle.",
    ),
    (
        lambda: gradtx.sgdr_schedule(CYCLE),
        TypeError,
        "sgdr_schedule: cosine_kwargs is a dict with keys 'init_value', .*, expected a list",
    ),
    (lambda: gradtx.sgdr_schedule(c for c in [CYCLE]), TypeError, "cosine_kwargs is a generator, expected a list of dicts"),
    (
        lambda: gradtx.sgdr_schedule([CYCLE, 5]),
        TypeError,
        r"sgdr_schedule: cosine_kwargs\[1\] is 5 \(int\), expected a dict of arguments",
    ),
    (
        lambda: gradtx.sgdr_schedule([CYCLE, CYCLE | {"decay_steps": 2}]),
        ValueError,
        r"sgdr_schedule: cosine_kwargs\[1\]: warmup_cosine_decay_schedule: decay_steps is 2, expected more than warmup_steps \(2\)",
    ),
    (
        lambda: gradtx.sgdr_schedule([{"init_value": 0.0}]),
        TypeError,
        r"sgdr_schedule: cosine_kwargs\[0\]: warmup_cosine_decay_schedule: missing a required argument: 'peak_value'",
    ),
    (
        lambda: gradtx.sgdr_schedule([CYCLE | {"decay_steps": 2**30}] * 2),
        ValueError,
        rf"sgdr_schedule: the sum of all decay_steps is 2147483648 \(int\), {NATURAL}",
    ),
    (
        lambda: gradtx.linear_onecycle_schedule(100, 1.0, 0.5, 0.4),
        ValueError,
        r"linear_onecycle_schedule: pct_final is 0.4, expected at least pct_start \(0.5\).",
    ),
    (
        lambda: gradtx.linear_onecycle_schedule(100, 1.0, 30),
        ValueError,
        r"linear_onecycle_schedule: pct_start is 30 \(int\), expected a number in \[0, 1\], not traced",
    ),
    (
        lambda: gradtx.cosine_onecycle_schedule(0, 1.0),
        ValueError,
        rf"cosine_onecycle_schedule: transition_steps is 0 \(int\), {NATURAL}",
    ),
    (
        lambda: gradtx.cosine_onecycle_schedule(9, 1.0, div_factor=0.0),
        ValueError,
        r"div_factor is 0.0 \(float\), expected a number > 0",
    ),
    (
        lambda: gradtx.piecewise_constant_schedule(1.0, {5: -0.1}),
        ValueError,
        r"piecewise_constant_schedule: boundaries_and_scales\[5\] is -0.1 \(float\), expected a number >= 0",
    ),
    (
        lambda: gradtx.piecewise_constant_schedule(1.0, {2.5: 0.1}),
        ValueError,
        rf"piecewise_constant_schedule: a key of boundaries_and_scales is 2.5 \(float\), {WHOLE}. Steps are whole: int\(2.5\).",
    ),
    (
        lambda: gradtx.piecewise_constant_schedule(1.0, [(5, 0.1)]),
        TypeError,
        "piecewise_constant_schedule: boundaries_and_scales is a list of 1, expected a dict from steps to factors, or None.",
    ),
    (
        lambda: gradtx.piecewise_interpolate_schedule("linear", 1.0, {-5: 0.1}),
        ValueError,
        rf"piecewise_interpolate_schedule: a key of boundaries_and_scales is -5 \(int\), {WHOLE}",
    ),
    (
        lambda: gradtx.piecewise_interpolate_schedule("linaer", 1.0, {5: 0.1}),
        ValueError,
        r"interpolate_type is 'linaer' \(str\), expected 'linear' or 'cosine'. Did you mean 'linear'\?",
    ),
    (
        lambda: gradtx.piecewise_interpolate_schedule(1.0, 1.0, {5: 0.1}),
        ValueError,
        r"piecewise_interpolate_schedule: interpolate_type is 1.0 \(float\), expected 'linear' or 'cosine'.",
    ),
    (lambda: gradtx.join_schedules([], []), TypeError, "join_schedules: schedules is a list of 0, expected a list of schedules."),
    (lambda: gradtx.join_schedules(S, []), TypeError, "join_schedules: schedules is a Function, expected a list of schedules."),
    (
        lambda: gradtx.join_schedules([S, gradtx.constant_schedule], [5]),
        TypeError,
        r"join_schedules: schedules\[1\] is the function constant_schedule, expected a schedule .* This is the factory itself",
    ),
    (lambda: gradtx.join_schedules([S, 0.1], [5]), TypeError, r"schedules\[1\] is 0.1 \(float\), expected a schedule"),
    (
        lambda: gradtx.join_schedules([S, S], [5, 10]),
        ValueError,
        r"join_schedules: boundaries is \[5, 10\], expected 1 of them, one fewer than the schedules. "
        "The first schedule begins at step 0, without a boundary.",
    ),
    (lambda: gradtx.join_schedules([S, S], []), ValueError, r"boundaries is \[\], expected 1 of them"),
    (
        lambda: gradtx.join_schedules([S, S, S], [20, 10]),
        ValueError,
        r"join_schedules: boundaries is \[20, 10\], expected whole numbers >= 0 \(and < 2\*\*31\) that increase.",
    ),
    (lambda: gradtx.join_schedules([S, S, S], [10, 10]), ValueError, r"boundaries is \[10, 10\], expected .* that increase"),
    (lambda: gradtx.join_schedules([S, S], [-1]), ValueError, r"boundaries is \[-1\], expected whole numbers >= 0"),
    (lambda: gradtx.join_schedules([S, S], [2.5]), ValueError, r"boundaries is \[2.5\], expected whole numbers >= 0"),
    (lambda: gradtx.join_schedules([S, S], 5), ValueError, "boundaries is 5, expected whole numbers >= 0"),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS)
def test_errors(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
