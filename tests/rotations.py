"""How far an optimizer is from one that does not see the axes: the same problem in rotated parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from problems import Problem, trajectory

CURVATURES = np.array([1.0, 0.7, 0.4, 0.2, 0.1, 0.05])


def rotation(n: int, seed: int = 0) -> np.ndarray:
    """A random orthogonal matrix."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


def rotated_quadratic(q: np.ndarray) -> Problem:
    """`sum(curvature * (q.T @ x)**2) / 2`, from `q @ (1, ..., 1)`."""

    def loss(p: Any) -> jax.Array:
        return jnp.sum(CURVATURES * (q.T @ p["x"]) ** 2) / 2

    return Problem({"x": q @ np.ones(6)}, loss, lambda p: {"x": q @ (CURVATURES * (q.T @ p["x"]))})


def rotation_error(tx: Any, q: np.ndarray, steps: int = 30) -> float:
    """Largest difference between the rotated iterates and the iterates of the rotated problem."""
    plain = trajectory(tx, rotated_quadratic(np.eye(6)), steps)["x"]
    return float(np.max(np.abs(trajectory(tx, rotated_quadratic(q), steps)["x"] - plain @ q.T)))
