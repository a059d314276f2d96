"""Interleaved timing of two or more candidates in one process, compared by ratios of medians."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


def interleaved(candidates: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each candidate in each round; every round runs all of them, in alternating order."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for i in range(rounds):
        order = list(candidates.items())
        for name, run in order if i % 2 == 0 else reversed(order):
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - start)
    return times


def ratio(times: dict[str, list[float]], name: str, peer: str) -> float:
    """Median time of `name` over that of `peer`: below 1 is faster."""
    return statistics.median(times[name]) / statistics.median(times[peer])
