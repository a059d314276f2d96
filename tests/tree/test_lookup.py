from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.tree_util import DictKey, SequenceKey

import gradtx
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.tree.lookup import NamedTupleKey, get, get_all_with_path

PARAMS = {"enc": {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, "dec": {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}}
NAMES = {"enc": {"w": "ew", "b": "eb"}, "dec": {"w": "dw", "b": "db"}}
WEIGHTS = {"enc": {"w": True, "b": False}, "dec": {"w": True, "b": False}}
MASKED = gradtx.MaskedNode()


class Inner(NamedTuple):
    gain: Any
    note: Any = None


class Outer(NamedTuple):
    gain: Any
    inner: Any


FALLING = gradtx.linear_schedule(1e-3, 0.0, 10)


# get ------------------------------------------------------------------------------------------------------


def test_get_from_states():
    state = gradtx.adamw(1e-3).init(PARAMS)
    np.testing.assert_allclose(get(state, "learning_rate"), 1e-3)
    assert isinstance(get(state, "ScaleByAdamState"), ScaleByAdamState)
    assert get(state, "mu") is state[0].mu
    assert get(state, "enc", filtering=lambda path, value: path[-2].name == "nu") is state[0].nu["enc"]


def test_get_from_partition_and_masked_states():
    tx = gradtx.partition({"a": gradtx.adam(1e-3), "b": gradtx.masked(gradtx.adam(1e-2), WEIGHTS)}, {"enc": "a", "dec": "b"})
    state = tx.init(PARAMS)
    in_b = lambda path, value: DictKey("b") in path  # noqa: E731
    np.testing.assert_allclose(get(state, "learning_rate", filtering=in_b), 1e-2)
    assert get(state, "a") is state.inner_states["a"]
    assert len(get_all_with_path(state, "MaskedState")) == 3
    paths = [gradtx.path_str(path) for path, _ in get_all_with_path(state, "learning_rate")]
    start = "PartitionState.inner_states"
    assert paths == [
        f"{start}/a/MaskedState.inner_state/1/ScaleByLearningRateState.learning_rate",
        f"{start}/b/MaskedState.inner_state/MaskedState.inner_state/1/ScaleByLearningRateState.learning_rate",
    ]


def test_paths_are_tuples_of_keys():
    state = gradtx.named_chain(("opt", gradtx.adam(1e-3))).init(PARAMS)
    ((path, value),) = get_all_with_path(state, "nu")
    assert path == (DictKey("opt"), SequenceKey(0), NamedTupleKey("ScaleByAdamState", "nu"))
    assert value is state["opt"][0].nu
    assert str(path[-1]) == "ScaleByAdamState.nu"


def test_outer_entries_come_before_inner_ones():
    tree = {"hparams": {"rate": 1.0}, "rate": {"rate": "foo"}}
    assert [v for _, v in get_all_with_path(tree, "rate")] == [{"rate": "foo"}, 1.0, "foo"]
    assert get_all_with_path(tree, "rate", lambda path, value: isinstance(value, float)) == [
        ((DictKey("hparams"), DictKey("rate")), 1.0)
    ]


@pytest.mark.parametrize("tree", [(), None, jnp.ones(3), [], {"a": 1.0}, gradtx.EmptyState()])
def test_get_what_is_not_there(tree):
    assert get(tree, "foo") is None
    assert get(tree, "foo", 7.0) == 7.0
    assert get_all_with_path(tree, "foo") == []


def test_get_of_none_integer_keys_and_class_names():
    tree = [Outer(1.0, Inner(2.0)), {3: "three"}, gradtx.EmptyState()]
    assert get(tree, 3) == "three"
    assert get_all_with_path(tree, "note")[0][1] is None
    assert get(tree, "Inner") == Inner(2.0)
    assert get(tree, "EmptyState") == gradtx.EmptyState()
    assert [v for _, v in get_all_with_path(tree, "gain")] == [1.0, 2.0]


def test_get_of_several():
    state = gradtx.adam(FALLING).init(PARAMS)
    message = (
        r"tree.get: 'count' is found 2 times, .*: `0/ScaleByAdamState.count`, "
        r"`1/ScaleByLearningRateState.count`.*filtering="
    )
    with pytest.raises(KeyError, match=message):
        get(state, "count")
    assert get(state, "count", filtering=lambda path, _: path[-1].tuple_name == "ScaleByAdamState") == 0


def test_get_of_injected_hyperparameters():
    state = gradtx.inject_hyperparams(gradtx.adam)(learning_rate=0.25).init(PARAMS)
    assert len(get_all_with_path(state, "learning_rate")) == 2
    assert float(get(state, "learning_rate")) == 0.25


def test_get_under_jit():
    state = gradtx.adam(lambda t: 1 / (t + 1)).init(PARAMS)
    assert jax.jit(lambda s: get(s, "learning_rate"))(state) == 1


@pytest.mark.parametrize("key", ["count", "mu", "w", "ScaleByAdamState", "nothing"])
def test_finds_what_optax_finds(key):
    state = optax.adam(1e-3).init(PARAMS)
    ours, theirs = get_all_with_path(state, key), optax.tree.get_all_with_path(state, key)
    assert [jax.tree_util.keystr(p) for p, _ in ours] == [jax.tree_util.keystr(p) for p, _ in theirs]
    assert all(x is y for (_, x), (_, y) in zip(ours, theirs, strict=True))


# set ------------------------------------------------------------------------------------------------------


def test_set_does_not_retrace_and_goes_through_scan():
    tx = gradtx.inject_hyperparams(gradtx.adam)(1e-3)
    traces = []

    @jax.jit
    def step(state):
        traces.append(0)
        return tx.update(PARAMS, state, PARAMS)

    _, state = step(tx.init(PARAMS))
    changed = gradtx.tree.set(state, learning_rate=0.5, mu=jax.tree.map(np.zeros_like, PARAMS))
    assert jax.tree.map(jax.typeof, changed) == jax.tree.map(jax.typeof, state)
    step(changed)
    assert len(traces) == 1
    jax.lax.scan(lambda s, _: (tx.update(PARAMS, s, PARAMS)[1], None), changed, length=2)


@pytest.mark.parametrize("new", [0.25, 1, np.float64(0.25), jnp.bfloat16(0.25), np.ones((), np.int8)])
@pytest.mark.parametrize("old", [jnp.float32(1), jnp.asarray(1.0), jnp.bfloat16(1), np.float32(1), np.ones((), np.float32)])
def test_set_keeps_dtype_and_weak_type(old, new):
    found = gradtx.tree.set({"x": old}, x=new)["x"]
    assert found == new
    assert found.dtype == old.dtype
    assert getattr(found, "weak_type", False) == getattr(old, "weak_type", False)
    traced = jax.jit(lambda new: gradtx.tree.set({"x": jnp.asarray(old)}, x=new)["x"])(new)
    assert traced == new
    assert traced.dtype == old.dtype


def test_set_keeps_the_device_placement():
    state = jax.device_put({"rate": jnp.float32(1)}, jax.devices()[0])
    assert state["rate"].committed
    assert gradtx.tree.set(state, rate=0.5)["rate"].committed


def test_set_count():
    state = gradtx.adam(FALLING).init(PARAMS)
    changed = gradtx.tree.set(state, count=5.0)
    assert [(int(c), c.dtype) for _, c in get_all_with_path(changed, "count")] == [(5, jnp.int32)] * 2
    for fraction in (2.5, jnp.float32(2.5)):
        with pytest.raises(
            ValueError, match=r"tree.set: count is .*2\.5|.*float32, expected a whole number: it replaces one of dtype int32"
        ):
            gradtx.tree.set(state, count=fraction)


def test_set_filters_by_path():
    state = gradtx.adam(FALLING).init(PARAMS)
    changed = gradtx.tree.set(state, lambda path, _: path[-1].tuple_name == "ScaleByAdamState", count=7)
    assert [int(c) for _, c in get_all_with_path(changed, "count")] == [7, 0]


def test_set_whole_states_and_subtrees():
    tx = gradtx.masked(gradtx.adam(1e-3), WEIGHTS)
    state = tx.init(PARAMS)
    new = ScaleByAdamState(3, *(jax.tree.map(np.ones_like, m) for m in state.inner_state[0][1:]))
    changed = gradtx.tree.set(state, ScaleByAdamState=new)
    assert jax.tree.map(jax.typeof, changed) == jax.tree.map(jax.typeof, state)
    assert int(get(changed, "ScaleByAdamState").count) == 3
    assert get(changed, "mu")["enc"]["b"] == MASKED
    tree = {"a": {"a": 1.0}, "b": {"a": 1}}
    assert gradtx.tree.set(tree, lambda _, value: isinstance(value, float), a=2.0) == {"a": {"a": 2.0}, "b": {"a": 1}}
    assert gradtx.tree.set(tree, lambda _, value: isinstance(value, dict), a={"c": 0.0}) == {"a": {"c": 0.0}, "b": {"a": 1}}


def test_set_reaches_into_lists_and_keeps_the_rest():
    tree = Outer(None, [{"rate": "slow"}, (Inner(1.0), None, MASKED)])
    assert gradtx.tree.set(tree, rate="fast", note=5) == Outer(None, [{"rate": "fast"}, (Inner(1.0, 5), None, MASKED)])
    key = {"key": jax.random.key(0)}
    assert gradtx.tree.set(key, key=jax.random.key(1))["key"] == jax.random.key(1)
    assert gradtx.tree.set(tree) == tree
    assert gradtx.tree.set({"tree": 1, "filtering": 2}, tree=3, filtering=4) == {"tree": 3, "filtering": 4}


def test_set_what_is_not_there():
    state = gradtx.adam(1e-3).init(PARAMS)
    with pytest.raises(KeyError, match=r"tree.set: 'learning_rat' is not found in the tree. Did you mean 'learning_rate'\?"):
        gradtx.tree.set(state, learning_rat=0.1)
    with pytest.raises(KeyError, match=r"tree.set: 'mu' is found at `0/ScaleByAdamState.mu`, but filtering turned that down"):
        gradtx.tree.set(state, lambda path, value: False, mu=0.0)
    for empty in ((), jnp.ones(2)):
        with pytest.raises(KeyError, match=r"tree.set: 'foo' is not found in the tree\."):
            gradtx.tree.set(empty, foo=1.0)


def test_set_inside_the_variables_of_nnx():
    optimizer = nnx.Optimizer(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), gradtx.inject_hyperparams(gradtx.sgd)(0.5), wrt=nnx.Param)
    changed = gradtx.tree.set(optimizer.opt_state, learning_rate=0.25)
    assert jax.tree.structure(changed) == jax.tree.structure(optimizer.opt_state)
    assert float(changed.hyperparams["learning_rate"][...]) == 0.25


@pytest.mark.parametrize("rate", [0.1, gradtx.linear_schedule(0.1, 0.0, 5)])
def test_a_rate_that_is_only_reported_cannot_be_set(rate):
    state = gradtx.adamw(rate).init(jnp.zeros(2))
    with pytest.raises(
        ValueError,
        match=r"^tree\.set: 'learning_rate' at `.*LearningRateState\.learning_rate` only reports what the transformation uses; setting it changes nothing\. What gradtx\.inject_hyperparams",
    ):
        gradtx.tree.set(state, learning_rate=1.0)
