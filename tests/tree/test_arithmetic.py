"""Arithmetic on trees, against NumPy and Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import HALVES, TREES, X, Y, a_tree, assert_trees_close, dtypes, wide

from gradtx import tree

# Arithmetic -----------------------------------------------------------------------------------------------

TWO_TREES = {
    "add": lambda module, x, y: module.add(x, y),
    "add three": lambda module, x, y: module.add(x, y, x),
    "sub": lambda module, x, y: module.sub(x, y),
    "mul": lambda module, x, y: module.mul(x, y),
    "div": lambda module, x, y: module.div(x, y),
    "scale": lambda module, x, y: module.scale(-0.3, x),
    "add_scale": lambda module, x, y: module.add_scale(x, 0.7, y),
    "conj": lambda module, x, y: module.conj(x),
    "real": lambda module, x, y: module.real(x),
    "where": lambda module, x, y: module.where(False, x, y),
    "vdot": lambda module, x, y: module.vdot(x, y),
    "sum": lambda module, x, y: module.sum(x),
    "zeros_like": lambda module, x, y: module.zeros_like(x),
    "ones_like": lambda module, x, y: module.ones_like(x),
    "full_like": lambda module, x, y: module.full_like(x, 3.0),
    "batch_shape": lambda module, x, y: module.batch_shape(x, (2, 1)),
    "size": lambda module, x, y: module.size(x),
    "update_moment": lambda module, x, y: module.update_moment(x, y, 0.9, 1),
    "update_moment_per_elem_norm": lambda module, x, y: module.update_moment_per_elem_norm(x, y, 0.9, 2),
    "bias_correction": lambda module, x, y: module.bias_correction(x, 0.9, jnp.int32(3)),
    "split_key_like": lambda module, x, y: module.unwrap_random_key_data(module.split_key_like(jax.random.key(3), x)),
    "random_like": lambda module, x, y: module.random_like(jax.random.key(3), x),
}


@pytest.mark.parametrize("name", TWO_TREES)
@pytest.mark.parametrize("kind", TREES)
def test_agrees_with_optax_in_float32(name, kind):
    function = TWO_TREES[name]
    assert_trees_close(function(tree, *TREES[kind]), function(optax.tree, *TREES[kind]))


REAL = {
    "max": lambda module, x, y: module.max(x),
    "min": lambda module, x, y: module.min(x),
    "clip": lambda module, x, y: module.clip(x, -0.5, 0.4),
    "clip below": lambda module, x, y: module.clip(x, -0.5),
    "norm": lambda module, x, y: module.norm(x),
    "squared norm": lambda module, x, y: module.norm(x, squared=True),
    "norm 1": lambda module, x, y: module.norm(x, 1),
    "norm inf squared": lambda module, x, y: module.norm(x, "inf", squared=True),
    "update_infinity_moment": lambda module, x, y: module.update_infinity_moment(x, y, 0.9, 1e-3),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("kind", ["nested", "array"])
def test_agrees_with_optax_for_real_float32(name, kind):
    function = REAL[name]
    assert_trees_close(function(tree, *TREES[kind]), function(optax.tree, *TREES[kind]))


RULES = {
    "add": (tree.add, lambda x, y: x + y),
    "sub": (tree.sub, lambda x, y: x - y),
    "mul": (tree.mul, lambda x, y: x * y),
    "div": (tree.div, lambda x, y: x / y),
    "add_scale": (lambda x, y: tree.add_scale(x, 0.1, y), lambda x, y: x + 0.1 * y),
    "update_moment": (lambda x, y: tree.update_moment(x, y, 0.99, 3), lambda x, y: 0.01 * x**3 + 0.99 * y),
    "update_infinity_moment": (
        lambda x, y: tree.update_infinity_moment(x, y, 0.99, 1e-8),
        lambda x, y: np.maximum(abs(x) + 1e-8, 0.99 * y),
    ),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_rounded_once(name, dtype):
    function, rule = RULES[name]
    x, y = a_tree(dtype, 1), a_tree(dtype, 2)
    found = function(x, y)
    assert dtypes(found) == {jnp.dtype(dtype)}
    expected = jax.tree.map(lambda a, b: rule(np.float32(a), np.float32(b)), wide(x), wide(y))
    ulp = float(jnp.finfo(dtype).eps)
    assert_trees_close(found, expected, rtol=0.51 * ulp, atol=1e-7)


def test_results_take_the_dtype_of_the_first_tree():
    half, full = jnp.ones(2, jnp.bfloat16), jnp.ones(2)
    assert tree.add(half, full).dtype == jnp.bfloat16
    assert tree.add(full, half).dtype == jnp.float32
    assert tree.scale(jnp.float32(2), half).dtype == jnp.bfloat16
    assert tree.where(True, half, full).dtype == jnp.bfloat16
    assert tree.clip(half, jnp.float32(0), 1.0).dtype == jnp.bfloat16
    assert not tree.where(True, 1.0, 2.0).weak_type


def test_moments_keep_the_dtype_of_the_moments():
    g, m = [jnp.full(2, 3.0, jnp.bfloat16)], [jnp.ones(2)]
    for update in (tree.update_moment, tree.update_moment_per_elem_norm):
        (found,) = update(g, m, 0.9, 2)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, 0.1 * 9 + 0.9, rtol=1e-6)
    (found,) = tree.update_infinity_moment(g, m, 0.9, 0.5)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 3.5)


def test_integers_and_reals_give_way_to_what_they_cannot_hold():
    ints = [jnp.array([1, 2])]
    assert tree.add(ints, ints)[0].dtype == jnp.int32
    np.testing.assert_allclose(tree.div(ints, [jnp.array([2, 4])])[0], [0.5, 0.5])
    np.testing.assert_allclose(tree.scale(0.5, ints)[0], [0.5, 1.0])
    np.testing.assert_allclose(tree.add_scale(3, 0.1, 2), 3.2, rtol=1e-6)
    np.testing.assert_allclose(tree.clip(ints, max_value=1.5)[0], [1, 1.5])
    np.testing.assert_allclose(tree.mul([jnp.ones(2)], [jnp.array([1j, 2j])])[0], [1j, 2j])
    np.testing.assert_allclose(tree.where(False, ints, [jnp.array([0.5, 1.5])])[0], [0.5, 1.5])


def test_scalar_leaves_go_with_any_shape():
    assert_trees_close(
        tree.mul({"a": 2.0, "b": 3.0}, {"a": jnp.ones(3), "b": jnp.ones((2, 2))}), {"a": np.full(3, 2), "b": np.full((2, 2), 3)}
    )
    assert_trees_close(tree.add([jnp.ones(3)], [1.0], [jnp.arange(3.0)]), [np.array([2, 3, 4])])


def test_scalars_may_be_traced():
    step = jax.jit(lambda x, s, low: tree.clip(tree.add_scale(tree.scale(s, x), s, x), low))
    for s in (0.5, 2.0):
        np.testing.assert_allclose(step(X, s, -0.1)["w"], np.maximum(2 * s * np.asarray(X["w"]), -0.1), rtol=1e-6)


def test_scalar_argument_is_a_scalar():
    with pytest.raises(TypeError, match=r"tree.scale: scalar is an array of shape \(2,\) and dtype float32, expected a scalar"):
        tree.scale(jnp.ones(2), X)
    with pytest.raises(TypeError, match=r"tree.add_scale: scalar is"):
        tree.add_scale(X, jnp.ones(2), Y)
    with pytest.raises(TypeError, match=r"tree.clip: max_value is"):
        tree.clip(X, 0.0, jnp.ones(2))


def test_where_with_a_condition_per_element_and_with_keys():
    condition = jnp.array([True, False])
    np.testing.assert_array_equal(tree.where(condition, [jnp.ones((3, 2))], [jnp.zeros((3, 2))])[0], [[1, 0]] * 3)
    a, b = {"key": jax.random.key(0), "x": 1.0}, {"key": jax.random.key(1), "x": 2.0}
    assert tree.where(jnp.array(False), a, b)["key"] == b["key"]
    with pytest.raises(
        ValueError, match=r"tree.where: condition is an array of shape \(3,\) and dtype bool, .* leaves of shape \(2,\)"
    ):
        tree.where(jnp.ones(3, bool), jnp.ones(2), jnp.ones(2))


# Moments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 4, 2.0, 1.5])
def test_moments_of_complex_updates(order):
    g, m = [jnp.array([3 + 4j, 1j])], [jnp.ones(2)]
    (found,) = tree.update_moment_per_elem_norm(g, m, 0.9, order)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 0.1 * np.array([5.0, 1.0]) ** order + 0.9, rtol=1e-6)
    if float(order).is_integer():
        (found,) = tree.update_moment(g, [jnp.ones(2, jnp.complex64)], 0.9, order)
        np.testing.assert_allclose(found, 0.1 * np.array([3 + 4j, 1j]) ** order + 0.9, rtol=2e-6, atol=1e-6)
    (found,) = tree.update_infinity_moment(g, m, 0.9, 0.0)
    np.testing.assert_allclose(found, [5, 1], rtol=1e-6)


def test_moments_with_traced_hyperparameters():
    found = jax.jit(tree.update_moment)([jnp.array([2.0])], [jnp.array([1.0])], 0.9, 2)
    np.testing.assert_allclose(found[0], 0.1 * 4 + 0.9, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("decay", [0.0, 0.9, 0.9999])
def test_bias_correction(decay, dtype):
    moment = {"m": jnp.array([1e-3, -2.0], dtype)}
    for count in (1, 10, 10**6):
        expected = np.asarray(moment["m"], float) / (1 - np.float64(decay) ** count)
        for n in (count, jnp.int32(count)):
            found = tree.bias_correction(moment, decay, n)["m"]
            assert found.dtype == dtype
            np.testing.assert_allclose(np.asarray(found, float), expected, rtol=1e-6 if dtype == jnp.float32 else 4e-3)


def test_bias_correction_before_any_step():
    assert tree.bias_correction(jnp.array([0.0, 1.0]), 0.9, 0).tolist() == [0.0, 1.0]
    assert tree.bias_correction(jnp.array([1.0]), jnp.float32(0), 0).tolist() == [1.0]
