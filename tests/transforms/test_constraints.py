"""NaN that is replaced and found by leaf, and parameters that stop at zero."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.transforms.constraints import ZeroNansState


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
def test_nans_are_replaced_and_found_in_their_leaf(dtype: Any) -> None:
    tx = gradtx.zero_nans()
    bad = {"w": jnp.asarray([1.0, jnp.nan, jnp.inf], dtype), "b": jnp.ones((), dtype), "empty": jnp.zeros((0, 2), dtype)}
    state = tx.init(bad)
    updates, state = tx.update(bad, state)
    np.testing.assert_array_equal(updates["w"].astype(jnp.complex64), np.complex64([1.0, 0.0, np.inf]))
    assert jax.tree.map(bool, state.found_nan) == {"w": True, "b": False, "empty": False}
    _, state = tx.update(updates, state)
    assert not any(jax.tree.leaves(state.found_nan))
    assert tx.update({}, tx.init({})) == ({}, ZeroNansState({}))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_parameters_stop_at_zero(dtype: Any) -> None:
    tx = gradtx.keep_params_nonnegative()
    params = jnp.asarray([0.0, 0.1, 2.0], dtype)
    updates, _ = tx.update(jnp.asarray([-1.0, -0.3, -0.5], dtype), tx.init(params), params)
    np.testing.assert_array_equal(gradtx.apply_updates(params, updates), jnp.asarray([0.0, 0.0, 1.5], dtype))
