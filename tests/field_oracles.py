"""The methods that came after Adam, and some of before, as their papers write them: rules as in `oracles`."""

from typing import Any

import numpy as np
from oracles import Array, State, Tree


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


def acprop(
    g: Array, x: Array, t: int, s: State, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-16, eps_root: float = 1e-16
) -> Array:
    """Zhuang et al. 2021, algorithm 1, with the bias correction of Optax; the first gradient is given as it is."""
    m, v = s.get("m", np.zeros_like(g)), s.get("v", np.zeros_like(g))
    u = g / (1 + eps) if t == 1 else g / (np.sqrt(v / (1 - b2 ** (t - 1))) + eps)
    s["v"] = b2 * v + (1 - b2) * (g - m) ** 2 + eps_root
    s["m"] = b1 * m + (1 - b1) * g
    return u


def madgrad(g: Array, x: Array, t: int, s: State, lr: Any, momentum: float = 0.9, eps: float = 1e-6) -> Array:
    """Defazio and Jelassi 2021, algorithm 1, with `eps` in the rate as in their code; it gives the change of `x`."""
    x0 = s.setdefault("x0", x)
    weight = ((lr(t - 1) if callable(lr) else lr) + eps) * np.sqrt(t)
    s["s"] = s.get("s", 0) + weight * g
    s["v"] = s.get("v", 0) + weight * g**2
    z = x0 - s["s"] / (np.cbrt(s["v"]) + eps)
    return momentum * x + (1 - momentum) * z - x


# Methods that take all leaves as one vector: `before` functions of `oracles.follow` --------------------------------


def _squares(tree: Tree) -> float:
    return sum(float(np.sum(x**2)) for x in tree.values())


def dog(first: tuple[str, float], eps: float = 1e-8) -> Any:
    """Ivgi et al. 2023, equations 2 and 3."""
    s: State = {}

    def rule(grads: Tree, params: Tree) -> Tree:
        kind, value = first
        new = "x0" not in s
        x0 = s.setdefault("x0", params)
        r = {"distance": value, "heuristic": value * (1 + np.sqrt(_squares(params))), "learning_rate": 0.0}[kind]
        far = np.sqrt(_squares({name: params[name] - x0[name] for name in params}))
        s["r"] = max(s.get("r", r), far)
        s["sum"] = s.get("sum", 0.0) + _squares(grads)
        eta = value if new and kind == "learning_rate" else s["r"] / np.sqrt(s["sum"] + eps)
        return {name: eta * g for name, g in grads.items()}

    return rule


def dowg(first: float, eps: float = 1e-4) -> Any:
    """Khaled et al. 2023, algorithm 1."""
    s: State = {}

    def rule(grads: Tree, params: Tree) -> Tree:
        x0 = s.setdefault("x0", params)
        s["r2"] = max(s.get("r2", first), _squares({name: params[name] - x0[name] for name in params}))
        s["sum"] = s.get("sum", 0.0) + s["r2"] * _squares(grads)
        eta = s["r2"] / (np.sqrt(s["sum"]) + eps)
        return {name: eta * g for name, g in grads.items()}

    return rule


def prodigy(
    lr: Any = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float | None = None,
    eps: float = 1e-8,
    d0: float = 1e-6,
    coefficient: float = 1.0,
    decay: float = 0.0,
    safeguard: bool = False,
) -> Any:
    """Mishchenko and Defazio 2023, algorithm 4, as in the authors' code; it gives the change of the parameters."""
    s: State = {"d": d0, "r": 0.0, "t": 0}
    b3 = b2**0.5 if b3 is None else b3

    def rule(grads: Tree, params: Tree) -> Tree:
        x0, d, rate = s.setdefault("x0", params), s["d"], lr(s["t"]) if callable(lr) else lr
        s["t"] += 1
        h = d * rate * np.sqrt(1 - b2 ** s["t"]) / (1 - b1 ** s["t"])
        s["r"] = b3 * s["r"] + d / d0 * h * sum(float(np.sum(g * (x0[name] - params[name]))) for name, g in grads.items())
        for key, b, term in (("m", b1, lambda g: d * g), ("v", b2, lambda g: (d * g) ** 2)):
            s[key] = {name: b * s.get(key, {}).get(name, 0) + (1 - b) * term(g) for name, g in grads.items()}
        s["s"] = {name: b3 * s.get("s", {}).get(name, 0) + d / d0 * (d if safeguard else h) * g for name, g in grads.items()}
        s["d"] = max(d, coefficient * s["r"] / sum(float(np.sum(np.abs(x))) for x in s["s"].values()))
        return {name: -h * (s["m"][name] / (np.sqrt(s["v"][name]) + s["d"] * eps) + decay * params[name]) for name in grads}

    return rule


def polyak(value: Any, f_min: float = 0.0, largest: float = 1.0, eps: float = 0.0) -> Any:
    """Loizou et al. 2020: the gap over the squared norm, at most `largest`."""

    def rule(grads: Tree, params: Tree) -> Tree:
        eta = min((value(params) - f_min) / (_squares(grads) + eps), largest)
        return {name: eta * g for name, g in grads.items()}

    return rule
