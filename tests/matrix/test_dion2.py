"""Dion2 against the authors' code, in NumPy; stacks of matrices, and leaves that are none."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles as o
import pytest
from matrix_oracles import dion2
from problems import distance, quadratic, trajectory

import gradtx

MATRICES = quadratic({"wide": (4, 9), "tall": (10, 6), "square": (5, 5), "bias": (3,)})
SVD = gradtx.orthogonalize(method="svd")


def rule(**arguments):
    def of_leaf(g, x, t, s):
        return dion2(g, x, t, s, **arguments) if g.ndim == 2 else o.adam(g, x, t, s)

    return of_leaf


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
def test_oracle(fraction):
    tx = gradtx.dion2(o.falling, fraction, 0.9, weight_decay=0.1, signs=SVD)
    decay = partial(o.decay, weight_decay=0.1)
    rules = [rule(fraction=fraction, decay=0.9), lambda g, x, t, s: decay(g, x, t, s) if g.ndim == 2 else g, o.rate(o.falling)]
    expected = o.follow(MATRICES.gradient, MATRICES.params, 30, *rules)
    assert distance(trajectory(tx, MATRICES, 30), expected) < 1e-10


def test_all_slices_are_muon_with_a_heavy_ball():
    g = {"w": jax.random.normal(jax.random.key(0), (4, 6))}
    signs = gradtx.orthogonalize("dion", normalization="frobenius", eps=1e-8)
    one, other = gradtx.scale_by_dion2(1.0, 0.9), gradtx.chain(gradtx.trace(0.9), signs)
    states = [one.init(g), other.init(g)]
    for k in range(3):
        grads = jax.tree.map(lambda x: jnp.sin(k + x), g)  # noqa: B023
        found, states[0] = one.update(grads, states[0])
        expected, states[1] = other.update(grads, states[1])
        np.testing.assert_allclose(found["w"], expected["w"], atol=1e-4)


def test_layers_in_one_leaf_move_as_layers_apart_and_vectors_pass():
    params = {"layers": jax.random.normal(jax.random.key(0), (3, 8, 4)), "bias": jnp.arange(3.0)}
    numbers = {"layers": gradtx.MuonDimensionNumbers(1, 2), "bias": None}
    together, apart = gradtx.scale_by_dion2(weight_dimension_numbers=numbers), gradtx.scale_by_dion2()
    state = together.init(params)
    assert state.momentum["bias"] == gradtx.MaskedNode()
    found, state = together.update(params, state)
    for k in range(3):
        expected, after = apart.update(params["layers"][k], apart.init(params["layers"][k]))
        np.testing.assert_allclose(found["layers"][k], expected, atol=1e-5)
        np.testing.assert_allclose(state.momentum["layers"][k], after.momentum, atol=1e-6)
        assert np.count_nonzero(np.any(np.asarray(expected) != 0, axis=0)) == 1  # of 4 outputs, a quarter
    np.testing.assert_array_equal(found["bias"], params["bias"])


def test_zero_updates_stay_zero():
    zeros = {"kernel": jnp.zeros((2, 3), jnp.float16)}
    tx = gradtx.scale_by_dion2()
    updates, _ = tx.update(zeros, tx.init(zeros))
    assert not jnp.any(updates["kernel"])


def test_signs_have_no_dimension_numbers():
    with pytest.raises(ValueError, match=r"^scale_by_dion2: signs has weight_dimension_numbers, expected an orthogonalize"):
        gradtx.scale_by_dion2(signs=gradtx.orthogonalize(weight_dimension_numbers=gradtx.MuonDimensionNumbers()))
