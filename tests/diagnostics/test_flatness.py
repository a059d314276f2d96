"""Flatness of quadratics, known in closed form, and SAM's sharpness."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.diagnostics import average_flatness, sam_sharpness

SCALE = jnp.asarray(np.linspace(0.5, 10, 20), jnp.float32)
TRACE = float(SCALE.sum())
EXCESS = {"gaussian": 0.1**2 * TRACE / 2, "ball": 0.1**2 * TRACE / (2 * 22), "sphere": 0.1**2 * TRACE / (2 * 20)}


def quadratic(w: Any) -> jax.Array:
    return 3.0 + jnp.sum(SCALE * w["w"] ** 2) / 2


@pytest.mark.parametrize("distribution", EXCESS)
def test_excess_at_a_minimum(distribution: Any) -> None:
    measure = partial(average_flatness, quadratic, {"w": jnp.zeros(20)}, radius=0.1, distribution=distribution, samples=400)
    flatness = measure()
    assert abs(flatness.excess - EXCESS[distribution]) < 3 * flatness.standard_error
    assert flatness.standard_error < 0.05 * EXCESS[distribution]
    assert flatness.loss == pytest.approx(3 + float(flatness.excess), rel=1e-6)
    assert measure(key=jax.random.key(1)).excess != flatness.excess


def test_both_ways_cancel_the_slope() -> None:
    flatness = average_flatness(lambda w: 5 * jnp.sum(w), jnp.ones(4), radius=0.5, samples=10)
    np.testing.assert_allclose(flatness, [20, 0, 0], atol=1e-5)


def test_batches_are_weighted() -> None:
    x = jnp.arange(1.0, 11.0)
    one, many = (
        average_flatness(lambda w, x: jnp.mean(x * w**2), jnp.ones(()), batches, samples=20)
        for batches in ((x,), [(x[:3],), (x[3:],)])
    )
    np.testing.assert_allclose(one, many, rtol=1e-5)


def test_sharpness_at_a_minimum_is_half_the_largest_eigenvalue() -> None:
    sharp = sam_sharpness(quadratic, {"w": jnp.zeros(20)}, rho=0.2, steps=100)
    assert float(sharp) == pytest.approx(0.2**2 * 10 / 2, rel=1e-4)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, np.inf])
def test_one_step_is_sams(p: float) -> None:
    g = np.array([3.0, -1.0, 0.5])
    q = 1 / (1 - 1 / p) if p > 1 else np.inf
    sharp = sam_sharpness(lambda w: jnp.sum(w * jnp.asarray(g, jnp.float32)), jnp.zeros(3), rho=0.1, p=p)
    assert float(sharp) == pytest.approx(0.1 * np.linalg.norm(g, q), rel=1e-5)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(
        TypeError, match=r"average_flatness: distribution is 'normal' \(str\), expected one of 'gaussian', 'ball', 'sphere'"
    ):
        average_flatness(quadratic, {"w": jnp.zeros(20)}, distribution="normal")
    with pytest.raises(ValueError, match=r"average_flatness: radius is -1\.0 \(float\), expected a finite number > 0"):
        average_flatness(quadratic, {"w": jnp.zeros(20)}, radius=-1.0)
    with pytest.raises(ValueError, match=r"sam_sharpness: p is 0\.5 \(float\), expected a number in \[1, inf\]"):
        sam_sharpness(quadratic, {"w": jnp.zeros(20)}, p=0.5)
