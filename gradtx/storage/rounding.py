"""Rounding to fewer bits: to the nearest number or at random, and a float32 number in two parts."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.types import DType


def nearest(x: jax.Array, dtype: DType) -> jax.Array:
    """The number of `dtype` that is nearest to `x`, in the dtype of `x`.

    XLA may leave out a cast there and back.
    """
    kept = jnp.finfo(dtype)
    rounded = jax.lax.reduce_precision(x, kept.nexp, kept.nmant)
    if kept.minexp <= jnp.finfo(x.dtype).minexp:
        return rounded
    step = float(kept.smallest_subnormal)  # the grid below normal numbers, which reduce_precision leaves out
    return jnp.where(jnp.abs(x) < float(kept.tiny), jnp.round(x / step) * step, rounded)


def stochastic(x: jax.Array, dtype: DType, noise: jax.Array) -> jax.Array:
    """One of the two numbers of `dtype` around a float32 `x`, in float32, so that the mean is `x`.

    What is not finite stays. `noise` is uniform in uint32.
    """
    kept = jnp.finfo(dtype)
    cut = np.uint32(23 - kept.nmant)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + (noise >> (np.uint32(32) - cut))
    rounded = jax.lax.bitcast_convert_type(bits >> cut << cut, jnp.float32)
    if kept.minexp > -126:
        step = float(kept.smallest_subnormal)
        below = jnp.floor(x / step + (noise >> np.uint32(8)).astype(jnp.float32) * np.float32(2.0**-24)) * step
        rounded = jnp.where((jnp.abs(x) < float(kept.tiny)) & (x != 0), below, rounded)
    return jnp.where(jnp.isfinite(x), rounded, x)


def noise_like(x: jax.Array, seed: jax.Array) -> jax.Array:
    """Uniform numbers in uint32, of the shape of `x`, laid out as it is: a hash of place and seed.

    A dozen integer operations an element, which XLA fuses with what uses them; `jax.random.bits`
    takes about a hundred. The hash is the finalizer of Appleby's MurmurHash3. Rounding needs no
    more.
    """
    place = seed.astype(jnp.uint32)
    sharding = jax.typeof(x).sharding
    for axis in range(x.ndim):
        count = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis, out_sharding=sharding)
        place = place + count * np.uint32(0x9E3779B9 * math.prod(x.shape[axis + 1 :]) % 2**32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        place = (place ^ (place >> np.uint32(shift))) * np.uint32(factor)
    return place ^ (place >> np.uint32(16))


def split(x: jax.Array, dtype: DType) -> tuple[jax.Array, jax.Array]:
    """A float32 number as a bfloat16 one, in float32, and the bits behind it, in int16 or int8.

    With int16 the two are `x`, bit for bit; with int8 the nearest number of 24 bits, within 2^-16
    of `x`. The first is the nearest of bfloat16; of two that are equally near, the larger.

    Floats of one sign are ordered as the integers of their bits are, so that a sum of integers
    carries into the exponent where it has to.
    """
    shift = 16 - 8 * np.dtype(dtype).itemsize
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    bits = bits + np.uint32(1 << shift >> 1) >> np.uint32(shift)
    high = bits + np.uint32(1 << 15 - shift) >> np.uint32(16 - shift)
    top = jax.lax.bitcast_convert_type(high << np.uint32(16), jnp.float32)
    top = jnp.where(jnp.isnan(x), x, top)
    return top, rest_of(x, top, dtype)


def rest_of(x: jax.Array, top: jax.Array, dtype: DType) -> jax.Array:
    """The bits of a float32 `x` behind a bfloat16 `top` near it, in int16 or int8.

    The most that there are where `top` is not the nearest, and none where its sign is another.
    """
    shift, limits = 16 - 8 * np.dtype(dtype).itemsize, np.iinfo(dtype)
    bits, near = (jax.lax.bitcast_convert_type(jnp.abs(y), jnp.int32) for y in (x, top))
    rest = jnp.clip((bits + np.int32(1 << shift >> 1) >> shift) - (near >> shift), limits.min, limits.max)
    return jnp.where((jnp.signbit(x) != jnp.signbit(top)) | jnp.isnan(x), 0, rest).astype(dtype)


def joined(top: jax.Array, rest: jax.Array) -> jax.Array:
    """The float32 number of the two parts that `split` gives; `top` may be in bfloat16.

    Of parts that do not belong together, a number near `top`, and never NaN.
    """
    bits = jax.lax.bitcast_convert_type(top.astype(jnp.float32), jnp.uint32)
    sign, size = bits & np.uint32(1 << 31), (bits & np.uint32(2**31 - 1)).astype(jnp.int32)
    size = jnp.clip(size + (rest.astype(jnp.int32) << (16 - 8 * rest.dtype.itemsize)), 0, _INFINITY).astype(jnp.uint32)
    return jnp.where(jnp.isnan(top), jnp.nan, jax.lax.bitcast_convert_type(size | sign, jnp.float32))


_INFINITY = np.int32(0x7F800000)
"""The bits of inf in float32."""
