"""Values of schedules: closed forms in float64, Optax, PyTorch, and faults seen elsewhere."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from schedule_cases import ALL, COUNTS, EVERY, LAST, SHARED, Case, close

import gradtx
from gradtx import schedules
from gradtx.core.value import Value

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "torch_schedules.json").read_text())["table"]


def test_every_schedule_has_a_case() -> None:
    names = {name for name, value in vars(schedules).items() if isinstance(value, type) and issubclass(value, Value)}
    assert {type(case.make(gradtx)).__name__ for case in ALL.values()} == names
    assert {type(case.make(gradtx)).__name__ for case in SHARED.values()} == {n for n in names if hasattr(optax, n)}
    assert all(getattr(gradtx, name) is getattr(schedules, name) for name in names)


# Values ---------------------------------------------------------------------------------------------------


@EVERY
def test_closed_form(case: Case) -> None:
    close(case.make(gradtx)(jnp.arange(120)), case, COUNTS, 1e-6)


@EVERY
def test_closed_form_in_float64(case: Case) -> None:
    with jax.enable_x64(True):
        values = case.make(gradtx)(jnp.arange(120))
        assert values.dtype == jnp.float64
        close(values, case, COUNTS, 1e-14)


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in SHARED.items()])
def test_same_as_optax(case: Case) -> None:
    ours = case.make(gradtx)(jnp.arange(120))
    theirs = jax.vmap(case.make(optax))(jnp.arange(120))
    np.testing.assert_allclose(ours, jnp.broadcast_to(jnp.asarray(theirs), ours.shape), rtol=0, atol=1e-6 * case.size)


GOLDEN_CASES = {
    "schedule_cosine": lambda h: gradtx.cosine_annealing_schedule(h["init"], h["decay_steps"], h["end"]),
    "schedule_exponential": lambda h: gradtx.exponential_decay(h["init"], 1, h["decay"]),
    "schedule_step": lambda h: gradtx.step_decay_schedule(h["init"], h["every"], h["factor"]),
    "schedule_linear": lambda h: gradtx.linear_schedule(h["init"], h["init"] * h["end_factor"], h["steps"]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_same_as_torch(name: str) -> None:
    """PyTorch's list begins at step 0; its cosine rises again after the end, so it is compared up to there."""
    hyperparameters, expected = GOLDEN[name]["hyperparameters"], GOLDEN[name]["learning_rate"]
    if name == "schedule_cosine":
        expected = expected[: hyperparameters["decay_steps"] + 1]
    with jax.enable_x64(True):
        actual = GOLDEN_CASES[name](hyperparameters)(jnp.arange(len(expected)))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-10)


def test_resnet_milestones() -> None:
    schedule = gradtx.piecewise_constant_schedule(0.1, {epoch * 1000: 0.1 for epoch in (30, 60, 90)})
    counts = jnp.array([0, 29_999, 30_000, 59_999, 60_000, 90_000])
    np.testing.assert_allclose(schedule(counts), [0.1, 0.1, 0.01, 0.01, 0.001, 0.0001], rtol=1e-6)


def test_ends_are_exact() -> None:
    """No rounding at step 0, at a peak, on a plateau and at the end."""
    schedule = gradtx.warmup_stable_decay_schedule(1e-7, 0.3, 7, 20, 11, 1e-5)
    assert schedule(0) == jnp.float32(1e-7)
    assert (schedule(jnp.arange(7, 28)) == jnp.float32(0.3)).all()
    assert (schedule(jnp.array([38, 39, LAST])) == jnp.float32(1e-5)).all()
    assert gradtx.cosine_annealing_schedule(0.3, 7, 1e-5)(jnp.array([0, 7])).tolist() == [jnp.float32(0.3), jnp.float32(1e-5)]


# Faults seen elsewhere ------------------------------------------------------------------------------------


def test_warm_up_of_no_steps_begins_at_the_peak() -> None:
    for schedule in (
        gradtx.warmup_constant_schedule(0.0, 1.0, 0),
        gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 0, 10),
        gradtx.warmup_exponential_decay_schedule(0.0, 1.0, 0, 10, 0.5),
        gradtx.warmup_stable_decay_schedule(0.0, 1.0, 0, 0, 10),
        gradtx.inverse_sqrt_schedule(1.0, 0, 0.0),
        gradtx.join_schedules([gradtx.constant_schedule(0.0), gradtx.constant_schedule(1.0)], [0]),
    ):
        assert schedule(0) == 1


def test_decay_close_to_one_keeps_its_digits() -> None:
    value = gradtx.exponential_decay(1.0, 1, 0.99999)(100_000)
    np.testing.assert_allclose(value, 0.99999**100_000, rtol=0, atol=1e-6)


def test_cosine_does_not_overflow_under_jit() -> None:
    schedule = gradtx.cosine_decay_schedule(1.0, 3_000_000_000 // 2)
    value = jax.jit(schedule)(jnp.int32(750_000_000))
    np.testing.assert_allclose(value, 0.5, atol=1e-6)


@pytest.mark.parametrize("more", [{}, {10: 0.5}])
def test_boundary_at_zero_applies_from_step_zero(more: dict[int, float]) -> None:
    constant = gradtx.piecewise_constant_schedule(1.0, {0: 0.1, **more})
    moving = gradtx.piecewise_interpolate_schedule("linear", 1.0, {0: 0.1, **more})
    np.testing.assert_allclose([constant(0), moving(0), constant(1)], 0.1, rtol=1e-6)
    np.testing.assert_allclose(moving(5), 0.075 if more else 0.1, rtol=1e-6)


def test_one_cycle_of_few_steps_is_finite_and_ends_low() -> None:
    for steps in (1, 2, 3):
        values = gradtx.linear_onecycle_schedule(steps, 1.0)(jnp.arange(steps + 2))
        assert ((values > 0) & (values <= 1)).all()
        np.testing.assert_allclose(values[steps:], 4e-6, rtol=1e-6)


def test_end_value_counts_where_the_peak_is_zero() -> None:
    np.testing.assert_allclose(gradtx.warmup_cosine_decay_schedule(0.0, 0.0, 2, 10, end_value=0.5)(10), 0.5)


def test_plain_functions_and_optax_schedules_can_be_joined() -> None:
    schedule = gradtx.join_schedules(
        [lambda t: 1 / (t + 1), optax.constant_schedule(0.25), optax.linear_schedule(1.0, 0.0, 4)], [4, 6]
    )
    values = schedule(jnp.arange(12))
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, [1, 1 / 2, 1 / 3, 1 / 4, 0.25, 0.25, 1, 0.75, 0.5, 0.25, 0, 0], rtol=1e-6)


def test_unused_branch_of_a_join_cannot_poison_a_gradient() -> None:
    root = lambda t: jnp.sqrt(t * 1.0)  # noqa: E731
    schedule = gradtx.join_schedules([gradtx.constant_schedule(1.0), root], [10])
    assert schedule(3) == 1
    assert schedule(14) == 2
