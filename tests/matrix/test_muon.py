"""Muon against the notes with an exact SVD, torch's formula, Optax's numbers; update scales; two halves."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
import gradtx.optax as twin

SHAPES = {"wide": (6, 14), "square": (8, 8), "tall": (12, 5)}
NUMBERS = optax.contrib.MuonDimensionNumbers()


def gradients(steps: int, dtype: Any = np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((steps, *shape)).astype(dtype) for name, shape in SHAPES.items()}


def followed(tx: Any, steps: int, dtype: Any = np.float64) -> dict[str, np.ndarray]:
    """The updates of `steps` steps on given gradients."""
    with jax.enable_x64(dtype == np.float64):
        grads = jax.tree.map(jnp.asarray, gradients(steps, dtype))

        def step(state: Any, g: Any) -> Any:
            updates, state = tx.update(g, state, g)
            return state, updates

        state = tx.init(jax.tree.map(lambda g: g[0], grads))
        return jax.tree.map(np.asarray, jax.jit(lambda s, g: jax.lax.scan(step, s, g)[1])(state, grads))


def msign(beta: float = 0.95, nesterov: bool = True, *scale: str, numbers: Any = None, **arguments: Any) -> Any:
    """The notes' Muon as a chain of links, without a rate."""
    axes = {"weight_dimension_numbers": numbers}
    scales = [gradtx.scale_by_shape(name, **axes) for name in scale]
    return gradtx.chain(gradtx.trace(beta, nesterov), gradtx.orthogonalize(**arguments, **axes), *scales)


def polar(x: np.ndarray) -> np.ndarray:
    u, _, vh = np.linalg.svd(x, full_matrices=False)
    return u @ vh


def notes_muon(direction: Any, steps: int, beta: float, nesterov: bool) -> dict[str, np.ndarray]:
    """M = beta*M + G; msign(M), or of G + beta*M: the notes' Muon."""
    out = {}
    for name, grads in gradients(steps).items():
        m, path = np.zeros(grads.shape[1:]), []
        for g in grads:
            m = beta * m + g
            path.append(direction(g + beta * m if nesterov else m))
        out[name] = np.array(path)
    return out


def largest_difference(a: Any, b: Any) -> float:
    return max(float(np.max(np.abs(a[name] - b[name]))) for name in b)


def test_exact_method_is_the_notes_muon_and_the_default_stays_in_its_band():
    for nesterov in (True, False):
        expected = notes_muon(polar, 30, 0.95, nesterov)
        assert largest_difference(followed(msign(0.95, nesterov, method="svd"), 30), expected) < 1e-10
        default = followed(msign(0.95, nesterov), 30)
        for name, shape in SHAPES.items():
            rms = np.linalg.norm(default[name] - expected[name], axis=(1, 2)) / math.sqrt(min(shape))
            assert np.median(rms) < 0.11


def test_torch_muon():
    """The formula of `torch.optim.Muon` in float64: lerped momentum, bfloat16 left out, three scales."""

    def newton_schulz(x: np.ndarray) -> np.ndarray:
        wide = x if x.shape[0] <= x.shape[1] else x.T
        wide = wide / max(np.linalg.norm(wide), 1e-7)
        for _ in range(5):
            gram = wide @ wide.T
            wide = 3.4445 * wide + (-4.7750 * gram + 2.0315 * gram @ gram) @ wide
        return wide if x.shape[0] <= x.shape[1] else wide.T

    for scale, factor in (
        ("jordan", lambda out, inp: math.sqrt(max(1, out / inp))),
        ("rms", lambda out, inp: 0.2 * math.sqrt(max(out, inp))),
    ):
        expected = {}
        for name, grads in gradients(30).items():
            buffer, weight, path = np.zeros(grads.shape[1:]), np.ones(grads.shape[1:]), []
            for g in grads:
                buffer = buffer + (1 - 0.95) * (g - buffer)
                update = newton_schulz(g + 0.95 * (buffer - g)) * factor(*weight.shape[::-1])  # torch's weights are (out, in)
                before = weight
                weight = weight * (1 - 0.02 * 0.1) - 0.02 * update
                path.append(weight - before)
            expected[name] = np.array(path)
        for method in ("newton_schulz", "gram"):
            tx = gradtx.chain(
                msign(0.95, True, scale, coefficients="jordan", normalization="frobenius", method=method),
                gradtx.scale_by_learning_rate(0.02),
            )
            updates = followed(tx, 30)
            for name in SHAPES:
                before = 1.0 + np.cumsum(expected[name], axis=0) - expected[name]  # the weights that decay
                np.testing.assert_allclose(updates[name] - 0.02 * 0.1 * before, expected[name], atol=1e-10)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("default", {}),
        pytest.param("plain", {"nesterov": False, "beta": 0.8}, marks=pytest.mark.slow),
        ("adaptive", {"adaptive": True}),
        pytest.param("schatten", {"preconditioning": "schatten"}, marks=pytest.mark.slow),
        ("spectral", {"preconditioning": "spectral"}),
        ("aol", {"preconditioning": "aol"}),
        pytest.param("rows", {"ns_coeffs": ((4.0, -6.9, 2.9), (2.9, -3.1, 1.2)), "ns_steps": 2}, marks=pytest.mark.slow),
        pytest.param("steps", {"ns_steps": 3}, marks=pytest.mark.slow),
    ],
)
def test_numbers_of_optax(name, arguments):
    theirs = optax.contrib.scale_by_muon(**arguments, weight_dimension_numbers=dict.fromkeys(SHAPES, NUMBERS))
    expected = followed(theirs, 10, np.float32)
    scale = max(1.0, *(float(np.max(np.abs(x))) for x in expected.values()))
    tx = twin.contrib.scale_by_muon(**arguments)
    for method in ("auto", "newton_schulz"):
        ours = followed(gradtx.chain(tx.members[0], by(method, tx.members[1])), 10, np.float32)
        assert largest_difference(ours, expected) < 1e-4 * scale


def by(method: str, link: Any) -> Any:
    """The link with another method of `orthogonalize`, which may be inside it."""
    if isinstance(link, gradtx.scale_by_dual_norm):
        return gradtx.scale_by_dual_norm(by(method, link.inner))
    return dataclasses.replace(link, method=method)


def test_muon_with_the_arguments_of_optax_routes_as_it_does():
    """By the number of axes alone, whatever the names."""
    shapes = {"kernel": (5, 8), "lm_head": (8, 6), "embed": (6, 4), "bias": (8,), "heads": (2, 3, 4), "scale": ()}
    params = {name: jnp.linspace(-1, 1, math.prod(shape)).reshape(shape) for name, shape in shapes.items()}
    arguments = {"weight_decay": 0.1, "adam_weight_decay": 0.01, "adam_b1": 0.8, "adam_learning_rate": 0.003}
    for extra in ({}, {"ns_coeffs": "dion"}, {"consistent_rms": 0.2}):
        ours, theirs = twin.contrib.muon(0.02, **arguments, **extra), optax.contrib.muon(0.02, **arguments, **extra)
        states = [tx.init(params) for tx in (ours, theirs)]
        for t in range(5):
            keys = jax.random.split(jax.random.key(t), len(params))
            grads = {name: jax.random.normal(k, p.shape) for k, (name, p) in zip(keys, params.items(), strict=True)}
            (u, states[0]), (v, states[1]) = (tx.update(grads, s, params) for tx, s in zip((ours, theirs), states, strict=True))
            for name in params:
                np.testing.assert_allclose(u[name], v[name], atol=5e-6)


@pytest.mark.parametrize("extra", [{}, {"ns_coeffs": "dion"}, {"consistent_rms": 0.3, "preconditioning": "schatten"}])
def test_the_preset_is_the_chain_of_optax_arguments(extra):
    params = {"kernel": jnp.linspace(-1, 1, 40).reshape(5, 8), "bias": jnp.linspace(0, 1, 8)}
    rule = {"muon_weight_dimension_numbers": gradtx.matrix_axes()}
    arguments = {"weight_decay": 0.1, "weight_decay_mask": True, "adam_learning_rate": 0.003, **rule, **extra}
    ours, theirs = gradtx.muon(0.02, **arguments), twin.contrib.muon(0.02, **arguments)
    assert ours.stands_for == theirs
    updates = [tx.update(params, tx.init(params), params)[0] for tx in (ours, theirs)]
    jax.tree.map(np.testing.assert_array_equal, *updates)
    assert gradtx.explain(ours, params) == gradtx.explain(theirs, params)


def test_muon_with_the_arguments_of_optax_has_a_config():
    tx = twin.contrib.muon(0.02)
    assert gradtx.from_config(gradtx.to_config(tx)) == tx


def test_muon_with_the_arguments_of_optax_leaves_masked_nodes_alone():
    tx = twin.masked(twin.contrib.muon(0.02), {"kernel": True, "head": False})
    params = {"kernel": jnp.ones((2, 3)), "head": jnp.ones((3, 2))}
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(updates["head"], params["head"])
    assert float(updates["kernel"][0, 0]) < 0


def test_update_scales():
    grads = {"w": jax.random.normal(jax.random.key(0), (4, 16))}
    plain = msign(method="svd")
    for scale, factor in (("jordan", 2.0), ("rms", 0.8), ("spectral", 2.0)):
        for g, f in ((grads["w"], factor), (grads["w"].T, {"jordan": 1.0, "rms": 0.8, "spectral": 0.5}[scale])):
            scaled = msign(0.95, True, scale, method="svd")
            expected = f * plain.update(g, plain.init(g))[0]
            np.testing.assert_allclose(scaled.update(g, scaled.init(g))[0], expected, rtol=1e-6)


def test_batches_heads_convolutions_and_blocks_are_matrices_of_their_own():
    """Every layout equals the matrices taken out by hand."""
    keys = iter(jax.random.split(jax.random.key(0), 4))
    grads = {
        "experts": jax.random.normal(next(keys), (3, 4, 6)),
        "heads": jax.random.normal(next(keys), (8, 2, 4)),
        "conv": jax.random.normal(next(keys), (2, 2, 3, 5)),
        "qkv": jax.random.normal(next(keys), (4, 12)),
    }
    numbers = {
        "experts": gradtx.MuonDimensionNumbers(1, 2),
        "heads": gradtx.MuonDimensionNumbers(0, 2),
        "conv": gradtx.MuonDimensionNumbers((0, 1, 2), 3),
        "qkv": gradtx.MuonDimensionNumbers(output_blocks=3),
    }
    tx = msign(0.95, True, "spectral", steps=8, numbers=numbers)
    updates, _ = tx.update(grads, tx.init(grads))
    for i in range(3):
        np.testing.assert_allclose(updates["experts"][i], polar(grads["experts"][i]) * math.sqrt(6 / 4), atol=1e-5)
        block = np.s_[:, 4 * i : 4 * i + 4]
        np.testing.assert_allclose(updates["qkv"][block], polar(grads["qkv"][block]), atol=1e-4)
    for h in range(2):
        np.testing.assert_allclose(updates["heads"][:, h], polar(grads["heads"][:, h]) * math.sqrt(4 / 8), atol=1e-5)
    conv = polar(np.reshape(grads["conv"], (12, 5))) * math.sqrt(5 / 12)
    np.testing.assert_allclose(np.reshape(updates["conv"], (12, 5)), conv, atol=1e-5)


def test_one_state_for_each_matrix_two_for_the_rest():
    params = {"dense": {"kernel": jnp.zeros((10, 10)), "bias": jnp.zeros(10)}, "wte": {"embedding": jnp.zeros((20, 10))}}
    state = gradtx.muon(0.02).init(params)
    size = {label: sum(x.size for x in jax.tree.leaves(inner) if x.ndim) for label, inner in state.inner_states.items()}
    assert size == {"muon": 100, "adam": 2 * (10 + 200)}


def test_vectors_and_numbers():
    grads = {"v": jnp.array([3.0, -4.0]), "x": jnp.array(-0.1), "row": jnp.array([[0.0, 2.0]])}
    tx = msign(0.95, True, "rms")
    updates, _ = tx.update(grads, tx.init(grads))
    np.testing.assert_allclose(updates["v"], [0.6, -0.8], rtol=1e-6)
    assert float(updates["x"]) == -1.0
    np.testing.assert_allclose(updates["row"], [[0.0, 0.2 * math.sqrt(2)]], rtol=1e-6)


def test_leaf_of_three_axes_is_named():
    text = (
        r"^orthogonalize: the leaf `experts/up` has shape \(2, 3, 4\), expected at most two axes\. "
        r"Pass weight_dimension_numbers=gradtx\.matrix_axes\(\{\.\.\.\}\), or dimension numbers for each leaf\.$"
    )
    with pytest.raises(ValueError, match=text):
        gradtx.orthogonalize().init({"experts": {"up": jnp.zeros((2, 3, 4))}})


def test_rate_changes_without_a_recompile():
    tx = gradtx.inject_hyperparams(gradtx.muon)(learning_rate=0.02)
    params = {"kernel": jnp.eye(3), "bias": jnp.ones(3)}
    traces = []

    @jax.jit
    def step(state: Any) -> Any:
        traces.append(1)
        return tx.update(params, state, params)

    state = tx.init(params)
    first, state = step(state)
    second, _ = step(gradtx.tree.set(state, learning_rate=jnp.asarray(0.04)))
    assert len(traces) == 1
    np.testing.assert_allclose(second["kernel"], 2 * first["kernel"], rtol=1e-5)
