"""Learning rates: a quadratic that explodes above 2 / L, runs against loops by hand, and losses that are not finite."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import lr_range_test

X = np.random.default_rng(0).normal(size=(100, 16, 4)).astype(np.float32)
BATCHES = [(x,) for x in X]
START = {"w": jnp.full(4, 3.0)}
CURVATURE = 10.0
RATES = [0.0, 0.01, 0.1, 0.3]


def noisy(params: Any, x: jax.Array) -> jax.Array:
    return CURVATURE / 2 * jnp.mean(jnp.sum((params["w"] - x) ** 2, -1))


def plain(params: Any) -> jax.Array:
    return CURVATURE / 2 * jnp.sum(params["w"] ** 2)


def given(params: Any, y: jax.Array) -> jax.Array:
    """A loss that is told, whatever the parameters."""
    return jnp.sum(y) + 0 * plain(params)


def one_by_one(losses: Any) -> Any:
    """A batch for each, which holds it."""
    return [(loss,) for loss in np.asarray(losses, np.float32)[:, None]]


def by_hand(direction: Any, rates: Any) -> np.ndarray:
    """The losses of a loop in float64: `w -= rate * direction(g)`."""
    w, losses = np.full(4, 3.0), []
    for rate, x in zip(rates, X.astype(np.float64), strict=False):
        losses.append(CURVATURE / 2 * np.mean(np.sum((w - x) ** 2, -1)))
        w = w - rate * direction(CURVATURE * (w - x.mean(0)))
    return np.asarray(losses)


class Momentum:
    m = 0.0

    def __call__(self, g: np.ndarray) -> np.ndarray:
        self.m = g + 0.5 * self.m
        return self.m


class Adam:
    t, m, v = 0, 0.0, 0.0

    def __call__(self, g: np.ndarray) -> np.ndarray:
        self.t, self.m, self.v = self.t + 1, 0.9 * self.m + 0.1 * g, 0.999 * self.v + 0.001 * g**2
        return self.m / (1 - 0.9**self.t) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)


def test_the_range_test_explodes_where_the_curvature_says() -> None:
    for seed in range(3):
        x = jax.random.normal(jax.random.key(seed), X.shape)
        found = lr_range_test(noisy, START, gradtx.sgd, [(row,) for row in x], min_lr=1e-5, max_lr=10.0)
        assert 2 / CURVATURE < found.learning_rates[found.diverged_at] < 2.5 * 2 / CURVATURE
        assert 1e-3 < found.suggestion < 1 / CURVATURE
        assert found.suggestion in found.learning_rates


def test_the_range_test_is_a_run_with_a_growing_rate() -> None:
    found = lr_range_test(noisy, START, gradtx.adam, BATCHES, min_lr=1e-3, max_lr=1.0, steps=30)
    np.testing.assert_allclose(found.learning_rates, np.geomspace(1e-3, 1.0, 30), rtol=1e-5)
    np.testing.assert_allclose(found.losses, by_hand(Adam(), np.geomspace(1e-3, 1.0, 30)), rtol=1e-4)
    assert found.diverged_at == 30


def test_fixed_rates_are_runs_of_their_own() -> None:
    found = lr_range_test(noisy, START, lambda rate: gradtx.sgd(rate, 0.5), BATCHES, learning_rates=RATES, steps=20)
    np.testing.assert_allclose(found.learning_rates, RATES, rtol=1e-6)
    expected = np.array([by_hand(Momentum(), [rate] * 20) for rate in RATES])
    np.testing.assert_allclose(found.losses, expected, rtol=1e-4)
    assert found.suggestion == np.float32(RATES[int(np.argmin(expected[:, -2:].mean(1)))])
    assert found.diverged_at.tolist()[:3] == [20, 20, 20]


def test_a_fixed_rate_explodes_above_two_over_the_curvature() -> None:
    rates = np.array([0.5, 0.95, 1.05, 2.0]) * 2 / CURVATURE
    found = lr_range_test(plain, START, gradtx.sgd, learning_rates=rates, smoothing=0.0)
    assert found.losses.shape == (4, 100)
    assert (np.asarray(found.diverged_at) < 100).tolist() == [False, False, True, True]
    assert found.suggestion == np.float32(rates[0])
    np.testing.assert_array_equal(found.smoothed[:3], found.losses[:3])
    assert not np.isfinite(found.losses[3, -1])  # 9 to the 100th is no float32


def test_smoothing_is_the_bias_corrected_running_mean() -> None:
    found = lr_range_test(noisy, START, gradtx.sgd, BATCHES, learning_rates=[0.01], smoothing=0.8)
    mean, expected = 0.0, []
    for t, loss in enumerate(np.asarray(found.losses[0], np.float64), start=1):
        mean = 0.8 * mean + 0.2 * loss
        expected.append(mean / (1 - 0.8**t))
    np.testing.assert_allclose(found.smoothed[0], expected, rtol=1e-5)


def test_the_suggestion_is_the_steepest_descent() -> None:
    """A loss that is, whatever the parameters, a logistic curve over the steps: steepest at step 60."""
    losses = one_by_one(5 - 3 / (1 + np.exp(-(np.arange(100) - 60) / 5.0)))
    exact = lr_range_test(given, START, gradtx.sgd, losses, smoothing=0.0)
    assert exact.suggestion == exact.learning_rates[60]
    late = lr_range_test(given, START, gradtx.sgd, losses, smoothing=0.5)
    assert exact.learning_rates[60] < late.suggestion < exact.learning_rates[64]  # a running mean lags by a step or two


def test_losses_that_are_not_finite() -> None:
    y = np.linspace(3.0, 1.0, 50).astype(np.float32)
    for wrong in (np.nan, np.inf, -np.inf):
        y[40] = wrong
        found = lr_range_test(given, START, gradtx.sgd, one_by_one(y), steps=50)
        assert found.diverged_at == 40
        np.testing.assert_array_equal(np.isfinite(found.losses), np.arange(50) < 40)
        assert found.suggestion in found.learning_rates[:40]
        fixed = lr_range_test(given, START, gradtx.sgd, one_by_one(y), steps=50, learning_rates=[0.1, 0.2])
        assert fixed.diverged_at.tolist() == [40, 40]
        assert np.isnan(fixed.suggestion)
    y[0] = np.nan
    never = lr_range_test(given, START, gradtx.sgd, one_by_one(y), steps=50)
    assert never.diverged_at == 0
    assert np.isnan(never.suggestion)


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    found = lr_range_test(given, START, gradtx.sgd, one_by_one(np.linspace(1.0, 1.5, 50)), steps=50)
    assert np.isnan(found.suggestion)
    assert found.diverged_at == 50


def test_losses_below_zero_and_at_zero() -> None:
    def shifted(params: Any, x: jax.Array) -> jax.Array:
        return noisy(params, x) - 50.0

    found = lr_range_test(shifted, START, gradtx.sgd, BATCHES, min_lr=1e-5)
    assert 2 / CURVATURE < found.learning_rates[found.diverged_at] < 4 * 2 / CURVATURE
    solved = lr_range_test(plain, {"w": jnp.zeros(4)}, gradtx.sgd, steps=10)
    assert solved.diverged_at == 10


def test_ways_to_hand_over_batches() -> None:
    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return noisy(params, x) + 0 * y.sum()

    test = partial(lr_range_test, params=START, tx_factory=gradtx.sgd, learning_rates=[0.05], steps=7)
    expected = test(noisy, batches=[(x,) for x in X[[0, 1, 2, 0, 1, 2, 0]]]).losses  # again from the first after the last
    y, flat = np.zeros((48, 2), np.float32), X[:3].reshape(-1, 4)
    ways: list[tuple[Any, Any, int | None]] = [
        (loss, [[x, y[:16]] for x in X[:3]], None),
        (loss, ((x, y[:16]) for x in X[:3]), None),
        (loss, (flat, y), 16),
        (noisy, (np.concatenate([flat, flat[:5]]),), 16),  # the rest of 5 is left out
        (lambda params, batch: loss(params, **batch), ({"x": flat, "y": y},), 16),
    ]
    for loss_fn, batches, batch_size in ways:
        np.testing.assert_allclose(test(loss_fn, batches=batches, batch_size=batch_size).losses, expected, rtol=1e-6)
    one = lr_range_test(noisy, START, gradtx.sgd, (flat,), learning_rates=[0.05])
    assert one.losses.shape == (1, 100)


@pytest.mark.parametrize(("examples", "steps"), [(16, 100), (128, 100), (1920, 120)])
def test_a_hundred_steps_at_least(examples: int, steps: int) -> None:
    """Few batches are used again: 16 steps over seven decades would tell nothing."""
    found = jax.eval_shape(
        lambda x: lr_range_test(noisy, START, gradtx.sgd, (x,), batch_size=16), np.zeros((examples, 4), np.float32)
    )
    assert found.losses.shape == (steps,)


def test_complex_parameters_go_downhill() -> None:
    """`jax.grad` gives the conjugate of the ascent: along it `|z - 1 - 2i|^2` rises from the first step on."""

    def loss(z: jax.Array) -> jax.Array:
        return jnp.sum(jnp.abs(z - (1 + 2j)) ** 2)

    for make in (gradtx.sgd, lambda rate: gradtx.sam_wrapper(gradtx.sgd(rate), 0.1)):
        losses = lr_range_test(loss, jnp.zeros(2, jnp.complex64), make, steps=5, learning_rates=[0.1]).losses[0]
        assert np.all(np.diff(losses) < 0)
    np.testing.assert_allclose(
        lr_range_test(loss, jnp.zeros(2, jnp.complex64), gradtx.sgd, steps=3, learning_rates=[0.1]).losses[0],
        10 * 0.64 ** np.arange(3),
        rtol=1e-5,
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_parameters_stay_narrow(dtype: str) -> None:
    params = jax.tree.map(lambda x: x.astype(dtype), START)
    seen = []

    def loss(params: Any, x: jax.Array) -> jax.Array:
        seen.append(params["w"].dtype)
        return noisy(jax.tree.map(lambda p: p.astype("float32"), params), x)

    found = lr_range_test(loss, params, gradtx.adam, BATCHES, steps=20)
    assert set(map(str, seen)) == {dtype}
    assert np.isfinite(found.losses).all()


def with_linesearch(rate: Any) -> Any:
    return gradtx.chain(gradtx.sgd(rate), gradtx.scale_by_backtracking_linesearch(5))


@pytest.mark.parametrize("make", [lambda rate: gradtx.sam_wrapper(gradtx.sgd(rate), 0.1), optax.adam, with_linesearch])
def test_optimizers_that_want_more(make: Any) -> None:
    found = lr_range_test(plain, START, make, steps=5, learning_rates=[0.01, 0.02])
    assert np.isfinite(found.losses).all()
    assert np.all(found.losses[:, -1] < found.losses[:, 0])


def test_an_equal_test_is_compiled_once() -> None:
    traces = []

    def loss(params: Any) -> jax.Array:
        traces.append(1)
        return plain(params)

    lr_range_test(loss, START, gradtx.sgd, steps=5)
    once = len(traces)
    lr_range_test(loss, START, gradtx.sgd, steps=5, min_lr=1e-4, max_lr=1.0)
    assert len(traces) == once


BAD = [
    ({"min_lr": 1.0, "max_lr": 0.1}, ValueError, r"min_lr is 1\.0 and max_lr is 0\.1, expected min_lr < max_lr"),
    ({"learning_rates": [0.1], "min_lr": 1e-3}, ValueError, r"learning_rates and min_lr or max_lr are given, expected one or the other\."),
    ({"min_lr": 0.0}, ValueError, r"min_lr is 0\.0 \(float\), expected a finite number > 0"),
    ({"max_lr": np.inf}, ValueError, r"max_lr is inf \(float\), expected a finite number > 0"),
    ({"steps": 1}, ValueError, r"steps is 1 \(int\), expected a whole number >= 2, or None"),
    ({"batches": X}, TypeError, r"batches is an array of shape \(100, 16, 4\) and dtype float32, expected a tuple of the arguments of loss_fn"),
    ({"batches": [(X[0],), (X[0, :3],)]}, ValueError, "batches has 2 kinds of batches, expected equal trees of equal shapes: one program"),
    ({"tx_factory": gradtx.sgd(0.1)}, TypeError, r"tx_factory is sgd\(learning_rate=0.1\), expected a function from a learning rate .*lambda"),
    ({"tx_factory": lambda rate: rate}, TypeError, r"tx_factory\(learning_rate\) is the function .*schedule, expected a gradient transformation"),
    ({"tx_factory": lambda rate: None, "learning_rates": [0.1]}, TypeError, r"tx_factory\(learning_rate\) is None, expected a gradient trans"),
    ({"loss_fn": lambda params, x: params["w"] * x[0]}, TypeError, r"loss_fn gave an array of shape \(4,\) and dtype float32, expected a real floating scalar"),
    ({"loss_fn": lambda params, x: (noisy(params, x), 1)}, TypeError, r"loss_fn gave a tuple of 2, .* Was a pair \(loss, aux\) returned\?"),
    ({"params": {"n": jnp.arange(3)}}, TypeError, "params leaf `n` is an array of shape .* expected a floating or complex array"),
    ({"learning_rates": 0.1}, ValueError, r"learning_rates is 0\.1, expected a list or array of finite numbers >= 0"),
    ({"learning_rates": []}, ValueError, r"learning_rates is \[\], expected a list or array of finite numbers >= 0"),
    ({"learning_rates": [0.1, -1.0]}, ValueError, r"learning_rates is \[0\.1, -1\.0\], expected a list or array of finite numbers >= 0"),
    ({"smoothing": 1.0}, ValueError, r"smoothing is 1\.0 \(float\), expected a number in \[0, 1\)"),
    ({"divergence": 1.0}, ValueError, r"divergence is 1\.0 \(float\), expected a number > 1"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "error", "text"), BAD, ids=lambda x: next(iter(x)) if isinstance(x, dict) else "")
def test_errors(bad: dict[str, Any], error: type[Exception], text: str) -> None:
    good: dict[str, Any] = {"loss_fn": noisy, "params": START, "tx_factory": gradtx.sgd, "batches": BATCHES}
    with pytest.raises(error, match=f"^lr_range_test: {text}"):
        lr_range_test(**(good | bad))
