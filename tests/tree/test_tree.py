import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import tree

RNG = np.random.default_rng(0)
HALVES = (jnp.bfloat16, jnp.float16)


def a_tree(dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(3, 4)), dtype),
        "b": [jnp.asarray(rng.normal(), dtype), jnp.asarray(rng.normal(size=5), dtype)],
    }


def a_complex_tree(seed=0):
    return jax.tree.map(lambda x, y: x + 1j * y, a_tree(seed=seed), a_tree(seed=seed + 100))


X, Y = a_tree(seed=1), a_tree(seed=2)
TREES = {
    "nested": (X, Y),
    "array": (X["w"], Y["w"]),
    "complex": (a_complex_tree(1), a_complex_tree(2)),
}


def wide(tree):
    return jax.tree.map(lambda x: np.asarray(x, complex if jnp.iscomplexobj(x) else float), tree)


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(wide(tree))])


def assert_trees_close(found, expected, rtol=1e-6, atol=1e-7):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for f, e in zip(jax.tree.leaves(wide(found)), jax.tree.leaves(wide(expected)), strict=True):
        np.testing.assert_allclose(f, e, rtol=rtol, atol=atol)


def dtypes(tree):
    return {jnp.result_type(x) for x in jax.tree.leaves(tree)}


# The interface --------------------------------------------------------------------------------------------

PUBLIC = [name for name in dir(optax.tree) if not name.startswith("_")]


@pytest.mark.parametrize("name", PUBLIC)
def test_has_all_of_optax_with_the_same_arguments(name):
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (gradtx.tree, optax.tree))
    assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()]
    for p in ours.values():
        default = theirs[p.name].default
        assert p.default is default or p.default == default


def test_public_names_are_at_hand():
    assert gradtx.tree is tree
    assert set(PUBLIC) <= set(tree.__all__)
    assert gradtx.global_norm is tree.global_norm


# Arithmetic -----------------------------------------------------------------------------------------------

TWO_TREES = {
    "add": lambda module, x, y: module.add(x, y),
    "add three": lambda module, x, y: module.add(x, y, x),
    "sub": lambda module, x, y: module.sub(x, y),
    "mul": lambda module, x, y: module.mul(x, y),
    "div": lambda module, x, y: module.div(x, y),
    "scale": lambda module, x, y: module.scale(-0.3, x),
    "add_scale": lambda module, x, y: module.add_scale(x, 0.7, y),
    "conj": lambda module, x, y: module.conj(x),
    "real": lambda module, x, y: module.real(x),
    "where": lambda module, x, y: module.where(False, x, y),
    "vdot": lambda module, x, y: module.vdot(x, y),
    "sum": lambda module, x, y: module.sum(x),
    "zeros_like": lambda module, x, y: module.zeros_like(x),
    "ones_like": lambda module, x, y: module.ones_like(x),
    "full_like": lambda module, x, y: module.full_like(x, 3.0),
    "batch_shape": lambda module, x, y: module.batch_shape(x, (2, 1)),
    "size": lambda module, x, y: module.size(x),
    "update_moment": lambda module, x, y: module.update_moment(x, y, 0.9, 1),
    "update_moment_per_elem_norm": lambda module, x, y: module.update_moment_per_elem_norm(x, y, 0.9, 2),
    "bias_correction": lambda module, x, y: module.bias_correction(x, 0.9, jnp.int32(3)),
    "split_key_like": lambda module, x, y: module.unwrap_random_key_data(module.split_key_like(jax.random.key(3), x)),
    "random_like": lambda module, x, y: module.random_like(jax.random.key(3), x),
}


@pytest.mark.parametrize("name", TWO_TREES)
@pytest.mark.parametrize("kind", TREES)
def test_agrees_with_optax_in_float32(name, kind):
    function = TWO_TREES[name]
    assert_trees_close(function(tree, *TREES[kind]), function(optax.tree, *TREES[kind]))


REAL = {
    "max": lambda module, x, y: module.max(x),
    "min": lambda module, x, y: module.min(x),
    "clip": lambda module, x, y: module.clip(x, -0.5, 0.4),
    "clip below": lambda module, x, y: module.clip(x, -0.5),
    "norm": lambda module, x, y: module.norm(x),
    "squared norm": lambda module, x, y: module.norm(x, squared=True),
    "norm 1": lambda module, x, y: module.norm(x, 1),
    "norm inf squared": lambda module, x, y: module.norm(x, "inf", squared=True),
    "update_infinity_moment": lambda module, x, y: module.update_infinity_moment(x, y, 0.9, 1e-3),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("kind", ["nested", "array"])
def test_agrees_with_optax_for_real_float32(name, kind):
    function = REAL[name]
    assert_trees_close(function(tree, *TREES[kind]), function(optax.tree, *TREES[kind]))


RULES = {
    "add": (tree.add, lambda x, y: x + y),
    "sub": (tree.sub, lambda x, y: x - y),
    "mul": (tree.mul, lambda x, y: x * y),
    "div": (tree.div, lambda x, y: x / y),
    "add_scale": (lambda x, y: tree.add_scale(x, 0.1, y), lambda x, y: x + 0.1 * y),
    "update_moment": (lambda x, y: tree.update_moment(x, y, 0.99, 3), lambda x, y: 0.01 * x**3 + 0.99 * y),
    "update_infinity_moment": (
        lambda x, y: tree.update_infinity_moment(x, y, 0.99, 1e-8),
        lambda x, y: np.maximum(abs(x) + 1e-8, 0.99 * y),
    ),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_rounded_once(name, dtype):
    function, rule = RULES[name]
    x, y = a_tree(dtype, 1), a_tree(dtype, 2)
    found = function(x, y)
    assert dtypes(found) == {jnp.dtype(dtype)}
    expected = jax.tree.map(lambda a, b: rule(np.float32(a), np.float32(b)), wide(x), wide(y))
    ulp = float(jnp.finfo(dtype).eps)
    assert_trees_close(found, expected, rtol=0.51 * ulp, atol=1e-7)


def test_results_take_the_dtype_of_the_first_tree():
    half, full = jnp.ones(2, jnp.bfloat16), jnp.ones(2)
    assert tree.add(half, full).dtype == jnp.bfloat16
    assert tree.add(full, half).dtype == jnp.float32
    assert tree.scale(jnp.float32(2), half).dtype == jnp.bfloat16
    assert tree.where(True, half, full).dtype == jnp.bfloat16
    assert tree.clip(half, jnp.float32(0), 1.0).dtype == jnp.bfloat16
    assert not tree.where(True, 1.0, 2.0).weak_type


def test_moments_keep_the_dtype_of_the_moments():
    g, m = [jnp.full(2, 3.0, jnp.bfloat16)], [jnp.ones(2)]
    for update in (tree.update_moment, tree.update_moment_per_elem_norm):
        (found,) = update(g, m, 0.9, 2)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, 0.1 * 9 + 0.9, rtol=1e-6)
    (found,) = tree.update_infinity_moment(g, m, 0.9, 0.5)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 3.5)


def test_integers_and_reals_give_way_to_what_they_cannot_hold():
    ints = [jnp.array([1, 2])]
    assert tree.add(ints, ints)[0].dtype == jnp.int32
    np.testing.assert_allclose(tree.div(ints, [jnp.array([2, 4])])[0], [0.5, 0.5])
    np.testing.assert_allclose(tree.scale(0.5, ints)[0], [0.5, 1.0])
    np.testing.assert_allclose(tree.add_scale(3, 0.1, 2), 3.2, rtol=1e-6)
    np.testing.assert_allclose(tree.clip(ints, max_value=1.5)[0], [1, 1.5])
    np.testing.assert_allclose(tree.mul([jnp.ones(2)], [jnp.array([1j, 2j])])[0], [1j, 2j])
    np.testing.assert_allclose(tree.where(False, ints, [jnp.array([0.5, 1.5])])[0], [0.5, 1.5])


def test_scalar_leaves_go_with_any_shape():
    assert_trees_close(
        tree.mul({"a": 2.0, "b": 3.0}, {"a": jnp.ones(3), "b": jnp.ones((2, 2))}), {"a": np.full(3, 2), "b": np.full((2, 2), 3)}
    )
    assert_trees_close(tree.add([jnp.ones(3)], [1.0], [jnp.arange(3.0)]), [np.array([2, 3, 4])])


def test_scalars_may_be_traced():
    step = jax.jit(lambda x, s, low: tree.clip(tree.add_scale(tree.scale(s, x), s, x), low))
    for s in (0.5, 2.0):
        np.testing.assert_allclose(step(X, s, -0.1)["w"], np.maximum(2 * s * np.asarray(X["w"]), -0.1), rtol=1e-6)


def test_scalar_argument_is_a_scalar():
    with pytest.raises(TypeError, match=r"tree.scale: scalar is an array of shape \(2,\) and dtype float32, expected a scalar"):
        tree.scale(jnp.ones(2), X)
    with pytest.raises(TypeError, match=r"tree.add_scale: scalar is"):
        tree.add_scale(X, jnp.ones(2), Y)
    with pytest.raises(TypeError, match=r"tree.clip: max_value is"):
        tree.clip(X, 0.0, jnp.ones(2))


def test_where_with_a_condition_per_element_and_with_keys():
    condition = jnp.array([True, False])
    np.testing.assert_array_equal(tree.where(condition, [jnp.ones((3, 2))], [jnp.zeros((3, 2))])[0], [[1, 0]] * 3)
    a, b = {"key": jax.random.key(0), "x": 1.0}, {"key": jax.random.key(1), "x": 2.0}
    assert tree.where(jnp.array(False), a, b)["key"] == b["key"]
    with pytest.raises(
        ValueError, match=r"tree.where: condition is an array of shape \(3,\) and dtype bool, .* leaves of shape \(2,\)"
    ):
        tree.where(jnp.ones(3, bool), jnp.ones(2), jnp.ones(2))


# Structure and shapes -------------------------------------------------------------------------------------

PAIRS = (tree.add, tree.sub, tree.mul, tree.div, tree.vdot, tree.allclose, lambda x, y: tree.where(True, x, y))
LOOSE = (
    lambda x, y: tree.add_scale(x, 2.0, y),
    *(
        lambda g, m, f=f: f(g, m, 0.9, 2)
        for f in (tree.update_moment, tree.update_moment_per_elem_norm, tree.update_infinity_moment)
    ),
)


@pytest.mark.parametrize("function", PAIRS + LOOSE)
def test_trees_must_agree(function):
    with pytest.raises(ValueError, match=r"tree\.\w+: \w+ and \w+ differ in structure: `b/1` is only in \w+\."):
        function({"b": [jnp.ones(2), jnp.ones(3)]}, {"b": [jnp.ones(2)]})
    with pytest.raises(
        ValueError, match=r"tree\.\w+: \w+ leaf `b/0` has shape \(3,\), but \w+ has \(2,\) there; .* nothing is broadcast"
    ):
        function({"b": [jnp.ones(2)]}, {"b": [jnp.ones(3)]})
    with pytest.raises(ValueError, match=r"the containers differ \(list and tuple\)"):
        function([jnp.ones(2)], (jnp.ones(2),))
    with pytest.raises(ValueError, match="`a` is only in"):
        function({}, {"a": jnp.ones(2)})
    with pytest.raises(ValueError, match="`a` is only in"):
        function({"a": jnp.ones(2)}, {"a": None})


def test_the_third_tree_must_agree_too():
    with pytest.raises(ValueError, match=r"tree.add: other_trees\[0\] leaf `\(root\)` has shape \(3,\), but tree_x has \(2,\)"):
        tree.add(jnp.ones(2), jnp.ones(2), jnp.ones(3))


@pytest.mark.parametrize("function", PAIRS)
def test_none_goes_with_none_alone(function):
    with pytest.raises(ValueError, match="`a` is only in"):
        function({"a": None}, {"a": jnp.ones(2)})


@pytest.mark.parametrize("function", LOOSE)
def test_none_in_the_first_tree_decides(function):
    assert function(None, jnp.ones(2)) is None
    found = function([None, jnp.zeros(2), gradtx.MaskedNode()], [{"deep": jnp.ones(3)}, jnp.ones(2), jnp.ones(1)])
    assert found[0] is None
    assert found[1].shape == (2,)
    assert found[2] == gradtx.MaskedNode()


UNARY = (
    lambda x: tree.scale(2.0, x), lambda x: tree.clip(x, -1.0, 1.0), tree.conj, tree.real, tree.zeros_like, tree.ones_like,
    lambda x: tree.full_like(x, 2.0), lambda x: tree.cast(x, jnp.float16), lambda x: tree.cast_like(x, x),
    tree.unwrap_random_key_data, lambda x: tree.bias_correction(x, 0.9, 2), lambda x: tree.random_like(jax.random.key(0), x),
    lambda x: tree.split_key_like(jax.random.key(0), x), tree.batch_shape, lambda x: tree.where(True, x, x),
    lambda x: tree.add(x, x, x), lambda x: tree.div(x, x), lambda x: tree.update_moment(x, x, 0.9, 2),
    lambda x: tree.update_infinity_moment(x, x, 0.9, 0.0),
)  # fmt: skip
GAPS = {"none": None, "masked": gradtx.MaskedNode(), "empty": jnp.zeros((0, 3)), "inner": [None, (), {}], "x": jnp.ones(2)}


@pytest.mark.parametrize("function", UNARY)
def test_gaps_pass(function):
    found = function(GAPS)
    assert jax.tree.structure(found) == jax.tree.structure(GAPS)
    assert found["none"] is None
    for nothing in ({}, (), None, [None, {}]):
        assert function(nothing) == nothing


@pytest.mark.parametrize("nothing", [{}, None, [None, gradtx.MaskedNode()], [jnp.zeros((0, 2))]])
def test_reductions_of_nothing(nothing):
    zeros = [
        tree.sum(nothing),
        tree.vdot(nothing, nothing),
        *(tree.norm(nothing, o, s) for o in (None, 1, np.inf) for s in (True, False)),
    ]
    assert all(z == 0 and z.dtype == jnp.float32 and z.shape == () for z in zeros)
    assert tree.max(nothing) == -np.inf
    assert tree.min(nothing) == np.inf
    assert tree.size(nothing) == 0
    assert tree.allclose(nothing, nothing)


def test_reductions_skip_gaps():
    gaps = {**GAPS, "x": jnp.array([3.0, -4.0])}
    assert float(tree.norm(gaps)) == 5
    assert float(tree.norm(gaps, 1)) == 7
    assert float(tree.norm(gaps, np.inf)) == 4
    assert float(tree.sum(gaps)) == -1
    assert float(tree.vdot(gaps, gaps)) == 25
    assert float(tree.max(gaps)) == 3
    assert float(tree.min(gaps)) == -4
    assert tree.size(gaps) == 2


# From trees to numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, *HALVES, jnp.complex64])
def test_reductions_against_float64(dtype):
    x, y = (t if dtype != jnp.complex64 else a_complex_tree(i) for i, t in enumerate((a_tree(dtype, 1), a_tree(dtype, 2))))
    fx, fy = flat(x), flat(y)
    real = jnp.float32
    for found, expected, kind in (
        (tree.sum(x), fx.sum(), dtype if dtype == jnp.complex64 else real),
        (tree.vdot(x, y), np.vdot(fx, fy), dtype if dtype == jnp.complex64 else real),
        (tree.norm(x), np.linalg.norm(fx), real),
        (gradtx.global_norm(x), np.linalg.norm(fx), real),
        (tree.norm(x, 2, squared=True), np.linalg.norm(fx) ** 2, real),
        (tree.norm(x, 1), abs(fx).sum(), real),
        (tree.norm(x, 1, squared=True), abs(fx).sum() ** 2, real),
        (tree.norm(x, jnp.inf), abs(fx).max(), real),
        (tree.norm(x, "infinity", True), abs(fx).max() ** 2, real),
    ):
        assert found.dtype == kind
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1e30, 1e-30, 1e-37, 1.0])
def test_norm_at_the_edges_of_float32(size):
    x = {"w": jnp.full(4, size), "b": jnp.zeros(3)}
    np.testing.assert_allclose(tree.norm(x), 2 * np.float64(np.float32(size)), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(tree.norm)(x), 2 * np.float64(np.float32(size)), rtol=1e-6)
    np.testing.assert_allclose(tree.norm([jnp.array([3 * size, 4j * size])]), 5 * size, rtol=1e-6)


def test_norm_of_half_precision_beyond_its_range():
    assert float(tree.norm(jnp.full(100, 6e4, jnp.float16))) == pytest.approx(6e5, rel=1e-3)
    assert float(tree.sum(jnp.ones(4096, jnp.bfloat16))) == 4096
    assert float(tree.vdot(jnp.full(9, 300.0, jnp.float16), jnp.full(9, 300.0, jnp.float16))) == 810000


def test_norm_of_what_is_not_finite():
    assert np.isinf(tree.norm(jnp.array([1.0, jnp.inf])))
    assert np.isnan(tree.norm(jnp.array([1.0, jnp.nan])))
    assert np.isnan(tree.norm(jnp.array([1.0, jnp.nan]), np.inf))


def test_norm_of_integers_and_python_numbers():
    assert float(tree.norm({"i": jnp.array([100000, 100000]), "f": 0.0})) == pytest.approx(1e5 * 2**0.5)
    assert float(tree.norm([3, 4.0])) == 5
    assert float(tree.norm([3, 4], 1)) == 7


def test_squared_norm_has_a_gradient_at_zero():
    np.testing.assert_array_equal(jax.grad(lambda x: tree.norm(x, squared=True))(jnp.zeros(2)), 0)
    np.testing.assert_allclose(jax.grad(tree.norm)(jnp.array([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("ord", [3, 0, "fro"])
def test_unknown_norms(ord):
    with pytest.raises(ValueError, match=r"tree.norm: ord is .*, expected None, 1, 2 or inf"):
        tree.norm(X, ord)


def test_vdot_of_many_is_accurate():
    x, y = (RNG.random(200_000, dtype=np.float32) for _ in range(2))
    expected = np.dot(x.astype(float), y.astype(float))
    np.testing.assert_allclose(tree.vdot([jnp.asarray(x)], [jnp.asarray(y)]), expected, rtol=1e-6)
    assert tree.vdot([jnp.array([1, 2])], [jnp.array([3, 4])]) == 11


def test_sum_takes_optax_arguments():
    assert tree.sum(X) == tree.sum(X, associative_reduction=True)
    assert tree.sum([jnp.array([1, 2], jnp.int8), jnp.array([2**24 + 1])]) == 2**24 + 4


def test_extremes_of_integers_stay_exact():
    x = [jnp.array([2**24 + 1, -(2**24) - 1]), jnp.array([0], jnp.int8), jnp.zeros(0)]
    assert tree.max(x[:2]) == 2**24 + 1
    assert tree.min(x[:2]) == -(2**24) - 1
    assert tree.max([3, jnp.array([2.5])]) == 3
    assert tree.max(jnp.array([1.0, 2.0], jnp.bfloat16)).dtype == jnp.bfloat16


def test_allclose():
    assert tree.allclose(X, jax.tree.map(lambda x: x * (1 + 1e-6), X))
    assert not tree.allclose(X, Y)
    assert tree.allclose(X, Y, atol=100.0)
    assert not tree.allclose([jnp.nan], [jnp.nan])
    assert tree.allclose([jnp.nan], [jnp.nan], equal_nan=True)
    half = jnp.ones(1, jnp.bfloat16)
    assert not tree.allclose(half, half + jnp.bfloat16(2**-7), rtol=5e-3)


# Dtypes and new trees -------------------------------------------------------------------------------------


def test_cast():
    assert dtypes(tree.cast(X, jnp.bfloat16)) == {jnp.dtype(jnp.bfloat16)}
    assert tree.cast(X, None) is X
    like = {"w": jnp.ones(1, jnp.float16), "b": [2.0, jnp.ones((), jnp.bfloat16)]}
    found = tree.cast_like(X, like)
    assert found["w"].dtype == jnp.float16
    assert found["b"][0] is X["b"][0]
    assert found["b"][1].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"tree.cast_like: tree and other_tree differ in structure: `b/0` is only in tree"):
        tree.cast_like(X, {"w": 1.0})


@pytest.mark.parametrize(
    ("kinds", "handler", "expected"),
    [
        (["float32", "float32"], None, "float32"),
        (["float16", "float32"], "lowest", "float16"),
        (["float16", "float32", "float16"], "highest", "float32"),
        (["float16", "bfloat16"], "promote", "float32"),
        (["float16", "bfloat16", "float32"], "highest", "float32"),
        (["int32", "uint32"], "promote", "int32"),
        (["int32", "bfloat16"], "highest", "bfloat16"),
        ([], None, "float32"),
    ],
)
def test_dtype_of_a_tree(kinds, handler, expected):
    leaves = [jnp.ones(1, kind) for kind in kinds]
    assert tree.dtype(leaves, handler) == expected
    if kinds != ["float16", "bfloat16", "float32"]:  # Optax compares neighbours only, and fails
        assert optax.tree.dtype(leaves, handler) == expected


def test_dtype_errors():
    mixed = {"a": jnp.ones(1, jnp.float16), "b": [jnp.ones(1, jnp.bfloat16)]}
    with pytest.raises(ValueError, match=r"tree.dtype: leaves are float16 \(`a`\) and bfloat16 \(`b/0`\), expected one dtype"):
        tree.dtype(mixed)
    for handler in ("highest", "lowest"):
        with pytest.raises(ValueError, match=f"of which none is the {handler}"):
            tree.dtype(mixed, handler)
    with pytest.raises(ValueError, match=r"mixed_dtype_handler is 'max' \(str\), expected None, 'promote', 'highest' or 'lowest'"):
        tree.dtype(mixed, "max")


def test_new_trees():
    half = a_tree(jnp.bfloat16)
    assert dtypes(tree.zeros_like(half)) == {jnp.dtype(jnp.bfloat16)}
    assert dtypes(tree.ones_like(half, jnp.float32)) == {jnp.dtype(jnp.float32)}
    assert flat(tree.full_like(half, 7, jnp.int32)).tolist() == [7] * 18
    assert not tree.zeros_like(3.0).weak_type
    assert tree.batch_shape(half, (2, 3))["w"].shape == (2, 3, 3, 4)
    np.testing.assert_array_equal(tree.batch_shape(X, (2,))["w"][1], X["w"])


# Random trees ---------------------------------------------------------------------------------------------


def test_random_leaves_differ_and_are_reproducible():
    like = {"a": jnp.zeros(4), "b": jnp.zeros(4), "c": jnp.zeros(4, jnp.complex64)}
    key = jax.random.key(7)
    noise = tree.random_like(key, like)
    assert all(np.any(noise[i] != noise[j]) for i, j in itertools.combinations(noise, 2))
    assert tree.allclose(noise, tree.random_like(key, like), rtol=0.0, atol=0.0)
    assert not tree.allclose(noise, tree.random_like(jax.random.key(8), like))
    assert tree.allclose(noise, jax.jit(tree.random_like)(key, like))


@pytest.mark.parametrize(
    ("sampler", "dtype"),
    [
        (jax.random.normal, None),
        (jax.random.normal, jnp.bfloat16),
        (jax.random.rademacher, jnp.int32),
        (jax.random.bits, jnp.uint32),
        (jax.random.uniform, jnp.float32),
    ],
)
def test_random_dtypes_and_samplers(sampler, dtype):
    like = {"a": jnp.zeros((2, 3), jnp.float16), "b": 1.0}
    noise = tree.random_like(jax.random.key(0), like, sampler, dtype)
    assert [x.dtype for x in noise.values()] == ([dtype] * 2 if dtype else [jnp.float16, jnp.float32])
    assert noise["a"].shape == (2, 3)
    if dtype not in (None, jnp.bfloat16):
        assert_trees_close(noise, optax.tree.random_like(jax.random.key(0), jax.tree.map(jnp.asarray, like), sampler, dtype))


def test_random_with_a_sampler_of_ones_own():
    found = tree.random_like(jax.random.key(0), [jnp.zeros(3, jnp.bfloat16)], lambda key, shape, dtype: jnp.full(shape, 2, dtype))
    assert found[0].dtype == jnp.bfloat16
    assert found[0].tolist() == [2, 2, 2]


def test_bfloat16_noise_has_tails():
    noise = tree.random_like(jax.random.key(0), jnp.zeros(50_000, jnp.bfloat16))
    assert float(jnp.max(noise)) > 3.5  # drawn in bfloat16 itself, it would end at 2.52
    assert len(np.unique(noise.astype(jnp.float32))) > 1000


def test_keys():
    keys = tree.split_key_like(jax.random.key(0), X)
    assert jax.tree.structure(keys) == jax.tree.structure(X)
    data = tree.unwrap_random_key_data({"keys": keys, "x": 2.0})
    assert data["x"] == 2.0
    assert len({tuple(d.tolist()) for d in jax.tree.leaves(data["keys"])}) == 3
    raw = tree.split_key_like(jax.random.PRNGKey(0), X)
    assert_trees_close(raw, data["keys"])


# Moments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 4, 2.0, 1.5])
def test_moments_of_complex_updates(order):
    g, m = [jnp.array([3 + 4j, 1j])], [jnp.ones(2)]
    (found,) = tree.update_moment_per_elem_norm(g, m, 0.9, order)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 0.1 * np.array([5.0, 1.0]) ** order + 0.9, rtol=1e-6)
    if float(order).is_integer():
        (found,) = tree.update_moment(g, [jnp.ones(2, jnp.complex64)], 0.9, order)
        np.testing.assert_allclose(found, 0.1 * np.array([3 + 4j, 1j]) ** order + 0.9, rtol=2e-6, atol=1e-6)
    (found,) = tree.update_infinity_moment(g, m, 0.9, 0.0)
    np.testing.assert_allclose(found, [5, 1], rtol=1e-6)


def test_moments_with_traced_hyperparameters():
    found = jax.jit(tree.update_moment)([jnp.array([2.0])], [jnp.array([1.0])], 0.9, 2)
    np.testing.assert_allclose(found[0], 0.1 * 4 + 0.9, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("decay", [0.0, 0.9, 0.9999])
def test_bias_correction(decay, dtype):
    moment = {"m": jnp.array([1e-3, -2.0], dtype)}
    for count in (1, 10, 10**6):
        expected = np.asarray(moment["m"], float) / (1 - np.float64(decay) ** count)
        for n in (count, jnp.int32(count)):
            found = tree.bias_correction(moment, decay, n)["m"]
            assert found.dtype == dtype
            np.testing.assert_allclose(np.asarray(found, float), expected, rtol=1e-6 if dtype == jnp.float32 else 4e-3)


def test_bias_correction_before_any_step():
    assert tree.bias_correction(jnp.array([0.0, 1.0]), 0.9, 0).tolist() == [0.0, 1.0]
    assert tree.bias_correction(jnp.array([1.0]), jnp.float32(0), 0).tolist() == [1.0]
