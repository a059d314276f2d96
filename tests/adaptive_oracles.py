"""Methods that keep less than their moments, or find their own step sizes, in float64 NumPy: rules as in `oracles`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from oracles import Array, State, Tree


def factored_rms(
    g: Array, x: Array, t: int, s: State, rate: float = 0.8, least: int = 128, eps: float = 1e-30, offset: int = 0
) -> Array:
    """Shazeer and Stern 2018, algorithms 4 and 5, where the two largest axes make the matrix."""
    d = 1 - max(t - offset, 1) ** -rate
    w = g**2 + eps
    order = sorted(range(g.ndim), key=lambda axis: g.shape[axis])
    if g.ndim < 2 or g.shape[order[-2]] < least:
        s["v"] = d * s.get("v", 0) + (1 - d) * w
        return g / np.sqrt(s["v"])
    short, long = order[-2:]
    s["r"] = d * s.get("r", 0) + (1 - d) * w.mean(axis=long, keepdims=True)
    s["c"] = d * s.get("c", 0) + (1 - d) * w.mean(axis=short, keepdims=True)
    return g / np.sqrt(s["r"] * s["c"] / s["r"].mean(axis=short, keepdims=True))


def sm3(g: Array, x: Array, t: int, s: State, b1: float = 0.9, b2: float = 1.0, eps: float = 1e-8) -> Array:
    """Anil et al. 2019, SM3-II, its cover being the slices of each axis; momentum and `eps` as in the authors' code."""
    axes = range(g.ndim) if g.ndim else [0]
    others = [tuple(i for i in range(g.ndim) if i != axis) for axis in axes]
    sums = s.get("sums", [np.zeros_like(g) for _ in axes])
    v = (1.0 if b2 == 1 else 1 - b2) * g**2 + b2 * np.min(sums, axis=0)
    s["sums"] = [v.max(axis=other, keepdims=True) * np.ones_like(g) for other in others]
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * np.where(v > 0, g / np.sqrt(v + eps), 0)
    return s["m"]


def cocob(g: Array, x: Array, t: int, s: State, alpha: float = 100.0, eps: float = 1e-8) -> Array:
    """Orabona and Tommasi 2017, algorithm 2, for each coordinate by itself; it gives the change of `x`."""
    x0 = s.setdefault("x0", x)
    largest = s["L"] = np.maximum(s.get("L", eps), np.abs(g))
    total = s["G"] = s.get("G", 0) + np.abs(g)
    won = s["R"] = np.maximum(s.get("R", 0) - g * (x - x0), 0)
    theta = s["theta"] = s.get("theta", 0) - g
    return x0 + theta / (largest * np.maximum(total + largest, alpha * largest)) * (largest + won) - x


def sophia(
    g: Array,
    x: Array,
    t: int,
    s: State,
    diagonal: Any,
    b1: float = 0.965,
    b2: float = 0.99,
    eps: float = 1e-8,
    gamma: float = 0.01,
    bound: float = 1.0,
    interval: int = 10,
) -> Array:
    """Liu et al. 2023, algorithm 3, with a bias correction, and the new diagonal after the step, as in Levanter."""
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    h = s.get("h", np.zeros_like(g))
    if (t - 1) % interval == 0:
        s["h"] = b2 * h + (1 - b2) * diagonal(x)
    return np.clip(s["m"] / (1 - b1**t) / np.maximum(gamma * h, eps), -bound, bound)


def ldog(g: Array, x: Array, t: int, s: State, first: float = 1e-6, eps: float = 1e-8) -> Array:
    """Ivgi et al. 2023, section 3.3: DoG for each leaf by itself."""
    x0 = s.setdefault("x0", x)
    s["r"] = max(s.get("r", first * (1 + np.linalg.norm(x0))), np.linalg.norm(x - x0))
    s["G"] = s.get("G", 0) + np.sum(g**2)
    return g * s["r"] / np.sqrt(s["G"] + eps)


def galore(g: Array, x: Array, t: int, s: State, rank: int, gap: int, scale: float = 1.0, inner: Any = None) -> Array:
    """Zhao et al. 2024, algorithms 1 and 2, from the longer side of a matrix; others go to the inner rule as they are."""
    own = s.setdefault("inner", {})
    if g.ndim != 2:
        return inner(g, x, t, own)
    if (t - 1) % gap == 0:
        u, _, vh = np.linalg.svd(g, full_matrices=False)
        s["P"] = u[:, :rank] if g.shape[0] >= g.shape[1] else vh[:rank].T
    if g.shape[0] >= g.shape[1]:
        return scale * s["P"] @ inner(s["P"].T @ g, x, t, own)
    return scale * inner(g @ s["P"], x, t, own) @ s["P"].T


def _dot(a: Tree, b: Tree) -> float:
    return sum(float(np.sum(a[name] * b[name])) for name in a)


def _mean(s: State, key: str, decay: float, term: Tree) -> Tree:
    s[key] = {name: decay * s.get(key, {}).get(name, 0) + (1 - decay) * x for name, x in term.items()}
    return s[key]


def dadapt_adamw(
    lr: Any = 1.0, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, d0: float = 1e-6, decay: float = 0.0
) -> Callable[[Tree, Tree], Tree]:
    """Defazio and Mishchenko 2023, algorithm 5, as in the authors' code; it gives the change of the parameters."""
    s: State = {"d": d0, "r": 0.0, "t": 0}

    def rule(grads: Tree, params: Tree) -> Tree:
        rate, root = lr(s["t"]) if callable(lr) else lr, np.sqrt(b2)
        s["t"] += 1
        h = s["d"] * rate * np.sqrt(1 - b2 ** s["t"]) / (1 - b1 ** s["t"])
        zeros = {name: np.zeros_like(g) for name, g in grads.items()}
        before, v = s.get("s", zeros), s.get("v", zeros)
        met = _dot(grads, {name: before[name] / (np.sqrt(v[name]) + eps) for name in grads})
        s["r"] = root * s["r"] + (1 - root) * h * met
        m, v = (_mean(s, "m", b1, {k: h * g for k, g in grads.items()}), _mean(s, "v", b2, {k: g**2 for k, g in grads.items()}))
        length = sum(float(np.sum(np.abs(x))) for x in _mean(s, "s", float(root), {k: h * g for k, g in grads.items()}).values())
        s["d"] = max(s["d"], s["r"] / ((1 - root) * length))
        return {name: -m[name] / (np.sqrt(v[name]) + eps) - decay * h * params[name] for name in grads}

    return rule


def momo(
    value: Callable[[Tree], float],
    lr: Any = 1.0,
    beta: float = 0.9,
    bound: float = 0.0,
    decay: float = 0.0,
    adapt: bool = False,
    adam: tuple[float, float] | None = None,
) -> Callable[[Tree, Tree], Tree]:
    """Schaipp et al. 2023, algorithms 1, 2 and 3, as in the authors' code; `adam` has the second decay and `eps`."""
    s: State = {"f": 0.0, "q": 0.0, "t": 0, "lb": bound}

    def rule(grads: Tree, params: Tree) -> Tree:
        a = lr(s["t"]) if callable(lr) else lr
        s["t"] += 1
        b = 0.0 if adam is None and s["t"] == 1 else beta
        c = 1.0 if adam is None else 1 - beta ** s["t"]
        f = s["f"] = b * s["f"] + (1 - b) * value(params)
        q = s["q"] = b * s["q"] + (1 - b) * _dot(grads, params)
        m = _mean(s, "m", b, grads)
        direction = m
        if adam is not None:
            v = _mean(s, "v", adam[0], {name: g**2 for name, g in grads.items()})
            direction = {name: m[name] / (np.sqrt(v[name] / (1 - adam[0] ** s["t"])) + adam[1]) for name in m}
        size, inner, shrink = _dot(m, direction), _dot(m, params), 1 + a * decay
        if adapt and shrink * (f - q) + inner < shrink * c * s["lb"]:
            s["lb"] = max((shrink * (f - q) + inner) / (2 * c * shrink), bound)
        tau = min(a / c, max(shrink * (f - c * s["lb"] - q) + inner, 0) / size)
        if adapt:
            s["lb"] = max((f + inner - q - tau * size / 2) / c, bound)
        return {name: params[name] / shrink - tau * direction[name] - params[name] for name in params}

    return rule


def mechanize(
    inner: Callable[[Array, Array, int, State], Array], decay: float = 1e-2, eps: float = 1e-8, s0: float = 1e-6, n: int = 6
) -> Callable[[Tree, Tree], Tree]:
    """Cutkosky et al. 2023, algorithm 1, with the clipped products of the authors' code; it gives the change of the parameters."""
    state: State = {"t": 0, "r": np.zeros(n), "m": np.zeros(n), "v": np.zeros(n), "s": np.full(n, s0), "inner": {}}
    betas = np.array([1 - 10.0**-i for i in range(1, n + 1)])

    def length(tree: Tree) -> float:
        return np.sqrt(_dot(tree, tree))

    def rule(grads: Tree, params: Tree) -> Tree:
        x0, scale = state.setdefault("x0", params), state["s"].sum()
        state["t"] += 1
        moves = {k: inner(g, params[k], state["t"], state["inner"].setdefault(k, {})) for k, g in grads.items()}
        before = {k: (x0[k] - p) / (scale + eps) for k, p in params.items()}
        pull = decay * scale * length(grads) / (length(params) + eps)
        h = _dot({k: g + pull * params[k] for k, g in grads.items()}, before)
        r = betas * state["r"] + np.clip(h, -state["m"], state["m"]) * state["s"]
        m, v = np.maximum(betas * state["m"], abs(h) + eps), betas**2 * state["v"] + h**2
        state.update(r=r, m=m, v=v, s=(s0 / n * m + np.maximum(r, 0)) / (np.sqrt(v) + eps))
        return {k: x0[k] - state["s"].sum() * (before[k] - moves[k]) - params[k] for k in params}

    return rule
