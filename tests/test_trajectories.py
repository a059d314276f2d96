"""Whole trajectories against torch and against float64 NumPy."""

import json
import pathlib
from functools import partial
from typing import Any

import field_oracles as fo
import jax
import numpy as np
import oracles as o
import pytest
from oracles import falling, rate
from problems import MANY_SHAPES, Problem, distance, quadratic, tanh_regression, trajectory

import gradtx
from gradtx.wrappers.lookahead import lookahead

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "torch_trajectories.json").read_text())["table"]
TANH, QUADRATIC = tanh_regression(), quadratic(MANY_SHAPES)


def golden(name: str) -> dict[str, np.ndarray]:
    """Torch's iterates of one entry."""
    steps = GOLDEN[name]["steps"]
    return {leaf: np.array([step[leaf] for step in steps]) for leaf in TANH.params}


# torch --------------------------------------------------------------------------------------------------------

TORCH = {  # golden entry: gradtx, and the oracle's rules
    "sgd": (lambda: gradtx.sgd(0.1), [rate(0.1)]),
    "sgd_momentum": (lambda: gradtx.sgd(0.1, momentum=0.9), [partial(o.heavy_ball, beta=0.9), rate(0.1)]),
    "sgd_nesterov": (lambda: gradtx.sgd(0.1, momentum=0.9, nesterov=True), [partial(o.nesterov, beta=0.9), rate(0.1)]),
    "sgd_l2": (
        lambda: gradtx.chain(gradtx.add_decayed_weights(0.01), gradtx.sgd(0.1, momentum=0.9)),
        [partial(o.decay, weight_decay=0.01), partial(o.heavy_ball, beta=0.9), rate(0.1)],
    ),
    "adam": (lambda: gradtx.adam(0.05), [o.adam, rate(0.05)]),
    "adam_l2": (
        lambda: gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.adam(0.05)),
        [partial(o.decay, weight_decay=0.1), o.adam, rate(0.05)],
    ),
    "adamw": (lambda: gradtx.adamw(0.05, weight_decay=0.1), [o.adam, partial(o.decay, weight_decay=0.1), rate(0.05)]),
    "adamax": (lambda: gradtx.adamax(0.02), [o.adamax, rate(0.02)]),
    "adagrad": (
        lambda: gradtx.adagrad(0.1, 0.0, 1e-10, eps_in_sqrt=False),
        [partial(o.adagrad, initial=0.0, eps=1e-10, inside=False), rate(0.1)],
    ),
    "rmsprop": (lambda: gradtx.rmsprop(0.01, eps_in_sqrt=False), [partial(o.rmsprop, inside=False), rate(0.01)]),
    "rmsprop_centered_momentum": (
        lambda: gradtx.rmsprop(0.01, eps_in_sqrt=False, centered=True, momentum=0.9),
        [partial(o.rmsprop, inside=False, centered=True), partial(o.heavy_ball, beta=0.9), rate(0.01)],
    ),
    "lion": (lambda: gradtx.lion(0.01, weight_decay=0.0), [o.lion, rate(0.01)]),
    "signsgd": (lambda: gradtx.sign_sgd(0.01), [o.sign, rate(0.01)]),
    "lookahead_sgd": (
        lambda: gradtx.lookahead_wrapper(gradtx.sgd(0.1, momentum=0.9)),
        [partial(o.heavy_ball, beta=0.9), rate(0.1), partial(o.lookahead, period=5, alpha=0.5)],
    ),
    "lookahead_adam": (
        lambda: lookahead(gradtx.adam(0.05), 3, 0.8),
        [o.adam, rate(0.05), partial(o.lookahead, period=3, alpha=0.8)],
    ),
}
TORCH_DIFFERS = {  # golden entry: gradtx at its nearest, the oracle of torch's definition, how far gradtx is from torch
    "amsgrad": (lambda: gradtx.amsgrad(0.05), [o.amsgrad_torch, rate(0.05)], (1e-3, 1.0)),  # maximum after bias correction
    "radam": (lambda: gradtx.radam(0.05), [o.radam_torch, rate(0.05)], (1e-8, 1e-4)),  # eps after bias correction
}


def test_every_golden_entry_is_used():
    assert GOLDEN.keys() == TORCH.keys() | TORCH_DIFFERS.keys() | {"sam_sgd", "sam_adam", "asam_sgd"}  # wrappers/test_sam.py


def test_problem_is_the_golden_one():
    points = {leaf: np.stack([TANH.params[leaf], *path[:-1]]) for leaf, path in golden("sgd").items()}
    with jax.enable_x64(True):
        losses = jax.jit(jax.vmap(TANH.loss))(points)
    np.testing.assert_allclose(losses, [step["loss"] for step in GOLDEN["sgd"]["steps"]], rtol=1e-13)


@pytest.mark.parametrize("problem", [TANH, QUADRATIC], ids=["tanh", "quadratic"])
def test_gradients_agree(problem: Problem):
    with jax.enable_x64(True):
        grads = jax.jit(jax.grad(problem.loss))(problem.params)
    assert distance(jax.tree.map(np.asarray, grads), problem.gradient(problem.params)) < 1e-15


@pytest.mark.parametrize("name", TORCH)
def test_torch(name: str):
    make, rules = TORCH[name]
    ours, oracle = trajectory(make(), TANH, 25), o.follow(TANH.gradient, TANH.params, 25, *rules)
    assert distance(ours, golden(name)) < 1e-10
    assert distance(oracle, golden(name)) < 1e-10
    assert distance(ours, oracle) < 1e-12


@pytest.mark.parametrize("name", TORCH_DIFFERS)
def test_torch_where_definitions_differ(name: str):
    make, rules, (least, most) = TORCH_DIFFERS[name]
    torch = golden(name)
    assert distance(o.follow(TANH.gradient, TANH.params, 25, *rules), torch) < 1e-10
    assert least < distance(trajectory(make(), TANH, 25), torch) < most


# NumPy --------------------------------------------------------------------------------------------------------

ORACLES: dict[str, tuple[Any, list[Any]]] = {  # what the rows above do not cover
    "sgd, schedule": (lambda: gradtx.sgd(falling, momentum=0.8), [partial(o.heavy_ball, beta=0.8), rate(falling)]),
    "sgdw": (lambda: gradtx.sgdw(0.1, weight_decay=0.2), [partial(o.decay, weight_decay=0.2), rate(0.1)]),
    "sgdw, momentum": (
        lambda: gradtx.sgdw(falling, 0.9, weight_decay=0.2),
        [partial(o.heavy_ball, beta=0.9), partial(o.decay, weight_decay=0.2), rate(falling)],
    ),
    "sgdw, nesterov": (
        lambda: gradtx.sgdw(0.1, 0.9, nesterov=True, weight_decay=falling),
        [partial(o.nesterov, beta=0.9), partial(o.decay, weight_decay=falling), rate(0.1)],
    ),
    "noisy_sgd, no noise": (lambda: gradtx.noisy_sgd(0.1, eta=0.0), [rate(0.1)]),
    "sign_sgd": (lambda: gradtx.sign_sgd(falling), [o.sign, rate(falling)]),
    "signum": (lambda: gradtx.signum(0.01, beta=0.8), [partial(o.ema, beta=0.8, debias=False), o.sign, rate(0.01)]),
    "adam": (lambda: gradtx.adam(0.05), [o.adam, rate(0.05)]),
    "adam, eps inside": (
        lambda: gradtx.adam(0.05, eps=0.0, eps_root=1e-4),
        [partial(o.adam, eps=0.0, eps_root=1e-4), rate(0.05)],
    ),
    "adam, options": (
        lambda: gradtx.adam(falling, b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-4),
        [partial(o.adam, b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-4), rate(falling)],
    ),
    "adam, b1 = 0": (lambda: gradtx.adam(0.05, b1=0.0), [partial(o.adam, b1=0.0), rate(0.05)]),
    "adamw": (lambda: gradtx.adamw(0.05, weight_decay=falling), [o.adam, partial(o.decay, weight_decay=falling), rate(0.05)]),
    "nadam": (lambda: gradtx.nadam(0.05), [o.nadam, rate(0.05)]),
    "nadamw": (
        lambda: gradtx.nadamw(0.05, b1=0.8, weight_decay=0.1),
        [partial(o.nadam, b1=0.8), partial(o.decay, weight_decay=0.1), rate(0.05)],
    ),
    "adamax": (lambda: gradtx.adamax(0.05, b1=0.8, b2=0.9, eps=1e-3), [partial(o.adamax, b1=0.8, b2=0.9, eps=1e-3), rate(0.05)]),
    "adamaxw": (lambda: gradtx.adamaxw(falling, weight_decay=0.1), [o.adamax, partial(o.decay, weight_decay=0.1), rate(falling)]),
    "amsgrad": (lambda: gradtx.amsgrad(0.05, b2=0.9), [partial(o.amsgrad, b2=0.9), rate(0.05)]),
    "amsgrad, as the paper": (
        lambda: gradtx.amsgrad(0.05, b2=0.9, eps=1e-6, eps_root=1e-7, bias_correction_mu=False, bias_correction_nu=False),
        [partial(o.amsgrad, b2=0.9, eps=1e-6, eps_root=1e-7, correct_m=False, correct_v=False), rate(0.05)],
    ),
    "rmsprop": (lambda: gradtx.rmsprop(0.02, eps=1e-3), [partial(o.rmsprop, eps=1e-3), rate(0.02)]),
    "rmsprop, eps outside": (
        lambda: gradtx.rmsprop(0.02, 0.8, 1e-3, 0.5, eps_in_sqrt=False),
        [partial(o.rmsprop, beta=0.8, eps=1e-3, initial=0.5, inside=False), rate(0.02)],
    ),
    "rmsprop, bias correction": (lambda: gradtx.rmsprop(0.02, bias_correction=True), [partial(o.rmsprop, debias=True), rate(0.02)]),
    "rmsprop, centered": (
        lambda: gradtx.rmsprop(0.02, eps=1e-3, centered=True),
        [partial(o.rmsprop, eps=1e-3, centered=True), rate(0.02)],
    ),
    "rmsprop, centered, eps outside, bias correction": (
        lambda: gradtx.rmsprop(0.02, eps=1e-2, initial_scale=0.1, eps_in_sqrt=False, centered=True, bias_correction=True),
        [partial(o.rmsprop, eps=1e-2, initial=0.1, inside=False, centered=True, debias=True), rate(0.02)],
    ),
    "rmsprop, momentum after the rate": (
        lambda: gradtx.rmsprop(falling, eps=1e-2, momentum=0.8),
        [partial(o.rmsprop, eps=1e-2), rate(falling), partial(o.heavy_ball, beta=0.8)],
    ),
    "rmsprop, nesterov": (
        lambda: gradtx.rmsprop(0.005, eps=1e-3, momentum=0.8, nesterov=True),
        [partial(o.rmsprop, eps=1e-3), rate(0.005), partial(o.nesterov, beta=0.8)],
    ),
    "adagrad": (lambda: gradtx.adagrad(0.1), [o.adagrad, rate(0.1)]),
    "adagrad, from zero": (
        lambda: gradtx.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-4),
        [partial(o.adagrad, initial=0.0, eps=1e-4), rate(0.1)],
    ),
    "lion": (lambda: gradtx.lion(0.01, weight_decay=0.1), [o.lion, partial(o.decay, weight_decay=0.1), rate(0.01)]),
    "lion, options": (
        lambda: gradtx.lion(falling, b1=0.7, b2=0.8, weight_decay=falling),
        [partial(o.lion, b1=0.7, b2=0.8), partial(o.decay, weight_decay=falling), rate(falling)],
    ),
    "adabelief": (lambda: gradtx.adabelief(0.02), [fo.adabelief, rate(0.02)]),
    "adabelief, options": (
        lambda: gradtx.adabelief(falling, 0.8, 0.95, 1e-3, 1e-6, nesterov=True),
        [partial(fo.adabelief, b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-6, nesterov=True), rate(falling)],
    ),
    "yogi": (lambda: gradtx.yogi(0.05), [fo.yogi, rate(0.05)]),
    "scale_by_yogi": (
        lambda: gradtx.chain(gradtx.scale_by_yogi(0.8, 0.95, 1e-4, 1e-5, 0.01), gradtx.scale(-0.05)),
        [partial(fo.yogi, b1=0.8, b2=0.95, eps=1e-4, eps_root=1e-5, initial=0.01), rate(0.05)],
    ),
    "adadelta": (lambda: gradtx.adadelta(1.0), [fo.adadelta, rate(1.0)]),
    "adadelta, options": (
        lambda: gradtx.adadelta(falling, 0.8, 1e-3, 0.1),
        [partial(o.decay, weight_decay=0.1), partial(fo.adadelta, rho=0.8, eps=1e-3), rate(falling)],
    ),
    "adan": (
        lambda: gradtx.adan(0.02, weight_decay=0.1),
        [partial(fo.adan, eps_root=1e-8), partial(o.decay, weight_decay=0.1), rate(0.02)],
    ),
    "adan, options": (
        lambda: gradtx.adan(falling, 0.9, 0.8, 0.95, 1e-3, 1e-4),
        [partial(fo.adan, b1=0.9, b2=0.8, b3=0.95, eps=1e-3, eps_root=1e-4), rate(falling)],
    ),
    "ademamix": (
        lambda: gradtx.ademamix(0.02, weight_decay=0.1),
        [fo.ademamix, partial(o.decay, weight_decay=0.1), rate(0.02)],
    ),
    "ademamix, options": (
        lambda: gradtx.ademamix(falling, 0.8, 0.95, lambda t: 0.9 - 0.3 / (t + 1), lambda t: 0.1 * t, 1e-3, 1e-4),
        [
            partial(
                fo.ademamix, b1=0.8, b2=0.95, b3=lambda t: 0.9 - 0.3 / (t + 1), alpha=lambda t: 0.1 * t, eps=1e-3, eps_root=1e-4
            ),
            rate(falling),
        ],
    ),
    "simplified_ademamix": (
        lambda: gradtx.simplified_ademamix(1e-3, alpha=3.0, weight_decay=0.1),
        [partial(fo.simplified_ademamix, alpha=3.0), partial(o.decay, weight_decay=0.1), rate(1e-3)],
    ),
    "simplified_ademamix, options": (
        lambda: gradtx.simplified_ademamix(falling, 0.8, 0.9, lambda t: 0.1 * t, 1e-3),
        [partial(fo.simplified_ademamix, b1=0.8, b2=0.9, alpha=lambda t: 0.1 * t, eps=1e-3), rate(falling)],
    ),
    "adopt": (lambda: gradtx.adopt(0.02), [fo.adopt, rate(0.02)]),
    "adopt, options": (
        lambda: gradtx.adopt(falling, 0.8, 0.9, 1e-3, nesterov=True, use_clipping=False),
        [partial(fo.adopt, b1=0.8, b2=0.9, eps=1e-3, nesterov=True, clipping=False), rate(falling)],
    ),
    "acprop": (
        lambda: gradtx.acprop(0.02, eps_root=1e-6, weight_decay=0.1),
        [partial(fo.acprop, eps_root=1e-6), partial(o.decay, weight_decay=0.1), rate(0.02)],
    ),
    "acprop, options": (
        lambda: gradtx.acprop(falling, 0.8, 0.9, 1e-3, 1e-4),
        [partial(fo.acprop, b1=0.8, b2=0.9, eps=1e-3, eps_root=1e-4), rate(falling)],
    ),
    "madgrad": (
        lambda: gradtx.madgrad(0.05, weight_decay=0.1),
        [partial(o.decay, weight_decay=0.1), partial(fo.madgrad, lr=0.05)],
    ),
    "madgrad, options": (lambda: gradtx.madgrad(falling, 0.5, eps=1e-3), [partial(fo.madgrad, lr=falling, momentum=0.5, eps=1e-3)]),
    "rprop": (lambda: gradtx.rprop(0.01), [partial(fo.rprop, lr=0.01), rate(1.0)]),
    "rprop, options": (
        lambda: gradtx.rprop(0.01, 0.4, 1.5, 1e-3, 0.05),
        [partial(fo.rprop, lr=0.01, minus=0.4, plus=1.5, least=1e-3, largest=0.05), rate(1.0)],
    ),
    "optimistic_gradient_descent": (lambda: gradtx.optimistic_gradient_descent(0.1), [fo.optimistic, rate(0.1)]),
    "optimistic_gradient_descent, options": (
        lambda: gradtx.optimistic_gradient_descent(falling, 0.5, 0.7),
        [partial(fo.optimistic, alpha=0.5, beta=0.7), rate(falling)],
    ),
    "optimistic_adam_v2": (
        lambda: gradtx.optimistic_adam_v2(0.02, alpha=0.9, beta=0.5, b1=0.8),
        [partial(o.nadam, b1=0.8), partial(fo.optimistic, alpha=0.9, beta=0.5), rate(0.02)],
    ),
    "lamb": (
        lambda: gradtx.lamb(0.02, eps=1e-8, weight_decay=0.1),
        [o.adam, partial(o.decay, weight_decay=0.1), o.trust_ratio, rate(0.02)],
    ),
    "lars": (
        lambda: gradtx.lars(falling, 0.1, trust_coefficient=0.5, eps=1e-3, nesterov=True),
        [
            partial(o.decay, weight_decay=0.1),
            partial(o.trust_ratio, coefficient=0.5, eps=1e-3),
            rate(falling),
            partial(o.nesterov, beta=0.9),
        ],
    ),
    "fromage": (lambda: gradtx.fromage(0.05), [partial(fo.fromage, lr=0.05)]),
    "fromage, schedule": (lambda: gradtx.fromage(falling), [partial(fo.fromage, lr=falling)]),
    "ema": (lambda: gradtx.chain(gradtx.ema(0.9), gradtx.sgd(0.3)), [partial(o.ema, beta=0.9, debias=True), rate(0.3)]),
    "ema, no debias": (
        lambda: gradtx.chain(gradtx.ema(0.9, debias=False), gradtx.sgd(0.3)),
        [partial(o.ema, beta=0.9, debias=False), rate(0.3)],
    ),
    "L2 penalty": (
        lambda: gradtx.chain(gradtx.add_decayed_weights(falling), gradtx.sgd(0.1, 0.9)),
        [partial(o.decay, weight_decay=falling), partial(o.heavy_ball, beta=0.9), rate(0.1)],
    ),
    "clip": (lambda: gradtx.chain(gradtx.clip(0.05), gradtx.sgd(0.3)), [partial(o.clip, bound=0.05), rate(0.3)]),
    "clip_by_block_rms": (
        lambda: gradtx.chain(gradtx.clip_by_block_rms(0.05), gradtx.sgd(0.3)),
        [partial(o.clip_by_block_rms, threshold=0.05), rate(0.3)],
    ),
    "adaptive_grad_clip": (
        lambda: gradtx.chain(gradtx.adaptive_grad_clip(0.1, eps=0.5), gradtx.sgd(0.5)),
        [partial(o.adaptive_grad_clip, clipping=0.1, eps=0.5), rate(0.5)],
    ),
    "centralize": (lambda: gradtx.chain(gradtx.centralize(), gradtx.sgd(0.5)), [o.centralize, rate(0.5)]),
    "scale_by_trust_ratio": (lambda: gradtx.chain(gradtx.scale_by_trust_ratio(), gradtx.sgd(0.05)), [o.trust_ratio, rate(0.05)]),
    "scale_by_trust_ratio, options": (
        lambda: gradtx.chain(gradtx.scale_by_trust_ratio(0.5, 0.7, 1e-2), gradtx.sgd(0.05)),
        [partial(o.trust_ratio, floor=0.5, coefficient=0.7, eps=1e-2), rate(0.05)],
    ),
    "scale_by_param_block_norm": (
        lambda: gradtx.chain(gradtx.scale_by_param_block_norm(0.9), gradtx.sgd(0.1)),
        [partial(o.param_block_norm, floor=0.9), rate(0.1)],
    ),
    "scale_by_param_block_rms": (
        lambda: gradtx.chain(gradtx.scale_by_param_block_rms(0.6), gradtx.sgd(0.3)),
        [partial(o.param_block_rms, floor=0.6), rate(0.3)],
    ),
    "keep_params_nonnegative": (
        lambda: gradtx.chain(gradtx.sgd(0.5), gradtx.keep_params_nonnegative()),
        [rate(0.5), o.stay_nonnegative],
    ),
}
WHOLE_TREE = {  # rules that need all gradients at once
    "clip_by_global_norm": (lambda: gradtx.clip_by_global_norm(0.1), partial(o.clip_by_global_norm, max_norm=0.1)),
    "normalize_by_update_norm": (
        lambda: gradtx.normalize_by_update_norm(0.5, eps=1e-3),
        partial(o.normalize_by_update_norm, scale=0.5, eps=1e-3),
    ),
}
BY_SHAPE = ("clip_by_block_rms", "adaptive_grad_clip", "centralize", "scale_by_trust", "scale_by_param")  # seen on many shapes


@pytest.mark.parametrize("name", ORACLES)
def test_oracle(name: str):
    make, rules = ORACLES[name]
    problem = QUADRATIC if name.startswith(BY_SHAPE) else TANH
    expected = o.follow(problem.gradient, problem.params, 30, *rules)
    assert distance(trajectory(make(), problem, 30), expected) < 1e-12


@pytest.mark.parametrize("name", WHOLE_TREE)
def test_oracle_of_the_whole_tree(name: str):
    make, before = WHOLE_TREE[name]
    expected = o.follow(TANH.gradient, TANH.params, 30, rate(0.2), before=before)
    assert distance(trajectory(gradtx.chain(make(), gradtx.sgd(0.2)), TANH, 30), expected) < 1e-12


@pytest.mark.parametrize("name", ["clip", "clip_by_block_rms", "adaptive_grad_clip", "keep_params_nonnegative"])
def test_bounds_bind(name: str):
    """The rows above would pass with a bound that never binds: without it the trajectory is another."""
    rules = ORACLES[name][1]
    problem = QUADRATIC if name.startswith(BY_SHAPE) else TANH
    free = o.follow(problem.gradient, problem.params, 30, *(rule for rule in rules if getattr(rule, "func", None) is o.descend))
    assert distance(o.follow(problem.gradient, problem.params, 30, *rules), free) > 1e-3
