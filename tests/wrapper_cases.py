"""Rows of the factories that take a transformation and give one; `cases.CASES` holds them with all others."""

from typing import Any

from case import B2, BETA, DECAY, EPS, GRAD_FN, RATE, Case, half_squares, same_updates

import gradtx
from gradtx.wrappers.adversarial import sam
from gradtx.wrappers.lookahead import lookahead
from gradtx.wrappers.multi_steps import MultiSteps
from gradtx.wrappers.nonfinite import apply_if_finite

Bad = tuple[dict[str, Any], str]


def around(*bad: Bad, name: str = "inner", **needed: Any) -> tuple[Bad, ...]:
    """Bad arguments of a wrapper, each beside valid ones; the first is a transformation that was not made."""
    uncalled = (
        {name: gradtx.adam, **needed},
        rf"{name} is the class adam, expected a gradient transformation.* call it, adam\(",
    )
    return (uncalled, *(({name: gradtx.sgd(0.1), **needed, **arguments}, text) for arguments, text in bad))


def value(params: Any) -> dict[str, Any]:
    return {"value": half_squares(params)}


PERIOD = ({"sync_period": 0}, r"sync_period is 0 \(int\), expected a whole number >= 1")
SLOW = ({"slow_step_size": 1.5}, r"slow_step_size is 1.5 \(float\), expected a number in \[0, 1\]")
B1 = ({"b1": 0.0}, r"b1 is 0.0 \(float\), expected a number in \(0, 1\]\. At 0 the average could not be recovered\.")
POWER = ({"weight_lr_power": -1.0}, r"weight_lr_power is -1.0 \(float\), expected a finite number >= 0")
STATE = ({"state_dtype": "int8"}, r"state_dtype is 'int8' \(str\), expected a floating dtype")
WARMUP = ({"warmup_steps": 0}, r"warmup_steps is 0 \(int\), expected a whole number >= 1, or None")
TWO_RATES = (
    {"learning_rate": gradtx.linear_schedule(0.0, 1.0, 5), "warmup_steps": 3},
    "warmup_steps is 3, but learning_rate is a schedule; expected a number beside warmup_steps, or a schedule that warms up by itself",
)
RHO = ({"rho": -0.1}, r"rho is -0.1 \(float\), expected a finite number >= 0, or a schedule")
EXPONENT = ({"p": 0.5}, r"p is 0.5 \(float\), expected a number in \[1, inf\]")
SMALL = ({"eps": -1.0}, r"eps is -1.0 \(float\), expected a finite number >= 0")
EVERY = ({"every_k": 0}, r"every_k is 0 \(int\), expected a whole number >= 1")
CLIMB = ({"ascent_steps": 0}, r"ascent_steps is 0 \(int\), expected a whole number >= 1")
TWICE = ({"inner": gradtx.storm()}, r"inner is storm\(\), which calls grad_fn itself, expected an optimizer that does not")

EVERY_STEP = ({"every_k": 0}, r"every_k is 0 \(int\), expected a whole number >= 1, or a schedule")
ERRORS = ({"max_consecutive_errors": -1}, r"max_consecutive_errors is -1 \(int\), expected a whole number >= 0")

HALF = {"half state": "what rounding takes from a parameter, or a moment, is stored in half precision by intent"}

WRAPPERS: dict[str, Case] = {
    "MultiSteps": Case(
        lambda: MultiSteps(gradtx.adam(0.1), 2),
        around(
            ({"every_k_schedule": 0}, r"every_k_schedule is 0 \(int\), expected a whole number >= 1, or a schedule"),
            ({"use_grad_mean": 1}, r"use_grad_mean is 1 \(int\), expected True or False"),
            ({"should_skip_update_fn": 3}, r"should_skip_update_fn is 3 \(int\), expected a function, or None"),
            ({"accumulator_dtype": "int8"}, r"accumulator_dtype is 'int8' \(str\), expected a floating dtype"),
            ({"opt": gradtx.storm()}, r"opt is storm\(\), which calls grad_fn"),
            name="opt",
            every_k_schedule=2,
        ),
    ),
    "accumulate": Case(
        lambda: gradtx.accumulate(gradtx.adam(0.1), 2, skip_nonfinite=True),
        around(
            EVERY_STEP,
            ({"skip_nonfinite": 1}, r"skip_nonfinite is 1 \(int\), expected True or False"),
            ({"dtype": "int8"}, r"dtype is 'int8' \(str\), expected a floating dtype"),
            every_k=2,
        ),
    ),
    "apply_every": Case(lambda: gradtx.apply_every(2), (({"k": 0}, r"k is 0 \(int\), expected a whole number >= 1"),)),
    "apply_if_finite": Case(lambda: apply_if_finite(gradtx.adam(0.1), 2), around(ERRORS, max_consecutive_errors=1)),
    "asam": Case(
        lambda: gradtx.asam(gradtx.adam(0.1), 0.2, every_k=2),
        around(
            RHO,
            EXPONENT,
            SMALL,
            EVERY,
            CLIMB,
            TWICE,
            ({"eta": -1.0}, r"eta is -1.0 \(float\), expected a finite number >= 0"),
            ({"weights": "kernel"}, r"weights is 'kernel' \(str\), expected a tree of booleans"),
        ),
        GRAD_FN,
    ),
    "cautious": Case(
        lambda: gradtx.cautious(gradtx.sgd(0.1, 0.9)),
        around(({"flip_sign": 1}, r"flip_sign is 1 \(int\), expected True or False")),
    ),
    "ema_params": Case(
        lambda: gradtx.ema_params(gradtx.adam(0.1), 0.9),
        around(
            ({"decay": 1.0}, r"decay is 1.0 \(float\), expected a number in \[0, 1\)"),
            ({"debias": None}, "debias is None, expected True or False"),
            ({"start": -1}, r"start is -1 \(int\), expected a whole number >= 0"),
            decay=0.9,
        ),
    ),
    "gsam": Case(
        lambda: gradtx.gsam(gradtx.adam(0.1), p=1.5),
        around(RHO, EXPONENT, SMALL, TWICE, ({"alpha": -1.0}, r"alpha is -1.0 \(float\), expected a finite number >= 0")),
        GRAD_FN,
    ),
    "lookahead": Case(
        lambda: lookahead(gradtx.noisy_sgd(0.1, key=2), 2, 0.5, reset_state=True),
        around(
            PERIOD,
            SLOW,
            ({"reset_state": 0}, r"reset_state is 0 \(int\), expected True or False"),
            name="fast_optimizer",
            sync_period=5,
            slow_step_size=0.5,
        ),
    ),
    "lookahead_wrapper": Case(lambda: gradtx.lookahead_wrapper(gradtx.adam(0.1), 2), around(PERIOD, SLOW)),
    "cast_state": Case(
        lambda: gradtx.cast_state(gradtx.adamw(0.1), "bfloat16"),
        around(
            ({"dtype": "int8"}, r"dtype is 'int8' \(str\), expected a floating dtype, such as 'bfloat16', or a function"),
            ({"rounding": "up"}, r"rounding is 'up' \(str\), expected one of 'nearest', 'stochastic'"),
            ({"key": 0.5}, r"key is 0.5 \(float\), expected a random key"),
        ),
        exceptions=HALF,
    ),
    "kahan": Case(lambda: gradtx.kahan(gradtx.adamw(0.1, weight_decay=0.01)), around(), exceptions=HALF),
    "master_weights": Case(
        lambda: gradtx.master_weights(gradtx.adamw(0.1, weight_decay=0.01), "int8"),
        around(({"dtype": "bfloat16"}, r"dtype is 'bfloat16' \(str\), expected 'float32', 'float64', 'int16' or 'int8'")),
    ),
    "quantize_state": Case(
        # Blocks that no mesh cuts, so that codes are the same on any number of devices.
        lambda: gradtx.quantize_state(gradtx.adamw(0.1, weight_decay=0.01), 4, block_size=2, min_size=1),
        around(
            ({"bits": 5}, r"bits is 5 \(int\), expected 8 or 4"),
            ({"block_size": 0}, r"block_size is 0 \(int\), expected a whole number >= 1, or None"),
            ({"min_size": 0}, r"min_size is 0 \(int\), expected a whole number >= 1"),
            ({"codes": "nu"}, r"codes is 'nu' \(str\), expected a function from the state to 'moment', 'squares' or 'keep'"),
            ({"rounding": "up"}, r"rounding is 'up' \(str\), expected one of 'nearest', 'stochastic'"),
            ({"key": 0.5}, r"key is 0.5 \(float\), expected a random key"),
        ),
    ),
    "rounded_away": Case(gradtx.rounded_away),
    "looksam": Case(
        lambda: gradtx.looksam(gradtx.adam(0.1), every_k=2),
        around(RHO, SMALL, EVERY, TWICE, ({"alpha": -1.0}, r"alpha is -1.0 \(float\), expected a finite number >= 0")),
        GRAD_FN,
    ),
    "measure_with_ema": Case(
        lambda: gradtx.measure_with_ema(same_updates, 0.9),
        (
            ({"measure": "norm", "decay": 0.9}, r"measure is 'norm' \(str\), expected a function"),
            ({"measure": same_updates, "decay": 1.0}, r"decay is 1.0 \(float\), expected a number in \[0, 1\)"),
        ),
    ),
    "momentum_sam": Case(
        lambda: gradtx.momentum_sam(gradtx.sgd(0.1, 0.9), gradtx.linear_schedule(0.3, 0.1, 5)),
        around(RHO, BETA, TWICE, rho=0.1),
    ),
    "normalize": Case(gradtx.normalize),
    "offload": Case(
        lambda: gradtx.offload(gradtx.adam(0.1), "(mu|nu)/.*"),
        around(
            ({"path": 3}, r"path is 3 \(int\), expected a regular expression for names, as text"),
            ({"path": "("}, r"path has '\(', which is no regular expression: "),
        ),
    ),
    "ranger": Case(
        lambda: gradtx.ranger(0.1, weight_decay=0.01, sync_period=2),
        tuple(({"learning_rate": 0.1} | bad, text) for bad, text in (RATE, B2, EPS, DECAY, PERIOD, SLOW)),
    ),
    "reduce_on_plateau": Case(
        lambda: gradtx.reduce_on_plateau(0.5, patience=1),
        (
            ({"factor": 1.0}, r"factor is 1.0 \(float\), expected a number in \(0, 1\)"),
            ({"patience": 0}, r"patience is 0 \(int\), expected a whole number >= 1"),
            ({"rtol": 1.5}, r"rtol is 1.5 \(float\), expected a number in \[0, 1\]"),
            ({"atol": -1.0}, r"atol is -1.0 \(float\), expected a finite number >= 0"),
            ({"cooldown": -1}, r"cooldown is -1 \(int\), expected a whole number >= 0"),
            ({"accumulation_size": 0.5}, r"accumulation_size is 0.5 \(float\), expected a whole number >= 1"),
            ({"min_scale": -0.1}, r"min_scale is -0.1 \(float\), expected a finite number >= 0"),
        ),
        value,
    ),
    "sam": Case(
        lambda: sam(gradtx.adam(0.1), gradtx.chain(gradtx.normalize(), gradtx.sgd(0.1, 0.9)), 3),
        around(
            PERIOD,
            ({"reset_state": 0}, r"reset_state is 0 \(int\), expected True or False"),
            ({"opaque_mode": None}, "opaque_mode is None, expected True or False"),
            ({"batch_axis_name": 0}, r"batch_axis_name is 0 \(int\), expected the name of a mapped axis, or None"),
            ({"adv_optimizer": 0.1}, r"adv_optimizer is 0.1 \(float\), expected a gradient transformation"),
            ({"optimizer": gradtx.storm(), "opaque_mode": True}, r"optimizer is storm\(\), which calls grad_fn itself"),
            name="optimizer",
            adv_optimizer=gradtx.sgd(0.1),
        ),
    ),
    "sam_wrapper": Case(
        lambda: gradtx.sam_wrapper(gradtx.adam(0.1), gradtx.linear_schedule(0.1, 0.0, 9), 3.0, ascent_steps=2),
        around(RHO, EXPONENT, SMALL, EVERY, CLIMB, TWICE, ({"adaptive": 1}, r"adaptive is 1 \(int\), expected True or False")),
        GRAD_FN,
    ),
    "schedule_free": Case(
        lambda: gradtx.schedule_free(gradtx.sgd(0.1), gradtx.linear_schedule(0.0, 0.1, 2), b1=0.8),
        around(B1, POWER, STATE, ({"learning_rate": -1.0}, RATE[1]), name="base_optimizer", learning_rate=0.1),
    ),
    "schedule_free_adamw": Case(
        lambda: gradtx.schedule_free_adamw(0.1, warmup_steps=2, weight_decay=0.1),
        (RATE, B1, B2, EPS, DECAY, POWER, STATE, WARMUP, TWO_RATES),
    ),
    "schedule_free_sgd": Case(
        lambda: gradtx.schedule_free_sgd(0.1, weight_decay=0.1, state_dtype="float32"),
        (RATE, B1, DECAY, POWER, STATE, WARMUP, TWO_RATES),
    ),
    "skip_nonfinite": Case(
        lambda: gradtx.skip_nonfinite(gradtx.adam(0.1), 3),
        around(({"max_consecutive": -1}, r"max_consecutive is -1 \(int\), expected a whole number >= 0, or None")),
        exceptions={"debug_nans without jit": "NaN, by which it gives up, is an operand of every step"},
    ),
    "skip_spikes": Case(
        lambda: gradtx.skip_spikes(gradtx.adam(0.1), window=8),
        around(
            ({"sigma": 0.0}, r"sigma is 0.0 \(float\), expected a finite number > 0"),
            ({"window": 0}, r"window is 0 \(int\), expected a whole number >= 1"),
        ),
    ),
    "snapshot": Case(
        lambda: gradtx.snapshot("norm", gradtx.global_norm),
        (
            ({"measure_name": 3, "measure": max}, r"measure_name is 3 \(int\), expected text"),
            ({"measure_name": "norm", "measure": gradtx.adam}, "measure is the class adam, expected a function"),
        ),
    ),
    "swa": Case(
        lambda: gradtx.swa(gradtx.sgd(0.1, 0.9), start=1, every=2),
        around(
            ({"start": -1}, r"start is -1 \(int\), expected a whole number >= 0"),
            ({"every": 0}, r"every is 0 \(int\), expected a whole number >= 1"),
        ),
    ),
    "zero1": Case(
        lambda: gradtx.zero1(gradtx.adam(0.1), ()),
        around(({"axis": 3}, r"axis is 3 \(int\), expected the name of a mesh axis, or several"), axis="data"),
    ),
}
