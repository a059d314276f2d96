"""Lookahead: slow weights have less variance than SGD's, and points between the slow and the fast weights beat the fast ones.

On `x^2 / 2` with noise the variance of the slow weights over that of SGD is known (Zhang et al. 2019, proposition 2). On
digits, late in a training at a high rate, the line from the slow weights to the fast ones 5 steps later is measured: the test
accuracy on a plane.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import digits, harness
from benchmarks.theory.harness import Number, near

RATE, ALPHA, PERIOD = 0.1, 0.5, 5
HIGH_RATE = 0.6
SMALL: dict[str, Any] = {"seeds": 1000, "steps": 200, "train_steps": 100, "meetings": 10, "points": 5}


def variance_ratio() -> float:
    """Slow weights against SGD, where both have settled."""
    short, long = 1 - (1 - RATE) ** PERIOD, 1 - (1 - RATE) ** (2 * PERIOD)
    return ALPHA**2 * long / (ALPHA**2 * long + 2 * ALPHA * (1 - ALPHA) * short)


def settled(tx: Any, seeds: int, steps: int) -> float:
    def one(key: jax.Array) -> jax.Array:
        def see(x: jax.Array, state: Any) -> jax.Array:
            return gradtx.eval_params(state, x)

        return harness.follow(tx, lambda x, key: x + jax.random.normal(key), jnp.zeros(()), steps, see, key)[-1]

    return float(np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), seeds))).var())


def between(train_steps: int, meetings: int, points: int) -> dict[str, np.ndarray]:
    """Test losses and accuracies on the way from slow to fast weights, for several meetings; and a plane through one of them."""
    rows = digits.data()
    tx = gradtx.sgd(HIGH_RATE)
    start = digits.initial(jax.random.key(0), 64)
    params = jax.jit(
        lambda: digits.train(gradtx.lookahead_wrapper(tx, PERIOD, ALPHA), start, rows, jax.random.key(1), train_steps)[0]
    )()
    shares = jnp.linspace(0, 1, points)

    def at(slow: Any, fast: Any, share: Any) -> Any:
        return jax.tree.map(lambda a, b: a + share * (b - a), slow, fast)

    def meeting(slow: Any, key: jax.Array) -> Any:
        fast, _ = digits.train(tx, slow, rows, key, PERIOD, batch=16)

        def along(share: jax.Array) -> Any:
            point = at(slow, fast, share)
            return digits.loss(point, rows["test_x"], rows["test_y"]), digits.accuracy(point, rows["test_x"], rows["test_y"])

        return at(slow, fast, ALPHA), (*jax.vmap(along)(shares), slow, fast)

    _, (losses, accuracies, slow, fast) = jax.jit(
        lambda: jax.lax.scan(meeting, params, jax.random.split(jax.random.key(2), meetings))
    )()
    corners = [jax.tree.map(lambda x, i=i: x[i], tree) for tree, i in ((slow, -2), (fast, -2), (fast, -1))]

    def height(u: jax.Array, v: jax.Array) -> jax.Array:
        point = jax.tree.map(lambda a, b, c: a + u * (b - a) + v * (c - a), *corners)
        return digits.accuracy(point, rows["test_x"], rows["test_y"])

    grid = jnp.linspace(-0.5, 1.5, 2 * points)
    plane = jax.jit(jax.vmap(jax.vmap(height, (0, None)), (None, 0)))(grid, grid)
    found = {"shares": shares, "losses": losses, "accuracies": accuracies, "plane": plane, "grid": grid}
    return jax.tree.map(np.asarray, found)


def measure(seeds: int = 20_000, steps: int = 400, train_steps: int = 800, meetings: int = 100, points: int = 15) -> Any:
    slow = settled(gradtx.lookahead_wrapper(gradtx.sgd(RATE), PERIOD, ALPHA), seeds, steps)
    plain = settled(gradtx.sgd(RATE), seeds, steps)
    way = between(train_steps, meetings, points)
    losses = way["losses"].mean(0)
    middle = losses[len(losses) // 2]
    numbers = {
        "sgd_variance": near(plain, RATE / (2 - RATE), 0.15 * RATE),
        "variance_over_sgd": near(slow / plain, variance_ratio(), 0.1 if seeds < 5000 else 0.03),
        "variance_promised": Number(variance_ratio()),
        "test_loss_slow": Number(float(losses[0])),
        "test_loss_halfway": Number(float(middle)),
        "test_loss_fast": Number(float(losses[-1])),
        "fast_over_halfway": Number(float(losses[-1] / middle), 1.02),
    }
    return harness.Measured(numbers, way)


def draw(curves: Any) -> Any:
    figure, (left, right) = harness.picture(2)
    grid = curves["grid"]
    image = right.contourf(grid, grid, 100 * curves["plane"], levels=8, cmap="Blues")
    figure.colorbar(image, ax=right, label="test accuracy, %")
    right.plot([0, 1], [0, 0], "o-", color=harness.COLORS[1], label="slow to fast")
    right.plot([0.5, 0], [0, 1], "o-", color=harness.COLORS[2], label="the next way")
    right.set(xlabel="to the fast weights", ylabel="to the next fast weights")
    right.legend(frameon=False, fontsize=8)
    left.plot(curves["shares"], curves["losses"].mean(0), "o-")
    left.set(xlabel="share of the way from slow to fast weights", ylabel="test loss, mean of the meetings")
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
