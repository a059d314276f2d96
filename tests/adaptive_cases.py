"""Rows of methods that keep less than their moments, or find their own step sizes; `cases.CASES` holds them with all others."""

from case import B1, B2, DECAY, EPS, MASK, MU, RATE, Case, half_squares, objective, with_rate

import gradtx
from gradtx.wrappers.flatten import flatten, split_real_and_imaginary

OF_ONE = {"weight_decay": -0.1}, r"weight_decay is -0.1 \(float\), expected a finite number >= 0"
BETAS = {"betas": (0.9, 1.0)}, r"betas is a tuple of 2, expected two numbers in \[0, 1\)"
BOUND = {"lower_bound": float("nan")}, r"lower_bound is nan \(float\), expected a finite number"
LEAST = {"min_dim_size_to_factor": 0}, r"min_dim_size_to_factor is 0 \(int\), expected a whole number >= 1"
ESTIMATOR = (
    {"hessian_diagonal_fn": gradtx.hutchinson_estimator_diag_hessian},
    "hessian_diagonal_fn is the class hutchinson_estimator_diag_hessian, expected a gradient transformation",
)
RANK = {"rank": 0}, r"rank is 0 \(int\), expected a whole number >= 1"
PROJECTIONS = {"sharding": "the decomposition of a matrix, its bases and projections lie whole on every device"}

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
    "scale_by_distance_over_gradients": Case(
        gradtx.scale_by_distance_over_gradients,
        (
            EPS,
            ({"reps_rel": -1.0}, r"reps_rel is -1.0 \(float\), expected a finite number >= 0"),
            ({"param_dtype": "int8"}, r"param_dtype is 'int8' \(str\), expected a floating dtype"),
        ),
    ),
    "hutchinson_estimator_diag_hessian": Case(
        lambda: gradtx.hutchinson_estimator_diag_hessian(3),
        (({"random_seed": "a"}, r"random_seed is 'a' \(str\), expected a random key of jax.random"),),
        extra={"obj_fn": half_squares},
    ),
    "sophia": Case(
        lambda: gradtx.sophia(0.1, update_interval=2),
        with_rate(B1, B2, EPS, DECAY, MU, ESTIMATOR, ({"gamma": 0.0}, r"gamma is 0.0 \(float\), expected a finite number > 0")),
        extra={"obj_fn": half_squares},
    ),
    "scale_by_sophia": Case(
        lambda: gradtx.scale_by_sophia(clip_threshold=0.5),
        (
            ESTIMATOR,
            ({"clip_threshold": 0.0}, r"clip_threshold is 0.0 \(float\), expected a finite number > 0, or None"),
            ({"update_interval": 0}, r"update_interval is 0 \(int\), expected a whole number >= 1"),
        ),
        extra={"obj_fn": half_squares},
    ),
    "mechanize": Case(
        lambda: gradtx.mechanize(gradtx.adam(1.0)),
        (
            ({"base_optimizer": gradtx.adam}, "base_optimizer is the class adam, expected a gradient transformation"),
            ({"base_optimizer": gradtx.adam(1.0), **OF_ONE[0]}, OF_ONE[1]),
            ({"base_optimizer": gradtx.adam(1.0), "s_init": 0.0}, r"s_init is 0.0 \(float\), expected a finite number > 0"),
            ({"base_optimizer": gradtx.adam(1.0), "num_betas": 0}, r"num_betas is 0 \(int\), expected a whole number >= 1"),
            (
                {"base_optimizer": gradtx.ema_params(gradtx.adam(1.0), 0.9)},
                "base_optimizer holds ema_params.*Put mechanize inside it",
            ),
            (
                {"base_optimizer": gradtx.accumulate(gradtx.sgd(1.0), 2)},
                "base_optimizer holds accumulate.*but mechanize takes every",
            ),
        ),
    ),
    "flatten": Case(
        lambda: flatten(gradtx.adam(0.1)),
        (({"inner": gradtx.adam}, "inner is the class adam, expected a gradient transformation"),),
        exceptions={"sharding": "the vector of all elements lies whole on every device"},
    ),
    "split_real_and_imaginary": Case(
        lambda: split_real_and_imaginary(gradtx.adam(0.1)),
        (({"inner": 0.1}, r"inner is 0.1 \(float\), expected a gradient transformation"),),
    ),
    "galore": Case(
        lambda: gradtx.galore(0.1, rank=1, update_proj_gap=2),
        with_rate(RANK, DECAY, MASK),
        exceptions=PROJECTIONS,
    ),
    "scale_by_galore": Case(
        lambda: gradtx.scale_by_galore(rank=1, base_optimizer=gradtx.trace(0.9)),
        (
            RANK,
            ({"update_proj_gap": 0}, r"update_proj_gap is 0 \(int\), expected a whole number >= 1"),
            ({"base_optimizer": 0.1}, r"base_optimizer is 0.1 \(float\), expected a gradient transformation"),
            (
                {"base_optimizer": gradtx.adamw(0.1)},
                r"base_optimizer holds add_decayed_weights\(.*\), which needs the parameters, but inside there are only projections",
            ),
        ),
        exceptions=PROJECTIONS,
    ),
}
