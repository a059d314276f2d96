"""Arrays in 8 or 4 bits an element: by blocks, each with a scale, in nonlinear codes."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.core.numerics import is_tracer
from gradtx.core.types import Leaf
from gradtx.storage.rounding import noise_like

ROW = 64
"""A block that is shorter takes in the axis before it."""
LONGEST = 2**15
"""A longer row is cut, if no size is asked for."""
OF_VECTORS = 256
"""The same for vectors."""

FEW = 32
"""A longer axis XLA for CPUs reduces in windows of so many."""


class Code(NamedTuple):
    """Whole levels that are stored: roots, so that they are close where numbers are small."""

    signed: bool
    dtype: type

    def most(self, bits: int) -> int:
        """The highest level, that of the scale."""
        return 2 ** (bits - self.signed) - 1


CODES = {"moment": Code(True, jnp.int8), "squares": Code(False, jnp.uint8)}


def scales_shape(x: Leaf, block_size: int | None) -> tuple[int, ...]:
    """The shape of the scales of an array: its first axes, and the number of blocks in the others.

    A block is a row of the last axis, or its part on one device where types or arrays say how they
    lie. A short row takes in axes before it that no device cuts; a long one is cut.
    """
    shape, spec = np.shape(x), _spec(x)
    axes, longest = 1, block_size or (OF_VECTORS if len(shape) == 1 else LONGEST)
    while axes < len(shape) and math.prod(shape[-axes:]) < ROW and not any(spec[-axes - 1 :]):
        if math.prod(shape[-axes - 1 :]) > longest:
            break
        axes += 1
    length, least = math.prod(shape[-axes:]), _devices(x, spec[-1])
    for parts in range(least, length + 1, least):
        if length % parts == 0 and length // parts <= longest:
            whole = length // parts < min(ROW, longest)  # cut into crumbs: better in one piece
            return (*shape[: len(shape) - axes], least if whole else parts)
    return (*shape[: len(shape) - axes], 1)


def _sharding(x: Leaf) -> NamedSharding | None:
    own = jax.typeof(x).sharding if is_tracer(x) else getattr(x, "sharding", None)
    return own if isinstance(own, NamedSharding) else None


def _spec(x: Leaf) -> tuple[str | tuple[str, ...] | None, ...]:
    """The mesh axes along which each axis of an array is cut, as far as they are known."""
    own = _sharding(x)
    spec = () if own is None else tuple(own.spec)
    return spec + (None,) * (np.ndim(x) - len(spec))


def _devices(x: Leaf, names: str | tuple[str, ...] | None) -> int:
    """How many devices share an axis."""
    own = _sharding(x)
    if own is None or not names:
        return 1
    return math.prod(own.mesh.shape[name] for name in ((names,) if isinstance(names, str) else names))


@functools.partial(jax.jit, static_argnums=(1, 2))
def largest(x: jax.Array, shape: tuple[int, ...], platform: str = "") -> jax.Array:
    """The scales of an array: the largest absolute value of each block. `shape` is theirs.

    XLA for CPUs stores what a reduction reads, unless it is of few elements. Maxima of whole
    numbers take vector instructions, and the bits of positive numbers are ordered as they are.
    """
    blocks = _in_blocks(jnp.abs(x), shape)
    axes, length = _within(blocks, shape), blocks.shape[-1]
    if platform == "cpu" and length > FEW:
        bits = jax.lax.bitcast_convert_type(blocks, f"int{8 * x.dtype.itemsize}")
        part = next(part for part in range(FEW, 0, -1) if length % part == 0)
        parts = _reshaped(bits, (*bits.shape[:-1], length // part, part), (*jax.typeof(bits).sharding.spec, None))
        blocks = jax.lax.bitcast_convert_type(jnp.max(parts, axis=-1), x.dtype)
    return jnp.max(blocks, axis=axes).reshape(shape)


@functools.partial(jax.jit, static_argnums=2)
def encode(x: jax.Array, scales: jax.Array, kind: str, seed: jax.Array | None) -> jax.Array:
    """The codes of an array in 8 bits."""
    return _levels(x, scales, CODES[kind], 8, seed).astype(CODES[kind].dtype)


@functools.partial(jax.jit, static_argnums=2)
def decode(codes: jax.Array, scales: jax.Array, kind: str) -> jax.Array:
    """The array that codes and scales stand for, in the dtype of the scales."""
    return _numbers(codes, scales, CODES[kind], 8)


@jax.jit
def encode_pair(
    m: jax.Array, v: jax.Array, m_scales: jax.Array, v_scales: jax.Array, seeds: tuple[jax.Array | None, ...]
) -> jax.Array:
    """The codes of a moment and squares of one shape in 4 bits each, which share a byte."""
    low, high = _levels(m, m_scales, CODES["moment"], 4, seeds[0]), _levels(v, v_scales, CODES["squares"], 4, seeds[1])
    return ((low + 8) | (high << 4)).astype(jnp.uint8)


@jax.jit
def decode_pair(codes: jax.Array, m_scales: jax.Array, v_scales: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The moment and the squares that share bytes."""
    low, high = (codes & np.uint8(15)).astype(jnp.int32) - 8, codes >> np.uint8(4)
    return _numbers(low, m_scales, CODES["moment"], 4), _numbers(high, v_scales, CODES["squares"], 4)


def _levels(x: jax.Array, scales: jax.Array, code: Code, bits: int, seed: jax.Array | None) -> jax.Array:
    """Whole levels of an array, in int32, to the nearest, or with a seed at random.

    No positive square gets level 0: steps are divided by it.
    """
    shape, most = scales.shape, code.most(bits)
    blocks = _in_blocks(x, shape)
    part = blocks * _of_blocks(1 / jnp.where(scales == 0, 1, scales), blocks)
    root = (jnp.sqrt(jnp.abs(part)) * most).astype(jnp.float32)
    # From 256 to 512 the bits of a float32 number are those of a whole number of 2^-15.
    fixed = jax.lax.bitcast_convert_type(root + np.float32(256), jnp.int32) - np.float32(256).view(np.int32)
    more = np.int32(2**14) if seed is None else (noise_like(blocks, seed) >> np.uint32(17)).astype(jnp.int32)
    level = jnp.minimum((fixed + more) >> 15, most)
    level = jnp.where(part < 0, -level, level) if code.signed else jnp.where(part > 0, jnp.maximum(level, 1), level)
    return _in_rows(level, shape)


def _numbers(levels: jax.Array, scales: jax.Array, code: Code, bits: int) -> jax.Array:
    blocks = _in_blocks(levels.astype(jnp.int32), scales.shape)
    part = (blocks * jnp.abs(blocks)).astype(scales.dtype) * (1 / code.most(bits) ** 2)
    return _in_rows(_of_blocks(scales, blocks) * part, scales.shape)


def _of_blocks(scales: jax.Array, blocks: jax.Array) -> jax.Array:
    """Scales in a shape that broadcasts to their blocks."""
    shape = scales.shape
    if shape[-1] == 1:
        return scales.reshape(*shape[:-1], *(1 for _ in _within(blocks, shape)))
    return scales[..., None]


def _within(blocks: jax.Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes inside a block."""
    return tuple(range(len(shape) - 1, blocks.ndim)) if shape[-1] == 1 else (blocks.ndim - 1,)


def _in_blocks(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The last axis cut into blocks, if there are several.

    XLA for TPUs moves all of an array to cut its rows.
    """
    if shape[-1] == 1:
        return x
    spec = jax.typeof(x).sharding.spec
    return _reshaped(x, (*shape, x.shape[-1] // shape[-1]), (*spec, None))


def _in_rows(blocks: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """What `_in_blocks` cut in one piece again."""
    if shape[-1] == 1:
        return blocks
    return _reshaped(blocks, (*shape[:-1], shape[-1] * blocks.shape[-1]), jax.typeof(blocks).sharding.spec[:-1])


def _reshaped(x: jax.Array, shape: tuple[int, ...], spec: tuple) -> jax.Array:
    own = jax.typeof(x).sharding
    return jax.lax.reshape(x, shape, out_sharding=NamedSharding(own.mesh, PartitionSpec(*spec)) if any(spec) else None)
