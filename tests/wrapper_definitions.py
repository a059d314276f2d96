"""What each wrapper does, in plain Python and by concrete numbers: the other side of the pairwise tests."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Plain(NamedTuple):
    """`init` and `update` by concrete numbers: Python's own `if`, no tracing."""

    init: Callable[[Any], Any]
    update: Callable[..., Any]


def tree(f: Any, *trees: Any) -> Any:
    return jax.tree.map(f, *trees)


def zeros(g: Any) -> Any:
    return tree(jnp.zeros_like, g)


def accumulate(inner: Any) -> Plain:
    def update(g: Any, s: Any, p: Any, **extra: Any) -> Any:
        n, total, state = s
        total = g if n == 0 else tree(jnp.add, total, g)
        if n == 0:
            return zeros(g), (1, total, state)
        u, state = inner.update(tree(lambda x: x / 2, total), state, p, **extra)
        return u, (0, None, state)

    return Plain(lambda p: (0, None, inner.init(p)), update)


def skip(inner: Any) -> Plain:
    def update(g: Any, s: Any, p: Any, **extra: Any) -> Any:
        finite = all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(g))
        return inner.update(g, s, p, **extra) if finite else (zeros(g), s)

    return Plain(inner.init, update)


def lookahead(inner: Any) -> Plain:
    def update(g: Any, s: Any, p: Any, **extra: Any) -> Any:
        n, slow, state = s
        u, state = inner.update(g, state, p, **extra)
        if n < 2:
            return u, (n + 1, slow, state)
        slow = tree(lambda phi, x, d: phi + 0.5 * (x + d - phi), slow, p, u)
        return tree(jnp.subtract, slow, p), (0, slow, state)

    return Plain(lambda p: (0, p, inner.init(p)), update)


def cautious(inner: Any) -> Plain:
    def masked(u: Any, g: Any) -> Any:
        mask = u * g < 0
        return u * mask / max(float(mask.mean()), 1e-3)

    def update(g: Any, s: Any, p: Any, **extra: Any) -> Any:
        u, s = inner.update(g, s, p, **extra)
        return tree(masked, u, g), s

    return Plain(inner.init, update)


def sam(inner: Any) -> Plain:
    def update(g: Any, s: Any, p: Any, *, grad_fn: Any, **extra: Any) -> Any:
        norm = jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(g)))
        point = tree(lambda x, y: x + 0.1 * y / norm, p, g) if norm > 0 else p
        return inner.update(grad_fn(point), s, p, **extra)

    return Plain(inner.init, update)


def length(*trees: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(trees)))


def dot(a: Any, b: Any) -> jax.Array:
    return sum(jax.tree.leaves(tree(lambda x, y: jnp.sum(x * y), a, b)), jnp.zeros(()))


def uphill(g: Any, p: Any, grad_fn: Any) -> Any:
    """SAM's gradient."""
    norm = length(g)
    return grad_fn(tree(lambda x, y: x + 0.1 * y / norm, p, g) if norm > 0 else p)


def asam(inner: Any) -> Plain:
    def update(g: Any, s: Any, p: Any, *, grad_fn: Any, **extra: Any) -> Any:
        t = tree(lambda x: jnp.abs(x) + 0.01 if x.ndim > 1 else jnp.ones_like(x), p)
        h = tree(jnp.multiply, t, g)
        norm = length(h)
        point = tree(lambda x, t, h: x + 0.1 * t * h / norm, p, t, h) if norm > 0 else p
        return inner.update(grad_fn(point), s, p, **extra)

    return Plain(inner.init, update)


def gsam(inner: Any) -> Plain:
    def update(g: Any, s: Any, p: Any, *, grad_fn: Any, **extra: Any) -> Any:
        worst = uphill(g, p, grad_fn)
        share = dot(g, worst) / dot(worst, worst) if length(worst) > 0 else 0.0
        return inner.update(tree(lambda w, x: w - 0.4 * (x - share * w), worst, g), s, p, **extra)

    return Plain(inner.init, update)


def looksam(inner: Any) -> Plain:
    def update(g: Any, s: Any, p: Any, *, grad_fn: Any, **extra: Any) -> Any:
        n, turn, state = s
        if n == 0:
            worst = uphill(g, p, grad_fn)
            across = tree(lambda w, x: w - dot(g, worst) / dot(g, g) * x, worst, g) if length(g) > 0 else zeros(g)
            size = length(across)
            turn = tree(lambda x: x / size, across) if size > 1e-13 else zeros(g)
            out = worst
        else:
            size = length(g)
            out = tree(lambda x, v: x + 0.7 * size * v, g, turn)
        u, state = inner.update(out, state, p, **extra)
        return u, ((n + 1) % 2, turn, state)

    return Plain(lambda p: (0, zeros(p), inner.init(p)), update)


def momentum_sam(inner: Any) -> Plain:
    def away(v: Any) -> Any:
        size = length(v)
        return tree(lambda x: 0.1 * x / size if size > 0 else 0 * x, v)

    def update(g: Any, s: Any, p: Any, **extra: Any) -> Any:
        v, state = s
        clean = tree(jnp.add, p, away(v))
        u, state = inner.update(g, state, clean, **extra)
        v = tree(lambda m, x: 0.9 * m + x, v, g)
        return tree(lambda w, d, e, x: w + d - e - x, clean, u, away(v), p), (v, state)

    return Plain(lambda p: (zeros(p), inner.init(p)), update)


def schedule_free(inner: Any) -> Plain:
    def update(g: Any, s: Any, p: Any, **extra: Any) -> Any:
        n, x, z, state = s
        u, state = inner.update(g, state, p, **extra)
        z = tree(jnp.add, z, u)
        x = tree(lambda a, b: a + (b - a) / (n + 1), x, z)
        return tree(lambda a, b, y: 0.9 * a + 0.1 * b - y, x, z, p), (n + 1, x, z, state)

    return Plain(lambda p: (0, p, p, inner.init(p)), update)


def in_turns(inner: Any) -> Plain:
    """Optax's SAM: a step uphill, then one of the optimizer from where it began."""

    def update(g: Any, s: Any, p: Any, **extra: Any) -> Any:
        start, state = s
        if start is None:
            size = length(g)
            return tree(lambda x: 0.1 * x / size if size > 0 else x, g), (p, state)
        u, state = inner.update(g, state, start, **extra)
        return tree(lambda x, c, q: c + x - q, u, start, p), (None, state)

    return Plain(lambda p: (None, inner.init(p)), update)


def plateau(inner: Any) -> Plain:
    def update(g: Any, s: Any, p: Any, *, value: Any, **extra: Any) -> Any:
        best, scale, state = s
        u, state = inner.update(g, state, p, value=value, **extra)
        scale = scale if value < best else scale / 2
        return tree(lambda x: scale * x, u), (min(best, float(value)), scale, state)

    return Plain(lambda p: (np.inf, 1.0, inner.init(p)), update)


def every_second(inner: Any) -> Plain:
    def update(g: Any, s: Any, p: Any, **extra: Any) -> Any:
        total, state = s
        u, state = inner.update(g, state, p, **extra)
        return (zeros(u), (u, state)) if total is None else (tree(jnp.add, total, u), (None, state))

    return Plain(lambda p: (None, inner.init(p)), update)


def same(inner: Any) -> Plain:
    return Plain(inner.init, inner.update)
