"""The matrix sign `msign(X) = U V^H` of `X = U S V^H`: all singular values become 1."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import PrecisionLike

from gradtx.core.checks import did_you_mean, kind
from gradtx.core.numerics import common_dtype, is_tracer, promote
from gradtx.core.platforms import on_platform
from gradtx.core.types import DType, Leaf, Scalar
from gradtx.linalg.coefficients import Coefficients, Table, newton_schulz_table
from gradtx.linalg.newton_schulz import (
    FEW_BITS,
    NORMALIZATIONS,
    Plan,
    newton_schulz,
    newton_schulz_tall,
    power_of_two,
    segments_for,
    significand_bits,
)

METHODS = ("auto", "newton_schulz", "gram", "svd")
Axes = int | Sequence[int]


def msign(
    x: Leaf,
    *,
    steps: int | None = None,
    coefficients: Coefficients = "polar_express",
    normalization: str = "schatten8",
    method: str = "auto",
    dtype: DType = None,
    precision: PrecisionLike = None,
    axes: tuple[Axes, Axes] = (-2, -1),
    eps: Scalar = 0.0,
) -> jax.Array:
    """The matrix sign, or polar factor: `U V^H = X (X^H X)^(-1/2)` for `X = U S V^H`.

    It leaves out the null space. By Newton-Schulz: `X <- (a I + b R + c R^2) X, R = X X^H`, from
    `X` over a norm of it. That yields `U f(S) V^H` with `f(S)` near 1: with the defaults between
    0.8 and 1.2 for singular values above 0.005 of the norm, growing to there from 0. Of all
    methods, `svd` is exact.

    Exact for every method: numbers give their sign, vectors, single rows and columns `x / |x|`,
    matrices with orthogonal rows (the shorter side's; so diagonal ones) those rows over their
    norms, zero gives zero. Entries below 1e-19 of the largest may count as zero in float32. The
    result does not depend on the matrix's scale. NaN and infinity give NaN in their own matrix of a
    batch alone.

    Args:
      x: array, real or complex. Its matrices lie in the last two axes, or in `axes`; all other axes
        are a batch.
      steps: number of steps; None is 4 for `polar_express`, 5 for other names, or the rows of a
        table.
      coefficients: 'polar_express' (minimax), 'jordan', 'dion', 'quintic' (the lecture notes' 15/8,
        -5/4, 3/8, which brings singular values within 5 steps to 1 only if they start near 1: at
        0.01 it ends at 0.23), one row of three numbers, or a table of rows.
      normalization: what `X` is divided by: 'schatten8' (the least bound on its spectral norm that
        costs nothing), 'frobenius', 'schatten4', 'spectral' (exact, by eigenvalues), or 'aol' (row
        by row, which moves the result away from `U V^H`).
      method: 'newton_schulz' (products of the size of `X` at every step), 'gram' (steps on `R`
        alone, in segments as long as the precision of products allows), 'auto' (the cheaper of the
        two), or 'svd'.
      dtype: in which products take their factors, summing in float32: 'bfloat16' or 'float16' are
        faster on hardware that has them, at errors of about 0.1 and 0.01. None is at least float32.
      precision: of products, as in `jax.lax.dot`.
      axes: the row and the column axis of a matrix, or for each a sequence of axes that are one
        together.
      eps: added to the norm, where the largest entry is about 1; zero matrices need none.

    Returns:
      An array of the shape and dtype of `x`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.linalg.msign import msign
      >>> x = jnp.array([[3.0, 0.0, 4.0], [0.0, 2.0, 0.0]])
      >>> msign(x).round(3)
      Array([[0.6, 0. , 0.8],
             [0. , 1. , 0. ]], dtype=float32)

    Source: Bernstein and Newhouse 2024, arXiv:2409.20325 (the iteration in optimizers); Jordan et
    al. 2024 (Muon); Amsel et al. 2025, arXiv:2505.16932 (minimax rows); the Gram form runs the
    coupled iteration of Higham 2008, Functions of Matrices, chapter 6.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise TypeError(f"msign: x is {kind(x)}, expected a floating or complex array.")
    _check_choice("normalization", normalization, NORMALIZATIONS)
    _check_choice("method", method, METHODS)
    if dtype is not None and not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise TypeError(f"msign: dtype is {kind(dtype)}, expected a floating dtype, such as 'bfloat16', or None.")
    if dtype is not None and jnp.iscomplexobj(x):
        raise TypeError(f"msign: dtype is {jnp.dtype(dtype).name} for {kind(x)}, expected None: no narrow dtype is complex.")
    table = newton_schulz_table("msign", coefficients, steps)
    if x.size == 0:
        return x
    if x.ndim < 2:
        return unit_vector(x)
    rows, columns = (_axes(x, side) for side in axes)
    batch = tuple(i for i in range(x.ndim) if i not in rows + columns)
    if set(rows) & set(columns) or len(set(rows + columns)) < len(rows + columns):
        raise ValueError(f"msign: axes is {axes!r} for an array of shape {x.shape}, expected axes that are all different.")
    order = batch + rows + columns
    shape = tuple(x.shape[i] for i in order)
    n, m = (math.prod(x.shape[i] for i in side) for side in (rows, columns))
    matrices = x.transpose(order).reshape(*(x.shape[i] for i in batch), n, m)
    result = apply_recipe(matrices, make_recipe(table, normalization, method, dtype, precision), eps)
    return result.reshape(shape).transpose(tuple(int(i) for i in np.argsort(order)))


class Recipe(NamedTuple):
    """What is known of a matrix sign before shapes and the platform are: the arguments of `msign`.

    `dtype` is given by its name.
    """

    table: Table
    normalization: str
    method: str
    dtype: str | None
    precision: PrecisionLike

    def plan(self, n: int, m: int, x_dtype: DType, platform: str) -> Plan | None:
        """The plan for `n x m` matrices on a platform; None is the singular value decomposition."""
        if self.method == "svd":
            return None
        bits = significand_bits(self.dtype or common_dtype(x_dtype, jnp.float32), self.precision, platform)
        segments = segments_for(self.method, len(self.table), min(n, m), max(n, m), bits)
        return Plan(self.table, segments, self.normalization, self.dtype, self.precision, platform == "cpu", bits <= FEW_BITS)


def make_recipe(table: Table, normalization: str, method: str, dtype: DType, precision: PrecisionLike) -> Recipe:
    """A recipe, from a dtype in any form."""
    return Recipe(table, normalization, method, None if dtype is None else jnp.dtype(dtype).name, precision)


def apply_recipe(x: jax.Array, recipe: Recipe, eps: Scalar = 0.0) -> jax.Array:
    """The matrix signs of `(..., n, m)` as the platform runs them fastest."""
    return (_apply_traced if is_tracer(x) else _apply)(x, recipe, eps)


def _apply(x: jax.Array, recipe: Recipe, eps: Scalar) -> jax.Array:
    n, m = x.shape[-2:]
    return on_platform(lambda platform, x: apply_plan(x, recipe.plan(n, m, x.dtype, platform), eps), x)


# So that eager calls under a transformation, such as `vmap`, compile once.
_apply_traced = jax.jit(_apply, static_argnums=1)


@functools.partial(jax.jit, static_argnums=1)
def apply_plan(x: jax.Array, plan: Plan | None, eps: Scalar = 0.0) -> jax.Array:
    """The matrix signs of `(..., n, m)` by a plan; None is the singular value decomposition."""
    n, m = x.shape[-2:]
    wide = promote(x)
    if n == 1 or m == 1:
        return unit_vector(wide, (-2, -1)).astype(x.dtype)
    if plan is None:
        return _svd(wide).astype(x.dtype)
    return (newton_schulz if n <= m else newton_schulz_tall)(wide, plan, eps).astype(x.dtype)


def unit_vector(x: jax.Array, axes: tuple[int, ...] | None = None) -> jax.Array:
    """`x / |x|`, the sign for numbers; zero stays zero."""
    wide = promote(x)
    if math.prod(x.shape if axes is None else [x.shape[i] for i in axes]) == 1 and not jnp.iscomplexobj(x):
        return jnp.sign(wide).astype(x.dtype)
    scaled = wide * power_of_two(jnp.max(jnp.abs(wide), axis=axes, keepdims=True))
    norm = jnp.sqrt(jnp.sum(jnp.square(jnp.abs(scaled)), axis=axes, keepdims=True))
    return (scaled / jnp.where(norm == 0, 1, norm)).astype(x.dtype)


def _svd(x: jax.Array) -> jax.Array:
    """The polar factor on the row space; singular values below rounding are the null space."""
    if x.shape[-2] > x.shape[-1]:
        return _svd(x.swapaxes(-2, -1)).swapaxes(-2, -1)
    highest = jax.lax.Precision.HIGHEST
    finite = jnp.all(jnp.isfinite(x), axis=(-2, -1), keepdims=True)
    x = jnp.where(finite, x, 0)  # from an infinite entry LAPACK may not return
    x = x * power_of_two(jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True))
    u, s, vh = jnp.linalg.svd(x, full_matrices=False)
    tolerance = max(x.shape[-2:]) * jnp.finfo(x.dtype).eps * s[..., :1]
    factor = jnp.matmul(jnp.where((s > tolerance)[..., None, :], u, 0), vh, precision=highest)
    gram = jnp.matmul(x, x.conj().swapaxes(-2, -1), precision=highest)
    orthogonal = jnp.all((gram == 0) | jnp.eye(x.shape[-2], dtype=bool), axis=(-2, -1), keepdims=True)
    norms = jnp.linalg.norm(x, axis=-1, keepdims=True)
    exact = jnp.where(orthogonal, x / jnp.where(norms == 0, 1, norms), factor)
    return jnp.where(finite, exact, jnp.nan)


def _axes(x: jax.Array, side: Axes) -> tuple[int, ...]:
    axes = (side,) if isinstance(side, (int, np.integer)) else tuple(side)
    if not axes or any(not -x.ndim <= i < x.ndim for i in axes):
        raise ValueError(f"msign: axes holds {side!r} for an array of shape {x.shape}, expected axes that it has.")
    return tuple(i % x.ndim for i in axes)


def _check_choice(argument: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        hint = did_you_mean(str(value), choices)
        raise ValueError(f"msign: {argument} is {kind(value)}, expected one of {', '.join(map(repr, choices))}.{hint}")
