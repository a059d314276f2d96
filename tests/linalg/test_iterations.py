"""Optax's iterations of linear algebra and its norms with a floor: beside Optax, and beside NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import gradtx.optax as ours

RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(6, 6))
MATRIX = jnp.asarray(ROOT @ ROOT.T + 0.1 * np.eye(6), jnp.float32)


def test_power_iteration_finds_the_largest_in_magnitude() -> None:
    indefinite = MATRIX - 30 * jnp.eye(6)
    for matrix in (MATRIX, indefinite):
        value, vector = ours.power_iteration(matrix, num_iters=1000)
        theirs, other = optax.power_iteration(matrix, num_iters=1000)
        eigenvalues = np.linalg.eigvalsh(np.asarray(matrix, float))
        np.testing.assert_allclose(value, eigenvalues[np.argmax(np.abs(eigenvalues))], rtol=1e-5)
        np.testing.assert_allclose(value, theirs, rtol=1e-5)
        np.testing.assert_allclose(vector, other, rtol=1e-3, atol=1e-3)


def test_power_iteration_of_a_function_of_trees() -> None:
    v0 = {"a": jnp.ones(2), "b": jnp.ones(())}
    value, vector = ours.power_iteration(lambda v: {"a": 2 * v["a"], "b": -5 * v["b"]}, v0=v0)
    np.testing.assert_allclose(value, -5, rtol=1e-5)
    np.testing.assert_allclose(jnp.abs(vector["b"]), 1, rtol=1e-4)
    with pytest.raises(ValueError, match="power_iteration: v0 is missing: a function does not say what it takes"):
        ours.power_iteration(lambda v: v)


def test_power_iteration_of_zeros() -> None:
    value, vector = ours.power_iteration(jnp.zeros((3, 3)))
    assert float(value) == 0
    np.testing.assert_allclose(jnp.linalg.norm(vector), 1, rtol=1e-6)
    assert bool(jnp.isnan(optax.power_iteration(jnp.zeros((3, 3)))[0]))


@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
def test_inverse_roots(p: int) -> None:
    root, error = ours.matrix_inverse_pth_root(MATRIX, p)
    values, q = np.linalg.eigh(np.asarray(MATRIX, float))
    exact = q @ np.diag((values + 1e-6 * values[-1]) ** (-1 / p)) @ q.T
    np.testing.assert_allclose(root, exact, atol=2e-3 * np.max(np.abs(exact)))
    assert float(error) < 1e-3
    theirs = optax.matrix_inverse_pth_root(MATRIX, p)[0]
    off = np.max(np.abs(np.asarray(theirs, float) - exact)) / np.max(np.abs(exact))
    assert (off > 0.1) if p == 3 else (off < 2e-3)  # Optax takes the fourth power for the third


def test_the_inverse_root_of_a_number() -> None:
    root, error = ours.matrix_inverse_pth_root(jnp.array([[16.0]]), 4)
    np.testing.assert_allclose(root, [[0.5]], rtol=1e-4)
    assert float(error) == 0


@pytest.mark.parametrize("shape", [(8,), (8, 3)])
def test_least_squares_without_negative_numbers(shape: tuple[int, ...]) -> None:
    a, b = RNG.normal(size=(8, 4)), RNG.normal(size=shape)
    found = ours.nnls(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32), 2000)
    columns = b[:, None] if b.ndim == 1 else b
    exact = np.stack([scipy.optimize.nnls(a, column)[0] for column in columns.T], axis=-1).reshape(found.shape)
    np.testing.assert_allclose(found, exact, atol=1e-4)
    np.testing.assert_allclose(found, optax.nnls(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32), 2000), atol=1e-5)
    assert np.min(exact) == 0 < np.max(exact)


def test_least_squares_with_a_bound_and_of_zeros() -> None:
    a, b = jnp.eye(2), jnp.array([1.0, -1.0])
    np.testing.assert_allclose(ours.nnls(a, b, 50, L=1.0), [1.0, 0.0])
    np.testing.assert_array_equal(ours.nnls(jnp.zeros((2, 2)), b, 5), 0)
    with pytest.raises(ValueError, match=r"nnls: A has shape \(2, 2\) and b \(3,\), expected \(m, n\), and \(m,\) or \(m, k\)"):
        ours.nnls(a, jnp.ones(3), 5)


X = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)
NORMS: list[dict[str, Any]] = [{}, {"axis": 0}, {"axis": -1, "keepdims": True}, {"ord": 1, "axis": 1}, {"ord": jnp.inf, "axis": 0}]


@pytest.mark.parametrize("options", NORMS)
@pytest.mark.parametrize("floor", [1e-3, 2.0])
def test_norms_with_a_floor_are_those_of_optax(options: dict[str, Any], floor: float) -> None:
    for x in (X, jnp.zeros((3, 4))):
        found, theirs = ((lib.safe_norm(x, floor, **options)) for lib in (ours, optax))
        np.testing.assert_allclose(found, theirs, rtol=1e-6)
        slopes = [jax.grad(lambda x, lib=lib: jnp.sum(lib.safe_norm(x, floor, **options)))(x) for lib in (ours, optax)]
        np.testing.assert_allclose(*slopes, rtol=1e-6)
        assert bool(jnp.all(jnp.isfinite(slopes[0])))


@pytest.mark.parametrize("floor", [1e-3, 2.0])
def test_root_mean_squares_with_a_floor_are_those_of_optax(floor: float) -> None:
    for x in (X, jnp.zeros((3, 4))):
        np.testing.assert_allclose(*[lib.safe_root_mean_squares(x, floor) for lib in (ours, optax)], rtol=1e-6)
        slopes = [jax.grad(lib.safe_root_mean_squares)(x, floor) for lib in (ours, optax)]
        np.testing.assert_allclose(*slopes, rtol=1e-6)


def test_norms_of_half_precision_do_not_overflow() -> None:
    x = jnp.full(4, 300.0, jnp.float16)
    assert ours.safe_norm(x, 1.0) == 600
    assert ours.safe_norm(x, 1.0).dtype == ours.safe_root_mean_squares(x, 1.0).dtype == jnp.float16
    assert ours.safe_root_mean_squares(x, 1.0) == 300


def test_gradients_scaled_on_the_way_back() -> None:
    def loss(x: Any, scale: Any, lib: Any) -> Any:
        return jnp.sum(lib.scale_gradient({"x": x}, scale)["x"] ** 2)

    for scale in (0.0, 1.0, -0.5, jnp.array(2.0)):
        np.testing.assert_allclose(*[jax.grad(loss)(X, scale, lib) for lib in (ours, optax)], rtol=1e-6)
        np.testing.assert_allclose(ours.scale_gradient(X, scale), X)
    _, forward = jax.jvp(lambda x: ours.scale_gradient(x, -0.5), (X,), (jnp.ones_like(X),))
    np.testing.assert_allclose(forward, -0.5)


def test_units_clipped() -> None:
    norms, largest = jnp.full(4, 5.0), jnp.array([1.0, 5.0, 7.0, 0.0])
    clipped = [lib.transforms.unitwise_clip(norms, largest, X[0]) for lib in (ours, optax)]
    np.testing.assert_allclose(*clipped, rtol=1e-6)
    with pytest.raises(
        ValueError, match=r"unitwise_clip: g_norm, max_norm and grad have shapes \(4,\), \(\) and \(4,\), expected one"
    ):
        ours.transforms.unitwise_clip(norms, jnp.ones(()), X[0])


def test_normal_numbers() -> None:
    loc, log_scale = jnp.array([1.0, -1.0]), jnp.array([0.5, -2.0])
    a, b = (lib.multi_normal(loc, log_scale) for lib in (ours, optax))
    key = jax.random.key(1)
    np.testing.assert_allclose(a.sample((3,), key), b.sample((3,), key), rtol=1e-5)
    np.testing.assert_allclose(a.log_prob(X[:, :2]), b.log_prob(X[:, :2]), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    np.testing.assert_array_equal(a.log_scale, b.log_scale)
