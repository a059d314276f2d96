"""Gradients of examples, gathered into steps: beside Optax's `experimental.aggregating`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx.optax as ours

X, Y = jnp.sin(jnp.arange(96.0)).reshape(6, 8, 2), jnp.cos(jnp.arange(48.0)).reshape(6, 8)
PARAMS = {"w": jnp.array([0.5, -1.0]), "b": jnp.zeros(())}


def loss(p: Any, x: Any, y: Any) -> Any:
    return (x @ p["w"] + p["b"] - y) ** 2


def run(tx: Any, lib: Any, per_example: bool = True) -> tuple[Any, Any]:
    """Six batches of eight examples."""
    params, state = PARAMS, tx.init(PARAMS)
    of_each = jax.vmap(jax.grad(loss), (None, 0, 0))
    step = jax.jit(tx.update)
    for x, y in zip(X, Y, strict=True):
        grads = of_each(params, x, y)
        grads = grads if per_example else jax.tree.map(lambda g: jnp.mean(g, 0), grads)
        updates, state = step(grads, state, params)
        params = lib.apply_updates(params, updates)
    return params, state


def close(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("axis", [0, None])
def test_means_over_examples_and_calls(steps: int, axis: int | None) -> None:
    moved = []
    for lib in (ours, optax):
        at = lib.experimental.aggregating
        gather = at.average_incrementally_updates(axis, steps)
        tx = at.process(lib.clip(0.5), gather, lib.adam(0.1, b2=0.9))
        moved.append(run(tx, lib, axis is not None)[0])
    close(*moved)
    assert float(jnp.abs(moved[0]["w"] - PARAMS["w"]).max()) > 0.05


@pytest.mark.parametrize("steps", [1, 2])
def test_means_and_variances(steps: int) -> None:
    found = []
    for lib in (ours, optax):
        at = lib.experimental.aggregating
        params, state = run(at.add_mean_variance_to_opt(lib.sgd(0.05), 0.8, 0, steps), lib)
        found.append((params, at.get_unbiased_mean_and_variance_ema(state)))
    close(*found)


def test_the_variance_is_that_of_all_examples_of_several_calls() -> None:
    at = ours.experimental.aggregating
    tx = at.get_per_element_mean_and_sum_sq_diff_grads(0, 3)
    state, grads = tx.init(PARAMS["w"]), X[:3]
    for each in grads:
        (mean, extra), state = tx.update(each, state, PARAMS["w"])
    whole = np.asarray(grads, float).reshape(24, 2)
    np.testing.assert_allclose(mean, whole.mean(0), rtol=1e-5)
    np.testing.assert_allclose(extra["sum_sq_diff_grads"] / (extra["sample_size"] - 1), whole.var(0, ddof=1), rtol=1e-5)
    assert bool(state.ready)


def test_numbers_of_examples() -> None:
    at = ours.experimental.aggregating
    assert at.get_batch_size_from_per_elt_updates({"a": jnp.ones((4, 2)), "b": jnp.ones((4,))}, 0) == 4
    assert at.get_batch_size_from_per_elt_updates(jnp.ones((4, 3, 2)), (0, 1)) == 12
    with pytest.raises(ValueError, match=r"the leaves have \[4, 3\] examples, expected one number"):
        at.get_batch_size_from_per_elt_updates({"a": jnp.ones(4), "b": jnp.ones(3)}, 0)


def test_what_is_not_there_is_said() -> None:
    at = ours.experimental.aggregating
    with pytest.raises(ValueError, match="the state holds no PerElementMeanAndVarianceEMAState"):
        at.get_unbiased_mean_and_variance_ema(ours.adam(0.1).init(PARAMS))
    with pytest.raises(ValueError, match=r"accumulate_avg_updates: accumulation_steps is 0 \(int\), expected a whole number >= 1"):
        at.accumulate_avg_updates(0)


def test_every_name_of_optax_is_there() -> None:
    theirs = vars(optax.experimental.aggregating)
    own = {name for name, value in theirs.items() if getattr(value, "__module__", "") == optax.experimental.aggregating.__name__}
    assert own - {"AggregatorUpdateFn"} <= set(vars(ours.experimental.aggregating))
    assert "process" in own
