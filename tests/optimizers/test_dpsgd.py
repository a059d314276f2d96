"""DP-SGD: what it does to gradients of single examples, how it sits in a chain, and Optax's noise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
import gradtx.optax as ours

PARAMS = {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)}
GRADS = {"w": jnp.arange(12.0).reshape(3, 2, 2) / 4, "b": jnp.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.5]])}


def test_clipped_and_averaged_as_in_the_paper() -> None:
    """Abadi et al. 2016, algorithm 1, without its noise."""
    wide = [np.concatenate([np.asarray(GRADS["w"][i], float).ravel(), np.asarray(GRADS["b"][i], float)]) for i in range(3)]
    expected = sum(g / max(1, np.linalg.norm(g) / 1.5) for g in wide) / 3
    tx = gradtx.differentially_private_aggregate(1.5, 0.0, key=0)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(np.concatenate([updates["w"].ravel(), updates["b"]]), expected, rtol=1e-6)
    assert all(np.linalg.norm(g) > 1.5 for g in wide[1:])  # the bound binds


def test_the_noise_has_its_deviation() -> None:
    params, grads = jnp.zeros(100_000), jnp.zeros((4, 100_000))
    tx = gradtx.differentially_private_aggregate(2.0, 3.0, key=1)
    first, state = tx.update(grads, tx.init(params), params)
    second, _ = tx.update(grads, state, params)
    for noise in (first, second):
        np.testing.assert_allclose([jnp.mean(noise), jnp.std(noise)], [0.0, 2.0 * 3.0 / 4], atol=0.02)
    assert abs(float(jnp.corrcoef(first, second)[0, 1])) < 0.02


@pytest.mark.parametrize(
    "make",
    [
        lambda lib: lib.contrib.dpsgd(0.1, 1.5, 0.7, 3, 0.9, True),
        lambda lib: lib.chain(lib.contrib.differentially_private_aggregate(1.0, 1.1, jax.random.key(2)), lib.adam(1e-2)),
    ],
    ids=["dpsgd", "in a chain"],
)
@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_optax(make: Any) -> None:
    """The same keys give the same noise, 20 steps long."""
    moved = []
    for lib in (ours, optax):
        tx, params = make(lib), PARAMS
        state = tx.init(params)
        step = jax.jit(tx.update)
        for t in range(20):
            updates, state = step(jax.tree.map(lambda g, t=t: g * jnp.cos(0.7 * t), GRADS), state, params)
            params = lib.apply_updates(params, updates)
        moved.append(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *moved)
    assert float(gradtx.global_norm(moved[0])) > 0.1


def test_examples_in_half_precision() -> None:
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (PARAMS, GRADS))
    tx = gradtx.dpsgd(0.1, 1.0, 1.0, seed=0, momentum=0.9)
    state = tx.init(half[0])
    updates, after = tx.update(half[1], state, half[0])
    assert jax.tree.map(lambda x: (x.shape, x.dtype), updates) == jax.tree.map(lambda x: (x.shape, x.dtype), half[0])
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, state)


def test_examples_pass_a_named_chain_too() -> None:
    tx = gradtx.named_chain(("private", gradtx.differentially_private_aggregate(1.0, 0.0, key=0)), ("sgd", gradtx.sgd(0.1)))
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert updates["w"].shape == (2, 2)


def test_after_another_link_shapes_are_checked_as_ever() -> None:
    tx = gradtx.chain(gradtx.scale(1.0), gradtx.differentially_private_aggregate(1.0, 0.0, key=0))
    with pytest.raises(ValueError, match=r"chain: updates leaf `b` has shape \(3, 2\), but params has \(2,\) there"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)


def test_examples_pass_an_injected_rate_too() -> None:
    tx = gradtx.inject_hyperparams(gradtx.dpsgd)(0.5, 1.0, 0.0, seed=0)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    expected, _ = (plain := gradtx.dpsgd(0.5, 1.0, 0.0, seed=0)).update(GRADS, plain.init(PARAMS), PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, expected)


def test_an_accumulation_refuses_examples() -> None:
    tx = gradtx.accumulate(gradtx.dpsgd(0.1, 1.0, 1.0, seed=0), 2)
    with pytest.raises(ValueError, match=r"accumulate: updates leaf `b` has shape \(3, 2\), but params has \(2,\) there"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)


def test_examples_without_their_axis() -> None:
    tx = gradtx.dpsgd(0.1, 1.0, 1.0, seed=0)
    with pytest.raises(ValueError, match="expected one gradient an example on axis 0 of every leaf"):
        tx.update(GRADS | {"b": jnp.zeros(2)}, tx.init(PARAMS), PARAMS)


def test_an_empty_tree() -> None:
    tx = gradtx.dpsgd(0.1, 1.0, 1.0, seed=0)
    assert tx.update({}, tx.init({}), {})[0] == {}


def test_values() -> None:
    tx = gradtx.dpsgd(0.1, 1.0, 0.5, seed=3, momentum=0.9)
    assert gradtx.from_config(gradtx.to_config(tx)) == tx
    assert repr(tx) == "dpsgd(learning_rate=0.1, l2_norm_clip=1.0, noise_multiplier=0.5, seed=3, momentum=0.9)"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"l2_norm_clip": 0.0}, r"l2_norm_clip is 0.0 \(float\), expected a finite number > 0"),
        ({"noise_multiplier": -1.0}, r"noise_multiplier is -1.0 \(float\), expected a finite number >= 0"),
        ({"key": 0.5}, r"key is 0.5 \(float\), expected a random key of jax.random"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^differentially_private_aggregate: {text}"):
        gradtx.differentially_private_aggregate(**{"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "key": 0, **arguments})
