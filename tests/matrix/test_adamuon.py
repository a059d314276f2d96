"""AdaMuon against its algorithm in NumPy, by itself and as links of Muon."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles as o
from matrix_oracles import adamuon, polar
from problems import distance, tanh_regression, trajectory

import gradtx

TANH = tanh_regression()
LABELS = {"w": "muon", "b": "adam"}


def of_matrices(rule, other):
    def of_leaf(g, x, t, s):
        return (rule if g.ndim == 2 else other)(g, x, t, s)

    return of_leaf


def test_oracle():
    tx = gradtx.adamuon(o.falling, 0.9, 0.0, weight_decay=0.1)
    rules = [of_matrices(partial(adamuon, beta=0.9, eps=0.0), partial(o.adam, eps=0.0))]
    rules += [of_matrices(partial(o.decay, weight_decay=0.1), lambda g, x, t, s: g), o.rate(o.falling)]
    assert distance(trajectory(tx, TANH, 30), o.follow(TANH.gradient, TANH.params, 30, *rules)) < 1e-10


def test_oracle_as_links_with_exact_signs():
    links = [gradtx.ema(0.95, debias=False, nesterov=True), gradtx.scale_by_sign(), gradtx.orthogonalize(method="svd")]
    matrices = gradtx.chain(*links, gradtx.scale_by_adamuon(), gradtx.scale(-0.1))
    tx = gradtx.partition({"muon": matrices, "adam": gradtx.adam(0.1)}, LABELS)
    rules = [of_matrices(partial(adamuon, direction=polar), o.adam), o.rate(0.1)]
    assert distance(trajectory(tx, TANH, 30), o.follow(TANH.gradient, TANH.params, 30, *rules)) < 1e-10


def test_matrices_of_one_leaf_have_one_size_each():
    updates = {
        "layers": jax.random.normal(jax.random.key(0), (3, 4, 5)) * jnp.array([1.0, 10.0, 0.1])[:, None, None],
        "qkv": jax.random.normal(jax.random.key(1), (4, 12)) * jnp.repeat(jnp.array([1.0, 10.0, 0.1]), 4),
        "bias": jnp.ones(3),
    }
    numbers = {"layers": gradtx.MuonDimensionNumbers(1, 2), "qkv": gradtx.MuonDimensionNumbers(0, 1, 3), "bias": None}
    tx = gradtx.scale_by_adamuon(0.9, rms=0.3, weight_dimension_numbers=numbers)
    state = tx.init(updates)
    assert state.nu["bias"] == gradtx.MaskedNode()
    _, state = tx.update(updates, state)
    found, _ = tx.update(jax.tree.map(jnp.sin, updates), state)
    for x in [*found["layers"], *np.split(found["qkv"], 3, axis=1)]:
        np.testing.assert_allclose(np.sqrt(np.mean(np.square(x))), 0.3, rtol=1e-5)
    np.testing.assert_array_equal(found["bias"], jnp.sin(updates["bias"]))


def test_zero_updates_stay_zero():
    tx = gradtx.scale_by_adamuon(eps=0.0)
    zeros = {"kernel": jnp.zeros((2, 3), jnp.float16)}
    updates, state = tx.update(zeros, tx.init(zeros))
    assert not jnp.any(updates["kernel"])
    assert not jnp.any(state.nu["kernel"])


def test_explain_knows_it():
    text = gradtx.explain(gradtx.adamuon(0.1), {"wte": jnp.ones((9, 4)), "up": jnp.ones((4, 8))})
    assert "wte        (9, 4)  adam  an embedding" in text
