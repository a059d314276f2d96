"""The parameters to evaluate with, for any optimizer, and second gradients."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import gradtx
from gradtx.compose.evaluation import gradient_at
from gradtx.core.checks import calling
from gradtx.wrappers.lookahead import LookaheadParams

PARAMS = {"w": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0), "none": None}
WEIGHTS = {"w": True, "b": False, "none": None}


class Averages(NamedTuple):
    """A state that says what to evaluate with; `inner` is not asked."""

    tree: Any
    inner: Any = ()

    def eval_params(self, params: Any) -> Any:
        return self.tree


def twice(tree: Any) -> Averages:
    return Averages(jax.tree.map(lambda p: 2 * p, tree), Averages(jax.tree.map(lambda p: 5 * p, tree)))


def averaging() -> Any:
    """A transformation whose average is twice the parameters that it was initialized with."""
    return gradtx.GradientTransformation(twice, lambda updates, state, params=None: (updates, state))


def floats(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x).tolist(), tree)


TWICE = {"w": [2.0, 4.0], "b": 6.0, "none": None}
ONLY_W = {"w": [2.0, 4.0], "b": 3.0, "none": None}


@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        (averaging(), TWICE),
        (gradtx.chain(gradtx.adam(0.1), averaging(), gradtx.scale(2.0)), TWICE),
        (gradtx.named_chain(("a", gradtx.identity()), ("b", gradtx.chain(averaging()))), TWICE),
        (gradtx.masked(averaging(), WEIGHTS), ONLY_W),
        (gradtx.partition({True: averaging(), False: gradtx.adam(0.1)}, WEIGHTS), ONLY_W),
        (gradtx.partition({True: averaging(), False: gradtx.chain(averaging())}, WEIGHTS), TWICE),
        (gradtx.selective_transform(averaging(), freeze_mask={"w": False, "b": True, "none": None}), ONLY_W),
        (gradtx.conditionally_mask(averaging(), lambda step: step > 0), TWICE),
        (gradtx.inject_hyperparams(gradtx.accelegrad)(diameter=2.0), floats(PARAMS)),
    ],
)
def test_the_average_wherever_it_is(tx: Any, expected: Any) -> None:
    state = tx.init(PARAMS)
    assert floats(gradtx.eval_params(state, PARAMS)) == expected
    assert floats(jax.jit(gradtx.eval_params)(state, PARAMS)) == expected


@pytest.mark.parametrize(
    "state", [(), {}, None, 3, gradtx.adam(0.1).init(PARAMS), gradtx.masked(gradtx.sgd(0.1), WEIGHTS).init(PARAMS)]
)
def test_the_parameters_themselves_without_an_average(state: Any) -> None:
    assert gradtx.eval_params(state, PARAMS) is PARAMS


def test_dtypes_are_those_of_the_parameters() -> None:
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    found = gradtx.eval_params(gradtx.accelegrad(1.0).init(params), params)
    assert found["w"].dtype == jnp.bfloat16


def test_a_single_array() -> None:
    assert float(gradtx.eval_params(averaging().init(jnp.asarray(1.5)), jnp.asarray(1.5))) == 3.0


class Model(nnx.Module):
    def __init__(self) -> None:
        self.dense = nnx.Linear(2, 3, rngs=nnx.Rngs(0))


def test_nnx() -> None:
    model = Model()
    mask = gradtx.by_path({r".*kernel": True}, default=False)
    optimizer = nnx.Optimizer(model, gradtx.masked(gradtx.accelegrad(1.0), mask), wrt=nnx.Param)
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))["dense"]
    for _ in range(3):
        optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    params = nnx.state(model, nnx.Param)
    found = gradtx.eval_params(optimizer.opt_state, params)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    # Three steps of g = 1 on 6 elements from x: alpha = 1, eta = 2/sqrt(1 + 6k), and y is x - eta * g.
    etas = 2 / np.sqrt(1 + 6 * np.arange(1, 4))
    expected = before["kernel"] - np.cumsum(etas).mean()
    np.testing.assert_allclose(nnx.to_pure_dict(found)["dense"]["kernel"], expected, rtol=1e-5)
    np.testing.assert_array_equal(nnx.to_pure_dict(found)["dense"]["bias"], params["dense"]["bias"][...])
    nnx.update(model, found)  # ready to evaluate with


def test_two_averages_of_one_leaf() -> None:
    state = gradtx.chain(averaging(), gradtx.masked(averaging(), WEIGHTS)).init(PARAMS)
    text = "eval_params: two averages, Averages at 0 and Averages at 1/inner_state, cover the leaf `w`; pass the one state that is meant"
    with pytest.raises(ValueError, match=text):
        gradtx.eval_params(state, PARAMS)
    assert floats(gradtx.eval_params(state[1], PARAMS)) == ONLY_W


def test_averages_of_other_parameters() -> None:
    with pytest.raises(
        ValueError, match=r"`b` is only in the average of Averages at 0\. Does the state belong to these parameters\?"
    ):
        gradtx.eval_params(gradtx.chain(averaging()).init(PARAMS), {"w": jnp.ones(2), "none": None})
    text = r"params leaf `w` has shape \(3,\), but the average of Averages at the top of the state has \(2,\) there"
    with pytest.raises(ValueError, match=text):
        gradtx.eval_params(averaging().init(PARAMS), {**PARAMS, "w": jnp.ones(3)})


@pytest.mark.parametrize(
    ("grad_fn", "error", "text"),
    [
        (
            3,
            TypeError,
            r"grad_fn is 3 \(int\), expected a function from the parameters to their gradient, as jax.grad\(loss\) makes one",
        ),
        (PARAMS, TypeError, "grad_fn is a dict with keys 'w', 'b', 'none', expected a function"),
        (gradtx.adam, TypeError, "grad_fn is the class adam, expected a function from the parameters"),
        (lambda p: (1.0, p), ValueError, "jax.value_and_grad gives a pair, of which the gradient is the second"),
        (
            lambda p: {"w": p["w"]},
            ValueError,
            "updates and what grad_fn returns differ in structure: `b` is only in updates. It must be",
        ),
        (
            lambda p: {**p, "b": jnp.ones(1)},
            ValueError,
            r"what grad_fn returns, leaf `b` has shape \(1,\), but updates has \(\) there",
        ),
        (lambda p: {**p, "b": 1}, TypeError, r"what grad_fn returns, leaf `b` is 1 \(int\), expected a floating or complex array"),
    ],
)
def test_second_gradients_that_are_none(grad_fn: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^storm: .*{text}"), calling("storm"):
        gradient_at(grad_fn, PARAMS, PARAMS, PARAMS)


def test_second_gradients_are_taken_in_the_parameters_dtypes() -> None:
    seen = []

    def gradient(params: Any) -> Any:
        seen.append(params["w"].dtype)
        return params

    half = {"w": jnp.ones(2, jnp.bfloat16)}
    gradient_at(gradient, {"w": jnp.ones(2)}, half, half)
    assert seen == [jnp.bfloat16]


def test_containers_of_states() -> None:
    tx, params = gradtx.ema_params(gradtx.sgd(1.0), 0.5), {"w": jnp.zeros(2)}
    host = TrainState.create(apply_fn=None, params=params, tx=tx)
    for _ in range(3):
        host = host.apply_gradients(grads={"w": -jnp.ones(2)})
    expected = gradtx.eval_params(host.opt_state, host.params)
    assert not np.allclose(expected["w"], host.params["w"])
    np.testing.assert_allclose(gradtx.eval_params(host, host.params)["w"], expected["w"])
    optimizer = nnx.Optimizer(model := nnx.Linear(1, 2, rngs=nnx.Rngs(0)), tx, wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    own = nnx.state(model, nnx.Param)
    np.testing.assert_allclose(
        gradtx.eval_params(optimizer, own)["kernel"][...], gradtx.eval_params(optimizer.opt_state, own)["kernel"][...]
    )


def test_what_is_no_state_and_what_is_one() -> None:
    tx, params = gradtx.ema_params(gradtx.sgd(1.0), 0.5), {"w": jnp.zeros(2)}
    with pytest.raises(
        TypeError,
        match=r"^eval_params: state is ema_params\(.*, expected the state that tx\.init or tx\.update returned\.",
    ):
        gradtx.eval_params(tx, params)
    with pytest.raises(
        TypeError,
        match=r"^eval_params: params is an? EmaParamsState, which holds the state of an optimizer, an EmaParamsState; were state and ",
    ):
        gradtx.eval_params(params, tx.init(params))


class PullState(NamedTuple):
    """The state of `pull`."""

    anchor: Any


class pull(gradtx.Transformation):
    """A transformation of a user's own, with a state of its own kind."""

    def init(self, params: Any) -> Any:
        return PullState(params)

    def step(self, updates: Any, state: PullState, params: Any = None, **extra_args: Any) -> Any:
        return updates, state


@pytest.mark.parametrize(
    ("tx", "found"),
    [
        (gradtx.adam(0.1), "a tuple of 2, which holds the state of an optimizer, a ScaleByAdamState at 0;"),
        (gradtx.sgd(0.1), "a tuple of 2, which holds the state of an optimizer, an EmptyState at 0;"),
        (gradtx.trace(0.9), "a TraceState, which holds the state of an optimizer, a TraceState;"),
        (
            gradtx.accumulate(gradtx.sgd(0.1), 2),
            "an AccumulateState, which holds the state of an optimizer, an EmptyState at inner_state/0;",
        ),
        (gradtx.named_chain(("a", pull())), "a dict with keys 'a', which holds the state of an optimizer, a PullState at a;"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, gradtx.Transformation) else "",
)
def test_a_state_in_the_place_of_parameters(tx: Any, found: str) -> None:
    params = {"w": jnp.zeros(2)}
    text = f"eval_params: params is {found} were state and params swapped? The call is eval_params(state, params)."
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        gradtx.eval_params(params, tx.init(params))
    assert gradtx.eval_params(tx.init(params), params) is params


class Weights(NamedTuple):
    """Parameters that are a named tuple."""

    w: Any


def test_parameters_that_are_named_tuples_are_no_states() -> None:
    params = Weights(LookaheadParams.init_synced(jnp.zeros(2)))
    assert gradtx.eval_params((), params) is params


@pytest.mark.parametrize("tx", [gradtx.adam(0.1), gradtx.ema_params(gradtx.adam(0.1), 0.9)])
def test_a_whole_module_of_flax(tx: Any) -> None:
    model = nnx.Linear(1, 2, rngs=nnx.Rngs(0))
    state = nnx.Optimizer(model, tx, wrt=nnx.Param).opt_state
    with pytest.raises(
        TypeError,
        match=r"^eval_params: params is a Linear, expected a tree of arrays\. Was a whole model .*: nnx\.state\(model, nnx\.Param\)",
    ):
        gradtx.eval_params(state, model)
