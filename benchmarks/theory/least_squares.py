"""Least squares by SGD: a constant rate ends at a floor in proportion to rate/batch; without noise at the solution it goes on to 0.

`|A x - b|^2 / (2n)` in batches of 20 with replacement. A tall A with noise in b has a floor. A square, invertible A fits every row:
no noise is left at the solution, and the error falls by a constant factor a step.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

ROWS, RATE, BATCH = 1000, 0.05, 20
SMALL = {"columns": 20, "square": 40, "steps": 800, "seeds": 6}


def descend(a: Any, b: Any, rate: float, batch: int, steps: int, seeds: int) -> np.ndarray:
    """The squared distance to the solution after each step, the mean over seeds."""
    best = np.linalg.lstsq(a, b)[0]

    def gradient(x: jax.Array, key: jax.Array) -> jax.Array:
        rows = jax.random.randint(key, (batch,), 0, len(a))
        return a[rows].T @ (a[rows] @ x - b[rows]) / batch

    def one(key: jax.Array) -> jax.Array:
        start = jnp.zeros(a.shape[1])
        return harness.follow(gradtx.sgd(rate), gradient, start, steps, lambda x, _: jnp.sum((x - best) ** 2), key)

    return harness.mean_over(seeds, one)


@harness.in_float64
def measure(columns: int = 100, square: int = 200, steps: int = 8000, seeds: int = 8) -> Any:
    rng = np.random.default_rng(0)
    tall = jnp.asarray(rng.standard_normal((ROWS, columns)))
    noisy = tall @ rng.standard_normal(columns) + rng.standard_normal(ROWS)
    curves = {
        "rate, batch 20": descend(tall, noisy, RATE, BATCH, steps, seeds),
        "half the rate": descend(tall, noisy, RATE / 2, BATCH, steps, seeds),
        "twice the batch": descend(tall, noisy, RATE, 2 * BATCH, steps, seeds),
    }
    u, v = (np.linalg.qr(rng.standard_normal((square, square)))[0] for _ in range(2))
    a = jnp.asarray(square**0.5 * u * np.linspace(0.5, 1, square) @ v.T)  # singular values: condition 2
    curves["square: no noise at the solution"] = descend(a, a @ rng.standard_normal(square), RATE, BATCH, steps // 2, seeds)
    floors = {name: float(path[-steps // 2 :].mean()) for name, path in curves.items()}
    linear = np.log10(curves["square: no noise at the solution"])
    early, late = linear[steps // 16] - linear[steps // 8], linear[steps // 8] - linear[3 * steps // 16]
    numbers = {
        "floor": Number(floors["rate, batch 20"]),
        "floor_over_that_at_half_the_rate": near(floors["rate, batch 20"] / floors["half the rate"], 2.1, 0.3),
        "floor_over_that_at_twice_the_batch": near(floors["rate, batch 20"] / floors["twice the batch"], 2.1, 0.3),
        "square_falls_again_as_much": near(late / early, 1, 0.15 if steps > 4000 else 0.3),
        "square_digits_gained": Number(linear[0] - linear[-1], 3),
    }
    return harness.Measured(numbers, curves)


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    for label, values in curves.items():
        ax.plot(values, label=label)
    ax.set(yscale="log", xlabel="step", ylabel="|x - x*|²")
    ax.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
