"""Rectified Adam: Adam's adaptive rate varies wildly in the first steps, and r_t takes back the steps in proportion.

`1 / sqrt(v_hat)` over many Gaussian gradients: its standard deviation over its mean at step t, and RAdam's factor `r_t`. Then a
perceptron on digits, 400 steps at rates from 1e-3 to 0.3: the loss at the end, and sizes of gradients over the iterations.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import digits, harness
from benchmarks.theory.harness import Number, near

B2, DRAWS = 0.999, 20_000
SMALL: dict[str, Any] = {"steps": 30, "rates": (), "spread_steps": 1000}
BINS = np.linspace(-9, 1, 41)


def rectification(t: np.ndarray) -> np.ndarray:
    """`r_t`, 0 where RAdam steps by the momentum alone (`rho_t <= 5`)."""
    most = 2 / (1 - B2) - 1
    rho = most - 2 * t * B2**t / (1 - B2**t)
    known = np.maximum(rho, 5)
    return np.where(rho > 5, np.sqrt((known - 4) * (known - 2) * most / ((most - 4) * (most - 2) * known)), 0)


def relative_spread(steps: int) -> np.ndarray:
    """Standard deviation over mean of `1 / sqrt(v_hat)` at each step."""

    def step(v: jax.Array, inputs: Any) -> Any:
        key, t = inputs
        v = B2 * v + (1 - B2) * jax.random.normal(key, (DRAWS,)) ** 2
        rate = 1 / jnp.sqrt(v / (1 - B2**t))
        return v, rate.std() / rate.mean()

    inputs = jax.random.split(jax.random.key(0), steps), jnp.arange(1.0, steps + 1)
    return np.asarray(jax.jit(lambda: jax.lax.scan(step, jnp.zeros(DRAWS), inputs)[1])())


def trainings(make: Any, rates: tuple[float, ...], steps: int) -> Any:
    """For each rate the loss on all rows at the end; and of the first rate the histogram of log10 |gradient| at each step."""
    rows = digits.data(700)
    start = digits.initial(jax.random.key(0), 64)

    def see(params: Any, grads: Any) -> jax.Array:
        sizes = jnp.log10(jnp.maximum(jnp.abs(grads["w1"].ravel()), 1e-9))
        return jnp.histogram(sizes, BINS)[0]

    def one(rate: jax.Array) -> Any:
        tx = gradtx.chain(make(), gradtx.scale_by_learning_rate(rate))
        params, seen = digits.train(tx, start, rows, jax.random.key(1), steps, see=see)
        return digits.loss(params, rows["x"], rows["y"]), seen

    losses, seen = jax.jit(jax.vmap(one))(jnp.asarray(rates))
    return np.asarray(losses), np.asarray(seen[len(rates) // 2])


def measure(steps: int = 400, rates: tuple[float, ...] = (1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3), spread_steps: int = 2000) -> Any:
    spread = relative_spread(spread_steps)
    t = np.arange(1, spread_steps + 1)
    tx = gradtx.radam(1.0)
    state = tx.init(jnp.zeros(()))
    lengths = []
    for _ in range(8):
        update, state = tx.update(jnp.ones(()), state)
        lengths.append(-float(update))
    results = (
        {}
        if not rates
        else {
            "Adam": trainings(gradtx.scale_by_adam, rates, steps),
            "RAdam": trainings(gradtx.scale_by_radam, rates, steps),
        }
    )
    numbers = {
        "spread_at_step_6": Number(float(spread[5]), 0.3),
        "spread_at_last": Number(float(spread[-1]), 0, 0.06),
        "first_rectified_factor": near(lengths[5], float(rectification(t)[5]), 1e-4),
        "first_steps_are_momentum": near(max(abs(x - 1) for x in lengths[:5]), 0, 1e-5),
        "spread_times_factor_over_last": Number(float(spread[5] * rectification(t)[5] / spread[-1]), 0, 2),
    }
    for name, (losses, _) in results.items():
        for rate, value in zip(rates, losses, strict=True):
            numbers[f"loss_{name.lower()}_{rate:g}"] = Number(float(value), 0)
    return harness.Measured(numbers, (spread, rectification(t), rates, results))


def draw(curves: Any) -> Any:
    spread, factor, rates, results = curves
    figure, (left, middle, right) = harness.picture(3)
    left.plot(spread, label="Adam: std / mean of 1/√v̂")
    left.plot(factor, label="RAdam: $r_t$")
    left.plot(spread * factor, label="their product")
    left.set(xscale="log", xlabel="step", ylim=(0, 1.3))
    for name, (losses, _) in results.items():
        middle.plot(rates, losses, "o-", label=name)
    if rates:
        middle.legend(frameon=False, fontsize=8)
    middle.set(xscale="log", yscale="log", xlabel="rate", ylabel="training loss at the end")
    if rates:
        histogram = results["RAdam"][1][:80].T
        right.imshow(
            histogram, origin="lower", aspect="auto", extent=(0, 80, *BINS[[0, -1]]), cmap="Blues", interpolation="nearest"
        )
    right.set(xlabel="step", ylabel="log10 |gradient|", title="RAdam")
    left.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
