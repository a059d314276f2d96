"""What does SOAP cost beside Muon? Whole updates, interleaved in one process, and compile time.

Layers of a transformer of width d: (d, 3d), (d, d), (d, 4d), (4d, d), L times; and many square matrices. A step in which the bases
turn costs more than one in which they stay, so it prints both, and their mean over a period. Then tracing plus compiling for 400
matrices of 8 shapes.

LAPACK's QR runs on threads of its own, which wait by spinning: where other programs use the cores too, set OPENBLAS_NUM_THREADS=1.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from common import interleaved
from muon import layers, msign

import gradtx

PERIOD = 10
METHODS: dict[str, Callable[[], Any]] = {
    "soap": lambda: gradtx.scale_by_soap(precondition_frequency=PERIOD),
    "soap, one side": lambda: gradtx.scale_by_soap(precondition_frequency=PERIOD, one_sided=True),
    "kl_soap": lambda: gradtx.scale_by_kl_soap(precondition_frequency=PERIOD),
    "soap_muon": lambda: gradtx.chain(gradtx.scale_by_soap_muon(precondition_frequency=PERIOD), gradtx.orthogonalize()),
}


def runners(tx: Any, grads: Any) -> tuple[Callable[[], Any], Callable[[], Any], float]:
    """A step in which the bases stay, one in which they turn, and the seconds of the first step, which makes them."""
    update = jax.jit(tx.update, donate_argnums=1)
    held = {"state": tx.init(grads)}
    compiled = update.lower(grads, held["state"]).compile()

    def step() -> Any:
        updates, held["state"] = compiled(grads, held["state"])
        return updates, held["state"]

    start = time.perf_counter()
    jax.block_until_ready(step())
    first = time.perf_counter() - start

    def at(count: int) -> Callable[[], Any]:
        def run() -> Any:
            held["state"] = jax.tree.map(lambda x: jnp.int32(count) if x.ndim == 0 else x, held["state"])
            return step()

        return run

    return at(PERIOD + 1), at(PERIOD), first


def speed(name: str, grads: dict[str, jax.Array], rounds: int, methods: Sequence[str]) -> None:
    fns: dict[str, Callable[[], Any]] = {}
    firsts = {}
    fns["muon"], _, _ = runners(msign(), grads)
    for method in methods:
        stays, turns, firsts[method] = runners(METHODS[method](), grads)
        fns |= {method: stays, f"{method}, turning": turns}
    times = interleaved(fns, rounds=rounds)
    median = {key: statistics.median(values) for key, values in times.items()}
    print(f"\n{name}: {len(grads)} matrices; Muon {1e3 * median['muon']:.1f} ms")
    for method in methods:
        stays, turns = median[method], median[f"{method}, turning"]
        mean = ((PERIOD - 1) * stays + turns) / PERIOD
        print(f"  {method:16} {1e3 * stays:8.1f} ms, {1e3 * turns:8.1f} where bases turn, mean {1e3 * mean:8.1f}", end="")
        print(f" = {mean / median['muon']:.2f} of Muon's; the first step {firsts[method]:.2f} s", flush=True)


def compile_time(count: int) -> None:
    """Trace plus compile for many matrices of 8 shapes."""
    shapes = [(64, 192), (64, 64), (64, 256), (256, 64), (96, 96), (96, 192), (128, 128), (128, 64)]
    grads = {f"w{i:03}": jax.ShapeDtypeStruct(shapes[i % 8], jnp.float32) for i in range(count)}
    print(f"\ntracing and compiling {count} matrices of 8 shapes:", end="")
    for name, make in ({"muon": msign} | METHODS).items():
        tx = make()
        start = time.perf_counter()
        jax.jit(tx.update).lower(grads, jax.eval_shape(tx.init, grads)).compile()
        print(f" {name} {time.perf_counter() - start:.1f} s", end=";", flush=True)
    print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--many", type=int, default=400)
    arguments = parser.parse_args()
    speed(f"d=256, {arguments.depth} layers", layers(256, arguments.depth), arguments.rounds, list(METHODS))
    square = {f"w{i:03}": jax.random.normal(jax.random.key(i), (256, 256)) for i in range(arguments.many)}
    speed("256 x 256", square, arguments.rounds, ["soap"])
    compile_time(arguments.many)
