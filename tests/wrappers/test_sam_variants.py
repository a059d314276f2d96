"""LookSAM, GSAM and Momentum-SAM against their papers, in float64, and what is particular to each."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles as o
import pytest
import sam_oracles as so
from problems import Arrays, distance, tanh_regression

import gradtx
from gradtx.wrappers.adversarial import sam

TANH = tanh_regression()
HEAVY_BALL = (partial(o.heavy_ball, beta=0.9), partial(o.descend, lr=0.1))
ADAM = (o.adam, partial(o.descend, lr=0.05))


def falling(count: Any) -> Any:
    return 0.3 / (1.0 + 0.2 * count)


ROWS = {  # gradtx, the paper, and the rules of the optimizer inside
    "looksam": (gradtx.looksam(gradtx.sgd(0.1, 0.9)), so.looksam(TANH, 0.05, 5, 0.7), HEAVY_BALL),
    "looksam, options": (gradtx.looksam(gradtx.adam(0.05), 0.2, 3, 0.3), so.looksam(TANH, 0.2, 3, 0.3), ADAM),
    "looksam, k = 1": (gradtx.looksam(gradtx.sgd(0.1, 0.9), 0.1, 1), so.sam(TANH, 0.1), HEAVY_BALL),
    "gsam": (gradtx.gsam(gradtx.sgd(0.1, 0.9)), so.gsam(TANH, 0.05, 0.4), HEAVY_BALL),
    "gsam, options": (gradtx.gsam(gradtx.adam(0.05), falling, 1.5, 3.0), so.gsam(TANH, falling, 1.5, 3.0), ADAM),
    "gsam, alpha = 0": (gradtx.gsam(gradtx.sgd(0.1, 0.9), 0.1, 0.0), so.sam(TANH, 0.1), HEAVY_BALL),
}
MOMENTUM = {"momentum_sam": (0.1, 0.9, 0.3), "momentum_sam, options": (0.2, 0.5, 1.0)}


@pytest.fixture(scope="module")
def paths() -> dict[str, tuple[Arrays, Arrays]]:
    """30 steps of all, compiled once."""
    momentum = [gradtx.momentum_sam(gradtx.sgd(lr, beta), rho, beta) for lr, beta, rho in MOMENTUM.values()]
    return dict(zip([*ROWS, *MOMENTUM], so.run([*(tx for tx, *_ in ROWS.values()), *momentum], TANH, 30), strict=True))


@pytest.mark.parametrize("name", ROWS)
def test_follows_the_paper(name: str, paths: dict[str, tuple[Arrays, Arrays]]) -> None:
    _, before, rules = ROWS[name]
    expected = o.follow(TANH.gradient, TANH.params, 30, *rules, before=before)
    assert distance(paths[name][0], expected) < 1e-10


@pytest.mark.parametrize("name", MOMENTUM)
def test_momentum_sam_follows_the_paper(name: str, paths: dict[str, tuple[Arrays, Arrays]]) -> None:
    """The parameters are the perturbed ones; `eval_params` gives those without."""
    for found, expected in zip(paths[name], so.momentum_sam(TANH, 30, *MOMENTUM[name]), strict=True):
        assert distance(found, expected) < 1e-10
    assert distance(*paths[name]) > 0.01


def curved(params: Any) -> Any:
    return jnp.sum(jnp.arange(1.0, 4.0) * params["a"] ** 2) / 2 + 4 * jnp.sum(params["b"] ** 4)


GRADIENT = jax.grad(curved)
PARAMS = {"a": jnp.array([1.0, -2.0, 0.5]), "b": jnp.array([0.3, -0.6])}


def inner_product(x: Any, y: Any) -> float:
    return float(so.flat(x).astype(float) @ so.flat(y).astype(float))


def test_gsam_leaves_the_loss_uphill_and_raises_the_one_here() -> None:
    """To first order: what it adds to SAM's step is orthogonal to the gradient uphill and goes along the one at the parameters."""
    g, states = GRADIENT(PARAMS), {}
    for alpha in (0.0, 0.4):
        tx = gradtx.gsam(gradtx.sgd(1.0), 0.3, alpha)
        states[alpha] = tx.update(g, tx.init(PARAMS), PARAMS, grad_fn=GRADIENT)[0]
    added = jax.tree.map(jnp.subtract, states[0.4], states[0.0])
    assert inner_product(added, states[0.0]) == pytest.approx(0, abs=1e-4)
    assert inner_product(added, g) > 0.1


def test_looksam_turns_by_alpha_gradients() -> None:
    tx = gradtx.looksam(gradtx.sgd(1.0), 0.3, 2, 0.5)
    g = GRADIENT(PARAMS)
    _, state = tx.update(g, tx.init(PARAMS), PARAMS, grad_fn=GRADIENT)
    updates, _ = tx.update(g, state, PARAMS, grad_fn=GRADIENT)
    turn = jax.tree.map(lambda u, g: -u - g, updates, g)
    assert inner_product(turn, g) == pytest.approx(0, abs=1e-4)
    assert inner_product(turn, turn) == pytest.approx(0.25 * inner_product(g, g), rel=1e-5)


def test_looksam_takes_no_direction_from_rounding() -> None:
    """Where both gradients are parallel nothing is across: between, the step is plain descent."""
    params = {"a": jnp.array([0.1, 0.7, -0.3])}
    for scale in (1e-6, 1.0, 1e6):
        tx = gradtx.looksam(gradtx.sgd(1.0), 0.05, 2)
        g = jax.tree.map(lambda x, s=scale: s * x, params)
        _, state = tx.update(g, tx.init(params), params, grad_fn=lambda p, s=scale: jax.tree.map(lambda x: s * x, p))
        np.testing.assert_array_equal(state.direction["a"], np.zeros(3))
        updates, _ = tx.update(g, state, params, grad_fn=lambda p: p)
        np.testing.assert_allclose(updates["a"], -g["a"], rtol=1e-6)


def test_half_precision() -> None:
    """Gradients of 1e-3, whose squares float16 rounds to 0 or to a few bits: products are taken in float32."""
    dtype = jnp.float16
    params = {"a": jnp.asarray([1.0, -2.0, 0.5], dtype)}

    def gradient(p: Any) -> Any:
        return jax.tree.map(lambda x: (jnp.asarray([1e-3, 4e-3, 2e-3], dtype) * x).astype(dtype), p)

    for make in (partial(gradtx.gsam, rho=0.5), partial(gradtx.looksam, rho=0.5, every_k=2)):
        tx = make(gradtx.sgd(1.0))
        state, updates = tx.init(params), None
        for _ in range(2):
            updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
        wide = make(gradtx.sgd(1.0))
        widened = jax.tree.map(lambda x: x.astype(jnp.float32), params)
        wide_state, expected = wide.init(widened), None
        for _ in range(2):
            expected, wide_state = wide.update(
                jax.tree.map(lambda x: x.astype(jnp.float32), gradient(params)),
                wide_state,
                widened,
                grad_fn=lambda p: jax.tree.map(lambda c, x: c * x, {"a": jnp.array([1e-3, 4e-3, 2e-3])}, p),
            )
        assert updates["a"].dtype == dtype
        np.testing.assert_allclose(np.float32(updates["a"]), expected["a"], rtol=0.02)


def test_momentum_sam_under_a_mask() -> None:
    tx = gradtx.masked(gradtx.momentum_sam(gradtx.sgd(0.1, 0.9), 0.5), {"a": True, "b": False})
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([1.0])}
    updates, state = tx.update(params, tx.init(params), params)
    after = gradtx.apply_updates(params, updates)
    found = gradtx.eval_params(state, after)
    np.testing.assert_allclose(after["a"], [2.4, 3.2], rtol=1e-6)
    np.testing.assert_allclose(found["a"], [2.7, 3.6], rtol=1e-6)
    np.testing.assert_array_equal(found["b"], after["b"])


EVALUATED_ELSEWHERE = {
    "momentum_sam": gradtx.momentum_sam(gradtx.sgd(0.1, 0.9), 0.5),
    "sam": sam(gradtx.sgd(0.1), gradtx.sgd(0.5)),
    "schedule_free": gradtx.schedule_free_sgd(0.1),
}


@pytest.mark.parametrize("name", EVALUATED_ELSEWHERE)
def test_runs_side_by_side_are_evaluated_one_by_one(name: str) -> None:
    """The states of a `vmap`, stacked: each run has its own norm and its own numbers."""
    tx = EVALUATED_ELSEWHERE[name]
    lanes = {"a": jnp.array([[3.0, 4.0], [0.5, -2.0], [0.0, 1.0]]), "b": jnp.array([[[1.0]], [[7.0]], [[-2.0]]])}

    def one(params: Any) -> Any:
        updates, state = tx.update(params, tx.init(params), params)
        after = gradtx.apply_updates(params, updates)
        return state, after, gradtx.eval_params(state, after)

    state, after, expected = jax.jit(jax.vmap(one))(lanes)
    found = gradtx.eval_params(state, after)
    for key in lanes:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-6)


def test_momentum_sam_decays_the_weights_without_perturbation() -> None:
    """`inner` sees `w`: with zero gradients after the first, only the decay moves `w`."""
    tx = gradtx.momentum_sam(gradtx.chain(gradtx.add_decayed_weights(0.5), gradtx.scale(-0.1)), 1.0, beta=0.5)
    params = jnp.array([3.0, 4.0])
    state = tx.init(params)
    for g in (params, jnp.zeros(2), jnp.zeros(2)):
        updates, state = tx.update(g, state, params)
        params = gradtx.apply_updates(params, updates)
    expected = (np.array([3.0, 4.0]) - 0.1 * 1.5 * np.array([3.0, 4.0])) * (1 - 0.1 * 0.5) ** 2
    np.testing.assert_allclose(gradtx.eval_params(state, params), expected, rtol=1e-6)
    np.testing.assert_allclose(params, expected - [0.6, 0.8], rtol=1e-6)


def test_momentum_sam_under_a_schedule_removes_what_it_added() -> None:
    rho = gradtx.linear_schedule(1.0, 0.0, 2)
    tx, params = gradtx.momentum_sam(gradtx.sgd(0.0), rho), jnp.array([3.0, 4.0])
    state = tx.init(params)
    for r in (1.0, 0.5, 0.0):
        updates, state = tx.update(jnp.array([3.0, 4.0]), state, params)
        params = gradtx.apply_updates(params, updates)
        np.testing.assert_allclose(params, [3 - 0.6 * r, 4 - 0.8 * r], rtol=1e-6)
        np.testing.assert_allclose(gradtx.eval_params(state, params), [3.0, 4.0], rtol=1e-6)
        assert float(gradtx.metrics(state)["rho"]) == r


def test_momentum_sam_needs_the_parameters() -> None:
    tx = gradtx.momentum_sam(gradtx.sgd(0.1), 0.1)
    with pytest.raises(ValueError, match=r"^momentum_sam: needs the parameters; call tx.update\(updates, state, params\)\.$"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    with pytest.raises(ValueError, match=r"^momentum_sam: inner is storm\(\), which calls grad_fn itself, expected an optimizer"):
        gradtx.momentum_sam(gradtx.storm(), 0.1)
