"""From trees to numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import HALVES, RNG, X, Y, a_complex_tree, a_tree, flat

import gradtx
from gradtx import tree

# From trees to numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, *HALVES, jnp.complex64])
def test_reductions_against_float64(dtype):
    x, y = (t if dtype != jnp.complex64 else a_complex_tree(i) for i, t in enumerate((a_tree(dtype, 1), a_tree(dtype, 2))))
    fx, fy = flat(x), flat(y)
    real = jnp.float32
    for found, expected, kind in (
        (tree.sum(x), fx.sum(), dtype if dtype == jnp.complex64 else real),
        (tree.vdot(x, y), np.vdot(fx, fy), dtype if dtype == jnp.complex64 else real),
        (tree.norm(x), np.linalg.norm(fx), real),
        (gradtx.global_norm(x), np.linalg.norm(fx), real),
        (tree.norm(x, 2, squared=True), np.linalg.norm(fx) ** 2, real),
        (tree.norm(x, 1), abs(fx).sum(), real),
        (tree.norm(x, 1, squared=True), abs(fx).sum() ** 2, real),
        (tree.norm(x, jnp.inf), abs(fx).max(), real),
        (tree.norm(x, "infinity", True), abs(fx).max() ** 2, real),
    ):
        assert found.dtype == kind
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1e30, 1e-30, 1e-37, 1.0])
def test_norm_at_the_edges_of_float32(size):
    x = {"w": jnp.full(4, size), "b": jnp.zeros(3)}
    np.testing.assert_allclose(tree.norm(x), 2 * np.float64(np.float32(size)), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(tree.norm)(x), 2 * np.float64(np.float32(size)), rtol=1e-6)
    np.testing.assert_allclose(tree.norm([jnp.array([3 * size, 4j * size])]), 5 * size, rtol=1e-6)


def test_norm_of_half_precision_beyond_its_range():
    assert float(tree.norm(jnp.full(100, 6e4, jnp.float16))) == pytest.approx(6e5, rel=1e-3)
    assert float(tree.sum(jnp.ones(4096, jnp.bfloat16))) == 4096
    assert float(tree.vdot(jnp.full(9, 300.0, jnp.float16), jnp.full(9, 300.0, jnp.float16))) == 810000


def test_norm_of_what_is_not_finite():
    assert np.isinf(tree.norm(jnp.array([1.0, jnp.inf])))
    assert np.isnan(tree.norm(jnp.array([1.0, jnp.nan])))
    assert np.isnan(tree.norm(jnp.array([1.0, jnp.nan]), np.inf))


def test_norm_of_integers_and_python_numbers():
    assert float(tree.norm({"i": jnp.array([100000, 100000]), "f": 0.0})) == pytest.approx(1e5 * 2**0.5)
    assert float(tree.norm([3, 4.0])) == 5
    assert float(tree.norm([3, 4], 1)) == 7


def test_squared_norm_has_a_gradient_at_zero():
    np.testing.assert_array_equal(jax.grad(lambda x: tree.norm(x, squared=True))(jnp.zeros(2)), 0)
    np.testing.assert_allclose(jax.grad(tree.norm)(jnp.array([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("ord", [3, 0, "fro"])
def test_unknown_norms(ord):
    with pytest.raises(ValueError, match=r"tree.norm: ord is .*, expected None, 1, 2 or inf"):
        tree.norm(X, ord)


def test_vdot_of_many_is_accurate():
    x, y = (RNG.random(200_000, dtype=np.float32) for _ in range(2))
    expected = np.dot(x.astype(float), y.astype(float))
    np.testing.assert_allclose(tree.vdot([jnp.asarray(x)], [jnp.asarray(y)]), expected, rtol=1e-6)
    assert tree.vdot([jnp.array([1, 2])], [jnp.array([3, 4])]) == 11


def test_sum_takes_optax_arguments():
    assert tree.sum(X) == tree.sum(X, associative_reduction=True)
    assert tree.sum([jnp.array([1, 2], jnp.int8), jnp.array([2**24 + 1])]) == 2**24 + 4


def test_extremes_of_integers_stay_exact():
    x = [jnp.array([2**24 + 1, -(2**24) - 1]), jnp.array([0], jnp.int8), jnp.zeros(0)]
    assert tree.max(x[:2]) == 2**24 + 1
    assert tree.min(x[:2]) == -(2**24) - 1
    assert tree.max([3, jnp.array([2.5])]) == 3
    assert tree.max(jnp.array([1.0, 2.0], jnp.bfloat16)).dtype == jnp.bfloat16


def test_allclose():
    assert tree.allclose(X, jax.tree.map(lambda x: x * (1 + 1e-6), X))
    assert not tree.allclose(X, Y)
    assert tree.allclose(X, Y, atol=100.0)
    assert not tree.allclose([jnp.nan], [jnp.nan])
    assert tree.allclose([jnp.nan], [jnp.nan], equal_nan=True)
    half = jnp.ones(1, jnp.bfloat16)
    assert not tree.allclose(half, half + jnp.bfloat16(2**-7), rtol=5e-3)
