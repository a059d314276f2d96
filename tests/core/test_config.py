"""Dicts from values and back: what JSON holds, what it refuses."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import gradtx
from gradtx.core.decode import decode_value


class holder(gradtx.Transformation):
    """A user's transformation that takes anything."""

    value: Any
    more: tuple[Any, ...] = ()

    def step(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return updates, state


def there_and_back(value: Any) -> Any:
    return gradtx.from_config(json.loads(json.dumps(gradtx.to_config(value), allow_nan=False)))


@pytest.mark.parametrize(
    "value",
    [
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(gradtx.cosine_decay_schedule(0.1, 10), mu_dtype="bfloat16")),
        gradtx.named_chain(("a", gradtx.sgd(0.1, 0.9)), ("b", gradtx.freeze({"w": True}))),
        gradtx.partition({"a": gradtx.sgd(0.1), 2: gradtx.scale(1.0)}, gradtx.by_path({"a$": "a"}, default=2)),
        gradtx.inject_hyperparams(gradtx.adam, "eps", jnp.bfloat16)(0.1, b1=0.8),
        gradtx.add_noise(0.1, 0.5, key=3),
        gradtx.linear_schedule(0.1, 0.0, 10),
        gradtx.by_path({"w": "a", ".*": None}),
        gradtx.sgd(np.float32(0.1)),
        holder(float("inf")),
        holder(np.float32("-inf")),
        holder(None, (1, "text", True, (1, (2,)), [1, [2.5]], 1 + 2j, float("-inf"))),
        holder({"name": 1}),
        holder({"$array": 1}),
        holder({1: "one", (2, 3): [4]}, ({"plain": {"nested": ()}},)),
        holder(gradtx.adam, (gradtx.linear_schedule,)),
        holder({"b", "a"}, (frozenset({3, (1, 2)}), set())),
        holder(jax.lax.Precision.HIGHEST, ((jax.lax.Precision.DEFAULT, "float32"), jax.lax.DotAlgorithmPreset.F32_F32_F32)),
        holder(PartitionSpec("data", None, ("model", "expert")), (PartitionSpec(),)),
        gradtx.muon(0.1, distribute=gradtx.Distribution("data", PartitionSpec("data", None))),
        holder(np.int64(3), (np.float64(0.1), np.bool_(True), jnp.bfloat16, np.dtype("int8"))),
    ],
)
def test_round_trip(value: Any) -> None:
    again = there_and_back(value)
    assert again == value
    assert repr(again) == repr(value)


def test_nan_comes_back() -> None:
    assert "nan" in repr(there_and_back(holder(float("nan"))))


@pytest.mark.parametrize(
    "array",
    [
        jnp.asarray([0.1, 2.0], jnp.float32),
        jnp.asarray([0.1, -2.0], jnp.bfloat16),
        jnp.asarray([[1, 2]], jnp.int8),
        np.asarray([0.1, np.inf], np.float64),
        np.asarray([True, False]),
    ],
)
def test_arrays_come_back_bit_by_bit(array: Any) -> None:
    again = there_and_back(holder(array)).value
    assert type(again) is type(array)
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(np.asarray(again), np.asarray(array))


def test_random_keys_come_back() -> None:
    key = jax.random.key(7)
    again = there_and_back(gradtx.add_noise(0.1, 0.5, key=key)).key
    np.testing.assert_array_equal(jax.random.key_data(again), jax.random.key_data(key))
    assert jax.random.key_impl(again) == jax.random.key_impl(key)


def test_every_argument_is_written_out() -> None:
    config = gradtx.to_config(gradtx.sgd(0.1))
    assert config == {
        "name": "sgd",
        "arguments": {"learning_rate": 0.1, "momentum": None, "nesterov": False, "accumulator_dtype": None},
    }
    assert gradtx.from_config({"name": "sgd", "arguments": {"learning_rate": 0.1}}) == gradtx.sgd(0.1)
    assert gradtx.from_config({"name": "identity"}) == gradtx.identity()


def test_users_classes_are_known_by_module() -> None:
    config = gradtx.to_config(holder(1))
    assert config["name"] == f"{__name__}:holder"


def a_function(count: Any) -> Any:
    return 0.1


FUNCTIONS = (
    ", which no dict can hold. Functions must be values: a schedule or rule of gradtx, or an instance of your own subclass of "
    "gradtx.Value."
)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: gradtx.to_config(3.0),
            TypeError,
            "to_config: value is 3.0 (float), expected a value: a transformation, a schedule, a rule by path.",
        ),
        (
            lambda: gradtx.to_config(gradtx.GradientTransformation(a_function, a_function)),
            TypeError,
            f"to_config: GradientTransformation: init_fn is the function a_function{FUNCTIONS}",
        ),
        (
            lambda: gradtx.to_config(gradtx.sgd(a_function)),
            TypeError,
            f"to_config: sgd: learning_rate is the function a_function{FUNCTIONS}",
        ),
        (
            lambda: gradtx.to_config(gradtx.chain(gradtx.clip(1.0), gradtx.named_chain(("a", gradtx.stateless(a_function))))),
            TypeError,
            f"to_config: stateless: f is the function a_function{FUNCTIONS}",
        ),
        (
            lambda: gradtx.to_config(gradtx.monitor({"norm": a_function})),
            TypeError,
            f"to_config: monitor: measures['norm'] is the function a_function{FUNCTIONS}",
        ),
        (
            lambda: gradtx.to_config(gradtx.masked(gradtx.identity(), a_function)),
            TypeError,
            f"to_config: masked: mask is the function a_function{FUNCTIONS}",
        ),
        (
            lambda: gradtx.to_config(holder((1, np.ones(2, np.complex64)))),
            TypeError,
            "to_config: complex arrays have no form in JSON; pass a Python complex number.",
        ),
        (
            lambda: gradtx.from_config([1]),
            TypeError,
            "from_config: config is a list of 1, expected {'name': ..., 'arguments': {...}}.",
        ),
        (
            lambda: gradtx.from_config({}),
            TypeError,
            "from_config: config is an empty dict, expected {'name': ..., 'arguments': {...}}.",
        ),
        (
            lambda: gradtx.from_config({"name": "sgd", "args": {}}),
            TypeError,
            "from_config: config is a dict with keys 'name', 'args', expected {'name': ..., 'arguments': {...}}.",
        ),
        (
            lambda: gradtx.from_config({"name": "sgd", "arguments": [0.1]}),
            TypeError,
            "from_config: config is a dict with keys 'name', 'arguments', expected {'name': ..., 'arguments': {...}}.",
        ),
        (
            lambda: gradtx.from_config({"name": ["sgd"]}),
            TypeError,
            "from_config: config is a dict with keys 'name', expected {'name': ..., 'arguments': {...}}.",
        ),
        (
            lambda: gradtx.from_config({"name": "clip_by_global_nrm"}),
            ValueError,
            "from_config: config.name is 'clip_by_global_nrm', expected the name of a class of values. Did you mean 'clip_by_global_norm'?",
        ),
        (
            lambda: gradtx.from_config({"name": "my_package.my_module:mine"}),
            ValueError,
            "from_config: config.name is 'my_package.my_module:mine', expected the name of a class of values. "
            "Import its module first; a class of your own is `module:class`.",
        ),
        (
            lambda: gradtx.from_config({"name": "scale", "arguments": {"step": 1.0}}),
            TypeError,
            "scale: got an unexpected keyword argument 'step'; the call is scale(step_size). Did you mean 'step_size'?",
        ),
    ],
)
def test_errors(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == text


def test_a_class_that_was_declared_again() -> None:
    def declare() -> Any:
        class twice_declared(gradtx.Preset):
            def chain(self) -> Any:
                return gradtx.identity()

        return twice_declared

    old = declare()()
    new = declare()()
    assert old != new
    name = f"{__name__}:test_a_class_that_was_declared_again.<locals>.declare.<locals>.twice_declared"
    assert gradtx.to_config(new) == {"name": name, "arguments": {}}
    with pytest.raises(TypeError) as raised:
        gradtx.to_config(old)
    assert str(raised.value) == f"to_config: the class {name} was declared again since; make the value anew."


# Configs that somebody wrote or broke -----------------------------------------------------------------------

FORM = "{'name': ..., 'arguments': {...}}"
SPEC = "a list of names of mesh axes"


@pytest.mark.parametrize(
    ("part", "error", "text"),
    [
        ({"name": "sgd", "other": 1}, TypeError, f"value is a dict with keys 'name', 'other', expected {FORM}."),
        ([0, {"name": 3}], TypeError, f"value[1] is a dict with keys 'name', expected {FORM}."),
        ({"a": {"$class": ["sgd"]}}, TypeError, "value.a.$class is a list of 1, expected the name of a class of values."),
        ({"$class": "adma"}, ValueError, "value.$class is 'adma', expected the name of a class of values. Did you mean 'adam'?"),
        ({"$dtype": "float31"}, TypeError, "value.$dtype is 'float31' (str), expected the name of a dtype."),
        ({"$dtype": None}, TypeError, "value.$dtype is None, expected the name of a dtype."),
        ({"$float": 1.0}, TypeError, "value.$float is 1.0 (float), expected 'nan', 'inf' or '-inf'."),
        ({"$complex": [1]}, TypeError, "value.$complex is a list of 1, expected a pair of numbers."),
        ({"$tuple": "ab"}, TypeError, "value.$tuple is 'ab' (str), expected a list."),
        ({"$tuple": [0, {"$float": 1}]}, TypeError, "value.$tuple[1].$float is 1 (int), expected 'nan', 'inf' or '-inf'."),
        ({"$set": [1, [2]]}, TypeError, "value.$set[1] is a list of 1, expected something with a hash."),
        ({"$frozenset": {}}, TypeError, "value.$frozenset is an empty dict, expected a list."),
        ({"$dict": [[1]]}, TypeError, "value.$dict[0] is a list of 1, expected a pair of a key and a value."),
        ({"$dict": [[[1], 2]]}, TypeError, "value.$dict[0][0] is a list of 1, expected something with a hash."),
        (
            {"$record": ["Distributed", []]},
            TypeError,
            "value.$record is a list of 2, expected a pair of one of 'Distribution', 'Graft', 'MuonDimensionNumbers', 'NormBall' and a list.",
        ),
        (
            {"$record": ["Distribution", [1, 2, 3]]},
            TypeError,
            "value.$record[1] is a list of 3, expected the fields of Distribution.",
        ),
        (
            {"$enum": ["Precision", "HIGH_"]},
            TypeError,
            "value.$enum is a list of 2, expected a pair of one of 'Precision', 'DotAlgorithmPreset' and a member of it.",
        ),
        ({"$spec": "data"}, TypeError, f"value.$spec is 'data' (str), expected {SPEC}."),
        ({"$spec": [1]}, TypeError, f"value.$spec is a list of 1, expected {SPEC}."),
        (
            {"$key": {"data": [1]}},
            TypeError,
            "value.$key is a dict with keys 'data', expected the 'data' and 'impl' of a random key.",
        ),
        (
            {"$array": {"kind": "jax", "dtype": "float32", "value": [[1], 2]}},
            TypeError,
            "value.$array is a dict with keys 'kind', 'dtype', 'value', expected the 'kind', 'dtype' and 'value' of an array of numbers.",
        ),
        (
            {"$arrays": 1},
            ValueError,
            "value has the tag '$arrays', expected one of $array, $class, $complex, $dict, $dtype, $enum, $float, $frozenset, $key, "
            "$record, $set, $spec, $tuple.",
        ),
    ],
)
def test_a_part_that_is_malformed(part: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        gradtx.from_config({"name": holder_name(), "arguments": {"value": part}})
    assert str(raised.value) == f"from_config: config.arguments.{text}"


def holder_name() -> str:
    return gradtx.to_config(holder(1))["name"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({1: 2}, "a key of config.arguments is 1 (int), expected the name of an argument."),
    ],
)
def test_arguments_that_cannot_be_passed(arguments: Any, text: str) -> None:
    with pytest.raises(TypeError) as raised:
        gradtx.from_config({"name": holder_name(), "arguments": arguments})
    assert str(raised.value) == f"from_config: {text}"


def nested(levels: int) -> Any:
    config: Any = {"name": "identity"}
    for _ in range(levels):
        config = {"name": "chain", "arguments": {"args": [config]}}
    return config


def test_depth_is_limited_both_ways() -> None:
    text = "config has more than 150 levels of dicts and lists, expected fewer."
    with pytest.raises(ValueError, match=f"^from_config: {text}$"):
        gradtx.from_config(nested(200))
    tx = gradtx.from_config(nested(49))
    assert gradtx.from_config(gradtx.to_config(tx)) == tx
    with pytest.raises(ValueError, match=f"^to_config: {text}$"):
        gradtx.to_config(decode_value("config", nested(60)))


def places(config: Any, at: tuple[Any, ...] = ()) -> Any:
    """All places in a config."""
    yield at
    for key, item in config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ():
        yield from places(item, (*at, key))


def broken(config: Any, at: tuple[Any, ...], junk: Any) -> Any:
    if not at:
        return junk
    copy: Any = dict(config) if isinstance(config, dict) else list(config)
    copy[at[0]] = broken(config[at[0]], at[1:], junk)
    return copy


JUNK = (None, True, -3, 1e400, "", "x", [], [[]], {}, {"a": 1}, {"$tuple": [1]}, {"$dict": []}, {"name": "x"}, [None, "$float"])


def test_junk_anywhere_is_named() -> None:
    """Whatever stands at one place of a config, it makes a value or an error of the documented kinds that tells what was expected."""
    values = (
        gradtx.named_chain(("a", gradtx.freeze({"w": True}))),
        gradtx.scale(np.float32(0.1)),
        holder({1: float("inf")}, (1j, {2}, jax.lax.Precision.HIGH, gradtx.Distribution("data", PartitionSpec("data")))),
    )
    errors = [
        str(error)
        for config in map(gradtx.to_config, values)
        for at in places(config)
        for junk in JUNK
        if (error := error_of(broken(config, at, junk))) is not None
    ]
    assert len(errors) > 400
    assert [text for text in errors if "expected" not in text and "; the call is " not in text] == []


def error_of(config: Any) -> Exception | None:
    try:
        gradtx.from_config(config)
    except (TypeError, ValueError) as error:
        return error
    return None
