"""APOLLO against the authors' form, with the same projections."""

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
from gradtx.matrix.apollo import projection

TANH = tanh_regression()  # `b` is leaf 0, `w` of shape (5, 3) leaf 1


def draw(k: int, shape: tuple[int, ...], leaf: int = 1) -> Any:
    """The k-th projection, as the optimizer draws it."""
    with jax.enable_x64(True):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), k), leaf)
        return np.asarray(projection(key, shape[0], shape[1], jnp.dtype("float64")))


ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "channel": ({"rank": 2}, {"rank": 2}),
    "tensor": ({"rank": 1, "scale": 16.0, "scale_type": "tensor"}, {"rank": 1, "scale": 16.0, "tensor": True}),
    "redrawn": ({"rank": 2, "update_proj_gap": 4}, {"rank": 2, "every": 4}),
    "rank above the shorter axis": ({"rank": 9}, {"rank": 9}),
    "moments": ({"rank": 1, "b1": 0.8, "b2": 0.95, "eps": 1e-3}, {"rank": 1, "b1": 0.8, "b2": 0.95, "eps": 1e-3}),
}


@pytest.mark.parametrize("name", ROWS)
def test_oracle(name: str) -> None:
    ours, theirs = ROWS[name]
    rules = [partial(ro.apollo, draw=draw, **theirs), partial(o.decay, weight_decay=0.1), o.rate(0.02)]
    expected = o.follow(TANH.gradient, TANH.params, 30, *rules)
    assert distance(trajectory(gradtx.apollo(0.02, weight_decay=0.1, **ours), TANH, 30), expected) < 1e-10


def test_the_bound_binds() -> None:
    """At constant gradients moments that are not corrected give 1.3 times the step before: it grows by a hundredth."""
    tx, params = gradtx.scale_by_apollo(2), jnp.zeros((3, 4))
    state, norms = tx.init(params), []
    for _ in range(4):
        _, state = tx.update(jnp.ones((3, 4)), state)
        norms.append(float(state.norm.squeeze()))
    np.testing.assert_allclose(np.divide(norms[1:], norms[:-1]), [1.01] * 3, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_a_wide_and_a_tall_matrix_have_moments_of_their_longer_axis(shape: tuple[int, int]) -> None:
    problem = quadratic({"w": shape})
    rules = [partial(ro.apollo, draw=partial(draw, leaf=0), rank=2), o.rate(0.02)]
    path = trajectory(gradtx.apollo(0.02, 2), problem, 10)
    assert distance(path, o.follow(problem.gradient, problem.params, 10, *rules)) < 1e-10
    assert gradtx.scale_by_apollo(2).init(jnp.ones(shape)).mu.size == 2 * max(shape)


def test_each_matrix_of_a_stack_is_scaled_and_bounded_alone() -> None:
    grads = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)
    axes = {"weight_dimension_numbers": gradtx.MuonDimensionNumbers(1, 2)}
    together, alone = gradtx.scale_by_apollo(2, **axes), gradtx.scale_by_apollo(2)
    updates, _ = together.update(grads, together.init(grads))
    for k in range(2):
        np.testing.assert_allclose(updates[k], alone.update(grads[k], alone.init(grads[k]))[0], rtol=1e-5)


def test_after_a_step_of_zero_training_goes_on() -> None:
    tx, params = gradtx.scale_by_apollo(1), jnp.zeros((2, 3))
    _, state = tx.update(params, tx.init(params))
    updates, _ = tx.update(jnp.ones((2, 3)), state)
    assert float(jnp.linalg.norm(updates)) > 0.1
