"""Newton's method by conjugate gradients against dense solves, and where curvature is negative."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import distance, quadratic, tanh_regression, trajectories, trajectory

import gradtx

TANH = tanh_regression()
QUADRATIC = quadratic({"w": (3, 2), "b": (4,), "g": ()})


def reference(h: Any, g: Any, tolerance: float, most: int) -> tuple[Any, int]:
    """Nocedal and Wright 2006, algorithm 7.1, the inner loop."""
    z, r, d = np.zeros_like(g), g, g
    for k in range(most):
        if np.linalg.norm(r) <= tolerance * np.linalg.norm(g):
            return z, k
        curvature = d @ h @ d
        if curvature <= 0:
            return (g if k == 0 else z), k + 1
        alpha = r @ r / curvature
        z, new = z + alpha * d, r - alpha * h @ d
        d = new + new @ new / (r @ r) * d
        r = new
    return z, most


def solve(h: Any, g: Any, **options: Any) -> tuple[Any, int]:
    with jax.enable_x64(True):
        x, tx = jnp.zeros(len(g)), gradtx.scale_by_newton_cg(**options)
        step, state = tx.update(jnp.asarray(g), tx.init(x), x, value_fn=lambda x: x @ jnp.asarray(h) @ x / 2)
        return np.asarray(step), int(state.iterations)


@pytest.mark.parametrize(("tolerance", "most"), [(1e-8, 50), (0.3, 50), (0.0, 3)])
@pytest.mark.parametrize("least", [0.5, -0.4])
def test_oracle(tolerance: float, most: int, least: float) -> None:
    rng = np.random.default_rng(3)
    q, g = np.linalg.qr(rng.normal(size=(8, 8)))[0], rng.normal(size=8)
    h = q @ np.diag([least, *np.linspace(1, 4, 7)]) @ q.T
    found, iterations = solve(h, g, tolerance=tolerance, max_iterations=most)
    expected, k = reference(h, g, tolerance, most)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    assert iterations == k


def test_the_default_tolerance_follows_the_gradient() -> None:
    h, g = np.diag(np.linspace(1, 100, 20)), np.ones(20)
    rough, fine = solve(h, g)[1], solve(h, 1e-6 * g)[1]
    assert rough == reference(h, g, 0.5, 50)[1] < fine == reference(h, g, (1e-6 * 20**0.5) ** 0.5, 50)[1]


def test_on_a_quadratic_one_step_is_newtons() -> None:
    cg, dense = (trajectories([tx], QUADRATIC, 1, objective=True)[0] for tx in (gradtx.newton_cg(tolerance=1e-12), gradtx.newton()))
    assert distance(cg, dense) < 1e-9


def test_damping_is_added_to_the_hessian() -> None:
    cg, dense = (
        trajectories([tx], TANH, 5, objective=True)[0]
        for tx in (gradtx.newton_cg(damping=0.5, tolerance=1e-13), gradtx.newton(damping=0.5))
    )
    assert distance(cg, dense) < 1e-9


def test_along_negative_curvature_it_is_the_gradient() -> None:
    g = np.array([1.0, -2.0])
    step, iterations = solve(np.diag([-1.0, -3.0]), g)
    np.testing.assert_array_equal(step, g)
    assert iterations == 1


def test_a_nan_shows() -> None:
    step, _ = solve(np.eye(2), np.array([1.0, np.nan]))
    assert np.isnan(step).any()


def test_complex_parameters() -> None:
    goal, start = jnp.array([1 + 2j, -1j]), jnp.array([0j, 3 + 0j])
    fn = lambda z: jnp.sum(jnp.array([1.0, 4.0]) * jnp.abs(z - goal) ** 2)  # noqa: E731
    tx = gradtx.newton_cg(tolerance=1e-6)
    grads = jnp.conj(jax.grad(fn)(start))
    updates, _ = tx.update(grads, tx.init(start), start, value_fn=fn)
    np.testing.assert_allclose(start + updates, goal, atol=1e-5)


def test_muon_in_its_plainest_form() -> None:
    """`M = beta*M + G`, `W -= eta * (msign(M) + lambda*W)`, the sign by SVD."""
    from functools import partial

    import oracles as o

    def msign(g: Any, x: Any, t: int, s: Any) -> Any:
        if g.ndim < 2:
            return g / np.linalg.norm(g)
        u, _, v = np.linalg.svd(g, full_matrices=False)
        return u @ v

    rules = [partial(o.heavy_ball, beta=0.95), msign, partial(o.decay, weight_decay=0.1), o.rate(0.05)]
    expected = o.follow(TANH.gradient, TANH.params, 20, *rules)
    exact = gradtx.msign_sgd(0.05, weight_decay=0.1, steps=12, coefficients="quintic")
    assert distance(trajectory(exact, TANH, 20), expected) < 1e-10
