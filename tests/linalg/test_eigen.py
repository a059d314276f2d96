"""Lanczos against dense decompositions: accuracy, copies, residual bounds, breakdown."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linalg.eigen import lanczos, power_of_two, ritz

N = 500
RNG = np.random.default_rng(0)
ROTATION = np.linalg.qr(RNG.normal(size=(N, N)))[0]
START = jnp.asarray(RNG.normal(size=N), jnp.float32)
BULK = RNG.uniform(0, 0.5, N)
SPECTRA = {
    "a few large": np.concatenate([[10, 8, 5, 2, 1], BULK[5:] / 5]),
    "clustered": np.concatenate([1 - np.arange(10) * 1e-3, BULK[10:]]),
    "repeated": np.concatenate([np.ones(5), 0.9 * np.ones(5), BULK[10:]]),
    "of both signs": np.concatenate([[-9, 7, -3, 3, 1], BULK[5:] - 0.25]),
}


def symmetric(spectrum: np.ndarray) -> np.ndarray:
    return ((ROTATION * spectrum) @ ROTATION.T).astype(np.float32)


@jax.jit
def decomposed_80(a: jax.Array, start: jax.Array) -> Any:
    return run(a, start, 80)


def run(a: Any, start: Any, steps: int) -> Any:
    t = lanczos(lambda v: jnp.matmul(a, v, precision="highest"), start, steps)
    return t, ritz(t)


@pytest.mark.parametrize("name", SPECTRA)
def test_residuals_bound_and_no_value_comes_twice(name: str) -> None:
    a = symmetric(SPECTRA[name])
    exact = np.linalg.eigvalsh((a.astype(np.float64) + a.T) / 2)
    t, (values, coefficients, residuals) = jax.tree.map(lambda x: np.asarray(x, np.float64), decomposed_80(a, START))
    np.testing.assert_allclose(t.basis @ t.basis.T, np.eye(80), atol=2e-6)
    vectors = coefficients.T @ t.basis
    assert (np.linalg.norm(vectors @ a - values[:, None] * vectors, axis=1) <= residuals).all()
    assert (np.abs(values[:, None] - exact).min(axis=1) <= residuals).all()
    assert (values > 0.5).sum() == (exact > 0.5).sum()  # without orthogonalization 49 for 5


@pytest.mark.parametrize("name", ["clustered", "repeated"])
def test_ten_largest_to_1e_5_within_80_steps(name: str) -> None:
    a = symmetric(SPECTRA[name])
    exact = np.linalg.eigvalsh(a.astype(np.float64))
    np.testing.assert_allclose(decomposed_80(a, START)[1].values[-10:], exact[-10:], rtol=1e-5)


@pytest.mark.parametrize(
    ("scale", "start"), [([2.0, 2.0, 2.0], [1, 0, 0]), ([0.0, 0.0, 0.0], [1, 2, 3]), ([5.0, 1.0, -3.0], [0, 1, 0])]
)
def test_invariant_subspaces_are_left(scale: list[float], start: list[float]) -> None:
    t = lanczos(lambda v: jnp.asarray(scale) * v, jnp.asarray(start, jnp.float32), 10)
    assert t.basis.shape == (3, 3)  # no more steps than dimensions
    assert t.off_diagonal[0] == 0
    np.testing.assert_allclose(ritz(t).values, sorted(scale), atol=2e-6)
    np.testing.assert_allclose(t.basis @ t.basis.T, np.eye(3), atol=1e-6)


def test_rank_deficient_operators_keep_an_orthonormal_basis() -> None:
    a = symmetric(np.concatenate([[3, 2, 1], np.zeros(N - 3)]))
    t, (values, _, _) = decomposed_80(a, START)
    np.testing.assert_allclose(t.basis @ t.basis.T, np.eye(80), atol=2e-6)
    np.testing.assert_allclose(values[-4:], [0, 1, 2, 3], atol=1e-5)


@pytest.mark.parametrize("exponent", [-100, 100])
def test_every_scale_gives_the_same_bits(exponent: int) -> None:
    """Powers of two round nothing: values and residuals are scaled exactly, vectors stay."""
    scale = jnp.asarray([5.0, 4.0, 1.0, -2.0, 0.5, 0.25])

    @jax.jit
    def found(size: Any) -> Any:
        t = lanczos(lambda v: size * scale * v, size * jnp.ones(6), 4)
        return t.basis, ritz(t)

    size = np.float32(2.0**exponent)
    (basis, plain), (basis_of_scaled, scaled) = found(np.float32(1)), found(size)
    np.testing.assert_array_equal(basis_of_scaled, basis)
    np.testing.assert_array_equal(scaled.coefficients, plain.coefficients)
    np.testing.assert_array_equal(scaled.values, plain.values * size)
    np.testing.assert_array_equal(scaled.residuals, plain.residuals * size)


def test_powers_of_two_are_exact_at_the_ends_too() -> None:
    for x in (0.0, np.nan, np.inf):
        assert power_of_two(jnp.asarray([x])) == 1
    for x in (1.2e-38, 3e-20, 0.75, 1.0, 5.0, 3e38):
        size = float(power_of_two(jnp.asarray([x, -x / 3])))
        assert np.frexp(size)[0] == 0.5
        assert 0.25 <= x / size < 4


def test_double_precision() -> None:
    with jax.enable_x64(True):
        a = symmetric(SPECTRA["of both signs"]).astype(np.float64)
        a = (a + a.T) / 2
        _, (values, _, residuals) = jax.jit(run, static_argnums=2)(a, np.asarray(START, np.float64), 120)
        exact = np.linalg.eigvalsh(a)
        np.testing.assert_allclose(values[-3:], exact[-3:], rtol=1e-13)
        assert values.dtype == residuals.dtype == np.float64
        assert residuals[-1] < 1e-12


def test_half_precision_starts_are_widened() -> None:
    t = lanczos(lambda v: 2 * v.astype(jnp.bfloat16), jnp.ones(4, jnp.bfloat16), 1)
    assert t.basis.dtype == jnp.float32
    np.testing.assert_allclose(t.diagonal, [2.0])


def test_wrong_vectors_are_named() -> None:
    with pytest.raises(
        ValueError,
        match=r"lanczos: start is an array of shape \(2, 2\) and dtype float32, expected a floating array of shape \(n,\)",
    ):
        lanczos(lambda v: v, jnp.ones((2, 2)), 1)
    with pytest.raises(
        ValueError, match=r"the product is an array of shape \(2,\) and dtype float32, expected a floating array of shape \(3,\)"
    ):
        lanczos(lambda v: v[:2], jnp.ones(3), 1)
    with pytest.raises(ValueError, match=r"lanczos: steps is 0 \(int\), expected a whole number >= 1"):
        lanczos(lambda v: v, jnp.ones(3), 0)
