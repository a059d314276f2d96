"""Adaptive methods end in sharper minima than SGD with momentum: the largest eigenvalue of the Hessian after training.

A perceptron on 300 digits until the training loss is 0.02, so that minima of one depth are compared; each method at a usual rate.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import digits, harness
from benchmarks.theory.harness import Number
from gradtx import diagnostics

LOSS, ROWS = 0.02, 300
METHODS = {
    "SGD, momentum": gradtx.sgd(0.1, 0.9),
    "RMSProp": gradtx.rmsprop(1e-3),
    "Adam": gradtx.adam(1e-3),
}


def measure(seeds: int = 5, steps: int = 4000, width: int = 128, names: tuple[str, ...] = tuple(METHODS)) -> Any:
    rows = digits.data(ROWS)
    batch = (rows["x"], rows["y"])

    def until(tx: Any, key: jax.Array) -> Any:
        """The parameters at the first step whose loss on all rows is low enough."""

        def step(carry: Any, key: jax.Array) -> Any:
            params, state, done = carry
            chosen = jax.random.randint(key, (32,), 0, ROWS)
            updates, new = tx.update(jax.grad(digits.loss)(params, rows["x"][chosen], rows["y"][chosen]), state, params)
            moved = gradtx.apply_updates(params, updates)
            params, state = jax.tree.map(lambda a, b: jnp.where(done, a, b), (params, state), (moved, new))
            return (params, state, done | (digits.loss(params, *batch) < LOSS)), None

        start = digits.initial(key, width)
        keys = jax.random.split(jax.random.fold_in(key, 1), steps)
        (params, _, done), _ = jax.lax.scan(step, (start, tx.init(start), jnp.array(False)), keys)
        return params, done

    numbers, sharpness = {}, {}
    for name in names:
        params, done = jax.jit(jax.vmap(lambda key, tx=METHODS[name]: until(tx, key)))(jax.random.split(jax.random.key(0), seeds))
        trained = digits.each(params)
        values = np.array([float(diagnostics.top_eigenvalues(digits.loss, p, batch, steps=20).values[0]) for p in trained])
        tests = np.array([float(digits.accuracy(p, rows["test_x"], rows["test_y"])) for p in trained])
        key = name.split(",")[0].lower()
        spread = (lambda x: harness.standard_error(x)) if seeds > 1 else (lambda x: None)
        numbers[f"trained_{key}"] = Number(float(np.asarray(done).mean()), 1, 1)
        numbers[f"lambda_max_{key}"] = Number(float(values.mean()), spread=spread(values))
        numbers[f"accuracy_{key}"] = Number(float(tests.mean()), spread=spread(tests))
        sharpness[name] = values
    numbers["adam_over_sgd"] = Number(float(sharpness["Adam"].mean() / sharpness["SGD, momentum"].mean()), 1.05)
    return harness.Measured(numbers, sharpness)


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    for i, (name, values) in enumerate(curves.items()):
        ax.plot(values, np.full(len(values), i), "o", label=name)
    ax.set(yticks=range(len(curves)), yticklabels=list(curves), xlabel=f"λ_max of the Hessian at the loss {LOSS}")
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
