"""Mechanic against its paper in float64, and what it holds."""

from typing import Any

import adaptive_oracles as ao
import jax
import jax.numpy as jnp
import numpy as np
import oracles as o
import pytest
from oracles import falling, rate
from problems import distance, tanh_regression, trajectory

import gradtx

TANH = tanh_regression()


def adam_then(lr: Any) -> Any:
    def rule(g: Any, x: Any, t: int, s: Any) -> Any:
        return o.descend(o.adam(g, x, t, s.setdefault("adam", {})), x, t, s, lr=lr)

    return rule


def as_they_are(g: np.ndarray, x: np.ndarray, t: int, s: dict[str, Any]) -> np.ndarray:
    return g


ROWS: dict[str, tuple[Any, Any]] = {
    "sgd": (lambda: gradtx.mechanize(gradtx.sgd(1.0), s_init=1e-2), lambda: ao.mechanize(rate(1.0), s0=1e-2)),
    "adam": (
        lambda: gradtx.mechanize(gradtx.adam(falling), 0.1, 1e-4, 1e-2, 3),
        lambda: ao.mechanize(adam_then(falling), 0.1, 1e-4, 1e-2, 3),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_paper(name: str) -> None:
    make, before = ROWS[name]
    expected = o.follow(TANH.gradient, TANH.params, 30, as_they_are, before=before())
    assert distance(trajectory(make(), TANH, 30), expected) < 1e-10
    assert float(np.max(np.abs(expected["w"][-1] - expected["w"][0]))) > 1e-3


def test_the_start_is_where_the_first_step_begins() -> None:
    """Parameters may be restored between `init` and the first step."""
    tx, restored = gradtx.mechanize(gradtx.sgd(1.0)), {"w": jnp.full(2, 5.0)}
    _, state = tx.update({"w": jnp.ones(2)}, tx.init({"w": jnp.zeros(2)}), restored)
    np.testing.assert_array_equal(state.x0["w"], restored["w"])


def test_the_scale_is_reported() -> None:
    tx, params = gradtx.mechanize(gradtx.sgd(0.5), s_init=1e-3), jnp.ones(2)
    _, state = tx.update(params, tx.init(params), params)
    found = gradtx.metrics(state)
    np.testing.assert_allclose(found["scale"], jnp.sum(state.s))
    np.testing.assert_allclose(found["learning_rate"], 0.5)


def test_nothing_may_follow() -> None:
    with pytest.raises(ValueError, match="mechanize"):
        gradtx.chain(gradtx.mechanize(gradtx.sgd(1.0)), gradtx.scale(0.5))


def test_zero_gradients_move_nothing() -> None:
    tx, params = gradtx.mechanize(gradtx.adam(1.0)), {"w": jnp.ones(2)}
    updates, state = tx.update({"w": jnp.zeros(2)}, tx.init(params), params)
    np.testing.assert_array_equal(updates["w"], 0)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(state))


def test_extra_arguments_reach_the_optimizer() -> None:
    tx, params = gradtx.mechanize(gradtx.polyak_sgd()), jnp.array([3.0, 4.0])
    updates, _ = tx.update(params, tx.init(params), params, value=12.5)
    assert bool(jnp.all(updates < 0))
