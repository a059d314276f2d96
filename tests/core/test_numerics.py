"""Scalar arithmetic at the edges, against float64."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.core import numerics
from gradtx.core.numerics import (
    _all_at_once,
    guarded_ratio,
    one_minus_power,
    promote,
    root_plus_eps,
    root_sum_squares,
    safe_increment,
)

COUNTS = np.asarray([1, 2, 3, 10, 100, 1000, 10_000, 100_000, 1_000_000], np.int32)


# Bias correction ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0, 0.0, 0.9, 0.999, 0.9999])
def test_one_minus_power_against_float64(decay: float) -> None:
    expected = -np.expm1(COUNTS * np.log(decay)) if decay else np.ones(COUNTS.size)
    for t in (COUNTS, jnp.asarray(COUNTS)):
        np.testing.assert_allclose(one_minus_power(decay, t), expected, rtol=1e-6)
    traced = jax.jit(lambda t: one_minus_power(decay, t))(COUNTS)
    assert traced.dtype == jnp.float32
    np.testing.assert_allclose(traced, expected, rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999, 0.9999])
def test_one_minus_power_of_a_traced_decay(decay: float) -> None:
    """Against the float64 value for the decay as float32 holds it: its own rounding is not the formula's."""
    b = np.float64(np.float32(decay))
    expected = -np.expm1(COUNTS * np.log(b)) if b else np.ones(COUNTS.size)
    np.testing.assert_allclose(jax.jit(one_minus_power)(jnp.float32(decay), COUNTS), expected, rtol=1e-6)
    np.testing.assert_allclose(one_minus_power(np.float32(decay), COUNTS), expected, rtol=1e-6)


@pytest.mark.parametrize("eps_root", [0, 0.0, 0.25, np.float32(0), jnp.float32(0.25)])
def test_root_plus_eps(eps_root: Any) -> None:
    v = jnp.array([0.0, 4.0, 9.0])
    expected = np.sqrt(np.asarray(v) + float(eps_root)) + 0.5
    np.testing.assert_allclose(root_plus_eps(v, 0.5, eps_root), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(root_plus_eps)(v, 0.5, eps_root), expected, rtol=1e-6)


def test_root_plus_eps_adds_no_zero() -> None:
    names = [str(e.primitive) for e in jax.make_jaxpr(lambda v: root_plus_eps(v, 0.5, 0.0))(jnp.ones(3)).eqns]
    assert names == ["sqrt", "add"]


def test_one_minus_power_is_better_than_the_textbook() -> None:
    exact = -np.expm1(np.log(0.9999))
    textbook = np.float32(1) - np.float32(0.9999) ** np.float32(1)
    assert abs(textbook - exact) / exact > 1e-5
    assert abs(float(one_minus_power(0.9999, 1)) - exact) / exact < 1e-6


def test_one_minus_power_in_float64() -> None:
    with jax.enable_x64(True):
        out = one_minus_power(0.9999, jnp.asarray(COUNTS))
        assert out.dtype == jnp.float64
        np.testing.assert_allclose(out, -np.expm1(COUNTS * np.log(0.9999)), rtol=1e-14)


# Counters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int8", "uint32"])
def test_counters_stay_at_the_largest_value(dtype: str) -> None:
    largest = np.iinfo(dtype).max
    counts = jnp.asarray([0, largest - 1, largest], dtype)
    for out in (safe_increment(counts), jax.jit(safe_increment)(counts)):
        assert out.dtype == dtype
        np.testing.assert_array_equal(out, np.asarray([1, largest, largest], dtype))


def test_a_new_counter() -> None:
    count = numerics.zero_count()
    assert (count.dtype, count.weak_type, int(count)) == (jnp.int32, False, 0)
    assert not safe_increment(count).weak_type
    assert int(safe_increment(3)) == 4


@pytest.mark.parametrize(("count", "dtype"), [(1.0, "float32"), (jnp.ones((), jnp.bfloat16), "bfloat16"), (True, "bool")])
def test_counters_are_whole_numbers(count: Any, dtype: str) -> None:
    with pytest.raises(TypeError) as error:
        safe_increment(count)
    assert str(error.value) == f"safe_increment: count is {dtype}, expected an integer dtype (float counters stop growing)"


# Norms ----------------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
NORMS = [
    ([], 0.0),
    ([[]], 0.0),
    ([[0.0, 0.0]], 0.0),
    ([[3.0], [4.0]], 5.0),
    ([[3e30], [4e30]], 5e30),
    ([[3e-30], [4e-30]], 5e-30),
    ([[3e-30], [4.0]], 4.0),
    ([[1e38] * 4], 2e38),
    ([[3e-20, 4e-20]], 5e-20),
    ([[1.2e-19] + [1e-19] * 1000], (1.44e-38 + 1e-35) ** 0.5),  # one square is a normal number, all others are flushed to zero
    ([[INF, 1.0]], INF),
    ([[-INF], [0.0]], INF),
    ([[NAN, 1.0]], NAN),
    ([[NAN], [INF]], NAN),
    ([[0.0], [], [2.0]], 2.0),
]


@pytest.mark.parametrize(("parts", "expected"), NORMS)
def test_root_sum_squares(parts: Any, expected: float) -> None:
    arrays = [jnp.asarray(part, jnp.float32) for part in parts]
    out = root_sum_squares(arrays)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, np.float32(expected), rtol=1e-6)


def test_root_sum_squares_under_jit_and_vmap() -> None:
    rows = [(3.0, 4.0), (3e30, 4e30), (3e-30, 4e-30), (0.0, 0.0), (INF, 1.0), (NAN, INF)]
    expected = np.asarray([5.0, 5e30, 5e-30, 0.0, INF, NAN], np.float32)
    arrays = jnp.asarray(rows, jnp.float32)

    def norm(row: Any) -> Any:
        return root_sum_squares([row[:1], row[1:]])

    np.testing.assert_allclose(jax.vmap(norm)(arrays), expected, rtol=1e-6)
    one = jax.jit(norm)
    np.testing.assert_allclose(jnp.stack([one(row) for row in arrays]), expected, rtol=1e-6)
    constants = jax.jit(lambda: [norm(row) for row in np.asarray(rows, np.float32)])()  # which XLA folds
    np.testing.assert_allclose(jnp.stack(constants), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([jnp.full(4, 65504.0, jnp.float16)], 131008.0),
        ([jnp.full(16, 3e38, jnp.bfloat16) / 64], 4 * float(jnp.asarray(3e38, jnp.bfloat16) / 64)),
        ([jnp.asarray([3 + 4j])], 5.0),
        ([jnp.asarray([3e30 + 4e30j]), jnp.asarray([0.0])], 5e30),
        ([jnp.asarray([3e-30 + 4e-30j])], 5e-30),
        ([jnp.asarray([3.0]), jnp.asarray([4.0], jnp.float16)], 5.0),
        ([3.0, np.float32(4.0)], 5.0),
    ],
)
def test_root_sum_squares_of_other_dtypes(parts: Any, expected: float) -> None:
    out = root_sum_squares(parts)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_root_sum_squares_in_float64() -> None:
    with jax.enable_x64(True):
        out = root_sum_squares([jnp.asarray([3e200]), jnp.asarray([4.0], jnp.float32)])
        assert out.dtype == jnp.float64
        np.testing.assert_allclose(out, 3e200, rtol=1e-15)
        for size in (1e-300, 1e-200, 1e-20, 1e307):
            np.testing.assert_allclose(root_sum_squares([jnp.asarray([3 * size]), jnp.asarray([4j * size])]), 5 * size, rtol=1e-14)


@pytest.mark.parametrize("size", [0.0, 1e-37, 1e-30, 1e-20, 1e-15, 1.0, 1e15, 1e20, 3e37])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_the_norm_has_a_derivative_at_every_size(size: float, dtype: str) -> None:
    """The unit vector along the array, 0 at zero, in both modes and at second order without a NaN."""
    x = jnp.asarray([3.0, 4.0], dtype) * size
    expected = np.asarray([0.6, 0.8] if size else [0.0, 0.0], dtype)

    def norm(x: Any) -> Any:
        return root_sum_squares([x[:1], x[1:]])

    np.testing.assert_allclose(jax.grad(norm)(x), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(norm, (x,), (jnp.ones_like(x),))[1], expected.real.sum(), rtol=1e-6)
    if dtype == "float32" and 1e-15 <= size <= 1e15:
        np.testing.assert_allclose(jax.hessian(norm)(x) * size, np.asarray([[0.128, -0.096], [-0.096, 0.072]]), rtol=1e-5)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_the_norm_is_branch_free_on_accelerators(platform: str) -> None:
    lowered = jax.jit(lambda x: root_sum_squares([x, x])).trace(jnp.ones(3)).lower(lowering_platforms=(platform,))
    assert "@_sums_of_squares(" in lowered.as_text()
    assert "@_sum_of_squares(" not in lowered.as_text()  # the first look of CPUs, with its branch


@pytest.mark.parametrize("size", [0.0, 1e-37, 1e-30, 1e-15, 1.0, 1e15, 1e30, 1e37, INF, NAN])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64, jnp.bfloat16])
def test_the_norm_of_accelerators(size: float, dtype: Any) -> None:
    parts = [jnp.asarray([3 * size]).astype(dtype), jnp.asarray([4 * size, 0.0]).astype(dtype)]
    expected = np.linalg.norm(np.concatenate([np.asarray(x).astype(np.complex128) for x in parts]))
    wide = [promote(x) for x in parts]
    np.testing.assert_allclose(jax.jit(_all_at_once)(wide), expected, rtol=1e-6)
    np.testing.assert_allclose(root_sum_squares(parts), expected, rtol=1e-6)


def test_tracing_the_norm_grows_linearly() -> None:
    def calls(leaves: int) -> int:
        parts, count = [jax.ShapeDtypeStruct((2,), jnp.float32)] * leaves, 0

        def counted(*_: Any) -> None:
            nonlocal count
            count += 1

        sys.setprofile(counted)
        try:
            jax.make_jaxpr(lambda *xs: root_sum_squares(list(xs)))(*parts)
        finally:
            sys.setprofile(None)
        return count

    calls(50)
    few, some, many = calls(50), calls(100), calls(200)
    assert many - some < 2.2 * (some - few)


# Small ones -----------------------------------------------------------------------------------------------


def test_guarded_ratio_at_zero() -> None:
    out = guarded_ratio(jnp.asarray([1.0, 0.0, 6.0]), jnp.asarray([0.0, 0.0, 3.0]))
    np.testing.assert_array_equal(out, [0.0, 0.0, 2.0])
    assert float(jax.grad(lambda d: guarded_ratio(jnp.asarray(1.0), d))(0.0)) == 0.0
    assert float(jax.grad(lambda n: guarded_ratio(n, jnp.asarray(0.0)))(1.0)) == 0.0


def test_abs_sq_is_real() -> None:
    out = numerics.abs_sq(jnp.asarray([3 + 4j]))
    assert out.dtype == jnp.float32
    assert float(out[0]) == 25.0
    assert float(jax.grad(lambda x: numerics.abs_sq(x))(0.0)) == 0.0


@pytest.mark.parametrize(
    ("dtype", "compute", "real"),
    [("float16", "float32", "float16"), ("bfloat16", "float32", "bfloat16"), ("float64", "float64", "float64"),
     ("complex64", "complex64", "float32"), ("complex128", "complex128", "float64"), ("float8_e5m2", "float32", "float8_e5m2")],
)  # fmt: skip
def test_dtypes(dtype: str, compute: str, real: str) -> None:
    assert numerics.compute_dtype(dtype) == compute
    assert numerics.real_dtype(jnp.dtype(dtype)) == real


def test_random_keys_and_tracers_are_recognized() -> None:
    assert numerics.is_key(jax.random.key(0))
    assert not numerics.is_key(jnp.zeros(2, jnp.uint32))
    assert not numerics.is_tracer(jnp.ones(()))
    assert jax.jit(lambda x: jnp.asarray(numerics.is_tracer(x)))(1.0)


@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_the_common_dtype_does_not_depend_on_the_promotion_mode(promotion: Any) -> None:
    with jax.numpy_dtype_promotion(promotion):
        assert numerics.common_dtype(jnp.bfloat16, jnp.float16) == jnp.float32
        assert numerics.common_dtype(jnp.ones(2, jnp.bfloat16), 1.0) == jnp.bfloat16
