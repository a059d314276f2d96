"""Muon's step is the one of its spectral norm that lowers the linear model most, and moves all directions alike.

`<G, U V'> = |G|_*`, above any other matrix of spectral norm 1. Singular values of a momentum spread over decades; those of its
update are 1. The lecture's coefficients (15/8, -5/4, 3/8) do not get there in 5 steps. Times are of products against the SVD on
2 cores.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

SMALL = {"size": 32, "times": ()}


def seconds(method: str, n: int) -> float:
    """The fastest of three."""
    x = jax.random.normal(jax.random.key(0), (n, n))
    run = jax.jit(lambda x: gradtx.msign(x, method=method))
    run(x).block_until_ready()
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        run(x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return best


def measure(size: int = 256, times: tuple[int, ...] = (128, 256, 512)) -> Any:
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(2))
    spectrum = np.geomspace(1e-3, 1, size)
    g = jnp.asarray((u * spectrum) @ v.T, jnp.float32)
    best = gradtx.msign(g, method="svd")
    others = rng.standard_normal((40, size, size))
    others /= np.linalg.norm(others, ord=2, axis=(1, 2), keepdims=True)
    gains = np.abs((others * np.asarray(g)).sum((1, 2)))
    scaled_gradient = float(jnp.sum(g * g)) / spectrum.max()
    results = {
        "momentum": g,
        "gradtx's default, 4 steps": gradtx.msign(g),
        "Jordan's, 5 steps": gradtx.msign(g, coefficients="jordan", normalization="frobenius"),
        "(15/8, -5/4, 3/8), 5 steps": gradtx.msign(g, coefficients="quintic", steps=5, normalization="frobenius"),
    }
    values = {name: np.linalg.svd(np.asarray(x), compute_uv=False) for name, x in results.items()}
    spread = {name: float(s.max() / s.min()) for name, s in values.items()}
    default, lecture = values["gradtx's default, 4 steps"], values["(15/8, -5/4, 3/8), 5 steps"]
    numbers = {
        "gain_over_nuclear_norm": near(float(jnp.sum(g * best)) / spectrum.sum(), 1, 1e-4),
        "best_of_40_others": Number(float(gains.max() / spectrum.sum()), 0, 1),
        "gain_of_the_gradient_itself": Number(float(scaled_gradient / spectrum.sum()), 0, 1),
        "condition_before": near(spread["momentum"], 1000, 5),
        "condition_after": Number(spread["gradtx's default, 4 steps"], 1, 20),
        "default_rms_from_1": Number(float(np.sqrt(np.mean((default - 1) ** 2))), 0, 0.35),
        "lecture_rms_from_1": Number(float(np.sqrt(np.mean((lecture - 1) ** 2))), 0.5),
        "lecture_least_singular_value": Number(float(lecture.min()), 0, 0.05),
    }
    if times:
        measured = {method: [seconds(method, n) for n in times] for method in ("newton_schulz", "svd")}
        numbers["svd_over_newton_schulz"] = Number(measured["svd"][-1] / measured["newton_schulz"][-1], 3)
    return harness.Measured(numbers, values)


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    for name, values in curves.items():
        ax.plot(np.sort(values)[::-1], label=name)
    ax.set(yscale="log", xlabel="index", ylabel="singular value", ylim=(5e-4, 3))
    ax.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
