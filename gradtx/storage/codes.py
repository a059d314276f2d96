"""Arrays in 8 or 4 bits an element: by blocks, each with a scale, in nonlinear codes."""

import functools
import math
from collections.abc import Callable
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


class Code(NamedTuple):
    """Between numbers, in units of the largest of their block, and the levels that are stored."""

    signed: bool
    level_of: Callable[[jax.Array], jax.Array]
    number_of: Callable[[jax.Array], jax.Array]


CODES = {
    "moment": Code(True, lambda x: jnp.sign(x) * jnp.sqrt(jnp.abs(x)), lambda y: y * jnp.abs(y)),
    "squares": Code(False, jnp.sqrt, jnp.square),
}
"""Levels are of roots, so that they are close where numbers are small."""


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
def encode(x: jax.Array, kind: str, shape: tuple[int, ...], seed: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The codes of an array in 8 bits, and the scales of its blocks, of the shape given."""
    levels, scales = _levels(x, CODES[kind], shape, 8, seed)
    return levels.astype(jnp.int8 if CODES[kind].signed else jnp.uint8), scales


@functools.partial(jax.jit, static_argnums=2)
def decode(codes: jax.Array, scales: jax.Array, kind: str) -> jax.Array:
    """The array that codes and scales stand for, in the dtype of the scales."""
    return _numbers(codes, scales, CODES[kind], 8)


@functools.partial(jax.jit, static_argnums=2)
def encode_pair(
    m: jax.Array, v: jax.Array, shape: tuple[int, ...], seeds: tuple[jax.Array | None, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A moment and squares of one shape in 4 bits each, which share a byte, and their scales."""
    low, m_scales = _levels(m, CODES["moment"], shape, 4, seeds[0])
    high, v_scales = _levels(v, CODES["squares"], shape, 4, seeds[1])
    return (low + 8).astype(jnp.uint8) | (high.astype(jnp.uint8) << np.uint8(4)), m_scales, v_scales


@jax.jit
def decode_pair(codes: jax.Array, m_scales: jax.Array, v_scales: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The moment and the squares that share bytes."""
    low, high = (codes & np.uint8(15)).astype(jnp.int32) - 8, codes >> np.uint8(4)
    return _numbers(low, m_scales, CODES["moment"], 4), _numbers(high, v_scales, CODES["squares"], 4)


def _most(code: Code, bits: int) -> int:
    """The highest level."""
    return 2 ** (bits - code.signed) - 1


def _levels(x: jax.Array, code: Code, shape: tuple[int, ...], bits: int, seed: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Whole levels of an array, and the scales.

    No positive square gets level 0: steps are divided by it.
    """
    blocks = _in_blocks(x, shape)
    scales = jnp.max(jnp.abs(blocks), axis=_within(blocks, shape), keepdims=True)
    level = _most(code, bits) * code.level_of(blocks * (1 / jnp.where(scales == 0, 1, scales)))
    if seed is None:
        level = jnp.round(level)
    else:
        level = jnp.floor(level + (noise_like(blocks, seed) >> np.uint32(8)).astype(level.dtype) * 2.0**-24)
    if not code.signed:
        level = jnp.where(blocks > 0, jnp.maximum(level, 1), level)
    return _in_rows(level, shape), scales.reshape(shape)


def _numbers(levels: jax.Array, scales: jax.Array, code: Code, bits: int) -> jax.Array:
    shape, blocks = scales.shape, _in_blocks(levels.astype(scales.dtype), scales.shape)
    whole = shape[-1] == 1
    scales = scales.reshape(*shape[:-1], *(1 for _ in _within(blocks, shape))) if whole else scales[..., None]
    return _in_rows(scales * code.number_of(blocks * (1 / _most(code, bits))), shape)


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
