"""A network that generalizes can also learn random labels by heart: all of the training set right, a tenth of the test set."""

from typing import Any

import jax
import numpy as np

import gradtx
from benchmarks.theory import digits, harness
from benchmarks.theory.harness import Number, near

SMALL = {"rows": 100, "steps": 300, "width": 128}


def measure(rows: int = 500, steps: int = 6000, width: int = 256) -> Any:
    numbers, curves = {}, {}
    start = digits.initial(jax.random.key(0), width)

    @jax.jit
    def trained(data: Any) -> Any:
        def see(params: Any, grads: Any) -> jax.Array:
            return digits.accuracy(params, data["x"], data["y"])

        return digits.train(gradtx.adam(2e-3), start, data, jax.random.key(1), steps, see=see)

    for name, noise in (("true", 0.0), ("random", 1.0)):
        data = digits.data(rows, noise)
        params, seen = trained(data)
        curves[name] = np.asarray(seen)
        numbers[f"train_accuracy_{name}"] = near(digits.accuracy(params, data["x"], data["y"]), 1, 1e-6)
        test = float(digits.accuracy(params, data["test_x"], data["test_y"]))
        numbers[f"test_accuracy_{name}"] = Number(test, 0.8) if name == "true" else near(test, 0.1, 0.08)
        numbers[f"steps_to_fit_{name}"] = Number(float(np.argmax(curves[name] == 1)))
    return harness.Measured(numbers, curves)


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    for name, values in curves.items():
        ax.plot(np.arange(1, len(values) + 1), values, label=f"{name} labels")
    ax.set(xscale="log", xlabel="step", ylabel="accuracy on the training set")
    ax.legend(frameon=False)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
