"""Schedules of every kind and size of count."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from schedule_cases import EVERY, LAST, Case, close, cosine, interpolated, line, warm

import gradtx

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
