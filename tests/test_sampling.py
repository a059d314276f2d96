"""The stochastic reformulation: E[v] = 1 by enumeration, the samplers' distributions, importance sampling, errors."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import sampling

N = 6
KEYS = jax.random.split(jax.random.key(0), 60_000)
P = np.array([0.05, 0.1, 0.15, 0.2, 0.2, 0.3])


def frequencies(draw: Any) -> dict[tuple[float, ...], float]:
    vectors, counts = np.unique(np.round(np.asarray(jax.jit(jax.vmap(draw))(KEYS), np.float64), 3), axis=0, return_counts=True)
    return {tuple(map(float, v)): c / len(KEYS) for v, c in zip(vectors, counts, strict=True)}


def nice() -> dict[tuple[float, ...], float]:
    subsets = list(itertools.combinations(range(N), 2))
    return {tuple(map(float, np.round([N / 2 * (i in s) for i in range(N)], 3))): 1 / len(subsets) for s in subsets}


def bernoulli() -> dict[tuple[float, ...], float]:
    outcomes = {}
    for picks in itertools.product((0, 1), repeat=N):
        chance = float(np.prod([p if b else 1 - p for b, p in zip(picks, P, strict=True)]))
        outcomes[tuple(map(float, np.round(np.array(picks) / P, 3)))] = chance
    return outcomes


def multinomial() -> dict[tuple[float, ...], float]:
    outcomes: dict[tuple[float, ...], float] = {}
    for picks in itertools.product(range(N), repeat=2):
        v = tuple(map(float, np.round(np.bincount(picks, minlength=N) / (2 * P), 3)))
        outcomes[v] = outcomes.get(v, 0.0) + float(P[list(picks)].prod())
    return outcomes


CASES = {
    "minibatch": (lambda key: sampling.minibatch(key, N, 2), nice),
    "independent": (lambda key: sampling.independent(key, P), bernoulli),
    "importance": (lambda key: sampling.importance(key, P, 2), multinomial),
}


@pytest.mark.parametrize(("draw", "outcomes"), CASES.values(), ids=CASES)
def test_mean_is_one_and_draws_follow_the_distribution(draw: Any, outcomes: Any) -> None:
    chances = outcomes()
    mean = sum(p * np.array(v) for v, p in chances.items())
    np.testing.assert_allclose(mean, 1, atol=1e-3)  # by enumeration, outcomes rounded to three digits
    np.testing.assert_allclose(sum(chances.values()), 1)
    seen = frequencies(draw)
    assert set(seen) <= set(chances)
    for v, p in chances.items():
        assert abs(seen.get(v, 0.0) - p) <= 5 * np.sqrt(p * (1 - p) / len(KEYS)) + 1e-4


def test_importance_sampling_has_less_variance_on_unequal_rows() -> None:
    rows = np.random.default_rng(1).normal(size=(N, 3)) * np.array([1, 1, 1, 1, 10, 100])[:, None]
    norms = np.linalg.norm(rows, axis=1)
    full = rows.mean(axis=0)

    def variance(p: np.ndarray) -> float:
        draws = jax.vmap(lambda key: sampling.importance(key, p, 1))(KEYS[:20_000])
        gradients = np.asarray(draws, np.float64) @ rows / N
        np.testing.assert_allclose(gradients.mean(axis=0), full, atol=6 * gradients.std(axis=0).max() / np.sqrt(len(gradients)))
        return float(((gradients - full) ** 2).sum(axis=1).mean())

    assert variance(norms / norms.sum()) < 0.5 * variance(np.full(N, 1 / N))


def test_randomized_kaczmarz_converges_at_its_rate() -> None:
    """E|x_k - x*|^2 <= (1 - smin^2/|A|_F^2)^k |x_0 - x*|^2 (Strohmer and Vershynin 2009)."""
    rng = np.random.default_rng(2)
    a = rng.normal(size=(20, 5)) * 10 ** rng.uniform(-1, 0, (20, 1))
    solution = rng.normal(size=5)
    p = (a**2).sum(axis=1) / (a**2).sum()
    rows, b, steps = jnp.asarray(a, jnp.float32), jnp.asarray(a @ solution, jnp.float32), 100

    def run(key: Any) -> Any:
        def step(x: Any, k: Any) -> Any:
            i = jnp.argmax(sampling.importance(k, p, 1))
            return x + (b[i] - rows[i] @ x) / (rows[i] @ rows[i]) * rows[i], None

        return jnp.sum((jax.lax.scan(step, jnp.zeros(5), jax.random.split(key, steps))[0] - solution) ** 2)

    errors = np.asarray(jax.jit(jax.vmap(run))(KEYS[:400]))
    rate = 1 - np.linalg.svd(a, compute_uv=False)[-1] ** 2 / (a**2).sum()
    assert errors.mean() <= rate**steps * (solution**2).sum() + 4 * errors.std() / 20


def test_sampled_loss_is_unbiased() -> None:
    losses = jnp.arange(6.0)
    mean = sum(p * float(sampling.sampled_loss(losses, jnp.asarray(v))) for v, p in nice().items())
    assert abs(mean - 2.5) < 1e-5


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda k: sampling.minibatch(k, 4, 5), ValueError, r"minibatch: batch_size is 5, expected at most n = 4"),
        (lambda k: sampling.minibatch(k, 4, 0), ValueError, r"minibatch: batch_size is 0 \(int\), expected a whole number >= 1"),
        (
            lambda k: sampling.independent(k, [0.5, 0.0]),
            ValueError,
            r"independent: probabilities\[1\] is 0, expected a number in \(0, 1\]",
        ),
        (lambda k: sampling.importance(k, [0.5, 0.4], 1), ValueError, r"importance: probabilities sum to 0\.9, expected 1\."),
        (
            lambda k: sampling.importance(k, [[1.0]], 1),
            ValueError,
            r"importance: probabilities has shape \(1, 1\), expected \(n,\)",
        ),
        (lambda k: sampling.sampled_loss(jnp.ones(()), jnp.ones(3)), ValueError, r"sampled_loss: .*expected \(n,\) for both"),
        (lambda k: sampling.minibatch("a", 4, 2), TypeError, r"minibatch: key is 'a' \(str\), expected a single random key"),
    ],
)
def test_errors(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(jax.random.key(0))
