"""Which leaves of a state mirror the parameters, and what `map_params` does with them."""

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from gradtx.compose.masking import MaskedState
from gradtx.compose.partition import PartitionState
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.transforms.decay import WeightDecayState
from gradtx.transforms.scaling import ScaleByLearningRateState
from gradtx.tree.lookup import get
from gradtx.tree.mirrors import map_params

PARAMS = {"enc": {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, "dec": {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}}
NAMES = {"enc": {"w": "ew", "b": "eb"}, "dec": {"w": "dw", "b": "db"}}
WEIGHTS = {"enc": {"w": True, "b": False}, "dec": {"w": True, "b": False}}
MASKED = gradtx.MaskedNode()


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
