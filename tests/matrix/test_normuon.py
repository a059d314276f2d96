"""NorMuon against its algorithm in NumPy, and as a link of Muon."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

NUMBERS = {"plain": gradtx.MuonDimensionNumbers(), "experts": gradtx.MuonDimensionNumbers(2, 1), "vector": None}
SHAPES = {"plain": (4, 9), "experts": (2, 6, 3), "vector": (5,)}


def test_oracle():
    """arXiv:2510.05491, algorithm 1, for weights (outputs, inputs), with the norm of O in place of 0.2 sqrt(mn)."""
    rng = np.random.default_rng(0)
    path = {name: rng.standard_normal((30, *shape)) for name, shape in SHAPES.items()}
    with jax.enable_x64(True):
        tx = gradtx.scale_by_normuon(0.9, 1e-8, NUMBERS)
        state = tx.init({name: jnp.asarray(steps[0]) for name, steps in path.items()})
        _, found = jax.lax.scan(lambda s, u: tx.update(u, s)[::-1], state, jax.tree.map(jnp.asarray, path))
    for name in ("plain", "experts"):
        v = 0.0
        for t, u in enumerate(path[name]):
            matrices = u.T[None] if name == "plain" else u  # (outputs, inputs)
            v = 0.9 * v + 0.1 * np.mean(matrices**2, axis=2, keepdims=True)
            scaled = matrices / (np.sqrt(v) + 1e-8)
            scaled *= np.linalg.norm(matrices, axis=(1, 2), keepdims=True) / np.linalg.norm(scaled, axis=(1, 2), keepdims=True)
            np.testing.assert_allclose(found[name][t], scaled[0].T if name == "plain" else scaled, atol=1e-12)
    np.testing.assert_array_equal(found["vector"], path["vector"])


def test_in_muon_it_evens_out_the_neurons_at_one_norm():
    params = {"kernel": jnp.zeros((4, 32))}
    grads = {"kernel": jax.random.normal(jax.random.key(0), (4, 32))}
    links = [gradtx.ema(0.95, nesterov=True), gradtx.orthogonalize("jordan", normalization="frobenius", eps=1e-8)]
    ends = [gradtx.scale_by_shape("rms"), gradtx.scale(-1.0)]
    plain, even = (gradtx.chain(*links, *more, *ends) for more in ([], [gradtx.scale_by_normuon(0.95)]))
    u, v = (tx.update(grads, tx.init(params), params)[0]["kernel"] for tx in (plain, even))
    np.testing.assert_allclose(np.linalg.norm(v), np.linalg.norm(u), rtol=1e-5)
    columns = np.linalg.norm(v, axis=0)
    np.testing.assert_allclose(columns, columns[0], rtol=1e-5)
    assert np.std(np.linalg.norm(u, axis=0)) > 0.1 * columns[0]


def test_zero_updates_stay_zero():
    tx = gradtx.scale_by_normuon(eps=0.0)
    zeros = {"kernel": jnp.zeros((2, 3), jnp.float16)}
    updates, state = tx.update(zeros, tx.init(zeros))
    assert not jnp.any(updates["kernel"])
    assert not jnp.any(state.nu["kernel"])


def test_what_is_no_matrix_has_no_state():
    """Checkpoints refuse arrays without elements."""
    params = {name: jnp.ones(shape) for name, shape in SHAPES.items()}
    tx = gradtx.scale_by_normuon(weight_dimension_numbers=NUMBERS)
    state = tx.init(params)
    assert state.nu["vector"] == gradtx.MaskedNode()
    assert all(x.size for x in jax.tree.leaves(state))
    updates, after = tx.update(params, state)
    np.testing.assert_array_equal(updates["vector"], params["vector"])
    assert jax.tree.structure(after) == jax.tree.structure(state)
    text = r"^scale_by_normuon: updates and the tree in the state differ in structure: `experts` is only in updates\."
    with pytest.raises(ValueError, match=text):
        tx.update(params, tx.init(params)._replace(nu={}))
