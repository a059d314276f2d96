"""`msign` against the SVD, its special cases, precision and scale."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linalg import msign_many as many
from gradtx.linalg.msign import Recipe, msign
from gradtx.linalg.newton_schulz import gram_segments, products, segments_for, significand_bits

KEY = jax.random.key(0)
METHODS = ("newton_schulz", "gram", "auto", "svd")


def polar(x: Any) -> np.ndarray:
    u, s, vh = np.linalg.svd(np.asarray(x, complex if np.iscomplexobj(x) else float), full_matrices=False)
    return (u * (s > 1e-6 * s.max(initial=0.0))) @ vh


def rms_error(x: Any, expected: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(x) - expected) / np.sqrt(min(expected.shape)))


def with_spectrum(s: np.ndarray, m: int, seed: int = 0) -> np.ndarray:
    u, _, vh = np.linalg.svd(np.random.default_rng(seed).standard_normal((len(s), m)), full_matrices=False)
    return ((u * s) @ vh).astype(np.float32)


GAUSS = jax.random.normal(KEY, (32, 96))


@pytest.mark.parametrize("shape", [(32, 32), (32, 96), (96, 32)])
@pytest.mark.parametrize("method", METHODS[:3])
def test_many_steps_reach_the_polar_factor(shape, method):
    x = jax.random.normal(KEY, shape)
    assert rms_error(msign(x, steps=8, method=method), polar(x)) < 1e-5


def test_polynomial_of_the_singular_values_in_float64():
    with jax.enable_x64(True):
        x = jnp.asarray(with_spectrum(np.linspace(0.1, 1, 12), 20), jnp.float64)
        u, s, vh = np.linalg.svd(x, full_matrices=False)
        for normalization, norm in (("frobenius", 2), ("schatten4", 4), ("schatten8", 8), ("spectral", np.inf)):
            f = s / np.linalg.norm(s, norm)
            for _ in range(5):
                f = 3.4445 * f - 4.7750 * f**3 + 2.0315 * f**5
            for method in METHODS[:3]:
                result = msign(x, coefficients="jordan", normalization=normalization, method=method)
                np.testing.assert_allclose(result, (u * f) @ vh, atol=1e-10)


def test_aol_is_row_rescaling():
    with jax.enable_x64(True):
        x = jnp.asarray(with_spectrum(np.linspace(0.1, 1, 6), 9), jnp.float64)
        rows = np.asarray(x) / np.sqrt(np.abs(np.asarray(x @ x.T)).sum(1, keepdims=True))
        expected = msign(
            rows * np.linalg.norm(rows), coefficients="jordan", normalization="frobenius", method="newton_schulz", eps=0
        )
        u, s, vh = np.linalg.svd(rows, full_matrices=False)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        np.testing.assert_allclose(msign(x, coefficients="jordan", normalization="aol"), (u * s) @ vh, atol=1e-10)
        assert float(jnp.abs(expected - (u * s) @ vh).max()) > 1e-3  # another normalization is another result


@pytest.mark.parametrize(
    ("spectrum", "band"), [(None, 0.1), (np.logspace(-3, 0, 64), 0.31), (1 / np.arange(1, 65), 0.11)], ids=["gauss", "log", "1/j"]
)
def test_default_is_nearer_than_five_jordan_steps(spectrum, band):
    x = np.random.default_rng(0).standard_normal((64, 64)) if spectrum is None else with_spectrum(spectrum, 64)
    expected = polar(x)
    ours = rms_error(msign(jnp.asarray(x, jnp.float32)), expected)
    jordan = rms_error(msign(jnp.asarray(x, jnp.float32), coefficients="jordan", normalization="frobenius"), expected)
    assert ours < band
    assert ours < jordan


# Special cases --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16"])
def test_orthogonal_rows_are_exact(method, dtype):
    tolerance = {None: 2e-6, "bfloat16": 1e-2, "float16": 1e-3}[dtype]
    small, large = (1e-3, -30.0) if dtype == "float16" else (1e-10, -1e5)  # float16 has fewer exponents
    diagonal = jnp.diag(jnp.array([3.0, -2.0, small, large]))
    np.testing.assert_allclose(msign(diagonal, method=method, dtype=dtype), np.diag([1.0, -1.0, 1.0, -1.0]), atol=tolerance)
    wide = jnp.array([[3.0, 0.0, 4.0, 0.0], [0.0, -5.0, 0.0, 12.0]])
    expected = [[0.6, 0.0, 0.8, 0.0], [0.0, -5 / 13, 0.0, 12 / 13]]
    np.testing.assert_allclose(msign(wide, method=method, dtype=dtype), expected, atol=tolerance)
    np.testing.assert_allclose(msign(wide.T, method=method, dtype=dtype), np.transpose(expected), atol=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_zero_number_vector_row_column(method):
    assert not jnp.any(msign(jnp.zeros((3, 5)), method=method))
    assert float(msign(jnp.float32(-3e-30), method=method)) == -1.0
    assert float(msign(jnp.float32(0.0), method=method)) == 0.0
    assert float(msign(jnp.array([[-7.0]]), method=method)[0, 0]) == -1.0
    vector = jnp.array([3.0, 0.0, -4.0])
    for x in (vector, vector[None], vector[:, None], 1e30 * vector, 1e-30 * vector[:, None]):
        np.testing.assert_allclose(msign(x, method=method).ravel(), [0.6, 0.0, -0.8], rtol=2e-7)
    np.testing.assert_allclose(msign(jnp.array([[3 + 4j]]), method=method), [[0.6 + 0.8j]], rtol=1e-6)
    assert msign(jnp.zeros((0, 3)), method=method).shape == (0, 3)


@pytest.mark.parametrize("method", METHODS)
def test_nan_and_infinity_stay_in_their_own_matrix(method):
    batch = jnp.stack([GAUSS, GAUSS.at[1, 2].set(jnp.nan), GAUSS, GAUSS.at[3, 4].set(jnp.inf)])
    result = msign(batch, method=method)
    assert jnp.isnan(result).all((1, 2)).tolist() == [False, True, False, True]
    np.testing.assert_allclose(result[2], msign(GAUSS, method=method), atol=1e-6)


@pytest.mark.parametrize(("shape", "place"), [((8, 8), (0, 0)), ((4, 6), (0, 1))])
def test_singular_values_of_infinite_entries_are_never_asked_for(shape, place):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x[place] = np.inf  # from these matrices LAPACK does not return
    assert np.isnan(msign(x, method="svd")).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16"])
def test_rank_deficient(method, dtype):
    left, right = jax.random.normal(KEY, (32, 16)), jax.random.normal(jax.random.key(1), (16, 64))
    x = left @ right
    null = np.linalg.svd(x)[0][:, 16:]
    result = np.asarray(msign(x, method=method, dtype=dtype), np.float64)
    assert np.linalg.norm(result, 2) < 1.2
    assert np.linalg.norm(null.T @ result, 2) < {None: 1e-3, "float16": 0.05, "bfloat16": 0.35}[dtype if method != "svd" else None]
    assert rms_error(result, polar(x)) < (0.12 if dtype == "bfloat16" else 0.05)


def test_complex():
    x = jax.random.normal(KEY, (24, 40)) + 1j * jax.random.normal(jax.random.key(1), (24, 40))
    for method in METHODS:
        assert rms_error(msign(x, steps=8, method=method), polar(x)) < 1e-5
        assert rms_error(msign(x.T, steps=8, method=method), polar(x).T) < 1e-5


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("method", METHODS)
def test_scale_does_not_matter_in_float32(scale, method):
    np.testing.assert_allclose(msign(GAUSS * scale, method=method), msign(GAUSS, method=method), atol=5e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_scale_does_not_matter_over_the_range_of_half_precision(dtype):
    rounded = (GAUSS + jnp.where(GAUSS > 0, 0.5, -0.5)).astype(dtype)
    powers = [-13, 13] if dtype == jnp.float16 else [-100, 100]  # no entry leaves the normal range
    for power in powers:
        scaled = rounded * jnp.asarray(2.0, dtype) ** power
        assert bool(jnp.all(jnp.isfinite(scaled)))
        for products_in in (None, dtype):
            np.testing.assert_array_equal(msign(scaled, dtype=products_in), msign(rounded, dtype=products_in))


@pytest.mark.parametrize(("dtype", "more"), [("float16", 1e-3), ("bfloat16", 0.01)])
@pytest.mark.parametrize("shape", [(64, 64), (64, 256), pytest.param((256, 64), marks=pytest.mark.slow)])
def test_narrow_products_add_little_error(dtype, more, shape):
    x = jax.random.normal(KEY, shape)
    expected = polar(x)
    for method in METHODS[:3]:
        assert rms_error(msign(x, method=method, dtype=dtype), expected) < rms_error(msign(x, method=method), expected) + more


def spread_out() -> np.ndarray:
    """Singular values from 0.001 to 1, evenly by their logarithms."""
    return with_spectrum(np.logspace(-3, 0, 48), 144).astype(np.float32)


def nearly_low_rank() -> np.ndarray:
    """Rank 16, and noise of 0.0001 of it."""
    left, right, noise = (
        np.asarray(jax.random.normal(jax.random.key(i), s)) for i, s in enumerate([(48, 16), (16, 144), (48, 144)])
    )
    return left @ right / 4 + 1e-4 * noise


@pytest.mark.parametrize("make", [spread_out, nearly_low_rank])
def test_narrow_factors_keep_small_singular_values(make):
    """As near to the exact iteration as Optax's, which keeps the identity out of factors; TPUs round all factors to bfloat16."""

    def narrow(a: Any, b: Any) -> Any:
        return jnp.matmul(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=jnp.float32)

    x = jnp.asarray(make())
    recipe = {"coefficients": "jordan", "normalization": "frobenius", "method": "newton_schulz"}
    u, s, vh = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)
    s = s / np.linalg.norm(s)
    theirs = x / jnp.linalg.norm(x)
    for a, b, c in ((3.4445, -4.7750, 2.0315),) * 5:
        s = a * s + b * s**3 + c * s**5
        r = narrow(theirs, theirs.T)
        theirs = a * theirs + narrow(b * r + c * narrow(r, r), theirs)
    exact = (u * s) @ vh
    error = rms_error(msign(x, dtype="bfloat16", **recipe), exact)
    assert error < 1.1 * rms_error(theirs, exact)
    assert error < 0.01


# Shapes ---------------------------------------------------------------------------------------------------------


def test_axes_and_batches():
    x = jax.random.normal(KEY, (3, 4, 2, 5))
    result = msign(x, axes=((0, 2), 3))
    for i in range(4):
        np.testing.assert_allclose(result[:, i].reshape(6, 5), msign(x[:, i].reshape(6, 5)), atol=1e-6)
    np.testing.assert_allclose(msign(x, axes=(3, -4)), jnp.swapaxes(msign(jnp.swapaxes(x, 0, 3), axes=(0, 3)), 0, 3), atol=1e-5)
    np.testing.assert_allclose(msign(x)[1, 2], msign(x[1, 2]), atol=1e-6)
    assert msign(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_vmap_equals_loop():
    x = jax.random.normal(KEY, (3, 8, 12))
    np.testing.assert_allclose(jax.vmap(msign)(x), msign(x), atol=1e-6)


def test_stacks_and_loops_equal_single_matrices(monkeypatch):
    shapes = [(1, 8, 24), (2, 24, 8), (1, 8, 8), (1, 8, 24), (3, 6, 7), (0, 4, 4)]
    stacks = [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]
    recipe = Recipe(((3.4445, -4.7750, 2.0315),) * 5, "frobenius", "auto", None, None)
    expected = [msign(x, coefficients="jordan", normalization="frobenius") for x in stacks]
    monkeypatch.setattr(many, "LOOP_FROM", 2)
    run = functools.partial(many._run, recipe=recipe, platform="gpu", eps=0.0)
    for signs in (
        many._one_by_one(stacks, run),
        many._stacked(stacks, run, 500),
        many._stacked(stacks, run, 150),
        many.msign_many(stacks, recipe),
    ):
        for one, other in zip(signs, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("first", [np.nan, np.inf, -1.0, 0.0, 1j])
def test_parts_of_a_stack_are_those_of_split(first):
    stack = jnp.arange(24.0).reshape(6, 2, 2).astype(jnp.result_type(first)).at[0, 0, 0].set(first)
    for part, expected in zip(jax.jit(many.equal_parts, static_argnums=1)(stack, 3), np.split(np.asarray(stack), 3), strict=True):
        np.testing.assert_array_equal(part, expected)
    assert [part.shape for part in many.equal_parts(stack[:0], 3)] == [(0, 2, 2)] * 3


def test_stacks_are_bounded():
    sizes = [(0, 1), (1, 1), (2, 4), (3, 0), (4, 1)]
    assert many._bounded(sizes, 3) == [[(0, 0, 1), (1, 0, 1), (2, 0, 1)], [(2, 1, 4)], [(3, 0, 0), (4, 0, 1)]]
    assert many._bounded(sizes[:2], 0) == [[(0, 0, 1)], [(1, 0, 1)]]


# Plans ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "precision", "platform", "bits"),
    [
        ("float32", None, "cpu", 24),
        ("float32", None, "gpu", 11),
        ("float32", None, "tpu", 8),
        ("float32", jax.lax.Precision.HIGHEST, "gpu", 24),
        ("float32", "highest", "tpu", 24),
        ("float32", jax.lax.Precision.HIGH, "tpu", 16),
        ("complex64", None, "gpu", 11),
        ("float64", None, "gpu", 53),
        ("bfloat16", None, "cpu", 8),
        ("float16", "highest", "gpu", 11),
    ],
)
def test_bits_that_products_have(dtype, precision, platform, bits):
    assert significand_bits(dtype, precision, platform) == bits


def test_bits_follow_the_global_precision():
    with jax.default_matmul_precision("highest"):
        assert significand_bits("float32", None, "gpu") == 24


def test_segments():
    assert gram_segments(4, 24) == (4,)
    assert gram_segments(5, 24) == (5,)
    assert gram_segments(8, 24) == (4, 4)
    assert gram_segments(4, 11) == (2, 2)
    assert gram_segments(5, 8) == (1, 2, 2)
    assert gram_segments(5, 16) == (2, 3)
    assert [products(s, 4) for s in ((1,) * 5, (5,), (2, 3), (4,))] == [45, 25, 30, 21]
    assert segments_for("auto", 4, 64, 64, 24) == (1, 1, 1, 1)
    assert segments_for("auto", 4, 64, 256, 24) == (4,)
    assert segments_for("newton_schulz", 4, 64, 256, 24) == (1, 1, 1, 1)


# Errors ---------------------------------------------------------------------------------------------------------

X = jnp.zeros((2, 3))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: msign(jnp.arange(3)),
            TypeError,
            r"msign: x is an array of shape \(3,\) and dtype int32, expected a floating or complex array\.",
        ),
        (
            lambda: msign(X, method="grams"),
            ValueError,
            r"msign: method is 'grams' \(str\), expected one of 'auto', .*\. Did you mean 'gram'\?",
        ),
        (
            lambda: msign(X, normalization="l2"),
            ValueError,
            r"msign: normalization is 'l2' \(str\), expected one of 'schatten8', 'frobenius', .*\.",
        ),
        (
            lambda: msign(X, dtype="int8"),
            TypeError,
            r"msign: dtype is 'int8' \(str\), expected a floating dtype, such as 'bfloat16', or None\.",
        ),
        (
            lambda: msign(X + 0j, dtype="bfloat16"),
            TypeError,
            r"msign: dtype is bfloat16 for an array .*, expected None: no narrow dtype is complex\.",
        ),
        (
            lambda: msign(X, axes=(0, 2)),
            ValueError,
            r"msign: axes holds 2 for an array of shape \(2, 3\), expected axes that it has\.",
        ),
        (
            lambda: msign(X, axes=(0, -2)),
            ValueError,
            r"msign: axes is \(0, -2\) for an array of shape \(2, 3\), expected axes that are all different\.",
        ),
        (lambda: msign(X, steps=0), ValueError, r"msign: steps is 0 \(int\), expected a whole number >= 1, or None\."),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=f"^{text}$"):
        call()
