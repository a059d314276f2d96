"""Rounding of single arrays, against NumPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from gradtx.storage.rounding import joined, nearest, noise_like, split, stochastic

RNG = np.random.default_rng(0)
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1.0, 1 - 2**-24, 1 + 2**-9, 1 + 3 * 2**-9, 1.1754944e-38]
SPREAD = RNG.normal(size=20_000) * 10.0 ** RNG.integers(-30, 30, 20_000)
X = jnp.asarray(np.concatenate([SPREAD, SPECIAL]), jnp.float32)
NARROW = [jnp.bfloat16, jnp.float16, jnp.float8_e5m2]


def test_int16_and_bfloat16_are_float32_bit_for_bit() -> None:
    top, rest = jax.jit(split, static_argnums=1)(X, np.dtype("int16"))
    np.testing.assert_array_equal(top, top.astype(jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_array_equal(joined(top.astype(jnp.bfloat16), rest), X)


def test_int8_and_bfloat16_are_the_nearest_number_of_24_bits() -> None:
    top, rest = jax.jit(split, static_argnums=1)(X, np.dtype("int8"))
    found, expected = np.asarray(joined(top.astype(jnp.bfloat16), rest), np.float64), np.asarray(X, np.float64)
    finite = np.isfinite(expected)
    assert np.array_equal(found[~finite], expected[~finite], equal_nan=True)
    assert np.all(np.abs(found[finite] - expected[finite]) <= 2.0**-16 * np.abs(expected[finite]))
    assert not np.any(np.signbit(found) != np.signbit(expected))


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_the_first_part_is_the_nearest_of_bfloat16(dtype: str) -> None:
    x = X[jnp.abs(X) < 1e38]
    top, _ = split(x, np.dtype(dtype))
    off = np.abs(np.asarray(top, np.float64) - np.asarray(x, np.float64))
    least = np.abs(np.asarray(x.astype(jnp.bfloat16), np.float64) - np.asarray(x, np.float64))
    assert np.all(off <= {"int8": 1 + 2**-7, "int16": 1}[dtype] * least)  # int8 rounds to 24 bits first


@pytest.mark.parametrize("dtype", NARROW)
def test_nearest_is_the_cast(dtype: Any) -> None:
    small = jnp.asarray(np.concatenate([RNG.normal(size=2000) * 10.0 ** RNG.integers(-9, 4, 2000), SPECIAL]), jnp.float32)
    np.testing.assert_array_equal(
        jax.jit(nearest, static_argnums=1)(small, np.dtype(dtype)), small.astype(dtype).astype(jnp.float32)
    )


def test_nearest_of_wider_numbers() -> None:
    with jax.enable_x64(True):
        wide = jnp.asarray(RNG.normal(size=100))
        np.testing.assert_array_equal(nearest(wide, np.dtype("float32")), wide.astype(jnp.float32).astype(jnp.float64))


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("value", [1.001, -0.3, 3e-6, 1e-5])
def test_random_rounding_gives_a_neighbour_and_the_value_on_average(dtype: Any, value: float) -> None:
    x = jnp.full((400, 500), value, jnp.float32)
    found = np.asarray(stochastic(x, np.dtype(dtype), noise_like(x, jnp.uint32(5))), np.float64)
    ordered = np.unique(found)
    assert len(ordered) == 2
    assert ordered[0] < value < ordered[1]
    assert ml_dtypes.finfo(dtype).smallest_subnormal <= ordered[1] - ordered[0]
    assert all(float(np.asarray(v).astype(dtype)) == v for v in ordered)
    share = (value - ordered[0]) / (ordered[1] - ordered[0])
    assert abs(np.mean(found == ordered[1]) - share) < 4 * np.sqrt(share * (1 - share) / found.size)


@pytest.mark.parametrize("dtype", NARROW)
def test_random_rounding_keeps_what_is_not_finite_or_exact(dtype: Any) -> None:
    x = jnp.asarray([0.0, -0.0, jnp.inf, -jnp.inf, jnp.nan, 1.0, -0.5, 2.0**-14], jnp.float32)
    found = stochastic(x, np.dtype(dtype), jnp.full(8, 2**32 - 1, jnp.uint32))
    np.testing.assert_array_equal(found, x)
    assert np.array_equal(np.signbit(found)[:7], np.signbit(x)[:7])


def test_noise_is_uniform_and_hangs_on_place_and_seed() -> None:
    zeros = jnp.zeros((256, 3, 100))
    first, second = (np.asarray(noise_like(zeros, jnp.uint32(seed))) / 2.0**32 for seed in (0, 1))
    assert len(np.unique(first)) == first.size
    assert np.max(np.abs(np.histogram(first, 16, (0, 1))[0] / first.size - 1 / 16)) < 0.004
    for a, b in ((first, second), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1]), (first[..., 1:], first[..., :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.015


def test_noise_of_a_number_and_of_nothing() -> None:
    assert noise_like(jnp.zeros(()), jnp.uint32(1)).shape == ()
    assert noise_like(jnp.zeros((0, 3)), jnp.uint32(1)).shape == (0, 3)
