"""Adam's bias correction: the first step has the length of the rate; without it the first is 3.2 times as long, the 12th 6.6 times.

With the usual decays 0.9 and 0.999 and a constant gradient: without the correction step t has the length
`(1 - 0.9^t) / sqrt(1 - 0.999^t)`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import near

B1, B2 = 0.9, 0.999
SMALL = {"steps": 100}


@harness.in_float64
def measure(steps: int = 5000) -> Any:
    plain = gradtx.chain(gradtx.scale_by_amsgrad(B1, B2, bias_correction_mu=False, bias_correction_nu=False), gradtx.scale(-1.0))
    curves = {}
    for name, tx in {"with": gradtx.adam(1.0), "without": plain}.items():

        def step(state: Any, _: None, tx: Any = tx) -> Any:
            update, state = tx.update(jnp.array(0.3), state, jnp.array(0.0))
            return state, -update

        curves[name] = np.asarray(jax.lax.scan(step, tx.init(jnp.array(0.0)), None, length=steps)[1])
    t = np.arange(1, steps + 1)
    formula = (1 - B1**t) / np.sqrt(1 - B2**t)
    numbers = {
        "first_step_with": near(curves["with"][0], 1, 1e-6),
        "first_step_without": near(curves["without"][0], (1 - B1) / (1 - B2) ** 0.5, 1e-3),
        "worst_difference_from_the_formula": near(np.abs(curves["without"] - formula).max(), 0, 1e-5),
        "longest_without": near(curves["without"].max(), formula.max(), 1e-5),
        "step_of_the_longest": near(1 + int(curves["without"].argmax()), 1 + int(formula.argmax()), 0),
    }
    return harness.Measured(numbers, curves)


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    for name, path in curves.items():
        ax.plot(np.arange(1, len(path) + 1), path, label=f"{name} the correction")
    ax.set(xscale="log", xlabel="step", ylabel="length of the step over the rate")
    ax.legend(frameon=False)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
