"""Rows of the optimizers of the field that Optax has too; `cases.CASES` holds them with all others."""

from case import ALPHA, B1, B2, B3, DECAY, DOG, EPS, EPS_ROOT, INITIAL, MASK, MU, RATE, RHO, VARIANT, Case, objective, with_rate

import gradtx

FIELD: dict[str, Case] = {
    "adabelief": Case(lambda: gradtx.adabelief(0.1), with_rate(B1, B2, EPS, EPS_ROOT)),
    "scale_by_belief": Case(lambda: gradtx.scale_by_belief(nesterov=True), (B1, B2, EPS, EPS_ROOT)),
    "yogi": Case(lambda: gradtx.yogi(0.1), with_rate(B1, B2, EPS)),
    "scale_by_yogi": Case(lambda: gradtx.scale_by_yogi(initial_accumulator_value=0.0), (B1, B2, EPS, EPS_ROOT, INITIAL)),
    "adadelta": Case(lambda: gradtx.adadelta(1.0, weight_decay=0.1), with_rate(RHO, EPS, DECAY)),
    "scale_by_adadelta": Case(gradtx.scale_by_adadelta, (RHO, EPS)),
    "adan": Case(lambda: gradtx.adan(0.1, weight_decay=0.01), with_rate(B1, B2, B3, EPS, EPS_ROOT, DECAY, MASK)),
    "scale_by_adan": Case(gradtx.scale_by_adan, (B1, B2, B3, EPS, EPS_ROOT)),
    "ademamix": Case(
        lambda: gradtx.ademamix(0.1, b3=gradtx.constant_schedule(0.9)), with_rate(B1, B2, ALPHA, EPS, EPS_ROOT, MU, DECAY, MASK)
    ),
    "scale_by_ademamix": Case(gradtx.scale_by_ademamix, (B1, B2, ALPHA, EPS, EPS_ROOT, MU)),
    "simplified_ademamix": Case(
        lambda: gradtx.simplified_ademamix(0.01, alpha=2.0), with_rate(B1, B2, ALPHA, EPS, EPS_ROOT, DECAY, MASK)
    ),
    "scale_by_simplified_ademamix": Case(gradtx.scale_by_simplified_ademamix, (B1, B2, ALPHA, EPS, EPS_ROOT)),
    "adopt": Case(lambda: gradtx.adopt(0.1), with_rate(B1, B2, EPS, MU)),
    "scale_by_adopt": Case(
        lambda: gradtx.scale_by_adopt(nesterov=True),
        (B1, B2, EPS, MU, ({"clip_value_fn": 1.0}, r"clip_value_fn is 1.0 \(float\), expected a function")),
    ),
    "rprop": Case(
        lambda: gradtx.rprop(0.1),
        (
            ({"learning_rate": -1.0}, r"learning_rate is -1.0 \(float\), expected a finite number >= 0"),
            ({"learning_rate": 0.1, "eta_minus": 1.5}, r"eta_minus is 1.5 \(float\), expected a number in \[0, 1\]"),
        ),
    ),
    "scale_by_rprop": Case(
        lambda: gradtx.scale_by_rprop(0.1),
        (({"learning_rate": 0.1, "max_step_size": 0.0}, r"max_step_size is 0.0 \(float\), expected a finite number > 0"),),
    ),
    "optimistic_gradient_descent": Case(
        lambda: gradtx.optimistic_gradient_descent(0.1),
        with_rate(({"alpha": float("inf")}, r"alpha is inf \(float\), expected a finite number")),
    ),
    "scale_by_optimistic_gradient": Case(
        gradtx.scale_by_optimistic_gradient, (({"beta": "much"}, r"beta is 'much' \(str\), expected a finite number"),)
    ),
    "optimistic_adam_v2": Case(lambda: gradtx.optimistic_adam_v2(0.1), with_rate(B1, B2, EPS, MU)),
    "lamb": Case(lambda: gradtx.lamb(0.1, weight_decay=0.01), with_rate(B1, B2, EPS, DECAY, MASK)),
    "lars": Case(
        lambda: gradtx.lars(0.1, weight_decay=0.01),
        with_rate(EPS, DECAY, ({"momentum": 1.0}, r"momentum is 1.0 \(float\), expected a number in \[0, 1\)")),
    ),
    "fromage": Case(
        lambda: gradtx.fromage(0.1), with_rate(({"min_norm": -1.0}, r"min_norm is -1.0 \(float\), expected a finite number >= 0"))
    ),
    "acprop": Case(lambda: gradtx.acprop(0.1), with_rate(B1, B2, EPS, EPS_ROOT, DECAY, MASK)),
    "scale_by_acprop": Case(gradtx.scale_by_acprop, (B1, B2, EPS, EPS_ROOT)),
    "dog": Case(lambda: gradtx.dog(weight_decay=0.1), (RATE, EPS, DECAY, MASK, DOG)),
    "scale_by_dog": Case(lambda: gradtx.scale_by_dog(("learning_rate", 0.1)), (DOG,)),
    "dowg": Case(lambda: gradtx.dowg(), (RATE, EPS, DECAY, MASK)),
    "scale_by_dowg": Case(
        gradtx.scale_by_dowg,
        (({"init_estim_sq_dist": -1.0}, r"init_estim_sq_dist is -1.0 \(float\), expected a finite number >= 0"),),
    ),
    "madgrad": Case(lambda: gradtx.madgrad(0.1, weight_decay=0.1), with_rate(DECAY, EPS)),
    "scale_by_madgrad": Case(
        lambda: gradtx.scale_by_madgrad(gradtx.linear_schedule(0.1, 0.0, 4)),
        with_rate(EPS, ({"momentum": 1.0}, r"momentum is 1.0 \(float\), expected a number in \[0, 1\)")),
    ),
    "prodigy": Case(
        gradtx.prodigy,
        (
            RATE,
            EPS,
            ({"betas": (0.9, 1.0)}, r"betas is a tuple of 2, expected two numbers in \[0, 1\)"),
            ({"estim_lr0": 0.0}, r"estim_lr0 is 0.0 \(float\), expected a finite number > 0"),
        ),
    ),
    "polyak_sgd": Case(gradtx.polyak_sgd, (EPS, VARIANT), extra=objective),
    "scale_by_polyak": Case(lambda: gradtx.scale_by_polyak(variant="sps+"), (VARIANT,), extra=objective),
}
