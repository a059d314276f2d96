"""Values from dicts that `to_config` wrote, or somebody by hand; errors name the wrong part."""

import enum
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from gradtx.core import checks
from gradtx.core.value import Value, records, registry

ENUMS: dict[str, type[enum.Enum]] = {kind.__name__: kind for kind in (jax.lax.Precision, jax.lax.DotAlgorithmPreset)}
"""The enumerations whose members may be arguments."""


def decode_value(at: str, config: object) -> Value:
    """The value described at the place `at`."""
    if not _has_form(config):
        raise _wrong(at, config, "{'name': ..., 'arguments': {...}}")
    cls = _class(f"{at}.name", config["name"])
    arguments = {}
    for key, item in config.get("arguments", {}).items():
        if not isinstance(key, str):
            raise _wrong(f"a key of {at}.arguments", key, "the name of an argument")
        arguments[key] = _decode(f"{at}.arguments.{key}", item)
    return cls.made_with(arguments)


def _has_form(config: object) -> TypeGuard[Mapping]:
    if not isinstance(config, Mapping) or set(config) - {"name", "arguments"}:
        return False
    return isinstance(config.get("name"), str) and isinstance(config.get("arguments", {}), Mapping)


def _wrong(at: str, found: object, expected: str) -> TypeError:
    return TypeError(f"from_config: {at} is {checks.kind(found)}, expected {expected}.")


def _class(at: str, name: object) -> type[Value]:
    if not isinstance(name, str):
        raise _wrong(at, name, "the name of a class of values")
    if name not in registry:
        hint = checks.did_you_mean(name, registry) or " Import its module first; a class of your own is `module:class`."
        raise ValueError(f"from_config: {at} is {name!r}, expected the name of a class of values.{hint}")
    return registry[name]


def _decode(at: str, value: object) -> Any:
    if isinstance(value, list):
        return [_decode(f"{at}[{i}]", item) for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if "name" in value:
        return decode_value(at, value)
    tag, body = next(iter(value.items())) if len(value) == 1 else (None, None)
    if not (isinstance(tag, str) and tag.startswith("$")):
        return {key: _decode(f"{at}.{key}", item) for key, item in value.items()}
    if tag == "$class":
        return _class(f"{at}.{tag}", body)
    if tag in _PARTS:
        return _PARTS[tag](f"{at}.{tag}", body)
    if tag not in _WHOLE:
        known = sorted(["$class", *_PARTS, *_WHOLE])
        raise ValueError(f"from_config: {at} has the tag {tag!r}, expected one of {', '.join(known)}.")
    make, expected = _WHOLE[tag]
    try:
        return make(body)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise _wrong(f"{at}.{tag}", body, expected) from None


# Tags whose bodies hold parts of their own --------------------------------------------------------


def _items(at: str, body: object) -> list:
    if not isinstance(body, list):
        raise _wrong(at, body, "a list")
    return _decode(at, body)


def _hashed(at: str, found: object) -> Hashable:
    """An element of a set or a key, which must have a hash."""
    try:
        hash(found)
    except TypeError:
        raise _wrong(at, found, "something with a hash") from None
    return found


def _set(at: str, body: object) -> set[Hashable]:
    return {_hashed(f"{at}[{i}]", item) for i, item in enumerate(_items(at, body))}


def _record(at: str, body: object) -> tuple:
    if not (isinstance(body, list) and len(body) == 2 and isinstance(body[0], str) and body[0] in records):
        raise _wrong(at, body, f"a pair of one of {', '.join(map(repr, sorted(records)))} and a list")
    kind, fields = records[body[0]], _items(f"{at}[1]", body[1])
    try:
        return kind(*fields)
    except TypeError:
        raise _wrong(f"{at}[1]", fields, f"the fields of {body[0]}") from None


def _dict(at: str, body: object) -> dict:
    pairs = _items(at, body)
    for i, pair in enumerate(pairs):
        if not (isinstance(pair, list) and len(pair) == 2):
            raise _wrong(f"{at}[{i}]", pair, "a pair of a key and a value")
        _hashed(f"{at}[{i}][0]", pair[0])
    return dict(pairs)


_PARTS: dict[str, Callable[[str, object], object]] = {
    "$tuple": lambda at, body: tuple(_items(at, body)),
    "$set": _set,
    "$frozenset": lambda at, body: frozenset(_set(at, body)),
    "$record": _record,
    "$dict": _dict,
}


# Tags that stand for one thing --------------------------------------------------------------------


def _dtype(body: object) -> np.dtype:
    if not isinstance(body, str):
        raise TypeError
    return np.dtype(body)


def _float(body: Any) -> float:
    return {text: float(text) for text in ("nan", "inf", "-inf")}[body]


def _complex(body: Any) -> complex:
    real, imaginary = body
    return complex(float(real), float(imaginary))


def _enum(body: Any) -> enum.Enum:
    kind, member = body
    return ENUMS[kind][member]


def _spec(body: object) -> PartitionSpec:
    if not isinstance(body, list):
        raise TypeError
    return PartitionSpec(*map(_axes, body))


def _axes(item: Any) -> str | tuple[str, ...] | None:
    axes = item["$tuple"] if isinstance(item, Mapping) else [] if item is None else [item]
    if not all(isinstance(axis, str) for axis in axes):
        raise TypeError
    return tuple(axes) if isinstance(item, Mapping) else item


def _key(body: Any) -> jax.Array:
    return jax.random.wrap_key_data(jnp.asarray(body["data"], jnp.uint32), impl=body["impl"])


def _array(body: Any) -> np.generic | np.ndarray | jax.Array:
    dtype = _dtype(body["dtype"])
    if not (jnp.issubdtype(dtype, jnp.number) or dtype.kind == "b"):
        raise TypeError
    array = np.asarray(_decode("value", body["value"])).astype(dtype)
    return {"numpy scalar": lambda: array[()], "numpy": lambda: array, "jax": lambda: jnp.asarray(array)}[body["kind"]]()


_WHOLE: dict[str, tuple[Callable[[Any], object], str]] = {
    "$dtype": (_dtype, "the name of a dtype"),
    "$float": (_float, "'nan', 'inf' or '-inf'"),
    "$complex": (_complex, "a pair of numbers"),
    "$enum": (_enum, f"a pair of one of {', '.join(map(repr, ENUMS))} and a member of it"),
    "$spec": (_spec, "a list of names of mesh axes"),
    "$key": (_key, "the 'data' and 'impl' of a random key"),
    "$array": (_array, "the 'kind', 'dtype' and 'value' of an array of numbers"),
}
