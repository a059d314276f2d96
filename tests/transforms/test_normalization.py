"""Norms as factors: derivatives at zero, and what is not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


@pytest.mark.parametrize("make", [gradtx.scale_by_param_block_rms, gradtx.scale_by_param_block_norm])
def test_the_update_has_a_derivative_at_zero_parameters(make: Any) -> None:
    tx, g = make(0.5), jnp.asarray([2.0, 1.0])

    def update(params: jax.Array) -> jax.Array:
        return jnp.sum(tx.update(g, tx.init(params), params)[0])

    np.testing.assert_array_equal(jax.grad(update)(jnp.zeros(2)), [0.0, 0.0])


def test_the_root_mean_square_of_tiny_and_of_huge_parameters() -> None:
    tx, g = gradtx.scale_by_param_block_rms(1e-30), jnp.ones(2)
    for size in (1e-25, 1.0, 1e25):
        params = size * jnp.asarray([1.0, 7.0])
        np.testing.assert_allclose(tx.update(g, tx.init(params), params)[0], [5 * size] * 2, rtol=1e-6)


def test_a_nan_in_one_leaf_shows_in_all() -> None:
    """A norm that is NaN makes no update of zeros, which would look like a step."""
    tx = gradtx.normalize_by_update_norm()
    updates, state = tx.update({"a": jnp.asarray([jnp.nan, 1.0]), "b": jnp.ones(2)}, tx.init({"a": jnp.ones(2), "b": jnp.ones(2)}))
    assert all(np.isnan(x).all() for x in updates.values())
    assert np.isnan(state.norm)


def test_zero_updates_stay_zero() -> None:
    tx = gradtx.normalize_by_update_norm(eps=0.0)
    np.testing.assert_array_equal(tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)))[0], [0.0, 0.0])
