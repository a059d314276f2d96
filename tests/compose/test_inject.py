"""Hyperparameters in the state: read, scheduled, changed without a recompile."""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.core.domains import NonNegative, PositiveInt

PARAMS = {"w": jnp.asarray([3.0, -2.0]), "b": jnp.asarray(0.5)}
OTHER = "does it belong to another optimizer? The call is tx.update(updates, state, params), with the state of tx.init(params)."


def follow(tx: Any, steps: int = 20, params: Any = PARAMS) -> Any:
    """The parameters after each step on `sum((p - 1)**2) / 2`."""

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.tree.map(lambda p: p - 1.0, params), state, params)
        params = gradtx.apply_updates(params, updates)
        return (params, state), params

    return jax.jit(lambda params: jax.lax.scan(step, (params, tx.init(params)), None, length=steps))(params)


class windowed(gradtx.Transformation):
    """A user's class with a whole number that chooses a shape."""

    size: PositiveInt = 2
    factor: NonNegative = 3

    def step(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return jax.tree.map(lambda u: self.factor * u + jnp.sum(jnp.ones(self.size)), updates), state


def undeclared(learning_rate: float, power: int = 1, flag: bool = True, name: str = "x") -> gradtx.GradientTransformation:
    assert isinstance(power, jax.Array | int)
    assert flag is True
    return gradtx.chain(gradtx.scale(-1.0), gradtx.stateless(lambda u, p: jax.tree.map(lambda x: x * learning_rate**power, u)))


# The same as without ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "arguments"),
    [
        (gradtx.adamw, {"learning_rate": 0.1, "weight_decay": 0.1, "mask": gradtx.by_path({"b": False}, default=True)}),
        (gradtx.sgd, {"learning_rate": gradtx.linear_schedule(0.3, 0.0, 20), "momentum": 0.9, "nesterov": True}),
        (gradtx.lion, {"learning_rate": 0.1, "b1": 0.5}),
        (gradtx.rmsprop, {"learning_rate": 0.05, "centered": True, "momentum": gradtx.linear_schedule(0.5, 0.9, 20)}),
        (gradtx.noisy_sgd, {"learning_rate": 0.1, "key": 3}),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_trajectories_are_those_of_the_plain_optimizer(factory: Any, arguments: Any) -> None:
    (plain, _), _ = follow(factory(**arguments))
    (injected, _), _ = follow(gradtx.inject_hyperparams(factory)(**arguments))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), injected, plain)


def test_half_precision_parameters_keep_exact_hyperparameters() -> None:
    """In bfloat16 a `b2` of 0.999 would be 1, and the first update NaN."""
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    tx = gradtx.inject_hyperparams(gradtx.adam)(0.1)
    state = tx.init(params)
    assert {name: value.dtype.name for name, value in state.hyperparams.items()} == dict.fromkeys(state.hyperparams, "float32")
    assert float(state.hyperparams["b2"]) == np.float32(0.999)
    (injected, after), _ = follow(tx, 3, params)
    (plain, _), _ = follow(gradtx.adam(0.1), 3, params)
    assert injected["w"].dtype == jnp.bfloat16
    assert float(after.hyperparams["b2"]) == np.float32(0.999)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(np.float32(x), np.float32(y), rtol=2**-7), injected, plain)


def test_dtype_of_hyperparameters() -> None:
    state = gradtx.inject_hyperparams(gradtx.adam, hyperparam_dtype=jnp.bfloat16)(0.1).init(PARAMS)
    assert {value.dtype.name for value in state.hyperparams.values()} == {"bfloat16"}
    with jax.enable_x64(True):
        assert gradtx.inject_hyperparams(gradtx.sgd)(0.1).init(jnp.ones(1)).hyperparams["learning_rate"].dtype == jnp.float64


# What is injected -------------------------------------------------------------------------------------------


def test_numbers_and_defaults_are_injected_and_nothing_else() -> None:
    tx = gradtx.inject_hyperparams(gradtx.adamw)(learning_rate=0.1, b1=np.float32(0.5), mask=lambda params: True)
    expected = {"learning_rate": 0.1, "b1": 0.5, "b2": 0.999, "eps": 1e-8, "eps_root": 0.0, "weight_decay": 1e-4}
    found = tx.init(PARAMS).hyperparams
    assert found.keys() == expected.keys()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, expected)


def test_static_arguments_stay() -> None:
    for static in ("b1", ["b1", "mask"], ("b1",)):
        assert "b1" not in gradtx.inject_hyperparams(gradtx.adamw, static)(0.1).init(PARAMS).hyperparams


def test_whole_numbers_of_steps_and_seeds_stay() -> None:
    """Where an argument's domain admits no floating array, it chooses a shape or a seed."""
    tx = gradtx.inject_hyperparams(windowed)(size=3)
    state = tx.init(PARAMS)
    assert state.hyperparams == {"factor": 3.0}
    assert float(tx.update(PARAMS, state)[0]["b"]) == 0.5 * 3 + 3
    assert set(gradtx.inject_hyperparams(gradtx.noisy_sgd)(0.1).init(PARAMS).hyperparams) == {"learning_rate", "eta", "gamma"}


def test_factories_that_were_not_declared() -> None:
    tx = gradtx.inject_hyperparams(undeclared)(0.5, power=2)
    state = tx.init(PARAMS)
    assert set(state.hyperparams) == {"learning_rate", "power"}
    assert float(tx.update(PARAMS, state)[0]["b"]) == -0.5 * 0.25
    theirs = gradtx.inject_hyperparams(optax.sgd)(0.5)
    assert float(theirs.update(PARAMS, theirs.init(PARAMS))[0]["b"]) == -0.25


def test_a_sweep_of_injected_rates() -> None:
    rates = jnp.asarray([0.1, 0.2])
    out = jax.vmap(lambda rate: follow(gradtx.inject_hyperparams(gradtx.sgd)(rate), 2)[0][0]["b"])(rates)
    np.testing.assert_allclose(out, 1 - 0.5 * (1 - rates) ** 2, rtol=1e-6)


# Schedules --------------------------------------------------------------------------------------------------


def test_schedules_start_at_step_zero() -> None:
    tx = gradtx.inject_hyperparams(gradtx.sgd)(gradtx.piecewise_constant_schedule(1.0, {1: 0.5, 2: 0.5}))
    state, rates, steps = tx.init(PARAMS), [], []
    assert float(state.hyperparams["learning_rate"]) == 1.0
    for _ in range(3):
        updates, state = tx.update({"w": jnp.ones(2), "b": jnp.ones(())}, state)
        rates.append(float(state.hyperparams["learning_rate"]))
        steps.append(-float(updates["b"]))
    assert rates == steps == [1.0, 0.5, 0.25]
    assert int(state.count) == 3


def test_any_number_may_be_scheduled() -> None:
    (_, state), _ = follow(gradtx.inject_hyperparams(gradtx.adam)(0.1, b1=gradtx.linear_schedule(0.5, 0.9, 4)), 3)
    np.testing.assert_allclose(state.hyperparams["b1"], 0.7, rtol=1e-6)  # the value of step 2, the third


# Changing ---------------------------------------------------------------------------------------------------


def test_changing_a_value_needs_no_recompile() -> None:
    traces = []
    tx = gradtx.inject_hyperparams(gradtx.adam)(0.5)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        traces.append(1)
        updates, state = tx.update(params, state, params)
        return updates, state

    _, state = step(PARAMS, tx.init(PARAMS))
    for rate in (0.25, 0.125):
        state.hyperparams["learning_rate"] = jnp.asarray(rate, jnp.float32)
        updates, state = step(PARAMS, state)
        np.testing.assert_allclose(np.abs(updates["w"]), rate, rtol=1e-5)
        assert float(gradtx.metrics(state)["learning_rate"]) == rate
    assert len(traces) == 1


def test_a_python_number_set_by_hand_works_too() -> None:
    tx = gradtx.inject_hyperparams(gradtx.sgd)(0.5)
    state = tx.init(PARAMS)
    state.hyperparams["learning_rate"] = 0.25
    updates, state = tx.update(PARAMS, state)
    assert float(updates["b"]) == -0.125
    assert state.hyperparams["learning_rate"].dtype == jnp.float32


# Reading ----------------------------------------------------------------------------------------------------


def test_metrics_show_each_hyperparameter_once() -> None:
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.inject_hyperparams(gradtx.sgd)(0.5, momentum=0.9))
    _, state = tx.update(PARAMS, tx.init(PARAMS))
    found = {name: round(float(value), 4) for name, value in gradtx.metrics(state).items()}
    assert found == {"grad_norm": 3.6401, "clip_fraction": 1.0, "momentum": 0.9, "learning_rate": 0.5}


def test_metrics_show_the_rate_of_factories_that_keep_none() -> None:
    state = gradtx.inject_hyperparams(optax.sgd)(0.5).init(PARAMS)
    assert {name: float(value) for name, value in gradtx.metrics(state).items()} == {"learning_rate": 0.5}


def test_values() -> None:
    make = gradtx.inject_hyperparams(gradtx.adam, static_args="eps")
    assert make(0.1) == make(learning_rate=0.1) != make(0.2)
    assert make(0.1) != gradtx.inject_hyperparams(gradtx.adam)(0.1)
    assert pickle.loads(pickle.dumps(make(0.1))) == make(0.1)
    assert gradtx.from_config(gradtx.to_config(make(0.1))) == make(0.1)
    assert repr(make(0.1, b1=0.5)) == "inject_hyperparams(adam, static_args=('eps',))(learning_rate=0.1, b1=0.5)"


# Errors -----------------------------------------------------------------------------------------------------

SGD, ADAM = gradtx.inject_hyperparams(gradtx.sgd)(0.1), gradtx.inject_hyperparams(gradtx.adam)(0.1)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: gradtx.inject_hyperparams(gradtx.adam(0.1)),
            TypeError,
            "inject_hyperparams: inner_factory is adam(learning_rate=0.1), expected a factory that was not called, "
            "as in inject_hyperparams(adam)(learning_rate=1e-3).",
        ),
        (
            lambda: gradtx.inject_hyperparams(3),
            TypeError,
            "inject_hyperparams: inner_factory is 3 (int), expected a factory that was not called, "
            "as in inject_hyperparams(adam)(learning_rate=1e-3).",
        ),
        (
            lambda: gradtx.inject_hyperparams(gradtx.adamw, "weightdecay"),
            TypeError,
            "inject_hyperparams: static_args has 'weightdecay', expected an argument of adamw. Did you mean 'weight_decay'?",
        ),
        (
            lambda: gradtx.inject_hyperparams(gradtx.sgd)(),
            TypeError,
            "inject_hyperparams(sgd): missing a required argument: 'learning_rate'.",
        ),
        (
            lambda: gradtx.inject_hyperparams(gradtx.sgd)(0.1, b1=0.5),
            TypeError,
            "inject_hyperparams(sgd): got an unexpected keyword argument 'b1'.",
        ),
        (
            lambda: gradtx.inject_hyperparams(gradtx.adam)(0.1, b1=1.5),
            ValueError,
            "adam: b1 is 1.5 (float), expected a number in [0, 1).",
        ),
        (
            lambda: gradtx.inject_hyperparams(gradtx.sgd)("0.1"),
            TypeError,
            "sgd: learning_rate is '0.1' (str), expected a finite number >= 0, or a schedule (a function of the step count). "
            "A number is wanted, not text.",
        ),
        (
            lambda: gradtx.inject_hyperparams(gradtx.sgd, hyperparam_dtype="int32")(0.1),
            TypeError,
            "inject_hyperparams: hyperparam_dtype is 'int32' (str), expected a floating dtype, such as 'float32' or jnp.bfloat16, or None.",
        ),
        (
            lambda: gradtx.inject_hyperparams(lambda rate: 3)(0.1),
            TypeError,
            "inject_hyperparams: what <lambda>.<locals>.<lambda> returns is 3 (int), expected a gradient transformation (a pair of init and update). "
            "Were arguments swapped? A learning rate alone becomes a transformation with scale_by_learning_rate(rate).",
        ),
        (
            lambda: SGD.update(PARAMS, ADAM.init(PARAMS)),
            TypeError,
            "inject_hyperparams: state is an InjectHyperparamsState, expected an InjectHyperparamsState with hyperparams 'learning_rate'; "
            + OTHER,
        ),
        (
            lambda: ADAM.update(PARAMS, SGD.init(PARAMS)),
            TypeError,
            "inject_hyperparams: state is an InjectHyperparamsState, expected an InjectHyperparamsState with hyperparams 'learning_rate', "
            "'b1', 'b2', 'eps', 'eps_root'; " + OTHER,
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == text
