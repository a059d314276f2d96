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
ADAM = gradtx.adam(0.1)


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
