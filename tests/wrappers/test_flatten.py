"""All leaves as one vector, and complex leaves as pairs, beside Optax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import MANY_SHAPES, distance, quadratic, trajectories

import gradtx
import gradtx.optax as ours

PROBLEM = quadratic(MANY_SHAPES)
FLAT: dict[str, Any] = {
    "adam": lambda lib: lib.flatten(lib.adam(3e-4)),
    "one norm for all": lambda lib: lib.flatten(lib.chain(lib.clip_by_block_rms(0.05), lib.add_decayed_weights(0.1), lib.sgd(0.1))),
}


@pytest.mark.parametrize("name", FLAT)
def test_flatten_as_in_optax(name: str) -> None:
    assert distance(*trajectories([FLAT[name](ours), FLAT[name](optax)], PROBLEM, 100, np.float32)) < 1e-6


def test_a_block_is_the_whole_vector() -> None:
    grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    tx = ours.flatten(gradtx.scale_by_trust_ratio())
    updates, _ = tx.update(grads, tx.init(grads), grads)
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, g, rtol=1e-6), updates, grads)  # the norms of all are equal


def test_mixed_dtypes_come_back_as_they_were() -> None:
    params = {"half": jnp.ones(2, jnp.bfloat16), "single": jnp.ones(2), "complex": jnp.ones(2, jnp.complex64)}
    tx = ours.flatten(gradtx.sgd(0.5))
    updates, _ = tx.update(params, tx.init(params), params)
    assert {name: u.dtype for name, u in updates.items()} == {name: p.dtype for name, p in params.items()}
    np.testing.assert_allclose(np.asarray(updates["half"], float), -0.5)


def test_extra_arguments_reach_the_optimizer() -> None:
    tx, params = ours.flatten(gradtx.polyak_sgd()), {"w": jnp.array([3.0, 4.0])}
    updates, _ = tx.update(params, tx.init(params), params, value=12.5)
    np.testing.assert_allclose(updates["w"], -0.5 * params["w"])


def test_an_empty_tree() -> None:
    tx = ours.flatten(gradtx.adam(0.1))
    assert tx.update({}, tx.init({}), {})[0] == {}


@pytest.mark.parametrize("make", [lambda lib: lib.adam(0.05), lambda lib: lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(0.05))])
def test_complex_leaves_as_pairs_as_in_optax(make: Any) -> None:
    start = {"z": jnp.array([1 + 2j, -0.5j]), "x": jnp.array([1.0, -2.0])}
    moved = []
    for lib in (ours, optax):
        tx, params = lib.contrib.split_real_and_imaginary(make(lib)), start
        state = tx.init(params)
        for _ in range(20):
            grads = jax.tree.map(jnp.conj, jax.grad(lambda p: sum(jnp.sum(jnp.abs(x - 0.3) ** 2) for x in p.values()))(params))
            updates, state = tx.update(grads, state, params)
            params = lib.apply_updates(params, updates)
        moved.append(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *moved)
    assert moved[0]["z"].dtype == jnp.complex64


def test_parts_have_roots_of_their_own() -> None:
    grads = {"z": jnp.array([3.0 + 0.01j])}
    tx = ours.contrib.split_real_and_imaginary(gradtx.scale_by_adam())
    np.testing.assert_allclose(tx.update(grads, tx.init(grads))[0]["z"], [1 + 1j], rtol=1e-4)


def test_the_summary_sees_through() -> None:
    params = {"w": jax.ShapeDtypeStruct((4, 2), jnp.float32), "z": jax.ShapeDtypeStruct((3,), jnp.complex64)}
    for tx in (ours.flatten(gradtx.adam(0.1)), ours.contrib.split_real_and_imaginary(gradtx.adam(0.1))):
        found = gradtx.summary(tx, params)
        assert not found.notes
        assert all(tx.called in row.transformations[0] for row in found.rows)
