"""Escape from saddles: the time falls as 1/rate, descent alone stays, and the flat monkey saddle holds longer than a strict one.

Strict: `x^2 - y^2 + y^4` from (1, 0), with a sphere of noise added to the gradient. Monkey: `x^3 - 3 x y^2 + (x^2 + y^2)^2`, whose
Hessian is zero at the saddle. Escaped is who has lost half of the depth of the minimum.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

RADIUS = 0.01
SMALL = {"rates": (0.05, 0.1), "seeds": 4, "steps": 3000}


def strict(p: jax.Array) -> jax.Array:
    return p[0] ** 2 - p[1] ** 2 + p[1] ** 4


def monkey(p: jax.Array) -> jax.Array:
    x, y = p
    return x**3 - 3 * x * y**2 + (x**2 + y**2) ** 2


SADDLES = {"strict": (strict, (1.0, 0.0), -1 / 4), "monkey": (monkey, (0.0, 0.0), -27 / 256)}


@harness.in_float64
def measure(rates: tuple[float, ...] = (0.0125, 0.025, 0.05, 0.1), seeds: int = 32, steps: int = 20_000) -> Any:
    def times(name: str) -> np.ndarray:
        """Steps to escape, of each rate and seed; `steps` where it did not."""
        loss, start, lowest = SADDLES[name]

        def one(rate: jax.Array, seed: jax.Array) -> jax.Array:
            tx = gradtx.chain(gradtx.add_sphere_noise(RADIUS, jax.random.key(seed)), gradtx.scale_by_learning_rate(rate))
            path = harness.follow(tx, lambda p, key: jax.grad(loss)(p), jnp.array(start), steps, lambda p, _: loss(p))
            return jnp.where(path.min() < lowest / 2, jnp.argmax(path < lowest / 2) + 1, steps)

        grid = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
        return np.asarray(grid(jnp.array(rates), jnp.arange(seeds)))

    counts = {name: times(name) for name in SADDLES}
    still = np.asarray(
        harness.follow(gradtx.sgd(0.1), lambda p, key: jax.grad(strict)(p), jnp.array([1.0, 0.0]), 500, lambda p, _: strict(p))
    )
    medians = {name: np.median(c, axis=1) for name, c in counts.items()}
    numbers = {
        "descent_alone_ends_at": near(still[-1], 0, 1e-12),
        "share_escaped": Number(float((counts["strict"] < steps).mean()), 1),
        "exponent_in_rate": near(harness.slope(medians["strict"], counts=rates), -1, 0.2),
        "steps_at_last_rate": Number(float(medians["strict"][-1]), spread=harness.standard_error(counts["strict"][-1])),
        "monkey_over_strict": Number(float(medians["monkey"][-1] / medians["strict"][-1]), 2),
    }
    return harness.Measured(numbers, (rates, medians))


def draw(curves: Any) -> Any:
    rates, medians = curves
    figure, ax = harness.picture()
    for name, values in medians.items():
        ax.plot(rates, values, "o-", label=f"{name} saddle")
    harness.guide(ax, rates[0], rates[-1], medians["strict"][0], -1)
    ax.set(xscale="log", yscale="log", xlabel="rate", ylabel="steps to escape, median")
    ax.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
