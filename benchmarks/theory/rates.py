"""The table of rates on a smooth convex loss: gradient descent 1/k, accelerated methods 1/k^2, adaptive ones at least 1/k.

A quadratic whose curvatures are even on a logarithmic scale from 1e-9 to 1, from x = 1: descent's error is then 1/k at every k,
and no method that follows gradients does better than 1/k^2.
"""

from typing import Any

import jax
import jax.numpy as jnp

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

D = 120
SMALL = {"steps": 6000}


def coming(count: Any) -> Any:
    """Nesterov's momentum at step `count`, as Su, Boyd and Candes 2014 have it."""
    return count / (count + 3.0)


def methods(root: float) -> dict[str, Any]:
    """Name: the optimizer. AMSGrad and Adam have the rate 1/sqrt(k) of their theory."""

    def falling(count: Any) -> Any:
        return 0.5 / jnp.sqrt(count + 1.0)

    return {
        "gradient descent": gradtx.sgd(1.0),
        "Nesterov": gradtx.chain(gradtx.trace(coming, nesterov=True), gradtx.scale(-1.0)),
        "AcceleGrad": gradtx.accelegrad(2 * root),
        "UniXGrad": gradtx.unixgrad(2 * root, projection=gradtx.projections.box(-1.0, 1.0)),
        "AdaGrad-Norm": gradtx.adagrad_norm(root, initial_accumulator_value=0.0),
        "AMSGrad": gradtx.amsgrad(falling),
        "Adam": gradtx.adam(falling),
    }


@harness.in_float64
def measure(steps: int = 20_000) -> Any:
    curvature, start = jnp.geomspace(1e-9, 1, D), jnp.ones(D)

    def loss(x: jax.Array, state: Any) -> jax.Array:
        return jnp.sum(curvature * gradtx.eval_params(state, x) ** 2) / 2

    def run() -> Any:
        return {name: harness.follow(tx, lambda x, key: curvature * x, start, steps, loss) for name, tx in methods(D**0.5).items()}

    curves = jax.jit(run)()
    slopes = {name: harness.slope(path, steps // 20) for name, path in curves.items()}
    numbers = {
        "gradient_descent": near(slopes["gradient descent"], -1, 0.05),
        "nesterov": near(slopes["Nesterov"], -2, 0.1),
        "accelegrad": Number(slopes["AcceleGrad"], -2.3, -1.8),
        "unixgrad": Number(slopes["UniXGrad"], -2.3, -1.7),
        "adagrad_norm": Number(slopes["AdaGrad-Norm"], -2, -0.95),
        "amsgrad": Number(slopes["AMSGrad"], high=-0.5),
        "adam": Number(slopes["Adam"], high=-0.5),
    }
    return harness.Measured(numbers, curves)


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    harness.logarithmic(ax, curves)
    last = len(curves["Adam"])
    harness.guide(ax, 10, last, 1.0, -1)
    harness.guide(ax, 10, last, 1.0, -2)
    ax.legend(frameon=False, fontsize=7, ncols=2)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
