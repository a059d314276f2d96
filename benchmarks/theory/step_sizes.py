"""SGD with noise on a strongly convex loss: constant rates stall, rates as 1/k^p converge as 1/k^p, and a cool-down ends the stall.

Ten curvatures from 0.5 to 1, noise of standard deviation 1 in each coordinate. The floor of a constant rate is in proportion to it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

D = 10
SMALL = {"steps": 3000, "seeds": 8}


def schedules(steps: int) -> dict[str, Any]:
    return {
        "constant 0.2": 0.2,
        "constant 0.05": 0.05,
        "2/(k+10)": lambda count: 2 / (count + 10.0),
        "1/k^0.75": lambda count: 1 / (count + 1.0) ** 0.75,
        "constant, then to 0": gradtx.warmup_stable_decay_schedule(0.2, 0.2, 0, steps // 2, steps - steps // 2, end_value=0.0),
    }


@harness.in_float64
def measure(steps: int = 30_000, seeds: int = 32) -> Any:
    curvature = jnp.linspace(0.5, 1, D)

    def gradient(x: jax.Array, key: jax.Array) -> jax.Array:
        return curvature * x + jax.random.normal(key, (D,))

    def loss(x: jax.Array, _: Any) -> jax.Array:
        return jnp.sum(curvature * x**2) / 2

    def one(key: jax.Array) -> Any:
        return {
            name: harness.follow(gradtx.sgd(rate), gradient, jnp.ones(D), steps, loss, key)
            for name, rate in schedules(steps).items()
        }

    curves = harness.mean_over(seeds, one)
    floors = {name: curves[name][steps // 2 :].mean() for name in ("constant 0.2", "constant 0.05")}
    last = {name: path[-steps // 50 :].mean() for name, path in curves.items()}
    tolerance = 0.15 if steps < 10_000 else 0.05
    numbers = {
        "exponent_1_over_k": near(harness.slope(curves["2/(k+10)"], steps // 30), -1, tolerance),
        "exponent_1_over_k_to_0.75": near(harness.slope(curves["1/k^0.75"], steps // 10), -0.75, tolerance),
        "exponent_constant": near(harness.slope(curves["constant 0.2"], steps // 30), 0, tolerance),
        "floor_0.2_over_floor_0.05": near(floors["constant 0.2"] / floors["constant 0.05"], 4.3, 0.6),
        "floor_0.2": Number(float(floors["constant 0.2"])),
        "floor_over_end_of_cool_down": Number(last["constant 0.2"] / last["constant, then to 0"], 10),
    }
    return harness.Measured(numbers, curves)


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    smooth = {name: np.exp(np.convolve(np.log(path), np.ones(9) / 9, mode="same"))[4:-4] for name, path in curves.items()}
    harness.logarithmic(ax, smooth, ylabel="E f - f*")
    harness.guide(ax, 100, len(curves["constant 0.2"]), 0.2, -1)
    ax.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
