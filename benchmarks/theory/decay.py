"""An L2 penalty is weight decay for plain SGD alone: under momentum it differs, under Adam large weights shrink no faster.

With a loss whose gradient is zero, from the weights 1 and 10, rate 0.01 and factor 0.1, for 10 steps.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

RATE, LAMBDA, START = 0.01, 0.1, (1.0, 10.0)
SMALL: dict[str, Any] = {"steps": 10}


def weights(tx: Any, steps: int, curvature: float = 0.0) -> np.ndarray:
    """The weights from the start on, under the loss `curvature * (w - 1)^2 / 2`."""
    start = jnp.asarray(START)
    path = harness.follow(tx, lambda w, key: curvature * (w - 1), start, steps, lambda w, _: w)
    return np.concatenate([[START], np.asarray(path)])


@harness.in_float64
def measure(steps: int = 100) -> Any:
    penalty = gradtx.add_decayed_weights(LAMBDA)
    curves = {
        "Adam + L2": weights(gradtx.chain(penalty, gradtx.adam(RATE)), steps),
        "AdamW": weights(gradtx.adamw(RATE, weight_decay=LAMBDA), steps),
    }
    both = [
        np.abs(
            weights(gradtx.chain(penalty, gradtx.sgd(0.1, momentum)), 30, 1.0)
            - weights(gradtx.sgdw(0.1, momentum, weight_decay=LAMBDA), 30, 1.0)
        ).max()
        for momentum in (None, 0.9)
    ]
    numbers = {
        "adam_l2_small": near(curves["Adam + L2"][10, 0], 0.9, 1e-3),
        "adam_l2_large": near(curves["Adam + L2"][10, 1], 9.9, 1e-3),
        "adamw_factor": near(curves["AdamW"][10, 1] / 10, 0.990045, 1e-6),
        "sgd_difference": near(both[0], 0, 1e-12),
        "momentum_difference": Number(both[1], 0.1),
    }
    return harness.Measured(numbers, curves)


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    for i, (name, path) in enumerate(curves.items()):
        for j, start in enumerate(START):
            ax.plot(path[:, j] / start, ("-", "--")[j], color=harness.COLORS[i], label=f"{name}, from {start:g}")
    ax.set(xlabel="step", ylabel="weight over its start")
    ax.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
