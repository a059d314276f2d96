"""One row for each set of `gradtx.projections`: the set as a value, whether a point is in it, and Optax's projection, if any."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from gradtx import projections

A = np.array([[1.0, 0.0, 2.0, 0.0, -1.0], [0.0, 1.0, 1.0, 1.0, 0.0]])
NORMAL = {"w": np.array([1.0, -2.0, 0.5]), "b": np.array([0.0, 3.0])}


class Set(NamedTuple):
    """A set: how to make it, its residual (0 inside) for a flat float64 vector, Optax's function of a tree, whether convex."""

    make: Callable[[], Any]
    residual: Callable[[np.ndarray], float]
    optax: Callable[[Any], Any] | None = None
    convex: bool = True


def outside(x: np.ndarray, low: float, high: float) -> float:
    return float(np.max(np.maximum(low - x, x - high), initial=0.0))


def everywhere(tree: Any, value: float) -> Any:
    return jax.tree.map(lambda x: jax.numpy.full_like(x, value), tree)


def normal(x: np.ndarray) -> float:
    return float(np.concatenate([NORMAL["b"], NORMAL["w"]]) @ x)


SETS = {
    "affine_set": Set(lambda: projections.affine_set(A, np.array([1.0, -1.0])), lambda x: float(np.abs(A @ x - [1, -1]).max())),
    "box": Set(
        lambda: projections.box(-0.5, 0.25),
        lambda x: outside(x, -0.5, 0.25),
        lambda t: optax.projections.projection_box(t, everywhere(t, -0.5), everywhere(t, 0.25)),
    ),
    "halfspace": Set(
        lambda: projections.halfspace(NORMAL, 0.5),
        lambda x: max(normal(x) - 0.5, 0.0),
        lambda t: optax.projections.projection_halfspace(t, NORMAL, 0.5),
    ),
    "hypercube": Set(
        lambda: projections.hypercube(0.5),
        lambda x: outside(x, 0, 0.5),
        lambda t: optax.projections.projection_box(t, everywhere(t, 0.0), everywhere(t, 0.5)),
    ),
    "hyperplane": Set(
        lambda: projections.hyperplane(NORMAL, 0.5),
        lambda x: abs(normal(x) - 0.5),
        lambda t: optax.projections.projection_hyperplane(t, NORMAL, 0.5),
    ),
    "l1_ball": Set(
        lambda: projections.l1_ball(1.5),
        lambda x: max(np.abs(x).sum() - 1.5, 0),
        lambda t: optax.projections.projection_l1_ball(t, 1.5),
    ),
    "l1_sphere": Set(
        lambda: projections.l1_sphere(1.5),
        lambda x: abs(np.abs(x).sum() - 1.5),
        lambda t: optax.projections.projection_l1_sphere(t, 1.5),
        convex=False,
    ),
    "l2_ball": Set(
        lambda: projections.l2_ball(1.5),
        lambda x: max(np.linalg.norm(x) - 1.5, 0),
        lambda t: optax.projections.projection_l2_ball(t, 1.5),
    ),
    "l2_sphere": Set(
        lambda: projections.l2_sphere(1.5),
        lambda x: abs(np.linalg.norm(x) - 1.5),
        lambda t: optax.projections.projection_l2_sphere(t, 1.5),
        convex=False,
    ),
    "linf_ball": Set(
        lambda: projections.linf_ball(0.5),
        lambda x: outside(x, -0.5, 0.5),
        lambda t: optax.projections.projection_linf_ball(t, 0.5),
    ),
    "linf_sphere": Set(lambda: projections.linf_sphere(0.5), lambda x: abs(np.abs(x).max() - 0.5), convex=False),
    "non_negative": Set(projections.non_negative, lambda x: outside(x, 0, np.inf), optax.projections.projection_non_negative),
    "simplex": Set(
        lambda: projections.simplex(2.0),
        lambda x: abs(x.sum() - 2) + outside(x, 0, np.inf),
        lambda t: optax.projections.projection_simplex(t, 2.0),
    ),
    "vector": Set(lambda: projections.vector(NORMAL), lambda x: 0.0, lambda t: optax.projections.projection_vector(t, NORMAL)),
}
