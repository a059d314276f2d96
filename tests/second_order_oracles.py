"""SOAP and its kin as their authors' code has them, in float64 NumPy: rules for one leaf, as in `oracles`."""

from typing import Any

import numpy as np
from oracles import Array, State


def _inside(x: Array, bases: list[Any]) -> Array:
    for axis, q in enumerate(bases):
        x = x if q is None else np.moveaxis(np.tensordot(x, q, ([axis], [0])), -1, axis)
    return x


def _outside(x: Array, bases: list[Any]) -> Array:
    return _inside(x, [None if q is None else q.T for q in bases])


def _gram(g: Array, axis: int) -> Array:
    others = [i for i in range(g.ndim) if i != axis]
    return np.tensordot(g, g, (others, others))


def _eigenvectors(factor: Array) -> Array:
    return np.linalg.eigh(factor + 1e-30 * np.eye(len(factor)))[1][:, ::-1]


def soap(
    g: Array,
    x: Array,
    t: int,
    s: State,
    axes: tuple[int, ...] = (),
    b1: float = 0.95,
    b2: float = 0.95,
    beta: float | None = None,
    eps: float = 1e-8,
    every: int = 10,
    normalize: bool = False,
    bases: Any = None,
) -> Array:
    """Nikhil Vyas's `soap.py`: `axes` have a basis, as those up to `max_precond_dim` have there; no axes are plain Adam.

    `bases` are those after the first step, where eigenvectors are not unique.
    """
    beta = b2 if beta is None else beta
    if t == 1:
        s["factors"] = [(1 - beta) * _gram(g, i) if i in axes else None for i in range(g.ndim)]
        s["q"] = [None if f is None else _eigenvectors(f) for f in s["factors"]] if bases is None else list(bases)
        s["m"], s["v"] = np.zeros_like(g), np.zeros_like(g)
        return np.zeros_like(g)
    t -= 1
    inside = _inside(g, s["q"])
    s["m"] = b1 * s["m"] + (1 - b1) * inside
    s["v"] = b2 * s["v"] + (1 - b2) * inside**2
    u = _outside(s["m"] / (np.sqrt(s["v"]) + eps), s["q"])
    if normalize:
        u = u / (1e-30 + np.sqrt(np.mean(u**2)))
    s["m"] = _outside(s["m"], s["q"])
    s["factors"] = [None if f is None else beta * f + (1 - beta) * _gram(g, i) for i, f in enumerate(s["factors"])]
    if t % every == 0:
        for i, (f, q) in enumerate(zip(s["factors"], s["q"], strict=True)):
            if f is not None:
                order = np.argsort(-np.diag(q.T @ f @ q))
                s["v"] = np.take(s["v"], order, axis=i)
                s["q"][i] = np.linalg.qr(f @ q[:, order])[0]
    s["m"] = _inside(s["m"], s["q"])
    return u * np.sqrt(1 - b2**t) / (1 - b1**t)


def kl_soap(
    g: Array,
    x: Array,
    t: int,
    s: State,
    axes: tuple[int, ...] = (),
    b1: float = 0.9,
    b2: float = 0.98,
    beta: float | None = None,
    eps: float = 1e-8,
    every: int = 10,
) -> Array:
    """Wu Lin's `kl_opt.py` with `using_klsoap`, of which a side without basis counts as the identity."""
    beta = b2 if beta is None else beta
    sizes = [max(g.size // n, 1) for n in g.shape]
    if t == 1:
        s["factors"] = [(1 - beta) * _gram(g, i) / sizes[i] if i in axes else None for i in range(g.ndim)]
        s["q"] = [None if f is None else _eigenvectors(f) for f in s["factors"]]
        s["inv"] = [None if q is None else np.full(len(q), 0.1**-0.5) for q in s["q"]]
        s["m"], s["v"] = np.zeros_like(g), np.zeros_like(g)
        return np.zeros_like(g)
    t -= 1
    inside = _inside(g, s["q"])
    s["m"] = b1 * s["m"] + (1 - b1) * inside
    s["v"] = b2 * s["v"] + (1 - b2) * inside**2
    u = _outside(s["m"] / (np.sqrt(s["v"]) + eps), s["q"])
    s["m"] = _outside(s["m"], s["q"])
    inv = list(s["inv"])
    for i in axes:
        half, whole = g, inside
        for j in axes:
            if j != i:
                shape = [-1 if axis == j else 1 for axis in range(g.ndim)]
                half = _inside(half, [s["q"][j] if axis == j else None for axis in range(g.ndim)]) * inv[j].reshape(shape)
                whole = whole * inv[j].reshape(shape)
        s["factors"][i] = beta * s["factors"][i] + (1 - beta) * _gram(half, i) / sizes[i]
        others = tuple(axis for axis in range(g.ndim) if axis != i)
        values = beta * inv[i] ** -2 + (1 - beta) * np.mean(whole**2, axis=others)
        s["inv"][i] = np.minimum(1 / np.sqrt(values), max(10, min(len(values), 4000)))
    if t % every == 0:
        s["q"] = [None if q is None else np.linalg.qr(f @ q)[0] for f, q in zip(s["factors"], s["q"], strict=True)]
    s["m"] = _inside(s["m"], s["q"])
    return u


def soap_muon(
    g: Array,
    x: Array,
    t: int,
    s: State,
    axes: tuple[int, ...] = (),
    mu: float = 0.95,
    b2: float = 0.9,
    beta: float | None = None,
    eps: float = 1e-8,
    every: int = 1,
) -> Array:
    """What goes into Newton-Schulz in modded-nanogpt's record, up to its scale."""
    beta = b2 if beta is None else beta
    s["m"] = mu * s.get("m", 0) + (1 - mu) * g
    u = (1 - mu) * g + mu * s["m"]
    factors = s.get("factors", [0 if i in axes else None for i in range(g.ndim)])
    s["factors"] = [None if f is None else beta * f + (1 - beta) * _gram(g, i) for i, f in enumerate(factors)]
    if t == 1 and axes:
        s["q"], s["v"] = [None if f is None else _eigenvectors(f) for f in s["factors"]], np.zeros_like(g)
        return u
    q = s.setdefault("q", [None] * g.ndim)
    p = _inside(u, q)
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * p**2
    found = _outside(p / np.sqrt(np.maximum(s["v"], eps**2)), q)
    if (t - 1) % every == 0:
        for i in axes:
            order = np.argsort(-np.diag(q[i].T @ s["factors"][i] @ q[i]))
            s["v"] = np.take(s["v"], order, axis=i)
            q[i] = np.linalg.qr(s["factors"][i] @ q[i][:, order])[0]
    return found
