"""Inverse roots of semidefinite matrices, and one times a vector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linalg.roots import apply_inverse_sqrt, inverse_root

RNG = np.random.default_rng(0)


def semidefinite(eigenvalues, complex_=False):
    n = len(eigenvalues)
    a = RNG.normal(size=(n, n)) + (1j * RNG.normal(size=(n, n)) if complex_ else 0)
    q = np.linalg.qr(a)[0]
    return q, (q * np.asarray(eigenvalues)) @ q.conj().T


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_well_conditioned(complex_):
    q, matrix = semidefinite([4.0, 1.0, 0.25, 9.0], complex_)
    x = RNG.normal(size=4) + (1j if complex_ else 0)
    expected = q @ ((q.conj().T @ x) / (np.sqrt([4.0, 1.0, 0.25, 9.0]) + 0.5))
    with jax.enable_x64(True):
        np.testing.assert_allclose(apply_inverse_sqrt(jnp.asarray(matrix), jnp.asarray(x), 0.5), expected, rtol=1e-13)
    narrow = np.complex64 if complex_ else np.float32
    found = apply_inverse_sqrt(jnp.asarray(matrix, narrow), jnp.asarray(x, narrow), 0.5)
    assert found.dtype == narrow
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_directions_stay_zero(dtype):
    """The pseudoinverse of a matrix of rank 2, where rounding makes of zero eigenvalues small ones of either sign."""
    q, _ = semidefinite(np.ones(40))
    basis, rounding = q[:, :2], np.finfo(dtype).eps
    for spread, noise in ((1.0, 200 * rounding), (1e4, 4 * np.sqrt(rounding))):  # of the two eigenvalues that are not zero
        matrix, x = (basis * [spread, 1.0]) @ basis.T, basis @ np.array([0.3 * np.sqrt(spread), -0.5])
        with jax.enable_x64(True):
            found = np.asarray(apply_inverse_sqrt(jnp.asarray(matrix, dtype), jnp.asarray(x, dtype), 1e-12))
        np.testing.assert_allclose(basis.T @ found, [0.3, -0.5], atol=spread * 10 * rounding)
        np.testing.assert_allclose(q[:, 2:].T @ found, 0, atol=noise)


def test_small_directions_move():
    """In float32 an eigenvalue of 1e-9 is lost beside 1, but a component of 3e-5 is not: it moves, and no further than it should."""
    found = apply_inverse_sqrt(jnp.diag(jnp.array([1.0, 1e-9])), jnp.array([1.0, 3e-5]))
    assert 0.01 < float(found[1]) < 3e-5 / np.sqrt(1e-9)


def test_edges():
    zeros = apply_inverse_sqrt(jnp.zeros((3, 3)), jnp.zeros(3))
    assert np.array_equal(zeros, np.zeros(3))
    assert apply_inverse_sqrt(jnp.zeros((0, 0)), jnp.zeros(0)).shape == (0,)
    assert np.all(np.isnan(apply_inverse_sqrt(jnp.full((2, 2), jnp.nan), jnp.ones(2), 1e-7)))  # not hidden as zeros
    np.testing.assert_allclose(apply_inverse_sqrt(jnp.array([[4.0]]), jnp.array([3.0])), [1.5])


def stack_of(rank: int) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((3, 5, rank))
    return x @ x.swapaxes(1, 2)


@pytest.mark.parametrize("root", [2, 4, 6])
def test_inverse_roots_of_a_stack(root):
    a = stack_of(7)
    with jax.enable_x64(True):
        found = inverse_root(jnp.asarray(a), root, 0.1)
    shifted = a + 0.1 * np.eye(5)
    for x, y in zip(found, shifted, strict=True):
        np.testing.assert_allclose(np.linalg.matrix_power(np.linalg.inv(x), root), y, rtol=1e-9, atol=1e-9)


def test_rounding_bounds_inverse_roots():
    assert not jnp.any(inverse_root(jnp.zeros((2, 3, 3)), 2))
    found = inverse_root(jnp.diag(jnp.array([4.0, 0.0])), 2, 1e-30)
    np.testing.assert_allclose(found, np.diag([0.5, (2 * np.finfo(np.float32).eps * 4) ** -0.5]), rtol=1e-5)


def test_what_is_below_eps_is_shifted():
    """As facebookresearch/optimizers does: the smallest eigenvalue becomes `eps`, and the others move as far."""
    found = inverse_root(jnp.diag(jnp.array([1.0, -0.5])), 1, 0.25)
    np.testing.assert_allclose(found, np.diag([1 / 1.75, 4.0]), rtol=1e-6)


def test_a_matrix_that_is_not_finite_spoils_no_other():
    a = jnp.asarray(stack_of(5), jnp.float32).at[1, 0, 0].set(jnp.inf).at[2, 3, 4].set(jnp.nan)
    found = inverse_root(a, 2, 1e-3)
    assert jnp.all(jnp.isfinite(found[0]))
    assert jnp.all(jnp.isnan(found[1:]))
