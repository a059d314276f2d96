"""Weight decay by schedule, and states without its step count."""

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
    """A schedule needs the step count; a constant keeps the count of a schedule that it follows, and needs none."""
    constant, scheduled = gradtx.add_decayed_weights(0.1), gradtx.add_decayed_weights(gradtx.constant_schedule(0.1))
    with pytest.raises(
        TypeError,
        match=r"^add_decayed_weights: the state has no step count, which the schedule weight_decay needs; does it belong to another",
    ):
        scheduled.update(ZEROS, constant.init(PARAMS), PARAMS)
    updates, state = constant.update(ZEROS, scheduled.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["w"], 0.1 * PARAMS["w"])
    assert int(state.count) == 1


def test_cautious_decay_acts_where_update_and_parameter_agree():
    """arXiv:2510.12402: x - eta*(u + lambda * 1(u*x >= 0) * x)."""
    u, p = np.array([1.0, -1.0, 2.0, 0.0]), np.array([3.0, 3.0, -3.0, 5.0])
    tx = gradtx.add_cautious_decayed_weights(lambda count: 0.1 * (count + 1))
    params = jnp.asarray(p)
    state = tx.init(params)
    for t in range(3):
        updates, state = tx.update(jnp.asarray(u), state, params)
        np.testing.assert_allclose(updates, u + 0.1 * (t + 1) * np.where(u * p >= 0, p, 0), rtol=1e-6)


def test_muon_decays_cautiously():
    params = {"kernel": jnp.array([[1.0, 0.0], [0.0, 1.0]])}
    grads = {"kernel": jnp.array([[2.0, 0.0], [0.0, -2.0]])}
    tx = gradtx.chain(
        gradtx.ema(0.95, nesterov=True),
        gradtx.orthogonalize(method="svd"),
        gradtx.scale_by_shape(),
        gradtx.add_cautious_decayed_weights(0.5),
        gradtx.scale_by_learning_rate(0.1),
    )
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], [[-0.15, 0.0], [0.0, 0.1]], atol=1e-6)
