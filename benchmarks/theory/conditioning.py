"""Momentum takes about sqrt(kappa) steps where gradient descent takes kappa, both at their best rates.

Steps to |x| < 1e-4 from (1, 1) on `(kappa x^2 + y^2) / 2`: descent at `2/(L+mu)`; heavy ball at `4/(sqrt L + sqrt mu)^2` with
the momentum `((sqrt kappa - 1)/(sqrt kappa + 1))^2`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import near

EXPECTED = {10: (48, 20), 100: (478, 71), 1000: (4779, 243)}
SMALL = {"kappas": (10, 100)}


def tuned(kappa: float) -> list[Any]:
    root = kappa**0.5
    return [gradtx.sgd(2 / (kappa + 1)), gradtx.sgd(4 / (root + 1) ** 2, momentum=((root - 1) / (root + 1)) ** 2)]


@harness.in_float64
def measure(kappas: tuple[int, ...] = (10, 100, 1000)) -> Any:
    numbers, steps, paths = {}, {}, {}
    for kappa in kappas:
        curvature = jnp.array([kappa, 1.0])

        def run(curvature: Any = curvature, kappa: int = kappa) -> Any:
            return [harness.follow(tx, lambda x, key: curvature * x, jnp.ones(2), 5 * kappa, lambda x, _: x) for tx in tuned(kappa)]

        both = [np.asarray(path) for path in jax.jit(run)()]
        steps[kappa] = [int(np.argmax(np.linalg.norm(path, axis=1) < 1e-4)) + 1 for path in both]
        paths[kappa] = both
        for name, count, expected in zip(("gradient_descent", "heavy_ball"), steps[kappa], EXPECTED[kappa], strict=True):
            numbers[f"{name}_{kappa}"] = near(count, expected, 1)
    counts = np.array(list(steps.values()))
    numbers["exponent_gradient_descent"] = near(harness.slope(counts[:, 0], counts=kappas), 1, 0.05)
    numbers["exponent_heavy_ball"] = near(harness.slope(counts[:, 1], counts=kappas), 0.5, 0.06)
    return harness.Measured(numbers, (steps, paths))


def draw(curves: Any) -> Any:
    steps, paths = curves
    figure, (left, right) = harness.picture(2)
    kappa = 10
    x, y = np.meshgrid(np.linspace(-1.1, 1.1, 100), np.linspace(-0.6, 1.1, 100))
    left.contour(x, y, kappa * x**2 + y**2, levels=np.geomspace(0.02, 12, 9), colors="lightgray", linewidths=0.8)
    for path, name in zip(paths[kappa], ("gradient descent", "heavy ball"), strict=True):
        left.plot(*np.concatenate([[[1, 1]], path[:40]]).T, ".-", markersize=3, label=f"{name}, κ = {kappa}")
    for i, name in enumerate(("gradient descent", "heavy ball")):
        right.plot(list(steps), [row[i] for row in steps.values()], "o-", label=name)
    right.set(xscale="log", yscale="log", xlabel="condition number κ", ylabel="steps to |x| < 1e-4")
    left.legend(frameon=False, fontsize=8)
    right.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
