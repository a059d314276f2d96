"""Clipping of single examples, infinite bounds, and arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

RNG = np.random.default_rng(0)
BATCH = {"w": jnp.asarray(RNG.normal(size=(6, 3, 2)), jnp.float32), "b": [jnp.asarray(3 * RNG.normal(size=(6, 4)), jnp.float32)]}


def test_per_example_global_norm_clip_against_numpy() -> None:
    rows = np.concatenate([np.asarray(x, np.float64).reshape(6, -1) for x in jax.tree.leaves(BATCH)], axis=1)
    norms = np.linalg.norm(rows, axis=1)
    bound = float(np.median(norms))
    expected = (rows * np.minimum(1, bound / norms)[:, None]).sum(axis=0)
    total, clipped = jax.jit(gradtx.per_example_global_norm_clip)(BATCH, bound)
    np.testing.assert_allclose(np.concatenate([np.ravel(x) for x in jax.tree.leaves(total)]), expected, rtol=2e-6, atol=1e-6)
    assert int(clipped) == int((norms > bound).sum()) == 3


@pytest.mark.parametrize("uniform", [True, False])
def test_per_example_layer_norm_clip_against_optax(uniform: bool) -> None:
    ours = gradtx.per_example_layer_norm_clip(BATCH, 2.0, uniform)
    theirs = optax.per_example_layer_norm_clip(BATCH, 2.0, uniform)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-6, atol=1e-6)


def test_zero_and_half_precision_examples() -> None:
    grads = {"w": jnp.stack([jnp.zeros(2), jnp.full(2, 6e4)]).astype(jnp.float16)}  # the norm of the second is beyond float16
    total, clipped = gradtx.per_example_global_norm_clip(grads, 1.0)
    assert total["w"].dtype == jnp.float16
    np.testing.assert_allclose(np.asarray(total["w"], np.float32), [0.5**0.5] * 2, rtol=1e-3)
    assert int(clipped) == 1


@pytest.mark.parametrize(
    ("grads", "text"),
    [
        ({"w": jnp.ones((6, 2)), "b": jnp.ones(())}, r"grads leaf `b` has axis 0 of size none, expected one gradient an example"),
        ({"w": jnp.ones((6, 2)), "b": jnp.ones(5)}, r"grads leaf `w` has axis 0 of size 6, .* \(5 of them\)"),
    ],
)
@pytest.mark.parametrize("clip", [gradtx.per_example_global_norm_clip, gradtx.per_example_layer_norm_clip])
def test_gradients_without_a_batch(clip, grads, text) -> None:
    with pytest.raises(ValueError, match=f"^{clip.__name__}: {text}"):
        clip(grads, 1.0)


def test_infinite_bounds_do_not_clip() -> None:
    grads = {"w": jnp.asarray([1e30, -2.0])}
    for tx in (gradtx.clip(jnp.inf), gradtx.clip_by_global_norm(float("inf"))):
        np.testing.assert_array_equal(tx.update(grads, tx.init(grads))[0]["w"], grads["w"])


def test_axes_and_their_errors() -> None:
    with pytest.raises(
        TypeError, match=r"^adaptive_grad_clip: axis is a list of 1, expected a whole number, or a tuple of them, or None\."
    ):
        gradtx.adaptive_grad_clip(0.1, axis=[0])  # type: ignore[arg-type]
    params = {"deep": jnp.ones((2, 1, 1, 1, 1, 2))}
    tx = gradtx.adaptive_grad_clip(0.1)
    with pytest.raises(
        ValueError, match=r"^adaptive_grad_clip: a leaf has shape \(2, 1, 1, 1, 1, 2\), expected at most 5 axes; say with `axis`"
    ):
        tx.update(params, tx.init(params), params)
    by_axis = gradtx.adaptive_grad_clip(0.1, axis=(0, 1))
    w = jnp.asarray(RNG.normal(size=(3, 4, 2)), jnp.float32)
    expected = optax.adaptive_grad_clip(0.1, axis=(0, 1)).update(w, optax.EmptyState(), 2 * w)[0]
    np.testing.assert_allclose(by_axis.update(w, by_axis.init(w), 2 * w)[0], expected, rtol=1e-6)
