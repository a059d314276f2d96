"""PSGD Kron against the authors' code, in NumPy with the same noise; stacks, schedules, and what its state holds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles as o
import pytest
from matrix_oracles import kron, lower_bound
from problems import distance, tanh_regression, trajectory

import gradtx
from gradtx.matrix import kron as module

TANH = tanh_regression()
SHAPES = {"b": (3,), "w": (5, 3)}  # in the order of leaves


def drawn(key: int, steps: int):
    """The noise of each leaf and the coins of a run in float64."""
    with jax.enable_x64(True):
        state, noise, coins = jax.random.key(key), {name: [] for name in SHAPES}, []
        for _ in range(steps):
            state, now, coin = jax.random.split(state, 3)
            coins.append(float(jax.random.uniform(coin)))
            for (name, shape), own in zip(SHAPES.items(), jax.random.split(now, 2), strict=True):
                noise[name].append(np.asarray(jax.random.normal(jax.random.split(own, 1)[0], shape, float)))
    return noise, coins


def rule(noise, coins, **arguments):
    def of_leaf(g, x, t, s):
        return kron(g, x, t, s, noise["w" if g.ndim == 2 else "b"], coins, **arguments)

    return of_leaf


ROWS = {
    "default": ({}, {}),
    "one_diag": ({"memory_save_mode": "one_diag"}, {"mode": "one_diag"}),
    "all_diag": ({"memory_save_mode": "all_diag", "b1": 0.5}, {"mode": "all_diag", "b1": 0.5}),
    "seldom": ({"preconditioner_update_probability": 0.4}, {"probability": lambda t: 0.4}),
    "falling": (
        {"preconditioner_update_probability": lambda t: 1 / (1 + 0.1 * t), "preconditioner_lr": 0.3},
        {"probability": lambda t: 1 / (1 + 0.1 * t), "lr": 0.3},
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_oracle(row, monkeypatch):
    monkeypatch.setattr(module, "BALANCING", 0.3)
    ours, theirs = ROWS[row]
    noise, coins = drawn(5, 30)
    tx = gradtx.kron(o.falling, weight_decay=0.1, key=5, **ours)
    rules = [rule(noise, [coin < 0.3 for coin in coins], **theirs), partial(o.decay, weight_decay=0.1), o.rate(o.falling)]
    assert distance(trajectory(tx, TANH, 30), o.follow(TANH.gradient, TANH.params, 30, *rules)) < 1e-10


def test_when_factors_move():
    probability = module.PROBABILITY
    np.testing.assert_allclose([probability(t) for t in (1, 500, 1500, 4000, 9000)], [1, 1, np.exp(-1), 0.03020, 0.03], rtol=1e-3)
    tx = gradtx.scale_by_kron(preconditioner_update_probability=0.3)
    g = {"w": jnp.eye(2)}
    state, moved = tx.init(g), []
    for _ in range(9):
        before = state.factors
        _, state = tx.update(g, state)
        moved.append(not jnp.array_equal(before[0][0], state.factors[0][0]))
    assert moved == [False, False, False, True] * 2 + [False]  # 1/0.3 steps are over after 4


def test_it_whitens():
    """Updates have one size along all directions, however unlike the gradients are."""
    u = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    scales = jnp.asarray(u * [3.0, 1.0, 0.3, 0.1], jnp.float32)
    tx = gradtx.scale_by_kron(0.0)

    def step(state, key):
        updates, state = tx.update(scales @ jax.random.normal(key, (4, 6)), state)
        return state, updates

    _, found = jax.lax.scan(step, tx.init(jnp.zeros((4, 6))), jax.random.split(jax.random.key(0), 1500))
    along = np.linalg.norm(u.T @ np.concatenate(found[-100:], axis=1), axis=1)
    assert along.max() / along.min() < 1.5


def test_the_lower_bound_of_the_spectral_norm():
    rng = np.random.default_rng(0)
    matrices = [x @ x.T for x in rng.standard_normal((20, 6, 4))]
    found = module._norm_lower_bound(jnp.asarray(np.stack(matrices), jnp.float32))
    np.testing.assert_allclose(found, [lower_bound(a) for a in matrices], rtol=1e-5)
    assert all(f <= 1.00001 * np.linalg.norm(a, 2) <= 1.5 * f for f, a in zip(found, matrices, strict=True))
    assert module._norm_lower_bound(jnp.zeros((1, 2, 2)))[0] == 0


def test_leaves_of_one_shape_and_layers_of_one_leaf_are_one_stack():
    layers = jax.random.normal(jax.random.key(0), (3, 4, 5))
    apart, together = {"a": layers[0], "b": layers[1], "c": layers[2]}, {"layers": layers}
    one = gradtx.scale_by_kron()
    many = gradtx.scale_by_kron(weight_dimension_numbers={"layers": gradtx.MuonDimensionNumbers(1, 2)})
    states, found, expected = [one.init(apart), many.init(together)], {}, {}
    for _ in range(3):
        found, states[1] = many.update(together, states[1])
        expected, states[0] = one.update(apart, states[0])
    np.testing.assert_allclose(found["layers"], jnp.stack(list(expected.values())), atol=1e-6)
    assert jax.tree.map(jnp.shape, states[0].factors) == (((3, 4, 4), (3, 5, 5)),)


def test_long_axes_and_vectors_have_diagonal_factors():
    params = {"w": jnp.ones((3, 8)), "b": jnp.ones(3), "s": jnp.ones(()), "row": jnp.ones((1, 3))}
    state = gradtx.scale_by_kron(max_size_triangular=7).init(params)
    assert jax.tree.map(jnp.shape, state.factors) == (((2, 3),), ((1, 1),), ((1, 3, 3), (1, 8)))
    state = gradtx.scale_by_kron(min_ndim_triangular=1).init(params)
    assert jax.tree.map(jnp.shape, state.factors) == (((2, 3, 3),), ((1, 1),), ((1, 3, 3), (1, 8, 8)))


def test_factors_of_a_frozen_parameter_stay():
    tx = gradtx.scale_by_kron()
    params = {"a": jnp.zeros((2, 3)), "b": jnp.ones((2, 3))}
    state = tx.init(params)
    step, updates = jax.jit(tx.update), params
    for _ in range(5):
        updates, state = step(params, state)
    assert not jnp.any(updates["a"])
    assert jnp.all(jnp.isfinite(updates["b"]))
    np.testing.assert_array_equal(state.factors[0][0][0], jnp.eye(2))
    assert not jnp.array_equal(state.factors[0][0][1], jnp.eye(2))


def test_another_trees_state_is_refused():
    tx = gradtx.scale_by_kron()
    other, own = tx.init({"w": jnp.ones((2, 3))}), tx.init({"w": jnp.ones((2, 4))})
    text = r"^scale_by_kron: the factors in the state have shapes \[\[\(1, 2, 2\), \(1, 3, 3\)\]\], expected \[\[\(1, 2, 2\), \(1, 4, 4\)\]\]\. Was"
    with pytest.raises(ValueError, match=text):
        tx.update({"w": jnp.ones((2, 4))}, own._replace(factors=other.factors))
