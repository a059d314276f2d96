"""STORM and STORM+ against their papers, in float64, and against what is known of the estimate's error."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import MANY_SHAPES, distance, quadratic, tanh_regression

import gradtx
from gradtx.optimizers.storm import recursive_momentum

TANH, QUADRATIC = tanh_regression(), quadratic(MANY_SHAPES)
BOTH = pytest.mark.parametrize("make", [gradtx.storm, gradtx.storm_plus])


def noisy(gradient: Any, t: Any, xp: Any) -> Any:
    """The gradient on the minibatch of step `t`."""
    return {name: (1 + 0.3 * xp.sin(1.7 * t)) * g + 0.2 * xp.cos(0.9 * t) for name, g in gradient.items()}


def squares(tree: Any) -> float:
    return float(sum(np.sum(leaf**2) for leaf in tree.values()))


def storm_paper(problem: Any, steps: int, k: float, w: float, c: float) -> dict[str, Any]:
    """Algorithm 1 of arXiv:1905.10018."""
    x, previous, d, total, a = dict(problem.params), None, None, 0.0, None
    path: dict[str, Any] = {"x": [], "d": [], "eta": []}
    for t in range(1, steps + 1):
        g = noisy(problem.gradient(x), t, np)
        if previous is None:
            d = g
        else:
            old = noisy(problem.gradient(previous), t, np)
            d = {n: g[n] + (1 - a) * (d[n] - old[n]) for n in x}
        total += squares(g)
        eta = k / (w + total) ** (1 / 3)
        previous, x, a = x, {n: x[n] - eta * d[n] for n in x}, c * eta**2
        for key, value in (("x", x), ("d", d), ("eta", {"": eta})):
            path[key].append(value)
    return {key: {n: np.stack([point[n] for point in points]) for n in points[0]} for key, points in path.items()}


def storm_plus_paper(problem: Any, steps: int) -> dict[str, Any]:
    """Algorithm 1 of arXiv:2111.01040."""
    x, previous, d, total, scaled, a = dict(problem.params), None, None, 0.0, 0.0, 1.0
    path: dict[str, Any] = {"x": [], "d": [], "eta": []}
    for t in range(1, steps + 1):
        g = noisy(problem.gradient(x), t, np)
        if previous is None:
            d = g
        else:
            old = noisy(problem.gradient(previous), t, np)
            d = {n: g[n] + (1 - a) * (d[n] - old[n]) for n in x}
        total += squares(g)
        a = 1 / (1 + total) ** (2 / 3)
        scaled += squares(d) / a
        eta = 1 / scaled ** (1 / 3)
        previous, x = x, {n: x[n] - eta * d[n] for n in x}
        for key, value in (("x", x), ("d", d), ("eta", {"": eta})):
            path[key].append(value)
    return {key: {n: np.stack([point[n] for point in points]) for n in points[0]} for key, points in path.items()}


def run(tx: Any, problem: Any, steps: int) -> dict[str, Any]:
    def step(carry: Any, t: Any) -> Any:
        params, state = carry

        def gradient(p: Any) -> Any:
            return noisy(jax.grad(problem.loss)(p), t, jnp)

        updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
        params = gradtx.apply_updates(params, updates)
        return (params, state), {"x": params, "d": state.estimate, "eta": {"": state.learning_rate}}

    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, problem.params)
        times = jnp.arange(1.0, steps + 1)
        return jax.tree.map(np.asarray, jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), times)[1])(params))


@pytest.mark.parametrize("problem", [TANH, QUADRATIC], ids=["tanh", "quadratic"])
def test_follows_the_papers(problem: Any) -> None:
    for tx, expected in (
        (gradtx.storm(), storm_paper(problem, 30, 0.1, 0.1, 1.0)),
        (gradtx.storm(k=0.5, w=2.0, c=3.0), storm_paper(problem, 30, 0.5, 2.0, 3.0)),
        (gradtx.storm_plus(), storm_plus_paper(problem, 30)),
    ):
        found = run(tx, problem, 30)
        for key in ("x", "d", "eta"):
            assert distance(found[key], expected[key]) < 1e-10, (tx, key)


@BOTH
def test_on_full_batches_the_estimate_is_the_gradient(make: Any) -> None:
    tx = make()
    gradient = jax.grad(QUADRATIC.loss)

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        g = gradient(params)
        updates, state = tx.update(g, state, params, grad_fn=gradient)
        return (gradtx.apply_updates(params, updates), state), (g, state.estimate)

    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, QUADRATIC.params)
        _, (g, d) = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=50))(params)
    assert distance(jax.tree.map(np.asarray, d), jax.tree.map(np.asarray, g)) < 1e-14


@pytest.mark.parametrize("a", [0.05, 0.3, 1.0])
def test_error_of_the_estimate_under_additive_noise(a: float) -> None:
    """With gradients `x + noise` at any moving `x`, the error's variance is `a * sigma^2 / (2 - a)`, whatever the path."""
    rng, sigma, n = np.random.default_rng(0), 2.0, 20_000
    d = previous = x = np.zeros(n)
    for t in range(200):
        previous, x = x, x + 0.1 * np.sin(t)
        noise = sigma * rng.normal(size=n)
        d = np.asarray(recursive_momentum(x + noise, d, previous + noise, a))
    assert np.var(d - x) == pytest.approx(a * sigma**2 / (2 - a), rel=0.05)  # 5 standard errors of a variance of 20,000


@pytest.mark.parametrize("a", [0.05, 0.3])
def test_storm_itself_has_that_error(a: float) -> None:
    """A large `w` keeps the step size `eta = k / w^(1/3)`, and with it `a = c * eta^2`, constant."""
    eta, sigma, n = 1e-4, 2.0, 20_000
    tx = gradtx.storm(k=1.0, w=eta**-3, c=a / eta**2)

    def step(carry: Any, key: Any) -> Any:
        x, state = carry
        noise = sigma * jax.random.normal(key, (n,))

        def gradient(x: Any) -> Any:
            return x + noise

        updates, state = tx.update(gradient(x), state, x, grad_fn=gradient)
        return (x + updates, state), (state.learning_rate, jnp.var(state.estimate - x), jnp.var(gradient(x) - x))

    x = jnp.ones(n)
    keys = jax.random.split(jax.random.key(0), 200)
    rates, errors, plain = jax.jit(lambda: jax.lax.scan(step, (x, tx.init(x)), keys)[1])()
    np.testing.assert_allclose(rates, eta, rtol=1e-3)
    assert float(errors[-1]) == pytest.approx(a * sigma**2 / (2 - a), rel=0.05)
    assert float(plain[-1]) == pytest.approx(sigma**2, rel=0.05)  # that of the gradients themselves


@BOTH
def test_two_gradients_a_step_the_second_at_the_previous_parameters(make: Any) -> None:
    points = []

    def gradient(params: Any) -> Any:
        points.append(params["w"])
        return jax.tree.map(lambda p: 2 * p, params)

    tx, params = make(), {"w": jnp.asarray([1.0, -2.0], jnp.bfloat16)}
    state, previous = tx.init(params), params
    for steps in (1, 2, 3):
        updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
        assert len(points) == 2 * steps
        assert points[-1].dtype == jnp.bfloat16
        np.testing.assert_array_equal(points[-1], previous["w"])
        previous, params = params, gradtx.apply_updates(params, updates)


def test_momentum_weight_is_at_most_one() -> None:
    """A large `c` leaves the gradient as it is, under STORM's step size."""
    tx, params = gradtx.storm(c=1e6), jnp.ones(2)
    state = tx.init(params)
    for g in (jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, 2.0])):
        updates, state = tx.update(g, state, params, grad_fn=lambda p: p)
        np.testing.assert_array_equal(state.estimate, g)
    np.testing.assert_allclose(updates, [0.0, -2 * 0.1 / np.cbrt(0.1 + 5)], rtol=1e-6)


def test_step_size_is_a_metric() -> None:
    params = {"w": jnp.ones(2), "b": jnp.ones(())}
    for tx, first in ((gradtx.storm(k=2.0, w=8.0), 1.0), (gradtx.storm_plus(), 0.0)):
        state = tx.init(params)
        assert float(gradtx.metrics(state)["learning_rate"]) == first
        _, state = tx.update(params, state, params, grad_fn=lambda p: p)  # of norm sqrt(3)
        expected = 2 / np.cbrt(11) if first else 1 / np.cbrt(3 * 4 ** (2 / 3))
        np.testing.assert_allclose(gradtx.metrics(state)["learning_rate"], expected, rtol=1e-6)


@BOTH
def test_zero_gradients_do_not_move(make: Any) -> None:
    tx, params = make(), jnp.ones(2, jnp.float16)
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(jnp.zeros(2, jnp.float16), state, params, grad_fn=jnp.zeros_like)
        np.testing.assert_array_equal(updates, [0, 0])
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(state))


@BOTH
def test_state_survives_donation(make: Any) -> None:
    tx, params = make(), {"w": jnp.ones(3)}
    step = jax.jit(lambda g, s, p: tx.update(g, s, p, grad_fn=lambda q: q), donate_argnums=(1, 2))
    updates, _ = step({"w": jnp.ones(3)}, tx.init(params), params)
    assert bool(jnp.all(updates["w"] < 0))


@BOTH
def test_errors(make: Any) -> None:
    tx, params, name = make(), {"w": jnp.ones(2)}, make.__name__
    state = tx.init(params)
    missing = rf"{name}: missing extra argument `grad_fn`; call tx.update\(updates, state, params, grad_fn=...\)"
    with pytest.raises(TypeError, match=missing):
        tx.update(params, state, params)
    with pytest.raises(ValueError, match=rf"{name}: needs the parameters; call tx.update\(updates, state, params\)"):
        tx.update(params, state, grad_fn=lambda p: p)


def test_the_update_has_a_derivative_at_zero_gradients() -> None:
    tx, params = gradtx.storm_plus(), jnp.ones(2)

    def update(g: jax.Array) -> jax.Array:
        return jnp.sum(tx.update(g, tx.init(params), params, grad_fn=lambda p: p)[0])

    np.testing.assert_array_equal(jax.grad(update)(jnp.zeros(2)), [0.0, 0.0])
