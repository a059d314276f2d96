"""Lookahead: slow weights, pairs as in Optax, resets; the fast ones against torch are in `test_trajectories.py`."""

import inspect
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles as o
import pytest
from flax import nnx
from problems import distance, tanh_regression

import gradtx
import gradtx.optax
from gradtx.wrappers.lookahead import LookaheadParams, lookahead

TANH = tanh_regression()
GRADIENT = jax.grad(TANH.loss)
START = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), TANH.params)


def follow(tx: Any, params: Any, steps: int, grad: Any = GRADIENT) -> Any:
    """Parameters and what to evaluate with after each step, and the last state."""

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        point = params.fast if hasattr(params, "fast") else params
        updates, state = tx.update(grad(point), state, params)
        params = gradtx.apply_updates(params, updates)
        return (params, state), (params, gradtx.eval_params(state, params))

    (_, state), paths = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=steps))(params)
    return *jax.tree.map(np.asarray, paths), state


# The slow weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("period", "alpha"), [(1, 0.3), (4, 0.8), (7, 1.0), (5, 0.0)])
def test_oracle_of_both_weights(period: int, alpha: float) -> None:
    """Algorithm 1 as two loops, with momentum inside."""
    x, slow, m, fast_path, slow_path = dict(TANH.params), dict(TANH.params), dict.fromkeys(TANH.params, 0.0), [], []
    for t in range(1, 31):
        g = TANH.gradient(x)
        m = {k: 0.9 * m[k] + g[k] for k in x}
        x = {k: x[k] - 0.1 * m[k] for k in x}
        if t % period == 0:
            slow = {k: slow[k] + alpha * (x[k] - slow[k]) for k in x}
            x = dict(slow)
        fast_path.append(x)
        slow_path.append(slow)
    stacked = [{k: np.stack([point[k] for point in path]) for k in x} for path in (fast_path, slow_path)]
    with jax.enable_x64(True):
        fast, averages, _ = follow(gradtx.lookahead_wrapper(gradtx.sgd(0.1, 0.9), period, alpha), TANH.params, 30)
    assert distance(fast, stacked[0]) < 1e-10
    assert distance(averages, stacked[1]) < 1e-10


def test_a_full_step_is_the_inner_optimizer() -> None:
    plain, _, _ = follow(gradtx.adam(0.05), START, 30)
    wrapped, _, _ = follow(gradtx.lookahead_wrapper(gradtx.adam(0.05), 5, 1.0), START, 30)
    assert distance(wrapped, plain) < 1e-5  # `p + (phi - p)` is `phi` but for its last bit


def test_half_precision_parameters_have_float32_slow_weights() -> None:
    """Slow weights that move by less than bfloat16 can tell apart from 1."""
    tx, params = gradtx.lookahead_wrapper(gradtx.sgd(1.0), 2, 0.01), jnp.ones((), jnp.bfloat16)
    _, averages, state = follow(tx, params, 20, grad=lambda p: jnp.full_like(p, 2**-7))
    assert state.slow.dtype == jnp.float32
    assert averages.dtype == jnp.bfloat16
    assert float(state.slow) == pytest.approx(1 - 2**-6 * (1 - 0.99**10), abs=1e-6)  # ten meetings, of fast weights at 1 - 2^-6


def test_some_of_the_parameters() -> None:
    params = {"w": jnp.ones(2), "b": jnp.ones(()), "none": None}
    for tx in (
        gradtx.masked(gradtx.lookahead_wrapper(gradtx.sgd(0.1), 3), {"w": True, "b": False, "none": None}),
        gradtx.partition({0: gradtx.lookahead_wrapper(gradtx.sgd(0.1), 3), 1: gradtx.sgd(0.1)}, {"w": 0, "b": 1, "none": None}),
    ):
        state = tx.init(params)
        updates, state = tx.update(params, state, params)
        new = gradtx.apply_updates(params, updates)
        average = gradtx.eval_params(state, new)
        np.testing.assert_allclose(average["w"], 1.0)
        assert average["b"] is new["b"]
        assert average["none"] is None


def test_nnx() -> None:
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    optimizer = nnx.Optimizer(model, gradtx.lookahead_wrapper(gradtx.sgd(0.5), 2), wrt=nnx.Param)
    for _ in range(2):
        optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
        averages = nnx.to_pure_dict(gradtx.eval_params(optimizer.opt_state, nnx.state(model, nnx.Param)))
        moved = 0.5 if int(optimizer.opt_state.steps_since_sync) == 0 else 0.0
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b - moved, rtol=1e-6), averages, before)  # noqa: B023


def test_the_rate_may_be_set_without_a_recompile() -> None:
    traces = []
    tx = gradtx.lookahead_wrapper(gradtx.chain(gradtx.clip(10.0), gradtx.inject_hyperparams(gradtx.sgd)(0.5)), 5)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        traces.append(1)
        return tx.update(params, state, params)

    params = jnp.asarray([1.0, -2.0])
    _, state = step(params, tx.init(params))
    for rate in (0.125, 0.25):
        state = gradtx.tree.set(state, learning_rate=rate)
        updates, state = step(params, state)
        np.testing.assert_allclose(updates, -rate * params)
        assert float(gradtx.metrics(state)["learning_rate"]) == rate
    assert len(traces) == 1


def test_extra_arguments_reach_the_inner_optimizer() -> None:
    tx, p = gradtx.lookahead_wrapper(gradtx.storm()), jnp.ones(2)
    updates, _ = tx.update(p, tx.init(p), p, grad_fn=lambda params: params)
    alone, _ = gradtx.storm().update(p, gradtx.storm().init(p), p, grad_fn=lambda params: params)
    np.testing.assert_array_equal(updates, alone)
    text = "lookahead_wrapper > storm: missing extra argument `grad_fn`; call tx.update(updates, state, params, grad_fn=...)."
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        tx.update(p, tx.init(p), p)


def test_its_own_step_size_may_be_injected() -> None:
    tx = gradtx.inject_hyperparams(gradtx.lookahead_wrapper)(gradtx.sgd(1.0), 1)
    state = tx.init(jnp.zeros(()))
    assert set(state.hyperparams) == {"slow_step_size"}
    state.hyperparams["slow_step_size"] = jnp.asarray(0.25)
    updates, state = tx.update(jnp.ones(()), state, jnp.zeros(()))
    assert float(updates) == -0.25


# Pairs, as in Optax -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset_state", [False, True])
@pytest.mark.parametrize("inner", ["adam", "momentum"])
def test_pairs_equal_optax(inner: str, reset_state: bool) -> None:
    paths = []
    for lib in (gradtx.optax, optax):
        fast = lib.adam(0.01, b2=0.95, eps=1e-3) if inner == "adam" else lib.sgd(0.05, 0.9)
        tx, params = lib.lookahead(fast, 4, 0.6, reset_state), lib.LookaheadParams.init_synced(START)
        paths.append(follow(tx, params, 50)[0])
    for ours, theirs in zip(*paths, strict=True):  # fast, then slow
        assert distance(ours, theirs) < 1e-6


def test_the_signature_is_that_of_optax() -> None:
    ours, theirs = (inspect.signature(lib.lookahead).parameters.values() for lib in (gradtx.optax, optax))
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


def test_pairs_equal_the_wrapper() -> None:
    pair, both, state = follow(lookahead(gradtx.adam(0.05), 4, 0.6), LookaheadParams.init_synced(START), 30)
    fast, slow, _ = follow(gradtx.lookahead_wrapper(gradtx.adam(0.05), 4, 0.6), START, 30)
    assert distance(pair.fast, fast) < 1e-5
    assert distance(pair.slow, slow) < 1e-5
    assert state.slow is None
    assert both.fast is not None
    jax.tree.map(np.testing.assert_array_equal, both, LookaheadParams(pair.slow, pair.slow))


def test_a_plain_init_before_pairs() -> None:
    """Optax lets `init` see the fast weights alone; the pair's slow ones count then."""
    tx, pair = lookahead(gradtx.sgd(1.0), 1, 0.5), LookaheadParams(fast=jnp.array(3.0), slow=jnp.array(1.0))
    updates, state = tx.update(jnp.array(-2.0), tx.init(pair.fast), pair)
    moved = gradtx.apply_updates(pair, updates)
    assert (float(moved.fast), float(moved.slow), float(state.slow)) == (3.0, 3.0, 3.0)


def test_a_chain_of_pairs_and_own_buffers() -> None:
    tx = gradtx.chain(gradtx.clip(1.0), lookahead(gradtx.sgd(1.0), 2, 0.5))
    pair = LookaheadParams.init_synced({"w": jnp.zeros(2)})
    step = jax.jit(lambda g, s, p: tx.update(g, s, p), donate_argnums=(1, 2))
    updates, _ = step({"w": jnp.full(2, 5.0)}, tx.init(pair), pair)
    np.testing.assert_array_equal(updates.fast["w"], [-1.0, -1.0])
    np.testing.assert_array_equal(updates.slow["w"], [0.0, 0.0])


# Resets -----------------------------------------------------------------------------------------------------


def test_a_reset_starts_the_inner_optimizer_anew() -> None:
    """Each stretch of steps is Adam from the slow weights, with a first step of its own."""
    with jax.enable_x64(True):
        path, _, _ = follow(lookahead(gradtx.adam(0.05), 5, 0.5, reset_state=True), TANH.params, 30)
    x, expected = dict(TANH.params), []
    for _ in range(6):
        last = partial(o.lookahead, period=5, alpha=0.5)
        part = o.follow(TANH.gradient, x, 5, o.adam, partial(o.descend, lr=0.05), last)
        expected.append(part)
        x = {k: part[k][-1] for k in x}
    assert distance(path, {k: np.concatenate([part[k] for part in expected]) for k in x}) < 1e-10


def test_a_reset_clears_infinities() -> None:
    """What is not selected must not leak: `(1 - sync) * inf` is NaN."""
    tx = lookahead(gradtx.trace(0.9), 1, 0.5, reset_state=True)
    _, state = tx.update(jnp.array(jnp.inf), tx.init(jnp.zeros(())), jnp.zeros(()))
    assert float(state.fast_state.trace) == 0.0


# Errors -----------------------------------------------------------------------------------------------------


def test_errors() -> None:
    tx, pair = lookahead(gradtx.sgd(1.0), 2, 0.5), LookaheadParams.init_synced({"w": jnp.zeros(2)})
    state = tx.init(pair)
    text = (
        "lookahead: params is a dict with keys 'w', but the state was made from LookaheadParams; pass the pair to update as well."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        tx.update(pair.fast, state, pair.fast)
    text = "lookahead: needs the parameters; call tx.update(updates, state, params)."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        tx.update(pair.fast, state)
    text = "lookahead: updates and params differ in structure: `fast/w` is only in updates."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        tx.update(pair, state, pair)  # a gradient with respect to the pair
    text = "lookahead_wrapper: state is an EmptyState, expected LookaheadState; does it belong to another optimizer?"
    with pytest.raises(TypeError, match=f"^{re.escape(text)}"):
        gradtx.lookahead_wrapper(gradtx.sgd(1.0)).update(pair.fast, gradtx.EmptyState(), pair.fast)
