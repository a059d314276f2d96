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
