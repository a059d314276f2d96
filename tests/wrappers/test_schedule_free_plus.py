"""Schedule-Free+ against the authors' reference code, in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import distance, tanh_regression

import gradtx

TANH = tanh_regression()


def run(tx: Any, steps: int) -> tuple[Any, Any]:
    """The parameters, and what to evaluate with, after each step."""

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(TANH.loss)(params)
        updates, state = tx.update(grads, state, params, value=value)
        params = gradtx.apply_updates(params, updates)
        return (params, state), (params, gradtx.eval_params(state, params))

    with jax.enable_x64(True):
        scanned = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=steps)[1])
        return jax.tree.map(np.asarray, scanned(jax.tree.map(jnp.asarray, TANH.params)))


def reference(
    steps: int,
    lr: Any = lambda k: 1.0,
    betas: tuple[float, float] = (0.9, 0.95),
    decay: float = 0.0,
    b: Any = lambda k: 0.9,
    r: float = 0.0,
    power: float = 2.0,
    norm_decay: float = 0.0,
    warmup: int = 0,
) -> tuple[Any, Any]:
    """`adamc_schedulefree_plus_paper.py`, with the running mean of the norm as it was meant."""
    x = y = z = TANH.params
    m = v = {name: 0 * p for name, p in x.items()}
    norm = largest = total = 0.0
    ys, xs = [], []
    with jax.enable_x64(True):
        loss = jax.jit(TANH.loss)
        for k in range(steps):
            g, f = TANH.gradient(y), float(loss(y))
            norm = norm_decay * norm + (1 - norm_decay) * np.sqrt(np.pi / 2) * sum(np.sum(np.abs(a)) for a in g.values())
            inner = b(k) * sum(np.sum(g[n] * (z[n] - x[n])) for n in g)
            h = lr(k) * max(0, f + inner) / (norm / (1 - norm_decay ** (k + 1)))
            largest, c = max(h, largest), 1.0
            if k >= warmup:
                weight = (k + 1) ** r * largest**power
                total += weight
                c = weight / total
            m = {n: betas[0] * m[n] + (1 - betas[0]) * g[n] for n in g}
            v = {n: betas[1] * v[n] + (1 - betas[1]) * g[n] ** 2 for n in g}
            c1, c2 = (1 - beta ** (k + 1) for beta in betas)
            z = {n: z[n] - h**2 * decay * y[n] - h * m[n] / c1 / (np.sqrt(v[n] / c2) + 1e-8) for n in g}
            x = {n: (1 - c) * x[n] + c * z[n] for n in g}
            y = {n: b(k) * x[n] + (1 - b(k)) * z[n] for n in g}
            ys.append(y)
            xs.append(x)
    return tuple({n: np.stack([p[n] for p in path]) for n in x} for path in (ys, xs))  # type: ignore[return-value]


def rising(k: Any) -> Any:
    return 0.95 - 0.3 / (k + 1.0)


ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {}),
    "decay and weights": ({"weight_decay": 20.0, "r": 2.0, "weight_lr_power": 1.0}, {"decay": 20.0, "r": 2.0, "power": 1.0}),
    "schedules": (
        {"learning_rate": lambda k: 0.5 / (1.0 + k), "interpolation": rising},
        {"lr": lambda k: 0.5 / (1.0 + k), "b": rising},
    ),
    "running norm, late average": ({"norm_decay": 0.9, "average_from": 7}, {"norm_decay": 0.9, "warmup": 7}),
    "moments": ({"b1": 0.5, "b2": 0.99}, {"betas": (0.5, 0.99)}),
}


@pytest.mark.parametrize("name", ROWS)
def test_oracle(name: str) -> None:
    ours, theirs = ROWS[name]
    params, average = run(gradtx.schedule_free_plus(**ours), 30)
    ys, xs = reference(30, **theirs)
    assert distance(params, ys) < 1e-10
    assert distance(average, xs) < 1e-10


def test_a_zero_gradient_and_a_negative_gap_move_nothing() -> None:
    tx, params = gradtx.schedule_free_plus(), jnp.ones(2)
    for gradient, value in ((0.0, 1.0), (1.0, -1.0)):
        updates, state = tx.update(jnp.full(2, gradient), tx.init(params), params, value=value)
        np.testing.assert_array_equal(updates, 0)
        assert float(gradtx.metrics(state)["learning_rate"]) == 0


def test_a_loss_that_is_no_number() -> None:
    tx, params = gradtx.schedule_free_plus(), jnp.ones(2)
    with pytest.raises(TypeError, match=r"^schedule_free_plus: missing extra argument `value`"):
        tx.update(params, tx.init(params), params)
    with pytest.raises(TypeError, match=r"^schedule_free_plus: value is an array .*expected a real scalar, such as the loss\."):
        tx.update(params, tx.init(params), params, value=params)
