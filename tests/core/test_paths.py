"""One spelling of paths, for every kind of tree that parameters come in."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flax.core import freeze

import gradtx
from gradtx.core.paths import ROOT, leaves_by_path, path_str, structure_difference


def paths(tree: Any) -> list[str]:
    return ["/".join(parts) or ROOT for parts in leaves_by_path(tree)]


class Attention(NamedTuple):
    key: Any
    query: Any
    value: Any


class Boxed(NamedTuple):
    value: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    kernel: Any
    value: Any


class Block(nnx.Module):
    def __init__(self) -> None:
        self.layers = nnx.List([nnx.Linear(1, 1, rngs=nnx.Rngs(0)) for _ in range(2)])
        self.value = nnx.Param(jnp.ones(1))


class Partitioned(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.with_partitioning(nn.initializers.ones, ("in", "out")), (2, 2))
        return x @ kernel + self.param("value", nn.initializers.ones, (2,))


class AttentionWithValue(nn.Module):
    """A Linen module with a submodule named `value`, as `nn.MultiHeadDotProductAttention` has."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.MultiHeadDotProductAttention(1, qkv_features=2, use_bias=False)(x)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (1.0, [ROOT]),
        ({"layers": [{"kernel": 1.0}, {"bias": 1.0, "kernel": 2.0}]}, ["layers/0/kernel", "layers/1/bias", "layers/1/kernel"]),
        ((1.0, {3: 2.0, 10: 3.0}), ["0", "1/3", "1/10"]),
        ({"a/b": 1.0, "mlp/~/linear": {"w": 2.0}}, ["a/b", "mlp/~/linear/w"]),
        ({"none": None, "masked": gradtx.MaskedNode(), "w": 1.0}, ["w"]),
        ({"value": 1.0}, ["value"]),
        ({"value": {"kernel": 1.0}, "values": 2.0}, ["value/kernel", "values"]),
        (Boxed(1.0), [ROOT]),
        ({"w": Boxed(1.0)}, ["w"]),
        ({"w": Boxed(Boxed(1.0))}, ["w/value"]),
        (Attention(1.0, 2.0, 3.0), ["key", "query", "value"]),
        ({"attn": Attention(1.0, Boxed(2.0), 3.0)}, ["attn/key", "attn/query", "attn/value"]),
        ({"attn": Attention(1.0, 2.0, Boxed(3.0))}, ["attn/key", "attn/query", "attn/value"]),
        ({"l": Layer(1.0, 2.0)}, ["l/kernel", "l/value"]),
        (freeze({"dense": {"kernel": 1.0}}), ["dense/kernel"]),
    ],
)
def test_paths(tree: Any, expected: list[str]) -> None:
    assert paths(tree) == expected


def test_linen_boxes_are_left_out() -> None:
    params = Partitioned().init(jax.random.key(0), jnp.ones((1, 2)))["params"]
    assert isinstance(params["kernel"], nn.Partitioned)
    assert paths(params) == ["kernel", "value"]


def test_a_linen_module_named_value_keeps_its_name() -> None:
    params = AttentionWithValue().init(jax.random.key(0), jnp.ones((1, 3, 2)))["params"]
    inside = "MultiHeadDotProductAttention_0"
    assert paths(params) == [f"{inside}/{name}/kernel" for name in ("key", "out", "query", "value")]


def test_equinox_attributes() -> None:
    model = eqx.filter(eqx.nn.MLP(1, 1, 1, 1, key=jax.random.key(0)), eqx.is_inexact_array)
    assert paths(model) == ["layers/0/weight", "layers/0/bias", "layers/1/weight", "layers/1/bias"]


def test_nnx_variables_and_pure_arrays_have_the_same_paths() -> None:
    """`nnx.Optimizer` hands variables to `init` and pure arrays to `update`."""
    seen = []

    def rule(params: Any) -> Any:
        seen.append((paths(params), [path_str(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]))
        return jax.tree.map(lambda p: True, params)

    model = Block()
    optimizer = nnx.Optimizer(model, gradtx.masked(gradtx.adam(0.1), rule), wrt=nnx.Param)
    optimizer.update(model, nnx.state(model, nnx.Param))
    expected = ["layers/0/bias", "layers/0/kernel", "layers/1/bias", "layers/1/kernel", "value"]
    assert seen[0] == seen[-1] == (expected, expected)
    assert paths(nnx.to_pure_dict(nnx.state(model, nnx.Param))) == expected


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, "`b` is only in x"),
        ({"a": 1}, {"a": 1, "c": {"d": [2]}}, "`c/d/0` is only in y"),
        ({"a": 1, "b": 2}, {"b": 2, "c": 1}, "`a` is only in x"),
        ({"a": 1}, {"a": {"b": 1}}, "`a` is only in x"),
        (1.0, {"a": 1}, "`(root)` is only in x"),
        ({"a": None}, {"a": 1}, "`a` is only in y"),
        ({"a": gradtx.MaskedNode()}, {"a": 1}, "`a` is only in y"),
        ([1, 2], (1, 2), "`(root)` is a list in one, a tuple in the other"),
        ({"a": 1}, freeze({"a": 1}), "`(root)` is a dict in one, a flax FrozenDict in the other"),
        ({"a": [{"b": [1]}]}, {"a": [{"b": (1,)}]}, "`a/0/b` is a list in one, a tuple in the other"),
    ],
)
def test_structure_difference(first: Any, second: Any, text: str) -> None:
    assert structure_difference("x", first, "y", second) == f"x and y differ in structure: {text}"
