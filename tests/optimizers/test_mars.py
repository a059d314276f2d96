"""MARS against the authors' form, with other methods behind the correction."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import oracles as o
import pytest
import recent_oracles as ro
from problems import distance, tanh_regression, trajectory

import gradtx

TANH = tanh_regression()
ROWS = {
    "mars": (lambda: gradtx.mars(0.02), [ro.gradient_correction, partial(o.adam, b1=0.95, b2=0.99), o.rate(0.02)]),
    "decay, schedule, a bound that binds": (
        lambda: gradtx.mars(o.falling, 0.9, 0.95, 1e-3, 0.1, 0.05, 0.1),
        [
            partial(ro.gradient_correction, b1=0.9, gamma=0.1, max_norm=0.05),
            partial(o.adam, b1=0.9, b2=0.95, eps=1e-3),
            partial(o.decay, weight_decay=0.1),
            o.rate(o.falling),
        ],
    ),
    "lion": (
        lambda: gradtx.chain(
            gradtx.add_gradient_correction(max_norm=float("inf")), gradtx.ema(0.95, debias=False), gradtx.sign_sgd(0.01)
        ),
        [partial(ro.gradient_correction, max_norm=np.inf), partial(o.ema, beta=0.95, debias=False), o.sign, o.rate(0.01)],
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_oracle(name: str) -> None:
    make, rules = ROWS[name]
    expected = o.follow(TANH.gradient, TANH.params, 30, *rules)
    assert distance(trajectory(make(), TANH, 30), expected) < 1e-10


def test_the_first_gradient_counts_as_a_change() -> None:
    tx = gradtx.add_gradient_correction()
    updates, _ = tx.update(jnp.array([0.1]), tx.init(jnp.zeros(1)))
    assert abs(float(updates[0]) - 0.1475) < 1e-7


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_the_bound_holds_for_any_size(size: float) -> None:
    tx = gradtx.add_gradient_correction(max_norm=0.5)
    updates, _ = tx.update(jnp.full(4, size), tx.init(jnp.zeros(4)))
    assert float(jnp.linalg.norm(updates)) <= 0.5 + 1e-6
    assert bool(jnp.all((updates > 0) == (size > 0)))


def test_a_bound_of_zero_gives_zero() -> None:
    tx = gradtx.add_gradient_correction(max_norm=0.0)
    updates, _ = tx.update(jnp.array([1.0, 0.0]), tx.init(jnp.zeros(2)))
    assert updates.tolist() == [0.0, 0.0]
