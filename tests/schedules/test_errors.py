"""Errors of schedules."""

import math
from collections.abc import Callable
from typing import Any

import pytest

import gradtx

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
        r"polynomial_schedule: power is 0 \(int\), expected a finite number > 0",
    ),
    (
        lambda: gradtx.polynomial_schedule(1.0, 0.0, 1, 0),
        ValueError,
        rf"polynomial_schedule: transition_steps is 0 \(int\), {NATURAL}",
    ),
    (
        lambda: gradtx.exponential_decay(1.0, 5, 0.0),
        ValueError,
        r"exponential_decay: decay_rate is 0.0 \(float\), expected a finite number > 0",
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
        r"natural_exponential_decay: decay_rate is -0.1 \(float\), expected a finite number >= 0",
    ),
    (lambda: gradtx.step_decay_schedule(1.0, 0), ValueError, rf"step_decay_schedule: step_size is 0 \(int\), {NATURAL}"),
    (
        lambda: gradtx.cooldown_schedule(-1.0, 1, 2),
        ValueError,
        r"cooldown_schedule: schedule is -1.0 \(float\), expected a finite number >= 0, or",
    ),
    (lambda: gradtx.cooldown_schedule(1.0, -1, 2), ValueError, rf"cooldown_schedule: begin is -1 \(int\), {WHOLE}"),
    (
        lambda: gradtx.cooldown_schedule(1.0, 1, 2, 0.0),
        ValueError,
        r"cooldown_schedule: power is 0.0 \(float\), expected a finite number > 0",
    ),
    (
        lambda: gradtx.inverse_power_schedule(1.0, 0.0),
        ValueError,
        r"inverse_power_schedule: power is 0.0 \(float\), expected a finite number > 0",
    ),
    (lambda: gradtx.inverse_sqrt_schedule(1.0, -1), ValueError, rf"inverse_sqrt_schedule: warmup_steps is -1 \(int\), {WHOLE}"),
    (lambda: gradtx.cosine_decay_schedule(1.0, 0), ValueError, rf"cosine_decay_schedule: decay_steps is 0 \(int\), {NATURAL}"),
    (
        lambda: gradtx.cosine_decay_schedule(1.0, 5, exponent=-1),
        ValueError,
        r"exponent is -1 \(int\), expected a finite number > 0",
    ),
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
        r"warmup_exponential_decay_schedule: decay_rate is -0.5 \(float\), expected a finite number > 0",
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
        r"div_factor is 0.0 \(float\), expected a finite number > 0",
    ),
    (
        lambda: gradtx.piecewise_constant_schedule(1.0, {5: -0.1}),
        ValueError,
        r"piecewise_constant_schedule: boundaries_and_scales\[5\] is -0.1 \(float\), expected a finite number >= 0",
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
    (
        lambda: gradtx.join_schedules(S, []),
        TypeError,
        r"join_schedules: schedules is constant_schedule\(value=1.0\), expected a list of schedules.",
    ),
    (
        lambda: gradtx.join_schedules([S, gradtx.constant_schedule], [5]),
        TypeError,
        r"join_schedules: schedules\[1\] is the class constant_schedule, expected a schedule .* This is the factory itself",
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
