"""Calls with missing arguments, and functions handed over that take others than they get, each with the whole message."""

import re
from typing import Any

import jax.numpy as jnp
import pytest

import gradtx

PARAMS = {"b": jnp.ones(2), "w": jnp.ones((3, 2))}
ADAM, SGD, TRACE = gradtx.adam(0.1), gradtx.sgd(0.1), gradtx.trace(0.9)
ADAM_STATE = ADAM.init(PARAMS)


def assert_raises(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        call()


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
