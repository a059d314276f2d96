"""Trajectories and outputs whose answers are known in closed form."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles as o
import pytest
from oracles import falling, rate
from problems import Problem, distance, tanh_regression, trajectories, trajectory

import gradtx

TANH = tanh_regression()


def outputs(tx: Any, inputs: np.ndarray) -> np.ndarray:
    """What a transformation makes of a given sequence of updates, one after another, in float64."""
    with jax.enable_x64(True):
        values = jnp.asarray(inputs, jnp.float64)
        zero = jnp.zeros(values.shape[1:], jnp.float64)

        def step(state: Any, u: Any) -> Any:
            out, state = tx.update(u, state, zero)
            return state, out

        return np.asarray(jax.jit(lambda: jax.lax.scan(step, tx.init(zero), values)[1])())


def test_momentum_unrolled():
    eta, beta = 0.1, 0.9
    path = trajectory(gradtx.sgd(eta, momentum=beta), TANH, 30)
    points = [TANH.params, *({name: path[name][t] for name in path} for t in range(29))]
    grads = [TANH.gradient(point) for point in points]
    for t in (1, 2, 10, 30):  # x_{t+1} = x_1 - eta * sum of (1 - beta^{t-i+1}) / (1 - beta) * g_i
        weights = [(1 - beta ** (t - i + 1)) / (1 - beta) for i in range(1, t + 1)]
        for name, start in TANH.params.items():
            moved = sum(weight * grad[name] for weight, grad in zip(weights, grads, strict=False))
            np.testing.assert_allclose(path[name][t - 1], start - eta * moved, rtol=0, atol=1e-12)


def three_forms(lr: Any, beta: float) -> list[Any]:
    """`m = beta*m + g, x -= lr*m`; `v = beta*v - lr*g, x += v`; `v = beta*v + (1-beta)*g, x -= lr*v`."""
    step = gradtx.scale_by_learning_rate(lr)
    return [
        gradtx.sgd(lr, momentum=beta),
        gradtx.chain(step, gradtx.trace(beta)),
        gradtx.chain(gradtx.ema(beta, debias=False), step),
    ]


def test_three_forms_of_momentum():
    first, second, third = trajectories(three_forms(0.1, 0.9), TANH, 30)
    assert distance(first, second) < 1e-12
    assert distance(first, third) > 0.1  # its steps are 1 - beta times as long
    assert distance(trajectory(three_forms(1.0, 0.9)[2], TANH, 30), first) < 1e-12


def test_first_two_forms_of_momentum_differ_under_a_schedule():
    first, second, _ = trajectories(three_forms(falling, 0.9), TANH, 30)
    assert distance(first, second) > 0.01
    expected = o.follow(TANH.gradient, TANH.params, 30, rate(falling), partial(o.heavy_ball, beta=0.9))
    assert distance(second, expected) < 1e-12


def test_nesterov_is_a_gradient_ahead():
    """`v = rho*v - alpha*grad(x + rho*v), x += v`: gradtx's parameters are the points `x + rho*v`."""
    alpha, rho = 0.05, 0.9
    path = trajectory(gradtx.sgd(alpha, momentum=rho, nesterov=True), TANH, 30)
    x, v = dict(TANH.params), dict.fromkeys(TANH.params, 0.0)
    for t in range(30):
        grads = TANH.gradient({name: x[name] + rho * v[name] for name in x})
        v = {name: rho * v[name] - alpha * grads[name] for name in x}
        x = {name: x[name] + v[name] for name in x}
        for name in x:
            np.testing.assert_allclose(path[name][t], x[name] + rho * v[name], rtol=0, atol=1e-12)


def test_l2_penalty_is_not_decay_under_adam():
    start = np.array([1.0, 10.0])
    still = Problem({"x": start}, lambda p: 0.0 * jnp.sum(p["x"]), lambda p: {"x": np.zeros(2)})
    pair = [gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.adam(0.01)), gradtx.adamw(0.01, weight_decay=0.1)]
    penalty, decoupled = (path["x"][-1] for path in trajectories(pair, still, 10))
    np.testing.assert_allclose(penalty, [0.900, 9.900], atol=1e-3)
    np.testing.assert_allclose(decoupled, start * (1 - 0.01 * 0.1) ** 10, rtol=1e-14)
    np.testing.assert_allclose(decoupled / start, 0.990045, atol=1e-6)


def test_l2_penalty_is_decay_under_plain_descent_alone():
    l2 = gradtx.add_decayed_weights(0.1)
    plain = [gradtx.chain(l2, gradtx.sgd(0.1)), gradtx.sgdw(0.1, weight_decay=0.1)]
    heavy = [gradtx.chain(l2, gradtx.sgd(0.1, 0.9)), gradtx.sgdw(0.1, 0.9, weight_decay=0.1)]
    assert distance(*trajectories(plain, TANH, 30)) < 1e-12
    assert distance(*trajectories(heavy, TANH, 30)) > 0.01


@pytest.mark.parametrize("beta", [0.9, 0.99])
def test_ema_averages_about_so_many_values(beta: float):
    steps = round(20 / (1 - beta))
    weights = outputs(gradtx.ema(beta, debias=False), np.eye(1, steps)[0])  # of a value seen 0, 1, 2, ... steps ago
    np.testing.assert_allclose(weights, (1 - beta) * beta ** np.arange(steps), rtol=1e-12)
    window = round(1 / (1 - beta))
    assert weights[:window].sum() == pytest.approx(1 - 1 / math.e, abs=0.03)
    assert weights @ np.arange(1, steps + 1) == pytest.approx(window, rel=1e-4)  # the mean age, counting the newest as 1


def test_ema_bias_correction():
    constant = np.full(20, 3.0)
    np.testing.assert_allclose(outputs(gradtx.ema(0.9), constant), constant, rtol=1e-14)
    np.testing.assert_allclose(
        outputs(gradtx.ema(0.9, debias=False), constant), constant * (1 - 0.9 ** np.arange(1, 21)), rtol=1e-12
    )


def test_noise_has_the_variance_of_its_formula():
    eta, gamma, steps = 0.3, 0.55, 4
    noise = outputs(gradtx.add_noise(eta, gamma, 7), np.zeros((steps, 20_000)))
    expected = np.sqrt(eta / np.arange(1.0, steps + 1) ** gamma)
    np.testing.assert_allclose(noise.std(axis=1), expected, rtol=0.03)  # six standard errors
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=6 * expected[0] / math.sqrt(20_000))
    assert np.abs(np.corrcoef(noise) - np.eye(steps)).max() < 6 / math.sqrt(20_000)


def reddi(tx: Any, steps: int) -> float:
    """Reddi et al. 2018, section 3: the gradient of `3x` each third step, else of `-x`, on [-1, 1], from 0; the last iterate.

    Averaged over three steps the slope is positive, so that -1 is best.
    """

    def step(carry: Any, count: Any) -> Any:
        x, state = carry
        u, state = tx.update(jnp.where(count % 3 == 1, 3.0, -1.0), state, x)
        return (jnp.clip(x + u, -1.0, 1.0), state), None

    counts = jnp.arange(1, steps + 1)
    run = jax.jit(lambda x: jax.lax.scan(step, (x, tx.init(x)), counts)[0][0])
    return float(run(jnp.zeros(())))


def test_adam_does_not_converge_where_amsgrad_does():
    def lr(count: Any) -> Any:
        return 0.1 / jnp.sqrt(count + 1.0)

    assert reddi(gradtx.adam(lr, b1=0.0, b2=0.1), 100_000) == pytest.approx(1.0, abs=0.01)
    assert reddi(gradtx.amsgrad(lr, b1=0.0, b2=0.1), 100_000) == pytest.approx(-1.0, abs=0.01)
    assert reddi(gradtx.adam(lr), 100_000) == pytest.approx(-1.0, abs=0.01)  # with its usual decays Adam does, too


@pytest.mark.parametrize("name", ["adagrad", "rmsprop"])
def test_lag_behind_a_moving_minimum(name: str):
    """On `(x - 0.005 * t)**2 / 2` AdaGrad falls ever further behind; RMSProp, which forgets, keeps up."""
    tx = {"adagrad": lambda: gradtx.adagrad(0.05, initial_accumulator_value=0.0), "rmsprop": lambda: gradtx.rmsprop(0.05)}[name]()

    def step(carry: Any, t: Any) -> Any:
        x, state = carry
        u, state = tx.update(x - 0.005 * t, state, x)
        return (x + u, state), 0.005 * t - (x + u)

    with jax.enable_x64(True):
        times = jnp.arange(1.0, 20_001.0)
        x = jnp.zeros(())
        lags = np.asarray(jax.jit(lambda: jax.lax.scan(step, (x, tx.init(x)), times)[1])())
    expected = {"adagrad": [0.295, 30.2, 72.3], "rmsprop": [0.0225] * 3}[name]
    np.testing.assert_allclose(lags[[999, 9_999, 19_999]], expected, rtol=5e-3)
