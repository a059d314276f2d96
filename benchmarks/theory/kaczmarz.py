"""SGD where every row can be fitted (randomized Kaczmarz): the mean error falls by `1 - smin^2 / |A|_F^2` a step, or faster."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number

ROWS, COLUMNS = 60, 10
SMALL = {"seeds": 50, "steps": 150}


@harness.in_float64
def measure(seeds: int = 400, steps: int = 600) -> Any:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((ROWS, COLUMNS)) * np.geomspace(0.3, 3, ROWS)[:, None]
    best = jnp.asarray(rng.standard_normal(COLUMNS))
    squares, rows = (a**2).sum(1), jnp.asarray(a)
    probabilities = jnp.asarray(squares / squares.sum())

    def gradient(x: jax.Array, key: jax.Array) -> jax.Array:
        row = rows[jax.random.choice(key, ROWS, p=probabilities)]
        return row * (row @ (x - best)) / jnp.sum(row**2)  # of one loss over its smoothness

    def one(key: jax.Array) -> jax.Array:
        start = jnp.zeros(COLUMNS)
        return harness.follow(gradtx.sgd(1.0), gradient, start, steps, lambda x, _: jnp.sum((x - best) ** 2), key)

    error = harness.mean_over(seeds, one)
    factor = 1 - np.linalg.svd(a)[1].min() ** 2 / squares.sum()
    bound = float(jnp.sum(best**2)) * factor ** np.arange(1, steps + 1)
    falls = float((error[-1] / error[steps // 3]) ** (1 / (steps - 1 - steps // 3)))
    numbers = {
        "factor_a_step": Number(falls, 0, factor),
        "factor_promised": Number(factor),
        "most_over_bound": Number((error / bound).max(), 0, 1.1),
        "digits_gained": Number(-np.log10(error[-1] / float(jnp.sum(best**2))), 3 * steps / 600),
    }
    return harness.Measured(numbers, {"mean error": error, "bound": bound})


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    for style, (name, values) in zip(("-", "--"), curves.items(), strict=True):
        ax.plot(values, style, label=name)
    ax.set(yscale="log", xlabel="step", ylabel="E |x - x*|²")
    ax.legend(frameon=False)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
