"""AdaGrad never forgets: behind a minimum that moves it falls ever further; RMSProp keeps up.

On `(x - 0.005 t)^2 / 2` at the rate 0.05: the lag after 1,000, 10,000 and 20,000 steps.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import near

RATE, SPEED = 0.05, 0.005
EXPECTED = {"adagrad": {1000: 0.295, 10_000: 30.2, 20_000: 72.3}, "rmsprop": {1000: 0.0225, 10_000: 0.0225, 20_000: 0.0225}}
SMALL = {"steps": 10_000}


def lags(tx: Any, steps: int) -> np.ndarray:
    def step(carry: Any, t: Any) -> Any:
        x, state = carry
        update, state = tx.update(x - SPEED * t, state, x)
        return (x + update, state), SPEED * t - (x + update)

    x = jnp.zeros(())
    return np.asarray(jax.jit(lambda: jax.lax.scan(step, (x, tx.init(x)), jnp.arange(1.0, steps + 1))[1])())


@harness.in_float64
def measure(steps: int = 20_000) -> Any:
    curves = {
        "adagrad": lags(gradtx.adagrad(RATE, initial_accumulator_value=0.0), steps),
        "rmsprop": lags(gradtx.rmsprop(RATE), steps),
    }
    numbers = {
        f"{name}_{t}": near(curves[name][t - 1], lag, 0.005 * lag)
        for name, row in EXPECTED.items()
        for t, lag in row.items()
        if t <= steps
    }
    return harness.Measured(numbers, curves)


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    harness.logarithmic(ax, {name: np.abs(path) for name, path in curves.items()}, ylabel="distance behind the minimum")
    ax.legend(frameon=False)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
