"""EMA-Nesterov and outer optimizers against their definitions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import falling
from problems import distance, tanh_regression, trajectory

import gradtx

TANH = tanh_regression()


def add(x: Any, y: Any, factor: float = 1.0) -> Any:
    return {name: x[name] + factor * y[name] for name in x}


def ema_nesterov(beta: Any, decay: float, steps: int) -> tuple[Any, Any]:
    """Where gradients are taken after each step, and the weights: the look ahead is part of the step, as in track 3."""
    w, motion, old = TANH.params, {name: 0 * x for name, x in TANH.params.items()}, TANH.params
    ahead, weights = [], []
    for k in range(steps):
        w = add(w, motion, beta(k))
        if k:
            ahead.append(w)
        w = add(w, TANH.gradient(w), -0.3)
        motion = {name: decay * motion[name] + (1 - decay) * (w[name] - old[name]) for name in w}
        old = w
        weights.append(w)
    ahead.append(add(w, motion, beta(steps)))
    return tuple({name: np.stack([p[name] for p in path]) for name in w} for path in (ahead, weights))  # type: ignore[return-value]


def evaluated(tx: Any, steps: int) -> Any:
    """What to evaluate with after each step."""

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(TANH.loss)(params), state, params)
        params = gradtx.apply_updates(params, updates)
        return (params, state), gradtx.eval_params(state, params)

    with jax.enable_x64(True):
        run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=steps)[1])
        return jax.tree.map(np.asarray, run(jax.tree.map(jnp.asarray, TANH.params)))


@pytest.mark.parametrize(("beta", "decay"), [(lambda k: 0.6, 0.99), (falling, 0.8), (lambda k: 0.9 * ((k >= 5) & (k < 20)), 0.9)])
def test_ema_nesterov(beta: Any, decay: float) -> None:
    tx = gradtx.ema_nesterov(gradtx.sgd(0.3), beta, decay)
    ahead, weights = ema_nesterov(beta, decay, 30)
    assert distance(trajectory(tx, TANH, 30), ahead) < 1e-10
    assert distance(evaluated(tx, 30), weights) < 1e-10


def outer_nesterov(rate: float, momentum: float, period: int, steps: int) -> tuple[Any, Any]:
    """Douillard et al. 2023, algorithm 1, on one worker, around gradient descent with momentum."""
    w = slow = TANH.params
    inner = b = {name: 0 * x for name, x in w.items()}
    path, slows = [], []
    for t in range(1, steps + 1):
        inner = add(TANH.gradient(w), inner, 0.9)
        w = add(w, inner, -0.1)
        if t % period == 0:
            s = add(slow, w, -1.0)
            b = add(s, b, momentum)
            w = slow = add(slow, add(s, b, momentum), -rate)
        path.append(w)
        slows.append(slow)
    return tuple({name: np.stack([p[name] for p in points]) for name in w} for points in (path, slows))  # type: ignore[return-value]


@pytest.mark.parametrize(("rate", "momentum", "period"), [(0.7, 0.5, 30), (0.68, 0.37, 4), (0.5, 0.9, 1)])
def test_outer(rate: float, momentum: float, period: int) -> None:
    inner = gradtx.sgd(0.1, 0.9)
    tx = gradtx.outer(inner, period) if period == 30 else gradtx.outer(inner, period, gradtx.sgd(rate, momentum, nesterov=True))
    path, slows = outer_nesterov(rate, momentum, period, 40)
    assert distance(trajectory(tx, TANH, 40), path) < 1e-10
    assert distance(evaluated(tx, 40), slows) < 1e-10


def test_outer_descent_is_lookahead() -> None:
    tx, other = gradtx.outer(gradtx.adam(0.05), 5, gradtx.sgd(0.5)), gradtx.lookahead_wrapper(gradtx.adam(0.05), 5, 0.5)
    assert distance(trajectory(tx, TANH, 30), trajectory(other, TANH, 30)) < 1e-14


@pytest.mark.parametrize("name", ["ema_nesterov", "outer"])
def test_what_is_refused(name: str) -> None:
    make = getattr(gradtx, name)
    with pytest.raises(ValueError, match=rf"^{name}: inner holds ema_params.*Put {name} inside it"):
        make(gradtx.ema_params(gradtx.sgd(0.1), 0.9))
    with pytest.raises(
        ValueError, match=rf"^{name}: inner holds accumulate.*Put it inside: accumulate\({name}\(inner\), every_k\)"
    ):
        make(gradtx.accumulate(gradtx.sgd(0.1), 2))
    with pytest.raises(ValueError, match="must be applied as they are"):
        gradtx.chain(make(gradtx.sgd(0.1)), gradtx.scale(0.5))
