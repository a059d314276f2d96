"""Forms of known methods that lecture notes have: no bias correction, `eps` outside the root, averages of a changing decay."""

from functools import partial
from typing import Any

import numpy as np
import oracles as o
import pytest
from problems import distance, tanh_regression, trajectory

import gradtx

TANH = tanh_regression()


def rising(count: Any) -> Any:
    """A decay for NumPy and for JAX."""
    return 0.9 - 0.4 / (1.0 + count)


def raw_adam(g: Any, x: Any, t: int, s: Any, nesterov: bool = False) -> Any:
    """Kingma and Ba 2014, algorithm 1, without the lines that correct the bias."""
    m = s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    v = s["v"] = 0.999 * s.get("v", 0) + 0.001 * g**2
    return (0.9 * m + 0.1 * g if nesterov else m) / (np.sqrt(v) + 1e-8)


def changing_ema(g: Any, x: Any, t: int, s: Any, debias: bool, nesterov: bool) -> Any:
    """The weights of all gradients, written out: with `debias` they add up to 1."""
    b = rising(t - 1)
    past = s.setdefault("past", [])
    past[:] = [(b * w, old) for w, old in past] + [(1 - b, g)]
    ahead = [(b * w, old) for w, old in past] + [(1 - b, g)]
    if nesterov and debias:
        return b * mean(past) * total(past) / total(ahead) + (1 - b) * g / total(past)
    return mean(ahead if nesterov else past) * (1 if debias else total(ahead if nesterov else past))


def total(rows: Any) -> Any:
    return sum(w for w, _ in rows)


def mean(rows: Any) -> Any:
    return sum(w * g for w, g in rows) / total(rows)


ROWS = {
    "adam": (lambda: gradtx.adam(0.02, bias_correction=False), [raw_adam, o.rate(0.02)]),
    "adamw": (
        lambda: gradtx.adamw(0.02, weight_decay=0.1, bias_correction=False),
        [raw_adam, partial(o.decay, weight_decay=0.1), o.rate(0.02)],
    ),
    "nadam": (lambda: gradtx.nadam(0.02, bias_correction=False), [partial(raw_adam, nesterov=True), o.rate(0.02)]),
    "adagrad": (
        lambda: gradtx.adagrad(0.1, 0.0, 1e-7, eps_in_sqrt=False),
        [partial(o.adagrad, initial=0.0, eps=1e-7, inside=False), o.rate(0.1)],
    ),
} | {
    f"ema, {debias}, {nesterov}": (
        lambda debias=debias, nesterov=nesterov: gradtx.chain(
            gradtx.ema(rising, debias, nesterov=nesterov), gradtx.scale_by_learning_rate(0.1)
        ),
        [partial(changing_ema, debias=debias, nesterov=nesterov), o.rate(0.1)],
    )
    for debias in (True, False)
    for nesterov in (True, False)
}


@pytest.mark.parametrize("name", ROWS)
def test_oracle(name: str) -> None:
    make, rules = ROWS[name]
    expected = o.follow(TANH.gradient, TANH.params, 30, *rules)
    assert distance(trajectory(make(), TANH, 30), expected) < 1e-10


@pytest.mark.parametrize("nesterov", [True, False])
def test_a_constant_schedule_is_a_number(nesterov: bool) -> None:
    constant, number = (
        gradtx.chain(gradtx.ema(decay, nesterov=nesterov), gradtx.sgd(0.1)) for decay in (gradtx.constant_schedule(0.9), 0.9)
    )
    assert distance(trajectory(constant, TANH, 20), trajectory(number, TANH, 20)) < 1e-6  # the schedule's value is float32


def test_ranger_of_the_paper_adapts_earlier() -> None:
    tx, inner = gradtx.ranger(0.05, threshold=4.0), gradtx.radam(0.05, 0.95, 0.999, 1e-5, threshold=4.0)
    expected = trajectory(gradtx.lookahead_wrapper(inner, 6), TANH, 20)
    assert distance(trajectory(tx, TANH, 20), expected) < 1e-14
    assert distance(trajectory(gradtx.ranger(0.05), TANH, 20), expected) > 1e-4
