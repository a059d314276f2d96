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
