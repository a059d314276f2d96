"""Numbers to log: collected from any state, measured by `monitor` and `snapshot`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import gradtx

GRADS = {"w": jnp.asarray([3.0, -4.0]), "b": jnp.asarray(0.0)}
OTHER = "does it belong to another optimizer? The call is tx.update(updates, state, params), with the state of tx.init(params)."


def largest(updates: Any) -> Any:
    return jnp.max(jnp.abs(updates["w"]))


def floats(found: Any) -> Any:
    assert all(type(value) is type(jnp.ones(())) and value.shape == () for value in found.values())
    return {name: round(float(value), 5) for name, value in found.items()}


def run(tx: Any, grads: Any = GRADS) -> Any:
    return tx.update(grads, tx.init(grads), grads)


class Model(nnx.Module):
    def __init__(self) -> None:
        self.dense = nnx.Linear(2, 1, rngs=nnx.Rngs(0))


# metrics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        (gradtx.identity(), {}),
        (gradtx.sgd(0.5), {"learning_rate": 0.5}),
        (gradtx.adam(gradtx.linear_schedule(1.0, 0.0, 4)), {"learning_rate": 1.0}),
        (
            gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.5)),
            {"grad_norm": 5.0, "clip_fraction": 1.0, "learning_rate": 0.5},
        ),
        (gradtx.chain(gradtx.clip_by_global_norm(9.0)), {"grad_norm": 5.0, "clip_fraction": 0.0}),
        (gradtx.normalize_by_update_norm(), {"update_norm": 5.0}),
        (gradtx.named_chain(("a", gradtx.masked(gradtx.sgd(0.5), True))), {"learning_rate": 0.5}),
        (gradtx.conditionally_mask(gradtx.sgd(0.5), lambda step: step > 0), {"learning_rate": 0.5}),
        (gradtx.monitor({"largest": largest, "norm": gradtx.global_norm}), {"largest": 4.0, "norm": 5.0}),
        (gradtx.chain(optax.scale_by_adam(), gradtx.sgd(0.5)), {"learning_rate": 0.5}),
        (
            gradtx.partition({"a": gradtx.sgd(0.5), "b": gradtx.sgd(0.25)}, {"w": "a", "b": "b"}),
            {"a/learning_rate": 0.5, "b/learning_rate": 0.25},
        ),
        (
            gradtx.chain(
                gradtx.partition({1: gradtx.scale_by_learning_rate(0.5), 2: gradtx.identity()}, {"w": 1, "b": 2}), gradtx.sgd(0.25)
            ),
            {"1/learning_rate": 0.5, "learning_rate": 0.25},
        ),
        (  # what stands before and between moves no key
            gradtx.chain(
                gradtx.clip(9.0),
                gradtx.partition(
                    {"a": gradtx.chain(gradtx.clip(9.0), gradtx.sgd(0.5)), "b": gradtx.sgd(0.25)}, {"w": "a", "b": "b"}
                ),
            ),
            {"a/learning_rate": 0.5, "b/learning_rate": 0.25},
        ),
        (
            gradtx.named_chain(("first", gradtx.chain(gradtx.sgd(0.5), gradtx.sgd(0.25))), ("then", gradtx.sgd(0.125))),
            {"first/0/1/learning_rate": 0.5, "first/1/1/learning_rate": 0.25, "then/learning_rate": 0.125},
        ),
        (
            gradtx.chain(gradtx.monitor({"norm": largest}), gradtx.scale(0.5), gradtx.monitor({"norm": largest, "other": largest})),
            {"0/norm": 4.0, "2/norm": 2.0, "other": 2.0},
        ),
    ],
)
def test_metrics(tx: Any, expected: dict[str, float]) -> None:
    _, state = run(tx)
    assert floats(gradtx.metrics(state)) == expected
    assert gradtx.metrics(tx.init(GRADS)).keys() == expected.keys()  # a fixed structure from the start


def test_of_things_that_are_no_state() -> None:
    for nothing in (3, "text", {}, [], jnp.ones(2), {"a": [1, (2,)]}):
        assert gradtx.metrics(nothing) == {}
    for wrong, found in ((None, "None"), (gradtx.adam(0.1), r"adam\(learning_rate=0.1\)")):
        with pytest.raises(TypeError, match=f"^metrics: state is {found}, expected the state that tx.init or tx.update returned"):
            gradtx.metrics(wrong)


def test_of_a_train_state_and_of_an_nnx_optimizer() -> None:
    train_state = TrainState.create(apply_fn=None, params=GRADS, tx=gradtx.sgd(0.5))
    assert floats(gradtx.metrics(train_state)) == {"learning_rate": 0.5}
    optimizer = nnx.Optimizer(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), gradtx.sgd(0.25), wrt=nnx.Param)
    assert floats(gradtx.metrics(optimizer.opt_state)) == {"learning_rate": 0.25}


def test_a_state_of_ones_own_takes_part() -> None:
    class Count(NamedTuple):
        count: Any

        def metrics(self) -> Any:
            return {"steps": self.count}

    assert floats(gradtx.metrics([Count(3), {"x": None}])) == {"steps": 3.0}


def test_inside_jit_and_scan() -> None:
    tx = gradtx.chain(gradtx.clip_by_global_norm(5.0), gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 4)))

    def step(state: Any, scale: Any) -> Any:
        _, state = tx.update(jax.tree.map(lambda g: scale * g, GRADS), state)
        return state, gradtx.metrics(state)

    _, history = jax.jit(lambda state: jax.lax.scan(step, state, jnp.asarray([1.0, 2.0, 3.0])))(tx.init(GRADS))
    np.testing.assert_allclose(history["grad_norm"], [5.0, 10.0, 15.0])
    np.testing.assert_allclose(history["clip_fraction"], [0.0, 1 / 2, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(history["learning_rate"], [1.0, 0.75, 0.5])


def test_on_an_nnx_optimizer() -> None:
    model = Model()
    tx = gradtx.chain(
        gradtx.clip_by_global_norm(0.5),
        gradtx.monitor({"kernel": lambda updates: jnp.sum(updates["dense"]["kernel"]), "shape": lambda updates: jnp.ones(3)}),
        gradtx.inject_hyperparams(gradtx.sgd)(0.25),
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    names = {"grad_norm", "clip_fraction", "kernel", "learning_rate"}
    assert gradtx.metrics(optimizer.opt_state).keys() == names
    optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    expected = {"grad_norm": round(3**0.5, 5), "clip_fraction": 1.0, "kernel": round(2 * 0.5 / 3**0.5, 5), "learning_rate": 0.25}
    assert floats(gradtx.metrics(optimizer.opt_state)) == expected
    assert floats(nnx.jit(lambda optimizer: gradtx.metrics(optimizer.opt_state))(optimizer)) == expected


# What clip_by_global_norm reports ------------------------------------------------------------------------------


def clipped(grads: Any, max_norm: float) -> Any:
    updates, state = run(gradtx.clip_by_global_norm(max_norm), grads)
    return updates, float(state.norm), int(state.clipped)


def test_a_norm_beyond_float16_is_clipped_right() -> None:
    updates, norm, times = clipped({"w": jnp.full(4, 60000.0, jnp.float16)}, 2.0)
    assert (norm, times) == (120000.0, 1)
    assert updates["w"].dtype == jnp.float16
    np.testing.assert_array_equal(updates["w"], [1.0] * 4)


def test_bfloat16_gradients_are_measured_in_float32() -> None:
    """The norm is 1.0019: in bfloat16 it would round to 1 and clip nothing."""
    grads = {"w": jnp.asarray([1.0, 0.0625], jnp.bfloat16)}
    _, norm, times = clipped(grads, 1.0)
    np.testing.assert_allclose(norm, (1 + 0.0625**2) ** 0.5, rtol=1e-6)
    assert times == 1


@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_zero_gradients_stay_zero(max_norm: float) -> None:
    updates, norm, times = clipped(jax.tree.map(jnp.zeros_like, GRADS), max_norm)
    assert (norm, times) == (0.0, 0)
    np.testing.assert_array_equal(updates["w"], [0.0, 0.0])


def test_a_bound_of_zero_removes_everything() -> None:
    updates, norm, times = clipped(GRADS, 0.0)
    assert (norm, times) == (5.0, 1)
    np.testing.assert_array_equal(updates["w"], [0.0, 0.0])


@pytest.mark.parametrize("bad", [jnp.inf, -jnp.inf, jnp.nan])
def test_gradients_that_are_not_finite_pass_unchanged(bad: float) -> None:
    updates, norm, times = clipped({"w": jnp.asarray([bad, 2.0]), "b": jnp.asarray(3.0)}, 1.0)
    np.testing.assert_array_equal(norm, abs(bad))
    assert times == 0
    np.testing.assert_array_equal(updates["w"], [bad, 2.0])
    assert float(updates["b"]) == 3.0


def test_the_share_of_steps_that_clipped() -> None:
    tx = gradtx.clip_by_global_norm(5.0)
    state, shares = tx.init(GRADS), []
    for scale in (1.0, 2.0, 0.5, 3.0):
        _, state = tx.update(jax.tree.map(lambda g, scale=scale: scale * g, GRADS), state)
        shares.append(floats(gradtx.metrics(state))["clip_fraction"])
    assert shares == [0.0, 0.5, round(1 / 3, 5), 0.5]
    assert (int(state.steps), int(state.clipped)) == (4, 2)


# monitor ----------------------------------------------------------------------------------------------------


def test_measurements_of_any_shape() -> None:
    tx = gradtx.monitor(
        {
            "leaf": lambda u: u["w"],
            "tree": lambda u: {"sum": jnp.sum(u["w"]), "half": u["w"].astype(jnp.float16)},
            "number": lambda u: 3,
        }
    )
    start = tx.init(GRADS)
    updates, state = tx.update(GRADS, start)
    jax.tree.map(np.testing.assert_array_equal, updates, GRADS)
    np.testing.assert_array_equal(state.measurements["leaf"], GRADS["w"])
    assert float(state.measurements["tree"]["sum"]) == -1.0
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), start)
    assert float(jnp.sum(jnp.abs(start.measurements["leaf"]))) == 0.0
    assert floats(gradtx.metrics(state)) == {"number": 3.0}


def test_the_state_is_fixed_under_scan() -> None:
    tx = gradtx.chain(
        gradtx.monitor({"vector": lambda u: u["w"], "mean": gradtx.ema(0.5), "norm": gradtx.global_norm}), gradtx.sgd(1.0)
    )

    def step(state: Any, scale: Any) -> Any:
        _, state = tx.update(jax.tree.map(lambda g: scale * g, GRADS), state)
        return state, state[0].measurements

    state, history = jax.lax.scan(step, tx.init(GRADS), jnp.asarray([1.0, 3.0]))
    np.testing.assert_array_equal(history["vector"], [[3.0, -4.0], [9.0, -12.0]])
    np.testing.assert_allclose(history["mean"]["w"][1], [3.0 * 7 / 3, -4.0 * 7 / 3], rtol=1e-6)  # debiased: (1/4 + 3/2) / (3/4)
    np.testing.assert_allclose(history["norm"], [5.0, 15.0])
    assert floats(gradtx.metrics(state)) == {"norm": 15.0, "learning_rate": 1.0}


def test_gradients_of_another_dtype_are_stored_in_the_first() -> None:
    tx = gradtx.monitor({"leaf": lambda u: u["w"]})
    _, state = tx.update({"w": jnp.asarray([3.0, -4.0], jnp.bfloat16)}, tx.init({"w": jnp.ones(2)}))
    assert state.measurements["leaf"].dtype == jnp.float32


def test_measuring_transformations_get_params_and_extra_arguments() -> None:
    def update(updates: Any, state: Any, params: Any = None, *, value: Any = 1.0, **extra_args: Any) -> Any:
        return value * jnp.sum(params["w"]), state

    tx = gradtx.monitor({"x": gradtx.GradientTransformation(lambda params: gradtx.EmptyState(), update)})
    _, state = tx.update(GRADS, tx.init(GRADS), {"w": jnp.ones(2), "b": jnp.ones(())}, value=3.0)
    assert floats(gradtx.metrics(state)) == {"x": 6.0}


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: gradtx.monitor(largest), "monitor: measures is the function largest, expected a dict from names to functions."),
        (
            lambda: gradtx.monitor({"norm": 3}),
            "monitor: measures['norm'] is 3 (int), expected a function or a transformation.",
        ),
        (
            lambda: gradtx.monitor({"norm": gradtx.ema}),
            "monitor: measures['norm'] is the class ema, expected a function or a transformation.",
        ),
        (
            lambda: gradtx.monitor({"a": largest}).update(GRADS, gradtx.monitor({"a": largest, "b": largest}).init(GRADS)),
            f"monitor: state is a MonitorState, expected a MonitorState with measurements 'a'; {OTHER}",
        ),
    ],
)
def test_errors(call: Any, text: str) -> None:
    with pytest.raises(TypeError) as error:
        call()
    assert str(error.value) == text


def test_names_that_clash_at_one_path_are_told_apart_by_fields() -> None:
    make = gradtx.inject_hyperparams(lambda b1: gradtx.chain(gradtx.monitor({"b1": gradtx.global_norm}), gradtx.trace(b1)))
    tx = make(b1=0.5)
    params = jnp.asarray([3.0, 4.0])
    _, state = tx.update(params, tx.init(params))
    assert {name: float(value) for name, value in gradtx.metrics(state).items()} == {"b1": 0.5, "0/b1": 5.0}


# snapshot, and averages of measurements ---------------------------------------------------------------------


def test_snapshots_see_the_updates_where_they_stand() -> None:
    before, after = gradtx.snapshot("before", gradtx.global_norm), gradtx.snapshot("after", gradtx.global_norm)
    tx = gradtx.chain(before, gradtx.clip_by_global_norm(2.5), gradtx.snapshot("whole", lambda u: u), after, gradtx.sgd(0.1))
    updates, state = run(tx)
    np.testing.assert_allclose(updates["w"], [-0.15, 0.2], rtol=1e-6)
    np.testing.assert_allclose(gradtx.tree.get(state, "whole")["w"], [1.5, -2.0], rtol=1e-6)
    found = floats(gradtx.metrics(state))
    assert found == {"before": 5.0, "grad_norm": 5.0, "clip_fraction": 1.0, "after": 2.5, "learning_rate": 0.1}


def test_snapshots_equal_optax() -> None:
    found = []
    for lib in (gradtx, optax):
        tx = lib.chain(lib.sgd(0.1, 0.9), lib.snapshot("norm_before", lib.tree.norm), lib.clip_by_global_norm(0.05))
        state = tx.init(GRADS)
        for _ in range(3):
            _, state = tx.update(GRADS, state)
        found.append(float(lib.tree.get(state, "norm_before")))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_snapshot_keeps_its_dtypes_and_is_zero_at_first() -> None:
    tx = gradtx.snapshot("all", lambda u: {"sum": jnp.sum(u), "any": jnp.any(u > 1), "three": 3})
    half = jnp.ones(2, jnp.bfloat16)
    state = tx.init(half)
    assert {name: value.dtype.name for name, value in state.measurement["all"].items()} == {
        "sum": "bfloat16",
        "any": "bool",
        "three": "int32",
    }
    assert float(state.measurement["all"]["sum"]) == 0.0
    after, _ = jax.lax.scan(lambda s, u: (tx.update(u, s)[1], None), state, jnp.full((2, 2), 3.0))
    assert {name: float(value) for name, value in after.measurement["all"].items()} == {"sum": 6.0, "any": 1.0, "three": 3.0}


def test_averages_of_measurements_equal_optax() -> None:
    found = []
    for lib in (gradtx, optax):
        tx = lib.monitor(
            {"large": lib.measure_with_ema(lambda u: jnp.abs(u) > 1.5, 0.9), "norm": lib.measure_with_ema(jnp.max, 0.5)}
        )
        state = tx.init(jnp.zeros(3))
        for scale in (1.0, 2.0, -1.0):
            _, state = tx.update(scale * jnp.arange(3.0), state)
        found.append(state.measurements)
    for name in ("large", "norm"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-5)


def test_the_average_of_a_measurement_in_a_scan() -> None:
    tx = gradtx.monitor({"clipped": gradtx.measure_with_ema(lambda u: gradtx.global_norm(u) > 1.0, 0.5)})
    run_all = jax.jit(lambda us: jax.lax.scan(lambda s, u: (tx.update(u, s)[1], None), tx.init(us[0]), us)[0])
    assert floats(gradtx.metrics(run_all(jnp.asarray([2.0, 0.5, 0.5, 3.0])))) == {"clipped": round((0.0625 + 0.5) / 0.9375, 5)}


def test_snapshot_of_another_name() -> None:
    tx = gradtx.snapshot("a", largest)
    text = f"snapshot: state is a SnapshotState, expected a SnapshotState with the measurement 'a'; {OTHER}"
    with pytest.raises(TypeError) as error:
        tx.update(GRADS, gradtx.snapshot("b", largest).init(GRADS))
    assert str(error.value) == text
