"""One row for each schedule: how gradtx and Optax make it, and its closed form."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

LAST = 2**31 - 1


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
    "inverse power": Case(lambda lib: lib.inverse_power_schedule(1.0, 0.75), lambda t: (t + 1) ** -0.75),
    "cool-down": Case(lambda lib: lib.cooldown_schedule(1.0, 40, 50), lambda t: 1 - line(0, 1, (t - 40) / 50) ** 0.5),
    "cool-down of a schedule": Case(
        lambda lib: lib.cooldown_schedule(lib.inverse_sqrt_schedule(1.0), 40, 50, 2.0, 0.1),
        lambda t: (1 - 0.9 * line(0, 1, (t - 40) / 50) ** 2) / math.sqrt(t + 1),
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
