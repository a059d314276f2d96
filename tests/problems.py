"""Small deterministic problems, and a driver that follows an optimizer on them.

Each problem has its loss in JAX and its gradient also in NumPy, so that an oracle needs no automatic differentiation.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

Arrays = dict[str, np.ndarray]


class Problem(NamedTuple):
    """Start in float64, loss for JAX, gradient for NumPy."""

    params: Arrays
    loss: Callable[[Any], Any]
    gradient: Callable[[Any], Arrays]


def tanh_regression(seed: float = 0.0) -> Problem:
    """`mean((tanh(x @ w + b) - y)**2) + 0.01 * sum(w**4)`: the problem of the golden trajectories."""
    i, j, k = np.arange(8.0), np.arange(5.0), np.arange(3.0)
    x = np.sin(0.7 * i[:, None] + 1.3 * j + seed) + 0.1 * i[:, None]
    y = np.cos(0.5 * i[:, None] - 0.9 * k + 0.3 * seed)
    params = {"w": 0.5 * np.cos(1.1 * j[:, None] + 0.6 * k + seed), "b": 0.1 * np.sin(k + seed)}

    def loss(p: Any) -> jax.Array:
        return jnp.mean((jnp.tanh(x @ p["w"] + p["b"]) - y) ** 2) + 0.01 * jnp.sum(p["w"] ** 4)

    def gradient(p: Any) -> Arrays:
        h = np.tanh(x @ p["w"] + p["b"])
        back = 2 * (h - y) * (1 - h**2) / y.size
        return {"w": x.T @ back + 0.04 * p["w"] ** 3, "b": back.sum(axis=0)}

    return Problem(params, loss, gradient)


MANY_SHAPES = {"conv": (2, 2, 3, 4), "heads": (3, 2, 2), "kernel": (5, 3), "bias": (3,), "gain": ()}


def quadratic(shapes: dict[str, tuple[int, ...]]) -> Problem:
    """`sum(a * (p - c)**2) / 2` over leaves of given shapes, with curvatures `a` from 0.02 to 1."""
    params, centers, curvatures = {}, {}, {}
    for n, (name, shape) in enumerate(shapes.items()):
        index = np.arange(np.prod(shape, dtype=int), dtype=float).reshape(shape)
        params[name] = np.cos(0.7 * index + n)
        centers[name] = 0.5 * np.sin(1.9 * index - n)
        curvatures[name] = 0.51 + 0.49 * np.sin(2.3 * index + 0.5 * n)

    def loss(p: Any) -> Any:
        return sum(jnp.sum(curvatures[name] * (p[name] - centers[name]) ** 2) / 2 for name in p)

    def gradient(p: Any) -> Arrays:
        return {name: curvatures[name] * (p[name] - centers[name]) for name in p}

    return Problem(params, loss, gradient)


def trajectories(
    transformations: Iterable[Any], problem: Problem, steps: int, dtype: Any = np.float64, *, objective: bool = False
) -> list[Arrays]:
    """The parameters after each of `steps` steps, for each transformation by itself; all in one scan, to compile once.

    Args:
      transformations: gradient transformations of gradtx or of Optax.
      problem: what to minimize.
      steps: how many steps.
      dtype: dtype of the parameters; float64 switches 64-bit types on for the run.
      objective: whether updates get `value`, `grad` and `value_fn`, for line searches.

    Returns:
      For each transformation and each leaf its iterates, of shape `(steps, *shape)`.
    """
    txs = list(transformations)

    def step(carry: Any, _: None) -> Any:
        after = []
        for tx, (params, state) in zip(txs, carry, strict=True):
            value, grad = jax.value_and_grad(problem.loss)(params)
            extra = {"value": value, "grad": grad, "value_fn": problem.loss} if objective else {}
            updates, state = tx.update(grad, state, params, **extra)
            after.append((gradtx.apply_updates(params, updates), state))
        return after, [params for params, _ in after]

    with jax.enable_x64(np.dtype(dtype) == np.float64):
        start = jax.tree.map(lambda p: jnp.asarray(p, dtype), problem.params)
        run = jax.jit(lambda params: jax.lax.scan(step, [(params, tx.init(params)) for tx in txs], None, length=steps)[1])
        return jax.tree.map(np.asarray, run(start))


def trajectory(tx: Any, problem: Problem, steps: int, dtype: Any = np.float64) -> Arrays:
    """`trajectories` of one transformation."""
    return trajectories([tx], problem, steps, dtype)[0]


def distance(path: Arrays, other: Arrays) -> float:
    """Largest difference between two trajectories, in units of 1 or of the largest value, whichever is larger; NaN if any is."""
    assert path.keys() == other.keys()
    scale = max(1.0, *(np.max(np.abs(leaf)) for leaf in other.values()))
    return float(np.max([np.max(np.abs(path[name] - other[name])) for name in other]) / scale)
