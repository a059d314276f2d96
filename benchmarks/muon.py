"""How fast is Muon's update, and how close to the SVD, against Optax's? Whole updates with momentum, interleaved in one process.

Layers of a transformer of width d: (d, 3d), (d, d), (d, 4d), (4d, d), L times. Prints times, ratios of medians, the rate
at which products run against a plain product of d x d by d x 4d matrices, errors against the SVD on two spectra, and tracing plus
compiling for 400 matrices of 8 shapes.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import interleaved

import gradtx
import gradtx.optax
from gradtx.linalg.newton_schulz import gram_segments, products


def layers(d: int, depth: int) -> dict[str, jax.Array]:
    shapes = [(d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)] * depth
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return {f"w{i:03}": 0.01 * jax.random.normal(k, s) for i, (k, s) in enumerate(zip(keys, shapes, strict=True))}


def optax_muon() -> Any:
    numbers = optax.contrib.MuonDimensionNumbers()
    return optax.contrib.scale_by_muon(weight_dimension_numbers=lambda tree: jax.tree.map(lambda _: numbers, tree))


def msign(**arguments: Any) -> Any:
    """Momentum, then the matrix signs."""
    return gradtx.chain(gradtx.trace(0.95, nesterov=True), gradtx.orthogonalize(**arguments))


def runner(tx: Any, grads: Any) -> Callable[[], Any]:
    state, update = tx.init(grads), jax.jit(tx.update)
    return lambda: update(grads, state)


def product_rate(d: int, dtype: Any) -> float:
    """FLOP/s of 16 products of (d, d) by (d, 4d)."""
    a, x = (jax.random.normal(jax.random.key(i), s).astype(dtype) for i, s in enumerate([(d, d), (d, 4 * d)]))

    def many(a: jax.Array, x: jax.Array) -> jax.Array:
        for _ in range(16):
            x = jnp.dot(a, x.astype(dtype), preferred_element_type=jnp.float32)
        return x

    compiled = jax.jit(many)
    times = interleaved({"product": lambda: compiled(a, x)}, rounds=9)
    return 16 * 2 * d * d * 4 * d / float(np.median(times["product"]))


def speed(d: int, depth: int, rounds: int) -> None:
    grads = layers(d, depth)
    fns = {
        "optax scale_by_muon": runner(optax_muon(), grads),
        "gradtx scale_by_muon": runner(gradtx.optax.contrib.scale_by_muon(), grads),
        "orthogonalize": runner(msign(), grads),
        "orthogonalize, bfloat16 products": runner(msign(dtype="bfloat16"), grads),
    }
    times = {name: float(np.median(t)) for name, t in interleaved(fns, rounds=rounds).items()}
    aspects = [max(g.shape) / min(g.shape) for g in grads.values()]
    standard = 2 * d**3 * sum(5 * (2 * a + 1) for a in aspects)
    gram = 2 * d**3 * sum(min(products(gram_segments(4, 24), a), products((1,) * 4, a)) for a in aspects)
    rates = [product_rate(d, dtype) / 1e9 for dtype in (jnp.float32, jnp.bfloat16)]
    print(f"\nd={d} L={depth}: products of (d, d) by (d, 4d) run at {rates[0]:.0f} GFLOP/s in float32, {rates[1]:.0f} in bfloat16")
    for name, t in times.items():
        print(f"  {name:42} {1e3 * t:8.1f} ms  {times['optax scale_by_muon'] / t:5.2f} times as fast as Optax")
    print(f"  achieved: optax {standard / times['optax scale_by_muon'] / 1e9:.0f} GFLOP/s, ", end="")
    print(f"orthogonalize {gram / times['orthogonalize'] / 1e9:.0f} GFLOP/s, {standard / gram:.2f} times fewer operations")


def errors(d: int) -> None:
    """Root mean square distance of the singular values from 1, that is of the result from the SVD's."""
    rng = np.random.default_rng(0)
    print(f"\nerror against the SVD, |O - UV'|_F / sqrt(d), d={d}")
    for name, shape, spectrum in (
        ("Gaussian, d x d", (d, d), None),
        ("Gaussian, d x 4d", (d, 4 * d), None),
        ("log-uniform in [1e-3, 1]", (d, d), np.logspace(-3, 0, d)),
    ):
        x = rng.standard_normal(shape)
        u, s, vh = np.linalg.svd(x, full_matrices=False)
        x = jnp.asarray((u * (s if spectrum is None else spectrum)) @ vh, jnp.float32)
        row = f"  {name:26}"
        for label, tx in (
            ("optax", optax_muon()),
            ("orthogonalize", msign()),
            ("bfloat16 products", msign(dtype="bfloat16")),
        ):
            (out,) = jax.tree.leaves(tx.update({"w": x}, tx.init({"w": x}))[0])
            out = np.asarray(out, np.float64)
            row += f"  {label} {np.linalg.norm(out - u @ vh) / np.sqrt(d):.3f}"
        print(row)


def compile_time(count: int) -> None:
    """Trace plus compile for many matrices of 8 shapes."""
    shapes = [(64, 192), (64, 64), (64, 256), (256, 64), (96, 96), (96, 192), (128, 128), (128, 64)]
    grads = {f"w{i:03}": jax.ShapeDtypeStruct(shapes[i % 8], jnp.float32) for i in range(count)}
    seconds = {}
    for name, tx in (("optax", optax_muon()), ("gradtx", msign())):
        start = time.perf_counter()
        jax.jit(tx.update).lower(grads, jax.eval_shape(tx.init, grads)).compile()
        seconds[name] = time.perf_counter() - start
    print(f"\ntracing and compiling {count} matrices of 8 shapes: ", end="")
    print(f"optax {seconds['optax']:.1f} s, gradtx {seconds['gradtx']:.1f} s, ratio {seconds['gradtx'] / seconds['optax']:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    speed(256, 12, rounds)
    speed(512, 4, rounds)
    errors(256)
    compile_time(400)
