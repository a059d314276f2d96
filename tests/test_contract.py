"""Every factory's row against every promise of the design."""

import functools
import json
import pickle
from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, Case, rows
from flax import nnx
from flax.training.train_state import TrainState

import gradtx
from gradtx.core.value import registry

ROWS = rows()
HALF = (jnp.bfloat16, jnp.float16)


def operation_by_operation(test: Callable[..., None]) -> Callable[..., None]:
    """A test of what is handed on, which needs no compiled program for each row."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with jax.disable_jit():
            test(*args, **kwargs)

    return run


def tree(dtype: Any = jnp.float32, sign: float = 1.0) -> dict[str, Any]:
    """Parameters with a matrix, a vector, a scalar, an empty and a missing leaf."""
    kernel = sign * jnp.linspace(0.1, 0.6, 6).reshape(3, 2)
    dense = {"kernel": kernel.astype(dtype), "bias": jnp.asarray([0.5, 0.25], dtype)}
    return {"dense": dense, "scalar": jnp.asarray(0.75, dtype), "empty": jnp.zeros((0, 3), dtype), "none": None}


def signature(state: Any) -> Any:
    """Structure, shapes, dtypes and weak types."""
    leaves, treedef = jax.tree.flatten(state)
    avals = [jax.typeof(x) if not isinstance(x, jax.ShapeDtypeStruct) else x for x in leaves]
    return treedef, [(a.shape, a.dtype, a.weak_type) for a in avals]


def assert_trees_close(actual: Any, expected: Any, rtol: float = 1e-6, atol: float = 1e-7) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(np.asarray(x, np.float64), np.asarray(y, np.float64), rtol=rtol, atol=atol)


def check_fixed_state(case: Case, dtype: Any, grad_dtype: Any) -> None:
    """The state never changes type; updates have the gradients' dtype, and new parameters their own."""
    tx, params, grads = case.make(), tree(dtype), tree(grad_dtype)
    state = jax.eval_shape(tx.init, params)
    updates, after = jax.eval_shape(lambda g, s, p: tx.update(g, s, p, **case.extra_for(p)), grads, state, params)
    assert signature(after) == signature(state)
    assert signature(updates) == signature(jax.tree.map(lambda g: jax.ShapeDtypeStruct(g.shape, g.dtype), grads))
    new = jax.eval_shape(gradtx.apply_updates, params, updates)
    assert signature(new) == signature(jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params))


@ROWS
@pytest.mark.parametrize("dtype", [jnp.float32, *HALF])
def test_structure_shapes_dtypes_and_weak_types_are_fixed(case: Case, dtype: Any) -> None:
    check_fixed_state(case, dtype, dtype)
    check_fixed_state(case, dtype, jnp.float32)


@rows(2, 1)
def test_structure_is_fixed_with_x64(case: Case) -> None:
    with jax.enable_x64(True):
        for dtype in (jnp.float64, jnp.float32, jnp.bfloat16):
            check_fixed_state(case, dtype, dtype)


@ROWS
@pytest.mark.parametrize("dtype", HALF)
def test_moments_of_half_precision_parameters_are_float32(case: Case, dtype: Any) -> None:
    state = jax.eval_shape(case.make().init, tree(dtype))
    if "half state" in case.exceptions:
        return
    assert {x.dtype for x in jax.tree.leaves(state)}.isdisjoint({jnp.dtype(dtype)})


@ROWS
def test_scan_equals_loop_jit_equals_eager_and_both_arguments_can_be_donated(case: Case) -> None:
    """The scan overwrites parameters and state, so that no two of their arrays, nor one that the optimizer holds, may be one.

    It runs where `debug_nans` watches what comes out, and no array comes from the host.
    """
    tx, params = case.make(), tree()
    grads = [tree(sign=s) for s in (1.0, -0.5)]

    def step(carry: Any, g: Any) -> tuple[Any, Any]:
        p, s = carry
        u, s = tx.update(g, s, p, **case.extra_for(p))
        return (gradtx.apply_updates(p, u), s), None

    scanned = jax.tree.map(lambda *xs: jnp.stack(xs), *grads)
    run = jax.jit(lambda p, s: jax.lax.scan(step, (p, s), scanned)[0], donate_argnums=(0, 1))
    ends = []
    for _ in range(2):  # the second run begins with arrays that the first must not have overwritten
        carry = (tree(), tx.init(params))
        for _ in range(3):
            with jax.debug_nans(True), jax.transfer_guard("disallow"):
                carry = run(*carry)
            ends.append(carry if len(ends) % 3 else jax.tree.map(jnp.copy, carry))
    expected = (params, tx.init(params))
    for g in grads:
        expected, _ = step(expected, g)
    assert_trees_close(ends[0], expected)
    assert_trees_close(ends[3], expected)
    assert all(not x.is_deleted() for x in jax.tree.leaves(params))


@rows(2)
def test_vmap_equals_loop(case: Case) -> None:
    tx = case.make()
    lanes = [tree(), tree(sign=-2.0)]
    batch = jax.tree.map(lambda *xs: jnp.stack(xs), *lanes)

    def one(params: Any) -> Any:
        return tx.update(params, tx.init(params), params, **case.extra_for(params))

    together = jax.jit(jax.vmap(one))(batch)
    for i, lane in enumerate(lanes):
        assert_trees_close(jax.tree.map(lambda x: x[i], together), one(lane), atol=case.rounding)  # noqa: B023


@ROWS
def test_equal_optimizers_share_one_trace(case: Case) -> None:
    traces = []

    def step(tx: Any, g: Any) -> Any:
        traces.append(1)
        return tx.update(g, tx.init(g), g, **case.extra_for(g))[0]

    jitted = jax.jit(step, static_argnums=0)
    grads = {"bias": jnp.ones(2), "kernel": jnp.ones((2, 2))}
    jitted.trace(case.make(), grads)
    jitted.trace(case.make(), grads)
    assert len(traces) == 1


@ROWS
def test_key_order_does_not_matter(case: Case) -> None:
    """The same program is traced for parameters in either order: `jit` alone would sort the keys before the optimizer sees them."""
    tx, params = case.make(), tree()
    leaves, treedef = jax.tree.flatten(params)

    def traced(turn: Any) -> str:
        def one(leaves: Any) -> Any:
            p = turn(treedef.unflatten(leaves))
            return tx.update(p, tx.init(p), p, **case.extra_for(p))

        return str(jax.make_jaxpr(one)(leaves))

    def backwards(node: Any) -> Any:
        return {key: backwards(node[key]) for key in reversed(node)} if isinstance(node, dict) else node

    assert list(backwards(params)) != list(params)
    assert traced(backwards) == traced(lambda p: p)


@ROWS
@operation_by_operation
def test_empty_tree(case: Case) -> None:
    tx = case.make()
    updates, state = tx.update({}, tx.init({}), {}, **case.extra_for({}))
    assert updates == {}
    assert signature(state) == signature(tx.init({}))


@pytest.mark.parametrize(
    ("name", "arguments", "text"), [(name, *bad) for name, case in CASES.items() for bad in case.bad], ids=lambda x: None
)
def test_bad_hyperparameters_are_named(name: str, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{name}: {text}"):
        (registry.get(name) or getattr(gradtx, name))(**arguments)


@ROWS
def test_values_compare_hash_print_pickle(case: Case) -> None:
    first, second = case.make(), case.make()
    assert first == second
    assert hash(first) == hash(second)
    assert first != gradtx.scale(123.0)
    copy = pickle.loads(pickle.dumps(first))
    assert copy == first
    assert repr(copy) == repr(first)
    functions = "even" in repr(first) or "same" in repr(first)
    if not functions:
        names = {cls.__name__: cls for cls in registry.values()} | vars(gradtx) | {"true": True, "false": False}
        assert eval(repr(first), dict(names)) == first  # the printed call makes it


@ROWS
def test_config_round_trip(case: Case) -> None:
    tx = case.make()
    plain_function = any(word in repr(tx) for word in ("even", "same", "monitor", "snapshot"))
    if plain_function:
        with pytest.raises(TypeError, match=r"which no dict can hold\. Functions must be values"):
            gradtx.to_config(tx)
        return
    config = json.loads(json.dumps(gradtx.to_config(tx), allow_nan=False))
    assert gradtx.from_config(config) == tx


@rows(4, 0)
@operation_by_operation
def test_optax_chain_hands_on_extra_arguments(case: Case) -> None:
    seen = []

    def spy_update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        seen.append(extra_args["value"])
        return updates, state

    spy = gradtx.GradientTransformation(lambda params: gradtx.EmptyState(), spy_update)
    tx = optax.chain(gradtx.to_optax(case.make()), gradtx.to_optax(spy))
    params = tree()
    extra = case.extra_for(params) | {"value": 3.0}
    updates, _ = tx.update(params, tx.init(params), params, **extra)
    assert seen == [3.0]
    ours = case.make()
    assert_trees_close(updates, ours.update(params, ours.init(params), params, **extra)[0])


class Dense(nnx.Module):
    def __init__(self) -> None:
        self.dense = nnx.Linear(3, 2, rngs=nnx.Rngs(0))


@rows(4, 1)
@operation_by_operation
def test_nnx_optimizer(case: Case) -> None:
    model = Dense()
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    grads = jax.tree.map(lambda x: x + 0.1, nnx.state(model, nnx.Param))
    tx = case.make()
    params = {"dense": {key: jnp.asarray(value) for key, value in before["dense"].items()}}
    expected, _ = tx.update(jax.tree.map(lambda x: x + 0.1, params), tx.init(params), params, **case.extra_for(params))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    optimizer.update(model, grads, **case.extra_for(nnx.state(model, nnx.Param)))
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert_trees_close(after, gradtx.apply_updates(params, expected))


@rows(4, 2)
@operation_by_operation
def test_linen_train_state(case: Case) -> None:
    if case.extra:
        return  # TrainState hands no extra arguments on
    model = nn.Dense(2)
    params = model.init(jax.random.key(0), jnp.ones((1, 3)))["params"]
    tx = case.make()
    grads = jax.tree.map(lambda x: x + 0.1, params)
    expected, _ = tx.update(grads, tx.init(params), params)
    train_state = TrainState.create(apply_fn=model.apply, params=params, tx=tx).apply_gradients(grads=grads)
    assert_trees_close(train_state.params, gradtx.apply_updates(params, expected))


class Module(eqx.Module):
    kernel: jax.Array
    bias: jax.Array
    activation: Any


@rows(4, 3)
@operation_by_operation
def test_equinox_module(case: Case) -> None:
    model = Module(jnp.ones((3, 2)), jnp.ones(2), jax.nn.relu)
    params = eqx.filter(model, eqx.is_inexact_array)
    tx = case.make()
    updates, _ = tx.update(params, tx.init(params), params, **case.extra_for(params))
    new = eqx.apply_updates(model, updates)
    assert isinstance(new, Module)
    assert new.activation is jax.nn.relu
    assert bool(jnp.all(jnp.isfinite(new.kernel)))
