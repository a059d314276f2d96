"""Scalar arithmetic that stays right at the edges: counters, decays, norms."""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def default_float() -> Any:
    """float32, or float64 where `jax_enable_x64` is set: the dtype of schedules, rates and measurements."""
    return jnp.result_type(float)


def is_tracer(x: Any) -> bool:
    """Whether `x` is a value under tracing, whose number is not known yet."""
    return isinstance(x, Tracer)


def cond(condition: Any, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """`jax.lax.cond` for two branches without operands; where the condition is known, the branch itself runs.

    Eager calls of `lax.cond` with branches made on the spot compile anew at every call, and keep what they compiled.
    """
    if is_tracer(condition):
        return jax.lax.cond(condition, if_true, if_false)
    return jax.tree.map(jnp.asarray, if_true() if condition else if_false())


def as_data(number: Any) -> Any:
    """A Python number as an array without axes, so that eager code is not compiled again for each number; all else as it is."""
    return np.asarray(number, float) if isinstance(number, (int, float)) and not isinstance(number, bool) else number


def with_complement(share: Any) -> tuple[Any, Any]:
    """`share` and `1 - share` as data; the difference of a Python number is taken in float64."""
    if not isinstance(share, (int, float)):
        share = promote(share)
    return as_data(share), as_data(1 - share)


def is_key(x: Any) -> bool:
    """Whether `x` is a typed random key."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def safe_increment(count: Any) -> jax.Array:
    """`count + 1`, staying at the integer dtype's largest value instead of wrapping to a negative one."""
    count = jnp.asarray(count)
    if not jnp.issubdtype(count.dtype, jnp.integer):
        raise TypeError(f"safe_increment: count is {count.dtype}, expected an integer dtype (float counters stop growing)")
    largest = np.asarray(jnp.iinfo(count.dtype).max, count.dtype)
    return jnp.where(count < largest, count + 1, largest).astype(count.dtype)


def zero_count() -> jax.Array:
    """A step counter at zero: int32, strongly typed."""
    return jnp.zeros((), jnp.int32)


def one_minus_power(decay: Any, count: Any) -> jax.Array:
    """`1 - decay**count`, the bias correction, as `-expm1(count * log(decay))`.

    In float32 the textbook form loses up to 1e-4 of its value at decay 0.9999; this one 3e-7. A Python
    `decay` takes its logarithm in float64.
    """
    t = jnp.asarray(count).astype(default_float())
    if isinstance(decay, (int, float)):
        if decay == 0:
            return jnp.ones_like(t)
        return -jnp.expm1(t * math.log(decay))
    return -jnp.expm1(t * jnp.log(jnp.asarray(decay).astype(t.dtype)))


def abs_sq(x: jax.Array) -> jax.Array:
    """`|x|**2`, real also for complex `x`, without the square root and its gradient."""
    if jnp.iscomplexobj(x):
        return x.real * x.real + x.imag * x.imag
    return x * x


def guarded_ratio(numerator: jax.Array, denominator: jax.Array, eps: Any = 0) -> jax.Array:
    """`numerator / denominator`, 0 where the denominator is 0, in value and in derivative.

    Where the denominator holds an `eps` known to be positive, the guard is left out.
    """
    if isinstance(eps, (int, float)) and eps > 1e-30:
        return numerator / denominator
    zero = denominator == 0  # not `> 0`, which would turn a NaN into a silent 0
    return jnp.where(zero, 0, numerator / jnp.where(zero, 1, denominator))


def compute_dtype(dtype: Any) -> Any:
    """The dtype in which a leaf of `dtype` is computed: at least float32; complex stays complex."""
    dtype = np.dtype(dtype)
    narrow = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    return np.dtype(np.float32) if narrow else dtype


def promote(x: Any) -> jax.Array:
    """`x` in its compute dtype; what is no number (a random key) as it is."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    wide = compute_dtype(x.dtype)
    return x if x.dtype == wide else x.astype(wide)


def real_dtype(dtype: Any) -> Any:
    """The dtype of `|x|` for an `x` of `dtype`."""
    return np.finfo(dtype).dtype if jnp.issubdtype(dtype, jnp.complexfloating) else np.dtype(dtype)


def root_sum_squares(parts: list[jax.Array]) -> jax.Array:
    """`sqrt(sum |x|**2)` over all arrays, in at least float32, where a plain sum of squares would over- or underflow too.

    Branch-free: a plain sum chooses the power of two by which the sum that counts is scaled, 1 where the plain one is in range.
    The derivative is finite wherever the arrays are, and 0 at zero.
    """
    parts = [x for x in map(promote, parts) if x.size]
    if not parts:
        return jnp.zeros((), jnp.float32)
    dtype = np.result_type(*{real_dtype(x.dtype) for x in parts})
    norm = _root_sum_squares if any(map(is_tracer, parts)) else _root_sum_squares_compiled
    return norm(dtype, parts)


def _root_sum_squares(dtype: Any, parts: list[jax.Array]) -> jax.Array:
    unit = _unit(_sum_squares(dtype, jax.lax.stop_gradient(parts), np.ones((), dtype)))
    squares = _sum_squares(dtype, parts, unit)
    zero = squares == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares)) * unit)


def _unit(squares: jax.Array) -> jax.Array:
    """The power of two that brings what has this sum of squares where its sum of squares is in range."""
    info = jnp.finfo(squares.dtype)
    up = np.ldexp(np.ones((), squares.dtype), info.maxexp // 2 + 6)  # 2**70 in float32: squares of all normal numbers fit
    return jnp.where(squares > info.max, up, jnp.where(squares <= 1e-30, 1 / up, 1)).astype(squares.dtype)


def _sum_squares(dtype: Any, parts: list[jax.Array], unit: Any) -> jax.Array:
    return jnp.sum(jnp.stack([_sum_squares_of(dtype, x, unit) for x in parts]))


@functools.partial(jax.jit, static_argnums=0)
def _sum_squares_of(dtype: Any, x: jax.Array, unit: Any) -> jax.Array:
    # Not times `1 / unit`: XLA makes `(x * c) * (x * c)` a product of the squares where one of both is constant, inf times 0.
    components = (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)
    return functools.reduce(operator.add, [jnp.sum(jnp.square(part.astype(dtype) / unit)) for part in components])


_root_sum_squares_compiled = jax.jit(_root_sum_squares, static_argnums=0)  # eager calls: one program for a tree, not one for a leaf
