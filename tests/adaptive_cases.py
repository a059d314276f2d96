"""Rows of methods that keep less than their moments, or find their own step sizes; `cases.CASES` holds them with all others."""

from case import B1, B2, DECAY, EPS, MASK, RATE, Case, objective, with_rate

import gradtx

OF_ONE = {"weight_decay": -0.1}, r"weight_decay is -0.1 \(float\), expected a finite number >= 0"
BETAS = {"betas": (0.9, 1.0)}, r"betas is a tuple of 2, expected two numbers in \[0, 1\)"
BOUND = {"lower_bound": float("nan")}, r"lower_bound is nan \(float\), expected a finite number"
LEAST = {"min_dim_size_to_factor": 0}, r"min_dim_size_to_factor is 0 \(int\), expected a whole number >= 1"

ADAPTIVE: dict[str, Case] = {
    "adafactor": Case(
        lambda: gradtx.adafactor(0.1, min_dim_size_to_factor=2, momentum=0.9, weight_decay_rate=0.01),
        (
            RATE,
            LEAST,
            ({"decay_rate": 0.0}, r"decay_rate is 0.0 \(float\), expected a finite number > 0"),
            ({"clipping_threshold": 0.0}, r"clipping_threshold is 0.0 \(float\), expected a finite number > 0, or None"),
            ({"momentum": 1.0}, r"momentum is 1.0 \(float\), expected a number in \[0, 1\), or None"),
            ({"dtype_momentum": "int8"}, r"dtype_momentum is 'int8' \(str\), expected a floating dtype"),
            ({"weight_decay_rate": -0.1}, r"weight_decay_rate is -0.1 \(float\), expected a finite number >= 0, or a schedule"),
            ({"weight_decay_mask": "w"}, r"weight_decay_mask is 'w' \(str\), expected a tree of booleans"),
        ),
    ),
    "scale_by_factored_rms": Case(
        lambda: gradtx.scale_by_factored_rms(min_dim_size_to_factor=2),
        (
            LEAST,
            ({"factored": 1}, r"factored is 1 \(int\), expected True or False"),
            ({"epsilon": -1.0}, r"epsilon is -1.0 \(float\), expected a finite number >= 0"),
            ({"step_offset": "a"}, r"step_offset is 'a' \(str\), expected a finite number"),
            ({"decay_rate_fn": 0.9}, r"decay_rate_fn is 0.9 \(float\), expected a function"),
        ),
    ),
    "sm3": Case(
        lambda: gradtx.sm3(0.1), with_rate(({"momentum": 1.0}, r"momentum is 1.0 \(float\), expected a number in \[0, 1\)"))
    ),
    "scale_by_sm3": Case(
        lambda: gradtx.scale_by_sm3(b2=0.9), (B1, EPS, ({"b2": 1.5}, r"b2 is 1.5 \(float\), expected a number in \[0, 1\]"))
    ),
    "cocob": Case(lambda: gradtx.cocob(weight_decay=0.1), (RATE, EPS, DECAY, MASK)),
    "scale_by_cocob": Case(
        lambda: gradtx.scale_by_cocob(10.0), (EPS, ({"alpha": -1.0}, r"alpha is -1.0 \(float\), expected a finite number >= 0"))
    ),
    "dadapt_adamw": Case(
        gradtx.dadapt_adamw,
        (RATE, EPS, OF_ONE, BETAS, ({"estim_lr0": 0.0}, r"estim_lr0 is 0.0 \(float\), expected a finite number > 0")),
    ),
    "momo": Case(
        lambda: gradtx.momo(adapt_lower_bound=True, weight_decay=0.1),
        (RATE, BOUND, OF_ONE, ({"beta": 1.0}, r"beta is 1.0 \(float\), expected a number in \[0, 1\)")),
        extra=objective,
    ),
    "momo_adam": Case(
        gradtx.momo_adam,
        (RATE, B1, B2, EPS, BOUND, OF_ONE, ({"adapt_lower_bound": 1}, r"adapt_lower_bound is 1 \(int\), expected True or False")),
        extra=objective,
    ),
}
