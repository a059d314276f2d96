"""Scalar arithmetic that stays right at the edges: counters, decays, norms."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def default_float() -> Any:
    """float32, or float64 where `jax_enable_x64` is set: the dtype of schedules, rates and measurements."""
    return jnp.result_type(float)


def common_dtype(*values: Any) -> Any:
    """The dtype that arrays or dtypes have in common, under strict promotion too: it is chosen here, not come by."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*values)


def is_tracer(x: Any) -> bool:
    """Whether `x` is a value under tracing, whose number is not known yet."""
    return isinstance(x, Tracer)


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

    One pass over the data; a second one, scaled by the largest magnitude, runs only where the first
    overflowed or fell below 1e-30.
    """
    parts = [x for x in map(promote, parts) if x.size]
    if not parts:
        return jnp.zeros((), jnp.float32)
    total = _sum_squares(parts)
    tiny, huge = 1e-30, jnp.finfo(total.dtype).max
    safe = (total > tiny) & (total <= huge)

    def scaled() -> jax.Array:
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x)).astype(total.dtype) for x in parts]))
        usable = (largest > 0) & (largest <= huge)
        unit = jax.lax.stop_gradient(jnp.where(usable, largest, 1))
        squares = _sum_squares([x / unit.astype(real_dtype(x.dtype)) for x in parts])
        return jnp.where(usable, unit * jnp.sqrt(jnp.where(usable, squares, 1)), largest)

    return jax.lax.cond(safe, lambda: jnp.sqrt(total), scaled)


def _sum_squares(parts: list[jax.Array]) -> jax.Array:
    sums = [jnp.sum(abs_sq(x)) for x in parts]
    return jnp.sum(jnp.stack([s.astype(common_dtype(*sums)) for s in sums]))
