"""Perturbed descent and Langevin dynamics: against their papers in float64, on a saddle, and in the stationary state."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import distance, tanh_regression, trajectory

import gradtx

PROBLEM = tanh_regression()
STEPS = 30


def falling(count: Any) -> Any:
    return 0.2 / (1.0 + 0.3 * count)


def at(rate: Any, t: int) -> Any:
    return rate(t) if callable(rate) else rate


def draws(tx: Any) -> list[dict[str, np.ndarray]]:
    """The noise of each step, in float64: what the transformation makes of zero gradients."""
    with jax.enable_x64(True):
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape), PROBLEM.params)

        def step(state: Any, _: None) -> Any:
            noise, state = tx.update(zeros, state, zeros)
            return state, noise

        noise = jax.jit(lambda: jax.lax.scan(step, tx.init(zeros), None, length=STEPS)[1])()
        return [{name: np.asarray(leaf[t]) for name, leaf in noise.items()} for t in range(STEPS)]


def norm(tree: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(leaf**2) for leaf in tree.values())))


# Against the papers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, falling])
def test_perturbed_sgd_is_its_formula(rate: Any):
    """Ge et al. 2015, algorithm 1: `x -= rate * (g + xi)`."""
    noise = draws(gradtx.add_sphere_noise(0.3, 5))
    x, path = PROBLEM.params, []
    for t in range(STEPS):
        g = PROBLEM.gradient(x)
        x = {name: x[name] - at(rate, t) * (g[name] + noise[t][name]) for name in x}
        path.append(x)
    expected = {name: np.stack([point[name] for point in path]) for name in x}
    ours = trajectory(gradtx.perturbed_sgd(rate, 0.3, key=5), PROBLEM, STEPS)
    assert distance(ours, expected) < 1e-10
    assert distance(trajectory(gradtx.sgd(rate), PROBLEM, STEPS), expected) > 1e-3


@pytest.mark.parametrize("rate", [0.1, falling])
def test_sgld_is_its_formula(rate: Any):
    """Welling and Teh 2011, equation 4, with `epsilon = 2 * rate` and a temperature: `x -= rate * g - sqrt(2 * rate * T) * xi`."""
    noise = draws(gradtx.add_langevin_noise(0.5, key=5))  # sqrt(2 * 0.5) = 1: the standard normal numbers
    x, path = PROBLEM.params, []
    for t in range(STEPS):
        g, r = PROBLEM.gradient(x), at(rate, t)
        x = {name: x[name] - (r * g[name] - np.sqrt(2 * r * 0.01) * noise[t][name]) for name in x}
        path.append(x)
    expected = {name: np.stack([point[name] for point in path]) for name in x}
    assert distance(trajectory(gradtx.sgld(rate, 0.01, key=5), PROBLEM, STEPS), expected) < 1e-10


def perturbed_descent(rate: Any, threshold: float, interval: int, noise: list[Any], as_paper: bool) -> tuple[Any, list[int]]:
    """Jin et al. 2017, algorithm 2, without its end; and the steps at which it perturbs."""
    x, path, perturbed, t_noise = PROBLEM.params, [], [], -interval - 1
    for t in range(STEPS):
        g = PROBLEM.gradient(x)
        if norm(g) <= threshold and t - t_noise > interval:
            x, t_noise = {name: x[name] + noise[len(perturbed)][name] for name in x}, t
            perturbed.append(t)
            g = PROBLEM.gradient(x) if as_paper else g
        x = {name: x[name] - at(rate, t) * g[name] for name in x}
        path.append(x)
    return {name: np.stack([point[name] for point in path]) for name in x}, perturbed


@pytest.mark.parametrize("rate", [0.1, falling])
@pytest.mark.parametrize("as_paper", [True, False], ids=["grad_fn", "gradient given"])
def test_perturbed_gd_is_its_paper(rate: Any, as_paper: bool):
    radius, threshold, interval = 0.05, 0.2, 4
    noise = draws(gradtx.perturbed_gd(0.0, radius, 0.0, 0, key=5))  # without gradient and rate it is the noise alone
    np.testing.assert_allclose([norm(xi) for xi in noise], radius, rtol=1e-14)
    expected, perturbed = perturbed_descent(rate, threshold, interval, noise, as_paper)
    assert 2 <= len(perturbed) <= 6
    assert perturbed[0] > 0
    tx = gradtx.perturbed_gd(rate, radius, threshold, interval, key=5)

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        grad_fn = jax.grad(PROBLEM.loss)
        extra = {"grad_fn": grad_fn} if as_paper else {}
        updates, state = tx.update(grad_fn(params), state, params, **extra)
        params = gradtx.apply_updates(params, updates)
        return (params, state), params

    with jax.enable_x64(True):
        start = jax.tree.map(jnp.asarray, PROBLEM.params)
        path = jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), None, length=STEPS)[1])()
        assert distance(jax.tree.map(np.asarray, path), expected) < 1e-10


def test_perturbed_gd_waits_more_than_the_interval():
    tx, zero = gradtx.perturbed_gd(0.1, 0.5, gradient_threshold=1e-3, interval=3), jnp.zeros(2)

    def step(state: Any, g: Any) -> Any:
        updates, state = tx.update(g, state)
        return state, gradtx.global_norm(updates)

    grads = jnp.zeros((12, 2)).at[4, 0].set(1.0).at[9, 0].set(jnp.nan)  # large, and unknown, where it is time again
    _, moved = jax.lax.scan(step, tx.init(zero), grads)
    np.testing.assert_allclose(moved, [0.5, 0, 0, 0, 0.1, 0.5, 0, 0, 0, np.nan, 0.5, 0], rtol=1e-6)


def test_perturbed_gd_measures_the_norm_of_the_whole_tree():
    grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    for threshold, expected in ((4.9, 0.0), (5.1, 0.5)):
        tx = gradtx.perturbed_gd(0.0, 0.5, threshold, 0)
        updates, _ = tx.update(grads, tx.init(grads))
        np.testing.assert_allclose(gradtx.global_norm(updates), expected, rtol=1e-6)
        assert float(jnp.abs(updates["a"][0])) != float(jnp.abs(updates["b"][0])) or expected == 0


# Saddle and stationary state --------------------------------------------------------------------------------


def saddle(p: Any) -> Any:
    """Saddle at 0 with value 0, minima at `y = +-sqrt(1/2)` with value -1/4."""
    x, y = p["x"], p["y"]
    return x**2 - y**2 + y**4


def run_on_saddle(tx: Any, steps: int = 400) -> Any:
    def step(carry: Any, _: None) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(saddle)(params), state, params)
        return (gradtx.apply_updates(params, updates), state), None

    start = {"x": jnp.array(1.0), "y": jnp.array(0.0)}
    return saddle(jax.lax.scan(step, (start, tx.init(start)), None, length=steps)[0][0])


def test_noise_leaves_the_saddle():
    keys = jax.random.split(jax.random.key(0), 20)

    def ends(key: Any) -> Any:
        perturbed = gradtx.perturbed_gd(0.1, 0.01, gradient_threshold=1e-3, interval=50, key=key)
        return [run_on_saddle(perturbed), run_on_saddle(gradtx.perturbed_sgd(0.1, 0.01, key=key))]

    gd, sgd = jax.jit(jax.vmap(ends))(keys)
    np.testing.assert_allclose(gd, -0.25, atol=1e-3)  # 20 of 20
    np.testing.assert_allclose(sgd, -0.25, atol=1e-3)


def test_descent_without_noise_stays_at_the_saddle():
    assert abs(float(run_on_saddle(gradtx.sgd(0.1)))) < 1e-12
    assert abs(float(run_on_saddle(gradtx.sgld(0.1, temperature=0.0)))) < 1e-12


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_sgld_has_its_stationary_variance(temperature: float):
    """`x' = (1 - a * lam) * x + sqrt(2 * a * T) * xi` has the variance `T / (lam * (1 - a * lam / 2))`."""
    chains, alpha, lam = 10_000, 0.2, np.array([0.5, 1.0, 4.0], np.float32)

    def end(key: Any) -> Any:
        tx = gradtx.sgld(alpha, temperature, key=key)

        def step(carry: Any, _: None) -> Any:
            x, state = carry
            updates, state = tx.update(lam * x, state, x)
            return (x + updates, state), None

        return jax.lax.scan(step, (jnp.zeros(3), tx.init(jnp.zeros(3))), None, length=100)[0][0]

    x = np.asarray(jax.jit(jax.vmap(end))(jax.random.split(jax.random.key(1), chains)), np.float64)
    expected = temperature / (lam * (1 - alpha * lam / 2))
    error = expected * np.sqrt(2 / chains)  # of the variance of normal numbers whose mean is known
    assert np.all(np.abs((x**2).mean(axis=0) - expected) < 2.5 * error)
    assert np.all(np.abs(temperature / lam - expected)[1:] > 5 * error[1:])  # the step's own share is seen, too
    assert np.all(np.abs(x.mean(axis=0)) < 4 * np.sqrt(expected / chains))


# Keys, dtypes, values -----------------------------------------------------------------------------------------

MAKE = {
    "perturbed_sgd": lambda **key: gradtx.perturbed_sgd(0.5, **key),
    "perturbed_gd": lambda **key: gradtx.perturbed_gd(0.5, 0.5, gradient_threshold=1.0, interval=1, **key),
    "sgld": lambda **key: gradtx.sgld(0.5, **key),
}


@pytest.mark.parametrize("name", MAKE)
def test_reproducible_by_key(name: str):
    grads = {"a": jnp.zeros(3), "b": jnp.zeros(3)}

    def first(**key: Any) -> Any:
        tx = MAKE[name](**key)
        return tx.update(grads, tx.init(grads), grads)[0]

    default, again, other = first(), first(key=jax.random.key(0)), first(key=1)
    for leaf in grads:
        np.testing.assert_array_equal(default[leaf], again[leaf])
        assert not np.any(np.isclose(default[leaf], other[leaf]))
    assert not np.any(np.isclose(default["a"], default["b"]))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", MAKE)
def test_half_precision(name: str, dtype: Any):
    tx, grads = MAKE[name](), jnp.linspace(-0.1, 0.1, 64)
    wide, _ = tx.update(grads.astype(dtype).astype(jnp.float32), tx.init(grads), grads)
    narrow, _ = tx.update(grads.astype(dtype), tx.init(grads.astype(dtype)), grads.astype(dtype))
    assert narrow.dtype == dtype
    np.testing.assert_allclose(narrow.astype(jnp.float32), wide, rtol=2e-2, atol=2e-3)


def test_the_rate_can_be_read_and_injected():
    for name in MAKE:
        tx, params = MAKE[name](), jnp.zeros(3)
        assert float(gradtx.metrics(tx.init(params))["learning_rate"]) == 0.5
    tx = gradtx.inject_hyperparams(gradtx.perturbed_gd)(0.5, radius=0.25, gradient_threshold=1.0, interval=1)
    state = tx.init(jnp.zeros(3))
    assert set(state.hyperparams) == {"learning_rate", "radius", "gradient_threshold"}
    np.testing.assert_allclose(gradtx.global_norm(tx.update(jnp.zeros(3), state)[0]), 0.25, rtol=1e-6)


def test_grad_fn_wants_the_parameters_and_gives_their_tree():
    tx, zero = gradtx.perturbed_gd(0.1, 0.5, gradient_threshold=1e-3, interval=3), {"w": jnp.zeros(2)}
    with pytest.raises(ValueError, match=r"^perturbed_gd: needs the parameters; call tx.update\(updates, state, params\)"):
        tx.update(zero, tx.init(zero), grad_fn=lambda p: p)
    with pytest.raises(ValueError, match=r"^perturbed_gd: updates leaf `w` has shape \(3,\), but params has \(2,\) there"):
        tx.update(zero, tx.init(zero), zero, grad_fn=lambda p: {"w": jnp.zeros(3)})
    with pytest.raises(TypeError, match=r"^perturbed_gd: unknown extra argument `grad_fun`. Did you mean 'grad_fn'\?"):
        tx.update(zero, tx.init(zero), zero, grad_fun=lambda p: p)
