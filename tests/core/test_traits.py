"""How others treat a transformation follows from what its class says of it, never from the class's name."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx

PARAMS = {"a": jnp.arange(1.0, 7.0).reshape(2, 3), "b": jnp.asarray([-1.0, 2.0])}
AVERAGE = gradtx.ema_params(gradtx.sgd(0.1), 0.9)


def adding_one(name: str, **traits: Any) -> Any:
    """A class of transformations that add 1, of this name, with a field `transforms`."""

    def step(self: Any, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return jax.tree.map(lambda u: u + 1, updates), state

    fields = {"__annotations__": {"transforms": Any, "on": bool}, "transforms": (), "on": True}
    names = {"step": step, "__module__": __name__, "__qualname__": f"{name} of {sorted(traits)}", **fields}
    return types.new_class(name, (gradtx.Transformation,), traits, lambda namespace: namespace.update(names))


@pytest.mark.parametrize("name", ["identity", "monitor", "snapshot"])
def test_names_do_not_excuse_from_the_order(name: str) -> None:
    with pytest.raises(ValueError, match=rf"chain: argument 0 is ema_params\(.*, before {name}\(\)"):
        gradtx.chain(AVERAGE, adding_one(name)())


def test_what_observes_may_come_after_any_other() -> None:
    watch = adding_one("watch", observes=True)
    monitor = gradtx.monitor({"norm": gradtx.global_norm})
    tx = gradtx.chain(AVERAGE, watch(), gradtx.chain(monitor, gradtx.identity()), gradtx.named_chain(("again", watch())))
    assert len(tx.init(PARAMS)) == 4
    with pytest.raises(ValueError, match="before chain"):
        gradtx.chain(AVERAGE, gradtx.chain(watch(), gradtx.scale(2.0)))
    with pytest.raises(ValueError, match="before freeze"):
        gradtx.chain(AVERAGE, gradtx.freeze({"a": True, "b": False}))


def test_a_trait_may_depend_on_arguments() -> None:
    watch = adding_one("watch_if", observes=property(lambda self: self.on))
    gradtx.chain(AVERAGE, watch(on=True))
    with pytest.raises(ValueError, match="before watch_if"):
        gradtx.chain(AVERAGE, watch(on=False))


@pytest.mark.parametrize("name", ["trace", "scale", "chain", "masked", "partition", "identity", "set_to_zero", "muon"])
def test_names_do_not_make_parameters_frozen(name: str) -> None:
    tx = adding_one(name)()
    table = gradtx.summary(gradtx.chain(gradtx.set_to_zero(), tx), PARAMS)
    assert table.frozen == 0
    assert [row.transformations for row in table.rows] == [("set_to_zero", name)] * 2
    assert gradtx.summary(tx, PARAMS).frozen == 0


def test_what_keeps_zero_by_its_own_word() -> None:
    assert gradtx.summary(gradtx.chain(gradtx.set_to_zero(), adding_one("kept", keeps_zero=True)()), PARAMS).frozen == 8


def test_names_do_not_make_a_muon() -> None:
    with pytest.raises(ValueError, match="explain: tx has 0 muon in it, expected one"):
        gradtx.explain(adding_one("muon")(), PARAMS)


FROZEN = [
    "adam",
    "lion",
    "amsgrad",
    "radam",
    "signum",
    "adagrad",
    "adamax",
    "rmsprop",
    "novograd",
    "sgd",
    "muon",
    "adagrad_norm",
    "lbfgs",
]


@pytest.mark.parametrize("name", FROZEN)
def test_after_a_freeze_parameters_are_frozen(name: str) -> None:
    arguments = {"weight_decay": 0.0} if name == "lion" else {}
    tx = gradtx.chain(gradtx.freeze({"a": True, "b": False}), getattr(gradtx, name)(0.1, **arguments))
    assert [row.frozen for row in gradtx.summary(tx, PARAMS).rows] == [True, False]


@pytest.mark.parametrize("name", ["adamw", "lion", "novograd", "muon"])
def test_decay_moves_what_was_set_to_zero(name: str) -> None:
    tx = gradtx.chain(gradtx.set_to_zero(), getattr(gradtx, name)(0.1, weight_decay=0.1))
    assert not gradtx.summary(tx, PARAMS).rows[0].frozen


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: gradtx.accumulate(tx, 2),
        lambda tx: gradtx.skip_nonfinite(tx, 2),
        gradtx.cautious,
        lambda tx: gradtx.chain(tx, gradtx.monitor({"norm": gradtx.global_norm})),
        lambda tx: gradtx.chain(tx, gradtx.identity()),
    ],
)
def test_wrappers_keep_zero_if_what_is_inside_does(wrap: Any) -> None:
    freeze = gradtx.set_to_zero()
    assert gradtx.summary(gradtx.chain(freeze, wrap(gradtx.adam(0.1))), PARAMS).frozen == 8
    assert gradtx.summary(gradtx.chain(freeze, wrap(gradtx.adamw(0.1, weight_decay=0.1))), PARAMS).frozen == 0
