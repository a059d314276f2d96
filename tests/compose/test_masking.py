"""Transformations for some of the parameters."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import freeze as frozen_dict

import gradtx

PARAMS = {"dense": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}, "scale": jnp.ones(())}
ONLY_BIAS = {"dense": {"bias": True, "kernel": False}, "scale": False}


class Layer(eqx.Module):
    kernel: Any
    bias: Any
    name: Any = eqx.field(static=True, default="layer")

    def __call__(self, x: Any) -> Any:
        raise AssertionError("a mask was called")


def state_bytes(state: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(state))


def run(tx: Any, params: Any = PARAMS, **extra_args: Any) -> Any:
    return tx.update(params, tx.init(params), params, **extra_args)


def values(updates: Any) -> Any:
    return jax.tree.map(lambda u: float(jnp.mean(u)), updates)


@pytest.mark.parametrize(
    "mask",
    [
        ONLY_BIAS,
        {"scale": np.False_, "dense": {"kernel": False, "bias": np.True_}},
        frozen_dict(ONLY_BIAS),
        lambda params: ONLY_BIAS,
        lambda params: jax.tree.map(lambda p: p.shape == (2,), params),
        gradtx.by_path({"dense/bias": True}, default=False),
    ],
)
def test_only_the_masked_in_change(mask: Any) -> None:
    assert values(run(gradtx.masked(gradtx.scale(10.0), mask))[0]) == {"dense": {"bias": 10.0, "kernel": 1.0}, "scale": 1.0}


def test_a_boolean_stands_for_all_below_it() -> None:
    expected = {"dense": {"bias": 10.0, "kernel": 10.0}, "scale": 1.0}
    assert values(run(gradtx.masked(gradtx.scale(10.0), {"dense": True, "scale": False}))[0]) == expected
    assert values(run(gradtx.masked(gradtx.scale(10.0), True))[0]) == jax.tree.map(lambda p: 10.0, PARAMS)
    assert values(run(gradtx.masked(gradtx.scale(10.0), False))[0]) == jax.tree.map(lambda p: 1.0, PARAMS)


def test_masked_out_leaves_have_no_state() -> None:
    state = gradtx.masked(gradtx.scale_by_adam(), ONLY_BIAS).init(PARAMS)
    assert state.inner_state.mu == {
        "dense": {"bias": state.inner_state.mu["dense"]["bias"], "kernel": gradtx.MaskedNode()},
        "scale": gradtx.MaskedNode(),
    }
    assert state_bytes(state) == 4 + 2 * 2 * 4  # the count, and two moments of two numbers
    assert state_bytes(gradtx.masked(gradtx.trace(0.9), False).init(PARAMS)) == 0


def test_masked_out_leaves_may_be_integers() -> None:
    params = {"w": jnp.ones(2), "n": jnp.asarray(3), "key": jax.random.key(0)}
    tx = gradtx.masked(gradtx.adam(0.1), {"w": True, "n": False, "key": False})
    state = tx.init(params)
    updates, _ = tx.update({"w": jnp.ones(2), "n": jnp.asarray(5), "key": params["key"]}, state)
    assert int(updates["n"]) == 5
    assert jax.random.key_data(updates["key"]).tolist() == jax.random.key_data(params["key"]).tolist()
    np.testing.assert_allclose(updates["w"], [-0.1, -0.1], rtol=1e-5)
    with pytest.raises(
        TypeError, match=r"^adam > scale_by_adam: params leaf `n` is an array of shape \(\) and dtype int32, expected"
    ):
        gradtx.adam(0.1).init({"n": jnp.asarray(3), "w": jnp.ones(2)})


def test_gradients_of_integers_are_frozen() -> None:
    """A float0, which `jax.grad(allow_int=True)` gives for an integer parameter, passes with the remedy that the error names."""
    params = {"w": jnp.ones(2), "n": jnp.asarray(3)}
    grads = jax.grad(lambda p: jnp.sum(p["w"] ** 2), allow_int=True)(params)
    only_w = {"w": True, "n": False}
    for tx in (
        gradtx.masked(gradtx.sgd(0.5), only_w),
        gradtx.chain(gradtx.masked(gradtx.sgd(0.5), only_w), gradtx.freeze({"w": False, "n": True})),
        gradtx.selective_transform(gradtx.sgd(0.5), freeze_mask={"w": False, "n": True}),
    ):
        updates, _ = tx.update(grads, tx.init(params), params)
        new = gradtx.apply_updates(params, updates)
        np.testing.assert_array_equal(new["w"], [0.0, 0.0])
        assert int(new["n"]) == 3


def test_masks_may_be_nested() -> None:
    inner = gradtx.masked(gradtx.trace(0.5), gradtx.by_path({".*bias": True}, default=False))
    tx = gradtx.masked(inner, {"dense": True, "scale": False})
    updates, state = run(tx)
    _, state = tx.update(PARAMS, state, PARAMS)
    updates, _ = tx.update(PARAMS, state, PARAMS)
    assert values(updates) == {"dense": {"bias": 1.75, "kernel": 1.0}, "scale": 1.0}
    assert state_bytes(state) == 2 * 4


def test_a_whole_tree_of_labels_fits_a_nested_mask() -> None:
    """Leaves that an outer mask took away need no entry in the inner one, and may have one."""
    tx = gradtx.masked(gradtx.masked(gradtx.scale(10.0), ONLY_BIAS), {"dense": True, "scale": False})
    assert values(run(tx)[0]) == {"dense": {"bias": 10.0, "kernel": 1.0}, "scale": 1.0}


def test_an_equinox_module_as_mask_is_not_called() -> None:
    params, mask = Layer(jnp.ones((2, 2)), jnp.ones(2)), Layer(True, False)
    assert callable(mask)
    updates, _ = run(gradtx.masked(gradtx.scale(10.0), mask), params)
    assert isinstance(updates, Layer)
    assert values((updates.kernel, updates.bias)) == (10.0, 1.0)
    updates, _ = run(gradtx.adamw(1.0, weight_decay=1.0, mask=mask), params)
    np.testing.assert_allclose(updates.kernel, -2.0, rtol=1e-6)
    np.testing.assert_allclose(updates.bias, -1.0, rtol=1e-6)
    assert gradtx.freeze(mask) == gradtx.freeze(Layer(True, False))


def test_extra_arguments_that_are_trees_are_masked_on_demand() -> None:
    seen: list[Any] = []

    def spy(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        seen.append(extra_args)
        return updates, state

    inner = gradtx.GradientTransformation(lambda params: gradtx.EmptyState(), spy)
    run(gradtx.masked(inner, ONLY_BIAS, mask_compatible_extra_args=True), grad=PARAMS, value=1.0)
    run(gradtx.masked(inner, ONLY_BIAS), grad=PARAMS, value=1.0)
    assert seen[0]["grad"] == {
        "dense": {"bias": PARAMS["dense"]["bias"], "kernel": gradtx.MaskedNode()},
        "scale": gradtx.MaskedNode(),
    }
    assert seen[1]["grad"] is PARAMS
    assert seen[0]["value"] == seen[1]["value"] == 1.0


def test_freeze_sets_updates_to_zero() -> None:
    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.freeze(ONLY_BIAS))
    updates, state = run(tx)
    assert values(updates) == {"dense": {"bias": 0.0, "kernel": -1.0}, "scale": -1.0}
    assert state_bytes(state[1]) == 0


def test_weight_decay_takes_a_mask() -> None:
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    tx = gradtx.sgdw(1.0, weight_decay=0.5, mask=ONLY_BIAS)
    updates, _ = tx.update(zeros, tx.init(PARAMS), PARAMS)
    assert values(updates) == {"dense": {"bias": -0.5, "kernel": 0.0}, "scale": 0.0}


@pytest.mark.parametrize(
    ("tx", "text"),
    [
        (
            gradtx.masked(gradtx.scale(1.0), {"dense": True}),
            "masked: mask has nothing for the parameter `scale`; its paths are `dense`.",
        ),
        (
            gradtx.masked(gradtx.scale(1.0), {**ONLY_BIAS, "head": {"kernel": True}}),
            "masked: mask has the path `head/kernel`, which no parameter has.",
        ),
        (
            gradtx.adamw(0.1, mask={"dense": True, "scale": False, "x": True}),
            "adamw > add_decayed_weights: mask has the path `x`, which no parameter has.",
        ),
        (gradtx.freeze(lambda params: {}), "freeze: mask has nothing for the parameter `dense/bias`; its paths are none."),
        (
            gradtx.selective_transform(gradtx.sgd(0.1), freeze_mask={"dense": False}),
            "selective_transform: freeze_mask has nothing for the parameter `scale`; its paths are `dense`.",
        ),
    ],
)
def test_masks_of_another_tree(tx: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"(mask has|freeze_mask has)") as error:
        tx.init(PARAMS)
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("make", "name", "argument"),
    [
        (lambda mask: gradtx.masked(gradtx.scale(1.0), mask), "masked", "mask"),
        (gradtx.freeze, "freeze", "mask"),
        (lambda mask: gradtx.adamw(0.1, mask=mask), "adamw > add_decayed_weights", "mask"),
        (lambda mask: gradtx.selective_transform(gradtx.sgd(0.1), freeze_mask=mask), "selective_transform", "freeze_mask"),
    ],
)
def test_labels_are_no_mask(make: Any, name: str, argument: str) -> None:
    with pytest.raises(TypeError) as error:
        make(gradtx.by_path({".*bias": "no_decay"}, default="decay")).init(PARAMS)
    assert str(error.value) == f"{name}: {argument} for `dense/bias` is 'no_decay' (str), expected True or False."


def test_grad_fn_sees_whole_parameters_and_gives_the_kept_part() -> None:
    """STORM under a mask equals STORM on the part that it sees, with the rest held."""
    params = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray(3.0)}
    gradient = jax.grad(lambda p: (p["a"] ** 2).sum() * p["b"] ** 2)
    alone = jax.grad(lambda a: (a**2).sum() * params["b"] ** 2)
    tx, part = gradtx.masked(gradtx.storm(), {"a": True, "b": False}), gradtx.storm()
    state, part_state = tx.init(params), part.init(params["a"])
    for _ in range(3):
        updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
        expected, part_state = part.update(alone(params["a"]), part_state, params["a"], grad_fn=alone)
        np.testing.assert_allclose(updates["a"], expected, rtol=1e-6)
        params = {"a": params["a"] + updates["a"], "b": params["b"]}
