"""Any sampling vector with mean 1 gives unbiased gradients; drawing rows by their size has less variance than drawing them evenly.

Every outcome of mini-batches (6 losses, batches of 1 to 5) is counted, each as often as the others; rows differ in size by 100 for
the second part.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

N = 6
SMALL = {"draws": 2000}


def outcomes(batch: int) -> np.ndarray:
    """All sampling vectors of mini-batches without replacement."""
    return np.array([[N / batch * (i in chosen) for i in range(N)] for chosen in itertools.combinations(range(N), batch)])


@harness.in_float64
def measure(draws: int = 40_000) -> Any:
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((N, 3)) * np.geomspace(1, 100, N)[:, None]
    mean = gradients.mean(0)
    bias = max(np.abs((outcomes(b) @ gradients / N).mean(0) - mean).max() for b in range(1, N + 1))
    keys = jax.random.split(jax.random.key(0), draws)
    sizes = np.linalg.norm(gradients, axis=1)
    vectors = {
        "minibatch": jax.vmap(lambda k: gradtx.sampling.minibatch(k, N, 1)),
        "independent": jax.vmap(lambda k: gradtx.sampling.independent(k, jnp.full(N, 1 / N))),
        "importance, evenly": jax.vmap(lambda k: gradtx.sampling.importance(k, jnp.full(N, 1 / N), 1)),
        "importance, by size": jax.vmap(lambda k: gradtx.sampling.importance(k, jnp.asarray(sizes / sizes.sum()), 1)),
    }
    errors, worst = {}, 0.0
    for name, draw_vectors in vectors.items():
        estimates = np.asarray(jax.jit(draw_vectors)(keys), np.float64) @ gradients / N
        errors[name] = ((estimates - mean) ** 2).sum(1)
        worst = max(worst, float(np.abs((estimates.mean(0) - mean) / (estimates.std(0) / draws**0.5)).max()))
    drawn = np.unique(np.asarray(jax.jit(vectors["minibatch"])(keys)), axis=0)
    allowed = {tuple(row) for row in outcomes(1).tolist()}
    exact = (sizes.sum() * sizes / N**2).sum() - (mean**2).sum()
    numbers = {
        "bias_over_all_outcomes": near(bias, 0, 1e-12),
        "worst_bias_in_standard_errors": Number(worst, 0, 4),
        "minibatches_that_are_no_outcome": near(sum(tuple(row) not in allowed for row in drawn.tolist()), 0, 0),
        "variance_evenly_over_by_size": Number(errors["importance, evenly"].mean() / errors["importance, by size"].mean(), 1.5),
        "variance_by_size_over_formula": near(errors["importance, by size"].mean() / exact, 1, 0.15 if draws < 10_000 else 0.05),
    }
    return harness.Measured(numbers, {name: float(e.mean()) for name, e in errors.items()})


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    ax.barh(list(curves), list(curves.values()), color=harness.COLORS[0])
    ax.set(xlabel="variance of the gradient")
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
