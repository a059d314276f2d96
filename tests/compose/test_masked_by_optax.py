"""Optax's combinators leave its own `MaskedNode` in the trees that a transformation inside sees; it means what gradtx's means."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"a": {"b": jnp.asarray([0.5, -1.0]), "k": jnp.asarray([[1.0, 2.0], [3.0, 4.0]])}, "c": jnp.asarray([3.0, 1.0, 2.0])}
MASKS = {"leaf": {"a": {"b": False, "k": True}, "c": True}, "subtree": {"a": False, "c": True}}
EACH_MASK = pytest.mark.parametrize("mask", list(MASKS.values()), ids=list(MASKS))


def half_squares(params: Any) -> Any:
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(params)) / 2


def evaluated(tx: Any) -> tuple[Any, Any]:
    """The parameters after two steps, and those to evaluate with."""
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(2):
        updates, state = tx.update(params, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, gradtx.eval_params(state, params)


def assert_close(actual: Any, expected: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), actual, expected)


def assert_equal(actual: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@EACH_MASK
@pytest.mark.parametrize(
    "tx",
    [
        gradtx.accelegrad(2.0),
        gradtx.ema_params(gradtx.sgd(0.1), 0.5),
        gradtx.lookahead_wrapper(gradtx.sgd(0.1), 3),
        gradtx.momentum_sam(gradtx.sgd(0.1), 0.2),
        gradtx.ranger(0.1),
        gradtx.schedule_free_adamw(0.1),
        gradtx.schedule_free_sgd(0.1),
        gradtx.swa(gradtx.sgd(0.1)),
    ],
    ids=lambda tx: repr(tx).partition("(")[0],
)
def test_the_parameters_to_evaluate_with(tx: Any, mask: Any) -> None:
    params, found = evaluated(optax.masked(gradtx.to_optax(tx), mask))
    assert_equal((params, found), evaluated(gradtx.masked(tx, mask)))
    assert not np.array_equal(found["c"], params["c"])
    np.testing.assert_array_equal(found["a"]["b"], params["a"]["b"])


def test_an_average_for_each_group() -> None:
    slow, fast = gradtx.ema_params(gradtx.sgd(0.1), 0.9), gradtx.schedule_free_sgd(0.1)
    for labels in ({"a": "slow", "c": "fast"}, {"a": {"b": "fast", "k": "slow"}, "c": "fast"}):
        theirs = optax.multi_transform({"slow": gradtx.to_optax(slow), "fast": gradtx.to_optax(fast)}, labels)
        assert_equal(evaluated(theirs), evaluated(gradtx.partition({"slow": slow, "fast": fast}, labels)))


def test_averages_of_other_parameters_are_named() -> None:
    state = optax.masked(gradtx.to_optax(gradtx.schedule_free_sgd(0.1)), MASKS["leaf"]).init(PARAMS)
    text = r"`d` is only in params\. Does the state belong to these parameters\?"
    with pytest.raises(ValueError, match=text):
        gradtx.eval_params(state, PARAMS | {"d": jnp.ones(2)})


def after_one_step(tx: Any, mask: Any) -> Any:
    """By what each leaf of gradients of 1 was multiplied."""
    tx = optax.masked(gradtx.to_optax(tx), mask)
    return jax.tree.map(lambda u: float(u.min()), tx.update(jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS))[0])


@EACH_MASK
def test_masks_may_speak_of_parameters_that_are_masked_out(mask: Any) -> None:
    for inner in (gradtx.by_path({"a/b": True, "a/k": False}, default=True), {"a": {"b": True, "k": False}, "c": True}):
        assert after_one_step(gradtx.masked(gradtx.scale(10.0), inner), mask) == {"a": {"b": 1.0, "k": 1.0}, "c": 10.0}
    groups = {"x": gradtx.scale(10.0), "y": gradtx.scale(20.0)}
    found = after_one_step(gradtx.partition(groups, {"a": {"b": "x", "k": "y"}, "c": "x"}), mask)
    assert found == {"a": {"b": 1.0, "k": 20.0 if mask is MASKS["leaf"] else 1.0}, "c": 10.0}


def test_a_mask_of_another_tree_is_still_named() -> None:
    with pytest.raises(ValueError, match=r"^masked: mask has the path `d`, which no parameter has\."):
        after_one_step(gradtx.masked(gradtx.scale(10.0), {"a": True, "c": True, "d": True}), MASKS["leaf"])


@EACH_MASK
def test_rules_for_matrices_may_speak_of_them(mask: Any) -> None:
    numbers = gradtx.matrix_axes({"a/b": "adam", "a/k": "adam"})
    tx = gradtx.muon(0.1, muon_weight_dimension_numbers=numbers)
    theirs, ours = optax.masked(gradtx.to_optax(tx), mask), gradtx.masked(gradtx.nadam(0.1), mask)
    assert_close(theirs.update(PARAMS, theirs.init(PARAMS), PARAMS)[0], ours.update(PARAMS, ours.init(PARAMS), PARAMS)[0])


@EACH_MASK
def test_quasi_newton_methods(mask: Any) -> None:
    for tx in (gradtx.lbfgs(1.0, linesearch=None), gradtx.bfgs(1.0, linesearch=None)):
        theirs, ours = optax.masked(gradtx.to_optax(tx), mask), gradtx.masked(tx, mask)
        assert_equal(theirs.update(PARAMS, theirs.init(PARAMS), PARAMS)[0], ours.update(PARAMS, ours.init(PARAMS), PARAMS)[0])


@EACH_MASK
def test_a_line_search_says_why_it_cannot(mask: Any) -> None:
    tx = optax.masked(gradtx.to_optax(gradtx.lbfgs()), mask)
    text = (
        r"lbfgs > scale_by_zoom_linesearch: grad and params differ in structure: `a/b` is only in grad\. Some parameters are masked "
        r"out, and value_fn needs them all: gradtx\.masked and gradtx\.partition hold them where they are, Optax's do not\."
    )
    with pytest.raises(ValueError, match=text):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=half_squares(PARAMS), grad=PARAMS, value_fn=half_squares)


def test_trees_that_either_library_masked_go_together() -> None:
    theirs, ours = ({"a": node, "c": PARAMS["c"]} for node in (optax.MaskedNode(), gradtx.MaskedNode()))
    for first, second in ((theirs, ours), (ours, theirs)):
        total = gradtx.tree.add(first, second)
        assert type(total["a"]) is type(first["a"])
        np.testing.assert_array_equal(total["c"], 2 * PARAMS["c"])
