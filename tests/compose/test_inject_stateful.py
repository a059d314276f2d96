"""Schedules with states of their own, in the state of `inject_hyperparams`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
import gradtx.optax as ours

PARAMS, GRADS = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([0.5, 0.25])}


class HalvedState(NamedTuple):
    rate: Any
    last: Any


class halved_where_the_loss_grew:
    """A rate that halves where the loss, an extra argument, has grown."""

    def init(self) -> HalvedState:
        return HalvedState(jnp.asarray(1.0), jnp.asarray(jnp.inf))

    def update(self, state: HalvedState, *, value: Any, **extra_args: Any) -> HalvedState:
        return HalvedState(jnp.where(value > state.last, state.rate / 2, state.rate), jnp.asarray(value, jnp.float32))

    def __call__(self, state: HalvedState, **extra_args: Any) -> Any:
        return state.rate


def rates(lib: Any, losses: list[float]) -> list[float]:
    tx = lib.inject_hyperparams(lib.sgd)(learning_rate=halved_where_the_loss_grew())
    state, seen = tx.init(PARAMS), []
    for loss in losses:
        updates, state = tx.update(GRADS, state, PARAMS, value=jnp.asarray(loss))
        seen.append(float(-updates["w"][0] / GRADS["w"][0]))
        assert float(state.hyperparams["learning_rate"]) == seen[-1]
    assert isinstance(state, lib.InjectStatefulHyperparamsState)
    return seen


def test_a_schedule_that_reads_the_loss() -> None:
    losses = [1.0, 0.5, 0.7, 0.6, 0.8, 0.1]
    assert rates(ours, losses) == rates(optax, losses) == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]


@pytest.mark.filterwarnings("ignore:inject_stateful_hyperparams is deprecated")
def test_schedules_of_the_count_become_stateful() -> None:
    moved = []
    for lib in (ours, optax):
        tx = lib.inject_stateful_hyperparams(lib.adam)(lib.linear_schedule(0.1, 0.0, 5), b1=0.8)
        state = jax.jit(tx.init)(PARAMS)
        for _ in range(3):
            updates, state = jax.jit(tx.update)(GRADS, state, PARAMS)
        assert int(state.hyperparams_states["learning_rate"].count) == int(state.count) == 3
        moved.append(updates)
    np.testing.assert_allclose(moved[0]["w"], moved[1]["w"], rtol=1e-5)


def test_it_warns_as_in_optax() -> None:
    for lib in (ours, optax):
        with pytest.warns(DeprecationWarning, match="inject_stateful_hyperparams is deprecated"):
            lib.inject_stateful_hyperparams(lib.sgd)


def test_without_states_the_state_is_the_plain_one() -> None:
    state = gradtx.inject_hyperparams(gradtx.sgd)(gradtx.linear_schedule(0.1, 0.0, 5)).init(PARAMS)
    assert isinstance(state, ours.InjectHyperparamsState)


def test_numbers_beside_a_stateful_schedule_can_be_set() -> None:
    tx = gradtx.inject_hyperparams(gradtx.sgd)(halved_where_the_loss_grew(), momentum=0.9)
    state = gradtx.tree.set(tx.init(PARAMS), momentum=0.0)
    assert float(state.hyperparams["momentum"]) == 0
    _, state = tx.update(GRADS, state, PARAMS, value=1.0)
    updates, state = tx.update(GRADS, state, PARAMS, value=0.9)
    np.testing.assert_allclose(updates["w"], -GRADS["w"])
    assert gradtx.metrics(state)["learning_rate"] == 1.0


def test_a_wrapped_schedule() -> None:
    for lib in (ours, optax):
        schedule = lib.WrappedSchedule(lib.linear_schedule(1.0, 0.0, 4))
        state = schedule.update(schedule.update(schedule.init()), value=3.0)
        assert float(schedule(state, value=3.0)) == 0.5
        assert int(state.count) == 2


def test_the_state_keeps_its_form_in_a_scan() -> None:
    tx = gradtx.inject_hyperparams(gradtx.adam)(halved_where_the_loss_grew())

    def step(state: Any, loss: Any) -> Any:
        updates, state = tx.update(GRADS, state, PARAMS, value=loss)
        return state, updates["w"]

    state, _ = jax.lax.scan(step, tx.init(PARAMS), jnp.array([1.0, 2.0, 3.0]))
    assert float(state.hyperparams["learning_rate"]) == 0.5
