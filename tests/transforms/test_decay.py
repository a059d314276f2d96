"""Weight decay by schedule, and states that do not belong to it."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

PARAMS = {"w": jnp.asarray([2.0, 4.0])}
ZEROS = {"w": jnp.zeros(2)}


def test_decay_follows_its_schedule() -> None:
    tx = gradtx.add_decayed_weights(gradtx.linear_schedule(1.0, 0.0, 2))
    state = tx.init(PARAMS)
    for factor in (1.0, 0.5, 0.0):
        updates, state = tx.update(ZEROS, state, PARAMS)
        np.testing.assert_allclose(updates["w"], factor * PARAMS["w"])


def test_no_decay_reads_no_parameters() -> None:
    tx = gradtx.add_decayed_weights(0.0)
    updates, _ = tx.update(ZEROS, tx.init(PARAMS), {"w": jnp.full(2, jnp.nan)})
    np.testing.assert_array_equal(updates["w"], 0)


def test_states_of_the_other_form() -> None:
    constant, scheduled = gradtx.add_decayed_weights(0.1), gradtx.add_decayed_weights(gradtx.constant_schedule(0.1))
    with pytest.raises(TypeError, match="state is an EmptyState, expected WeightDecayScheduleState; does it belong to another"):
        scheduled.update(ZEROS, constant.init(PARAMS), PARAMS)
    with pytest.raises(TypeError, match="state is a WeightDecayScheduleState, expected EmptyState; does it belong to another"):
        constant.update(ZEROS, scheduled.init(PARAMS), PARAMS)
