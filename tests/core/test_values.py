"""Transformations and schedules as values: print, compare, hash, copy, pickle."""

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.domains import Decay


def times(u: Any, *, factor: Any) -> Any:
    return factor * u


class thrice(gradtx.Preset):
    """A user's own preset."""

    factor: float = 3.0

    def chain(self) -> Any:
        return gradtx.stateless_with_tree_map(lambda u, p: self.factor * u)


class gathered(gradtx.Transformation):
    """Fields of every kind, by place and by name alone."""

    first: Any
    rest: tuple[Any, ...] = ()
    _: dataclasses.KW_ONLY
    last: Any = None

    def step(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return updates, state


class ramp(gradtx.Value):
    """A user's own schedule."""

    slope: float

    def __call__(self, count: Any) -> Any:
        return self.slope * count


def plain_init(params: Any) -> tuple[()]:
    return ()


def plain_update(grads: Any, opt_state: Any, model: Any = None) -> Any:
    return jax.tree.map(lambda g: -g, grads), opt_state


class other_names(gradtx.Preset):
    """Stands for a pair whose update names its arguments otherwise and takes no extra ones."""

    def chain(self) -> Any:
        return gradtx.GradientTransformation(plain_init, plain_update)


FALLING = gradtx.linear_schedule(0.1, 0.0, 10)


# Printing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (gradtx.sgd(0.1), "sgd(learning_rate=0.1)"),
        (gradtx.sgd(0.1, None, False), "sgd(learning_rate=0.1)"),
        (gradtx.adam(FALLING), f"adam(learning_rate={FALLING!r})"),
        (gradtx.adam(0.1, mu_dtype=jnp.bfloat16), "adam(learning_rate=0.1, mu_dtype='bfloat16')"),
        (gradtx.masked(gradtx.scale(2.0), {"w": True}), "masked(inner=scale(step_size=2.0), mask={'w': True})"),
        (gradtx.stateless(plain_init), "stateless(f=plain_init)"),
        (gradtx.named_chain(("a", gradtx.scale(2.0))), "named_chain(('a', scale(step_size=2.0)))"),
        (
            gradtx.inject_hyperparams(gradtx.sgd, "nesterov")(0.1),
            "inject_hyperparams(sgd, static_args=('nesterov',))(learning_rate=0.1)",
        ),
        (
            gradtx.inject_hyperparams(gradtx.sgd, hyperparam_dtype=jnp.bfloat16)(0.1),
            "inject_hyperparams(sgd, hyperparam_dtype='bfloat16')(learning_rate=0.1)",
        ),
        (
            gradtx.inject_hyperparams(gradtx.sgd, ("nesterov", "momentum"))(0.1),
            "inject_hyperparams(sgd, static_args=('momentum', 'nesterov'))(learning_rate=0.1)",
        ),
        (gathered({"b", "a"}, (frozenset({2, 1}), set())), "gathered(first={'a', 'b'}, rest=(frozenset({1, 2}), set()))"),
        (gathered(jax.lax.Precision.HIGH), "gathered(first=Precision.HIGH)"),
        (thrice(), "thrice()"),
        (thrice(4.0), "thrice(factor=4.0)"),
        (gathered(1, (2, [3]), last=(4,)), "gathered(first=1, rest=(2, [3]), last=(4,))"),
        (ramp(0.5), "ramp(slope=0.5)"),
    ],
)
def test_repr_is_the_call(value: Any, text: str) -> None:
    assert repr(value) == text


def test_repr_of_a_pair_made_by_hand() -> None:
    tx = gradtx.GradientTransformation(plain_init, plain_update)
    assert repr(tx) == f"GradientTransformation({plain_init!r}, {plain_update!r})"


def test_a_class_looks_like_a_function() -> None:
    assert gradtx.adam.__name__ == "adam"
    assert gradtx.adam.__doc__.startswith("Adam:")
    assert list(inspect.signature(gradtx.sgd).parameters) == ["learning_rate", "momentum", "nesterov", "accumulator_dtype"]


# Comparing ------------------------------------------------------------------------------------------------

ARRAY = jnp.asarray(0.1)


def by_hand(count: Any) -> Any:
    return 0.1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda: gradtx.sgd(0.1), lambda: gradtx.sgd(learning_rate=0.1, momentum=None)),
        (lambda: gradtx.adam(0.1, mu_dtype="bfloat16"), lambda: gradtx.adam(0.1, mu_dtype=jnp.bfloat16)),
        (lambda: gradtx.adam(0.1, mu_dtype=np.dtype("float32")), lambda: gradtx.adam(0.1, mu_dtype=jnp.float32)),
        (lambda: gradtx.adam(0.1, mu_dtype=np.float16), lambda: gradtx.adam(0.1, mu_dtype="float16")),
        (
            lambda: gradtx.inject_hyperparams(gradtx.sgd, hyperparam_dtype="bfloat16")(0.1),
            lambda: gradtx.inject_hyperparams(gradtx.sgd, (), jnp.bfloat16)(learning_rate=0.1),
        ),
        (
            lambda: gradtx.inject_hyperparams(gradtx.sgd, "nesterov")(0.1),
            lambda: gradtx.inject_hyperparams(gradtx.sgd, ["nesterov"])(0.1),
        ),
        (
            lambda: gradtx.inject_hyperparams(gradtx.adam, ["b1", "eps"])(0.1),
            lambda: gradtx.inject_hyperparams(gradtx.adam, {"eps", "b1"})(0.1),
        ),
        (lambda: gathered({0, 8}, (frozenset("ab"),)), lambda: gathered({8, 0}, (frozenset("ba"),))),
        (lambda: gradtx.sgd(np.float32(0.1)), lambda: gradtx.sgd(np.float32(0.1))),
        (lambda: gradtx.sgd(by_hand), lambda: gradtx.sgd(by_hand)),
        (lambda: gradtx.sgd(gradtx.linear_schedule(0.1, 0.0, 10)), lambda: gradtx.sgd(FALLING)),
        (lambda: gradtx.chain(gradtx.clip(1.0), thrice(2.0)), lambda: gradtx.chain(gradtx.clip(1.0), thrice(factor=2.0))),
        (lambda: gathered([1, {"a": 2}], (3,), last=4), lambda: gathered([1, {"a": 2}], (3,), last=4)),
        (lambda: ramp(0.5), lambda: ramp(slope=0.5)),
        (lambda: gathered(jnp.bfloat16, (np.float32,)), lambda: gathered(jnp.dtype("bfloat16"), (np.dtype("float32"),))),
        (lambda: other_names(), lambda: other_names()),
    ],
)
def test_equal_calls_make_equal_values(first: Any, second: Any) -> None:
    a, b = first(), second()
    assert a == b
    assert hash(a) == hash(b)
    assert repr(a) == repr(b)
    assert len({a: 1, b: 2}) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (gradtx.sgd(0.1), gradtx.sgd(0.2)),
        (gradtx.sgd(1), gradtx.sgd(1.0)),  # an int and a float may promote otherwise
        (gradtx.sgd(np.float32(0.5)), gradtx.sgd(0.5)),
        (gradtx.sgd(np.float32(0.5)), gradtx.sgd(np.float64(0.5))),
        (gradtx.sgd(lambda count: 0.1), gradtx.sgd(lambda count: 0.1)),
        (gradtx.sgd(ARRAY), gradtx.sgd(ARRAY)),  # an array may be donated or deleted: equal to itself alone
        (gradtx.sgd(np.full((), 0.5)), gradtx.sgd(np.full((), 0.5))),
        (gradtx.chain(gradtx.sgd(0.1)), gradtx.chain(gradtx.sgd(0.2))),
        (gradtx.adam(0.1), gradtx.chain(gradtx.scale_by_adam(), gradtx.scale_by_learning_rate(0.1))),
        (gradtx.adam(0.1, nesterov=True), gradtx.nadam(0.1)),
        (gradtx.by_path({"w": "a", ".*": "b"}), gradtx.by_path({".*": "b", "w": "a"})),  # the first match decides
        (gathered((1,)), gathered([1])),
        (gathered(True), gathered(1)),
        (thrice(), gradtx.sgd(3.0)),
        (ramp(1.0), 1.0),
    ],
)
def test_other_calls_make_other_values(first: Any, second: Any) -> None:
    assert first != second
    assert second != first
    assert first == first
    assert hash(first) == hash(first)


def test_order_of_rules_makes_another_compiled_step() -> None:
    """Two orders of `by_path` label otherwise, so they must not share a trace."""

    def step(tx: Any, grads: Any) -> Any:
        return tx.update(grads, tx.init(grads))[0]

    def make(*order: str) -> Any:
        rules = {"[w-z]": "slow", "[b-w]": "fast"}
        return gradtx.partition(
            {"slow": gradtx.scale(0.5), "fast": gradtx.scale(2.0)}, gradtx.by_path({k: rules[k] for k in order})
        )

    jitted, grads = jax.jit(step, static_argnums=0), {"b": jnp.ones(()), "w": jnp.ones(()), "z": jnp.ones(())}
    assert float(jitted(make("[w-z]", "[b-w]"), grads)["w"]) == 0.5
    assert float(jitted(make("[b-w]", "[w-z]"), grads)["w"]) == 2.0


def test_a_tracer_as_argument_is_equal_to_itself_alone() -> None:
    @jax.jit
    def f(rate: Any) -> Any:
        tx = gradtx.sgd(rate)
        assert tx == tx
        assert tx != gradtx.sgd(rate)
        return tx.update(1.0, tx.init(0.0))[0]

    assert float(f(0.25)) == -0.25


def test_numpy_booleans_are_flags() -> None:
    grads = {"w": jnp.asarray([3.0, 4.0])}
    updates = [
        tx.update(grads, tx.init(grads))[0]["w"] for tx in (gradtx.rmsprop(0.1, eps_in_sqrt=flag) for flag in (np.False_, False))
    ]
    np.testing.assert_array_equal(*updates)


# Copying and pickling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        gradtx.adamw(FALLING, mu_dtype="bfloat16", mask=gradtx.by_path({".*b": False}, default=True)),
        gradtx.chain(thrice(2.0), other_names()),
        gathered(1, (2,), last={"a": [1], "key": (1, 2)}),
        gradtx.inject_hyperparams(gradtx.adam)(0.1),
        gradtx.sgd(by_hand),
        ramp(2.0),
    ],
)
def test_copies_are_equal(value: Any) -> None:
    for twin in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
        assert twin == value
        assert hash(twin) == hash(value)
        assert type(twin) is type(value)


def test_an_array_argument_survives_pickling() -> None:
    tx = pickle.loads(pickle.dumps(gradtx.sgd(jnp.asarray(0.25))))
    assert float(tx.update(jnp.ones(()), tx.init(jnp.ones(())))[0]) == -0.25


def test_a_pair_made_by_hand_pickles() -> None:
    tx = gradtx.GradientTransformation(plain_init, plain_update)
    assert pickle.loads(pickle.dumps(tx)) == tx


def test_a_transformation_unpacks_as_a_pair() -> None:
    init, update = tx = thrice()
    assert len(tx) == 2
    np.testing.assert_array_equal(update(jnp.ones(2), init(jnp.ones(2)))[0], [3.0, 3.0])


def test_a_value_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        gradtx.sgd(0.1).learning_rate = 0.2  # type: ignore[misc]
    assert dataclasses.replace(gradtx.adam(0.1), b1=0.8) == gradtx.adam(0.1, 0.8)


# Users' classes -------------------------------------------------------------------------------------------


def test_users_classes_work() -> None:
    tx = gradtx.chain(thrice(), other_names())
    updates, _ = tx.update({"w": jnp.ones(2)}, tx.init({"w": jnp.ones(2)}), None, value=1.0)
    np.testing.assert_array_equal(updates["w"], [-3.0, -3.0])
    assert ramp(0.5)(4) == 2.0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: gradtx.scale(), "scale: missing a required argument: 'step_size'; the call is scale(step_size)."),
        (
            lambda: gradtx.scale_by_learning_rate(learning_rat=0.1),
            "scale_by_learning_rate: got an unexpected keyword argument 'learning_rat'; the call is "
            "scale_by_learning_rate(learning_rate=None, *, flip_sign=True). Did you mean 'learning_rate'?",
        ),
        (
            lambda: gradtx.sgd(0.1, lr=0.2),
            "sgd: got an unexpected keyword argument 'lr'; the call is "
            "sgd(learning_rate, momentum=None, nesterov=False, accumulator_dtype=None). Did you mean 'learning_rate'?",
        ),
        (lambda: gradtx.clip(1.0, 2.0), "clip: too many positional arguments; the call is clip(max_delta)."),
    ],
)
def test_wrong_arguments_show_the_call(call: Any, text: str) -> None:
    with pytest.raises(TypeError) as error:
        call()
    assert str(error.value) == text


def test_names_that_only_a_type_checker_sees() -> None:
    """`from __future__ import annotations` and imports under `if TYPE_CHECKING:`; the other arguments are checked all the same."""

    class scaled(gradtx.Preset):
        step_size: "OnlyHere"  # type: ignore[name-defined] # noqa: F821
        decay: "Decay" = 0.5

        def chain(self) -> "OnlyHere.Too":  # type: ignore[name-defined] # noqa: F821
            return gradtx.scale(self.step_size * self.decay)

    assert float(scaled(3.0).update(jnp.ones(()), scaled(3.0).init(jnp.ones(())))[0]) == 1.5
    with pytest.raises(ValueError, match=r"^scaled: decay is 1.5 \(float\), expected a number in \[0, 1\)\.$"):
        scaled(3.0, 1.5)


def test_values_are_frozen() -> None:
    tx = gradtx.adam(0.1)
    text = r"^adam is frozen: b1 cannot be set; dataclasses\.replace makes a changed copy\.$"
    with pytest.raises(dataclasses.FrozenInstanceError, match=text):
        tx.b1 = 0.5  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"^adam is frozen: b1 cannot be deleted\.$"):
        del tx.b1  # type: ignore[misc]
    assert tx == gradtx.adam(0.1)


def test_an_own_init_is_kept_and_shown() -> None:
    assert str(inspect.signature(gradtx.chain)) == "(*args)"
    assert str(inspect.signature(gathered)) == "(first, rest=(), *, last=None)"
