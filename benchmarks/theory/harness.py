"""What all claims share: numbers beside what theory expects, a loop that follows an optimizer, files of results."""

import io
import json
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import gradtx

RESULTS = Path(__file__).parent.parent / "results" / "theory"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777", "#000000")  # Okabe and Ito 2008
DIGITS = 6


class Number(NamedTuple):
    """A measured value, the interval in which theory has it, and its standard error over repetitions, if there are any."""

    value: float
    low: float = -math.inf
    high: float = math.inf
    spread: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the value lies in the interval; NaN lies in none."""
        return bool(self.low <= self.value <= self.high)


class Measured(NamedTuple):
    """What a claim's `measure` returns: the numbers by name, and what its `draw` needs."""

    numbers: dict[str, Number]
    curves: Any


def near(value: Any, expected: float, tolerance: float, spread: float | None = None) -> Number:
    """A number that theory has at `expected`, give or take `tolerance`."""
    return Number(float(value), expected - tolerance, expected + tolerance, spread)


def failures(numbers: dict[str, Number]) -> list[str]:
    """What lies outside its interval, in words."""
    return [f"{name} is {n.value:g}, expected {n.low:g} to {n.high:g}" for name, n in numbers.items() if not n.holds]


def slope(values: Any, first: int = 1, counts: Any = None) -> float:
    """The exponent `p` of `values[k-1] ~ k**p` from `k = first` on: least squares on points that are even in `log k`."""
    values = np.asarray(values, np.float64)
    if counts is None:
        counts = np.unique(np.geomspace(first, len(values), 60).round().astype(int))
        values = values[counts - 1]
    return float(np.polyfit(np.log(counts), np.log(values), 1)[0])


def standard_error(values: Any) -> float:
    """Of the mean over the first axis."""
    values = np.asarray(values)
    return float(np.std(values, ddof=1) / len(values) ** 0.5)


def follow(
    tx: Any,
    gradient: Callable[..., Any],
    start: Any,
    steps: int,
    see: Callable[..., Any],
    key: Any = None,
    **extra: Any,
) -> Any:
    """`see(params, state)` after each of `steps` steps of `tx` from `start`, under `jit` and `vmap`.

    `gradient(params, key)` is that of one step; its key is the same at all points of a step, as a minibatch is.
    """

    def step(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        here = partial(gradient, key=key)
        updates, state = tx.update(here(params), state, params, grad_fn=here, **extra)
        params = gradtx.apply_updates(params, updates)
        return (params, state), see(params, state)

    keys = jax.random.split(jax.random.key(0) if key is None else key, steps)
    return jax.lax.scan(step, (start, tx.init(start)), keys)[1]


def in_float64(measure: Callable[..., Measured]) -> Callable[..., Measured]:
    """A measurement with 64-bit types."""

    def measured(**sizes: Any) -> Measured:
        with jax.enable_x64(True):
            return measure(**sizes)

    return measured


def as_json(benchmark: str, claim: str, numbers: dict[str, Number], seconds: float) -> str:
    """The file of a result."""

    def entry(n: Number) -> dict[str, Any]:
        bounds = [float(f"{x:.{DIGITS}g}") if math.isfinite(x) else None for x in (n.low, n.high)]
        spread = {} if n.spread is None else {"spread": float(f"{n.spread:.2g}")}
        return {"value": float(f"{n.value:.{DIGITS}g}"), "expected": bounds, "holds": n.holds, **spread}

    content = {
        "benchmark": benchmark,
        "claim": claim,
        "numbers": {key: entry(n) for key, n in numbers.items()},
        "versions": {"gradtx": gradtx.__version__, "jax": jax.__version__, "numpy": np.__version__},
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        "seconds": round(seconds, 1),
    }
    return json.dumps(content, indent=1) + "\n"


def shrink(picture: Any, path: Path) -> None:
    """Writes a picture small: 128 colours are enough for lines."""
    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(128)
    small.save(path, optimize=True)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as a small picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    shrink(buffer, path)


def picture(columns: int = 1) -> tuple[Figure, Any]:
    """A figure and its axes, side by side."""
    figure = Figure(figsize=(4.6 * columns + 0.6, 3.4), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_prop_cycle(color=COLORS)
    return figure, axes[0] if columns == 1 else axes


def guide(ax: Any, first: float, last: float, value: float, exponent: float) -> None:
    """A dashed line of slope `exponent` in logarithmic axes, from `(first, value)` on."""
    k = np.array([first, last])
    ax.plot(k, value * (k / first) ** exponent, "--", color="gray", linewidth=1, label=f"$k^{{{exponent:.2g}}}$")


def run(file: str, claim: str | None, measure: Callable[..., Measured], draw: Callable[[Any], Figure]) -> None:
    """Measures a claim and prints its numbers; then writes both files, or raises if a number is where theory has it not."""
    name = Path(file).stem
    start = time.perf_counter()
    numbers, curves = measure()
    seconds = time.perf_counter() - start
    width = max(map(len, numbers))
    for key, n in numbers.items():
        print(f"{key:{width}}  {n.value:12.6g}  expected {n.low:g} to {n.high:g}{'' if n.holds else '  FAILS'}")
    print(f"{seconds:.1f} s")
    if missed := failures(numbers):
        raise SystemExit(f"{name}: {'; '.join(missed)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(
        as_json(f"benchmarks.theory.{name}", (claim or "").strip().split("\n")[0], numbers, seconds)
    )
    save(draw(curves), RESULTS / f"{name}.png")


def logarithmic(ax: Any, curves: dict[str, Any], xlabel: str = "step k", ylabel: str = "f - f*") -> None:
    """Curves over steps 1, 2, ... in logarithmic axes."""
    for label, values in curves.items():
        values = np.asarray(values)
        counts = np.unique(np.geomspace(1, len(values), 300).round().astype(int))
        ax.plot(counts, values[counts - 1], label=label)
    ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)


def mean_over(seeds: int, run: Callable[[jax.Array], Any]) -> Any:
    """The mean of `run(key)` over keys, compiled once."""
    keys = jax.random.split(jax.random.key(1), seeds)
    return jax.tree.map(lambda x: np.asarray(x).mean(0), jax.jit(jax.vmap(run))(keys))
