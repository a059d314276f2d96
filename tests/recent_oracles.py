"""What came to training in 2024 to 2026, as the papers or the authors' code write it: rules as in `oracles`."""

from typing import Any

import numpy as np
from oracles import Array, State


def hyperball(u: Array, x: Array, t: int, s: State, lr: Any, stack: bool = False) -> Array:
    """Wen et al. 2026, algorithm 1, on matrices; `stack` has one on each place of axis 0. It gives the change of `x`."""
    eta: Any = lr(t - 1) if callable(lr) else lr
    if x.ndim < 2:
        return -eta * u
    axes = tuple(range(1, x.ndim)) if stack else None

    def norm(a: Array) -> Array:
        return np.sqrt(np.sum(a**2, axis=axes, keepdims=True))

    radius = s.setdefault("radius", norm(x))
    v = x - eta * radius * u / norm(u)
    return radius * v / norm(v) - x


def gradient_correction(
    g: Array, x: Array, t: int, s: State, b1: float = 0.95, gamma: float = 0.025, max_norm: float = 1.0
) -> Array:
    """Yuan et al. 2024, the approximate form, as in the authors' code: the gradient before the first is 0."""
    c = g + gamma * b1 / (1 - b1) * (g - s.get("g", 0))
    s["g"] = g
    return c / max(1.0, np.sqrt(np.sum(c**2)) / max_norm)


def adam_mini(
    g: Array, x: Array, t: int, s: State, blocks: tuple[int, ...], b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Array:
    """Zhang et al. 2024, algorithm 2: Adam with one second moment a block; `blocks` is how many lie along each axis."""
    m = s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    v = s.setdefault("v", np.zeros(blocks))
    u = np.zeros_like(g)
    for index in np.ndindex(*blocks):
        part = tuple(slice(i * n // k, (i + 1) * n // k) for i, n, k in zip(index, g.shape, blocks, strict=True))
        v[index] = b2 * v[index] + (1 - b2) * np.mean(g[part] ** 2)
        u[part] = m[part] / (1 - b1**t) / (np.sqrt(v[index] / (1 - b2**t)) + eps)
    return u


def apollo(
    g: Array,
    x: Array,
    t: int,
    s: State,
    draw: Any,
    rank: int,
    scale: float = 1.0,
    tensor: bool = False,
    every: int = 200,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
) -> Array:
    """Zhu et al. 2024, algorithm 1, on matrices (in, out), as in the authors' code; `draw(k, shape)` is the k-th projection."""
    low, wide = g, x.ndim > 1 and g.shape[0] <= g.shape[1]
    if x.ndim > 1:
        p = draw((t - 1) // every, (min(rank, *g.shape), min(g.shape)))
        low = p @ g if wide else g @ p.T
    m = s["m"] = b1 * s.get("m", 0) + (1 - b1) * low
    v = s["v"] = b2 * s.get("v", 0) + (1 - b2) * low**2
    n, correction = m / (np.sqrt(v) + eps), np.sqrt(1 - b2**t) / (1 - b1**t)
    if x.ndim < 2:
        return correction * n
    axes = None if tensor else int(not wide)
    sizes = [np.sqrt(np.sum(a**2, axis=axes, keepdims=True)) for a in (n, low)]
    u = g * sizes[0] / (sizes[1] + 1e-8)
    norm = np.sqrt(np.sum(u**2))
    if "norm" in s:
        limiter = max(norm / (s["norm"] + 1e-8), 1.01) / 1.01
        u, norm = u / limiter, norm / limiter
    s["norm"] = norm
    return correction * np.sqrt(scale) * u
