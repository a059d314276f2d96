"""Rows of what came to training in 2024 to 2026; `cases.CASES` holds them with all others."""

from case import B1, B2, BETA, DECAY, EPS, MASK, RATE, SEARCHES, Case, objective, with_rate
from wrapper_cases import around, value

import gradtx

GAMMA = ({"gamma": -0.1}, r"gamma is -0.1 \(float\), expected a finite number >= 0")
MAX_NORM = ({"max_norm": -1.0}, r"max_norm is -1.0 \(float\), expected a number >= 0, or inf")

RECENT: dict[str, Case] = {
    "adagc": Case(
        lambda: gradtx.adagc(warmup_steps=2),
        (
            ({"lambda_abs": 0.0}, r"lambda_abs is 0.0 \(float\), expected a finite number > 0"),
            ({"lambda_rel": 0.0}, r"lambda_rel is 0.0 \(float\), expected a finite number > 0"),
            BETA,
            ({"warmup_steps": -1}, r"warmup_steps is -1 \(int\), expected a whole number >= 0"),
        ),
    ),
    "add_corrected_decayed_weights": Case(
        lambda: gradtx.add_corrected_decayed_weights(0.1, learning_rate=gradtx.linear_schedule(0.1, 0.0, 9), max_learning_rate=0.1),
        tuple(
            ({"learning_rate": 0.1, "max_learning_rate": 0.1} | bad, text)
            for bad, text in (
                DECAY,
                MASK,
                RATE,
                ({"max_learning_rate": 0.0}, r"max_learning_rate is 0.0 \(float\), expected a finite number > 0"),
            )
        ),
    ),
    "add_independent_decayed_weights": Case(lambda: gradtx.add_independent_decayed_weights(0.1), (DECAY, MASK)),
    "scale_by_path": Case(
        lambda: gradtx.scale_by_path(gradtx.by_path({".*bias": 0.5}, default=2.0)),
        (
            (
                {"multipliers": 0.5},
                r"multipliers is 0.5 \(float\), expected a tree of numbers, or a function from parameters to one",
            ),
        ),
    ),
    "msign_sgd": Case(
        lambda: gradtx.msign_sgd(0.1, weight_decay=0.1),
        with_rate(
            BETA,
            DECAY,
            MASK,
            ({"coefficients": "jordn"}, r"orthogonalize: coefficients is 'jordn'|.*Did you mean 'jordan'"),
        ),
    ),
    "newton_cg": Case(
        lambda: gradtx.newton_cg(0.5, damping=0.1),
        (
            RATE,
            ({"damping": -1.0}, r"damping is -1.0 \(float\), expected a finite number >= 0"),
            ({"max_iterations": 0}, r"max_iterations is 0 \(int\), expected a whole number >= 1"),
            ({"tolerance": -1.0}, r"tolerance is -1.0 \(float\), expected a finite number >= 0, or None"),
        ),
        objective,
        SEARCHES,
    ),
    "scale_by_newton_cg": Case(
        gradtx.scale_by_newton_cg,
        (({"has_aux": 1}, r"has_aux is 1 \(int\), expected True or False"),),
        objective,
        SEARCHES,
    ),
    "update_ratios": Case(gradtx.update_ratios),
    "schedule_free_plus": Case(
        lambda: gradtx.schedule_free_plus(weight_decay=0.1, norm_decay=0.5),
        (
            RATE,
            B1,
            B2,
            EPS,
            ({"weight_decay": -1.0}, r"weight_decay is -1.0 \(float\), expected a finite number >= 0"),
            ({"interpolation": 1.0}, r"interpolation is 1.0 \(float\), expected a number in \[0, 1\), or a schedule"),
            ({"r": -1.0}, r"r is -1.0 \(float\), expected a finite number >= 0"),
            ({"norm_decay": 1.0}, r"norm_decay is 1.0 \(float\), expected a number in \[0, 1\)"),
            ({"average_from": -1}, r"average_from is -1 \(int\), expected a whole number >= 0"),
        ),
        value,
    ),
    "adam_mini": Case(
        lambda: gradtx.adam_mini(0.1, weight_decay=0.1, head_size=2),
        with_rate(B1, B2, EPS, DECAY, MASK, ({"head_size": 0}, r"head_size is 0 \(int\), expected a whole number >= 1, or None")),
    ),
    "add_gradient_correction": Case(gradtx.add_gradient_correction, (B1, GAMMA, MAX_NORM)),
    "apollo": Case(
        lambda: gradtx.apollo(0.01, 2, weight_decay=0.1),
        tuple(
            ({"learning_rate": 0.1, "rank": 1} | bad, text)
            for bad, text in (
                RATE,
                B1,
                B2,
                EPS,
                DECAY,
                MASK,
                ({"rank": 0}, r"rank is 0 \(int\), expected a whole number >= 1"),
                ({"scale_type": "tensr"}, r"scale_type is 'tensr' \(str\), expected one of .* Did you mean 'tensor'\?"),
            )
        ),
        exceptions={"zero1": "moments have lost the axis along which it cuts a matrix, and lie whole"},
    ),
    "ema_nesterov": Case(
        lambda: gradtx.ema_nesterov(gradtx.adam(0.1), gradtx.linear_schedule(0.6, 0.0, 5)),
        around(
            ({"beta": -0.1}, r"beta is -0.1 \(float\), expected a finite number >= 0, or a schedule"),
            ({"decay": 1.0}, r"decay is 1.0 \(float\), expected a number in \[0, 1\)"),
        ),
    ),
    "hyperball": Case(
        lambda: gradtx.hyperball(gradtx.scale_by_adam(), 0.1),
        around(
            ({"learning_rate": -1.0}, r"learning_rate is -1.0 \(float\), expected a finite number >= 0, or a schedule"),
            learning_rate=0.1,
        ),
    ),
    "skip_outliers": Case(
        lambda: gradtx.skip_outliers(gradtx.adam(0.1), window=8),
        around(
            ({"sigma": 0.0}, r"sigma is 0.0 \(float\), expected a finite number > 0"),
            ({"window": 0}, r"window is 0 \(int\), expected a whole number >= 1"),
        ),
        value,
    ),
    "zclip": Case(
        lambda: gradtx.zclip(warmup_steps=1),
        (
            ({"alpha": 1.0}, r"alpha is 1.0 \(float\), expected a number in \[0, 1\)"),
            ({"z_thresh": 0.0}, r"z_thresh is 0.0 \(float\), expected a finite number > 0"),
            MAX_NORM,
            EPS,
            ({"warmup_steps": 0}, r"warmup_steps is 0 \(int\), expected a whole number >= 1"),
        ),
    ),
    "outer": Case(
        lambda: gradtx.outer(gradtx.adam(0.1), 2),
        around(
            ({"sync_period": 0}, r"sync_period is 0 \(int\), expected a whole number >= 1"),
            ({"outer_optimizer": 0.7}, r"outer_optimizer is 0.7 \(float\), expected a gradient transformation"),
        ),
    ),
    "posthoc_ema": Case(
        lambda: gradtx.posthoc_ema(gradtx.adam(0.1)),
        around(({"sigma_rel": (0.05, 0.3)}, r"sigma_rel is a tuple of 2, expected a tuple of numbers in \(0, 0\.288\]")),
    ),
    "scale_by_adam_mini": Case(
        gradtx.scale_by_adam_mini,
        (
            B1,
            B2,
            EPS,
            ({"blocks": 3}, r"blocks is 3 \(int\), expected a dict from regular expressions to tuples\."),
            ({"blocks": {"(": (1,)}}, r"rules has the pattern '\(', expected a regular expression"),
        ),
    ),
    "scale_by_apollo": Case(
        lambda: gradtx.scale_by_apollo(1, scale_type="tensor", key=3),
        (
            ({"rank": 1, "scale": 0.0}, r"scale is 0.0 \(float\), expected a finite number > 0"),
            ({"rank": 1, "update_proj_gap": 0}, r"update_proj_gap is 0 \(int\), expected a whole number >= 1"),
            ({"rank": 1, "key": 0.5}, r"key is 0.5 \(float\), expected a random key"),
        ),
    ),
    "mars": Case(lambda: gradtx.mars(0.1, weight_decay=0.1), with_rate(B1, B2, EPS, GAMMA, MAX_NORM, DECAY, MASK)),
}
