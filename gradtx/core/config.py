"""Optimizers and schedules as dicts that JSON can hold, and back."""

import enum
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from gradtx.core import checks
from gradtx.core.decode import ENUMS, decode_value
from gradtx.core.numerics import is_key, is_tracer
from gradtx.core.types import Json
from gradtx.core.value import Value, ValueType, is_dtype, name_of, records, registry, show

MOST_LEVELS = 150
"""How deep dicts and lists may be nested in a config: some 50 chains inside chains."""


def to_config(value: Value) -> dict[str, Json]:
    """Turns a transformation, a schedule or another value into a dict for JSON.

    The dict is `{"name": class, "arguments": {...}}`, with every argument written out (so that it
    stays what it was when a default changes) and nested transformations and schedules as dicts of
    the same form.

    Args:
      value: a transformation, a schedule, a set to project onto, a rule by path.

    Returns:
      A dict of dicts, lists, strings, numbers, booleans and None.

    Raises:
      TypeError: `value`, or something among its arguments, is no value (a lambda, say).
      ValueError: the dict would be nested deeper than 150 levels (some 50 chains inside chains).

    Example:
      >>> import gradtx
      >>> gradtx.to_config(gradtx.clip(1.0))
      {'name': 'clip', 'arguments': {'max_delta': 1.0}}
      >>> tx = gradtx.adamw(gradtx.cosine_decay_schedule(1e-3, 100))
      >>> gradtx.from_config(gradtx.to_config(tx)) == tx
      True
    """
    if not isinstance(value, Value):
        raise TypeError(
            f"to_config: value is {checks.kind(value)}, expected a value: a transformation, a schedule, a rule by path."
        )
    config = _encode_value(value)
    _check_levels("to_config", config)
    return config


def from_config(config: Mapping[str, object]) -> Any:
    """Makes the transformation or schedule that `to_config` described.

    Only classes of values are ever called.

    Args:
      config: a dict as `to_config` gives it; arguments left out take their defaults.

    Returns:
      The value, equal to the one that was described.

    Raises:
      ValueError: the class is unknown (one of your own is known once its module has been imported),
        or `config` is nested deeper than `to_config` nests.
      TypeError: `config` or a part of it has not the form, or an argument does not exist. The
        message names the part.

    Example:
      >>> import gradtx
      >>> gradtx.from_config({"name": "sgd", "arguments": {"learning_rate": 0.1}})
      sgd(learning_rate=0.1)
    """
    _check_levels("from_config", config)
    return decode_value("config", config)


def _check_levels(name: str, config: object) -> None:
    """Raises for a config so deep that reading it would come near Python's limit of recursion."""
    nodes: list[Mapping | list] = [[config]]
    for _ in range(MOST_LEVELS + 1):
        nodes = [child for node in nodes for child in (node.values() if isinstance(node, Mapping) else node)]
        nodes = [node for node in nodes if isinstance(node, (Mapping, list))]
        if not nodes:
            return
    raise ValueError(f"{name}: config has more than {MOST_LEVELS} levels of dicts and lists, expected fewer.")


def _encode_value(value: Value) -> dict[str, Json]:
    name = name_of(type(value))
    if registry.get(name) is not type(value):
        raise TypeError(f"to_config: the class {name} was declared again since; make the value anew.")
    return {"name": name, "arguments": {key: _encode(f"{name}: {key}", item) for key, item in value.arguments.items()}}


def _encode(at: str, value: Any) -> Json:
    if isinstance(value, Value):
        return _encode_value(value)
    if isinstance(value, ValueType):
        return {"$class": name_of(value)}
    if is_dtype(value):
        return {"$dtype": np.dtype(value).name}
    if isinstance(value, (bool, str, type(None))) or (type(value) is int):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if type(value) is complex:
        return {"$complex": [value.real, value.imag]}
    if isinstance(value, (np.generic, np.ndarray, jax.Array)) and not is_tracer(value):
        return _encode_array(value)
    if isinstance(value, tuple) and records.get(type(value).__name__) is type(value):
        return {"$record": [type(value).__name__, [_encode(f"{at}[{i}]", item) for i, item in enumerate(value)]]}
    if type(value) is tuple:
        return {"$tuple": [_encode(f"{at}[{i}]", item) for i, item in enumerate(value)]}
    if isinstance(value, (set, frozenset)) and type(value) in (set, frozenset):
        return {f"${type(value).__name__}": [_encode(f"{at}[...]", item) for item in sorted(value, key=show)]}
    if isinstance(value, PartitionSpec) and value == PartitionSpec(*value) and PartitionSpec.UNCONSTRAINED not in value:
        return {"$spec": [_encode(f"{at}[{i}]", item) for i, item in enumerate(value)]}
    if isinstance(value, enum.Enum) and type(value) is ENUMS.get(type(value).__name__):
        return {"$enum": [type(value).__name__, value.name]}
    if type(value) is list:
        return [_encode(f"{at}[{i}]", item) for i, item in enumerate(value)]
    if type(value) is dict:
        return _encode_dict(at, value)
    raise TypeError(
        f"to_config: {at} is {checks.kind(value)}, which no dict can hold. "
        "Functions must be values: a schedule or rule of gradtx, or an instance of your own subclass of gradtx.Value."
    )


def _encode_dict(at: str, value: dict) -> Json:
    """A dict as pairs, since order matters and writers of JSON and YAML may sort keys.

    The first pattern of `by_path` that matches decides.
    """
    return {"$dict": [[_encode(at, key), _encode(f"{at}[{key!r}]", item)] for key, item in value.items()]}


def _encode_array(value: np.generic | np.ndarray | jax.Array) -> Json:
    if is_key(value):
        data = np.asarray(jax.random.key_data(value)).tolist()
        return {"$key": {"impl": str(jax.random.key_impl(value)), "data": data}}
    kind = "numpy scalar" if isinstance(value, np.generic) else "numpy" if isinstance(value, np.ndarray) else "jax"
    wide = np.asarray(value)
    if wide.dtype.itemsize < 4 and wide.dtype.kind not in "iub":
        wide = wide.astype(np.float32)
    if wide.dtype.kind == "c":
        raise TypeError("to_config: complex arrays have no form in JSON; pass a Python complex number.")
    return {"$array": {"kind": kind, "dtype": np.dtype(value.dtype).name, "value": _encode("value", wide.tolist())}}
