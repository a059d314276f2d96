"""Dtypes, new trees, random trees."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import X, a_tree, assert_trees_close, dtypes, flat

from gradtx import tree

# Dtypes and new trees -------------------------------------------------------------------------------------


def test_cast():
    assert dtypes(tree.cast(X, jnp.bfloat16)) == {jnp.dtype(jnp.bfloat16)}
    assert tree.cast(X, None) is X
    like = {"w": jnp.ones(1, jnp.float16), "b": [2.0, jnp.ones((), jnp.bfloat16)]}
    found = tree.cast_like(X, like)
    assert found["w"].dtype == jnp.float16
    assert found["b"][0] is X["b"][0]
    assert found["b"][1].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"tree.cast_like: tree and other_tree differ in structure: `b/0` is only in tree"):
        tree.cast_like(X, {"w": 1.0})


@pytest.mark.parametrize(
    ("kinds", "handler", "expected"),
    [
        (["float32", "float32"], None, "float32"),
        (["float16", "float32"], "lowest", "float16"),
        (["float16", "float32", "float16"], "highest", "float32"),
        (["float16", "bfloat16"], "promote", "float32"),
        (["float16", "bfloat16", "float32"], "highest", "float32"),
        (["int32", "uint32"], "promote", "int32"),
        (["int32", "bfloat16"], "highest", "bfloat16"),
        ([], None, "float32"),
    ],
)
def test_dtype_of_a_tree(kinds, handler, expected):
    leaves = [jnp.ones(1, kind) for kind in kinds]
    assert tree.dtype(leaves, handler) == expected
    if kinds != ["float16", "bfloat16", "float32"]:  # Optax compares neighbours only, and fails
        assert optax.tree.dtype(leaves, handler) == expected


def test_dtype_errors():
    mixed = {"a": jnp.ones(1, jnp.float16), "b": [jnp.ones(1, jnp.bfloat16)]}
    with pytest.raises(ValueError, match=r"tree.dtype: leaves are float16 \(`a`\) and bfloat16 \(`b/0`\), expected one dtype"):
        tree.dtype(mixed)
    for handler in ("highest", "lowest"):
        with pytest.raises(ValueError, match=f"of which none is the {handler}"):
            tree.dtype(mixed, handler)
    with pytest.raises(ValueError, match=r"mixed_dtype_handler is 'max' \(str\), expected None, 'promote', 'highest' or 'lowest'"):
        tree.dtype(mixed, "max")


def test_new_trees():
    half = a_tree(jnp.bfloat16)
    assert dtypes(tree.zeros_like(half)) == {jnp.dtype(jnp.bfloat16)}
    assert dtypes(tree.ones_like(half, jnp.float32)) == {jnp.dtype(jnp.float32)}
    assert flat(tree.full_like(half, 7, jnp.int32)).tolist() == [7] * 18
    assert not tree.zeros_like(3.0).weak_type
    assert tree.batch_shape(half, (2, 3))["w"].shape == (2, 3, 3, 4)
    np.testing.assert_array_equal(tree.batch_shape(X, (2,))["w"][1], X["w"])


# Random trees ---------------------------------------------------------------------------------------------


def test_random_leaves_differ_and_are_reproducible():
    like = {"a": jnp.zeros(4), "b": jnp.zeros(4), "c": jnp.zeros(4, jnp.complex64)}
    key = jax.random.key(7)
    noise = tree.random_like(key, like)
    assert all(np.any(noise[i] != noise[j]) for i, j in itertools.combinations(noise, 2))
    assert tree.allclose(noise, tree.random_like(key, like), rtol=0.0, atol=0.0)
    assert not tree.allclose(noise, tree.random_like(jax.random.key(8), like))
    assert tree.allclose(noise, jax.jit(tree.random_like)(key, like))


@pytest.mark.parametrize(
    ("sampler", "dtype"),
    [
        (jax.random.normal, None),
        (jax.random.normal, jnp.bfloat16),
        (jax.random.rademacher, jnp.int32),
        (jax.random.bits, jnp.uint32),
        (jax.random.uniform, jnp.float32),
    ],
)
def test_random_dtypes_and_samplers(sampler, dtype):
    like = {"a": jnp.zeros((2, 3), jnp.float16), "b": 1.0}
    noise = tree.random_like(jax.random.key(0), like, sampler, dtype)
    assert [x.dtype for x in noise.values()] == ([dtype] * 2 if dtype else [jnp.float16, jnp.float32])
    assert noise["a"].shape == (2, 3)
    if dtype not in (None, jnp.bfloat16):
        assert_trees_close(noise, optax.tree.random_like(jax.random.key(0), jax.tree.map(jnp.asarray, like), sampler, dtype))


def test_random_with_a_sampler_of_ones_own():
    found = tree.random_like(jax.random.key(0), [jnp.zeros(3, jnp.bfloat16)], lambda key, shape, dtype: jnp.full(shape, 2, dtype))
    assert found[0].dtype == jnp.bfloat16
    assert found[0].tolist() == [2, 2, 2]


def test_bfloat16_noise_has_tails():
    noise = tree.random_like(jax.random.key(0), jnp.zeros(50_000, jnp.bfloat16))
    assert float(jnp.max(noise)) > 3.5  # drawn in bfloat16 itself, it would end at 2.52
    assert len(np.unique(noise.astype(jnp.float32))) > 1000


def test_keys():
    keys = tree.split_key_like(jax.random.key(0), X)
    assert jax.tree.structure(keys) == jax.tree.structure(X)
    data = tree.unwrap_random_key_data({"keys": keys, "x": 2.0})
    assert data["x"] == 2.0
    assert len({tuple(d.tolist()) for d in jax.tree.leaves(data["keys"])}) == 3
    raw = tree.split_key_like(jax.random.PRNGKey(0), X)
    assert_trees_close(raw, data["keys"])
