"""When training stops, and with which parameters."""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

NAN, INF = float("nan"), float("inf")


def follow(stopper: Any, values: Any, under_jit: bool = False) -> Any:
    """The states after each value; the parameters are ten times the number of the evaluation."""
    update = jax.jit(stopper.update) if under_jit else stopper.update
    state, states = stopper.init(jnp.array(0.0)), []
    for step, value in enumerate(values, start=1):
        state = update(state, value, jnp.array(10.0 * step))
        states.append(state)
    return states


def field(states: Any, name: str) -> list[Any]:
    return [np.asarray(getattr(state, name)).item() for state in states]


# Sequences --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("under_jit", [False, True])
def test_sequence(under_jit: bool):
    states = follow(gradtx.early_stopping(2), [3.0, 4.0, 2.0, 2.0, 1.0, 1.5, 1.25, 0.5], under_jit)
    assert field(states, "best_value") == [3.0, 3.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0]
    assert field(states, "best_step") == [1, 1, 3, 3, 5, 5, 5, 5]
    assert field(states, "count") == [0, 1, 0, 1, 0, 1, 2, 2]
    assert field(states, "steps") == [1, 2, 3, 4, 5, 6, 7, 7]  # from the stop on nothing changes
    assert field(states, "should_stop") == [False] * 6 + [True] * 2
    assert field(states, "best_params") == [10.0, 10.0, 30.0, 30.0, 50.0, 50.0, 50.0, 50.0]


def test_least_fall():
    states = follow(gradtx.early_stopping(3, min_delta=0.5), [2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5])
    assert field(states, "best_value") == [2.0, 2.0, 2.0, 1.25, 1.25, 1.25, 0.5]  # 1.5 is not below 2.0 - 0.5
    assert field(states, "count") == [0, 1, 2, 0, 1, 2, 0]
    assert not any(field(states, "should_stop"))


def test_patience_of_one_stops_at_once():
    assert field(follow(gradtx.early_stopping(1), [1.0, 1.0]), "should_stop") == [False, True]


def test_nan_is_never_better():
    states = follow(gradtx.early_stopping(2), [NAN, 2.0, NAN, 1.0, NAN, NAN])
    assert field(states, "best_value") == [INF, 2.0, 2.0, 1.0, 1.0, 1.0]
    assert field(states, "best_params") == [0.0, 20.0, 20.0, 40.0, 40.0, 40.0]
    assert field(states, "count") == [1, 0, 1, 0, 1, 2]
    assert field(states, "should_stop") == [False] * 5 + [True]
    assert field(follow(gradtx.early_stopping(2), [NAN, INF]), "should_stop") == [False, True]


def test_minus_infinity_is_the_last_best():
    states = follow(gradtx.early_stopping(2), [-INF, -INF, 0.0])
    assert field(states, "best_step") == [1, 1, 1]
    assert field(states, "should_stop") == [False, False, True]


def test_without_the_parameters():
    stopper = gradtx.early_stopping(2, keep_best=False)
    state = stopper.update(stopper.init(), 1.0)
    assert state.best_params is None
    assert stopper.update(stopper.init({"w": 1.0}), 1.0, {"w": 1.0}).best_params is None
    assert [float(state.best_value), int(state.best_step)] == [1.0, 1]


# Inside jit -------------------------------------------------------------------------------------------------


def loss(params: Any) -> Any:
    """Falls until 3, then rises."""
    return jnp.abs(params["w"] - 3.0) + 0.25


def test_scan_and_while_loop_and_vmap_agree():
    stopper = gradtx.early_stopping(4)
    tx = gradtx.sgd(1.0)

    def step(carry: Any) -> Any:
        params, opt_state, state = carry
        updates, opt_state = tx.update({"w": jnp.ones(())}, opt_state, params)
        params = gradtx.apply_updates(params, updates)
        return params, opt_state, stopper.update(state, loss(params), params)

    def start(w: Any) -> Any:
        params = {"w": w}
        return params, tx.init(params), stopper.init(params)

    def looped(w: Any) -> Any:
        return jax.lax.while_loop(lambda carry: ~carry[2].should_stop, step, start(w))

    def scanned(w: Any) -> Any:
        return jax.lax.scan(lambda carry, _: (step(carry), None), start(w), None, length=30)[0]

    begin = jnp.array([10.0, 6.5, 0.0])
    loop, scan = jax.jit(jax.vmap(looped))(begin), jax.jit(jax.vmap(scanned))(begin)
    for state in (loop[2], scan[2]):
        np.testing.assert_array_equal(state.best_params["w"], [3.0, 3.5, -1.0])
        np.testing.assert_array_equal(state.best_value, [0.25, 0.75, 4.25])
        np.testing.assert_array_equal(state.best_step, [7, 3, 1])
        np.testing.assert_array_equal(state.steps, [11, 7, 5])
        assert state.should_stop.all()
    np.testing.assert_array_equal(loop[0]["w"], [-1.0, -0.5, -5.0])


def test_the_state_keeps_its_types():
    params = {"a": jnp.ones(2, jnp.bfloat16), "n": jnp.arange(3), "key": jax.random.key(0), "scalar": 1.0, "none": None}
    stopper = gradtx.early_stopping(2)
    state = stopper.init(params)

    def aval(x: Any) -> Any:
        return jax.typeof(x)

    for value in (1, 1.0, np.float64(0.5), jnp.bfloat16(0.25)):
        new = stopper.update(state, value, params)
        assert jax.tree.structure(new) == jax.tree.structure(state)
        assert [aval(x) for x in jax.tree.leaves(new)] == [aval(x) for x in jax.tree.leaves(state)]
        state = new
    assert int(state.best_step) == 4


def test_kept_parameters_are_copies():
    stopper, params = gradtx.early_stopping(2), {"w": jnp.ones(3)}
    step = jax.jit(lambda p, s: (p, stopper.update(s, 1.0, p)), donate_argnums=(0, 1))
    params, state = step(params, stopper.init(params))
    np.testing.assert_array_equal(step(params, state)[1].best_params["w"], 1.0)


# Values and errors --------------------------------------------------------------------------------------------


def test_it_is_a_value():
    stopper = gradtx.early_stopping(3, min_delta=0.5)
    assert repr(stopper) == "early_stopping(patience=3, min_delta=0.5)"
    assert eval(repr(stopper), vars(gradtx)) == stopper == pickle.loads(pickle.dumps(stopper))
    assert hash(stopper) == hash(gradtx.early_stopping(3, 0.5))
    assert stopper != gradtx.early_stopping(2, 0.5)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"patience": 0}, ValueError, r"patience is 0 \(int\), expected a whole number >= 1"),
        ({"patience": 1.5}, ValueError, r"patience is 1.5 \(float\), expected a whole number >= 1"),
        ({"patience": "3"}, TypeError, r"patience is '3' \(str\), expected a whole number >= 1. A number is wanted, not text"),
        ({"patience": 2, "min_delta": -0.5}, ValueError, r"min_delta is -0.5 \(float\), expected a finite number >= 0"),
        ({"patience": 2, "keep_best": 1}, TypeError, r"keep_best is 1 \(int\), expected True or False"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], text: str):
    with pytest.raises(error, match=f"^early_stopping: {text}"):
        gradtx.early_stopping(**arguments)


@pytest.mark.parametrize("value", [jnp.ones(3), 1j, "low", None, True, jnp.array(False)])
def test_values_are_real_scalars(value: Any):
    stopper = gradtx.early_stopping(2, keep_best=False)
    with pytest.raises(ValueError, match=r"^early_stopping: value is .*, expected a real scalar, such as a mean loss\."):
        stopper.update(stopper.init(), value)


def test_missing_or_other_parameters():
    stopper = gradtx.early_stopping(2)
    state = stopper.init({"w": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"params is None, .* since keep_best is True; call stopper.init\(params\)"):
        stopper.init()
    with pytest.raises(ValueError, match=r"params is None, .*; call stopper.update\(state, value, params\)"):
        stopper.update(state, 1.0)
    with pytest.raises(
        ValueError, match=r"^early_stopping: params and the best_params in the state differ in structure: `v` is only in params"
    ):
        stopper.update(state, 1.0, {"v": jnp.ones(3)})
    for other in (jnp.ones(2), jnp.ones(3, jnp.bfloat16)):
        with pytest.raises(
            ValueError,
            match=r"^early_stopping: params leaf `w` is an array of .*, expected an array of shape \(3,\) and dtype float32, as",
        ):
            stopper.update(state, 1.0, {"w": other})


def test_it_is_no_transformation():
    params = {"w": jnp.ones(3)}
    stopper = gradtx.early_stopping(2)
    tx = gradtx.chain(gradtx.sgd(0.1), stopper)
    with pytest.raises(TypeError, match=r"^early_stopping: state is a dict with keys 'w', .* it is no transformation for a chain"):
        tx.update(params, tx.init(params), params)
