"""`msign` of many matrices at once, as the platform runs them fastest."""

import collections
import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from gradtx.core.numerics import is_tracer, promote
from gradtx.core.platforms import on_platform
from gradtx.core.types import DType, Scalar
from gradtx.linalg.msign import Recipe, apply_plan

STACK_ELEMENTS = {"gpu": 2**27, "tpu": 2**19}
"""Most elements in one stack.

On GPU 0.5 GiB in float32; its Gram matrices and intermediates take a few times that. On TPU 2 MiB:
what all steps need then stays in the fast memory (128 MiB on v5e), and a matrix that fills the
unit runs alone; larger stacks go through the slow memory at every step.
"""

LOOP_FROM = 24
"""On CPU, from how many matrices of one shape on a compiled loop replaces them.

Compiling each of them costs more than copying.
"""

Run = Callable[[jax.Array], jax.Array]


def msign_many(stacks: Sequence[jax.Array], recipe: Recipe, eps: Scalar = 0.0) -> list[jax.Array]:
    """`msign` of each stack `(batch, n, m)`.

    On CPU a product of two single matrices is the fastest, so matrices run one by one. On GPU and
    TPU small products leave the device idle, so all matrices of one shape (a tall one counts as its
    transpose) run as one stack.

    Args:
      stacks: arrays of three axes, each a batch of matrices.
      recipe: how.
      eps: added to the norms, as in `msign`.
    """
    return (_many_traced if any(map(is_tracer, stacks)) else _many)(list(stacks), recipe, eps)


def _many(stacks: list[jax.Array], recipe: Recipe, eps: Scalar) -> list[jax.Array]:
    def on(platform: str, stacks: list[jax.Array]) -> list[jax.Array]:
        run = functools.partial(_run, recipe=recipe, platform=platform, eps=eps)
        return _one_by_one(stacks, run) if platform == "cpu" else _stacked(stacks, run, STACK_ELEMENTS[platform])

    return on_platform(on, stacks)


# So that eager calls under a transformation, such as `vmap`, compile once.
_many_traced = jax.jit(_many, static_argnums=1)


def _one_by_one(stacks: Sequence[jax.Array], run: Run) -> list[jax.Array]:
    times = collections.Counter((x.shape, x.dtype) for x in stacks)
    many = {key for key, count in times.items() if count >= LOOP_FROM}
    results: dict[int, jax.Array] = {}
    for shape, dtype in sorted(many, key=str):
        members = [i for i, x in enumerate(stacks) if (x.shape, x.dtype) == (shape, dtype)]
        # Without the barrier, what made them would be compiled into one large loop.
        apart = jax.lax.optimization_barrier([stacks[i] for i in members])
        together = run(jnp.concatenate(apart))
        for i, part in zip(members, equal_parts(together, len(members)), strict=True):
            results[i] = part
    for i, x in enumerate(stacks):
        if i not in results:
            results[i] = run(x[0])[None] if x.shape[0] == 1 else run(x)
    return [results[i] for i in range(len(stacks))]


def equal_parts(stack: jax.Array, count: int) -> list[jax.Array]:
    """`jnp.split(stack, count)`, in programs that compile quickly on CPU.

    XLA compiles each slice at a constant place as a kernel of its own, 8 ms each, but equal kernels
    only once. Places that it does not know before the program runs make the slices equal: they come
    out of a conditional whose condition always holds.
    """
    if not stack.size:
        return jnp.split(stack, count)
    size, some = stack.shape[0] // count, stack.ravel()[0].real
    always = (some < 0) | (some >= 0) | jnp.isnan(some)
    starts = [i * size for i in range(count)]
    places = jax.lax.cond(always, lambda: [jnp.int32(i) for i in starts], lambda: [jnp.int32(0) for _ in starts])
    return [jax.lax.dynamic_slice_in_dim(stack, place, size) for place in places]


def _stacked(stacks: Sequence[jax.Array], run: Run, most: int) -> list[jax.Array]:
    groups: dict[tuple[tuple[int, ...], DType], list[int]] = collections.defaultdict(list)
    for i, x in enumerate(stacks):
        groups[tuple(sorted(x.shape[1:])), x.dtype].append(i)
    results: list[list[jax.Array]] = [[] for _ in stacks]
    for members in groups.values():
        for part in _bounded([(i, len(stacks[i])) for i in members], most // max(math.prod(stacks[members[0]].shape[1:]), 1)):
            wide = [_wide(stacks[i][start:end]) for i, start, end in part]
            signs = run(jnp.concatenate(wide) if len(wide) > 1 else wide[0])
            ends = list(itertools.accumulate(map(len, wide), initial=0))
            for (i, *_), first, last in zip(part, ends[:-1], ends[1:], strict=True):
                sign = signs[first:last]
                results[i].append(sign if sign.shape[1:] == stacks[i].shape[1:] else _turned(sign))
    return [jnp.concatenate(parts) if len(parts) > 1 else parts[0] for parts in results]


def _wide(x: jax.Array) -> jax.Array:
    return x if x.shape[1] <= x.shape[2] else _turned(x)


def _turned(x: jax.Array) -> jax.Array:
    """The transposes, made here.

    Left to itself, XLA lays out all that the matrices come from and go to the other way round.
    """
    return jax.lax.optimization_barrier(jax.lax.optimization_barrier(x).swapaxes(1, 2))


def _bounded(members: list[tuple[int, int]], most: int) -> list[list[tuple[int, int, int]]]:
    """Members `(i, size)` as runs of parts `(i, start, end)`, of at most `most` matrices."""
    runs: list[list[tuple[int, int, int]]] = [[]]
    room = most = max(most, 1)
    for i, size in members:
        start = 0
        while True:
            end = min(size, start + room)
            runs[-1].append((i, start, end))
            room -= end - start
            start = end
            if start == size:
                break
            runs.append([])
            room = most
        if not room:
            runs.append([])
            room = most
    return [run for run in runs if run]


def _run(x: jax.Array, recipe: Recipe, platform: str, eps: Scalar) -> jax.Array:
    n, m = x.shape[-2:]
    return apply_plan(x, recipe.plan(n, m, promote(x).dtype, platform), eps) if x.size else x
