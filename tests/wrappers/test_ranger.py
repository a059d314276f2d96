"""Ranger: a float64 oracle of RAdam with decay inside Lookahead, and what it is made of."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles as o
import pytest
from problems import distance, tanh_regression, trajectories, trajectory

import gradtx
from gradtx.wrappers.lookahead import lookahead

TANH = tanh_regression()


def radam(g: np.ndarray, x: np.ndarray, t: int, s: Any, b1: float, b2: float, eps: float) -> np.ndarray:
    """Liu et al. 2019, algorithm 2, adaptive from a length of 5 on, with `eps` beside the root."""
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
    last = 2 / (1 - b2) - 1
    rho = last - 2 * t * b2**t / (1 - b2**t)
    if rho < 5:
        return s["m"] / (1 - b1**t)
    r = np.sqrt((rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho))
    return r * s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


@pytest.mark.parametrize(
    ("tx", "rules"),
    [
        (
            lambda: gradtx.ranger(0.05),
            [
                partial(radam, b1=0.95, b2=0.999, eps=1e-5),
                partial(o.descend, lr=0.05),
                partial(o.lookahead, period=6, alpha=0.5),
            ],
        ),
        (
            lambda: gradtx.ranger(0.05, 0.8, 0.9, 1e-3, 0.1, sync_period=4, slow_step_size=0.7),
            [
                partial(radam, b1=0.8, b2=0.9, eps=1e-3),
                partial(o.decay, weight_decay=0.1),
                partial(o.descend, lr=0.05),
                partial(o.lookahead, period=4, alpha=0.7),
            ],
        ),
    ],
)
def test_oracle(tx: Any, rules: Any) -> None:
    assert distance(trajectory(tx(), TANH, 30), o.follow(TANH.gradient, TANH.params, 30, *rules)) < 1e-10


def test_parts() -> None:
    parts = lookahead(gradtx.radam(0.05, 0.95, eps=1e-5), 6, 0.5)
    assert distance(*trajectories([gradtx.ranger(0.05), parts], TANH, 30)) < 1e-12


def test_mask_and_state() -> None:
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    tx = gradtx.ranger(0.5, weight_decay=0.1, mask={"w": True, "b": False})
    zeros = {"w": jnp.zeros(2), "b": jnp.zeros(2)}
    updates, state = tx.update(zeros, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], 0.0)
    assert sum(x.size for x in (*state.slow.values(), *state.fast_state[0].mu.values(), *state.fast_state[0].nu.values())) == 12
    assert float(gradtx.metrics(state)["learning_rate"]) == 0.5


def test_the_rate_may_be_set_without_a_recompile() -> None:
    """Around the whole of it, averages included; steps before the sixth are not adaptive, so their length is the rate's."""
    traces = []
    tx = gradtx.swa(gradtx.inject_hyperparams(gradtx.ranger)(0.5, eps=1e-8))
    params = jnp.asarray([1.0, -2.0])

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        traces.append(1)
        return tx.update(params, state, params)

    _, state = step(params, tx.init(params))
    for rate in (0.25, 0.125):
        state = gradtx.tree.set(state, learning_rate=rate)
        updates, state = step(params, state)
        np.testing.assert_allclose(updates, -rate * params, rtol=1e-5)
        assert float(gradtx.metrics(state)["learning_rate"]) == rate
    assert len(traces) == 1


def test_missing_parameters() -> None:
    tx = gradtx.ranger(0.1)
    with pytest.raises(ValueError, match=r"^ranger: needs the parameters; call tx\.update\(updates, state, params\)\.$"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
