"""Shampoo against the authors' code, in NumPy; blocks, stacks, and what its state holds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles as o
import pytest
from matrix_oracles import shampoo
from problems import MANY_SHAPES, distance, quadratic, tanh_regression, trajectory

import gradtx

TANH, QUADRATIC = tanh_regression(), quadratic(MANY_SHAPES)
Graft = gradtx.Graft
ROWS = {
    "sum": ({}, {}),
    "mean": ({"b2": 0.9}, {"b2": 0.9}),
    "rmsprop": (
        {"b2": 0.95, "graft": Graft("rmsprop", 0.99, 1e-8)},
        {"b2": 0.95, "graft": "rmsprop", "graft_b2": 0.99, "graft_eps": 1e-8},
    ),
    "sgd": ({"b1": 0.8, "graft": Graft("sgd")}, {"b1": 0.8, "graft": "sgd"}),
    "late": ({"b2": 0.9, "frequency": 3}, {"b2": 0.9, "frequency": 3}),
    "start": ({"eps": 1e-4, "frequency": 4, "start": 2}, {"eps": 1e-4, "frequency": 4, "start": 2}),
}


@pytest.mark.parametrize("row", ROWS)
def test_oracle(row):
    ours, theirs = ROWS[row]
    tx = gradtx.shampoo(o.falling, weight_decay=0.1, **ours)
    rules = [partial(shampoo, **theirs), partial(o.decay, weight_decay=0.1), o.rate(o.falling)]
    assert distance(trajectory(tx, TANH, 30), o.follow(TANH.gradient, TANH.params, 30, *rules)) < 1e-10


def test_tensors_of_any_number_of_axes():
    """Gradients of a small problem are near rank one, so roots of their matrices need an `eps` that rounding does not reach."""
    tx = gradtx.shampoo(0.05, eps=1e-6)
    rules = [partial(shampoo, eps=1e-6), o.rate(0.05)]
    assert distance(trajectory(tx, QUADRATIC, 30), o.follow(QUADRATIC.gradient, QUADRATIC.params, 30, *rules)) < 1e-10


def steps(tx, grads):
    """The updates of three steps on given gradients."""
    state, found = tx.init(grads), []
    for k in range(3):
        updates, state = tx.update(jax.tree.map(lambda g: jnp.sin((k + 1) * g), grads), state)  # noqa: B023
        found.append(updates)
    return jax.tree.map(lambda *xs: jnp.stack(xs), *found)


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=2e-4 * float(np.max(np.abs(expected))))


def test_blocks_are_tensors_of_their_own():
    g = jax.random.normal(jax.random.key(0), (5, 9))
    tx = gradtx.scale_by_shampoo(eps=1e-6, block_size=4)  # rows in two blocks of 3, columns in three of 3
    found = steps(tx, g)
    for i in (slice(0, 3), slice(3, 5)):
        for j in (slice(0, 3), slice(3, 6), slice(6, 9)):
            close(found[:, i, j], steps(gradtx.scale_by_shampoo(eps=1e-6), g[i, j]))
    state = tx.init(g)
    assert [x.shape for x in jax.tree.leaves((state.statistics, state.roots))] == [(6, 3, 3)] * 4


def test_leaves_of_one_shape_and_layers_of_one_leaf_are_one_stack():
    layers = jax.random.normal(jax.random.key(0), (3, 4, 5))
    apart = {"a": layers[0], "b": layers[1], "c": layers[2], "bias": layers[0, :, 0]}
    together = {"layers": layers, "bias": layers[0, :, 0]}
    numbers = {"layers": gradtx.MuonDimensionNumbers(1, 2), "bias": None}
    one, many = gradtx.scale_by_shampoo(eps=1e-6), gradtx.scale_by_shampoo(eps=1e-6, weight_dimension_numbers=numbers)
    assert {x.shape for x in jax.tree.leaves(one.init(apart).roots)} == {(1, 4, 4), (3, 4, 4), (3, 5, 5)}
    found, expected = steps(many, together), steps(one, apart)
    close(found["layers"], jnp.stack([expected[name] for name in "abc"], axis=1))
    close(found["bias"], expected["bias"])


def test_complex_leaves():
    """Turning all gradients by one phase turns the updates."""
    g = jax.random.normal(jax.random.key(0), (4, 3), jnp.complex64)
    phase = jnp.exp(0.7j)
    tx = gradtx.scale_by_shampoo(eps=1e-6)
    one, other = tx.update(g, tx.init(g))[0], tx.update(phase * g, tx.init(g))[0]
    np.testing.assert_allclose(other, phase * one, atol=2e-4)


def test_zero_gradients_give_zero_updates():
    for graft in (Graft(), Graft("sgd")):
        tx = gradtx.scale_by_shampoo(eps=0.0, graft=graft)
        zeros = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3, jnp.float16)}
        updates, state = tx.update(zeros, tx.init(zeros))
        assert not any(jnp.any(x) for x in jax.tree.leaves(updates))
        assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state))


def test_another_trees_state_is_refused():
    tx = gradtx.scale_by_shampoo()
    text = (
        r"^scale_by_shampoo: the matrices in the state have shapes \[\[\(1, 2, 2\), \(1, 3, 3\)\]\], expected \[\[\(1, 2, 2\), \(1, 4, 4\)\]\]\. "
        r"Was the state made from other parameters, or with another block_size or weight_dimension_numbers\?"
    )
    other = tx.init({"w": jnp.ones((2, 3))})
    own = tx.init({"w": jnp.ones((2, 4))})
    with pytest.raises(ValueError, match=text):
        tx.update({"w": jnp.ones((2, 4))}, own._replace(statistics=other.statistics))


def test_noise_of_gradients_of_low_rank_is_not_amplified():
    """In float32, rounding is far above the default `eps` where gradients have a null space."""
    g = jnp.sin(jnp.linspace(-1.0, 1.0, 40)[:, None] + jnp.linspace(0.0, 2.0, 30))  # of rank 2
    tx = gradtx.scale_by_shampoo(graft=Graft("sgd"))
    updates, _ = tx.update(g, tx.init(g))
    u, _, vt = np.linalg.svd(np.asarray(g, np.float64))
    inside = u[:, :2] @ (u[:, :2].T @ updates @ vt[:2].T) @ vt[:2]
    assert np.linalg.norm(updates - inside) < 0.02 * np.linalg.norm(updates)
