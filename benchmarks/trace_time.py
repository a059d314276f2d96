"""How long does tracing a training step of AdamW, also with clipping, take on a tree of 1,000 leaves, against Optax?

    python benchmarks/trace_time.py [--rounds 9] [--leaves 1000]

Two trees: "model", whose leaves share a few shapes, as the layers of a network do, and "unlike", where no two leaves have the
same shape. Tracing, lowering to StableHLO, and both. JAX's caches are emptied before each: they hold what was traced inside of
earlier rounds, of either library, while a user's process traces a step once.
"""

import argparse
import itertools
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradtx

BLOCK = [(64, 192), (64, 64), (64, 256), (256, 64), (256,), (64,), (64,), (64,)]


def tree(kind: str, leaves: int) -> dict[str, jax.ShapeDtypeStruct]:
    shapes = [BLOCK[i % len(BLOCK)] if kind == "model" else (i + 1,) for i in range(leaves)]
    return {f"leaf{i}": jax.ShapeDtypeStruct(shape, jnp.float32) for i, shape in enumerate(shapes)}


OPTIMIZERS = {
    "adamw": lambda library: library.adamw(1e-3),
    "clipped": lambda library: library.chain(library.clip_by_global_norm(1.0), library.adamw(1e-3)),
}


def trace_and_lower(library: Any, optimizer: str, params: Any) -> tuple[float, float]:
    """Seconds to trace, and to lower, one step."""
    tx = OPTIMIZERS[optimizer](library)
    state = jax.eval_shape(tx.init, params)

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return library.apply_updates(params, updates), state

    jax.clear_caches()
    start = time.perf_counter()
    traced = jax.jit(step).trace(params, state, params)
    middle = time.perf_counter()
    traced.lower()
    return middle - start, time.perf_counter() - middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--leaves", type=int, default=1000)
    args = parser.parse_args()
    print(f"{'tree':8} {'optimizer':10} {'':6} {'optax ms':>9} {'gradtx ms':>9} {'ratio':>6}")
    for kind, optimizer in itertools.product(("model", "unlike"), OPTIMIZERS):
        params = tree(kind, args.leaves)
        times: dict[Any, list[tuple[float, float]]] = {optax: [], gradtx: []}
        for i in range(args.rounds):
            for library in (optax, gradtx) if i % 2 else (gradtx, optax):
                times[library].append(trace_and_lower(library, optimizer, params))
        for part, pick in {"trace": lambda t: t[0], "lower": lambda t: t[1], "both": sum}.items():
            peer, ours = (statistics.median(map(pick, times[library])) for library in (optax, gradtx))
            print(f"{kind:8} {optimizer:10} {part:6} {1e3 * peer:9.1f} {1e3 * ours:9.1f} {ours / peer:6.2f}")


if __name__ == "__main__":
    main()
