"""The methods that came after Adam, and some of before, as their papers write them: rules as in `oracles`."""

from typing import Any

import numpy as np
from oracles import Array, State


def adabelief(
    g: Array,
    x: Array,
    t: int,
    s: State,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-16,
    nesterov: bool = False,
) -> Array:
    """Zhuang et al. 2020, algorithm 2; with `nesterov` the momentum of Dozat 2016, as Optax has it."""
    m = s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["s"] = b2 * s.get("s", 0) + (1 - b2) * (g - m) ** 2 + eps_root
    m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t) if nesterov else m / (1 - b1**t)
    return m_hat / (np.sqrt(s["s"] / (1 - b2**t)) + eps)


def yogi(
    g: Array,
    x: Array,
    t: int,
    s: State,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-3,
    eps_root: float = 0.0,
    initial: float = 1e-6,
) -> Array:
    """Zaheer et al. 2018, algorithm 2, with Adam's bias corrections, which the paper leaves out, and Optax's start of `m`."""
    m = s["m"] = b1 * s.get("m", np.full_like(g, initial)) + (1 - b1) * g
    v = s.get("v", np.full_like(g, initial))
    v = s["v"] = v - (1 - b2) * np.sign(v - g**2) * g**2
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def adan(
    g: Array,
    x: Array,
    t: int,
    s: State,
    b1: float = 0.98,
    b2: float = 0.92,
    b3: float = 0.99,
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> Array:
    """Xie et al. 2022, algorithm 1, where `beta = 1 - b`, with the bias corrections of the authors' code."""
    d = g - s.get("g", g)
    s["g"] = g
    m = s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    v = s["v"] = b2 * s.get("v", 0) + (1 - b2) * d
    n = s["n"] = b3 * s.get("n", 0) + (1 - b3) * (g + (1 - b2) * d) ** 2
    m, v, n = m / (1 - b1**t), v / (1 - b2**t), n / (1 - b3**t)
    return (m + (1 - b2) * v) / (np.sqrt(n + eps_root) + eps)


def ademamix(
    g: Array,
    x: Array,
    t: int,
    s: State,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: Any = 0.9999,
    alpha: Any = 5.0,
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> Array:
    """Pagliardini et al. 2024, algorithm 1: the slow momentum has no bias correction."""
    b3, alpha = (value(t - 1) if callable(value) else value for value in (b3, alpha))
    m1 = s["m1"] = b1 * s.get("m1", 0) + (1 - b1) * g
    m2 = s["m2"] = b3 * s.get("m2", 0) + (1 - b3) * g
    v = s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
    return (m1 / (1 - b1**t) + alpha * m2) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def simplified_ademamix(
    g: Array, x: Array, t: int, s: State, b1: float = 0.99, b2: float = 0.95, alpha: Any = 0.0, eps: float = 1e-8
) -> Array:
    """Morwani et al. 2025, section 4: `theory momentum`, without `1 - b1`, and a weight for the gradient beside it."""
    m = s["m"] = b1 * s.get("m", 0) + g
    v = s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
    return (m + (alpha(t - 1) if callable(alpha) else alpha) * g) / (np.sqrt(v / (1 - b2**t)) + eps)


def adopt(
    g: Array,
    x: Array,
    t: int,
    s: State,
    b1: float = 0.9,
    b2: float = 0.9999,
    eps: float = 1e-6,
    clipping: bool = True,
    nesterov: bool = False,
) -> Array:
    """Taniguchi et al. 2024, algorithm 2: the first gradient makes `v` alone; those after it are clipped at `t^(1/4)`."""
    if t == 1:
        s["v"], s["m"] = g**2, np.zeros_like(g)
        return np.zeros_like(g)
    u = g / np.maximum(np.sqrt(s["v"]), eps)
    if clipping:
        u = np.clip(u, -((t - 1) ** 0.25), (t - 1) ** 0.25)
    s["m"] = b1 * s["m"] + (1 - b1) * u
    s["v"] = b2 * s["v"] + (1 - b2) * g**2
    return b1 * s["m"] + (1 - b1) * u if nesterov else s["m"]


def adadelta(g: Array, x: Array, t: int, s: State, rho: float = 0.9, eps: float = 1e-6) -> Array:
    """Zeiler 2012, algorithm 1."""
    s["g"] = rho * s.get("g", 0) + (1 - rho) * g**2
    u = np.sqrt(s.get("x", 0) + eps) / np.sqrt(s["g"] + eps) * g
    s["x"] = rho * s.get("x", 0) + (1 - rho) * u**2
    return u


def rprop(
    g: Array,
    x: Array,
    t: int,
    s: State,
    lr: float,
    minus: float = 0.5,
    plus: float = 1.2,
    least: float = 1e-6,
    largest: float = 50.0,
) -> Array:
    """Igel and Huesken 2000, iRprop-: where the sign turns, the step is left out and the next sign is free."""
    size, last = s.get("size", np.full_like(g, lr)), s.get("last", np.zeros_like(g))
    agrees = g * last
    size = np.where(agrees > 0, np.minimum(size * plus, largest), np.where(agrees < 0, np.maximum(size * minus, least), size))
    s["size"], s["last"] = size, np.where(agrees < 0, 0, g)
    return size * np.sign(s["last"])


def optimistic(g: Array, x: Array, t: int, s: State, alpha: float = 1.0, beta: float = 1.0) -> Array:
    """Mokhtari et al. 2019, equation 6, with the first gradient in the place of the one before it."""
    last, s["g"] = s.get("g", g), g
    return alpha * g + beta * (g - last)


def fromage(g: Array, x: Array, t: int, s: State, lr: Any) -> Array:
    """Bernstein et al. 2020, algorithm 1; it gives the change of `x`, sign and rate included."""
    eta = lr(t - 1) if callable(lr) else lr
    return (x - eta * np.linalg.norm(x) / np.linalg.norm(g) * g) / np.sqrt(1 + eta**2) - x
