"""The table of rates without smoothness: 1/sqrt(k) or faster, by methods that were told nothing of it, for averages.

`max_i |x_i|` in 200 dimensions, from `x_i = 1 + i/200`: a subgradient moves a single coordinate.
"""

from typing import Any

import jax
import jax.numpy as jnp

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number

D = 200
SMALL = {"steps": 3000}


def methods(radius: float) -> dict[str, Any]:
    def falling(count: Any) -> Any:
        return 0.5 / jnp.sqrt(count + 1.0)

    return {
        "subgradients, 1/sqrt(k)": gradtx.sgd(lambda count: radius / jnp.sqrt(count + 1.0)),
        "AdaGrad-Norm": gradtx.adagrad_norm(radius, initial_accumulator_value=0.0),
        "AdaGrad": gradtx.adagrad(0.5, initial_accumulator_value=0.0),
        "AMSGrad": gradtx.amsgrad(falling),
        "Adam": gradtx.adam(falling),
        "AcceleGrad": gradtx.accelegrad(2 * radius),
        "UniXGrad": gradtx.unixgrad(2 * radius, projection=gradtx.projections.box(-2.0, 2.0)),
    }


@harness.in_float64
def measure(steps: int = 20_000) -> Any:
    start = 1 + jnp.arange(D) / D
    radius = float(jnp.linalg.norm(start))

    def gradient(x: jax.Array, key: jax.Array) -> jax.Array:
        largest = jnp.argmax(jnp.abs(x))
        return jnp.zeros(D).at[largest].set(jnp.sign(x[largest]))

    def path(name: str, tx: Any) -> jax.Array:
        """The loss at the method's output; at the mean of the iterates where it has no output of its own."""
        points = harness.follow(tx, gradient, start, steps, lambda x, state: gradtx.eval_params(state, x))
        own = name in ("AcceleGrad", "UniXGrad")
        counts = jnp.arange(1, steps + 1)[:, None]
        return jnp.max(jnp.abs(points if own else jnp.cumsum(points, axis=0) / counts), axis=1)

    curves = jax.jit(lambda: {name: path(name, tx) for name, tx in methods(radius).items()})()
    slopes = {name: harness.slope(values, steps // 10) for name, values in curves.items()}
    numbers = {name.split(",")[0].lower().replace("-", "_"): Number(p, high=-0.45) for name, p in slopes.items()}
    return harness.Measured(numbers, curves)


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    harness.logarithmic(ax, curves)
    harness.guide(ax, 100, len(curves["Adam"]), 1.0, -0.5)
    ax.legend(frameon=False, fontsize=7)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
