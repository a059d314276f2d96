"""One row for each factory that makes a transformation; `tests/test_contract.py` holds every row to every promise."""

import jax.numpy as jnp
import pytest
from adaptive_cases import ADAPTIVE
from case import (
    B1,
    B2,
    BETA,
    DECAY,
    EPS,
    GRAD_FN,
    INITIAL,
    MASK,
    MEMORY,
    MU,
    NU,
    PRECONDITIONING,
    RATE,
    SEARCHES,
    SIZE,
    SLOPES,
    STEPS,
    THRESHOLD,
    WHOLE,
    Case,
    even,
    objective,
    same,
    with_rate,
)
from field_cases import FIELD
from matrix_cases import MATRIX
from recent_cases import RECENT
from second_order_cases import SECOND_ORDER
from wrapper_cases import WRAPPERS

import gradtx

CASES: dict[str, Case] = (
    {
        "accelegrad": Case(
            lambda: gradtx.accelegrad(2.0),
            (
                ({"diameter": 0.0}, r"diameter is 0.0 \(float\), expected a finite number > 0"),
                ({"diameter": 1.0, "gradient_bound": -1.0}, r"gradient_bound is -1.0 \(float\), expected a finite number > 0"),
                ({"diameter": 1.0, "projection": 2.0}, r"projection is 2.0 \(float\), expected a function, or None"),
            ),
        ),
        "adagrad": Case(
            lambda: gradtx.adagrad(0.1),
            with_rate(EPS, INITIAL),
        ),
        "adagrad_full_matrix": Case(
            lambda: gradtx.adagrad_full_matrix(0.1, whole_tree=True),
            with_rate(EPS, INITIAL, ({"max_size": 0}, r"max_size is 0 \(int\), expected a whole number >= 1")),
            exceptions=WHOLE,
        ),
        "adagrad_norm": Case(lambda: gradtx.adagrad_norm(0.1), with_rate(EPS, INITIAL)),
        "adam": Case(lambda: gradtx.adam(0.1, mu_dtype=jnp.float32), with_rate(B1, B2, EPS, NU, MU)),
        "adamax": Case(lambda: gradtx.adamax(0.1), with_rate(B1, B2, EPS)),
        "adamaxw": Case(lambda: gradtx.adamaxw(0.1, weight_decay=0.01), with_rate(B1, B2, EPS, DECAY, MASK)),
        "adamw": Case(
            lambda: gradtx.adamw(gradtx.cosine_decay_schedule(0.1, 10), weight_decay=0.01, mask=gradtx.by_path({}, default=True)),
            with_rate(B1, B2, EPS, NU, MU, DECAY, MASK, ({"nesterov": 1}, r"nesterov is 1 \(int\), expected True or False")),
        ),
        "adaptive_grad_clip": Case(
            lambda: gradtx.adaptive_grad_clip(0.1),
            (({"clipping": 0.0}, r"clipping is 0.0 \(float\), expected a finite number > 0"),),
        ),
        "add_cautious_decayed_weights": Case(lambda: gradtx.add_cautious_decayed_weights(0.1), (DECAY, MASK)),
        "add_decayed_weights": Case(lambda: gradtx.add_decayed_weights(0.1), (DECAY, MASK)),
        "add_langevin_noise": Case(
            lambda: gradtx.add_langevin_noise(gradtx.linear_schedule(0.1, 0.0, 4), key=2),
            (
                ({"learning_rate": -1.0, "key": 0}, RATE[1]),
                (
                    {"learning_rate": 0.1, "temperature": -1.0, "key": 0},
                    r"temperature is -1.0 \(float\), expected a finite number >= 0",
                ),
                ({"learning_rate": 0.1, "key": 0.5}, r"key is 0.5 \(float\), expected a random key of jax.random"),
            ),
        ),
        "add_noise": Case(
            lambda: gradtx.add_noise(0.1, 0.55, key=0),
            (
                ({"eta": -1.0, "gamma": 0.5, "key": 0}, r"eta is -1.0 \(float\), expected a finite number >= 0"),
                ({"eta": 1.0, "gamma": 0.5, "key": "a"}, r"key is 'a' \(str\), expected a random key of jax.random"),
            ),
        ),
        "add_sphere_noise": Case(
            lambda: gradtx.add_sphere_noise(0.5, key=3),
            (
                ({"radius": 0.0, "key": 0}, r"radius is 0.0 \(float\), expected a finite number > 0"),
                ({"radius": -1.0, "key": 0}, r"radius is -1.0 \(float\), expected a finite number > 0"),
                ({"radius": 1.0, "key": "a"}, r"key is 'a' \(str\), expected a random key of jax.random"),
            ),
        ),
        "amsgrad": Case(lambda: gradtx.amsgrad(0.1), with_rate(B1, B2, EPS, NU, MU)),
        "bfgs": Case(
            gradtx.bfgs,
            (RATE, SIZE, ({"linesearch": gradtx.lbfgs}, "linesearch is the class lbfgs, expected a gradient transformation")),
            objective,
            WHOLE | SEARCHES,
        ),
        "centralize": Case(gradtx.centralize),
        "chain": Case(
            lambda: gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)),
        ),
        "clip": Case(
            lambda: gradtx.clip(0.5), (({"max_delta": -1.0}, r"max_delta is -1.0 \(float\), expected a number >= 0, or inf"),)
        ),
        "clip_by_block_rms": Case(
            lambda: gradtx.clip_by_block_rms(0.5),
            (({"threshold": 0.0}, r"threshold is 0.0 \(float\), expected a finite number > 0"),),
        ),
        "clip_by_global_norm": Case(
            lambda: gradtx.clip_by_global_norm(0.5),
            (({"max_norm": -1.0}, r"max_norm is -1.0 \(float\), expected a number >= 0, or inf"),),
        ),
        "conditionally_mask": Case(
            lambda: gradtx.conditionally_mask(gradtx.adam(0.1), even),
            (({"inner": gradtx.adam, "should_transform_fn": max}, r"inner is the class adam, expected a gradient transformation"),),
        ),
        "conditionally_transform": Case(
            lambda: gradtx.conditionally_transform(gradtx.adam(0.1), even),
            (({"inner": gradtx.scale(1.0), "should_transform_fn": 3}, r"should_transform_fn is 3 \(int\), expected a function"),),
        ),
        "ema": Case(lambda: gradtx.ema(0.9), (({"decay": 1.0}, r"decay is 1.0 \(float\), expected a number in \[0, 1\)"),)),
        "freeze": Case(
            lambda: gradtx.freeze(gradtx.by_path({}, default=True)),
            (({"mask": 3}, r"mask is 3 \(int\), expected a tree of booleans"),),
        ),
        "identity": Case(gradtx.identity),
        "inject_hyperparams": Case(lambda: gradtx.inject_hyperparams(gradtx.adamw)(learning_rate=0.1, b1=0.8)),
        "keep_params_nonnegative": Case(gradtx.keep_params_nonnegative),
        "lbfgs": Case(
            lambda: gradtx.lbfgs(memory_size=2),
            (RATE, MEMORY, ({"linesearch": 0.1}, r"linesearch is 0.1 \(float\), expected a gradient transformation")),
            objective,
            SEARCHES,
        ),
        "lion": Case(lambda: gradtx.lion(0.1), with_rate(B1, B2, MU, DECAY, MASK)),
        "masked": Case(
            lambda: gradtx.masked(gradtx.adam(0.1), gradtx.by_path({r".*bias": False}, default=True)),
            (({"inner": gradtx.adam, "mask": True}, r"inner is the class adam, expected a gradient transformation"),),
        ),
        "monitor": Case(lambda: gradtx.monitor({"norm": gradtx.global_norm})),
        "muon": Case(
            lambda: gradtx.muon(gradtx.cosine_decay_schedule(0.1, 10), weight_decay=0.01, consistent_rms=0.2),
            with_rate(
                BETA,
                EPS,
                STEPS,
                PRECONDITIONING,
                ({"ns_coeffs": "jordn"}, r"ns_coeffs is 'jordn', expected one of 'polar_express', .*\. Did you mean 'jordan'\?"),
                (
                    {"adam_learning_rate": -1.0},
                    r"adam_learning_rate is -1.0 \(float\), expected a finite number >= 0, or a schedule",
                ),
                ({"consistent_rms": -0.2}, r"consistent_rms is -0.2 \(float\), expected a finite number >= 0, or None"),
            ),
        ),
        "nadam": Case(lambda: gradtx.nadam(0.1), with_rate(B1, B2, EPS, NU, MU)),
        "nadamw": Case(lambda: gradtx.nadamw(0.1), with_rate(B1, B2, EPS, NU, MU, DECAY, MASK)),
        "named_chain": Case(lambda: gradtx.named_chain(("clip", gradtx.clip(1.0)), ("adam", gradtx.adam(0.1)))),
        "newton": Case(
            lambda: gradtx.newton(0.5, damping=0.1),
            (RATE, SIZE, ({"damping": -1.0}, r"damping is -1.0 \(float\), expected a finite number >= 0")),
            objective,
        ),
        "noisy_sgd": Case(
            lambda: gradtx.noisy_sgd(0.1, key=1),
            with_rate(({"eta": -1.0}, r"eta is -1.0 \(float\), expected a finite number >= 0")),
        ),
        "normalize_by_update_norm": Case(
            gradtx.normalize_by_update_norm,
            (({"scale_factor": 0.0}, r"scale_factor is 0.0 \(float\), expected a finite number > 0"),),
        ),
        "novograd": Case(lambda: gradtx.novograd(0.1, weight_decay=0.1), with_rate(B1, B2, EPS, DECAY)),
        "orthogonalize": Case(
            gradtx.orthogonalize,
            (
                EPS,
                ({"steps": 0}, r"steps is 0 \(int\), expected a whole number >= 1, or None"),
                (
                    {"coefficients": "jordn"},
                    r"coefficients is 'jordn', expected one of 'polar_express', .*\. Did you mean 'jordan'\?",
                ),
                ({"normalization": "l2"}, r"normalization is 'l2' \(str\), expected one of 'schatten8', 'frobenius'"),
                ({"method": "qr"}, r"method is 'qr' \(str\), expected one of 'auto', 'newton_schulz', 'gram', 'svd'"),
                ({"dtype": "int8"}, r"dtype is 'int8' \(str\), expected a floating dtype"),
            ),
            exceptions=SLOPES,
        ),
        "partition": Case(
            lambda: gradtx.partition(
                {"a": gradtx.sgd(0.1, 0.9), "b": gradtx.adam(0.1)}, gradtx.by_path({r".*bias": "b"}, default="a")
            )
        ),
        "perturbed_gd": Case(
            lambda: gradtx.perturbed_gd(0.1, 0.5, gradient_threshold=1.5, interval=1),
            tuple(
                ({"learning_rate": 0.1, "radius": 0.1, "gradient_threshold": 0.1, "interval": 5} | bad, text)
                for bad, text in (
                    RATE,
                    ({"radius": 0.0}, r"radius is 0.0 \(float\), expected a finite number > 0"),
                    ({"gradient_threshold": -0.1}, r"gradient_threshold is -0.1 \(float\), expected a finite number >= 0"),
                    ({"interval": -1}, r"interval is -1 \(int\), expected a whole number >= 0"),
                    ({"key": None}, "key is None, expected a random key of jax.random"),
                )
            ),
        ),
        "perturbed_sgd": Case(
            lambda: gradtx.perturbed_sgd(0.1, key=4),
            with_rate(({"radius": -1.0}, r"radius is -1.0 \(float\), expected a finite number > 0")),
        ),
        "projected_amsgrad": Case(
            lambda: gradtx.projected_amsgrad(0.1, gradtx.projections.box(-0.5, 0.7)),
            tuple(
                ({"learning_rate": 0.1, "projection": gradtx.projections.box(-1, 1)} | bad, text)
                for bad, text in (
                    RATE,
                    B1,
                    B2,
                    ({"eps": 0.0}, r"eps is 0.0 \(float\), expected a finite number > 0"),
                    ({"projection": 1.0}, r"projection is 1.0 \(float\), expected a function project\(tree, weights=None\)"),
                )
            ),
        ),
        "radam": Case(lambda: gradtx.radam(0.1), with_rate(B1, B2, EPS, THRESHOLD)),
        "rmsprop": Case(
            lambda: gradtx.rmsprop(0.1, centered=True, momentum=0.9),
            with_rate(EPS, ({"momentum": 1.0}, r"momentum is 1.0 \(float\), expected a number in \[0, 1\)")),
        ),
        "scale": Case(lambda: gradtx.scale(-0.1), (({"step_size": "x"}, r"step_size is 'x' \(str\), expected a finite number"),)),
        "scale_by_adagrad_norm": Case(gradtx.scale_by_adagrad_norm, (EPS, INITIAL)),
        "scale_by_adam": Case(lambda: gradtx.scale_by_adam(nesterov=True), (B1, B2, EPS, NU, MU)),
        "scale_by_adamax": Case(gradtx.scale_by_adamax, (B1, B2, EPS)),
        "scale_by_amsgrad": Case(lambda: gradtx.scale_by_amsgrad(bias_correction_nu=False), (B1, B2, EPS, NU, MU)),
        "scale_by_backtracking_linesearch": Case(
            lambda: gradtx.scale_by_backtracking_linesearch(5, store_grad=True),
            (
                ({"max_backtracking_steps": 0}, r"max_backtracking_steps is 0 \(int\), expected a whole number >= 1"),
                (
                    {"max_backtracking_steps": 9, "decrease_factor": 1.5},
                    r"decrease_factor is 1.5 \(float\), expected a number in \(0, 1\)",
                ),
                (
                    {"max_backtracking_steps": 9, "max_learning_rate": 0.0},
                    r"max_learning_rate is 0.0 \(float\), expected a number > 0, or inf",
                ),
            ),
            objective,
            SEARCHES,
        ),
        "scale_by_bfgs": Case(gradtx.scale_by_bfgs, (SIZE,), exceptions=WHOLE),
        "scale_by_lbfgs": Case(
            lambda: gradtx.scale_by_lbfgs(3),
            (MEMORY, ({"scale_init_precond": 1}, r"scale_init_precond is 1 \(int\), expected True or False")),
        ),
        "scale_by_dual_norm": Case(
            lambda: gradtx.scale_by_dual_norm(gradtx.orthogonalize(method="newton_schulz")),
            (({"inner": gradtx.orthogonalize}, r"inner is the class orthogonalize, expected a gradient transformation"),),
            exceptions=SLOPES,
        ),
        "scale_by_full_matrix_adagrad": Case(gradtx.scale_by_full_matrix_adagrad, (EPS, INITIAL), exceptions=WHOLE),
        "scale_by_learning_rate": Case(lambda: gradtx.scale_by_learning_rate(0.1), (RATE,)),
        "scale_by_lion": Case(
            gradtx.scale_by_lion,
            (B1, B2, MU, ({"mode": "hrad"}, r"mode is 'hrad' \(str\), expected one of .* Did you mean 'hard'\?")),
        ),
        "scale_by_newton": Case(
            gradtx.scale_by_newton,
            (SIZE, ({"damping": -1.0}, r"damping is -1.0 \(float\), expected a finite number >= 0")),
            objective,
        ),
        "scale_by_normuon": Case(
            gradtx.scale_by_normuon, (({"beta2": 1.0}, r"beta2 is 1.0 \(float\), expected a number in \[0, 1\)"), EPS)
        ),
        "scale_by_novograd": Case(gradtx.scale_by_novograd, (B1, B2, EPS, DECAY, MU)),
        "scale_by_param_block_norm": Case(
            gradtx.scale_by_param_block_norm, (({"min_scale": 0.0}, r"min_scale is 0.0 \(float\), expected a finite number > 0"),)
        ),
        "scale_by_param_block_rms": Case(
            gradtx.scale_by_param_block_rms, (({"min_scale": 0.0}, r"min_scale is 0.0 \(float\), expected a finite number > 0"),)
        ),
        "scale_by_radam": Case(lambda: gradtx.scale_by_radam(nesterov=True), (B1, B2, EPS, THRESHOLD)),
        "scale_by_rms": Case(lambda: gradtx.scale_by_rms(bias_correction=True), (EPS,)),
        "scale_by_rss": Case(gradtx.scale_by_rss, (EPS,)),
        "scale_by_schedule": Case(
            lambda: gradtx.scale_by_schedule(gradtx.linear_schedule(1.0, 0.0, 4)),
            (({"step_size_fn": 0.1}, r"step_size_fn is 0.1 \(float\), expected a schedule"),),
        ),
        "scale_by_shape": Case(
            lambda: gradtx.scale_by_shape("rms", 0.1),
            (
                ({"rms": -1.0}, r"rms is -1.0 \(float\), expected a finite number >= 0"),
                ({"scale": "rsm"}, r"scale is 'rsm' \(str\), expected one of 'jordan', 'spectral', 'rms'"),
            ),
        ),
        "scale_by_sign": Case(gradtx.scale_by_sign),
        "scale_by_stddev": Case(gradtx.scale_by_stddev, (EPS,)),
        "scale_by_trust_ratio": Case(gradtx.scale_by_trust_ratio, (EPS,)),
        "scale_by_zoom_linesearch": Case(
            lambda: gradtx.scale_by_zoom_linesearch(8, approx_dec_rtol=None),
            (
                ({"max_linesearch_steps": 2.5}, r"max_linesearch_steps is 2.5 \(float\), expected a whole number >= 1"),
                ({"max_linesearch_steps": 9, "curv_rtol": -0.1}, r"curv_rtol is -0.1 \(float\), expected a number >= 0, or inf"),
                (
                    {"max_linesearch_steps": 9, "initial_guess_strategy": "kep"},
                    r"initial_guess_strategy is 'kep' \(str\), expected one of 'one', 'keep'\. Did you mean 'keep'\?",
                ),
            ),
            objective,
            SEARCHES,
        ),
        "selective_transform": Case(
            lambda: gradtx.selective_transform(gradtx.adam(0.1), freeze_mask=gradtx.by_path({r".*bias": True}, default=False)),
            (({"optimizer": 0.1, "freeze_mask": True}, r"optimizer is 0.1 \(float\), expected a gradient transformation"),),
        ),
        "set_to_zero": Case(gradtx.set_to_zero),
        "sgd": Case(
            lambda: gradtx.sgd(0.1, 0.9, nesterov=True),
            with_rate(({"momentum": 1.0}, r"momentum is 1.0 \(float\), expected a number in \[0, 1\)")),
        ),
        "sgdw": Case(lambda: gradtx.sgdw(0.1, 0.9, weight_decay=0.1), with_rate(DECAY, MASK)),
        "sgld": Case(
            lambda: gradtx.sgld(0.1, temperature=0.5),
            with_rate(({"temperature": -1.0}, r"temperature is -1.0 \(float\), expected a finite number >= 0")),
        ),
        "sign_sgd": Case(lambda: gradtx.sign_sgd(0.1), with_rate()),
        "signum": Case(
            lambda: gradtx.signum(0.1), with_rate(({"beta": 1.0}, r"beta is 1.0 \(float\), expected a number in \[0, 1\)"))
        ),
        "stateless": Case(lambda: gradtx.stateless(same), (({"f": gradtx.adam}, r"f is the class adam, expected a function"),)),
        "stateless_with_tree_map": Case(
            lambda: gradtx.stateless_with_tree_map(same), (({"f": 3}, r"f is 3 \(int\), expected a function"),)
        ),
        "storm": Case(
            gradtx.storm,
            (
                ({"k": 0.0}, r"k is 0.0 \(float\), expected a finite number > 0"),
                ({"w": -0.1}, r"w is -0.1 \(float\), expected a finite number > 0"),
                ({"c": 0.0}, r"c is 0.0 \(float\), expected a finite number > 0"),
            ),
            GRAD_FN,
        ),
        "storm_plus": Case(gradtx.storm_plus, extra=GRAD_FN),
        "trace": Case(
            lambda: gradtx.trace(gradtx.linear_schedule(0.5, 0.9, 5)),
            (({"decay": -0.1}, r"decay is -0.1 \(float\), expected a number in \[0, 1\)"),),
        ),
        "unixgrad": Case(
            lambda: gradtx.unixgrad(2.0, gradtx.projections.box(-1.5, 1.5)),
            (
                ({"diameter": -2.0}, r"diameter is -2.0 \(float\), expected a finite number > 0"),
                ({"diameter": 1.0, "projection": gradtx.clip}, r"projection is the class clip, expected a function, or None"),
            ),
            GRAD_FN,
        ),
        "zero_nans": Case(gradtx.zero_nans),
    }
    | FIELD
    | SECOND_ORDER
    | MATRIX
    | ADAPTIVE
    | WRAPPERS
    | RECENT
)


def rows(every: int = 1, first: int = 0) -> pytest.MarkDecorator:
    """All rows as `case`; every so many of them, from the first on, in the quick tests, the others in the slow ones."""
    params = [
        pytest.param(case, id=name, marks=() if i % every == first else pytest.mark.slow)
        for i, (name, case) in enumerate(CASES.items())
    ]
    return pytest.mark.parametrize("case", params)
