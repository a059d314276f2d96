"""Hyperball against its definition; spheres, stacks, zero matrices."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles as o
import pytest
import recent_oracles as ro
from problems import distance, quadratic, tanh_regression, trajectory

import gradtx

TANH = tanh_regression()
SVD = gradtx.orthogonalize(method="svd")


def msign(g: Any, x: Any, t: int, s: Any) -> Any:
    if g.ndim < 2:
        return g / np.linalg.norm(g)
    u, _, v = np.linalg.svd(g, full_matrices=False)
    return u @ v


ROWS = {
    "adam": (lambda: gradtx.hyperball(gradtx.scale_by_adam(), 0.05), [o.adam, partial(ro.hyperball, lr=0.05)]),
    "schedule": (
        lambda: gradtx.hyperball(gradtx.trace(0.9), o.falling),
        [partial(o.heavy_ball, beta=0.9), partial(ro.hyperball, lr=o.falling)],
    ),
    "muon": (
        lambda: gradtx.hyperball(gradtx.chain(gradtx.trace(0.95, nesterov=True), SVD), 0.05),
        [partial(o.nesterov, beta=0.95), msign, partial(ro.hyperball, lr=0.05)],
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_oracle(name: str) -> None:
    make, rules = ROWS[name]
    expected = o.follow(TANH.gradient, TANH.params, 30, *rules)
    assert distance(trajectory(make(), TANH, 30), expected) < 1e-10


def test_each_matrix_of_a_stack_has_its_own_norm() -> None:
    problem = quadratic({"stack": (3, 4, 2)})
    numbers = {"stack": gradtx.MuonDimensionNumbers(1, 2)}
    tx = gradtx.hyperball(gradtx.scale_by_adam(), 0.1, weight_dimension_numbers=numbers)
    expected = o.follow(problem.gradient, problem.params, 30, o.adam, partial(ro.hyperball, lr=0.1, stack=True))
    path = trajectory(tx, problem, 30)
    assert distance(path, expected) < 1e-10
    norms = np.sqrt(np.sum(path["stack"] ** 2, axis=(2, 3)))
    np.testing.assert_allclose(norms, np.broadcast_to(np.linalg.norm(problem.params["stack"], axis=(1, 2)), (30, 3)), rtol=1e-13)


def run(tx: Any, params: Any, grads: Any, steps: int) -> tuple[Any, Any]:
    def step(carry: Any, _: None) -> Any:
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=steps)[0])(params)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 4e-3)])
def test_the_norm_does_not_drift(dtype: Any, tolerance: float) -> None:
    params = jnp.asarray(np.random.default_rng(0).normal(size=(8, 16)), dtype)
    start = float(jnp.linalg.norm(params.astype(jnp.float32)))
    after, _ = run(gradtx.hyperball(gradtx.trace(0.9), 0.02), params, jnp.ones((8, 16), dtype), 2000)
    assert abs(float(jnp.linalg.norm(after.astype(jnp.float32))) / start - 1) < tolerance


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_the_step_is_relative_whatever_the_size_of_the_direction(size: float) -> None:
    params = jnp.array([[3.0, 0.0], [0.0, 4.0]])
    tx = gradtx.hyperball(gradtx.identity(), 0.1)
    updates, _ = tx.update(size * jnp.array([[0.0, 1.0], [-1.0, 0.0]]), tx.init(params), params)
    cosine = float(jnp.sum(params * (params + updates))) / 25
    assert abs(np.arccos(cosine) - np.arctan(0.1)) < 1e-3  # the direction is orthogonal to the parameters


def test_a_matrix_that_was_zero_moves_like_a_vector() -> None:
    params = {"zero": jnp.zeros((2, 2)), "vector": jnp.zeros(2)}
    tx = gradtx.hyperball(gradtx.identity(), 0.1)
    after, _ = run(tx, params, jax.tree.map(jnp.ones_like, params), 2)
    np.testing.assert_allclose(after["zero"], -0.2 * np.ones((2, 2)), rtol=1e-6)
    np.testing.assert_allclose(after["vector"], -0.2 * np.ones(2), rtol=1e-6)


@pytest.mark.parametrize(("rate", "gradient"), [(0.1, 0.0), (0.0, 1.0)])
def test_without_a_step_nothing_moves_by_rounding(rate: float, gradient: float) -> None:
    params = jnp.asarray(np.random.default_rng(0).normal(size=(5, 7)), jnp.float32)
    tx = gradtx.hyperball(gradtx.identity(), rate)
    updates, _ = tx.update(jnp.full((5, 7), gradient), tx.init(params), params)
    assert bool(jnp.all(updates == 0))


def test_a_nan_shows() -> None:
    tx, params = gradtx.hyperball(gradtx.identity(), 0.1), jnp.ones((2, 2))
    updates, _ = tx.update(jnp.array([[1.0, jnp.nan], [0.0, 0.0]]), tx.init(params), params)
    assert bool(jnp.all(jnp.isnan(updates)))


def test_the_rate_in_use_is_reported() -> None:
    tx, params = gradtx.hyperball(gradtx.identity(), gradtx.linear_schedule(0.1, 0.0, 10)), jnp.ones((2, 2))
    _, state = tx.update(params, tx.init(params), params)
    _, state = tx.update(params, state, params)
    assert abs(float(gradtx.metrics(state)["learning_rate"]) - 0.09) < 1e-8


def test_muon_on_the_sphere_beside_adamw_by_path() -> None:
    axes = gradtx.matrix_axes()
    muon = gradtx.chain(gradtx.trace(0.95, nesterov=True), gradtx.orthogonalize(weight_dimension_numbers=axes))
    parts: dict[Any, Any] = {"muon": gradtx.hyperball(muon, 0.05, weight_dimension_numbers=axes), "adam": gradtx.adamw(1e-2)}
    tx = gradtx.partition(parts, gradtx.muon_labels())
    params = {"kernel": jnp.eye(4, 3) + 0.1, "head": {"kernel": jnp.ones((3, 2))}, "bias": jnp.zeros(3)}
    after, _ = run(tx, params, jax.tree.map(jnp.ones_like, params), 5)
    assert abs(float(jnp.linalg.norm(after["kernel"]) / jnp.linalg.norm(params["kernel"])) - 1) < 1e-6
    np.testing.assert_allclose(after["bias"], -0.05 * np.ones(3), rtol=1e-4)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^hyperball: inner holds ema_params.*Put hyperball inside it"):
        gradtx.hyperball(gradtx.ema_params(gradtx.identity(), 0.9), 0.1)
    with pytest.raises(ValueError, match=r"^hyperball: the leaf `stack` has shape \(2, 2, 2\), expected at most two axes\."):
        gradtx.hyperball(gradtx.identity(), 0.1).init({"stack": jnp.ones((2, 2, 2))})
    with pytest.raises(ValueError, match=r"must be applied as they are"):
        gradtx.chain(gradtx.hyperball(gradtx.identity(), 0.1), gradtx.clip(1.0))
