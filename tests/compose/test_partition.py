"""A transformation for each group of parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import freeze as frozen_dict
from hypothesis import given, settings
from hypothesis import strategies as st

import gradtx
from gradtx.compose.partition import PartitionState, multi_transform

PARAMS = {"dense": {"bias": jnp.asarray([1.0, 2.0]), "kernel": jnp.asarray([[3.0], [4.0]])}, "scale": jnp.asarray(5.0)}
BIAS = gradtx.by_path({".*bias": "bias"}, default="rest")
OTHER = "does it belong to another optimizer? The call is tx.update(updates, state, params), with the state of tx.init(params)."


def follow(tx: Any, params: Any, steps: int = 3) -> Any:
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(jax.tree.map(lambda p: 0.1 * p, params), state, params)
        params = gradtx.apply_updates(params, updates)
    return params, state


def state_bytes(state: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(state))


class Model(nnx.Module):
    def __init__(self) -> None:
        self.dense = nnx.Linear(1, 2, rngs=nnx.Rngs(0))


def test_each_group_goes_its_own_way() -> None:
    both, state = follow(gradtx.partition({"bias": gradtx.sgd(1.0, 0.9), "rest": gradtx.adamw(0.1)}, BIAS), PARAMS)
    bias, _ = follow(gradtx.sgd(1.0, 0.9), PARAMS["dense"]["bias"])
    rest, _ = follow(gradtx.adamw(0.1), {"kernel": PARAMS["dense"]["kernel"], "scale": PARAMS["scale"]})
    np.testing.assert_allclose(both["dense"]["bias"], bias, rtol=1e-6)
    np.testing.assert_allclose(both["dense"]["kernel"], rest["kernel"], rtol=1e-6)
    np.testing.assert_allclose(both["scale"], rest["scale"], rtol=1e-6)
    assert isinstance(state, PartitionState)
    assert set(state.inner_states) == {"bias", "rest"}


@settings(deadline=None, max_examples=12, derandomize=True)
@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=4, max_size=4))
def test_groups_come_back_in_their_places(labels: list[str]) -> None:
    """Whatever the grouping, every leaf gets its own label's transformation and none is lost or swapped."""
    leaves = [jnp.asarray(float(i + 1)) for i in range(4)]
    factors = {"a": 2.0, "b": -1.0, "c": 0.5}
    tx = gradtx.partition({name: gradtx.scale(f) for name, f in factors.items()}, labels)
    updates, _ = tx.update(leaves, tx.init(leaves))
    assert [float(u) for u in updates] == [factors[label] * (i + 1) for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    "labels",
    [
        {"dense": {"bias": "bias", "kernel": "rest"}, "scale": "rest"},
        {"scale": "rest", "dense": {"kernel": "rest", "bias": "bias"}},
        frozen_dict({"dense": {"bias": "bias", "kernel": "rest"}, "scale": "rest"}),
        lambda params: jax.tree.map(lambda p: "bias" if p.shape == (2,) else "rest", params),
        BIAS,
    ],
)
@pytest.mark.parametrize("container", [dict, frozen_dict])
def test_labels_fit_by_path(labels: Any, container: Any) -> None:
    params = container(PARAMS)
    tx = gradtx.partition({"bias": gradtx.scale(2.0), "rest": gradtx.scale(-1.0)}, labels)
    updates, _ = tx.update(params, tx.init(params))
    assert type(updates) is type(params)
    np.testing.assert_array_equal(updates["dense"]["bias"], [2.0, 4.0])
    assert float(updates["scale"]) == -5.0


@pytest.mark.parametrize(
    "labels", [{"dense": {"bias": "b", "kernel": "k"}}, gradtx.by_path({"dense/bias": "b", "dense/kernel": "k"})]
)
def test_labels_fit_nnx(labels: Any) -> None:
    model = Model()
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    optimizer = nnx.Optimizer(model, gradtx.partition({"b": gradtx.sgd(1.0), "k": gradtx.sgd(0.5, 0.9)}, labels), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    np.testing.assert_allclose(after["dense"]["bias"], before["dense"]["bias"] - 1.0, rtol=1e-6)
    np.testing.assert_allclose(after["dense"]["kernel"], before["dense"]["kernel"] - 0.5, rtol=1e-6)


def test_labels_may_be_any_hashable() -> None:
    tx = gradtx.partition({0: gradtx.scale(2.0), True: gradtx.scale(3.0)}, {"a": 0, "b": True})
    updates, _ = tx.update({"a": 1.0, "b": 1.0}, tx.init({"a": 1.0, "b": 1.0}))
    assert (float(updates["a"]), float(updates["b"])) == (2.0, 3.0)


def test_a_group_may_be_empty() -> None:
    tx = gradtx.partition({"all": gradtx.sgd(1.0), "none": gradtx.adam(0.1)}, lambda params: jax.tree.map(lambda p: "all", params))
    params, _ = follow(tx, PARAMS, 1)
    np.testing.assert_allclose(params["scale"], 4.5, rtol=1e-6)


def test_multi_transform_is_another_name() -> None:
    assert multi_transform is gradtx.partition


def test_frozen_leaves_have_no_state() -> None:
    for tx in (
        gradtx.selective_transform(gradtx.scale_by_adam(), freeze_mask=gradtx.by_path({".*bias": False}, default=True)),
        gradtx.partition({"bias": gradtx.scale_by_adam(), "rest": gradtx.set_to_zero()}, BIAS),
    ):
        params, state = follow(tx, PARAMS)
        assert state_bytes(state) == 4 + 2 * 2 * 4  # Adam's count, and two moments of two numbers
        np.testing.assert_array_equal(params["dense"]["kernel"], PARAMS["dense"]["kernel"])
        assert float(jnp.min(params["dense"]["bias"] - PARAMS["dense"]["bias"])) > 2.0


def test_frozen_leaves_may_be_integers() -> None:
    params = {"w": jnp.ones(2), "steps": jnp.asarray(7)}
    tx = gradtx.selective_transform(gradtx.adam(0.1), freeze_mask={"w": False, "steps": True})
    updates, _ = tx.update({"w": jnp.ones(2), "steps": jnp.asarray(1)}, tx.init(params), params)
    assert int(updates["steps"]) == 0
    np.testing.assert_allclose(updates["w"], [-0.1, -0.1], rtol=1e-5)


def test_each_group_has_its_own_schedule() -> None:
    rates = {"bias": gradtx.linear_schedule(1.0, 0.0, 4), "rest": gradtx.constant_schedule(0.5)}
    tx = gradtx.partition({name: gradtx.sgd(rate) for name, rate in rates.items()}, BIAS)
    ones = jax.tree.map(jnp.ones_like, PARAMS)

    def step(state: Any, _: Any) -> Any:
        updates, state = tx.update(ones, state)
        return state, (updates["dense"]["bias"][0], updates["scale"])

    state, (bias, scale) = jax.lax.scan(step, tx.init(PARAMS), None, length=4)
    np.testing.assert_allclose(bias, [-1.0, -0.75, -0.5, -0.25])
    np.testing.assert_allclose(scale, [-0.5] * 4)
    rates_in_use = {name: float(value) for name, value in gradtx.metrics(state).items()}
    assert rates_in_use == {"bias/learning_rate": 0.25, "rest/learning_rate": 0.5}


def test_partitions_nest() -> None:
    inner = gradtx.partition(
        {"small": gradtx.trace(0.5), "large": gradtx.scale(2.0)}, gradtx.by_path({"scale": "small"}, default="large")
    )
    tx = gradtx.partition({"bias": gradtx.scale(-1.0), "rest": inner}, BIAS)
    state = tx.init(PARAMS)
    _, state = tx.update(PARAMS, state)
    updates, state = tx.update(PARAMS, state)
    np.testing.assert_array_equal(updates["dense"]["bias"], [-1.0, -2.0])
    np.testing.assert_array_equal(updates["dense"]["kernel"], [[6.0], [8.0]])
    assert float(updates["scale"]) == 7.5
    assert state_bytes(state) == 4
    masked = gradtx.masked(inner, gradtx.by_path({".*bias": False}, default=True))
    np.testing.assert_array_equal(masked.update(PARAMS, masked.init(PARAMS))[0]["dense"]["bias"], [1.0, 2.0])


def test_optax_members() -> None:
    tx = gradtx.partition({"bias": optax.sgd(1.0, 0.9), "rest": optax.adam(0.1)}, BIAS)
    theirs = optax.partition({"bias": optax.sgd(1.0, 0.9), "rest": optax.adam(0.1)}, BIAS)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), follow(tx, PARAMS)[0], follow(theirs, PARAMS)[0])


def test_extra_arguments_that_are_trees_are_masked_on_demand() -> None:
    def from_extra(updates: Any, state: Any, params: Any = None, *, grad: Any, **extra_args: Any) -> Any:
        return jax.tree.map(lambda u, g: g, updates, grad), state

    inner = gradtx.GradientTransformation(lambda params: gradtx.EmptyState(), from_extra)
    tx = gradtx.partition({"bias": inner, "rest": gradtx.identity()}, BIAS, mask_compatible_extra_args=True)
    twice = jax.tree.map(lambda p: 2 * p, PARAMS)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), grad=twice)
    np.testing.assert_array_equal(updates["dense"]["bias"], [2.0, 4.0])
    assert float(updates["scale"]) == 5.0


SGD = gradtx.sgd(0.1)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: gradtx.partition([SGD], BIAS),
            TypeError,
            "partition: transforms is a list of 1, expected a dict from labels to transformations.",
        ),
        (
            lambda: gradtx.partition({"a": SGD, "b": gradtx.adam}, BIAS),
            TypeError,
            "partition: transforms['b'] is the class adam, expected a gradient transformation (a pair of init and update). "
            "This is the factory itself: call it, adam(...).",
        ),
        (
            lambda: gradtx.partition({"bais": SGD, "rest": SGD}, BIAS).init(PARAMS),
            ValueError,
            "partition: param_labels has the label 'bias', which has no transformation; transforms has 'bais', 'rest'. "
            "Did you mean 'bais'?",
        ),
        (
            lambda: gradtx.partition({"a": SGD}, {"dense": "a"}).init(PARAMS),
            ValueError,
            "partition: param_labels has nothing for the parameter `scale`; its paths are `dense`.",
        ),
        (
            lambda: gradtx.partition({"a": SGD}, {"dense": "a", "scale": "a", "head": "a"}).init(PARAMS),
            ValueError,
            "partition: param_labels has the path `head`, which no parameter has.",
        ),
        (
            lambda: gradtx.partition({"a": SGD, "b": SGD}, lambda p: jax.tree.map(lambda _: "a", p)).update(
                PARAMS, gradtx.partition({"a": SGD}, lambda p: jax.tree.map(lambda _: "a", p)).init(PARAMS)
            ),
            TypeError,
            f"partition: state is a PartitionState, expected a PartitionState with labels 'a', 'b'; {OTHER}",
        ),
        (
            lambda: gradtx.partition({"bias": SGD, "rest": SGD}, BIAS).update(PARAMS, SGD.init(PARAMS)),
            TypeError,
            f"partition: state is a tuple of 2, expected PartitionState; {OTHER}",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == text
