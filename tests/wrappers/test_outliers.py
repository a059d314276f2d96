"""Skipping by loss and norm against the rule of OLMo-core."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

RNG = np.random.default_rng(1)
LOSSES = 3 + 0.1 * RNG.normal(size=200)
NORMS = np.exp(0.2 * RNG.normal(size=200))
LOSSES[[10, 70, 71, 120]] += 2
NORMS[[90, 150]] *= 10


def expected(sigma: float, window: int) -> list[bool]:
    """Whether each step is taken: window, least number and sample deviation as in OLMo-core."""
    taken = []
    for t in range(len(LOSSES)):
        taken.append(True)
        for seen in (LOSSES, NORMS):
            last = seen[max(0, t - window) : t]
            if t + 1 >= max(20, window // 2) and seen[t] > last.mean() + sigma * last.std(ddof=1):
                taken[-1] = False
    return taken


def run(tx: Any, losses: Any, norms: Any) -> tuple[Any, Any]:
    def step(state: Any, at: Any) -> Any:
        loss, norm = at
        updates, state = tx.update(norm * jnp.array([0.6, 0.8]), state, value=loss)
        return state, updates

    with jax.enable_x64(True):
        rows = jnp.asarray(losses), jnp.asarray(norms)
        state, updates = jax.jit(lambda rows: jax.lax.scan(step, tx.init(jnp.zeros(2)), rows))(rows)
        return np.asarray(updates), jax.tree.map(np.asarray, state)


@pytest.mark.parametrize(("sigma", "window"), [(6.0, 128), (3.0, 40), (2.0, 24)])
def test_oracle(sigma: float, window: int) -> None:
    updates, state = run(gradtx.skip_outliers(gradtx.scale(-1.0), sigma, window), LOSSES, NORMS)
    taken = np.array(expected(sigma, window))
    assert 3 < np.sum(~taken) < 60
    np.testing.assert_array_equal(updates[:, 0] != 0, taken)
    assert state.skipped == np.sum(~taken)


def test_what_is_not_finite_is_skipped_and_does_not_enter() -> None:
    losses, norms = LOSSES.copy(), NORMS.copy()
    losses[5], norms[6] = np.nan, np.inf
    tx = gradtx.skip_outliers(gradtx.scale(-1.0), 3.0, 40)
    updates, _ = run(tx, losses, norms)
    without = run(tx, np.delete(LOSSES, [5, 6]), np.delete(NORMS, [5, 6]))[0]
    assert np.all(updates[5:7] == 0)
    np.testing.assert_array_equal(np.delete(updates, [5, 6], axis=0), without)


def test_equal_values_are_no_outliers() -> None:
    updates, _ = run(gradtx.skip_outliers(gradtx.scale(-1.0), 1e-3, 30), np.full(50, 0.1), np.full(50, 0.7))
    assert np.all(updates != 0)


def test_the_inner_optimizer_gets_the_loss_and_stays_where_it_is() -> None:
    tx = gradtx.skip_outliers(gradtx.chain(gradtx.adam(0.1), gradtx.reduce_on_plateau(0.5, patience=1, rtol=0.0)))
    _, state = run(tx, np.full(3, 1.0), np.array([1.0, np.nan, 1.0]))
    assert state.inner_state[1].scale == 0.5
    assert state.inner_state[0][0].count == 2


def test_a_loss_that_is_no_number() -> None:
    tx = gradtx.skip_outliers(gradtx.sgd(0.1))
    with pytest.raises(TypeError, match=r"^skip_outliers: missing extra argument `value`"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    with pytest.raises(TypeError, match=r"^skip_outliers: value is an array .*expected a real scalar, such as the loss\."):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=jnp.ones(2))
