"""Averages with power profiles, and others that are rebuilt from them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.wrappers.posthoc import EmaSnapshot, exponent

PATH = np.cumsum(np.random.default_rng(0).normal(size=(512, 3)), axis=0)


def averages(sigma_rel: tuple[float, ...], steps: int = 512) -> list[np.ndarray]:
    """The averages after each step, of the optimizer that walks along the path."""
    tx = gradtx.posthoc_ema(gradtx.scale(1.0), sigma_rel)

    def step(carry: Any, move: Any) -> Any:
        params, state = carry
        updates, state = tx.update(move, state, params)
        return (gradtx.apply_updates(params, updates), state), state.averages

    with jax.enable_x64(True):
        moves, start = jnp.asarray(np.diff(PATH, axis=0, prepend=0))[:steps], jnp.zeros(3)
        run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), moves)[1])
        return [np.asarray(x) for x in run(start)]


@pytest.mark.parametrize(("sigma_rel", "gamma"), [(0.05, 16.97), (0.10, 6.94), (0.20, 1.826)])
def test_exponents(sigma_rel: float, gamma: float) -> None:
    """Karras et al. 2023 give 16.97 and 6.94."""
    assert abs(exponent(sigma_rel) - gamma) < 5e-3
    s = np.linspace(0, 1, 200_001)[1:]
    weights = s ** exponent(sigma_rel) / np.sum(s ** exponent(sigma_rel))
    mean = np.sum(weights * s)
    assert abs(np.sqrt(np.sum(weights * (s - mean) ** 2)) - sigma_rel) < 1e-4


@pytest.mark.parametrize("sigma_rel", [0.05, 0.25])
def test_oracle(sigma_rel: float) -> None:
    average, gamma = np.zeros(3), exponent(sigma_rel)
    for t, found in enumerate(averages((sigma_rel,))[0], start=1):
        beta = (1 - 1 / t) ** (gamma + 1)
        average = beta * average + (1 - beta) * PATH[t - 1]
        np.testing.assert_allclose(found, average, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("sigma_rel", "tolerance"), [(0.05, 1e-9), (0.10, 1e-9), (0.075, 2e-3), (0.15, 5e-3)])
def test_rebuilt(sigma_rel: float, tolerance: float) -> None:
    """Sixteen snapshots of two widths; the widths that were kept come back as they are."""
    kept = averages((0.05, 0.10))
    snapshots = [EmaSnapshot(t, sigma, {"w": kept[i][t - 1]}) for t in range(32, 513, 32) for i, sigma in enumerate((0.05, 0.10))]
    expected = averages((sigma_rel,))[0]
    with jax.enable_x64(True):
        rebuilt, earlier = (np.asarray(gradtx.posthoc_average(snapshots, sigma_rel, count)["w"]) for count in (None, 256))
    assert np.linalg.norm(rebuilt - expected[-1]) < tolerance * np.linalg.norm(expected[-1])
    assert np.linalg.norm(earlier - expected[255]) < 10 * tolerance * np.linalg.norm(expected[255])


def test_wrong_snapshots() -> None:
    one = EmaSnapshot(4, 0.05, jnp.ones(2))
    with pytest.raises(ValueError, match=r"^posthoc_average: snapshots is empty, expected what posthoc_ema"):
        gradtx.posthoc_average([], 0.1)
    with pytest.raises(ValueError, match=r"^posthoc_average: snapshots has two of one width and step"):
        gradtx.posthoc_average([one, one], 0.1)
    with pytest.raises(ValueError, match=r"^posthoc_average: count is 5, expected a step up to that of the last snapshot, 4\."):
        gradtx.posthoc_average([one], 0.1, 5)
    with pytest.raises(ValueError, match=r"^posthoc_average: sigma_rel is 0.3 \(float\), expected a number in \(0, 0\.288\]"):
        gradtx.posthoc_average([one], 0.3)
