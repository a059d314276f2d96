"""Newton's method converges with order 2 and costs n^3; BFGS converges faster than linearly; L-BFGS wants full batches.

Orders on a smooth, strictly convex loss in 6 dimensions, `log(e_{k+1}/e_k) / log(e_k/e_{k-1})`. Operations are those of the
Hessian in Newton's compiled step. L-BFGS fits a logistic regression with its line search on the whole data, or on a new
minibatch each step.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

D, ROWS = 6, 512
SMALL: dict[str, Any] = {"sizes": (), "batch_steps": 0}


def loss(x: jax.Array) -> jax.Array:
    matrix = jnp.asarray(np.random.default_rng(0).standard_normal((3 * D, D)))
    return jnp.sum(jnp.logaddexp(matrix @ x, 0.0)) / D + jnp.sum(jnp.cosh(x) + x**2 / 2)


def errors(tx: Any, steps: int, best: Any = None) -> np.ndarray:
    """The gradient's norm after each step; the distance to `best`, if it is known."""

    def see(x: jax.Array, _: Any) -> Any:
        return (x, jnp.linalg.norm(jax.grad(loss)(x) if best is None else x - best))

    def step(carry: Any, _: None) -> Any:
        x, state = carry
        value, grad = jax.value_and_grad(loss)(x)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=loss)
        x = gradtx.apply_updates(x, updates)
        return (x, state), see(x, state)

    start = jnp.full(D, 1.5)
    points, norms = jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), None, length=steps)[1])()
    return np.asarray(points[-1] if best is None else norms)


def operations_of_newton(n: int) -> float:
    """Of one step on a dense loss, as XLA counts them: those of the Hessian, without the solver, which is a library's."""
    tx, x = gradtx.newton(max_size=n), jnp.ones(n)

    def step(x: jax.Array, matrix: jax.Array) -> Any:
        value_fn = lambda x: jnp.sum(jnp.cosh(matrix @ x))  # noqa: E731
        return tx.update(jax.grad(value_fn)(x), tx.init(x), x, value_fn=value_fn)[0]

    cost: Any = jax.jit(step).lower(x, jnp.ones((n, n))).compile().cost_analysis()
    return float(cost["flops"])


def lbfgs_losses(batch: int, steps: int) -> np.ndarray:
    """The loss on all rows of a logistic regression after each step."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((ROWS, 20)) * np.geomspace(0.1, 3, 20))
    y = jnp.asarray(rng.random(ROWS) < 1 / (1 + np.exp(-(x @ rng.standard_normal(20)))))
    tx = gradtx.lbfgs()

    def mean_loss(w: jax.Array, rows: Any) -> jax.Array:
        z = x[rows] @ w
        return jnp.mean(jnp.logaddexp(z, 0.0) - y[rows] * z) + 1e-3 * jnp.sum(w**2)

    def step(carry: Any, key: jax.Array) -> Any:
        w, state = carry
        rows = jax.random.permutation(key, ROWS)[:batch]
        value_fn = lambda w: mean_loss(w, rows)  # noqa: E731
        value, grad = jax.value_and_grad(value_fn)(w)
        updates, state = tx.update(grad, state, w, value=value, grad=grad, value_fn=value_fn)
        w = gradtx.apply_updates(w, updates)
        return (w, state), mean_loss(w, jnp.arange(ROWS))

    w = jnp.zeros(20)
    keys = jax.random.split(jax.random.key(0), steps)
    return np.asarray(jax.jit(lambda: jax.lax.scan(step, (w, tx.init(w)), keys)[1])())


@harness.in_float64
def measure(sizes: tuple[int, ...] = (128, 256, 512), batch_steps: int = 60) -> Any:
    best = errors(gradtx.newton(), 30)
    newton, bfgs = errors(gradtx.newton(), 6, best), errors(gradtx.bfgs(), 20, best)
    descent = errors(gradtx.sgd(0.1), 40, best)
    newton = newton[newton > 1e-14]
    ratios = bfgs[1:] / bfgs[:-1]
    ratios = ratios[bfgs[1:] > 1e-13]
    orders = np.log(newton[2:] / newton[1:-1]) / np.log(newton[1:-1] / newton[:-2])
    numbers = {
        "newton_order": near(orders[-1], 2, 0.25),
        "bfgs_last_ratio": Number(ratios[-2:].min(), 0, 0.1),
        "descent_last_ratio": Number(descent[-1] / descent[-2], 0.5, 1),
    }
    batches, lowest = {}, 0.0
    if batch_steps:
        batches = {"all rows": lbfgs_losses(ROWS, batch_steps), "batches of 16": lbfgs_losses(16, batch_steps)}
        lowest = min(path.min() for path in batches.values()) - 1e-12
        numbers["lbfgs_all_rows_gap"] = Number(batches["all rows"][-1] - lowest, 0, 1e-4)
        numbers["lbfgs_small_batches_gap"] = Number(batches["batches of 16"][-1] - lowest, 0.02)
    if sizes:
        counts = [operations_of_newton(n) for n in sizes]
        numbers["exponent_of_operations"] = near(harness.slope(counts, counts=sizes), 3, 0.1)
    return harness.Measured(numbers, ({"Newton": newton, "BFGS": bfgs, "gradient descent": descent}, batches, lowest))


def draw(curves: Any) -> Any:
    paths, batches, lowest = curves
    figure, (left, right) = harness.picture(2)
    for name, path in paths.items():
        left.plot(np.arange(1, len(path) + 1), path, ".-", label=name)
    left.set(yscale="log", xlabel="step", ylabel="|x - x*|", ylim=(1e-16, 10))
    for name, path in batches.items():
        right.plot(np.arange(1, len(path) + 1), path - lowest, label=f"L-BFGS, {name}")
        right.legend(frameon=False, fontsize=8)
    right.set(yscale="log", xlabel="step", ylabel="loss - lowest, all rows")
    left.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
