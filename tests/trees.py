"""Trees of a few shapes and dtypes, and comparisons, for the tests of `gradtx.tree`."""

import jax
import jax.numpy as jnp
import numpy as np

RNG = np.random.default_rng(0)
HALVES = (jnp.bfloat16, jnp.float16)


def a_tree(dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(3, 4)), dtype),
        "b": [jnp.asarray(rng.normal(), dtype), jnp.asarray(rng.normal(size=5), dtype)],
    }


def a_complex_tree(seed=0):
    return jax.tree.map(lambda x, y: x + 1j * y, a_tree(seed=seed), a_tree(seed=seed + 100))


X, Y = a_tree(seed=1), a_tree(seed=2)
TREES = {
    "nested": (X, Y),
    "array": (X["w"], Y["w"]),
    "complex": (a_complex_tree(1), a_complex_tree(2)),
}


def wide(tree):
    return jax.tree.map(lambda x: np.asarray(x, complex if jnp.iscomplexobj(x) else float), tree)


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(wide(tree))])


def assert_trees_close(found, expected, rtol=1e-6, atol=1e-7):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for f, e in zip(jax.tree.leaves(wide(found)), jax.tree.leaves(wide(expected)), strict=True):
        np.testing.assert_allclose(f, e, rtol=rtol, atol=atol)


def dtypes(tree):
    return {jnp.result_type(x) for x in jax.tree.leaves(tree)}
