"""Scalar arithmetic that stays right at the edges: counters, decays, norms."""

import functools
import math
import operator
from collections.abc import Callable
from typing import TypeGuard, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.core.types import DType, Leaf, Scalar
from gradtx.core.varying import alike

T = TypeVar("T")


def default_float() -> DType:
    """The dtype of schedules, rates and measurements: float32; float64 under `jax_enable_x64`."""
    return jnp.result_type(float)


def common_dtype(*values: Leaf | DType) -> DType:
    """The dtype that arrays or dtypes have in common, under strict promotion too."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*values)


def stacked(numbers: list[jax.Array]) -> jax.Array:
    """Numbers side by side, in the dtype that they have in common."""
    dtype = common_dtype(*numbers)
    return jnp.stack([x.astype(dtype) for x in numbers])


def is_tracer(x: Leaf) -> bool:
    """Whether `x` is a value under tracing, whose number is not known yet."""
    return isinstance(x, Tracer)


def cond(condition: Scalar, if_true: Callable[[], T], if_false: Callable[[], T]) -> T:
    """`jax.lax.cond` without operands; where the condition is known, the branch itself runs.

    Inside `jax.shard_map` the branches may vary over different axes.

    Eager calls of `lax.cond` with branches made on the spot compile anew at every call, and keep
    what they compiled.
    """
    if is_tracer(condition):
        return jax.lax.cond(condition, *alike(condition, if_true, if_false))
    return jax.tree.map(jnp.asarray, if_true() if condition else if_false())


def as_data(number: Scalar) -> Scalar:
    """A Python number as an array without axes; anything else as it is.

    Eager code is then not compiled again for each number.
    """
    return np.asarray(number, float) if isinstance(number, (int, float)) and not isinstance(number, bool) else number


def with_complement(share: Scalar) -> tuple[Scalar, Scalar]:
    """`share` and `1 - share` as data; the difference of a Python number is taken in float64."""
    share = share if isinstance(share, (int, float)) else promote(share)
    return as_data(share), as_data(1 - share)


def is_key(x: Leaf) -> TypeGuard[jax.Array]:
    """Whether `x` is a typed random key."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def safe_increment(count: Scalar) -> jax.Array:
    """`count + 1`; it stays at the integer dtype's largest value and never wraps."""
    count = jnp.asarray(count)
    if not jnp.issubdtype(count.dtype, jnp.integer):
        raise TypeError(f"safe_increment: count is {count.dtype}, expected an integer dtype (float counters stop growing)")
    largest = np.asarray(jnp.iinfo(count.dtype).max, count.dtype)
    return jnp.where(count < largest, count + 1, largest).astype(count.dtype)


def zero_count() -> jax.Array:
    """A step counter at zero: int32, strongly typed."""
    return jnp.zeros((), jnp.int32)


def one_minus_power(decay: Scalar, count: Scalar) -> jax.Array:
    """`1 - decay**count`, the bias correction, as `-expm1(count * log(decay))`.

    In float32 the textbook form loses up to 1e-4 of its value at decay 0.9999; this one 3e-7. A
    Python `decay` takes its logarithm in float64.
    """
    t = jnp.asarray(count).astype(default_float())
    if isinstance(decay, (int, float)):
        if decay == 0:
            return jnp.ones_like(t)
        return -jnp.expm1(t * math.log(decay))
    return -jnp.expm1(t * jnp.log(jnp.asarray(decay).astype(t.dtype)))


def running_mean(m: jax.Array, x: jax.Array, decay: Scalar) -> jax.Array:
    """`decay * m + (1 - decay) * x`; `1 - decay` of a Python `decay` is taken in float64."""
    return decay * m + (1 - decay) * x


def abs_sq(x: jax.Array) -> jax.Array:
    """`|x|**2`, real also for complex `x`, without the square root and its gradient."""
    return x.real * x.real + x.imag * x.imag if jnp.iscomplexobj(x) else jax.lax.square(x)


def moments(g: jax.Array, m: jax.Array, v: jax.Array, b1: Scalar, b2: Scalar) -> tuple[jax.Array, jax.Array]:
    """Running means: `m = b1*m + (1-b1)*g` and `v = b2*v + (1-b2)*|g|^2`."""
    return b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * abs_sq(g)


def first_moment(b1: Scalar, t: jax.Array, nesterov: bool) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """`m_hat` of `g` and `m` at step `t`: `m/(1-b1^t)`.

    With `nesterov` it is `b1*m/(1-b1^(t+1)) + (1-b1)*g/(1-b1^t)`.
    """
    now = one_minus_power(b1, t)
    if not nesterov:
        return lambda g, m: m / now
    ahead = one_minus_power(b1, safe_increment(t))
    return lambda g, m: b1 * m / ahead + (1 - b1) * g / now


def root_plus_eps(v: jax.Array, eps: Scalar, eps_root: Scalar = 0) -> jax.Array:
    """`sqrt(v + eps_root) + eps`; an `eps_root` that is the number 0 costs no addition."""
    inside = v if isinstance(eps_root, (int, float)) and eps_root == 0 else v + eps_root
    return jax.lax.sqrt(inside) + eps


def guarded_ratio(numerator: jax.Array, denominator: jax.Array, eps: Scalar = 0) -> jax.Array:
    """`numerator / denominator`, 0 where the denominator is 0, in value and in derivative.

    Where the denominator holds an `eps` known to be positive, the guard is left out.
    """
    if isinstance(eps, (int, float)) and eps > 1e-30:
        return numerator / denominator
    zero = denominator == 0  # not `> 0`, which would turn a NaN into a silent 0
    return jnp.where(zero, 0, numerator / jnp.where(zero, 1, denominator))


@functools.lru_cache(maxsize=64)
def compute_dtype(dtype: DType) -> DType:
    """The dtype in which a leaf of `dtype` is computed: at least float32.

    Complex dtypes and random keys stay what they are.
    """
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return dtype
    dtype = np.dtype(dtype)
    narrow = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    return np.dtype(np.float32) if narrow else dtype


def promote(x: Leaf) -> jax.Array:
    """`x` in its compute dtype; what is no number (a random key) as it is."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    wide = compute_dtype(x.dtype)
    return x if x.dtype == wide else x.astype(wide)


def real_dtype(dtype: DType) -> DType:
    """The dtype of `|x|` for an `x` of `dtype`."""
    return np.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.complexfloating) else np.dtype(dtype)


def root_sum_squares(parts: list[jax.Array]) -> jax.Array:
    """`sqrt(sum |x|**2)` over all arrays, also where the plain sum would over- or underflow.

    It is computed in at least float32. One pass over the data where the plain sum is in range, and
    on accelerators always: there squares are summed as they are and scaled by exact powers of two,
    and the sum in range is chosen; a branch around a tree would copy it. The derivative is
    `x / norm`, 0 where the norm is 0.
    """
    parts = [x for x in map(promote, parts) if x.size]
    if not parts:
        return jnp.zeros((), jnp.float32)
    norm = _root_sum_squares if any(map(is_tracer, parts)) else _root_sum_squares_compiled
    return norm(parts)


@jax.custom_jvp
def _root_sum_squares(parts: list[jax.Array]) -> jax.Array:
    return jax.lax.platform_dependent(parts, cpu=_plain_first, default=_all_at_once)


def _plain_first(parts: list[jax.Array]) -> jax.Array:
    """On CPUs, where three sums are three passes."""
    dtype = _real_dtype_of(parts)
    total = jnp.sum(jnp.stack([_sum_of_squares(x, dtype) for x in parts]))
    in_range = (total > _TINY) & (total <= jnp.finfo(dtype).max)
    return jax.lax.cond(in_range, lambda: jnp.sqrt(total), lambda: _all_at_once(parts))


def _all_at_once(parts: list[jax.Array]) -> jax.Array:
    dtype = _real_dtype_of(parts)
    info = jnp.finfo(dtype)
    # 2**70 in float32: squares of all normal numbers fit.
    far = np.ldexp(np.ones((), dtype), info.maxexp // 2 + 6)
    plain, small, large = jnp.sum(jnp.stack([_sums_of_squares(x, dtype, far) for x in parts]), axis=0)
    huge, tiny = plain > info.max, plain <= _TINY
    squares = jnp.where(huge, large, jnp.where(tiny, small, plain))
    return jnp.sqrt(squares) * jnp.where(huge, far, jnp.where(tiny, 1 / far, np.ones((), dtype)))


_TINY = 1e-30
"""A sum of squares below this may have lost some of them."""


def _real_dtype_of(parts: list[jax.Array]) -> np.dtype:
    return np.result_type(*{real_dtype(x.dtype) for x in parts})


@_root_sum_squares.defjvp
def _direction(primals: tuple[list[jax.Array]], tangents: tuple[list[jax.Array]]) -> tuple[jax.Array, jax.Array]:
    ((parts,), (moves,)) = primals, tangents
    norm = _root_sum_squares(parts)
    by = jnp.where(norm == 0, 1, norm)
    along = [jnp.sum(((x / by.astype(real_dtype(x.dtype))).conj() * dx).real) for x, dx in zip(parts, moves, strict=True)]
    return norm, jnp.sum(jnp.stack([x.astype(norm.dtype) for x in along]))


@functools.partial(jax.jit, static_argnums=1)
def _sum_of_squares(x: jax.Array, dtype: DType) -> jax.Array:
    return jnp.sum(abs_sq(x)).astype(dtype)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _sums_of_squares(x: jax.Array, dtype: DType, far: np.ndarray) -> jax.Array:
    """The sums of the squares of `x`, `far * x` and `x / far`."""
    sizes = [jnp.abs(part.astype(dtype)) for part in ((x.real, x.imag) if jnp.iscomplexobj(x) else (x,))]
    sums = [[jnp.sum(_square(size * factor)) for size in sizes] for factor in (np.ones_like(far), far, 1 / far)]
    return jnp.stack([functools.reduce(operator.add, one) for one in sums])


def _square(size: jax.Array) -> jax.Array:
    """`size**2` of a size >= 0.

    XLA would make a plain `(x * c)**2` the product `x**2 * c**2`, which can be inf times 0.
    """
    return size * jnp.maximum(size, 0)


# Eager calls: one program for a tree, not one for a leaf.
_root_sum_squares_compiled = jax.jit(_root_sum_squares)
