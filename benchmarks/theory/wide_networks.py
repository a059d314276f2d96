"""Wide networks: gradient descent converges linearly, also on random targets, and the wider the less the weights move.

`v' relu(W x) / sqrt(width)` on 20 points of a sphere, targets of a standard normal distribution, all rows a step at the rate 0.5.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

POINTS, INPUTS = 20, 20
SMALL = {"widths": (64, 1024), "steps": 400}


@harness.in_float64
def measure(widths: tuple[int, ...] = (64, 256, 1024, 4096), steps: int = 1000) -> Any:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((POINTS, INPUTS))
    x = jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
    y = jnp.asarray(rng.standard_normal(POINTS))
    paths, moved = {}, {}
    for width in widths:
        signs = jnp.asarray(rng.choice([-1.0, 1.0], width))
        start = jnp.asarray(rng.standard_normal((INPUTS, width)))

        def loss(w: jax.Array, signs: Any = signs, width: int = width) -> jax.Array:
            return jnp.sum((jax.nn.relu(x @ w) @ signs / width**0.5 - y) ** 2) / 2

        def see(w: jax.Array, _: Any, loss: Any = loss, start: Any = start) -> Any:
            return loss(w), jnp.linalg.norm(w - start) / jnp.linalg.norm(start)

        run = jax.jit(
            lambda loss=loss, start=start, see=see: harness.follow(
                gradtx.sgd(0.5), lambda w, key: jax.grad(loss)(w), start, steps, see
            )
        )
        values, ways = run()
        paths[width], moved[width] = np.asarray(values), float(ways[-1])
    widest = np.log(paths[widths[-1]])
    late = np.flatnonzero(widest > np.log(1e-20))[5:]  # before rounding
    numbers = {
        "correlation_of_log_loss_with_step": Number(float(-np.corrcoef(late, widest[late])[0, 1]), 0.98),
        "digits_gained": Number(float((widest[0] - widest[-1]) / np.log(10)), 2),
        "exponent_of_movement_in_width": near(harness.slope(list(moved.values()), counts=widths), -0.5, 0.12),
        "moved_narrowest": Number(moved[widths[0]]),
        "moved_widest": Number(moved[widths[-1]]),
    }
    return harness.Measured(numbers, (paths, moved))


def draw(curves: Any) -> Any:
    paths, moved = curves
    figure, (left, right) = harness.picture(2)
    for width, path in paths.items():
        left.plot(path, label=f"width {width}")
    left.set(yscale="log", xlabel="step", ylabel="training loss")
    left.legend(frameon=False, fontsize=8)
    right.plot(list(moved), list(moved.values()), "o-")
    widths = list(moved)
    harness.guide(right, widths[0], widths[-1], moved[widths[0]], -0.5)
    right.set(xscale="log", yscale="log", xlabel="width", ylabel="|W - W₀| / |W₀|")
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
