"""Adafactor, SM3, COCOB and DoG by leaf against their papers in float64, and what they hold."""

from functools import partial
from typing import Any

import adaptive_oracles as ao
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles as o
import pytest
from oracles import falling, rate
from problems import MANY_SHAPES, distance, quadratic, tanh_regression, trajectory

import gradtx

TANH, QUADRATIC = tanh_regression(), quadratic(MANY_SHAPES)


def bounded(step: Any, rate: Any) -> Any:
    return jnp.minimum(1 - (step + 1.0) ** -rate, 0.9)


METHODS: dict[str, tuple[Any, list[Any]]] = {
    "adafactor": (
        lambda: gradtx.adafactor(0.05, 2),
        [partial(ao.factored_rms, least=2), partial(o.clip_by_block_rms, threshold=1.0), o.param_block_rms, rate(0.05)],
    ),
    "adafactor, options": (
        lambda: gradtx.adafactor(falling, 3, 0.5, 4, False, 0.3, 0.8, "float64", 0.01, 1e-3, True, True),
        [
            partial(ao.factored_rms, least=3, rate=0.5, offset=4, eps=1e-3),
            partial(o.clip_by_block_rms, threshold=0.3),
            partial(o.descend, lr=lambda t: -falling(t)),
            partial(o.ema, beta=0.8, debias=False),
            partial(o.decay, weight_decay=0.01),
            rate(1.0),
        ],
    ),
    "adafactor, whole moments": (
        lambda: gradtx.adafactor(0.1, multiply_by_parameter_scale=False, clipping_threshold=None),
        [ao.factored_rms, rate(0.1)],
    ),
    "sm3": (lambda: gradtx.sm3(0.1), [ao.sm3, rate(0.1)]),
    "scale_by_sm3": (
        lambda: gradtx.chain(gradtx.scale_by_sm3(0.8, 0.9, 1e-3), gradtx.scale(-0.05)),
        [partial(ao.sm3, b1=0.8, b2=0.9, eps=1e-3), rate(0.05)],
    ),
    "scale_by_distance_over_gradients": (
        lambda: gradtx.scale_by_distance_over_gradients(0.01, 1e-3, "float64", -1.0),
        [partial(ao.ldog, first=0.01, eps=1e-3), rate(1.0)],
    ),
    "cocob": (gradtx.cocob, [ao.cocob]),
    "cocob, options": (
        lambda: gradtx.cocob(falling, 10.0, 1e-2, 0.1),
        [partial(o.decay, weight_decay=0.1), partial(o.descend, lr=lambda t: -falling(t)), partial(ao.cocob, alpha=10.0, eps=1e-2)],
    ),
}


@pytest.mark.parametrize("problem", [TANH, QUADRATIC], ids=["tanh", "quadratic"])
@pytest.mark.parametrize("name", METHODS)
def test_the_paper(name: str, problem: Any) -> None:
    make, rules = METHODS[name]
    assert distance(trajectory(make(), problem, 30), o.follow(problem.gradient, problem.params, 30, *rules)) < 1e-10


def test_a_decay_of_ones_own_is_used() -> None:
    frozen, kept = gradtx.scale_by_factored_rms(), gradtx.scale_by_factored_rms(decay_rate_fn=bounded)
    states = [tx.init(jnp.ones(2)) for tx in (frozen, kept)]
    for size in (1.0, 1.0, 1.0, 9.0):
        for i, tx in enumerate((frozen, kept)):
            _, states[i] = tx.update(jnp.full(2, size), states[i])
    paper = 1 - 4**-0.8
    np.testing.assert_allclose([state.v[0] for state in states], [1 + (1 - paper) * 80] * 2, rtol=1e-6)  # the bound is not met yet
    for _ in range(60):
        for i, tx in enumerate((frozen, kept)):
            _, states[i] = tx.update(jnp.zeros(2), states[i])
    assert states[1].v[0] < states[0].v[0] / 3


def test_before_the_offset_optax_gives_nan() -> None:
    """The decay is 0 there: each gradient is its own moment."""
    params = {"w": jnp.ones((2, 2))}
    for lib, expected in ((gradtx, 1.0), (optax, np.nan)):
        tx = lib.scale_by_factored_rms(step_offset=3)
        updates, _ = tx.update(params, tx.init(params), params)
        np.testing.assert_allclose(updates["w"], expected)


def test_large_matrices_cost_their_rows_and_columns() -> None:
    params = {"w": jnp.ones((128, 130)), "b": jnp.ones(130), "heads": jnp.ones((2, 128, 200))}
    state = gradtx.adafactor(0.1).init(params)[0]
    assert (state.v_row["w"].shape, state.v_col["w"].shape, state.v["w"].shape) == ((128,), (130,), (1,))
    assert (state.v_row["heads"].shape, state.v_col["heads"].shape) == ((2, 128), (2, 200))
    assert (state.v_row["b"].shape, state.v["b"].shape) == ((1,), (130,))
    sums = gradtx.sm3(0.1).init(params)[0].mu
    assert [s.shape for s in sums["heads"]] == [(2,), (128,), (200,)]


def test_a_state_of_other_parameters_is_refused() -> None:
    for tx in (gradtx.scale_by_factored_rms(), gradtx.scale_by_sm3()):
        state = tx.init({"w": jnp.ones(2)})
        with pytest.raises(ValueError, match="updates and the tree in the state differ in structure: `v` is only in updates"):
            tx.update({"v": jnp.ones(2)}, state)


def test_scalars_keep_their_shape() -> None:
    """Optax's DoG by leaf gives them an axis, and its SM3 has none for them."""
    params = jnp.asarray(2.0)
    for tx in (gradtx.scale_by_distance_over_gradients(), gradtx.sm3(0.1)):
        assert tx.update(params, tx.init(params), params)[0].shape == ()
    theirs = optax.scale_by_distance_over_gradients()
    assert theirs.update(params, theirs.init(params), params)[0].shape == (1,)
    with pytest.raises(IndexError):
        optax.sm3(0.1).update(params, optax.sm3(0.1).init(params))


@pytest.mark.parametrize("tx", [gradtx.scale_by_factored_rms(), gradtx.scale_by_sm3()])
def test_a_nan_is_seen(tx: Any) -> None:
    grads = jnp.array([jnp.nan, 1.0])
    assert bool(jnp.isnan(tx.update(grads, tx.init(grads))[0][0]))


def test_complex_parameters() -> None:
    params = {"w": jnp.array([[1 + 1j, 2.0], [0.5j, 1.0]])}
    for tx in (gradtx.adafactor(0.1, 2), gradtx.sm3(0.1), gradtx.cocob()):
        updates, state = tx.update(params, tx.init(params), params)
        assert updates["w"].dtype == jnp.complex64
        assert all(bool(jnp.all(jnp.isfinite(jnp.abs(x)))) for x in jax.tree.leaves(state))
        direction = -updates["w"] * jnp.conj(params["w"])  # down the gradient, which is `params`
        assert bool(jnp.all(direction.real > 0))
