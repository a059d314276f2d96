"""Newton-Schulz iteration for the polar factor of wide matrices, in standard and in Gram form."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike

from gradtx.core.numerics import real_dtype
from gradtx.core.types import DType, Scalar
from gradtx.linalg.coefficients import Table

NORMALIZATIONS = ("schatten8", "frobenius", "schatten4", "spectral", "aol")

FEW_BITS = 11
"""Factors of up to so many significand bits lose the small singular values of `a I + B`."""


class Plan(NamedTuple):
    """How to iterate: all that is known before the numbers are.

    Attributes:
      table: rows `(a, b, c)`, one a step.
      segments: how many steps each Gram segment has; all ones is the standard form.
      normalization: what a matrix is divided by first, one of `NORMALIZATIONS`.
      dtype: name of the dtype in which products take their factors, or None for the matrix's own.
      precision: of products, as `jax.lax.dot` takes it.
      apart: whether the matrices of a stack run one after another, as on CPUs: there products of
        single matrices use all cores, batched ones do not.
      split: whether a step alone is `a X + B X`, with the identity outside of the product: rounded
        to few bits, a factor `a I + B` loses the small singular values.
    """

    table: Table
    segments: tuple[int, ...]
    normalization: str = "schatten8"
    dtype: str | None = None
    precision: PrecisionLike = None
    apart: bool = False
    split: bool = False


def significand_bits(dtype: DType, precision: PrecisionLike, platform: str) -> int:
    """The significand bits that products of this dtype have where they will run.

    GPUs take float32 factors as TF32 and TPUs as bfloat16 unless a higher precision is asked for,
    by argument or by `jax.default_matmul_precision`.
    """
    dtype = real_dtype(dtype)
    if dtype != jnp.float32 or platform == "cpu":
        return {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}[dtype.name]
    asked = str(precision if precision is not None else jax.config.jax_default_matmul_precision).lower()  # type: ignore[attr-defined]
    if any(word in asked for word in ("highest", "float32", "f32_f32_f32")):
        return 24
    if platform == "tpu":
        return 16 if any(word in asked for word in ("high", "bf16_bf16_f32_x3", "bfloat16_3x")) else 8
    return 11


def gram_segments(steps: int, bits: int) -> tuple[int, ...]:
    """How many steps may share one Gram matrix, first to last.

    A segment squares the condition of what it starts from, and its own rounding grows by the
    squares of its slopes: three steps of 11 bits or fewer lose the result, five of 24 bits stay
    below 0.001. Short segments come first, where slopes are largest.
    """
    most = 8 if bits >= 53 else 5 if bits >= 24 else 3 if bits >= 16 else 2
    parts = math.ceil(steps / most)
    short, longer = divmod(steps, parts)
    return (short,) * (parts - longer) + (short + 1,) * longer


def products(segments: tuple[int, ...], aspect: float) -> float:
    """Cost in products of two `n x n` matrices, for `n x (aspect * n)` ones."""
    return (2 * aspect - 3) * len(segments) + 4 * sum(segments)


def segments_for(method: str, steps: int, n: int, m: int, bits: int) -> tuple[int, ...]:
    """The segments of a method: `newton_schulz`, `gram`, or the cheaper of the two for `auto`."""
    standard, gram = (1,) * steps, gram_segments(steps, bits)
    if method == "auto":
        return standard if products(standard, m / n) <= products(gram, m / n) else gram
    return gram if method == "gram" else standard


def newton_schulz(x: jax.Array, plan: Plan, eps: Scalar = 0.0, over: tuple[str, ...] = ()) -> jax.Array:
    """The approximate polar factor of wide matrices `(..., n, m)`, `n <= m`, in their dtype.

    A step is `X <- (a I + b R + c R^2) X` with `R = X X^H`. All `R` of a run commute, so `t` steps
    may run on `R` alone: `P = a I + b R + c R^2, Q <- P Q, R <- P R P`, and one product `Q X` at
    the end. Matrices whose rows are orthogonal (diagonal ones, single rows) are exact: their rows
    are divided by their norms. `eps` is added to the norm, where the largest entry is about 1.
    Where devices hold parts of the columns, `over` names the mesh axes to sum `R` over.
    """
    if plan.apart and x.ndim > 2 and not over:
        single = functools.partial(newton_schulz, plan=plan, eps=eps)
        return jax.lax.map(single, x.reshape(-1, *x.shape[-2:])).reshape(x.shape)
    dtype, real = x.dtype, jnp.finfo(x.dtype).dtype
    low = None if plan.dtype is None or jnp.dtype(plan.dtype) == dtype else jnp.dtype(plan.dtype)
    plain = functools.partial(jnp.matmul, precision=plan.precision, preferred_element_type=dtype)
    dot = plain if low is None else (lambda a, b: plain(a.astype(low), b.astype(low)))

    def gram(y: jax.Array) -> jax.Array:
        r = dot(y, jnp.swapaxes(y.conj() if jnp.iscomplexobj(y) else y, -2, -1))
        return jax.lax.psum(r, over) if over else r

    n = x.shape[-2]
    diagonal = jnp.arange(n)[:, None] == jnp.arange(n)
    largest = jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True)
    largest = jax.lax.pmax(jax.lax.stop_gradient(largest), over) if over else largest
    x = x * power_of_two(largest)
    r = gram(x)
    if plan.normalization == "aol":
        rows = jnp.sqrt(_above_zero(jnp.sum(jnp.abs(r), axis=-1, keepdims=True)))
        x = x / rows
        r = r / rows / jnp.swapaxes(rows, -2, -1)
    squares = jnp.sum(jnp.where(diagonal, r, 0).real, axis=-1, keepdims=True)  # of each row's norm
    orthogonal = jnp.all(diagonal | (r == 0), axis=(-2, -1), keepdims=True)
    # Narrow factors must not overflow: R in units of a power of four near its trace, X by its root
    # after the first product.
    unit = None if low is None else _root_unit(jnp.sum(squares, axis=-2, keepdims=True))
    r = r if unit is None else r * unit**2
    steps = iter(plan.table)
    for k, segment in enumerate(plan.segments):
        r = gram(x) if k else r
        alone = plan.split and segment == 1
        q, a = None, 0.0
        for last in (False,) * (segment - 1) + (True,):
            r2 = dot(r, r)
            row = next(steps)
            if k == 0 and q is None:
                norm = _norm(r, r2, diagonal, plan)
                # A matrix of zeros stays one.
                s = jnp.where(norm > 0, norm + eps * (1.0 if unit is None else unit), 1)
                row = ((row[0] / s**1).astype(real), (row[1] / s**3).astype(real), (row[2] / s**5).astype(real))
            a, b, c = row
            p = b * r + c * r2
            p = p if alone else p + jnp.where(diagonal, a, 0)
            q = p if q is None else dot(p, q)
            r = r if last else dot(p, dot(r, p))
        assert q is not None
        scales = jnp.ones_like(squares)
        if k == 0:
            scales = jax.lax.rsqrt(_above_zero(squares)) * (squares > 0).astype(real) / (1.0 if unit is None else unit)
        if alone:
            x = jnp.where(orthogonal, scales, a) * x + dot(jnp.where(orthogonal, 0, q), x)
        else:
            x = dot(jnp.where(orthogonal, jnp.where(diagonal, scales, 0).astype(q.dtype), q), x)
        x = x * unit if k == 0 and unit is not None else x
    return x


def newton_schulz_tall(x: jax.Array, plan: Plan, eps: Scalar = 0.0, over: tuple[str, ...] = ()) -> jax.Array:
    """`newton_schulz` of tall matrices `(..., n, m)`, `n >= m`, by their transposes."""
    # A transpose that folds into a product of narrow factors leaves XLA's fast path on CPU, or has
    # no kernel there at all.
    apart = (lambda y: y) if plan.dtype is None else jax.lax.optimization_barrier
    return apart(newton_schulz(apart(jnp.swapaxes(x, -2, -1)), plan, eps, over)).swapaxes(-2, -1)


def _norm(r: jax.Array, r2: jax.Array, diagonal: jax.Array, plan: Plan) -> jax.Array:
    """The norm that a matrix is divided by, from `R = X X^H` and `R^2`; 1 for a zero matrix."""
    if plan.normalization == "aol":
        return jnp.ones((*r.shape[:-2], 1, 1), jnp.finfo(r.dtype).dtype)
    # The squared Frobenius norm.
    total = jnp.sum(jnp.where(diagonal, r, 0).real, axis=(-2, -1), keepdims=True)
    total = _above_zero(total)
    if plan.normalization == "schatten8":
        return jnp.sqrt(total) * jnp.sum(jnp.square(jnp.abs(r2) / total**2), axis=(-2, -1), keepdims=True) ** 0.125
    if plan.normalization == "schatten4":
        return jnp.sqrt(total) * jnp.sum(jnp.square(jnp.abs(r) / total), axis=(-2, -1), keepdims=True) ** 0.25
    if plan.normalization == "spectral":
        return jnp.sqrt(_above_zero(jnp.linalg.eigvalsh(r)[..., -1:, None]))
    return jnp.sqrt(total)


def _above_zero(x: jax.Array) -> jax.Array:
    """`x`, or 1 where it is zero (or below, by rounding); NaN stays."""
    return jnp.where(x <= 0, jnp.ones_like(x), x)


def power_of_two(largest: jax.Array) -> jax.Array:
    """The power of two that brings `largest` into [0.5, 1), if the dtype has it; 1 for zero."""
    limit = -jnp.finfo(largest.dtype).minexp
    exponent = jnp.clip(jnp.frexp(largest)[1], -limit, limit)
    return jnp.ldexp(jnp.ones_like(largest), -exponent)


def _root_unit(trace: jax.Array) -> jax.Array:
    """The power of two whose square brings `trace` into (0.25, 1]; 1 for zero."""
    return jnp.ldexp(jnp.ones_like(trace), -((jnp.frexp(trace)[1] + 1) // 2))
