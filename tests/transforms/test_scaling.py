"""Learning rates in the state, and states without the step count that a schedule needs."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.transforms.scaling import ScaleByLearningRateState

PARAMS = jnp.ones(2)
FALLING = gradtx.linear_schedule(1.0, 0.0, 4)


@pytest.mark.parametrize(
    ("make", "argument"), [(gradtx.scale_by_learning_rate, "learning_rate"), (gradtx.trace, "decay"), (gradtx.sgd, "learning_rate")]
)
def test_a_schedule_needs_the_step_count(make, argument) -> None:
    state = make(0.5).init(PARAMS)
    text = f"the state has no step count, which the schedule {argument} needs; does it belong to another optimizer?"
    with pytest.raises(TypeError, match=rf"^{make.__name__}(: | > .*: ){text}$".replace("?$", r"\?$")):
        make(gradtx.constant_schedule(0.5)).update(PARAMS, state)


def test_the_rate_in_the_state_is_the_one_that_was_used() -> None:
    tx = gradtx.scale_by_learning_rate(FALLING)
    state = tx.init(PARAMS)
    assert float(state.learning_rate) == 1.0
    for k in range(3):
        updates, state = tx.update(PARAMS, state)
        np.testing.assert_array_equal(updates, -float(state.learning_rate) * PARAMS)
        assert (float(state.learning_rate), int(state.count)) == (1.0 - k / 4, k + 1)


def test_no_rate_leaves_updates_and_state_alone() -> None:
    tx = gradtx.scale_by_learning_rate(None)
    updates, state = tx.update(PARAMS, tx.init(PARAMS))
    np.testing.assert_array_equal(updates, PARAMS)
    assert state == ScaleByLearningRateState(None)
    assert state.metrics() == {}
