"""What does a step of Lanczos cost, over the product with the Hessian and the reorthogonalization that it consists of?

    python benchmarks/diagnostics.py [--steps 80] [--batch 256] [--rounds 5]

A perceptron of a million parameters. Three programs, interleaved: `top_eigenvalues`, over its steps; `hvp` alone; and the
reorthogonalization alone, four passes over the whole basis, as a loop of as many steps. "bandwidth" is what these passes read over
their time, beside that of a sum over the same array. The memory is what the compiled programs take beside their arguments, in
vectors of a million floats; the basis is m of them, and is overwritten in place.
"""

import argparse
import itertools
import statistics
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from common import interleaved

from gradtx.diagnostics import curvature, hvp, top_eigenvalues
from gradtx.linalg import eigen

SIZES = (256, 1024, 640, 128, 10)


def initial(key: jax.Array) -> Any:
    keys = jax.random.split(key, len(SIZES))
    return [jax.random.normal(k, shape) * (2 / shape[0]) ** 0.5 for k, shape in zip(keys, itertools.pairwise(SIZES), strict=False)]


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    for w in params[:-1]:
        x = jax.nn.relu(x @ w)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x @ params[-1]), y[:, None], axis=-1))


@partial(jax.jit, static_argnames="steps")
def reorthogonalize(basis: jax.Array, vector: jax.Array, steps: int) -> jax.Array:
    """The loop of `lanczos` without its product."""

    def step(_: Any, x: jax.Array) -> jax.Array:
        for _ in range(2):
            x = x - (basis @ x) @ basis
        return x

    return jax.lax.fori_loop(0, steps, step, vector)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    params, steps = initial(jax.random.key(0)), options.steps
    n = sum(p.size for p in params)
    x = jax.random.normal(jax.random.key(1), (options.batch, SIZES[0]))
    y = jax.random.randint(jax.random.key(2), (options.batch,), 0, SIZES[-1])
    basis = jax.random.normal(jax.random.key(3), (steps, n)) / n**0.5
    total = jax.jit(jnp.sum)
    candidates = {
        "lanczos": lambda: top_eigenvalues(loss, params, (x, y), steps=steps),
        "hvp": lambda: hvp(loss, params, params, (x, y)),
        "reorthogonalization": lambda: reorthogonalize(basis, basis[0], steps),
        "sum": lambda: total(basis),
    }
    interleaved(candidates, 1)
    times = {name: statistics.median(seconds) for name, seconds in interleaved(candidates, options.rounds).items()}
    per_step, product, again = times["lanczos"] / steps, times["hvp"], times["reorthogonalization"] / steps
    print(f"{n:,} parameters, batch {options.batch}, m = {steps}")
    print(f"a step of Lanczos {1e3 * per_step:.1f} ms; product {1e3 * product:.1f} ms, reorthogonalization {1e3 * again:.1f} ms")
    print(f"ratio {per_step / (product + again):.2f} of the two together")
    gigabytes = basis.nbytes / 1e9
    print(f"bandwidth {4 * gigabytes / again:.1f} GB/s; of a sum {gigabytes / times['sum']:.1f} GB/s")
    seen = eigen.Tridiagonal(basis[:, 0], basis[:, 0], basis)
    programs = {
        "product": curvature._flat_product.lower(loss, None, params, basis[0], x, y),
        "reorthogonalization": eigen._grown.lower(seen, 0, basis[0], jax.random.key(0)),
    }
    for name, program in programs.items():
        memory: Any = program.compile().memory_analysis()
        extra = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        print(f"memory beside the basis of {steps} vectors, for the {name}: {extra / (4 * n):.1f} vectors")


if __name__ == "__main__":
    main()
