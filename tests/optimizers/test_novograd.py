"""NovoGrad: float64 oracle, zero gradients, decay, state."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from problems import distance, tanh_regression, trajectory

import gradtx

TANH = tanh_regression()


def novograd(
    steps: int, lr: float, b1: float, b2: float, eps: float, weight_decay: Any = 0.0, eps_root: float = 0.0, eps_first: Any = None
) -> dict[str, np.ndarray]:
    """Ginsburg et al. 2019, algorithm 1: `v_1 = |g_1|^2`, `m_1 = g_1 / sqrt(v_1) + d w_1`; `eps_first` is 0 there."""
    x, m, v, path = dict(TANH.params), {}, {}, []
    for t in range(1, steps + 1):
        d = weight_decay(t - 1) if callable(weight_decay) else weight_decay
        g, moved = TANH.gradient(x), {}
        for name in x:
            square = np.sum(g[name] ** 2)
            if t == 1:
                v[name] = square
                m[name] = g[name] / (np.sqrt(square + eps_root) + (eps if eps_first is None else eps_first)) + d * x[name]
            else:
                v[name] = b2 * v[name] + (1 - b2) * square
                m[name] = b1 * m[name] + (g[name] / (np.sqrt(v[name] + eps_root) + eps) + d * x[name])
            moved[name] = x[name] - lr * m[name]
        x = moved
        path.append(x)
    return {name: np.stack([point[name] for point in path]) for name in x}


def falling(count: Any) -> Any:
    return 0.1 / (1.0 + count)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1, falling])
def test_oracle(weight_decay):
    ours = trajectory(gradtx.novograd(0.02, 0.9, 0.25, 1e-3, 1e-4, weight_decay), TANH, 30)
    assert distance(ours, novograd(30, 0.02, 0.9, 0.25, 1e-3, weight_decay, 1e-4)) < 1e-12


def test_the_paper_without_eps():
    ours = trajectory(gradtx.novograd(0.02, 0.95, 0.98, eps=0.0, weight_decay=0.01), TANH, 30)
    assert distance(ours, novograd(30, 0.02, 0.95, 0.98, 0.0, 0.01)) < 1e-12


def test_the_papers_first_step_has_no_eps():
    ours = trajectory(gradtx.novograd(0.02), TANH, 30)
    assert distance(ours, novograd(30, 0.02, 0.9, 0.25, 1e-6, eps_first=0.0)) < 1e-6


def test_first_step_has_unit_norm_by_leaf():
    grads = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([[1e-3]])}
    tx = gradtx.scale_by_novograd()
    updates, state = tx.update(grads, tx.init(grads))
    np.testing.assert_allclose(updates["a"], [0.6, -0.8], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [[1.0]], rtol=2e-5)
    np.testing.assert_allclose([state.nu["a"], state.nu["b"]], [25.0, 1e-6], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64])
def test_zero_gradients(dtype):
    """With zero gradients only the decay moves: `m = b1*m + d*p`."""
    params = jnp.full(3, 2.0, dtype)
    for decay, eps in ((0.0, 0.0), (0.0, 1e-8), (0.5, 1e-8)):
        tx = gradtx.scale_by_novograd(eps=eps, weight_decay=decay)
        state = tx.init(params)
        assert state.nu.dtype == jnp.float32
        for expected in (1.0, 1.9):
            updates, state = tx.update(jnp.zeros(3, dtype), state, params)
            np.testing.assert_allclose(np.asarray(updates, complex), expected * 2 * decay, rtol=4e-3)


def test_half_precision_norms_are_float32():
    """The squared norm of 1,000 gradients of 100 is 1e7, beyond float16."""
    g = jnp.full(1000, 100.0, jnp.float16)
    tx = gradtx.scale_by_novograd()
    updates, state = tx.update(g, tx.init(g))
    assert float(state.nu) == 1e7
    np.testing.assert_allclose(np.asarray(updates, float), 1 / np.sqrt(1000), rtol=1e-3)


def test_params_are_needed_for_the_decay_alone():
    g = jnp.ones(2)
    free, decaying = gradtx.novograd(0.1), gradtx.novograd(0.1, weight_decay=0.1)
    free.update(g, free.init(g))
    with pytest.raises(
        ValueError, match=r"^novograd > scale_by_novograd: needs the parameters; call tx\.update\(updates, state, params\)"
    ):
        decaying.update(g, decaying.init(g))
