"""Averages of parameters: float64 oracles, half precision, before the first point, parts of a tree."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles as o
import pytest
from flax import nnx
from problems import Arrays, distance, tanh_regression, trajectory

import gradtx

TANH = tanh_regression()
RULES = (partial(o.heavy_ball, beta=0.9), partial(o.descend, lr=0.1))
PATH = o.follow(TANH.gradient, TANH.params, 30, *RULES)


def averages(tx: Any, steps: int = 30) -> tuple[Arrays, Arrays]:
    """The parameters and what to evaluate with after each step, in float64."""

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(TANH.loss)(params), state, params)
        params = gradtx.apply_updates(params, updates)
        return (params, state), (params, gradtx.eval_params(state, params))

    with jax.enable_x64(True):
        run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=steps)[1])
        return jax.tree.map(np.asarray, run(jax.tree.map(jnp.asarray, TANH.params)))


def ema(path: np.ndarray, start: np.ndarray, decay: float, debias: bool) -> np.ndarray:
    """`a = decay*a + (1-decay)*p` from zero, over `1 - decay^t`; or from the start."""
    a, out = 0 * start if debias else start, []
    for t, p in enumerate(path, start=1):
        a = decay * a + (1 - decay) * p
        out.append(a / (1 - decay**t) if debias else a)
    return np.stack(out)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("debias", [True, False])
def test_ema_oracle(decay: float, debias: bool) -> None:
    params, found = averages(gradtx.ema_params(gradtx.sgd(0.1, 0.9), decay, debias=debias))
    assert distance(params, PATH) < 1e-10  # training goes on as without it
    assert distance(found, {k: ema(PATH[k], TANH.params[k], decay, debias) for k in PATH}) < 1e-10


@pytest.mark.parametrize("debias", [True, False])
def test_ema_of_the_tail(debias: bool) -> None:
    """Until the start the average is the parameters; then it begins anew, or there."""
    _, found = averages(gradtx.ema_params(gradtx.sgd(0.1, 0.9), 0.8, debias=debias, start=10))
    for k, path in PATH.items():
        np.testing.assert_allclose(found[k][:10], path[:10], rtol=1e-10)
        np.testing.assert_allclose(found[k][10:], ema(path[10:], path[9], 0.8, debias), rtol=1e-10)


@pytest.mark.parametrize(("start", "every"), [(0, 1), (10, 5), (1, 7), (3, 1), (100, 1)])
def test_swa_oracle(start: int, every: int) -> None:
    params, found = averages(gradtx.swa(gradtx.sgd(0.1, 0.9), start, every))
    assert distance(params, PATH) < 1e-10
    expected = {k: [] for k in PATH}
    for t in range(1, 31):
        points = [i for i in range(1, t + 1) if i >= start and (i - start) % every == 0]
        for k, path in PATH.items():
            expected[k].append(np.mean([path[i - 1] for i in points], axis=0) if points else path[t - 1])
    assert distance(found, {k: np.stack(v) for k, v in expected.items()}) < 1e-10


def test_defaults_average_all_steps() -> None:
    assert gradtx.swa(gradtx.sgd(0.1)) == gradtx.swa(gradtx.sgd(0.1), 0, 1)
    assert gradtx.ema_params(gradtx.sgd(0.1), 0.9) == gradtx.ema_params(gradtx.sgd(0.1), 0.9, debias=True)


WRAPPERS = pytest.mark.parametrize(
    "wrap", [lambda tx: gradtx.ema_params(tx, 0.9), lambda tx: gradtx.ema_params(tx, 0.9, debias=False), gradtx.swa]
)


@WRAPPERS
def test_before_any_step_it_is_the_parameters(wrap: Any) -> None:
    params = {"w": jnp.asarray([1.0, 2.0], jnp.bfloat16), "none": None}
    found = gradtx.eval_params(wrap(gradtx.adam(0.1)).init(params), params)
    assert found["none"] is None
    assert found["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found["w"], params["w"])


@pytest.mark.parametrize("wrap", [lambda tx: gradtx.ema_params(tx, 0.99, debias=False), gradtx.swa])
def test_averages_of_half_precision_parameters_do_not_stall(wrap: Any) -> None:
    """Parameters that jump between 1 and 2: in bfloat16 an average would stop where one share is less than half a unit."""

    def step(carry: Any, i: Any) -> Any:
        p, state = carry
        updates, state = tx.update(jnp.where(i % 2 == 0, -1.0, 1.0).astype(p.dtype), state, p)
        return (gradtx.apply_updates(p, updates), state), None

    tx, p = wrap(gradtx.sgd(1.0)), jnp.ones((), jnp.bfloat16)
    (p, state), _ = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), jnp.arange(2000)))(p)
    assert state.average.dtype == jnp.float32
    assert float(state.average) == pytest.approx(1.5, abs=0.003)
    assert float(p) == 1.0


def test_updates_of_half_precision_are_rounded_once() -> None:
    """What the average sees is what the parameters become."""
    tx, p = gradtx.swa(gradtx.sgd(1.0)), jnp.ones((), jnp.bfloat16)
    _, state = tx.update(jnp.asarray(-(2**-9), jnp.bfloat16), tx.init(p), p)
    assert float(state.average) == 1.0


@WRAPPERS
def test_some_of_the_parameters(wrap: Any) -> None:
    params = {"w": jnp.ones(2), "b": jnp.ones(())}
    tx = gradtx.masked(wrap(gradtx.sgd(0.5)), {"w": True, "b": False})
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(params, state, params)
        params = gradtx.apply_updates(params, updates)
    found = gradtx.eval_params(state, params)
    assert found["b"] is params["b"]
    assert float(found["w"][0]) > 1.1 * float(params["w"][0])  # behind the falling parameters


def test_the_outermost_average_speaks() -> None:
    tx, p = gradtx.swa(gradtx.lookahead_wrapper(gradtx.sgd(1.0), 2)), jnp.zeros(())
    state = tx.init(p)
    for _ in range(2):
        updates, state = tx.update(jnp.array(-2.0), state, p)
        p = gradtx.apply_updates(p, updates)
    assert (float(p), float(state.inner_state.slow), float(gradtx.eval_params(state, p))) == (2.0, 2.0, 2.0)
    assert float(gradtx.eval_params(state.inner_state, p)) == 2.0


@WRAPPERS
def test_nnx(wrap: Any) -> None:
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, wrap(gradtx.sgd(0.5)), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    params = nnx.state(model, nnx.Param)
    found = gradtx.eval_params(optimizer.opt_state, params)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    nnx.update(model, found)


def test_inner_metrics_and_extra_arguments_pass() -> None:
    tx, p = gradtx.ema_params(gradtx.chain(gradtx.sgd(0.5), gradtx.reduce_on_plateau(0.5, patience=1)), 0.9), jnp.zeros(())
    state = tx.init(p)
    for value in (1.0, 2.0):
        updates, state = tx.update(jnp.ones(()), state, p, value=value)
    assert float(updates) == -0.25
    assert {k: float(v) for k, v in gradtx.metrics(state).items()} == {"learning_rate": 0.5, "plateau_scale": 0.5}


def test_the_inner_path_is_the_plain_one_for_adam() -> None:
    wrapped, plain = averages(gradtx.swa(gradtx.adam(0.05), 5))[0], trajectory(gradtx.adam(0.05), TANH, 30)
    assert distance(wrapped, plain) < 1e-12


@WRAPPERS
def test_missing_parameters(wrap: Any) -> None:
    tx = wrap(gradtx.sgd(0.1))
    with pytest.raises(ValueError, match=r"^(ema_params|swa): needs the parameters; call tx\.update\(updates, state, params\)\.$"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
