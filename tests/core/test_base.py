"""Transformations and pairs: extra arguments, pairs of other libraries, the smallest transformations, sweeps by vmap."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.compose.plain import with_extra_args_support
from gradtx.core.checked import checked
from gradtx.core.pairs import as_transformation
from gradtx.core.transformation import wants
from gradtx.wrappers.adversarial import sam
from gradtx.wrappers.lookahead import lookahead
from gradtx.wrappers.multi_steps import MultiSteps
from gradtx.wrappers.nonfinite import apply_if_finite

ONE = {"w": jnp.ones(2)}


class by_value(gradtx.Transformation):
    """Needs the extra argument `value`, can use `scale`."""

    power: float = 1.0

    def step(self, updates: Any, state: Any, params: Any = None, *, value: Any, scale: Any = 1.0, **extra_args: Any) -> Any:
        return jax.tree.map(lambda u: u * scale * value**self.power, updates), state


def init_nothing(params: Any) -> gradtx.EmptyState:
    return gradtx.EmptyState()


def recorder(seen: list[Any]) -> gradtx.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        seen.append(extra_args)
        return updates, state

    return gradtx.GradientTransformation(init_nothing, update)


def no_extras(updates: Any, state: Any, params: Any = None) -> Any:
    return jax.tree.map(lambda u: 2 * u, updates), state


def some_extras(updates: Any, state: Any, params: Any = None, value: Any = 5.0) -> Any:
    return jax.tree.map(lambda u: value * u, updates), state


# Extra arguments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: tx,
        lambda tx: gradtx.chain(gradtx.clip(9.0), tx),
        lambda tx: gradtx.named_chain(("a", gradtx.chain(tx))),
        lambda tx: gradtx.masked(tx, True),
        lambda tx: gradtx.partition({"a": tx, "b": gradtx.sgd(0.1)}, {"w": "a"}),
        lambda tx: gradtx.conditionally_transform(tx, lambda step: step >= 0),
        lambda tx: gradtx.conditionally_mask(tx, lambda step: step >= 0),
    ],
)
def test_extra_arguments_reach_the_inside(wrap: Any) -> None:
    tx = wrap(by_value())
    state = tx.init(ONE)
    updates, _ = tx.update(ONE, state, None, value=3.0, scale=2.0, epoch=7)
    np.testing.assert_array_equal(updates["w"], [6.0, 6.0])
    with pytest.raises(
        TypeError,
        match=r"by_value: missing extra argument `value`; call tx\.update\(updates, state, params, value=\.\.\.\)\.(\n|$)",
    ):
        tx.update(ONE, state, None)
    with pytest.raises(TypeError, match=r": unknown extra argument `scal`\. Did you mean 'scale'\?(\n|$)"):
        tx.update(ONE, state, None, value=3.0, scal=2.0)


def test_wants_are_gathered_from_inside() -> None:
    assert wants(gradtx.chain(gradtx.sgd(0.1), by_value())) == {"value", "scale"}
    assert wants(gradtx.partition({"a": by_value()}, {"w": "a"})) == {"value", "scale"}
    assert wants(gradtx.monitor({"a": by_value()})) == {"value", "scale"}
    assert wants(as_transformation(optax.chain(optax.scale_by_polyak()))) == set()


def test_arguments_that_nothing_uses_are_ignored() -> None:
    seen: list[Any] = []
    tx = gradtx.chain(gradtx.sgd(0.1), recorder(seen))
    tx.update(ONE, tx.init(ONE), ONE, value=1.0, grad=ONE, epoch=3)
    assert seen == [{"value": 1.0, "grad": ONE, "epoch": 3}]


@pytest.mark.parametrize(
    ("update", "expected"), [(no_extras, 2.0), (some_extras, 3.0), (functools.partial(some_extras), 3.0), (jax.jit(no_extras), 2.0)]
)
def test_pairs_without_extra_arguments_drop_them(update: Any, expected: float) -> None:
    pair = gradtx.GradientTransformation(init_nothing, update)
    for tx in (with_extra_args_support(pair), with_extra_args_support(with_extra_args_support(pair))):
        updates, _ = tx.update(ONE, tx.init(ONE), None, value=3.0, epoch=7)
        np.testing.assert_array_equal(updates["w"], [expected, expected])


def test_pairs_with_extra_arguments_stay() -> None:
    tx = gradtx.sgd(0.1)
    assert with_extra_args_support(tx) is tx
    theirs = optax.with_extra_args_support(optax.sgd(0.1))
    assert with_extra_args_support(theirs).update_fn is theirs.update
    assert isinstance(with_extra_args_support(theirs), gradtx.GradientTransformation)


@pytest.mark.parametrize(
    ("tx", "text"),
    [
        (3, "tx is 3 (int), expected a gradient transformation (a pair of init and update). "
            "Were arguments swapped? A learning rate alone becomes a transformation with scale_by_learning_rate(rate)."),
        (gradtx.adam, "tx is the class adam, expected a gradient transformation (a pair of init and update). "
                      "This is the factory itself: call it, adam(...)."),
        ((no_extras, no_extras), "tx is a tuple of 2, expected a gradient transformation (a pair of init and update). "
                                 "Unpack a list of transformations with a star: chain(*transformations)."),
    ],
)  # fmt: skip
def test_with_extra_args_support_wants_a_transformation(tx: Any, text: str) -> None:
    with pytest.raises(TypeError) as error:
        with_extra_args_support(tx)
    assert str(error.value) == f"with_extra_args_support: {text}"


def test_optax_members_work_and_their_arguments_reach_them() -> None:
    tx = gradtx.chain(optax.clip(0.5), gradtx.sgd(1.0), optax.scale_by_polyak(max_learning_rate=10.0))
    updates, _ = tx.update(ONE, tx.init(ONE), ONE, value=1.0)
    theirs = optax.chain(optax.clip(0.5), optax.sgd(1.0), optax.scale_by_polyak(max_learning_rate=10.0))
    expected, _ = theirs.update(ONE, theirs.init(ONE), ONE, value=1.0)
    np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-6)


def test_to_optax_is_optax_own_class() -> None:
    tx = gradtx.to_optax(by_value())
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    outer = optax.chain(optax.identity(), tx)
    np.testing.assert_array_equal(outer.update(ONE, outer.init(ONE), None, value=4.0)[0]["w"], [4.0, 4.0])


# The smallest transformations -----------------------------------------------------------------------------


def test_set_to_zero_takes_any_dtype() -> None:
    tree = {"w": jnp.ones(2, jnp.bfloat16), "n": jnp.ones((), jnp.int32), "b": jnp.ones(1, bool)}
    tx = gradtx.set_to_zero()
    updates, state = tx.update(tree, tx.init(tree))
    assert state == gradtx.EmptyState()
    assert {k: (u.dtype.name, float(jnp.sum(u))) for k, u in updates.items()} == {
        "w": ("bfloat16", 0),
        "n": ("int32", 0),
        "b": ("bool", 0),
    }


def test_stateless_functions_get_updates_and_params() -> None:
    whole = gradtx.stateless(lambda updates, params: params if params is not None else updates)
    leaf = gradtx.stateless_with_tree_map(lambda u, p: u if p is None else u - p)
    two = {"w": 2 * ONE["w"]}
    np.testing.assert_array_equal(whole.update(ONE, whole.init(ONE), two)[0]["w"], two["w"])
    np.testing.assert_array_equal(whole.update(ONE, whole.init(ONE))[0]["w"], ONE["w"])
    np.testing.assert_array_equal(leaf.update(ONE, leaf.init(ONE), two)[0]["w"], [-1.0, -1.0])
    np.testing.assert_array_equal(leaf.update(ONE, leaf.init(ONE))[0]["w"], [1.0, 1.0])


# Hyperparameters under tracing ----------------------------------------------------------------------------


def train(tx: Any) -> Any:
    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.tree.map(lambda p: p - 1.0, params), state, params)
        return (gradtx.apply_updates(params, updates), state), None

    params = {"w": jnp.asarray([3.0, -2.0])}
    return jax.lax.scan(step, (params, tx.init(params)), None, length=20)[0][0]["w"]


@pytest.mark.parametrize("make", [gradtx.adam, gradtx.sgd], ids=["adam", "sgd"])
def test_sixteen_rates_train_in_one_vmap(make: Any) -> None:
    rates = jnp.linspace(0.01, 0.16, 16)
    together = jax.jit(jax.vmap(lambda rate: train(make(rate))))(rates)
    one = jax.jit(lambda rate: train(make(rate)))
    np.testing.assert_allclose(together, jnp.stack([one(rate) for rate in rates]), rtol=1e-6)
    np.testing.assert_allclose(together[9], jax.jit(lambda: train(make(0.1)))(), rtol=1e-5)  # a Python number
    assert len({round(float(x), 5) for x in together[:, 0]}) == 16


def test_sweep_over_schedules_and_other_hyperparameters() -> None:
    def run(rate: Any, b1: Any, decay: Any) -> Any:
        return train(gradtx.adamw(gradtx.linear_schedule(rate, 0.0, 20), b1=b1, weight_decay=decay))

    rates, b1s, decays = jnp.asarray([0.1, 0.2]), jnp.asarray([0.0, 0.9]), jnp.asarray([0.0, 0.1])
    together = jax.jit(jax.vmap(run))(rates, b1s, decays)
    apart = [jax.jit(lambda row=row: run(*row))() for row in ((0.1, 0.0, 0.0), (0.2, 0.9, 0.1))]
    np.testing.assert_allclose(together, jnp.stack(apart), rtol=1e-5)


def test_the_rate_has_a_gradient() -> None:
    def loss(rate: Any) -> Any:
        tx, params = gradtx.sgd(rate), jnp.asarray(3.0)
        updates, _ = tx.update(2 * params, tx.init(params), params)
        return gradtx.apply_updates(params, updates) ** 2

    assert float(jax.grad(loss)(0.25)) == pytest.approx(2 * (3 - 0.25 * 6) * -6)


# States of other libraries --------------------------------------------------------------------------------


HOLDERS = [
    gradtx.chain,
    lambda tx: gradtx.named_chain(("a", tx)),
    lambda tx: gradtx.masked(tx, True),
    lambda tx: gradtx.partition({"a": tx}, {"w": "a"}),
    lambda tx: gradtx.conditionally_transform(tx, lambda step: step >= 0),
    lambda tx: gradtx.conditionally_mask(tx, lambda step: step >= 0),
    lambda tx: gradtx.inject_hyperparams(lambda rate: gradtx.chain(tx, gradtx.scale(rate)))(0.5),
    lambda tx: gradtx.accumulate(tx, 2),
    lambda tx: MultiSteps(tx, 2).gradient_transformation(),
    gradtx.skip_nonfinite,
    gradtx.skip_spikes,
    lambda tx: apply_if_finite(tx, 2),
    lambda tx: gradtx.ema_params(tx, 0.9),
    gradtx.swa,
    gradtx.lookahead_wrapper,
    lambda tx: lookahead(tx, 2, 0.5),
    lambda tx: gradtx.schedule_free(tx, 0.1),
    gradtx.cautious,
    gradtx.sam_wrapper,
    gradtx.gsam,
    gradtx.looksam,
    lambda tx: gradtx.momentum_sam(tx, 0.1),
    lambda tx: sam(tx, optax.sgd(0.1, 0.9), 3),
    lambda tx: declared(tx),
]
FOREIGN = [
    optax.sgd(0.1, momentum=0.9),
    optax.adam(0.1),
    gradtx.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), lambda *trees: moving(*trees)),
]


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("inner", FOREIGN)
def test_a_holder_keeps_the_types_of_a_foreign_state(holder: Any, inner: Any) -> None:
    """Moments in half precision, Optax's or of a user's own pair, under gradients of the same and of float32."""
    for dtype in (jnp.bfloat16, jnp.float16):
        check_types(holder(inner), {"w": jnp.ones(3, dtype)}, dtype)
        check_types(holder(inner), {"w": jnp.ones(3, dtype)}, jnp.float32)


def moving(updates: Any, state: Any, params: Any = None) -> Any:
    state = jax.tree.map(lambda m, g: 0.9 * m + g, state, updates)
    return state, state


class declared(gradtx.Preset):
    inner: Any

    def chain(self) -> Any:
        return self.inner


def check_types(tx: gradtx.GradientTransformation, params: Any, grad_dtype: Any) -> None:
    def step(params: Any) -> Any:
        grads, state = jax.tree.map(lambda p: p.astype(grad_dtype), params), tx.init(params)
        updates, after = tx.update(grads, state, params, grad_fn=lambda params, *at: grads)
        return (state, grads), (after, updates)

    before, after = jax.eval_shape(step, params)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type), tx


@pytest.mark.parametrize("around", ["stateless", "checked", "custom", "optax"])
def test_shapes_are_checked_whatever_runs_around(around: str) -> None:
    """A scalar gradient for a parameter of three is refused inside other calls too."""
    inner = gradtx.scale_by_adam()
    params, state = {"w": jnp.zeros(3)}, inner.init({"w": jnp.zeros(3)})

    def within(updates: Any, params: Any) -> Any:
        return inner.update({"w": jnp.ones(())}, state, params)[0]

    class outer(gradtx.Transformation):
        def step(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
            return within(updates, params), state

    around_it = {
        "stateless": lambda: gradtx.stateless(within).update(params, gradtx.EmptyState(), params),
        "checked": lambda: checked(lambda: within(params, params))(),
        "custom": lambda: outer().update(params, (), params),
        "optax": lambda: gradtx.chain(optax.stateless(within)).update(params, (optax.EmptyState(),), params),
    }[around]
    with pytest.raises(ValueError, match=r"scale_by_adam: updates leaf `w` has shape \(\), but params has \(3,\) there"):
        around_it()
