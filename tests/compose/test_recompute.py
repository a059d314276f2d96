"""A check before its results are used: the same results, and what is dear is done once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.compose.recompute import after_check

MATRIX = jnp.linspace(-1.0, 1.0, 9).reshape(3, 3)


def turned(x: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
    """A product, a branch, a reduction, random numbers and a jitted function, with arithmetic between."""
    y = jnp.tanh(x) @ MATRIX
    z = jax.lax.cond(jnp.sum(y) > 0, lambda: y, lambda: 2 * y)
    return {"y": jax.nn.softplus(z) / jnp.max(jnp.abs(z)), "noise": jax.random.normal(key, (3,)) * y, "x": x}


def is_small(tree: Any) -> jax.Array:
    return jnp.all(tree["y"] < 100)


def products(jaxpr: Any) -> int:
    return str(jaxpr).count("dot_general") + str(jaxpr).count("random_bits[")


@pytest.mark.parametrize("jitted", [True, False])
def test_results_are_those_of_one_call(jitted: bool) -> None:
    def run(x: jax.Array, key: jax.Array) -> Any:
        return after_check(turned, is_small, x, key)

    key = jax.random.key(0)
    result, good = (jax.jit(run) if jitted else run)(MATRIX, key)
    assert bool(good)
    for name, expected in jax.jit(turned)(MATRIX, key).items():
        np.testing.assert_allclose(result[name], expected, rtol=1e-6)
    assert not (jax.jit(run) if jitted else run)(jnp.full((3, 3), jnp.nan), key)[1]


def test_products_and_random_numbers_are_made_once() -> None:
    key = jax.random.key(0)
    once = products(jax.make_jaxpr(turned)(MATRIX, key))
    assert once == products(jax.make_jaxpr(lambda x, key: after_check(turned, is_small, x, key))(MATRIX, key)) == 2


def test_under_vmap_and_grad() -> None:
    def total(x: jax.Array) -> jax.Array:
        result, good = after_check(lambda x: jnp.tanh(x) * 2, lambda y: jnp.all(y < 1), x)
        return jnp.sum(jnp.where(good, result, 0))

    x = jnp.array([[0.1, 0.2], [0.3, 5.0]])
    np.testing.assert_allclose(jax.vmap(total)(x), [2 * jnp.sum(jnp.tanh(x[0])), 0], rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(jax.vmap(total)(x)))(x)[0], 2 / jnp.cosh(x[0]) ** 2, rtol=1e-6)
