from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.tree_util import DictKey, SequenceKey

import gradtx
from gradtx.compose.masking import MaskedState
from gradtx.compose.partition import PartitionState
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.transforms.decay import WeightDecayState
from gradtx.transforms.scaling import ScaleByLearningRateState
from gradtx.tree.lookup import NamedTupleKey, get, get_all_with_path
from gradtx.tree.mirrors import map_params

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


# map_params -----------------------------------------------------------------------------------------------


def named(tx, params=PARAMS, names=NAMES):
    """The state with the parameters' names in the places that mirror them, and `-` elsewhere."""
    return map_params(tx, lambda value, name: name, tx.init(params), names, transform_non_params=lambda value: "-")


def only(*kept):
    """NAMES with all others masked."""
    return jax.tree.map(lambda name: name if name in kept else MASKED, NAMES)


def adam_state(names):
    return ScaleByAdamState("-", names, names), ScaleByLearningRateState("-")


def test_map_params_of_adam_is_that_of_optax():
    ours, theirs = named(gradtx.scale_by_adam()), named_by_optax(optax.scale_by_adam())
    assert tuple(ours) == tuple(theirs)
    assert tuple(named(optax.scale_by_adam())) == tuple(theirs)


def named_by_optax(tx):
    return optax.tree.map_params(tx, lambda value, name: name, tx.init(PARAMS), NAMES, transform_non_params=lambda value: "-")


CASES = {
    "adam": (lambda: gradtx.adam(1e-3), adam_state(NAMES)),
    "adamw with a mask": (
        lambda: gradtx.adamw(1e-3, mask=WEIGHTS),
        (adam_state(NAMES)[0], WeightDecayState(), adam_state(NAMES)[1]),
    ),
    "masked by a tree": (lambda: gradtx.masked(gradtx.adam(1e-3), WEIGHTS), MaskedState(adam_state(only("ew", "dw")))),
    "masked by a prefix": (
        lambda: gradtx.masked(gradtx.adam(1e-3), {"enc": True, "dec": False}),
        MaskedState(adam_state(only("ew", "eb"))),
    ),
    "masked by path": (
        lambda: gradtx.masked(gradtx.adam(1e-3), gradtx.by_path({".*/b": False}, default=True)),
        MaskedState(adam_state(only("ew", "dw"))),
    ),
    "masked by ndim": (
        lambda: gradtx.masked(gradtx.adam(1e-3), lambda params: jax.tree.map(lambda p: p.ndim > 1, params)),
        MaskedState(adam_state(only("ew", "dw"))),
    ),
    "masked by a function that knows the parameters": (
        lambda: gradtx.masked(gradtx.adam(1e-3), lambda params: {k: k == "enc" for k in params}),
        MaskedState(adam_state(only("ew", "eb"))),
    ),
    "partition by a tree": (
        lambda: gradtx.partition(
            {"a": gradtx.adam(1e-3), "b": gradtx.scale_by_adam(), "c": gradtx.set_to_zero()},
            {"enc": "a", "dec": {"w": "b", "b": "c"}},
        ),
        PartitionState({
            "a": MaskedState(adam_state(only("ew", "eb"))),
            "b": MaskedState(adam_state(only("dw"))[0]),
            "c": MaskedState(gradtx.EmptyState()),
        }),
    ),
    "partition by path": (
        lambda: gradtx.partition(
            {"a": gradtx.adam(1e-3), "b": gradtx.scale_by_adam()}, gradtx.by_path({"enc/.*": "a"}, default="b")
        ),
        PartitionState({
            "a": MaskedState(adam_state(only("ew", "eb"))),
            "b": MaskedState(adam_state(only("dw", "db"))[0]),
        }),
    ),
    "nothing that mirrors the parameters": (
        lambda: gradtx.chain(gradtx.masked(gradtx.scale(2.0), WEIGHTS), gradtx.scale_by_learning_rate(0.1)),
        (MaskedState(gradtx.EmptyState()), ScaleByLearningRateState("-")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_map_params_finds_the_mirrors(name):
    make, expected = CASES[name]
    assert named(make()) == expected
    assert named(InitOnly(make())) == expected


class InitOnly:
    """Something with an `init` and no more."""

    def __init__(self, tx):
        self.init = tx.init


@pytest.mark.parametrize("make", [make for name, (make, _) in CASES.items() if not name.startswith("nothing")])
def test_map_params_changes_moments_alone(make):
    tx = make()
    state = tx.init(PARAMS)
    changed = map_params(tx, lambda m: m + 1, state)
    assert jax.tree.structure(changed) == jax.tree.structure(state)
    moments, others = [], []
    map_params(tx, lambda *pair: moments.append(pair), state, transform_non_params=others.append)
    assert len(moments) + len(others) == len(jax.tree.leaves(state))
    total = sum(float(jnp.sum(x)) for x in jax.tree.leaves(changed)) - sum(float(jnp.sum(x)) for x in jax.tree.leaves(state))
    assert total == sum(m.size for (m,) in moments)
    assert all(x.shape == () for x in others)


def test_map_params_of_a_single_array_or_scalar():
    for params in (jnp.ones(()), jnp.ones(3)):
        assert named(gradtx.adam(1e-3), params, "p") == adam_state("p")
        assert named(gradtx.masked(gradtx.adam(1e-3), True), params, "p") == MaskedState(adam_state("p"))


def test_map_params_takes_init_functions_and_states_of_anything():
    tx = gradtx.adam(1e-3)
    names = named(tx)
    assert map_params(tx.init, str.upper, names)[0].mu["enc"] == {"w": "EW", "b": "EB"}
    shapes = jax.eval_shape(tx.init, PARAMS)
    assert map_params(tx, lambda s: s.shape, shapes)[0].nu["enc"] == {"w": (2, 3), "b": (3,)}
    assert map_params(
        lambda params: {"n": jnp.zeros(()), "ema": jax.tree.map(jnp.zeros_like, params)}, lambda x: 1, {"n": 0, "ema": {"a": 5}}
    ) == {"n": 0, "ema": {"a": 1}}


def test_map_params_skips_none_and_takes_is_leaf():
    tx, params = gradtx.adam(1e-3), {"w": jnp.ones(2), "gap": None, "pair": [jnp.ones(1), jnp.ones(1)]}
    state = map_params(tx, lambda m, name: name, tx.init(params), {"w": "w", "gap": None, "pair": ["a", "b"]})
    assert state[0].mu == {"w": "w", "gap": None, "pair": ["a", "b"]}
    state = map_params(
        tx, lambda m, name: name, tx.init(params), {"w": "w", "gap": "x", "pair": "both"}, is_leaf=lambda x: isinstance(x, list)
    )
    assert state[0].mu == {"w": "w", "gap": None, "pair": "both"}


def test_map_params_maps_to_none():
    tx = gradtx.adam(1e-3)
    state = map_params(tx, lambda m: None, tx.init({"a": jnp.ones(2)}), transform_non_params=lambda x: None)
    assert state == (ScaleByAdamState(None, {"a": None}, {"a": None}), ScaleByLearningRateState(None))


def test_map_params_makes_shardings():
    spec = jax.sharding.PartitionSpec
    specs = jax.tree.map(lambda p: spec("x") if p.ndim == 2 else spec(), PARAMS)
    tx = gradtx.masked(gradtx.adam(1e-3), WEIGHTS)
    state = map_params(tx, lambda _, s: s, jax.eval_shape(tx.init, PARAMS), specs, transform_non_params=lambda _: spec())
    assert get(state, "mu") == {"enc": {"w": spec("x"), "b": MASKED}, "dec": {"w": spec("x"), "b": MASKED}}
    assert get(state, "learning_rate") == spec()


def test_map_params_errors():
    tx = gradtx.adam(1e-3)
    state = tx.init(PARAMS)
    with pytest.raises(
        TypeError, match=r"initable is the class adam, expected a transformation or its init. .*call it, adam\(\.\.\.\)"
    ):
        map_params(gradtx.adam, abs, state)
    with pytest.raises(TypeError, match=r"tree.map_params: initable is 3 \(int\)"):
        map_params(3, abs, state)
    with pytest.raises(
        ValueError, match=r"tree.map_params: state has not the structure that init gives; does it belong to another optimizer"
    ):
        map_params(gradtx.scale_by_adam(), abs, state)
    with pytest.raises(
        ValueError, match=r"tree.map_params: the state and rest\[1\] differ in structure: `dec/b` is only in the state"
    ):
        map_params(tx, lambda *x: x[0], state, NAMES, {"enc": {"w": 0, "b": 0}, "dec": {"w": 0}})
    tx = gradtx.masked(gradtx.scale(2.0), WEIGHTS)
    with pytest.raises(
        ValueError, match=r"the state does not tell what the parameters were, .* mask has the path .* Pass a tree shaped like"
    ):
        map_params(tx, abs, tx.init(PARAMS))


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
