"""The worst point of a p-ball: its identities from tiny to huge gradients, closed forms, float64 NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sam_oracles import ascend, flat

from gradtx.linalg.ascent import ascent
from gradtx.wrappers.ascent import Climb, weight_scale

EXPONENTS = [1.0, 1.1, 1.5, 2.0, 3.0, 20.0, np.inf]
RHO = 0.05


def gradient(scale: float = 1.0, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Magnitudes over three decades, of both signs, with a zero."""
    values = scale * np.logspace(-3, 0, 12) * np.resize([1, -1, 1], 12)
    values[4] = 0
    return {"w": values[:9].reshape(3, 3).astype(dtype), "b": values[9:].astype(dtype)}


def norm(x: np.ndarray, p: float) -> float:
    """The p-norm in float64, of numbers of any size."""
    largest = np.max(np.abs(x))
    return float(largest * np.linalg.norm(x / largest, p))


def dual(p: float) -> float:
    return np.inf if p == 1 else 1.0 if p == np.inf else p / (p - 1)


@pytest.mark.parametrize("p", EXPONENTS)
def test_its_length_is_rho_and_no_other_point_rises_faster(p: float) -> None:
    run = jax.jit(lambda g: ascent(g, RHO, p))
    for scale in (1e-8, 1e-4, 1.0, 1e4, 1e8, 1e30):
        g = gradient(scale)
        e = jax.tree.map(np.float64, run(g))
        np.testing.assert_allclose(norm(flat(e), p), RHO, rtol=2e-6)
        np.testing.assert_allclose(np.vdot(flat(g).astype(float), flat(e)), RHO * norm(flat(g).astype(float), dual(p)), rtol=2e-6)


@pytest.mark.parametrize("p", EXPONENTS)
def test_against_numpy(p: float) -> None:
    g = gradient(dtype=np.float64)
    with jax.enable_x64(True):
        e = jax.tree.map(np.asarray, jax.jit(lambda g: ascent(g, 0.7, p))(jax.tree.map(jnp.asarray, g)))
    np.testing.assert_allclose(flat(e), flat(ascend(g, 0.7, p)), rtol=1e-12, atol=1e-15)


def test_closed_forms() -> None:
    g = {"w": jnp.array([3.0, 0.0]), "b": jnp.array(-4.0)}
    for p, w, b in [(2, [0.6, 0.0], -0.8), (np.inf, [1.0, 0.0], -1.0), (1, [0.0, 0.0], -1.0)]:
        e = ascent(g, 1.0, p)
        np.testing.assert_allclose(e["w"], w, rtol=1e-6)
        np.testing.assert_allclose(e["b"], b, rtol=1e-6)


def test_equals_share_the_radius_at_p_1() -> None:
    np.testing.assert_allclose(ascent(jnp.array([2.0, -2.0, 1.0]), 0.6, 1.0), [0.3, -0.3, 0.0], rtol=1e-6)


@jax.jit
def with_each_exponent(g: Any) -> list[Any]:
    return [ascent(g, RHO, p) for p in EXPONENTS]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_zero_gradients_do_not_climb(dtype: Any) -> None:
    for e in with_each_exponent({"w": jnp.zeros((2, 2), dtype), "empty": jnp.zeros((0,), dtype)}):
        np.testing.assert_array_equal(e["w"], np.zeros((2, 2)))
        assert e["w"].dtype == jnp.float32
    assert with_each_exponent({}) == [{}] * len(EXPONENTS)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: Any) -> None:
    g = jnp.asarray([6e4, -3e-5, 1.0], dtype)  # the square of the first is beyond float16
    exact = np.asarray(g, np.float64)
    np.testing.assert_allclose(ascent(g, RHO, 2.0), RHO * exact / np.linalg.norm(exact), rtol=1e-6)


def test_up_to_eps_there_is_no_gradient() -> None:
    g = jnp.array([1e-6, -1e-6])
    np.testing.assert_array_equal(ascent(g, 1.0, 2.0, eps=1e-6), [0, 0])
    np.testing.assert_allclose(ascent(g, 1.0, 2.0, eps=0.9e-6), [np.sqrt(0.5), -np.sqrt(0.5)], rtol=1e-6)


def test_a_nan_is_not_hidden() -> None:
    for e in with_each_exponent({"a": jnp.array([jnp.nan, 1.0]), "b": jnp.ones(1)}):
        assert np.isnan(e["a"][0])


def test_complex_gradients() -> None:
    g = jnp.array([3.0 + 4.0j, -12.0j])
    for p in (1.5, 2.0, np.inf):
        e = np.asarray(ascent(g, 2.0, p))
        np.testing.assert_allclose(norm(np.abs(e), p), 2.0, rtol=1e-6)
        np.testing.assert_allclose(np.vdot(np.asarray(g), e), 2.0 * norm(np.abs(np.asarray(g)), dual(p)), rtol=1e-6)


@pytest.mark.parametrize("p", [1.5, 2.0, np.inf])
def test_in_units_of_the_weights(p: float) -> None:
    """ASAM: `|e / T|_p = rho`, and `<g, e> = rho * |T g|_q`."""
    g, params = gradient(), {"w": np.linspace(-2, 3, 9, dtype=np.float32).reshape(3, 3), "b": np.ones(3, np.float32)}
    t = weight_scale(params, 0.01, None)
    np.testing.assert_allclose(t["w"], np.abs(params["w"]) + 0.01, rtol=1e-6)
    np.testing.assert_array_equal(np.broadcast_to(t["b"], 3), np.ones(3))
    e = jax.tree.map(np.float64, Climb(p, 0.0).step(g, RHO, t))
    t = {"w": np.float64(t["w"]), "b": np.ones(3)}
    np.testing.assert_allclose(norm(flat(e) / flat(t), p), RHO, rtol=2e-6)
    np.testing.assert_allclose(flat(g) @ flat(e), RHO * norm(flat(t) * flat(g), dual(p)), rtol=2e-6)
    chosen = weight_scale(params, 0.0, {"w": False, "b": True})
    np.testing.assert_array_equal(np.broadcast_to(chosen["w"], (3, 3)), np.ones((3, 3)))
    np.testing.assert_array_equal(chosen["b"], np.ones(3))
