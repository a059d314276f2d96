"""AdaGrad-Norm: float64 oracle, rotations, range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import distance, tanh_regression, trajectory
from rotations import rotation, rotation_error

import gradtx

TANH = tanh_regression()


def adagrad_norm(steps: int, lr: float, initial: float, eps: float) -> dict[str, np.ndarray]:
    """Ward, Wu and Bottou 2019, algorithm 1: `b_{k+1}^2 = b_k^2 + |g_k|^2`, `x_{k+1} = x_k - lr / b_{k+1} * g_k`."""
    x, b_sq, path = dict(TANH.params), initial, []
    for _ in range(steps):
        g = TANH.gradient(x)
        b_sq += sum(np.sum(leaf**2) for leaf in g.values())
        x = {name: x[name] - lr / np.sqrt(b_sq + eps) * g[name] for name in x}
        path.append(x)
    return {name: np.stack([point[name] for point in path]) for name in x}


@pytest.mark.parametrize(("initial", "eps"), [(0.1, 1e-7), (0.0, 0.0), (2.0, 0.5)])
def test_oracle(initial, eps):
    ours = trajectory(gradtx.adagrad_norm(0.5, initial, eps), TANH, 30)
    assert distance(ours, adagrad_norm(30, 0.5, initial, eps)) < 1e-12


def test_a_rotation_of_the_parameters_rotates_the_iterates():
    q = rotation(6)
    assert rotation_error(gradtx.adagrad_norm(0.3), q) < 1e-12
    assert rotation_error(gradtx.adagrad(0.3), q) > 0.1  # the diagonal form does not


def test_norm_is_of_the_whole_tree():
    tx = gradtx.scale_by_adagrad_norm(0.0, eps=0.0)
    grads = {"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}
    updates, state = tx.update(grads, tx.init(grads))
    np.testing.assert_allclose([updates["a"][0], updates["b"][0, 0], state.b], [0.6, 0.8, 5.0], rtol=1e-6)
    assert gradtx.metrics(state) == {"adagrad_norm": state.b}


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
def test_gradients_whose_squares_leave_the_range(size):
    tx = gradtx.scale_by_adagrad_norm(0.0, eps=0.0)
    g = jnp.full(4, size, jnp.float32)
    state = tx.init(g)
    for t in (1, 2, 3):
        updates, state = tx.update(g, state)
        np.testing.assert_allclose(updates, 0.5 / np.sqrt(t), rtol=1e-5)


def test_nan_is_not_hidden():
    tx = gradtx.adagrad_norm(0.1)
    g = jnp.array([1.0, jnp.nan])
    _, state = tx.update(g, tx.init(g))
    assert np.all(np.isnan(tx.update(jnp.ones(2), state)[0]))


def test_complex_gradients_count_by_magnitude():
    tx = gradtx.scale_by_adagrad_norm(0.0, eps=0.0)
    g = jnp.array([3.0 + 4.0j, 0.0])
    updates, state = jax.jit(tx.update)(g, tx.init(g))
    np.testing.assert_allclose(updates, [0.6 + 0.8j, 0], rtol=1e-6)
    assert state.b.dtype == jnp.float32
