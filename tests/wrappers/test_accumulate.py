"""Accumulation: k microbatches are one large batch, at the memory of one accumulator; what is left out; refusals."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES

import gradtx
from gradtx.wrappers.multi_steps import MultiSteps, skip_large_updates, skip_not_finite

K = 3
PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "bias": jnp.array([0.5, -0.25])}
RANDOM = ("noise", "noisy", "perturbed", "sgld", "langevin")
NO_OPTIMIZER = {
    "MultiSteps": "counts calls by design",
    "accumulate": "is what is tested",
    "apply_every": "counts calls by design",
    "conditionally_mask": "counts calls by design",
    "conditionally_transform": "counts calls by design",
}
ROWS = [
    pytest.param(name, marks=[] if type(case.make()).__module__.startswith("gradtx.optimizers.") else pytest.mark.slow)
    for name, case in CASES.items()
    if not case.extra and name not in NO_OPTIMIZER and not any(word in name for word in RANDOM)  # random numbers differ by the step
]


def microbatch(i: int) -> Any:
    return jax.tree.map(lambda p: jnp.cos((i + 1) * p) + 0.3, PARAMS)


@pytest.mark.parametrize("name", ROWS)
def test_microbatches_equal_one_large_batch(name: str) -> None:
    """Two steps of `K` microbatches against two steps with their means."""
    tx = CASES[name].make()
    many, params, direct = gradtx.accumulate(tx, K), PARAMS, PARAMS
    state, other = many.init(params), tx.init(params)
    update = jax.jit(many.update)
    for step in range(2):
        parts = [microbatch(K * step + i) for i in range(K)]
        for i, part in enumerate(parts):
            updates, state = update(part, state, params)
            if i < K - 1:
                assert not any(jnp.any(u) for u in jax.tree.leaves(updates))
            params = gradtx.apply_updates(params, updates)
        mean = jax.tree.map(lambda *xs: sum(xs) / K, *parts)
        updates, other = tx.update(mean, other, direct)
        direct = gradtx.apply_updates(direct, updates)
        tolerance = max(1e-6, 10 * CASES[name].rounding)
        for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(direct), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=tolerance)


def test_memory_is_one_accumulator() -> None:
    tx = gradtx.adam(0.1)
    size = lambda state: sum(x.nbytes for x in jax.tree.leaves(state))  # noqa: E731
    plain, many = size(tx.init(PARAMS)), size(gradtx.accumulate(tx, 100).init(PARAMS))
    assert many - plain == 4 * 8 + 4 * 4  # float32 sums, four counters
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    assert {x.dtype for x in jax.tree.leaves(gradtx.accumulate(tx, 2).init(half).accumulator)} == {jnp.dtype("float32")}
    narrow = gradtx.accumulate(tx, 2, dtype=jnp.bfloat16).init(half).accumulator
    assert {x.dtype for x in jax.tree.leaves(narrow)} == {jnp.dtype("bfloat16")}


def test_one_microbatch_is_the_optimizer_itself() -> None:
    tx = gradtx.adam(0.1)
    assert jax.tree.structure(gradtx.accumulate(tx, 1).init(PARAMS)) == jax.tree.structure(tx.init(PARAMS))


def test_a_nan_microbatch_is_lost_alone() -> None:
    tx = gradtx.accumulate(gradtx.sgd(1.0), 3, skip_nonfinite=True)
    state, taken = tx.init(jnp.zeros(())), []
    stream = [1.0, jnp.nan, 3.0, jnp.nan, jnp.inf, jnp.nan, 5.0, 6.0, 7.0]
    for g in stream:
        updates, state = jax.jit(tx.update)(jnp.asarray(g), state)
        taken.append(float(updates))
    assert taken == [0, 0, -2, 0, 0, 0, 0, 0, -6]  # the mean of 1 and 3; nothing to step with; the mean of 5, 6, 7
    metrics = gradtx.metrics(state)
    assert {key: int(metrics[key]) for key in ("gradient_step", "left_out")} == {"gradient_step": 2, "left_out": 4}
    poisoned = gradtx.accumulate(gradtx.sgd(1.0), 3)
    state = poisoned.init(jnp.zeros(()))
    for g in stream[:3]:
        updates, state = poisoned.update(jnp.asarray(g), state)
    assert bool(jnp.isnan(updates))


def test_schedule_of_microbatches() -> None:
    tx = gradtx.accumulate(gradtx.sgd(1.0), lambda step: step + 1)  # 1, 2, 3 microbatches
    state, taken = tx.init(jnp.zeros(())), []
    for g in range(1, 7):
        updates, state = tx.update(jnp.asarray(float(g)), state)
        taken.append(float(updates))
    assert taken == [-1, 0, -2.5, 0, 0, -5]


@pytest.mark.parametrize("mean", [True, False])
def test_multi_steps_is_optax(mean: bool) -> None:
    rule = functools.partial(skip_large_updates, max_squared_norm=50.0)
    ours = MultiSteps(gradtx.adam(0.1), 2, mean, rule)
    theirs = optax.MultiSteps(optax.adam(0.1), 2, mean, functools.partial(optax.skip_large_updates, max_squared_norm=50.0))
    states = ours.init(PARAMS), theirs.init(PARAMS)
    for i, scale in enumerate([1.0, 2.0, 100.0, 1.0, jnp.nan, 3.0, 1.0]):
        grads = jax.tree.map(lambda g: scale * g, microbatch(i))  # noqa: B023
        (u, first), (v, second) = (tx.update(grads, s, PARAMS) for tx, s in zip((ours, theirs), states, strict=True))
        states = first, second
        assert bool(ours.has_updated(first)) == bool(theirs.has_updated(second))
        assert int(first.gradient_step) == int(second.gradient_step)
        assert bool(first.skip_state["should_skip"]) == bool(second.skip_state["should_skip"])
        for name in PARAMS:
            np.testing.assert_allclose(u[name], v[name], rtol=1e-5, atol=1e-6)
    scanned = gradtx.chain(ours.gradient_transformation())
    assert jax.tree.structure(scanned.update(microbatch(0), scanned.init(PARAMS), PARAMS)[0]) == jax.tree.structure(PARAMS)


def test_rules_that_skip_are_optax() -> None:
    for value in (1.0, jnp.nan, jnp.inf, 30.0):
        tree = {"w": jnp.array([value, 2.0]), "b": jnp.array(1.0)}
        for ours, theirs in (
            (skip_not_finite, optax.skip_not_finite),
            (
                functools.partial(skip_large_updates, max_squared_norm=100.0),
                functools.partial(optax.skip_large_updates, max_squared_norm=100.0),
            ),
        ):
            (skip, found), (expected, state) = ours(tree, 0, None), theirs(tree, 0, None)
            assert bool(skip) == bool(expected)
            assert found.keys() == state.keys()
            for key in found:
                np.testing.assert_allclose(found[key], state[key])


def test_apply_every_is_optax() -> None:
    ours, theirs = gradtx.apply_every(3), optax.apply_every(3)
    states = ours.init(PARAMS), theirs.init(PARAMS)
    for i in range(7):
        (u, first), (v, second) = (tx.update(microbatch(i), s) for tx, s in zip((ours, theirs), states, strict=True))
        states = first, second
        for name in PARAMS:
            np.testing.assert_allclose(u[name], v[name], rtol=1e-6)


def test_microbatched_value_and_gradient() -> None:
    def loss(w: Any, x: Any, y: Any) -> Any:
        return jnp.mean((jnp.tanh(x @ w) - y) ** 2), {"size": x.shape[0], "mean": jnp.mean(x)}

    x, y = jax.random.normal(jax.random.key(0), (12, 3)), jnp.linspace(-1, 1, 12)
    w = jnp.array([0.5, -1.0, 2.0])
    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    (value, aux), grad = jax.jit(gradtx.microbatched(value_and_grad, 4, has_aux=True))(w, x, y)
    (expected, _), direct = value_and_grad(w, x, y)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(grad, direct, rtol=1e-5)
    assert aux["size"].tolist() == [3, 3, 3, 3]
    np.testing.assert_allclose(aux["mean"], x.reshape(4, -1).mean(1), rtol=1e-5)
    half, _ = gradtx.microbatched(jax.value_and_grad(lambda w, x: jnp.mean(x @ w)), 2)(
        w.astype(jnp.bfloat16), x.astype(jnp.bfloat16)
    )
    assert half.dtype == jnp.bfloat16

    def scaled(w: Any, x: Any, factor: Any, *, shift: Any) -> Any:
        return factor * jnp.mean(jnp.tanh(x @ w) + shift)

    value, _ = gradtx.microbatched(jax.value_and_grad(scaled), 4)(w, x, 2.0, shift=jnp.arange(3.0))  # what belongs to no example
    np.testing.assert_allclose(value, scaled(w, x.reshape(4, 3, 3), 2.0, shift=jnp.arange(3.0)), rtol=1e-6)


@pytest.mark.parametrize("has_aux", [False, True])
def test_microbatched_wants_a_value_and_a_gradient(has_aux: bool) -> None:
    with pytest.raises(
        TypeError, match=r"^microbatched: value_and_grad_fn gave .*, expected a pair \(value, gradient\), as jax\.value_and_grad"
    ):
        gradtx.microbatched(lambda w, x: jnp.sum(w) * x.sum(), 2, has_aux=has_aux)(jnp.ones(2), jnp.ones(4))


SAM = gradtx.sam_wrapper(gradtx.sgd(0.1))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: gradtx.accumulate(SAM, 2),
            ValueError,
            r"^accumulate: inner is sam_wrapper\(.*\), which calls grad_fn: it would see the last microbatch alone\. Put the "
            r"accumulation inside: update it with the mean gradient of all microbatches and a grad_fn that gives the same at other "
            r"parameters \(gradtx\.microbatched makes both\), or accumulate the gradients of gradtx\.sam_value_and_grad\.$",
        ),
        (
            lambda: gradtx.accumulate(gradtx.chain(gradtx.clip(1.0), SAM), 2),
            ValueError,
            "^accumulate: inner is chain.*which calls grad_fn",
        ),
        (lambda: MultiSteps(SAM, 2), ValueError, "^MultiSteps: opt is sam_wrapper.*which calls grad_fn"),
        (
            lambda: MultiSteps(gradtx.sgd, 2),
            TypeError,
            "^MultiSteps: opt is the class sgd, expected a gradient transformation",
        ),
        (
            lambda: MultiSteps(gradtx.sgd(0.1), 0),
            ValueError,
            r"^MultiSteps: every_k_schedule is 0 \(int\), expected a whole number >= 1",
        ),
        (
            lambda: MultiSteps(gradtx.sgd(0.1), 2, should_skip_update_fn=3),
            TypeError,
            r"^MultiSteps: should_skip_update_fn is 3 \(int\), expected a function, or None\.$",
        ),
        (
            lambda: MultiSteps(gradtx.sgd(0.1), 2, should_skip_update_fn=lambda u, s, p: (1, ())).update(
                PARAMS, MultiSteps(gradtx.sgd(0.1), 2).init(PARAMS)
            ),
            ValueError,
            r"^MultiSteps: should_skip_update_fn gives 1 \(int\) first, expected a boolean scalar\.$",
        ),
        (
            lambda: gradtx.microbatched(lambda w: w, 0),
            ValueError,
            r"^microbatched: microbatches is 0 \(int\), expected a whole number >= 1",
        ),
        (
            lambda: gradtx.microbatched(lambda w, x: (w, w), 2)(jnp.ones(2), jnp.ones(3)),
            ValueError,
            r"^microbatched: argument `0` after the parameters has 3 entries on its leading axis, expected a multiple of microbatches=2\.",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("params", [None, jnp.zeros(2), jnp.zeros(2, jnp.bfloat16)], ids=["none", "float32", "bfloat16"])
def test_a_narrow_sum_does_not_round_updates(params: Any) -> None:
    tx, ones = gradtx.accumulate(gradtx.sgd(0.3), 2, dtype="bfloat16"), jnp.ones(2)
    state = tx.init(ones if params is None else params)
    for _ in range(2):
        updates, state = tx.update(ones, state, params)
    np.testing.assert_array_equal(updates, jnp.full(2, -0.3))
