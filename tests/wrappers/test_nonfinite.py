"""Skipped steps: bit for bit nothing, but for the counters; when they are skipped; Optax's guard."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.core.domains import Bound
from gradtx.core.pairs import Inner
from gradtx.wrappers.adversarial import sam
from gradtx.wrappers.multi_steps import MultiSteps
from gradtx.wrappers.nonfinite import apply_if_finite

PARAMS = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array(0.5)}


def gradient(scale: float = 1.0, bad: Any = None) -> Any:
    grads = jax.tree.map(lambda p: scale * jnp.sin(p), PARAMS)
    return grads if bad is None else grads | {"w": grads["w"].at[1].set(bad)}


def bits(tree: Any) -> list[bytes]:
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x).tobytes()
        for x in jax.tree.leaves(tree)
    ]


@pytest.mark.parametrize(
    ("inner", "bads"),
    [
        (gradtx.adam(0.1), [jnp.nan, jnp.inf, -jnp.inf, 1e30]),  # the square of 1e30 is infinite
        (gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1, 0.9)), [jnp.nan, jnp.inf]),
        (gradtx.noisy_sgd(0.1, key=3), [jnp.nan]),  # a random key in the state
        (gradtx.ema_params(gradtx.radam(0.1), 0.9), [jnp.nan, 1e30]),
    ],
)
@pytest.mark.parametrize("make", [gradtx.skip_nonfinite, gradtx.skip_spikes])
def test_a_skipped_step_changes_no_bit(make: Any, inner: Any, bads: list[Any]) -> None:
    tx = make(inner)
    update = jax.jit(tx.update)
    state = tx.init(PARAMS)
    for _ in range(3):
        _, state = update(gradient(), state, PARAMS)
    for i, bad in enumerate(bads, start=1):
        updates, after = update(gradient(bad=bad), state, PARAMS)
        assert not any(jnp.any(u) for u in jax.tree.leaves(updates))
        assert bits(after.inner_state) == bits(state.inner_state)
        assert int(after.skipped) == i
        state = after
    good, state = update(gradient(), state, PARAMS)
    assert int(state.skipped_in_a_row) == 0
    assert all(jnp.all(u != 0) for u in jax.tree.leaves(good))


def test_good_steps_are_those_of_the_optimizer() -> None:
    inner = gradtx.adamw(0.1, weight_decay=0.1)
    wrapped = [gradtx.skip_nonfinite(inner), gradtx.skip_spikes(inner), apply_if_finite(inner, 2)]
    states, state = [tx.init(PARAMS) for tx in wrapped], inner.init(PARAMS)
    for i in range(5):
        expected, state = inner.update(gradient(i + 1.0), state, PARAMS)
        for j, tx in enumerate(wrapped):
            updates, states[j] = tx.update(gradient(i + 1.0), states[j], PARAMS)
            for name in PARAMS:
                np.testing.assert_allclose(updates[name], expected[name], rtol=1e-6)


def test_a_state_that_begins_infinite_is_no_fault() -> None:
    tx = gradtx.skip_nonfinite(gradtx.chain(gradtx.sgd(0.1), gradtx.reduce_on_plateau()))
    updates, state = tx.update(gradient(), tx.init(PARAMS), PARAMS, value=jnp.asarray(1.0))
    assert int(state.skipped) == 0
    assert bool(jnp.any(updates["w"]))


def test_an_update_that_overflows_in_float16_is_skipped() -> None:
    tx, p = gradtx.skip_nonfinite(gradtx.sgd(100.0)), jnp.ones(2, jnp.float16)
    updates, state = jax.jit(tx.update)(jnp.full(2, 1000.0, jnp.float16), tx.init(p), p)
    assert not jnp.any(updates)
    assert int(state.skipped) == 1


def test_too_many_in_a_row_end_the_run_visibly() -> None:
    tx = gradtx.skip_nonfinite(gradtx.adam(0.1), max_consecutive=2)
    state, seen = tx.init(PARAMS), []
    for _ in range(3):
        updates, state = tx.update(gradient(bad=jnp.nan), state, PARAMS)
        seen.append(bool(jnp.all(jnp.isnan(updates["w"]))))
    assert seen == [False, False, True]
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(state))
    _, state = tx.update(gradient(), state, PARAMS)
    assert int(gradtx.metrics(state)["skipped_in_a_row"]) == 0


def test_spikes_by_their_rule() -> None:
    """The running mean and variance of log|g| in NumPy, over 60 steps with spikes of many sizes."""
    window, sigma = 16, 3.0
    tx = gradtx.skip_spikes(gradtx.sgd(1.0), sigma, window)
    rng = np.random.default_rng(0)
    norms = np.exp(0.3 * rng.standard_normal(60))
    norms[[20, 33, 34, 50]] *= [3.0, 1e30, 10.0, 100.0]
    norms[45] = np.inf
    _, (updates, _) = jax.lax.scan(
        lambda s, g: (lambda out: (out[1], out))(tx.update(g, s)), tx.init(jnp.zeros(())), jnp.asarray(norms, jnp.float32)
    )
    mean = variance = 0.0
    counted, expected = 0, []
    for norm in norms:
        size = np.log(norm)
        taken = np.isfinite(norm) and (counted < window // 4 or size <= mean + sigma * max(np.sqrt(variance), 0.1))
        expected.append(taken)
        if taken:
            lowest = mean - sigma * max(np.sqrt(variance), 0.1) if counted >= window // 4 else -np.inf
            counted += 1
            share = 1 / min(counted, window)
            step = max(size, lowest) - mean
            mean, variance = mean + share * step, (1 - share) * (variance + share * step**2)
    assert 3 <= expected.count(False) <= 8
    np.testing.assert_array_equal(np.asarray(updates) != 0, expected)


def test_a_lasting_change_becomes_usual() -> None:
    tx = gradtx.skip_spikes(gradtx.sgd(1.0), window=4)
    stream = jnp.array([1.0] * 6 + [1e6] * 8)
    _, updates = jax.lax.scan(lambda s, g: tx.update(g, s)[::-1], tx.init(jnp.zeros(())), stream)
    assert (np.asarray(updates) != 0).tolist() == [True] * 6 + [False] * 4 + [True] * 4


def taken_of(norms: Any, window: int = 16) -> np.ndarray:
    """Which of the gradients of these norms `skip_spikes` lets through; a gradient of zero moves nothing either way."""
    tx = gradtx.skip_spikes(gradtx.scale(0.0), window=window)
    norms = jnp.asarray(norms, jnp.float32)
    _, skipped = jax.lax.scan(lambda s, g: (lambda after: (after, after.skipped))(tx.update(g, s)[1]), tx.init(norms[0]), norms)
    return np.diff(np.asarray(skipped), prepend=0) == 0


USUAL = list(1 + 0.1 * np.sin(np.arange(40.0)))


@pytest.mark.parametrize("odd", [0.0, 1e-30, jnp.inf, jnp.nan])
@pytest.mark.parametrize("later", [0, 30])
def test_a_spike_is_one_after_a_gradient_of_no_size_too(odd: float, later: int) -> None:
    taken = taken_of([*USUAL, odd, *USUAL[:later], 1e4, 1.0])
    expected = [True] * 40 + [bool(np.isfinite(odd))] + [True] * later + [False, True]
    assert taken.tolist() == expected


@pytest.mark.parametrize("odd", [0.0, jnp.nan])
def test_gradients_of_no_size_at_the_start_count_for_nothing(odd: float) -> None:
    taken = taken_of([odd] * 40 + USUAL + [1e4])
    assert taken[40:].tolist() == [True] * 40 + [False]


@pytest.mark.parametrize("odd", [[], [0.0], [jnp.nan]])
def test_a_level_that_rises_for_good_is_accepted_within_the_window(odd: list[float]) -> None:
    """Gradients without a size between those of the new level neither begin the count of it anew nor belong to it."""
    taken = taken_of([*USUAL, *([1e3, *odd] * 20)])
    assert taken[40 :: 1 + len(odd)].tolist() == [False] * 16 + [True] * 4


def test_what_is_not_finite_makes_no_spike_usual() -> None:
    assert not taken_of([*USUAL, *[jnp.nan] * 20, 1e4])[-1]


def test_a_level_that_falls_for_good_is_the_usual_one_within_the_window() -> None:
    taken = taken_of([*USUAL, *[1e-6] * 64, 1.0])
    assert taken[40:-1].all()
    assert not taken[-1]


def test_apply_if_finite_is_optax_its_fault_included() -> None:
    ours, theirs = apply_if_finite(gradtx.adam(0.1), 2), optax.apply_if_finite(optax.adam(0.1), 2)
    states = ours.init(PARAMS), theirs.init(PARAMS)
    for bad in (None, jnp.nan, jnp.inf, None, jnp.nan, jnp.nan, jnp.nan, None):
        (u, first), (v, second) = (tx.update(gradient(bad=bad), s, PARAMS) for tx, s in zip((ours, theirs), states, strict=True))
        states = first, second
        assert int(first.notfinite_count) == int(second.notfinite_count)
        assert int(first.total_notfinite) == int(second.total_notfinite)
        for name in PARAMS:
            np.testing.assert_allclose(u[name], v[name], rtol=3e-5)
    assert bool(jnp.isnan(u["w"][1]))  # the third NaN in a row went through, and stays


class clipped(gradtx.Preset):
    """A preset around a transformation."""

    inner: Inner
    most: Bound = 1e35

    def chain(self) -> Any:
        return gradtx.chain(gradtx.clip(self.most), self.inner)


def accumulations() -> dict[str, Any]:
    """An accumulation of four microbatches, alone and inside everything that holds a transformation."""
    inner = gradtx.accumulate(gradtx.adam(0.01), 4)
    return {
        "accumulate": inner,
        "chain": gradtx.chain(gradtx.clip(1e35), inner),
        "named_chain": gradtx.named_chain(("clip", gradtx.clip(1e35)), ("inner", inner)),
        "masked": gradtx.masked(inner, {"w": True, "b": True}),
        "partition": gradtx.partition({"w": inner, "b": gradtx.sgd(0.1)}, {"w": "w", "b": "b"}),
        "Preset": clipped(inner),
        "Wrapper": apply_if_finite(inner, 5),
        "conditionally_mask": gradtx.conditionally_mask(inner, lambda step: step >= 0),
        "inject_hyperparams": gradtx.inject_hyperparams(clipped)(inner, 1e35),
        "accumulate of accumulate": gradtx.accumulate(gradtx.accumulate(gradtx.adam(0.01), 2), 2),
        "MultiSteps": MultiSteps(gradtx.adam(0.01), 4),
        "sam": sam(inner, gradtx.chain(gradtx.normalize(), gradtx.sgd(0.01)), 1),
    }


def microbatches(tx: Any, scales: list[float]) -> tuple[Any, Any]:
    """Parameters and state after gradients of these sizes, in one program."""

    def step(carry: Any, scale: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.tree.map(lambda p: scale * jnp.sin(p), PARAMS), state, params)
        return (gradtx.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), jnp.asarray(scales, jnp.float32))[0]


@pytest.mark.parametrize(
    ("name", "make", "at"),
    [(name, gradtx.skip_nonfinite, 2) for name in accumulations()]
    + [("accumulate", gradtx.skip_nonfinite, 0), ("accumulate", lambda inner: gradtx.skip_spikes(inner, 1e6), 3)],
)
def test_a_group_of_microbatches_that_is_refused_is_dropped(name: str, make: Any, at: int) -> None:
    """1e30 is finite, and so is its mean with ones, but its square is not: the whole group goes, and the next one steps."""
    tx = make(accumulations()[name])
    group = [1.0] * 4
    group[at] = 1e30
    params, state = microbatches(tx, [*group, 1.0, 1.0, 1.0, 1.0])
    expected, clean = microbatches(tx, [1.0] * 4)
    assert int(state.skipped) == 1
    steps, expected_steps = (gradtx.tree.get_all_with_path(s, "gradient_step") for s in (state, clean))
    assert int(steps[-1][1]) == int(expected_steps[-1][1]) == 1  # the innermost
    np.testing.assert_allclose(params["w"], expected["w"], rtol=1e-6)
    assert not np.allclose(params["w"], PARAMS["w"])


def test_a_microbatch_that_is_not_finite_is_left_out() -> None:
    for name in ("accumulate", "chain", "MultiSteps"):
        tx = gradtx.skip_nonfinite(accumulations()[name])
        params, state = microbatches(tx, [1.0, 2.0, jnp.nan, 3.0, 4.0])
        expected, _ = microbatches(tx, [1.0, 2.0, 3.0, 4.0])
        assert int(state.skipped) == 1
        np.testing.assert_array_equal(params["w"], expected["w"])
        assert not np.allclose(params["w"], PARAMS["w"])


def test_a_sum_that_overflows_drops_the_last_microbatch_alone() -> None:
    tx = gradtx.skip_nonfinite(gradtx.accumulate(gradtx.sgd(1e-38), 4))
    _, state = microbatches(tx, [1.0, 3e38, 3e38])
    assert (int(state.skipped), int(state.inner_state.mini_step)) == (1, 2)


def test_updates_let_through_together_that_are_refused_are_dropped() -> None:
    """Each of two updates fits into float16, their sum does not."""
    tx, p = gradtx.skip_nonfinite(gradtx.chain(gradtx.sgd(1.0), gradtx.apply_every(2))), jnp.ones(2, jnp.float16)
    state, seen = tx.init(p), []
    for gradient in (6e4, 6e4, 1.0, 1.0):
        updates, state = tx.update(jnp.full(2, gradient, jnp.float16), state, p)
        seen.append(float(updates[0]))
    assert seen == [0, 0, 0, -2]
    assert int(state.skipped) == 1


def test_the_program_grows_with_the_leaves_and_not_with_their_square() -> None:
    """Each result waits for a check of all; XLA on CPU must not repeat that check for each."""
    tx = gradtx.skip_nonfinite(gradtx.adam(0.1))

    def length(leaves: int) -> int:
        params = {f"p{i}": jnp.ones((3, 4)) for i in range(leaves)}
        return len(jax.jit(tx.update).lower(params, tx.init(params), params).compile().as_text() or "")

    assert length(16) < 2.5 * length(8)
