"""The methods that see matrices, as their papers or their authors' code write them: rules as in `oracles`.

Weights are `(in, out)`, as in gradtx; the authors' are `(out, in)`, so rules transpose where they follow code.
"""

from typing import Any

import numpy as np
from oracles import Array, State


def polar(x: Array) -> Array:
    """`U V^T` by the singular value decomposition, without the null space (matrices of signs often have one)."""
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    return (u * (s > 1e-12 * s[0])) @ vt


def jordan(x: Array, steps: int = 5, eps: float = 0.0) -> Array:
    """Jordan 2024: five quintic steps from `x` over its Frobenius norm, on the shorter side."""
    if x.shape[0] > x.shape[1]:
        return jordan(x.T, steps, eps).T
    x = x / (np.linalg.norm(x) + eps)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def lmo(g: Array, x: Array, t: int, s: State, norm: str = "spectral", radius: float = 1.0, eps: float = 1e-8) -> Array:
    """LIONS-EPFL/scion, scion.py: the classes `Spectral`, `Sign`, `ColNorm`, `RowNorm` (normalized as by default), `BiasRMS`."""
    if g.ndim < 2:
        return radius * g / (np.sqrt(np.mean(g**2)) + eps)
    g = g.T
    out, inputs = g.shape
    if norm == "spectral":
        d = np.sqrt(out / inputs) * polar(g)
    elif norm == "sign":
        d = np.sign(g) / inputs
    elif norm == "column":
        d = g / (np.sqrt(np.sum(g**2, axis=0, keepdims=True)) / np.sqrt(out) + eps)
    else:
        d = g / (np.sqrt(np.sum(g**2, axis=-1, keepdims=True)) * np.sqrt(inputs) + eps)
    return radius * d.T


def adamuon(g: Array, x: Array, t: int, s: State, beta: float = 0.95, eps: float = 1e-8, direction: Any = jordan) -> Array:
    """Si et al. 2025, algorithm 1, with the Nesterov step of the authors' code."""
    m = s["m"] = beta * s.get("m", 0) + (1 - beta) * g
    d = direction(np.sign((1 - beta) * g + beta * m))
    v = s["v"] = beta * s.get("v", 0) + (1 - beta) * d**2
    p = d / (np.sqrt(v) + eps)
    return p * 0.2 * np.sqrt(g.size) / (np.linalg.norm(p) + eps)


def power(a: Array, exponent: float, eps: float) -> Array:
    """facebookresearch/optimizers, matrix_functions.py: `(a + eps I)^exponent`, shifted where an eigenvalue is below `eps`."""
    values, q = np.linalg.eigh(a + eps * np.eye(len(a)))
    if values.min() < eps:
        values = values - values.min() + eps
    return q * values**exponent @ q.T


def shampoo(
    g: Array,
    x: Array,
    t: int,
    s: State,
    b1: float = 0.9,
    b2: float = 1.0,
    eps: float = 1e-12,
    graft: str = "adam",
    graft_b2: float = 0.999,
    graft_eps: float = 1e-10,
    frequency: int = 1,
    start: int | None = None,
) -> Array:
    """facebookresearch/optimizers, one block: the mean gradient between the roots, at the size of the graft's update."""
    start = frequency if start is None else start
    m = s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    v = s["v"] = graft_b2 * s.get("v", 0) + (1 - graft_b2) * g**2
    m = m / (1 - b1**t)
    size = {"sgd": 1, "rmsprop": np.sqrt(v) + graft_eps, "adam": np.sqrt(v / (1 - graft_b2**t)) + graft_eps}
    grafted = m / size[graft]
    tensor, mean = np.atleast_1d(g), np.atleast_1d(m)
    for axis in range(tensor.ndim):
        rows = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
        s[f"sum{axis}"] = b2 * s.get(f"sum{axis}", 0) + (1 if b2 == 1 else 1 - b2) * rows @ rows.T
        if t == start or (t > start and t % frequency == 0):
            s[f"root{axis}"] = power(s[f"sum{axis}"] / (1 if b2 == 1 else 1 - b2**t), -1 / (2 * tensor.ndim), eps)
        if t >= start:
            mean = np.moveaxis(np.tensordot(s[f"root{axis}"], mean, (1, axis)), 0, axis)
    if t < start:
        return grafted
    return (mean * np.linalg.norm(grafted) / (np.linalg.norm(mean) + 1e-16)).reshape(g.shape)


def lower_bound(a: Array) -> float:
    """psgd_jax, kron.py, `_norm_lower_bound`."""
    largest = np.max(np.abs(a))
    if not largest > 0:
        return largest
    a = a / largest
    columns, rows = np.sum(a**2, axis=0), np.sum(a**2, axis=1)
    if columns.max() > rows.max():
        x = a[:, np.argmax(columns)] @ a
        return largest * float(np.linalg.norm(x / np.linalg.norm(x) @ a.T))
    x = a @ a[np.argmax(rows)]
    return largest * float(np.linalg.norm(a.T @ (x / np.linalg.norm(x))))


def kron(
    g: Array,
    x: Array,
    t: int,
    s: State,
    noise: Any,
    coins: Any,
    b1: float = 0.9,
    lr: float = 0.1,
    probability: Any = lambda t: np.clip(np.exp(-0.001 * (t - 500)), 0.03, 1),
    mode: str | None = None,
) -> Array:
    """psgd_jax, kron.py, for one tensor: `noise[t - 1]` is `V`, `coins[t - 1]` says whether factors are balanced."""
    m = s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    m = m / (1 - b1**t)
    triangular = [g.ndim > 1 and mode != "all_diag" for _ in g.shape]
    if mode == "one_diag" and g.ndim > 1:
        triangular[int(np.argmax(g.shape))] = False
    qs = s.setdefault("q", [np.eye(n) if kind else np.ones(n) for n, kind in zip(g.shape, triangular, strict=True)])
    s["waited"] = s.get("waited", 0) + 1

    def apply(matrices: list[Array], y: Array) -> Array:
        for axis, q in enumerate(matrices):
            y = np.moveaxis(np.tensordot(q if q.ndim == 2 else np.diag(q), y, (1, axis)), 0, axis)
        return y

    if s["waited"] >= 1 / probability(t):
        s["waited"] = 0
        if coins[t - 1]:
            sizes = [np.max(np.abs(q)) for q in qs]
            qs = [q * np.prod(sizes) ** (1 / len(qs)) / size for q, size in zip(qs, sizes, strict=True)]
        v = noise[t - 1]
        a = apply(qs, m + np.sqrt(np.finfo(np.float32).eps) * np.mean(np.abs(m)) * v)
        b = apply([np.linalg.inv(q).T if q.ndim == 2 else 1 / q for q in qs], v)
        new = []
        for axis, q in enumerate(qs):
            flat = [np.moveaxis(y, axis, 0).reshape(y.shape[axis], -1) for y in (a, b)]
            one, other = (y @ y.T if q.ndim == 2 else np.sum(y**2, axis=1) for y in flat)
            if q.ndim == 2:
                new.append(q - lr * np.triu(one - other) / lower_bound(one + other) @ q)
            else:
                new.append(q - lr * (one - other) * q / np.max(np.abs(one + other)))
        qs = new
    s["q"] = qs
    u = apply([q.T if q.ndim == 2 else q for q in qs], apply(qs, m))
    return u / max(1, np.sqrt(np.mean(u**2)) / 1.1)


def dion2(g: Array, x: Array, t: int, s: State, fraction: float = 0.25, decay: float = 0.95, direction: Any = polar) -> Array:
    """microsoft/dion, dion2.py, with selection among all rows; weights there are (out, in)."""
    m = s.get("m", np.zeros_like(g.T)) + g.T
    rows = m if m.shape[0] <= m.shape[1] else m.T
    k = int(np.ceil(fraction * len(rows)))
    chosen = np.argsort(-np.sum(np.abs(rows), axis=1))[:k]
    update, left = np.zeros_like(rows), rows.copy()
    update[chosen] = direction(rows[chosen])
    left[chosen] *= decay
    s["m"] = left if m.shape[0] <= m.shape[1] else left.T
    update = update if m.shape[0] <= m.shape[1] else update.T
    return update.T * np.sqrt(m.shape[0] / m.shape[1])
