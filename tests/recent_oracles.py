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
