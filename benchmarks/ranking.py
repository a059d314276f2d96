"""Which optimizer trains a small language model in the fewest steps, each at its own best rate?

    python -m benchmarks.ranking                      # an hour or so on 2 cores; goes on where it was
    python -m benchmarks.ranking --only 'adamw;muon' --seeds 1

The character transformer of `examples/train_lm.py`, equal tokens, batches and initial weights for all, the same warm-up and cosine
decay, gradients clipped at a global norm of 1. Each method has four peak rates, a usual one times 1/2, 1, 2 and 4, for every seed;
the best by mean held-out loss counts. Then it runs once more with a schedule of 0.6 of the steps. All rates and seeds of a method
run in one compiled program, a scan over the steps.

It writes `benchmarks/results/ranking.json`, and the table and the picture beside it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

import gradtx
from benchmarks.theory import harness

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import train_lm as lm  # type: ignore[import-not-found]

RESULTS = Path(__file__).parent / "results"
BATCH, EVERY, SHORT = 16, 10, 0.6
FACTORS = (0.5, 1.0, 2.0, 4.0)
DECAY: dict[str, Any] = lm.DECAY
AXES: dict[str, Any] = {"weight_dimension_numbers": gradtx.matrix_axes()}
Rate = Callable[[jax.Array], jax.Array]


def beside_adamw(matrices: Any, rate: Rate) -> Any:
    """The matrices inside the network by one optimizer, all else by AdamW at half the rate of Muon's, as in `train_lm`."""
    return gradtx.partition({"muon": matrices, "adam": gradtx.adamw(rate)}, gradtx.muon_labels())


def times(factor: float, rate: Rate) -> Rate:
    return lambda step: factor * rate(step)


def normuon(rate: Rate) -> Any:
    links = gradtx.trace(0.95, nesterov=True), gradtx.orthogonalize(**AXES), gradtx.scale_by_normuon(**AXES)
    rest = gradtx.scale_by_shape(**AXES), gradtx.add_decayed_weights(0.1), gradtx.scale_by_learning_rate(rate)
    return beside_adamw(gradtx.chain(*links, *rest), times(0.5, rate))


def muon_on_spheres(rate: Rate) -> Any:
    direction = gradtx.chain(gradtx.trace(0.95, nesterov=True), gradtx.orthogonalize(**AXES))
    return beside_adamw(gradtx.hyperball(direction, rate, **AXES), times(0.5, rate))


METHODS: dict[str, tuple[float, Callable[[Rate], Any]]] = {  # name: (rate, from the schedule to the optimizer)
    "adamw": (6e-3, lambda rate: gradtx.adamw(rate, **DECAY)),
    "ademamix": (3e-3, lambda rate: gradtx.ademamix(rate, **DECAY)),
    "mars": (3e-3, lambda rate: gradtx.mars(rate, **DECAY)),
    "schedule_free": (1e-2, lambda rate: gradtx.schedule_free_adamw(rate, weight_decay=0.1)),
    "hyperball, adam": (1e-2, lambda rate: beside_adamw(gradtx.hyperball(gradtx.scale_by_adam(), rate, **AXES), times(0.5, rate))),
    "muon": (2e-2, lambda rate: gradtx.muon(rate, adam_learning_rate=times(0.5, rate), weight_decay=0.1)),
    "normuon": (2e-2, normuon),
    "adamuon": (1e-2, lambda rate: gradtx.adamuon(rate, adam_learning_rate=rate, weight_decay=0.1)),
    "hyperball, muon": (1e-2, muon_on_spheres),
    "scion": (1e-3, lambda rate: gradtx.scion(rate, balls=gradtx.norm_balls(radius=50.0))),
    "soap": (3e-3, lambda rate: gradtx.soap(rate, weight_decay=0.1, mask=lm.MATRICES)),
    "soap_muon": (2e-2, lambda rate: gradtx.soap_muon(rate, adam_learning_rate=times(0.5, rate), weight_decay=0.1)),
    "shampoo": (3e-3, lambda rate: beside_adamw(gradtx.shampoo(rate, b2=0.95, frequency=10, **AXES), rate)),
    "kron": (1e-3, lambda rate: beside_adamw(gradtx.kron(rate, weight_decay=0.1, **AXES), times(4.0, rate))),
}


def start_of(seed: int) -> tuple[Any, Any]:
    """The network without weights, and its first weights."""
    return nnx.split(lm.CharacterModel(nnx.Rngs(seed)), nnx.Param)


def training(make: Callable[[Rate], Any], steps: int, text: jax.Array, held: jax.Array) -> Callable[..., jax.Array]:
    """From a peak rate, first weights and the starts of the windows to held-out losses, every `EVERY` steps and at the end."""
    graphdef, _ = start_of(0)

    def loss(params: Any, windows: jax.Array) -> jax.Array:
        return lm.cross_entropy(nnx.merge(graphdef, params), windows)

    def windows(starts: jax.Array) -> jax.Array:
        return text[starts[:, None] + jnp.arange(lm.CONTEXT + 1)]

    @jax.jit
    def run(peak: jax.Array, params: Any, starts: jax.Array) -> jax.Array:
        schedule = gradtx.warmup_cosine_decay_schedule(0.0, peak, int(lm.WARMUP_FRACTION * steps), steps, peak / 100)
        tx = gradtx.chain(gradtx.clip_by_global_norm(lm.CLIP_NORM), make(schedule))

        def step(carry: Any, starts: jax.Array) -> Any:
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, windows(starts)), state, params)
            return (gradtx.apply_updates(params, updates), state), None

        def some(carry: Any, starts: jax.Array) -> Any:
            carry, _ = jax.lax.scan(step, carry, starts)
            params, state = carry
            at = gradtx.eval_params(state, params)
            return carry, jnp.mean(jax.lax.map(lambda w: loss(at, w), held))

        return jax.lax.scan(some, (params, tx.init(params)), starts.reshape(-1, EVERY, BATCH))[1]

    return run


def measure(make: Callable[[Rate], Any], rate: float, steps: int, seeds: int) -> dict[str, Any]:
    """Held-out losses: curves by factor of the rate and seed, and the last ones of shorter runs at the best rate."""
    text, held = (jnp.asarray(x) for x in lm.load_text())
    places = np.linspace(0, len(held) - lm.CONTEXT - 1, 128).astype(int)
    windows = lm.windows_at(np.asarray(held), places).reshape(4, 32, -1)
    starts = [jnp.asarray(np.random.default_rng(s).integers(0, len(text) - lm.CONTEXT, (steps, BATCH))) for s in range(seeds)]
    weights = [start_of(s)[1] for s in range(seeds)]
    run, seconds = training(make, steps, text, windows), []

    def curve(run: Any, factor: float, seed: int, steps: int) -> list[float]:
        begin = time.perf_counter()
        losses = np.asarray(run(jnp.float32(factor * rate), weights[seed], starts[seed][:steps]))
        seconds.append(time.perf_counter() - begin)
        return [float(x) for x in losses]

    curves = {str(f): [curve(run, f, s, steps) for s in range(seeds)] for f in FACTORS}
    per_step = float(np.median(seconds[1:])) / steps
    best = min(FACTORS, key=lambda f: float(np.nan_to_num(np.mean([c[-1] for c in curves[str(f)]]), nan=np.inf)))
    short = int(SHORT * steps)
    again = training(make, short, text, windows)
    shorter = [curve(again, best, s, short)[-1] for s in range(seeds)]
    return {"rate": best * rate, "best": str(best), "curves": curves, "shorter": shorter, "seconds_a_step": per_step}


def final(row: dict[str, Any]) -> np.ndarray:
    """The last losses at the best rate, by seed."""
    return np.array([curve[-1] for curve in row["curves"][row["best"]]])


def table(rows: dict[str, dict[str, Any]], steps: int) -> str:
    """The ranking, by final loss."""
    goal = float(np.mean(final(rows["adamw"])))
    ends = f"held-out loss after {steps} steps | after {int(SHORT * steps)}"
    lines = [f"| optimizer | rate | {ends} | steps to AdamW's | seconds to it |"]
    lines.append("|---|---|---|---|---|---|")
    for name, row in sorted(rows.items(), key=lambda item: float(np.mean(final(item[1])))):
        curve = np.mean(row["curves"][row["best"]], axis=0)
        there = np.flatnonzero(curve <= goal)
        count = EVERY * (int(there[0]) + 1) if len(there) else None
        when = f"{count} | {count * row['seconds_a_step']:.1f}" if count else "- | -"
        last, short = final(row), np.array(row["shorter"])
        loss = f"{np.mean(last):.3f} ± {np.std(last):.3f}"
        lines.append(f"| {name} | {row['rate']:.2g} | {loss} | {np.mean(short):.3f} ± {np.std(short):.3f} | {when} |")
    return "\n".join(lines)


def picture(rows: dict[str, dict[str, Any]]) -> Figure:
    """Held-out losses against steps."""
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    for i, (name, row) in enumerate(sorted(rows.items(), key=lambda item: float(np.mean(final(item[1]))))):
        curve = np.mean(row["curves"][row["best"]], axis=0)
        axes.plot(EVERY * np.arange(1, len(curve) + 1), curve, label=name, color=f"C{i % 10}", linestyle="-" if i < 10 else "--")
    axes.set(xlabel="step", ylabel="held-out loss (nats)", ylim=(None, 3.2))
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def main() -> None:
    """Runs what is missing; writes what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"of {', '.join(METHODS)}; separated by semicolons; they run again")
    parser.add_argument("--steps", type=int, default=200, help="a multiple of 50")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    file, only = RESULTS / "ranking.json", list(filter(None, options.only.split(";")))
    rows = json.loads(file.read_text())["rows"] if file.exists() else {}
    for name in only or [name for name in METHODS if name not in rows]:
        rate, make = METHODS[name]
        rows[name] = measure(make, rate, options.steps, options.seeds)
        print(name, f"{np.mean(final(rows[name])):.3f}", f"{rows[name]['rate']:.2g}", flush=True)
        kept = {"steps": options.steps, "seeds": options.seeds, "rows": rows}
        file.write_text(json.dumps(kept | {"versions": {"jax": jax.__version__, "gradtx": gradtx.__version__}}) + "\n")
    print(text := table(rows, options.steps))
    settings = f"{options.steps} steps of {BATCH} x {lm.CONTEXT} characters, {options.seeds} seeds, on CPU."
    (RESULTS / "ranking.md").write_text(f"# Optimizers on the character transformer\n\n{settings}\n\n{text}\n")
    harness.save(picture(rows), RESULTS / "ranking.png")


if __name__ == "__main__":
    main()
