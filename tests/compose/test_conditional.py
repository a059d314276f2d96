"""Transformations that run at some steps only."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

GRADS = {"w": jnp.asarray([1.0, -2.0])}
BOTH = pytest.mark.parametrize("wrap", [gradtx.conditionally_transform, gradtx.conditionally_mask])


def odd(step: Any) -> Any:
    return step % 2 == 1


def overflowing(updates: Any, params: Any) -> Any:
    return jax.tree.map(lambda u: u * jnp.inf, updates)


def outputs(tx: Any, steps: int = 4) -> Any:
    """Each step's first update, and the last state, in one scan."""

    def step(state: Any, _: Any) -> Any:
        updates, state = tx.update(GRADS, state)
        return state, updates["w"][0]

    return jax.lax.scan(step, tx.init(GRADS), None, length=steps)


def test_updates_pass_where_the_condition_fails() -> None:
    state, seen = outputs(gradtx.conditionally_transform(gradtx.trace(0.5), odd))
    np.testing.assert_array_equal(seen, [1.0, 1.0, 1.0, 1.5])
    assert int(state.step) == 4
    assert float(state.inner_state.trace["w"][0]) == 1.5  # stepped twice


def test_updates_are_zero_where_the_condition_fails() -> None:
    state, seen = outputs(gradtx.conditionally_mask(gradtx.trace(0.5), odd))
    np.testing.assert_array_equal(seen, [0.0, 1.0, 0.0, 1.5])
    assert int(state.step) == 4


@BOTH
def test_inf_in_the_branch_that_is_not_taken_stays_there(wrap: Any) -> None:
    """Also under vmap, where both branches are computed and selected."""
    tx = wrap(gradtx.chain(gradtx.stateless(overflowing), gradtx.ema(0.5)), lambda step: step < 0)
    updates, state = tx.update(GRADS, tx.init(GRADS))
    both = jax.vmap(lambda g: tx.update(g, tx.init(g)))({"w": jnp.stack([GRADS["w"]] * 2)})
    for leaf in jax.tree.leaves((updates, state, both)):
        assert bool(jnp.all(jnp.isfinite(leaf)))


@BOTH
def test_half_precision_and_the_dtypes_of_both_branches(wrap: Any) -> None:
    grads = {"w": jnp.ones(2, jnp.bfloat16)}
    tx = wrap(gradtx.adam(0.1), odd)
    updates, _ = tx.update(grads, tx.init(grads))
    assert updates["w"].dtype == jnp.bfloat16


@BOTH
def test_the_condition_may_see_extra_arguments(wrap: Any) -> None:
    tx = wrap(gradtx.scale(3.0), lambda step, value, **extra_args: value > 2, forward_extra_args=True)
    other = {gradtx.conditionally_transform: 1.0, gradtx.conditionally_mask: 0.0}[wrap]
    state = tx.init(GRADS)
    assert [float(tx.update(GRADS, state, None, value=v, epoch=1)[0]["w"][0]) for v in (1.0, 5.0)] == [other, 3.0]


@BOTH
def test_equal_conditions_make_equal_values(wrap: Any) -> None:
    assert wrap(gradtx.sgd(0.1), odd) == wrap(gradtx.sgd(0.1), odd)
    assert wrap(gradtx.sgd(0.1), odd) != wrap(gradtx.sgd(0.1), odd, True)
    assert gradtx.conditionally_mask(gradtx.sgd(0.1), odd) != gradtx.conditionally_transform(gradtx.sgd(0.1), odd)


@BOTH
def test_errors(wrap: Any) -> None:
    name = wrap.__name__
    cases = [
        (
            lambda: wrap(gradtx.adam, odd),
            "inner is the class adam, expected a gradient transformation (a pair of init and update). "
            "This is the factory itself: call it, adam(...).",
        ),
        (lambda: wrap(gradtx.sgd(0.1), 3), "should_transform_fn is 3 (int), expected a function."),
        (lambda: wrap(gradtx.sgd(0.1), odd, "yes"), "forward_extra_args is 'yes' (str), expected True or False."),
    ]
    for call, text in cases:
        with pytest.raises(TypeError) as error:
            call()
        assert str(error.value) == f"{name}: {text}"
