"""BFGS: its definition in float64, and exact termination on a quadratic."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import distance, tanh_regression, trajectories

import gradtx
from gradtx.core.transformation import Transformation

TANH = tanh_regression()
INDEX = np.arange(8.0)
BASIS = np.linalg.qr(np.cos(np.outer(INDEX, INDEX) + INDEX))[0]
MATRIX = BASIS @ np.diag(np.linspace(0.5, 20, 8)) @ BASIS.T


class exact_search(Transformation):
    """The exact minimizer along the line, for the quadratic of `MATRIX`."""

    def step(self, updates: Any, state: gradtx.EmptyState, params: Any = None, *, grad: Any, **extra_args: Any) -> Any:
        return -(grad @ updates) / (updates @ MATRIX @ updates) * updates, state


def test_exact_line_searches_end_after_as_many_steps_as_dimensions() -> None:
    with jax.enable_x64(True):
        tx, x = gradtx.bfgs(linesearch=exact_search()), jnp.cos(jnp.arange(8.0))
        state = tx.init(x)
        for step in range(9):
            g = jnp.asarray(MATRIX) @ x
            assert (float(jnp.max(jnp.abs(g))) < 1e-10) == (step == 8)
            updates, state = tx.update(g, state, x, grad=g)
            x = x + jnp.where(step < 8, updates, 0)
        assert int(state[0].pairs) == 8
        np.testing.assert_allclose(state[0].inverse_hessian, np.linalg.inv(MATRIX), atol=1e-10)


def oracle(rate: float, steps: int) -> dict[str, np.ndarray]:
    """Nocedal and Wright, equations 6.17 and 6.20: `x -= rate * P @ g`."""
    shapes = {name: TANH.params[name].shape for name in sorted(TANH.params)}
    cuts = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])[:-1]
    x = np.concatenate([TANH.params[name].ravel() for name in shapes])
    eye, p, path, last = np.eye(x.size), None, [], None

    def tree(x: np.ndarray) -> dict[str, np.ndarray]:
        return {name: part.reshape(shapes[name]) for name, part in zip(shapes, np.split(x, cuts), strict=True)}

    for _ in range(steps):
        g = np.concatenate([TANH.gradient(tree(x))[name].ravel() for name in shapes])
        if last is None:
            direction = g * min(1.0, 1 / np.linalg.norm(g))
        else:
            s, y = x - last[0], g - last[1]
            assert s @ y > 0
            p = (s @ y) / (y @ y) * eye if p is None else p
            v = eye - np.outer(y, s) / (s @ y)
            p = v.T @ p @ v + np.outer(s, s) / (s @ y)
            direction = p @ g
        last = x, g
        x = x - rate * direction
        path.append(tree(x))
    return {name: np.stack([point[name] for point in path]) for name in TANH.params}


def test_thirty_steps_of_the_definition() -> None:
    tx = gradtx.bfgs(0.3, None)
    assert distance(trajectories([tx], TANH, 30)[0], oracle(0.3, 30)) < 1e-10


def test_pairs_without_positive_curvature_are_left_out_and_a_stay_starts_anew() -> None:
    tx, x, g = gradtx.scale_by_bfgs(), jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0])
    state = tx.init(x)
    pairs, after = [], []
    for point, grad in ((0 * x, 0 * g), (x, g), (2 * x, g - x), (2 * x, g - x)):
        u, state = tx.update(grad, state, point)
        pairs.append(int(state.pairs))
        after.append(u.tolist())
    assert pairs == [0, 1, 1, 0]
    assert after == [[0, 0], [1, 0], [0.5, 0], [1, 0]]
    assert state.inverse_hessian.tolist() == [[1, 0], [0, 1]]


def test_complex_parameters_count_as_pairs_of_real_ones() -> None:
    def of_real(x: Any) -> jax.Array:
        return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2

    with jax.enable_x64(True):
        found, _ = gradtx.minimize(lambda z: of_real([z.real, z.imag]), jnp.asarray(-1.2 + 1j), gradtx.bfgs(), max_steps=10)
        real, _ = gradtx.minimize(of_real, jnp.array([-1.2, 1.0]), gradtx.bfgs(), max_steps=10)
        np.testing.assert_allclose([found.real, found.imag], real, rtol=1e-8)


def test_a_state_of_other_parameters() -> None:
    tx = gradtx.scale_by_bfgs()
    with pytest.raises(
        ValueError, match="scale_by_bfgs: params have 2 elements, but the state has 3; was the state made from other"
    ):
        tx.update(jnp.ones(2), tx.init(jnp.ones(3)), jnp.ones(2))
    with pytest.raises(ValueError, match="scale_by_bfgs: needs the parameters"):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)))
