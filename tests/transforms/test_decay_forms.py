"""Decay beside the learning rate, decay that follows it twice, and rates by path."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles as o
import pytest
from problems import distance, tanh_regression, trajectory

import gradtx

TANH = tanh_regression()
W = gradtx.by_path({"w": True}, default=False)
B = gradtx.by_path({"b": True}, default=False)


def along(beta: Any) -> Any:
    """The rule of a decay after the learning rate."""
    return lambda u, x, t, s: u - (beta(t - 1) if callable(beta) else beta) * x


@pytest.mark.parametrize("decay", [0.02, lambda k: 0.1 * o.falling(k)], ids=["number", "schedule"])
def test_independent(decay: Any) -> None:
    tx = gradtx.chain(gradtx.adam(o.falling), gradtx.add_independent_decayed_weights(decay))
    expected = o.follow(TANH.gradient, TANH.params, 30, o.adam, o.rate(o.falling), along(decay))
    assert distance(trajectory(tx, TANH, 30), expected) < 1e-10


def test_independent_of_the_learning_rate() -> None:
    params = jnp.ones(3)
    for rate in (0.0, 1.0):
        tx = gradtx.chain(gradtx.sgd(rate), gradtx.add_independent_decayed_weights(0.1))
        updates, _ = tx.update(jnp.zeros(3), tx.init(params), params)
        np.testing.assert_allclose(updates, -0.1, rtol=1e-6)


def test_adamc() -> None:
    """Defazio 2025, algorithm 1: `lr * (lr/max) * decay` on normalized weights, `lr * decay` on the others."""
    rates = {"learning_rate": o.falling, "max_learning_rate": 0.2}
    tx = gradtx.chain(
        gradtx.scale_by_adam(),
        gradtx.add_corrected_decayed_weights(0.5, W, **rates),
        gradtx.add_decayed_weights(0.5, B),
        gradtx.scale_by_learning_rate(o.falling),
    )

    def decay(u: Any, x: Any, t: int, s: Any) -> Any:
        return u + 0.5 * (o.falling(t - 1) / 0.2 if x.ndim > 1 else 1) * x

    expected = o.follow(TANH.gradient, TANH.params, 30, o.adam, decay, o.rate(o.falling))
    assert distance(trajectory(tx, TANH, 30), expected) < 1e-10


def test_at_a_constant_rate_the_correction_is_none() -> None:
    tx = gradtx.chain(gradtx.add_corrected_decayed_weights(0.1, learning_rate=0.3, max_learning_rate=0.3), gradtx.sgd(0.3))
    plain = gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.sgd(0.3))
    assert distance(trajectory(tx, TANH, 10), trajectory(plain, TANH, 10)) < 1e-14


def test_rates_by_path() -> None:
    tx = gradtx.chain(
        gradtx.scale_by_adam(),
        gradtx.scale_by_path({"w": 0.25, "b": 2.0}),
        gradtx.add_decayed_weights(0.1),
        gradtx.scale_by_learning_rate(0.05),
    )

    def multiplied(u: Any, x: Any, t: int, s: Any) -> Any:
        return u * (0.25 if x.ndim > 1 else 2.0)

    rules = [o.adam, multiplied, partial(o.decay, weight_decay=0.1), o.rate(0.05)]
    assert distance(trajectory(tx, TANH, 30), o.follow(TANH.gradient, TANH.params, 30, *rules)) < 1e-10


@pytest.mark.parametrize(
    ("multipliers", "error", "text"),
    [
        ({"w": 1.0}, ValueError, "multipliers has nothing for the parameter `b`"),
        ({"w": 1.0, "b": 1.0, "c": 1.0}, ValueError, "multipliers has the path `c`, which no parameter has"),
        (
            gradtx.by_path({"w": "fast"}, default=1.0),
            TypeError,
            r"multipliers gives 'fast' \(str\) for `w`, expected a finite number",
        ),
    ],
)
def test_wrong_multipliers(multipliers: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match="^scale_by_path: " + text):
        gradtx.scale_by_path(multipliers).init({"w": jnp.ones(2), "b": jnp.ones(2)})


def test_half_precision_updates_keep_their_dtype() -> None:
    updates = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), {"w": 1.0, "b": 3.0})
    found = gradtx.scale_by_path({"w": 0.5, "b": 2}).update(updates, gradtx.EmptyState())[0]
    assert {name: (float(x), x.dtype) for name, x in found.items()} == {"w": (0.5, jnp.bfloat16), "b": (6.0, jnp.bfloat16)}
