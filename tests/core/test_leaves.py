"""One rule for one array, lifted to trees: dtypes, constants, sharing of traces, structure."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core import leaves
from gradtx.core.leaves import MaskedNode, each_leaf, map_leaves


def average(g: Any, m: Any, *, b: Any) -> Any:
    m = b * m + (1 - b) * g
    return -m, m


def averaged(b: float) -> Any:
    return each_leaf(lambda g, m: average(g, m, b=b))


def double(u: Any) -> Any:
    return 2 * u


def plus(u: Any, p: Any) -> Any:
    return u + p


def dtype_of(u: Any) -> Any:
    return jnp.full_like(u, u.dtype.itemsize)


def scaled(u: Any, *, factor: Any) -> Any:
    if not isinstance(factor, (int, float)) and factor.dtype != jnp.int32:
        assert factor.dtype == u.real.dtype
    return factor * u


def chosen(u: Any, *, flag: Any, mode: str, axis: Any, count: Any) -> Any:
    assert jnp.issubdtype(jnp.result_type(count), jnp.integer)
    return jnp.sum(u, axis=axis, keepdims=True) * jnp.ones_like(u) + count if flag and mode == "sum" else u


# Dtypes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "inside"), [("bfloat16", 4), ("float16", 4), ("float32", 4), ("complex64", 8), ("float8_e4m3fn", 4), ("int8", 1)]
)
def test_leaves_are_computed_in_at_least_float32(dtype: str, inside: int) -> None:
    leaf = jnp.ones(2, dtype)
    out = map_leaves(dtype_of, {"a": leaf})["a"]
    assert out.dtype == leaf.dtype
    assert float(out[0].real) == inside


def test_float64_stays() -> None:
    with jax.enable_x64(True):
        out = averaged(0.9)([jnp.full(2, 0.1)], [jnp.zeros(2)])
        assert out[1][0].dtype == jnp.float64
        np.testing.assert_allclose(out[1][0], 0.01, rtol=1e-15)
        np.testing.assert_allclose(map_leaves(scaled, jnp.full(2, 3.0), factor=jnp.asarray(0.1)), 0.1 * 3, rtol=1e-15)


def test_results_have_the_dtypes_of_their_trees() -> None:
    """A small gradient in bfloat16 is not lost in a float32 moment near 1, and the update is bfloat16 again."""
    g, m = jnp.full(2, 1e-3, jnp.bfloat16), jnp.ones(2, jnp.float32)
    tx = gradtx.ema(0.999, debias=False)
    updates, state = tx.update({"w": g}, tx.init({"w": g})._replace(ema={"w": m}))
    assert updates["w"].dtype == jnp.bfloat16
    assert state.ema["w"].dtype == jnp.float32
    np.testing.assert_allclose(state.ema["w"], 0.999 + 0.001 * float(g[0]), rtol=1e-7)
    stored = tx.update({"w": m}, state._replace(ema={"w": m.astype(jnp.bfloat16)}))[1].ema["w"]
    assert stored.dtype == jnp.bfloat16


def test_trees_beyond_the_results_are_only_read() -> None:
    out = map_leaves(plus, {"w": jnp.ones(2, jnp.float16)}, {"w": jnp.full(2, 0.5, jnp.float32)})
    assert out["w"].dtype == jnp.float16
    np.testing.assert_array_equal(out["w"], [1.5, 1.5])


def test_complex_leaves_keep_their_imaginary_part() -> None:
    out = map_leaves(scaled, {"w": jnp.asarray([1 + 2j])}, factor=jnp.asarray(0.5))
    assert out["w"].dtype == jnp.complex64
    np.testing.assert_array_equal(out["w"], [0.5 + 1j])


@pytest.mark.parametrize("leaf", [np.ones(2, np.float32), np.float32(1.0), 1.0])
def test_numpy_and_python_leaves(leaf: Any) -> None:
    out = map_leaves(double, {"w": leaf})["w"]
    assert isinstance(out, jax.Array)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, 2 * np.asarray(leaf))


# What all leaves share ------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [3, 3.0, np.float32(3.0), np.float64(3.0), jnp.asarray(3.0), jnp.asarray(3.0, jnp.bfloat16)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
def test_scalars_take_the_real_dtype_of_the_leaf(factor: Any, dtype: Any) -> None:
    leaf = jnp.ones(2, dtype)
    eager = map_leaves(scaled, {"w": leaf}, factor=factor)["w"]
    traced = jax.jit(lambda leaf, factor: map_leaves(scaled, {"w": leaf}, factor=factor)["w"])(leaf, factor)
    for out in (eager, traced):
        assert out.dtype == dtype
        np.testing.assert_array_equal(out.astype(jnp.complex64), [3.0, 3.0])


@pytest.mark.parametrize("flag", [True, np.True_])
def test_python_constants_may_choose_branches(flag: Any) -> None:
    tree = {"a": jnp.asarray([1.0, 2.0])}
    out = map_leaves(chosen, tree, flag=flag, mode="sum", axis=(0,), count=jnp.asarray(1, jnp.int32))
    np.testing.assert_array_equal(out["a"], [4.0, 4.0])
    assert not bool(map_leaves(chosen, tree, flag=False, mode="sum", axis=None, count=1)["a"][0] - 1.0)


def test_traced_and_eager_agree_for_shared_and_unique_shapes() -> None:
    tree = {
        "shared": [jnp.asarray([1.0, 2.0]), jnp.asarray([3.0, 4.0])],
        "unique": jnp.ones((2, 2)),
        "narrow": jnp.asarray([5.0, 6.0], jnp.bfloat16),
        "complex": jnp.asarray([1j, 2.0]),
        "scalar": jnp.asarray(7.0),
        "empty": jnp.zeros((0, 3)),
        "none": None,
        "masked": MaskedNode(),
    }
    state = jax.tree.map(lambda x: jnp.full_like(x, 0.5, dtype=jnp.promote_types(x.dtype, jnp.float32)), tree)
    eager = averaged(0.75)(tree, state)
    traced = jax.jit(averaged(0.75))(tree, state)
    assert jax.tree.structure(eager) == jax.tree.structure(traced) == jax.tree.structure((tree, state))
    for x, y in zip(jax.tree.leaves(eager), jax.tree.leaves(traced), strict=True):
        assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(eager[1]["shared"][1], 0.75 * 0.5 + 0.25 * np.asarray([3.0, 4.0]))


def test_leaves_of_one_shape_share_one_trace() -> None:
    traces = []

    def counted(u: Any, *, factor: Any) -> Any:
        traces.append(u.shape)
        return u * factor

    tree = {"a": jnp.ones(3), "b": jnp.ones(3), "c": jnp.ones(3), "d": jnp.ones((2, 2))}
    jax.jit(lambda tree: map_leaves(counted, tree, factor=2.0))(tree)
    assert sorted(traces) == [(2, 2), (3,)]


def test_a_leaf_of_its_own_shape_is_traced_in_place() -> None:
    """It would pay for a function of its own, to trace and to lower, and share it with nobody."""
    jaxpr = jax.make_jaxpr(lambda tree: map_leaves(double, tree))({"a": jnp.ones(3), "b": jnp.ones(3), "c": jnp.ones(2)})
    assert sorted(equation.primitive.name for equation in jaxpr.eqns) == ["jit", "jit", "mul"]


def test_vmap_over_a_shared_scalar() -> None:
    tree = {"a": jnp.ones(2), "b": jnp.ones(2), "c": jnp.ones(3)}
    out = jax.vmap(lambda factor: map_leaves(scaled, tree, factor=factor))(jnp.asarray([1.0, 2.0, 4.0]))
    np.testing.assert_array_equal(out["b"], [[1, 1], [2, 2], [4, 4]])


# Structure ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", [{}, {"a": None}, {"a": MaskedNode(), "b": ()}, ()])
def test_trees_without_leaves(tree: Any) -> None:
    assert map_leaves(double, tree) == tree
    assert averaged(0.5)(tree, tree) == (tree, tree)
    assert map_leaves(plus, tree, tree) == tree


def test_a_scalar_leaf_goes_with_a_leaf_of_any_shape() -> None:
    np.testing.assert_array_equal(map_leaves(plus, {"w": jnp.ones(3)}, {"w": jnp.asarray(2.0)})["w"], [3.0, 3.0, 3.0])


@pytest.mark.parametrize(
    ("updates", "state", "text"),
    [
        (
            {"a": jnp.ones(2)},
            {"b": jnp.ones(2)},
            "updates and the tree in the state differ in structure: `a` is only in updates. "
            "Were the gradients taken with respect to another argument, or the state made from other parameters?",
        ),
        (
            {"a": jnp.ones(2)},
            {"a": jnp.ones(2), "b": jnp.ones(2)},
            "updates and the tree in the state differ in structure: `b` is only in the tree in the state. "
            "Were the gradients taken with respect to another argument, or the state made from other parameters?",
        ),
        (
            {"a": [jnp.ones(2)]},
            {"a": (jnp.ones(2),)},
            "updates and the tree in the state differ in structure: `a` is a list in one, a tuple in the other. "
            "Were the gradients taken with respect to another argument, or the state made from other parameters?",
        ),
        (
            {"a": jnp.ones(2), "b": jnp.ones((3, 2))},
            {"a": jnp.ones(2), "b": jnp.ones((2,))},
            "updates leaf `b` has shape (3, 2), but the tree in the state has (2,) there; "
            "shapes must be equal, nothing is broadcast.",
        ),
        (  # the state would grow
            {"a": jnp.ones(2)},
            {"a": jnp.ones(())},
            "updates leaf `a` has shape (2,), but the tree in the state has () there; shapes must be equal, nothing is broadcast.",
        ),
    ],
)
def test_trees_that_differ(updates: Any, state: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"^updates") as error:
        averaged(0.5)(updates, state)
    assert str(error.value) == text


# Moments --------------------------------------------------------------------------------------------------


def test_zeros_are_at_least_float32_and_complex_stays() -> None:
    params = {"h": jnp.ones(2, jnp.bfloat16), "f": jnp.ones(2), "c": jnp.ones(2, jnp.complex64), "n": None}

    def dtypes(tree: Any) -> Any:
        return {k: None if x is None else x.dtype.name for k, x in tree.items()}

    assert dtypes(leaves.zeros_like(params)) == {"h": "float32", "f": "float32", "c": "complex64", "n": None}
    assert dtypes(leaves.zeros_like(params, "bfloat16")) == {"h": "bfloat16", "f": "bfloat16", "c": "complex64", "n": None}
    assert dtypes(leaves.real_full_like(params, 0.5)) == {"h": "float32", "f": "float32", "c": "float32", "n": None}
    assert dtypes(leaves.real_full_like(params, 0.5, "float16")) == {"h": "float16", "f": "float16", "c": "float16", "n": None}
    assert float(leaves.full_like(params, 0.5)["h"][0]) == 0.5
    assert float(leaves.real_full_like(params, 0.5)["c"][0]) == 0.5


def test_widen_and_cast_like_undo_each_other() -> None:
    key = jax.random.key(0)
    tree = {
        "h": jnp.ones(2, jnp.float16),
        "n": jnp.ones(2, jnp.int8),
        "c": jnp.ones(1, jnp.complex64),
        "key": key,
        "x": 1.0,
        "no": None,
    }
    wide = leaves.widen(tree)
    assert wide["h"].dtype == jnp.float32
    assert wide["n"].dtype == jnp.int8
    assert wide["c"].dtype == jnp.complex64
    assert wide["key"] is key
    back = leaves.cast_like(wide, tree)
    assert [x.dtype for x in (back["h"], back["n"], back["c"])] == [jnp.float16, jnp.int8, jnp.complex64]
