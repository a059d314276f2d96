"""Mini-batch SGD: the mean of |grad f|^2 over T steps falls as 1/sqrt(T) and as 1/sqrt(B).

On a quadratic with curvatures from 0.02 to 1 and noise of variance 100/B on the gradient, at the rate
`min(1/L, sqrt(B D / (L s^2 T)))` with `D = f(x0) - f*`, and below the bound `2 L D / T + 2 s sqrt(2 L D / (B T))`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

D, NOISE = 50, 10.0
GAP = 0.5 * float(np.linspace(0.02, 1, D).sum())
SMALL = {"seeds": 2, "steps": (400, 1600), "batches": (1, 16)}


def mean_square(steps: int, batch: int, seeds: int) -> np.ndarray:
    """The mean of the squared gradient over all steps, for each seed."""
    curvature = jnp.linspace(0.02, 1, D)
    rate = min(1.0, (batch * GAP / (NOISE**2 * steps)) ** 0.5)
    tx = gradtx.sgd(rate)

    def gradient(x: Any, key: jax.Array) -> jax.Array:
        return curvature * x + NOISE * (D * batch) ** -0.5 * jax.random.normal(key, (D,))

    def one(key: jax.Array) -> jax.Array:
        return harness.follow(tx, gradient, jnp.ones(D), steps, lambda x, _: jnp.sum((curvature * x) ** 2), key).mean()

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), seeds)))


def bound(steps: int, batch: int) -> float:
    return 2 * GAP / steps + 2 * NOISE * (2 * GAP / (batch * steps)) ** 0.5


def measure(seeds: int = 16, steps: tuple[int, ...] = (1600, 3200, 6400, 12800), batches: tuple[int, ...] = (1, 4, 16, 64)) -> Any:
    by_steps = {t: mean_square(t, 1, seeds) for t in steps}
    by_batch = {b: mean_square(steps[-1], b, seeds) for b in batches}
    means = [v.mean() for v in by_steps.values()], [v.mean() for v in by_batch.values()]
    worst = max(
        *(v.mean() / bound(t, 1) for t, v in by_steps.items()), *(v.mean() / bound(steps[-1], b) for b, v in by_batch.items())
    )
    numbers = {
        "exponent_in_steps": near(harness.slope(means[0], counts=steps), -0.5, 0.08),
        "exponent_in_batch": near(harness.slope(means[1], counts=batches), -0.5, 0.08),
        "share_of_bound": Number(worst, 0, 1),
        "mean_square_at_last": Number(by_steps[steps[-1]].mean(), spread=harness.standard_error(by_steps[steps[-1]])),
    }
    return harness.Measured(numbers, (steps, batches, means))


def draw(curves: Any) -> Any:
    steps, batches, means = curves
    figure, axes = harness.picture(2)
    for ax, x, y, label in zip(axes, (steps, batches), means, ("steps T, B = 1", f"batch B, T = {steps[-1]}"), strict=True):
        ax.plot(x, y, "o-")
        harness.guide(ax, x[0], x[-1], y[0], -0.5)
        ax.set(xscale="log", yscale="log", xlabel=label, ylabel="mean of |grad f|²")
        ax.legend(frameon=False)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
