"""Momentum unrolled: `x_{t+1} = x_1 - eta * sum (1 - beta^(t-i+1)) / (1 - beta) * g_i`, with `1 - beta` below the line."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

ETA, BETA, STEPS = 0.1, 0.9, 60
SMALL: dict[str, Any] = {}


@harness.in_float64
def measure() -> Any:
    gradients = jnp.asarray(np.random.default_rng(0).standard_normal(STEPS))
    tx = gradtx.sgd(ETA, momentum=BETA)

    def step(state: Any, g: jax.Array) -> Any:
        update, state = tx.update(g, state)
        return state, update

    moved = np.cumsum(np.asarray(jax.lax.scan(step, tx.init(jnp.zeros(())), gradients)[1]))
    age = np.arange(STEPS)[:, None] - np.arange(STEPS)  # t - i
    weights = np.where(age >= 0, (1 - BETA ** (np.maximum(age, 0) + 1)) / (1 - BETA), 0)
    unrolled = -ETA * weights @ np.asarray(gradients)
    numbers = {
        "error": near(np.abs(moved - unrolled).max(), 0, 1e-12),
        "error_with_beta_minus_1": Number(np.abs(moved + unrolled).max(), 0.1),
        "weight_of_an_old_gradient": near(weights[-1, 0], 1 / (1 - BETA), 0.03),
    }
    return harness.Measured(numbers, (moved, unrolled, weights))


def draw(curves: Any) -> Any:
    moved, unrolled, weights = curves
    figure, (left, right) = harness.picture(2)
    left.plot(moved, label="run", linewidth=4, alpha=0.4)
    left.plot(unrolled, label="formula, 1 - β below")
    left.plot(-unrolled, ":", label="with β - 1 below")
    left.set(xlabel="step", ylabel="x")
    right.plot(weights[-1][::-1])
    right.set(xlabel="age of a gradient, t - i", ylabel="its weight in x")
    left.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
