"""Branches and loops inside `jax.shard_map`, where types say over which axes a value varies.

JAX wants one type on both ways of a branch, and before and after each turn of a loop. What a value
meets may vary over more axes than it does: zeros that gather gradients, a count in a loop that each
device ends by itself. Outside of `shard_map`, and where its checks are off, nothing varies and
nothing happens here.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from gradtx.core.types import Leaf, Scalar, Tree

Axes = frozenset[str]
T = TypeVar("T")


def alike(condition: Scalar, *branches: Callable[[], T]) -> tuple[Callable[[], T], ...]:
    """The branches of a condition; results vary over the axes of the condition and of either."""
    if not _in_shard_map():
        return branches
    results = [jax.eval_shape(branch) for branch in branches]
    axes = jax.tree.map(lambda *xs: axes_of(condition).union(*map(axes_of, xs)), *results)
    return tuple(lambda branch=branch: jax.tree.map(_spread, branch(), axes) for branch in branches)


def while_loop(condition: Callable[[T], Scalar], step: Callable[[T], T], start: T) -> T:
    """`jax.lax.while_loop`, also from a start that varies over fewer axes than what follows."""
    if not _in_shard_map():
        return jax.lax.while_loop(condition, step, start)

    def turn(carry: T) -> T:
        ends = axes_of(condition(carry))
        return jax.tree.map(lambda x: _spread(x, ends), step(carry))

    start = _steady(turn, start)
    return jax.lax.while_loop(condition, lambda carry: _spread_like(turn(carry), start), start)


def scan(step: Callable[[T, Tree], tuple[T, Tree]], start: T, xs: Tree, *, reverse: bool = False) -> tuple[T, Tree]:
    """`jax.lax.scan` of at least one element, also from a start that varies over fewer axes."""
    if not _in_shard_map():
        return jax.lax.scan(step, start, xs, reverse=reverse)
    first = jax.tree.map(lambda x: x[0], xs)
    start = _steady(lambda carry: step(carry, first)[0], start)

    def turn(carry: T, x: Tree) -> tuple[T, Tree]:
        carry, y = step(carry, x)
        return _spread_like(carry, start), y

    return jax.lax.scan(turn, start, xs, reverse=reverse)


def axes_of(x: Leaf) -> Axes:
    """The axes of the mesh over which an array, or what `jax.eval_shape` gives for one, varies."""
    found = getattr(x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x), "manual_axis_type", None)
    return frozenset() if found is None else found.varying


def _in_shard_map() -> bool:
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def _steady(step: Callable[[T], T], start: T) -> T:
    """The start of a loop, with the axes that its values have in the end."""
    before, after = None, jax.tree.map(axes_of, start)
    while before != after:
        before, start = after, jax.tree.map(_spread, start, after)
        after = jax.tree.map(lambda x, y: axes_of(x) | axes_of(y), start, jax.eval_shape(step, start))
    return start


def _spread_like(tree: Tree, like: Tree) -> Tree:
    return jax.tree.map(lambda x, y: _spread(x, axes_of(y)), tree, like)


def _spread(x: Leaf, axes: Axes) -> Leaf:
    missing = axes - axes_of(x)
    return jax.lax.pcast(jnp.asarray(x), tuple(sorted(missing, key=str)), to="varying") if missing else x
