"""The gradient noise scale against known noise, and relative steps by path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import diagnostics


def test_estimates_of_all_batches_are_unbiased() -> None:
    """By enumeration: examples of a set with known mean and covariance, all pairs with repetition."""
    g = np.random.default_rng(0).normal(1.0, 2.0, (6, 3))
    pairs = np.array([[g[i], g[j]] for i in range(6) for j in range(6)])
    with jax.enable_x64(True):
        small = np.mean(np.sum(pairs**2, axis=2), axis=1)
        large = np.sum(pairs.mean(1) ** 2, axis=1)
        found = diagnostics.gradient_noise(jnp.asarray(small), jnp.asarray(large), 1, 2)
        signal, noise = float(found.signal.mean()), float(found.noise.mean())
    np.testing.assert_allclose(signal, np.sum(g.mean(0) ** 2), rtol=1e-10)
    np.testing.assert_allclose(noise, np.sum(g.var(0)), rtol=1e-10)


def test_value_and_gradient_are_those_of_the_whole_batch() -> None:
    x, y, w = jnp.arange(24.0).reshape(8, 3) / 10, jnp.arange(8.0), {"w": jnp.ones(3)}

    def loss(p: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((x @ p["w"] - y) ** 2)

    value, grad, found = diagnostics.with_noise_scale(jax.value_and_grad(loss), 4)(w, x, y)
    expected = jax.value_and_grad(loss)(w, x, y)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    np.testing.assert_allclose(grad["w"], expected[1]["w"], rtol=1e-5)
    parts = [jax.grad(loss)(w, x[i : i + 2], y[i : i + 2])["w"] for i in range(0, 8, 2)]
    small, large = np.mean([np.sum(g**2) for g in parts]), np.sum(expected[1]["w"] ** 2)
    np.testing.assert_allclose(found.signal, (8 * large - 2 * small) / 6, rtol=1e-4)
    np.testing.assert_allclose(found.noise, (small - large) / (1 / 2 - 1 / 8), rtol=1e-4)


def test_the_scale_of_known_noise() -> None:
    """Gradients with mean (3, 4) and a standard deviation of 5 in each of two elements: 50/25."""

    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.sum((w - x) ** 2, axis=1)) / 2

    step = jax.jit(diagnostics.with_noise_scale(jax.value_and_grad(loss), 4))
    found = [step(jnp.array([3.0, 4.0]), 5 * jax.random.normal(k, (32, 2)))[2] for k in jax.random.split(jax.random.key(1), 300)]
    average = diagnostics.GradientNoise(*(jnp.mean(jnp.stack(x)) for x in zip(*found, strict=True)))
    assert abs(float(average.scale) - 2) < 0.2


def test_estimates_below_zero_give_no_negative_scale() -> None:
    assert float(diagnostics.GradientNoise(jnp.array(-1.0), jnp.array(-2.0)).scale) == 1.0


def test_wrong_sizes() -> None:
    with pytest.raises(
        ValueError, match=r"^gradient_noise: small_batch is 4 and large_batch 4, expected 1 <= small_batch < large_batch"
    ):
        diagnostics.gradient_noise(jnp.ones(()), jnp.ones(()), 4, 4)
    with pytest.raises(ValueError, match=r"^with_noise_scale: microbatches is 1 \(int\), expected a whole number >= 2"):
        diagnostics.with_noise_scale(jax.value_and_grad(jnp.sum), 1)


def test_relative_steps_by_path() -> None:
    params = {"a": {"kernel": jnp.full((2, 2), 2.0)}, "zero": jnp.zeros(3)}
    tx = gradtx.chain(gradtx.sgd(0.5), gradtx.update_ratios())
    updates, state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    found = {name: float(x) for name, x in gradtx.metrics(state).items() if "ratio" in name}
    assert found == {"update_ratio/a/kernel": 0.25, "update_ratio/zero": 0.0}
    assert float(updates["zero"][0]) == -0.5
