"""How long does a step of AdamW take, against Optax and against the memory's bandwidth?

    python benchmarks/step_time.py [--rounds 30]

Three trees of about 16 million parameters or fewer: one leaf of 16M, 100 leaves of 160k, 1,000 leaves of 1k. A step reads gradient,
parameter and both moments and writes parameter and both moments: 7 x 4 bytes a parameter is the floor. GB/s is that
traffic over the median time; "copy" adds 1 to
every parameter in place (8 bytes a parameter): the bandwidth to reach.
State and parameters are donated, as in training.
"""

import argparse
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import optax
from common import interleaved, ratio

import gradtx

TREES = {"1 x 16M": (1, 16_000_000), "100 x 160k": (100, 160_000), "1000 x 1k": (1000, 1000)}
BYTES_STEP, BYTES_COPY = 28, 8


class Stepper:
    """A jitted step of one library that carries its own parameters and state."""

    def __init__(self, library: Any, leaves: int, size: int) -> None:
        self.tx = library.adamw(1e-3)
        self.apply = library.apply_updates
        self.params = {f"leaf{i}": jnp.full((size,), 0.5) for i in range(leaves)}
        self.grads = {name: jnp.full((size,), 0.1) for name in self.params}
        self.state = self.tx.init(self.params)
        self.step = jax.jit(self._step, donate_argnums=(0, 1))

    def _step(self, params: Any, state: Any, grads: Any) -> Any:
        updates, state = self.tx.update(grads, state, params)
        return self.apply(params, updates), state

    def __call__(self) -> Any:
        self.params, self.state = self.step(self.params, self.state, self.grads)
        return self.params, self.state


class Copier:
    """Reads and writes every element once, in place."""

    def __init__(self, leaves: int, size: int) -> None:
        self.tree = {f"leaf{i}": jnp.full((size,), 0.5) for i in range(leaves)}
        self.step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)

    def __call__(self) -> Any:
        self.tree = self.step(self.tree)
        return self.tree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    print(f"{'tree':12} {'optax ms':>9} {'gradtx ms':>9} {'ratio':>6} {'gradtx GB/s':>12} {'copy GB/s':>10}")
    for name, (leaves, size) in TREES.items():
        candidates: dict[str, Any] = {
            "optax": Stepper(optax, leaves, size),
            "gradtx": Stepper(gradtx, leaves, size),
            "copy": Copier(leaves, size),
        }
        interleaved(candidates, 3)
        times = interleaved(candidates, args.rounds)
        ms = {k: 1e3 * statistics.median(v) for k, v in times.items()}
        total = leaves * size / 1e6
        print(
            f"{name:12} {ms['optax']:9.2f} {ms['gradtx']:9.2f} {ratio(times, 'gradtx', 'optax'):6.3f} "
            f"{BYTES_STEP * total / ms['gradtx']:12.1f} {BYTES_COPY * total / ms['copy']:10.1f}"
        )


if __name__ == "__main__":
    main()
