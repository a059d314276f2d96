"""Bad trees and bad calls, each with the whole message that it must give."""

import inspect
import re
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flax.core import freeze

import gradtx

PARAMS = {"b": jnp.ones(2), "w": jnp.ones((3, 2))}
ADAM, SGD, TRACE, EMA = gradtx.adam(0.1), gradtx.sgd(0.1), gradtx.trace(0.9), gradtx.ema(0.9)
ADAM_STATE, SGD_STATE = ADAM.init(PARAMS), SGD.init(PARAMS)

ARGUMENT = ". Were the gradients taken with respect to another argument, or the state made from other parameters?"
NONE = "Leave it out of params too (in Equinox by one filter for both), or make its gradient zeros."
BROADCAST = "; shapes must be equal, nothing is broadcast."
CALL = "The call is tx.update(updates, state, params), with the state of tx.init(params)."
SWAPPED, OTHER = f"were state and params swapped? {CALL}", f"does it belong to another optimizer? {CALL}"
MODEL = (
    "expected a floating or complex array. Was a whole model handed over? Pass its arrays alone: nnx.state(model, nnx.Param) "
    "in Flax NNX, variables['params'] in Linen, eqx.filter(model, eqx.is_inexact_array) in Equinox."
)
RESTORED = "was it restored from a checkpoint without a target? Restore it into tx.init(params)."
INTEGERS = "expected a floating or complex array. Keep integers and booleans out of the parameters, or wrap the whole optimizer: gradtx.masked(tx, mask)."


def assert_raises(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        call()


class WithDropout(nnx.Module):
    def __init__(self) -> None:
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        count = self.variable("stats", "count", lambda: jnp.zeros((), jnp.int32))
        return nn.Dense(1)(x) + count.value


class by_value(gradtx.Transformation):
    """Needs the extra argument `value`."""

    def step(self, updates: Any, state: Any, params: Any = None, *, value: Any, **extra_args: Any) -> Any:
        return jax.tree.map(lambda u: u * value, updates), state


# Gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("updates", "text"),
    [
        ({"b": jnp.ones(2), "x": jnp.ones(4)}, f"adam: updates and params differ in structure: `x` is only in updates{ARGUMENT}"),
        ({"b": jnp.ones(2)}, f"adam: updates and params differ in structure: `w` is only in params{ARGUMENT}"),
        (
            {"b": None, "w": PARAMS["w"]},
            f"adam: updates and params differ in structure: `b` is only in params, its gradient is None. {NONE}",
        ),
        (
            {"b": None, "w": None},
            f"adam: updates and params differ in structure: `b` is only in params, its gradient is None. {NONE}",
        ),
        (None, f"adam: updates and params differ in structure: `b` is only in params, its gradient is None. {NONE}"),
        ({"w": None}, f"adam: updates and params differ in structure: `b` is only in params{ARGUMENT}"),
        (jnp.ones((8, 4)), f"adam: updates and params differ in structure: `(root)` is only in updates{ARGUMENT}"),
        ((PARAMS, jnp.ones(3)), f"adam: updates and params differ in structure: `0/b` is only in updates{ARGUMENT}"),
        (
            (jnp.ones(()), PARAMS),
            "adam: updates and params differ in structure: `0` is only in updates. "
            "Was the pair (loss, grads) of jax.value_and_grad handed over?",
        ),
        (
            freeze(PARAMS),
            f"adam: updates and params differ in structure: `(root)` is a flax FrozenDict in one, a dict in the other{ARGUMENT}",
        ),
        ({"b": jnp.ones(3), "w": PARAMS["w"]}, f"adam: updates leaf `b` has shape (3,), but params has (2,) there{BROADCAST}"),
        ({"b": jnp.ones(()), "w": PARAMS["w"]}, f"adam: updates leaf `b` has shape (), but params has (2,) there{BROADCAST}"),
        ({"b": PARAMS["b"], "w": jnp.ones(2)}, f"adam: updates leaf `w` has shape (2,), but params has (3, 2) there{BROADCAST}"),
    ],
)
def test_gradients_unlike_the_parameters(updates: Any, text: str) -> None:
    assert_raises(lambda: ADAM.update(updates, ADAM_STATE, PARAMS), ValueError, text)


@pytest.mark.parametrize(
    ("updates", "text"),
    [
        (
            {"b": jnp.ones(2), "x": jnp.ones(4)},
            f"updates and the tree in the state differ in structure: `x` is only in updates{ARGUMENT}",
        ),
        (
            {"b": jnp.ones(2)},
            f"updates and the tree in the state differ in structure: `w` is only in the tree in the state{ARGUMENT}",
        ),
        (
            {"b": jnp.ones(2), "w": None},
            f"updates and the tree in the state differ in structure: `w` is only in the tree in the state, its gradient is None. {NONE}",
        ),
        (
            {"b": jnp.ones(3), "w": PARAMS["w"]},
            f"updates leaf `b` has shape (3,), but the tree in the state has (2,) there{BROADCAST}",
        ),
        (
            {"b": jnp.ones(()), "w": PARAMS["w"]},
            f"updates leaf `b` has shape (), but the tree in the state has (2,) there{BROADCAST}",
        ),
    ],
)
def test_gradients_unlike_the_state(updates: Any, text: str) -> None:
    assert_raises(lambda: ADAM.update(updates, ADAM_STATE), ValueError, f"adam > scale_by_adam: {text}")


def test_a_state_that_would_grow() -> None:
    """A scalar in the state fits a vector by broadcasting: the state must not take its shape."""
    tx = gradtx.trace(0.9)
    text = f"trace: updates leaf `(root)` has shape (2,), but the tree in the state has () there{BROADCAST}"
    assert_raises(lambda: tx.update(jnp.ones(2), tx.init(jnp.ones(()))), ValueError, text)


def test_the_same_messages_while_tracing() -> None:
    text = "adam: updates leaf `w` has shape (2,), but params has (3, 2) there; shapes must be equal, nothing is broadcast."
    bad = {"b": PARAMS["b"], "w": jnp.ones(2)}
    for run in (jax.jit(ADAM.update), lambda *args: jax.eval_shape(ADAM.update, *args)):
        with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
            run(bad, ADAM_STATE, PARAMS)


# Models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (
            eqx.nn.MLP(1, 1, 1, 1, key=jax.random.key(0)),
            f"adam > scale_by_adam: params leaf `activation` is a custom_jvp, {MODEL}",
        ),
        ({"w": jnp.ones(1), "f": len}, f"adam > scale_by_adam: params leaf `f` is the function len, {MODEL}"),
        ({"w": [1.0, 2]}, f"adam > scale_by_adam: params leaf `w/1` is 2 (int), {INTEGERS}"),
        ({"w": True}, f"adam > scale_by_adam: params leaf `w` is True (bool), {INTEGERS}"),
        ({"w": "kernel"}, "adam > scale_by_adam: params leaf `w` is 'kernel' (str), expected a floating or complex array."),
        (
            {"n": jnp.ones(2, jnp.int8)},
            f"adam > scale_by_adam: params leaf `n` is an array of shape (2,) and dtype int8, {INTEGERS}",
        ),
        (
            nnx.state(WithDropout()),
            f"adam > scale_by_adam: params leaf `dropout/rngs/count` is an array of shape () and dtype uint32, {INTEGERS}",
        ),
        (
            Normed().init(jax.random.key(0), jnp.ones((1, 1))),
            f"adam > scale_by_adam: params leaf `stats/count` is an array of shape () and dtype int32, {INTEGERS}",
        ),
    ],
)
def test_parameters_that_are_no_arrays(params: Any, text: str) -> None:
    assert_raises(lambda: ADAM.init(params), TypeError, text)


def test_updates_that_are_no_arrays() -> None:
    params = {"n": jnp.asarray(3), "w": jnp.ones(2)}
    grads = jax.grad(lambda p: jnp.sum(p["w"]), allow_int=True)(params)
    assert_raises(
        lambda: gradtx.scale(2.0).update(grads, gradtx.EmptyState()),
        TypeError,
        "scale: updates leaf `n` is an array of shape () and dtype [('float0', 'V')], expected a floating or complex array. "
        "float0 is the gradient of an integer parameter: leave it out of the parameters, or mask it with gradtx.freeze.",
    )
    assert_raises(
        lambda: gradtx.scale(2.0).update({"w": jnp.ones(2), "z": jnp.asarray(1)}, gradtx.EmptyState()),
        TypeError,
        f"scale: updates leaf `z` is an array of shape () and dtype int32, {INTEGERS}",
    )


# States -----------------------------------------------------------------------------------------------------


FALLING = gradtx.linear_schedule(0.1, 0.0, 10)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ADAM.update(PARAMS, PARAMS, ADAM_STATE), f"adam: state is a dict with keys 'b', 'w', expected tuple; {SWAPPED}"),
        (lambda: ADAM.update(PARAMS, PARAMS), f"adam: state is a dict with keys 'b', 'w', expected tuple; {SWAPPED}"),
        (
            lambda: TRACE.update(PARAMS, jnp.ones(2)),
            f"trace: state is an array of shape (2,) and dtype float32, expected TraceState; {SWAPPED}",
        ),
        (lambda: TRACE.update(PARAMS, None), f"trace: state is None, expected TraceState; {SWAPPED}"),
        (
            lambda: TRACE.update(PARAMS, {"trace": PARAMS}),
            f"trace: state is a dict with keys 'trace', expected TraceState; {RESTORED} {CALL}",
        ),
        (
            lambda: ADAM.update(PARAMS, [*ADAM_STATE]),
            f"adam: state is a list of 2, expected tuple; {RESTORED} Or were state and params swapped? {CALL}",
        ),
        (
            lambda: gradtx.identity().update(PARAMS, None),
            f"identity: state is None, expected EmptyState; {RESTORED} {CALL}",
        ),
        (lambda: TRACE.update(PARAMS, EMA.init(PARAMS)), f"trace: state is an EmaState, expected TraceState; {OTHER}"),
        (lambda: TRACE.update(PARAMS, ()), f"trace: state is a tuple of 0, expected TraceState; {OTHER}"),
        (
            lambda: ADAM.update(PARAMS, SGD_STATE),
            f"adam > scale_by_adam: state is an EmptyState, expected ScaleByAdamState; {OTHER}",
        ),
        (lambda: SGD.update(PARAMS, ADAM_STATE), f"sgd > identity: state is a ScaleByAdamState, expected EmptyState; {OTHER}"),
        (
            lambda: gradtx.adamw(0.1).update(PARAMS, ADAM_STATE, PARAMS),
            f"adamw: state is a tuple of 2, expected a tuple of 3 states, one for each member; {OTHER}",
        ),
        (
            lambda: gradtx.masked(TRACE, True).update(PARAMS, TRACE.init(PARAMS)),
            f"masked: state is a TraceState, expected MaskedState; {OTHER}",
        ),
        (
            lambda: gradtx.conditionally_mask(TRACE, len).update(PARAMS, TRACE.init(PARAMS)),
            f"conditionally_mask: state is a TraceState, expected ConditionallyMaskState; {OTHER}",
        ),
        (
            lambda: gradtx.clip_by_global_norm(1.0).update(PARAMS, gradtx.EmptyState()),
            f"clip_by_global_norm: state is an EmptyState, expected ClipByGlobalNormState; {OTHER}",
        ),
    ],
)
def test_states_of_others(call: Any, text: str) -> None:
    assert_raises(call, TypeError, text)


# Extra arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: by_value().update(PARAMS, gradtx.EmptyState(), PARAMS),
            "by_value: missing extra argument `value`; call tx.update(updates, state, params, value=...).",
        ),
        (
            lambda: gradtx.chain(SGD, by_value()).update(PARAMS, (SGD_STATE, gradtx.EmptyState()), PARAMS),
            "chain > by_value: missing extra argument `value`; call tx.update(updates, state, params, value=...).",
        ),
        (
            lambda: gradtx.chain(SGD, by_value()).update(PARAMS, (SGD_STATE, gradtx.EmptyState()), PARAMS, vlaue=1.0),
            "chain: unknown extra argument `vlaue`. Did you mean 'value'?",
        ),
    ],
)
def test_extra_arguments(call: Any, text: str) -> None:
    assert_raises(call, TypeError, text)


def test_a_name_close_to_one_that_was_passed_too_is_no_misspelling() -> None:
    """A loop may pass `value`, `grad` and `value_fn` to any optimizer; this one uses `value` alone."""
    extra = {"value": 2.0, "values": 0.0, "value_fn": lambda params: 0.0}
    updates, _ = by_value().update(PARAMS, gradtx.EmptyState(), PARAMS, **extra)
    assert float(updates["b"][0]) == 2.0
    text = "by_value: unknown extra argument `value_fn`. Did you mean 'value'?"
    assert_raises(lambda: by_value().update(PARAMS, gradtx.EmptyState(), PARAMS, value_fn=len), TypeError, text)


def test_the_error_in_one_call_does_not_colour_the_next() -> None:
    for _ in range(2):
        assert_raises(
            lambda: ADAM.update(PARAMS, ()),
            TypeError,
            f"adam: state is a tuple of 0, expected a tuple of 2 states, one for each member; {OTHER}",
        )


# Parameters that were left out ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tx", "name"),
    [
        (gradtx.add_decayed_weights(0.1), "add_decayed_weights"),
        (gradtx.add_decayed_weights(0.0), "add_decayed_weights"),
        (gradtx.adamw(0.1), "adamw > add_decayed_weights"),
        (gradtx.chain(gradtx.sgdw(0.1)), "chain > sgdw > add_decayed_weights"),
        (gradtx.adaptive_grad_clip(0.1), "adaptive_grad_clip"),
        (gradtx.keep_params_nonnegative(), "keep_params_nonnegative"),
        (gradtx.scale_by_trust_ratio(), "scale_by_trust_ratio"),
        (gradtx.scale_by_param_block_norm(), "scale_by_param_block_norm"),
        (gradtx.scale_by_param_block_rms(), "scale_by_param_block_rms"),
        (gradtx.masked(gradtx.scale_by_trust_ratio(), True), "masked > scale_by_trust_ratio"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_missing_parameters(tx: Any, name: str) -> None:
    text = f"{name}: needs the parameters; call tx.update(updates, state, params)."
    assert_raises(lambda: tx.update(PARAMS, tx.init(PARAMS)), ValueError, text)


# Leaves that a rule cannot take -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: gradtx.unitwise_norm(jnp.ones((1, 2, 1, 2, 1, 2))),
            "unitwise_norm: a leaf has shape (1, 2, 1, 2, 1, 2), expected at most 5 axes; say with `axis` which to reduce.",
        ),
        (
            lambda: gradtx.per_example_global_norm_clip({"b": jnp.ones((3, 2)), "w": jnp.ones((4, 2))}, 1.0),
            "per_example_global_norm_clip: grads leaf `w` has axis 0 of size 4, "
            "expected one gradient an example on axis 0 of every leaf (3 of them).",
        ),
        (
            lambda: gradtx.per_example_global_norm_clip({"b": jnp.ones((3, 2)), "w": jnp.ones(())}, 1.0),
            "per_example_global_norm_clip: grads leaf `w` has axis 0 of size none, "
            "expected one gradient an example on axis 0 of every leaf (3 of them).",
        ),
        (
            lambda: gradtx.per_example_layer_norm_clip(jnp.ones(()), 1.0),
            "per_example_layer_norm_clip: grads leaf `(root)` has axis 0 of size none, "
            "expected one gradient an example on axis 0 of every leaf.",
        ),
    ],
)
def test_leaves_of_a_wrong_shape(call: Any, text: str) -> None:
    assert_raises(call, ValueError, text)


def test_a_leaf_of_six_axes_inside_a_chain() -> None:
    leaf = {"w": jnp.ones((2, 1, 2, 1, 2, 2))}
    tx = gradtx.chain(gradtx.adaptive_grad_clip(0.1))
    with pytest.raises(
        ValueError, match=r"^chain > adaptive_grad_clip: a leaf has shape \(2, 1, 2, 1, 2, 2\), expected at most 5 axes"
    ):
        tx.update(leaf, tx.init(leaf), leaf)


# What factories return, and what schedules give ------------------------------------------------------------------


def test_steps_and_presets_that_return_something_else() -> None:
    class forgetful(gradtx.Preset):
        def chain(self) -> Any:
            gradtx.scale(1.0)

    class lost_state(gradtx.Transformation):
        def step(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
            return updates

    text = "forgetful: chain returned None, expected a gradient transformation (a pair of init and update). Is a `return` missing?"
    assert_raises(lambda: forgetful().init(PARAMS), TypeError, text)
    text = "lost_state: step returned a dict with keys 'b', 'w', expected a pair (updates, state)."
    assert_raises(lambda: lost_state().update(PARAMS, gradtx.EmptyState()), TypeError, text)


def test_what_is_missing_in_a_class_of_your_own() -> None:
    class no_step(gradtx.Transformation):
        rate: float = 0.1

    class no_chain(gradtx.Preset):
        rate: float = 0.1

    text = "no_step: step is missing; it is the rule of a transformation."
    with pytest.raises(NotImplementedError, match=f"^{re.escape(text)}"):
        no_step().update(PARAMS, gradtx.EmptyState())
    text = "no_chain: chain is missing; it makes what the preset stands for."
    assert_raises(lambda: no_chain().init(PARAMS), NotImplementedError, text)


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
