"""SOAP against the authors' code in NumPy, over stacks, long sides, vectors and batches."""

import os
import subprocess
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import second_order_oracles as so

import gradtx

STEPS = 30
NUMBERS = gradtx.MuonDimensionNumbers


def paths(shapes: dict[str, tuple[int, ...]], steps: int = STEPS) -> dict[str, np.ndarray]:
    """Gradients that share most of their directions, so that bases mean something."""
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal((steps, *shape)) * np.geomspace(1, 0.05, shape[-1] if shape else 1).reshape(-1 if shape else ())
        for name, shape in shapes.items()
    }


def updates_of(tx: Any, path: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """The updates of each step, stacked, and the state after the first step."""
    first = {name: jnp.asarray(steps[0]) for name, steps in path.items()}
    _, state = tx.update(first, tx.init(first), first)
    rest = {name: jnp.asarray(steps[1:]) for name, steps in path.items()}
    _, found = jax.lax.scan(lambda s, u: tx.update(u, s)[::-1], state, rest)
    return found, state


def expected(rule: Any, steps: np.ndarray) -> np.ndarray:
    state: dict[str, Any] = {}
    return np.stack([rule(g, g, t, state) for t, g in enumerate(steps, start=1)])[1:]


SHAPES = {"square": (5, 5), "wide": (4, 7), "tall": (7, 4), "other": (5, 5), "vector": (6,), "number": ()}
SQUARE, SHORT = {"square": (0, 1), "other": (0, 1)}, {"square": (0,), "other": (0,), "wide": (0,), "tall": (1,)}
LONG_SIDES = {"square": (), "other": (), "wide": (0,), "tall": (1,)}
ONE_SIDE, LONG = {"one_sided": True, "precondition_frequency": 4}, {"max_precond_dim": 4, "precondition_frequency": 4}
ROWS: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "soap": (gradtx.scale_by_soap, so.soap, {}, {}, SQUARE),
    "soap, options": (
        gradtx.scale_by_soap,
        so.soap,
        {"b1": 0.8, "b2": 0.9, "shampoo_beta": 0.7, "eps": 1e-3, "precondition_frequency": 3, "normalize": True},
        {"b1": 0.8, "b2": 0.9, "beta": 0.7, "eps": 1e-3, "every": 3, "normalize": True},
        SQUARE,
    ),
    "soap, each step": (gradtx.scale_by_soap, so.soap, {"precondition_frequency": 1}, {"every": 1}, SQUARE),
    "soap, one side": (gradtx.scale_by_soap, so.soap, ONE_SIDE, {"every": 4}, SHORT),
    "soap, long sides": (gradtx.scale_by_soap, so.soap, LONG, {"every": 4}, LONG_SIDES),
    "kl_soap": (gradtx.scale_by_kl_soap, so.kl_soap, {}, {}, SQUARE),
    "kl_soap, options": (
        gradtx.scale_by_kl_soap,
        so.kl_soap,
        {"b1": 0.8, "b2": 0.9, "shampoo_beta": 0.7, "eps": 1e-3, "precondition_frequency": 3},
        {"b1": 0.8, "b2": 0.9, "beta": 0.7, "eps": 1e-3, "every": 3},
        SQUARE,
    ),
    "kl_soap, one side": (gradtx.scale_by_kl_soap, so.kl_soap, ONE_SIDE, {"every": 4}, SHORT),
    "soap_muon": (gradtx.scale_by_soap_muon, so.soap_muon, {}, {}, SQUARE),
    "soap_muon, options": (
        gradtx.scale_by_soap_muon,
        so.soap_muon,
        {"beta": 0.8, "b2": 0.8, "shampoo_beta": 0.7, "eps": 1e-1, "precondition_frequency": 3},
        {"mu": 0.8, "b2": 0.8, "beta": 0.7, "eps": 1e-1, "every": 3},
        SQUARE,
    ),
    "soap_muon, one side": (gradtx.scale_by_soap_muon, so.soap_muon, ONE_SIDE, {"every": 4}, SHORT),
}


@pytest.mark.parametrize("name", ROWS)
def test_oracle(name: str) -> None:
    make, oracle, arguments, of_oracle, axes = ROWS[name]
    path = paths({leaf: shape for leaf, shape in SHAPES.items() if len(shape) < 2 or leaf in axes})
    with jax.enable_x64(True):
        found, _ = updates_of(make(**arguments), path)
    for leaf, steps in path.items():
        rule = partial(oracle, axes=axes.get(leaf, ()), **of_oracle)
        np.testing.assert_allclose(found[leaf], expected(rule, steps), rtol=0, atol=1e-10, err_msg=leaf)


def test_the_first_step_moves_nothing_but_the_bases() -> None:
    grads = {"kernel": jnp.asarray(paths({"kernel": (4, 6)}, 1)["kernel"][0], jnp.float32), "bias": jnp.ones(3)}
    for make in (gradtx.scale_by_soap, gradtx.scale_by_kl_soap):
        tx = make()
        updates, state = tx.update(grads, tx.init(grads))
        assert not any(jnp.any(x) for x in jax.tree.leaves((updates, state.mu, state.nu, state.matrices.mu, state.matrices.nu)))
        (left,), (basis,) = state.matrices.left["4x6"], state.matrices.left_basis["4x6"]
        values = jnp.diag(basis @ left @ basis.T)
        np.testing.assert_allclose(basis @ left @ basis.T, jnp.diag(values), atol=1e-6)
        assert bool(jnp.all(values[:-1] >= values[1:]))


@pytest.mark.parametrize("make", [gradtx.scale_by_soap, gradtx.scale_by_kl_soap, gradtx.scale_by_soap_muon])
def test_matrices_of_a_shape_share_a_stack_and_compute_as_alone(make: Any) -> None:
    """A batch, blocks side by side, and matrices in other leaves: one stack of six."""
    numbers = {"batch": NUMBERS(1, 2), "blocks": NUMBERS(0, 1, 2), "plain": NUMBERS(), "turned": NUMBERS(1, 0)}
    path = paths({"batch": (2, 5, 5), "blocks": (5, 10), "plain": (5, 5), "turned": (5, 5)}, 7)
    alone = {f"batch{i}": path["batch"][:, i] for i in range(2)} | {
        f"blocks{i}": path["blocks"][:, :, 5 * i : 5 * i + 5] for i in range(2)
    }
    alone |= {"plain": path["plain"], "turned": path["turned"].swapaxes(1, 2)}
    with jax.enable_x64(True):
        found, state = updates_of(make(precondition_frequency=3, weight_dimension_numbers=numbers), path)
        for name, steps in alone.items():
            one, _ = updates_of(make(precondition_frequency=3), {name: steps})
            whole = {"batch": lambda x, i: x[:, i], "blocks": lambda x, i: x[:, :, 5 * i : 5 * i + 5]}
            kind = name.rstrip("01")
            mine = whole[kind](found[kind], int(name[-1])) if kind in whole else found[name]
            np.testing.assert_allclose(mine.swapaxes(1, 2) if name == "turned" else mine, one[name], rtol=0, atol=1e-10)
    assert {name: x.shape for name, x in state.matrices.left_basis.items()} == {"5x5_float64": (6, 5, 5)}


def test_a_vector_with_a_basis_is_a_matrix_of_one_column() -> None:
    path = paths({"vector": (5,)}, 9)
    tx = gradtx.scale_by_soap(precondition_1d=True, precondition_frequency=4)
    with jax.enable_x64(True):
        found, state = updates_of(tx, path)
    assert state.matrices.left["5x1_float64"].shape == (1, 5, 5)
    assert not state.matrices.right
    _, plain = updates_of(gradtx.scale_by_soap(precondition_1d=True, max_precond_dim=4), path)
    assert not plain.matrices.left
    start = np.asarray(state.matrices.left_basis["5x1_float64"][0]).T
    rule = partial(so.soap, axes=(0,), every=4, bases=[start])
    np.testing.assert_allclose(found["vector"], expected(rule, path["vector"]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(4, 7), (7, 4)])
def test_both_sides_of_a_long_matrix(shape: tuple[int, int]) -> None:
    """The first factor of the long side has no full rank: any basis of what is left is right, and the oracle takes the one found."""
    path = paths({"w": shape})
    with jax.enable_x64(True):
        found, state = updates_of(gradtx.scale_by_soap(precondition_frequency=3), path)
    kept = state.matrices
    bases = [np.asarray(next(iter(side.values()))[0]).T for side in (kept.left_basis, kept.right_basis)]
    for basis, factor in zip(bases, (kept.left, kept.right), strict=True):
        inside = basis.T @ np.asarray(next(iter(factor.values()))[0]) @ basis
        np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-12)
        np.testing.assert_allclose(basis.T @ basis, np.eye(len(basis)), atol=1e-12)
    rule = partial(so.soap, axes=(0, 1), every=3, bases=bases)
    np.testing.assert_allclose(found["w"], expected(rule, path["w"]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [gradtx.soap, gradtx.kl_soap, gradtx.soap_muon])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_finite(make: Any, dtype: str) -> None:
    """With large, small and no gradients, a rank of one, and a row that never has any."""
    params = {
        "large": jnp.ones((4, 6), dtype),
        "zero": jnp.ones((4, 6), dtype),
        "one": jnp.ones((3, 3), dtype),
        "bias": jnp.ones(3, dtype),
    }
    tx = make(1e-3, precondition_frequency=1)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for i in range(5):
        normal = jax.random.normal(jax.random.key(i), (4, 6)).at[2].set(0)
        grads = {"large": (1e4 * normal).astype(dtype), "zero": jnp.zeros((4, 6), dtype)}
        grads |= {"one": jnp.full((3, 3), 1e-7 * (i + 1), dtype), "bias": jnp.full(3, 1e-7, dtype)}
        updates, state = update(grads, state, params)
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves((updates, state)))
        assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
    assert {x.dtype for x in jax.tree.leaves(state) if x.ndim} == {jnp.dtype("float32")}


def test_moments_are_quantized_and_factors_are_not() -> None:
    params = {"kernel": jnp.ones((8, 12)), "bias": jnp.ones(8)}
    tx = gradtx.quantize_state(gradtx.scale_by_soap(), min_size=1)
    state = tx.init(params)
    kept = state.inner_state.matrices
    assert kept.mu["8x12"].dtype == jnp.int8
    assert kept.nu["8x12"].dtype == jnp.uint8
    assert {x.dtype for x in jax.tree.leaves(kept[2:])} == {jnp.dtype("float32")}
    _, state = tx.update(params, state)
    updates, state = tx.update(params, state)
    assert bool(jnp.any(updates["kernel"]))


def test_a_state_of_other_leaves_is_named() -> None:
    params = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}
    tx = gradtx.scale_by_soap()
    text = r"^scale_by_soap: updates and the tree in the state differ in structure: `bias` is only in updates\."
    with pytest.raises(ValueError, match=text):
        tx.update(params, tx.init({"kernel": jnp.ones((4, 4))}))


def test_soap_muon_is_the_sign_of_a_whitened_momentum() -> None:
    params = {"dense": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}, "head": {"kernel": jnp.ones((6, 9))}}
    tx = gradtx.soap_muon(0.1, adam_learning_rate=1e-3)
    state, updates = tx.init(params), params
    for i in range(3):
        grads = jax.tree.map(lambda x, i=i: jax.random.normal(jax.random.key(i), x.shape), params)
        updates, state = tx.update(grads, state, params)
    singular = jnp.linalg.svd(updates["dense"]["kernel"], compute_uv=False)
    np.testing.assert_allclose(singular, 0.1 * 1.5**0.5, rtol=1e-3)
    assert float(jnp.max(jnp.abs(updates["head"]["kernel"]))) < 2e-3


@pytest.mark.slow
def test_calls_of_lapack_do_not_wait_for_each_other() -> None:
    """Programs with several shapes, large enough to run on threads, come to an end on two of them.

    Without an order of the calls it was step 45 that did not, where this was measured.
    """
    script = """
import jax, gradtx
grads = {f"w{i}": jax.random.normal(jax.random.key(i), (256 + i // 2, 300 + i // 2)) for i in range(8)}
tx = gradtx.scale_by_soap(precondition_frequency=1)
state, update = tx.init(grads), jax.jit(tx.update)
for _ in range(200):
    _, state = jax.block_until_ready(update(grads, state))
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment |= {"NPROC": "2", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=300)
