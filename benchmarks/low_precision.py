"""What do low-precision parameters and states cost: in loss, in bytes, in time?

    python benchmarks/low_precision.py [--steps 200] [--seeds 3] [--only "AdamW;bf16"] [--write]

The character transformer of `examples/train_lm.py` on the source of the standard library, with float32 or bfloat16 parameters
(computing in float32 from both), by AdamW and by Muon; equal seeds give equal weights and batches. Losses are on held-out text,
bytes are of state and parameters. Times are of one optimizer step on 16 leaves of 1024 x 1024, and of one training step of the
language model, interleaved with the plain optimizer's. `python benchmarks/compiled.py` has the bytes that TPUs move.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from common import interleaved, ratio
from flax import nnx

import gradtx

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import train_lm as lm  # type: ignore[import-not-found]

RESULTS = Path(__file__).parent / "results" / "low_precision.md"
BATCH = 16


class Row(NamedTuple):
    """A way to train: around the plain optimizer, with parameters in a dtype, compared with another row."""

    wrap: Callable[[Any], Any]
    dtype: Any = jnp.float32
    muon: bool = False
    rounding: str = "nearest"

    def tx(self, steps: int) -> Any:
        """The whole optimizer."""
        peak, make = lm.OPTIMIZERS["muon" if self.muon else "adamw"]
        return self.wrap(gradtx.chain(gradtx.clip_by_global_norm(lm.CLIP_NORM), make(lm.schedule(peak, steps))))

    @property
    def peer(self) -> str:
        """What it is compared with."""
        return "Muon" if self.muon else "AdamW"


def plain(tx: Any) -> Any:
    return tx


BF16 = jnp.bfloat16
ROWS = {
    "AdamW": Row(plain),
    "bf16": Row(plain, BF16),
    "bf16, master_weights": Row(gradtx.master_weights, BF16),
    "bf16, master_weights int16": Row(lambda tx: gradtx.master_weights(tx, "int16"), BF16),
    "bf16, master_weights int8": Row(lambda tx: gradtx.master_weights(tx, "int8"), BF16),
    "bf16, kahan": Row(gradtx.kahan, BF16),
    "bf16, rounding at random": Row(plain, BF16, rounding="stochastic"),
    "quantize_state 8": Row(gradtx.quantize_state),
    "quantize_state 4": Row(lambda tx: gradtx.quantize_state(tx, 4)),
    "quantize_state 4, to the nearest": Row(lambda tx: gradtx.quantize_state(tx, 4, rounding="nearest")),
    "bf16, master_weights int8, quantize_state 8": Row(lambda tx: gradtx.master_weights(gradtx.quantize_state(tx), "int8"), BF16),
    "Muon": Row(plain, muon=True),
    "Muon, quantize_state 8": Row(gradtx.quantize_state, muon=True),
    "Muon, quantize_state 4": Row(lambda tx: gradtx.quantize_state(tx, 4), muon=True),
}


class Training:
    """A model, its optimizer and their compiled step."""

    def __init__(self, row: Row, steps: int) -> None:
        self.row, self.tx = row, row.tx(steps)
        self.step = jax.jit(self._step, donate_argnums=(0, 1))
        self.evaluate = jax.jit(self.loss)

    def start(self, seed: int) -> None:
        """New weights."""
        self.graphdef, params = nnx.split(lm.CharacterModel(nnx.Rngs(seed)), nnx.Param)
        self.params = jax.tree.map(lambda p: p.astype(self.row.dtype), params)
        self.state = self.tx.init(self.params)

    def loss(self, params: Any, windows: jax.Array) -> jax.Array:
        return lm.cross_entropy(nnx.merge(self.graphdef, jax.tree.map(lambda p: p.astype(jnp.float32), params)), windows)

    def _step(self, params: Any, state: Any, windows: jax.Array, key: jax.Array) -> Any:
        grads = jax.grad(self.loss)(params, windows)
        if self.row.rounding == "stochastic":  # so that updates come in float32
            grads = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
        updates, state = self.tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates, rounding=self.row.rounding, key=key), state

    def __call__(self, windows: jax.Array, key: jax.Array) -> Any:
        self.params, self.state = self.step(self.params, self.state, windows, key)
        return self.params


def heldout(training: Training, text: np.ndarray) -> float:
    starts = np.linspace(0, len(text) - lm.CONTEXT - 1, lm.HELDOUT_BATCHES * lm.HELDOUT_BATCH).astype(int)
    return float(
        np.mean([training.evaluate(training.params, lm.windows_at(text, s)) for s in np.split(starts, lm.HELDOUT_BATCHES)])
    )


def batches(text: np.ndarray, seed: int) -> Iterator[tuple[jax.Array, jax.Array]]:
    rng = np.random.default_rng(seed)
    while True:
        yield lm.windows_at(text, rng.integers(0, len(text) - lm.CONTEXT, BATCH)), jax.random.key(rng.integers(2**31))


def nbytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def losses(steps: int, seeds: int, names: list[str]) -> Iterator[str]:
    """Held-out losses and bytes."""
    text, heldout_text = lm.load_text()
    yield f"\n## {steps} steps of {BATCH} x {lm.CONTEXT} characters, {seeds} seeds\n"
    yield "| parameters and state | held-out loss | more than float32's, by seed | bytes a parameter: weights | state |"
    yield "|---|---|---|---|---|"
    found: dict[str, np.ndarray] = {}
    for name in names:
        training, ends = Training(ROWS[name], steps), []
        for seed in range(seeds):
            training.start(seed)
            for _, (windows, key) in zip(range(steps), batches(text, seed), strict=False):
                training(windows, key)
            ends.append(heldout(training, heldout_text))
        found[name] = np.array(ends)
        off = found[name] - found.get(ROWS[name].peer, np.nan)
        size = sum(x.size for x in jax.tree.leaves(training.params))
        weights, state = nbytes(training.params) / size, nbytes(training.state) / size
        each = ", ".join(f"{x:+.4f}" for x in off)
        yield f"| {name} | {np.mean(ends):.4f} | {np.mean(off):+.4f} ({each}) | {weights:.2f} | {state:.2f} |"


class OptimizerStep:
    """One step of an optimizer alone, donated."""

    def __init__(self, wrap: Callable[[Any], Any], dtype: Any) -> None:
        self.tx = wrap(gradtx.adamw(1e-3))
        self.params = {f"leaf{i}": jnp.full((1024, 1024), 0.5, dtype) for i in range(16)}
        self.grads = {
            k: jax.random.normal(jax.random.key(i), p.shape).astype(dtype) for i, (k, p) in enumerate(self.params.items())
        }
        self.state = self.tx.init(self.params)
        self.step = jax.jit(self._step, donate_argnums=(0, 1))

    def _step(self, params: Any, state: Any, grads: Any) -> Any:
        updates, state = self.tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    def __call__(self) -> Any:
        self.params, self.state = self.step(self.params, self.state, self.grads)
        return self.params


def times(rounds: int, names: list[str]) -> Iterator[str]:
    """Of a training step, and of an optimizer step alone."""
    yield f"\n## One step on {jax.default_backend()}, ratio of medians to the plain optimizer's with parameters of the same dtype\n"
    yield "| parameters and state | training step | optimizer alone, 16 x 1024 x 1024 |"
    yield "|---|---|---|"
    text, _ = lm.load_text()
    windows, key = next(batches(text, 0))
    for name in names:
        row = ROWS[name]
        peer = Row(plain, row.dtype, row.muon)
        pair = {"own": Training(row, 100), "peer": Training(peer, 100)}
        for one in pair.values():
            one.start(0)
        whole = interleaved({key_: (lambda one=one: one(windows, key)) for key_, one in pair.items()}, rounds)
        alone = "-"
        if not row.muon and row.rounding == "nearest":
            steps = {"own": OptimizerStep(row.wrap, row.dtype), "peer": OptimizerStep(plain, row.dtype)}
            interleaved(steps, 2)
            timed = interleaved(steps, rounds)
            alone = f"{ratio(timed, 'own', 'peer'):.2f} ({1e3 * statistics.median(timed['own']):.1f} ms)"
        yield f"| {name} | {ratio(whole, 'own', 'peer'):.2f} ({1e3 * statistics.median(whole['own']):.0f} ms) | {alone} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=21, help="of the timing; 0 leaves it out")
    parser.add_argument("--only", default=";".join(ROWS), help="rows, separated by semicolons")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} too")
    args = parser.parse_args()
    lines = [f"# Low precision: jax {jax.__version__}, `python benchmarks/low_precision.py`"]
    print(lines[0])
    for part in (
        losses(args.steps, args.seeds, args.only.split(";")) if args.seeds else (),
        times(args.rounds, args.only.split(";")) if args.rounds else (),
    ):
        for line in part:
            print(line, flush=True)
            lines.append(line)
    if args.write:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
