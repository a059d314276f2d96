"""Noise that vanishes with the gradient (strong growth): SGD at a constant rate converges as 1/k, linearly under PL.

Each step sees half the coordinates of a quadratic, drawn at random, with twice their gradients: `E |g|^2 = 2 |grad f|^2`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

D = 100
SMALL = {"steps": 1000, "seeds": 4}


@harness.in_float64
def measure(steps: int = 10_000, seeds: int = 16) -> Any:
    spectra = {"convex": jnp.geomspace(1e-8, 1, D), "PL": jnp.linspace(0.02, 1, D)}

    def path(curvature: jax.Array, key: jax.Array) -> jax.Array:
        def gradient(x: jax.Array, key: jax.Array) -> jax.Array:
            return 2 * jax.random.bernoulli(key, 0.5, (D,)) * curvature * x

        return harness.follow(gradtx.sgd(0.5), gradient, jnp.ones(D), steps, lambda x, _: jnp.sum(curvature * x**2) / 2, key)

    curves = harness.mean_over(seeds, lambda key: {name: path(curvature, key) for name, curvature in spectra.items()})
    convex, pl = curves["convex"], curves["PL"]
    log = np.log(pl[: steps // 2])
    k = np.arange(len(log))
    fit = np.polyfit(k[len(k) // 4 :], log[len(k) // 4 :], 1)
    numbers = {
        "exponent": near(harness.slope(convex, 20), -1, 0.06),
        "pl_factor_a_step": Number(float(np.exp(fit[0])), 0.97, 0.99),  # E (1 - v/2 * 0.02)^2 = 0.9802 of the lowest
        "pl_correlation_of_log_with_k": Number(float(-np.corrcoef(k[len(k) // 4 :], log[len(k) // 4 :])[0, 1]), 0.99),
    }
    return harness.Measured(numbers, curves)


def draw(curves: Any) -> Any:
    figure, (left, right) = harness.picture(2)
    convex, pl = curves["convex"], curves["PL"]
    harness.logarithmic(left, {"SGD, constant rate": convex})
    harness.guide(left, 10, len(convex), convex[9], -1)
    left.set(title="strong growth")
    left.legend(frameon=False)
    right.plot(pl[: len(pl) // 4])
    right.set(yscale="log", xlabel="step k", title="strong growth and PL")
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
