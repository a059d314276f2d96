"""Which trees go together, and what is said when they do not; the interface."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import tree

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
    with pytest.raises(ValueError, match=r"is a list in one, a tuple in the other"):
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
