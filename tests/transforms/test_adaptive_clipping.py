"""AdaGC and ZClip against their definitions, on gradients with spikes, zeros and NaN."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

RNG = np.random.default_rng(0)
SIZES = np.exp(0.3 * RNG.normal(size=60))
SIZES[[5, 20, 40]] *= 50
GRADS = {name: SIZES[:, None] * RNG.normal(size=(60, n)) for name, n in (("a", 3), ("b", 5))}


def run(tx: Any, grads: Any) -> tuple[Any, Any]:
    """The clipped gradients of all steps, and the last state, in float64."""
    with jax.enable_x64(True):
        zeros = jax.tree.map(lambda g: jnp.zeros(g.shape[1:]), grads)

        def step(state: Any, g: Any) -> Any:
            updates, state = tx.update(g, state)
            return state, updates

        state, updates = jax.jit(lambda g: jax.lax.scan(step, tx.init(zeros), g))(jax.tree.map(jnp.asarray, grads))
        return jax.tree.map(np.asarray, updates), jax.tree.map(np.asarray, state)


def adagc(grads: Any, absolute: float, relative: float, beta: float, warmup: int) -> Any:
    """Wang et al. 2025, algorithm 1."""
    usual: dict[str, float] = {}
    clipped = []
    for t in range(1, len(grads["a"]) + 1):
        g = {name: x[t - 1] for name, x in grads.items()}
        whole = np.sqrt(sum(np.sum(x**2) for x in g.values()))
        out = {}
        for name, x in g.items():
            norm = np.linalg.norm(x)
            if t < warmup:
                out[name] = min(1, absolute / whole) * x
                usual[name] = min(usual.get(name, np.inf), float(np.linalg.norm(out[name])))
            else:
                out[name] = min(1, relative * usual[name] / norm) * x
                usual[name] = beta * usual[name] + (1 - beta) * float(np.linalg.norm(out[name]))
        clipped.append(out)
    return {name: np.stack([out[name] for out in clipped]) for name in grads}


@pytest.mark.parametrize("options", [(1.0, 1.05, 0.98, 10), (0.7, 1.5, 0.8, 30)])
def test_adagc(options: tuple[float, float, float, int]) -> None:
    updates, state = run(gradtx.adagc(*options), GRADS)
    expected = adagc(GRADS, *options)
    for name in GRADS:
        np.testing.assert_allclose(updates[name], expected[name], rtol=1e-10)
    changed = np.any(np.abs(expected["a"] / GRADS["a"] - 1) > 1e-12, axis=1)
    changed |= np.any(np.abs(expected["b"] / GRADS["b"] - 1) > 1e-12, axis=1)
    assert state.clipped == changed.sum() > 20


def zclip(norms: Any, alpha: float, threshold: float, largest: float, warmup: int, eps: float = 1e-6) -> Any:
    """The norms after clipping, as the authors' code has them."""
    first, after = [], []
    mean = variance = np.nan
    for n in norms:
        if len(first) < warmup:
            first.append(n)
            mean, variance = np.mean(first), np.var(first)
            after.append(min(n, largest))
            continue
        spread = np.sqrt(variance)
        z = (n - mean) / (spread + eps)
        c = mean + threshold * spread / (z / threshold) if z > threshold else n
        mean = alpha * mean + (1 - alpha) * c
        variance = alpha * variance + (1 - alpha) * (c - mean) ** 2
        after.append(min(c, largest))
    return np.array(after), float(mean), float(variance)


def size(tree: Any) -> Any:
    return np.sqrt(sum(np.sum(x**2, axis=1) for x in tree.values()))


@pytest.mark.parametrize("options", [(0.97, 2.5, 1.0, 25), (0.9, 1.0, np.inf, 10), (0.97, 2.5, 5.0, 1)])
def test_zclip(options: tuple[float, float, float, int]) -> None:
    updates, state = run(gradtx.zclip(*options), GRADS)
    norms, mean, variance = zclip(size(GRADS), *options)
    np.testing.assert_allclose(size(updates), norms, rtol=1e-10)
    np.testing.assert_allclose([state.mean, state.variance], [mean, variance], rtol=1e-10)
    for name in GRADS:  # the direction stays
        np.testing.assert_allclose(updates[name] / norms[:, None], GRADS[name] / size(GRADS)[:, None], rtol=1e-10)
    assert state.clipped == np.sum(norms < size(GRADS) * (1 - 1e-12)) >= 2


def test_a_zero_gradient_in_the_warm_up_freezes_nothing() -> None:
    tx, state = gradtx.adagc(warmup_steps=3), gradtx.adagc().init(jnp.zeros(2))
    for gradient in (jnp.zeros(2), jnp.full(2, 0.1), jnp.zeros(2), jnp.full(2, 0.1)):
        updates, state = tx.update(gradient, state)
    assert updates.tolist() == pytest.approx([0.1, 0.1])
    assert float(state.usual) == pytest.approx(0.1 * 2**0.5)


def test_a_leaf_that_comes_late_begins_with_its_first_norm() -> None:
    tx, state = gradtx.adagc(lambda_abs=10.0, warmup_steps=2), gradtx.adagc().init(jnp.zeros(2))
    for gradient in (0.0, 0.0, 0.0, 3.0, 300.0):
        updates, state = tx.update(jnp.array([gradient, 0.0]), state)
    assert updates.tolist() == pytest.approx([3.15, 0.0])


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize(
    "tx", [gradtx.adagc(warmup_steps=1), gradtx.adagc(), gradtx.zclip(warmup_steps=1), gradtx.zclip()], ids=repr
)
def test_what_is_not_finite_passes_and_leaves_no_trace(tx: Any, bad: Any) -> None:
    good = {"a": jnp.array([0.3, 0.4]), "b": jnp.array([0.1])}
    _, state = tx.update(good, tx.init(good))
    updates, after = tx.update({"a": jnp.array([bad, 0.4]), "b": jnp.array([0.1])}, state)
    assert not bool(jnp.all(jnp.isfinite(updates["a"])))
    expected = tx.update(good, state)[0]
    for name, u in tx.update(good, after)[0].items():
        np.testing.assert_allclose(u, expected[name], rtol=1e-6)


@pytest.mark.parametrize("tx", [gradtx.adagc(lambda_abs=0.5), gradtx.zclip(max_norm=0.5)], ids=repr)
def test_metrics(tx: Any) -> None:
    state = tx.init(jnp.zeros(2))
    for size in (0.1, 1.0):
        _, state = tx.update(jnp.array([0.0, size]), state)
    found = gradtx.metrics(state)
    assert float(found["grad_norm"]) == 1.0
    assert float(found["clip_fraction"]) == 0.5
