"""Calls of the wrong kind, each with the whole message that it must give."""

import inspect
import re
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import pytest
from flax import nnx

import gradtx

PARAMS = {"b": jnp.ones(2), "w": jnp.ones((3, 2))}
ADAM, SGD, TRACE, EMA = gradtx.adam(0.1), gradtx.sgd(0.1), gradtx.trace(0.9), gradtx.ema(0.9)
ADAM_STATE, SGD_STATE = ADAM.init(PARAMS), SGD.init(PARAMS)


def assert_raises(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        call()


class WithDropout(nnx.Module):
    def __init__(self) -> None:
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))


def test_a_class_that_was_not_called() -> None:
    text = "adam is a class of transformations: call it first, adam(...)."
    assert_raises(lambda: gradtx.adam.init(PARAMS), TypeError, text)  # type: ignore[attr-defined]
    assert_raises(lambda: nnx.Optimizer(WithDropout(), gradtx.adam, wrt=nnx.Param), TypeError, text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda f: gradtx.sgd(f), "sgd > scale_by_learning_rate: the schedule learning_rate gave"),
        (lambda f: gradtx.scale_by_schedule(f), "scale_by_schedule: the schedule step_size_fn gave"),
    ],
)
@pytest.mark.parametrize(("value", "found"), [(None, "None"), (jnp.ones(3), "an array of shape (3,) and dtype float32")])
def test_schedules_that_give_no_scalar(make: Any, text: str, value: Any, found: str) -> None:
    assert_raises(lambda: make(lambda count: value).init(PARAMS), TypeError, f"{text} {found}, expected a scalar.")


def no_count() -> float:
    return 0.1


def path_and_leaf(path: Any, leaf: Any) -> bool:
    return True


def wrong_inside(x: Any) -> Any:
    return len(3)  # type: ignore[arg-type]


UNCALLABLE = "cannot be called with a step count: too many positional arguments."
UNMASKING = (
    "is a function of other arguments than the parameters: missing a required argument: 'leaf'. It gets their whole tree; "
    "rules by path go through by_path({pattern: label})."
)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: gradtx.adamw(no_count).init(PARAMS),
            f"adamw > scale_by_learning_rate: the schedule learning_rate {UNCALLABLE}",
        ),
        (
            lambda: gradtx.sgd(path_and_leaf).init(PARAMS),
            "sgd > scale_by_learning_rate: the schedule learning_rate cannot be called with a step count: "
            "missing a required argument: 'leaf'.",
        ),
        (
            lambda: gradtx.accumulate(SGD, no_count).update(PARAMS, gradtx.accumulate(SGD, 2).init(PARAMS)),
            f"accumulate: the schedule every_k {UNCALLABLE}",
        ),
        (
            lambda: gradtx.inject_hyperparams(gradtx.sgd)(no_count),
            f"inject_hyperparams: the schedule learning_rate {UNCALLABLE}",
        ),
        (lambda: gradtx.masked(SGD, path_and_leaf).init(PARAMS), f"masked: mask {UNMASKING}"),
        (
            lambda: gradtx.adamw(0.1, mask=path_and_leaf).init(PARAMS),
            f"adamw > add_decayed_weights: mask {UNMASKING}",
        ),
        (lambda: gradtx.partition({True: SGD}, path_and_leaf).init(PARAMS), f"partition: param_labels {UNMASKING}"),
        (
            lambda: gradtx.masked(SGD, no_count).init(PARAMS),
            f"masked: mask {UNMASKING}".replace("missing a required argument: 'leaf'", "too many positional arguments"),
        ),
        (lambda: gradtx.sgd(wrong_inside).init(PARAMS), "object of type 'int' has no len()"),
        (lambda: gradtx.masked(SGD, wrong_inside).init(PARAMS), "object of type 'int' has no len()"),
    ],
)
def test_functions_of_other_arguments(call: Any, text: str) -> None:
    assert_raises(call, TypeError, text)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ADAM.update(PARAMS), "adam: missing a required argument: 'state'; the call is tx.update(updates, state, params)."),
        (
            lambda: ADAM.update(PARAMS, params=PARAMS),
            "adam: missing a required argument: 'state'; the call is tx.update(updates, state, params).",
        ),
        (lambda: ADAM.update(), "adam: missing a required argument: 'updates'; the call is tx.update(updates, state, params)."),
        (
            lambda: ADAM.update(PARAMS, ADAM_STATE, PARAMS, 1.0),
            "adam: too many positional arguments; the call is tx.update(updates, state, params).",
        ),
        (lambda: ADAM.init(), "adam: missing a required argument: 'params'; the call is tx.init(params)."),
        (lambda: TRACE.init(), "trace: missing a required argument: 'params'; the call is tx.init(params)."),
        (lambda: ADAM.init(PARAMS, 0), "adam: too many positional arguments; the call is tx.init(params)."),
        (lambda: gradtx.identity().init(), "identity: missing a required argument: 'params'; the call is tx.init(params)."),
    ],
)
def test_calls_with_other_arguments(call: Any, text: str) -> None:
    assert_raises(call, TypeError, text)


def test_a_whole_module_of_flax() -> None:
    text = (
        "adam: params is a Linear, expected a tree of arrays. Was a whole model handed over? Pass its arrays alone: "
        "nnx.state(model, nnx.Param) in Flax NNX, variables['params'] in Linen, eqx.filter(model, eqx.is_inexact_array) in Equinox."
    )
    model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    assert_raises(lambda: ADAM.init(model), TypeError, text)
    assert_raises(lambda: ADAM.update(params, ADAM.init(params), model), TypeError, text)
    text = text.replace("Linear", "Dense")
    assert_raises(lambda: ADAM.update({"w": jnp.ones(1)}, ADAM.init({"w": jnp.ones(1)}), nn.Dense(1)), TypeError, text)
    assert_raises(lambda: ADAM.update(jnp.ones(1), ADAM.init(jnp.ones(1)), nn.Dense(1)), TypeError, text)


def test_names_that_only_optax_has() -> None:
    text = "module 'gradtx' has no attribute 'adamww'. Did you mean 'adamw'?"
    assert_raises(lambda: gradtx.adamww, AttributeError, text)


def test_signatures_are_plain() -> None:
    """`help` shows a signature that can be read."""
    assert str(inspect.signature(gradtx.sgd)) == "(learning_rate, momentum=None, nesterov=False, accumulator_dtype=None)"
