"""STORM: with two gradients of one minibatch a step, |grad f|^2 falls as k^(-2/3); SGD's, at 1/sqrt(k), as k^(-1/2).

A quadratic in 20 dimensions with noise on the gradient, and noise that grows with x: the two gradients of a step do not cancel it.
The rates of steps are those of the theory, k^(-1/3) and k^(-1/2).
"""

from typing import Any

import jax
import jax.numpy as jnp

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

D = 20
SMALL = {"steps": 2500, "seeds": 6}


@harness.in_float64
def measure(steps: int = 40_000, seeds: int = 16) -> Any:
    curvature = jnp.linspace(0.2, 1, D)

    def gradient(x: jax.Array, key: jax.Array) -> jax.Array:
        one, two = jax.random.split(key)
        return curvature * x * (1 + 0.3 * jax.random.normal(one, (D,))) + jax.random.normal(two, (D,))

    def square(x: jax.Array, _: Any) -> jax.Array:
        return jnp.sum((curvature * x) ** 2)

    methods = {
        "SGD, 1/sqrt(k)": gradtx.sgd(lambda count: 0.5 / jnp.sqrt(count + 1.0)),
        "STORM": gradtx.storm(k=0.5 * D ** (1 / 3), w=float(D), c=4.0),
        "STORM+": gradtx.storm_plus(),
    }

    def one(key: jax.Array) -> Any:
        return {name: harness.follow(tx, gradient, jnp.ones(D), steps, square, key) for name, tx in methods.items()}

    curves = harness.mean_over(seeds, one)
    slopes = {name: harness.slope(path, steps // 40) for name, path in curves.items()}
    numbers = {
        "sgd": near(slopes["SGD, 1/sqrt(k)"], -0.5, 0.06),
        "storm": near(slopes["STORM"], -2 / 3, 0.08 if steps > 10_000 else 0.12),
        "storm_plus": Number(slopes["STORM+"], high=-0.55),
    }
    return harness.Measured(numbers, curves)


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    harness.logarithmic(ax, curves, ylabel="E |grad f|²")
    last = len(curves["STORM"])
    harness.guide(ax, 100, last, 1.0, -0.5)
    harness.guide(ax, 100, last, 1.0, -2 / 3)
    ax.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
