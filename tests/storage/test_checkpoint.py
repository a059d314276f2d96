"""States saved, edited optimizers, and what goes wrong: `state_dict`, `load_state`, `reset`."""

import json
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, Case
from flax import nnx

import gradtx
from gradtx.storage.checkpoint import SCHEMA

GOLDEN = Path(__file__).parent.parent / "golden" / "checkpoint_1.npz"
PARAMS = {
    "dense": {"kernel": jnp.linspace(0.1, 0.6, 6).reshape(3, 2), "bias": jnp.asarray([0.5, 0.25])},
    "scalar": jnp.float32(0.75),
}


def after(tx: Any, steps: int = 2, params: Any = PARAMS, **extra: Any) -> Any:
    """The state after some steps."""
    state = tx.init(params)
    for i in range(steps):
        _, state = tx.update(jax.tree.map(lambda p: jnp.sin(p + i), params), state, params, **extra)  # noqa: B023
    return state


def bits(state: Any) -> list[Any]:
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x) for x in jax.tree.leaves(state)
    ]


def assert_same(state: Any, other: Any) -> None:
    assert jax.tree.structure(state) == jax.tree.structure(other)
    for x, y in zip(bits(state), bits(other), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def stored(saved: Any, tmp_path: Path) -> Any:
    """As NumPy's file gives it back."""
    texts = {key: value for key, value in saved.items() if key != "leaves"}
    np.savez(tmp_path / "state.npz", **texts, **{f"leaves/{name}": x for name, x in saved["leaves"].items()})
    return read(tmp_path / "state.npz")


def read(path: Path) -> Any:
    with np.load(path) as file:
        leaves = {name.removeprefix("leaves/"): file[name] for name in file if name.startswith("leaves/")}
        return {name: file[name][()] for name in file if not name.startswith("leaves/")} | {"leaves": leaves}


def one_more(x: jax.Array) -> jax.Array:
    """Where the array is, which may be the host's memory."""
    return jax.device_put((np.asarray(x) + np.ones((), x.dtype)).astype(x.dtype), x.sharding)


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_every_row_is_read_as_it_was_written(case: Case, tmp_path: Path) -> None:
    tx = case.make()
    state = tx.init(PARAMS)
    state = jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else one_more(x), state)
    saved = gradtx.state_dict(tx, state)
    assert len(saved["leaves"]) == len(jax.tree.leaves(state))
    loaded = gradtx.load_state(tx, PARAMS, stored(saved, tmp_path))
    assert_same(loaded.state, state)
    assert set(loaded.carried) == set(saved["leaves"])
    assert loaded.initialized == loaded.dropped == ()
    assert [x.sharding.memory_kind for x in jax.tree.leaves(loaded.state)] == [
        x.sharding.memory_kind for x in jax.tree.leaves(state)
    ]


def test_what_is_in_a_checkpoint() -> None:
    tx = gradtx.chain(gradtx.add_noise(0.1, 0.5, key=1), gradtx.adamw(gradtx.linear_schedule(1.0, 0.0, 9)))
    saved = gradtx.state_dict(tx, tx.init(PARAMS))
    assert saved["version"] == SCHEMA == 1
    assert saved["optimizer"] == repr(tx)
    assert gradtx.from_config(json.loads(saved["config"])) == tx
    assert sorted(saved["leaves"]) == [
        "add_noise/count",
        "learning_rate",
        *(f"{moment}/{path}" for moment in ("mu", "nu") for path in ("dense/bias", "dense/kernel", "scalar")),
        "rng_key",
        "scale_by_adam/count",
        "scale_by_learning_rate/count",
    ]
    assert saved["leaves"]["rng_key"].dtype == jnp.uint32


def test_functions_that_are_no_values_leave_the_config_empty() -> None:
    tx = gradtx.adamw(lambda step: 0.1)
    assert gradtx.state_dict(tx, tx.init(PARAMS))["config"] == '""'


def test_shapes_give_shapes() -> None:
    tx = gradtx.chain(gradtx.add_noise(0.1, 0.5, key=1), gradtx.sgd(0.1))
    shapes = gradtx.state_dict(tx, jax.eval_shape(tx.init, PARAMS))["leaves"]
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, gradtx.state_dict(tx, tx.init(PARAMS))["leaves"])


ADAMW = gradtx.adamw(0.1)
EDITS = {
    "a clip in front": gradtx.chain(gradtx.clip_by_global_norm(1.0), ADAMW),
    "a schedule": gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 9)),
    "other numbers": gradtx.adamw(0.2, b1=0.8, weight_decay=0.1, mask=gradtx.by_path({".*bias": False}, default=True)),
    "slow weights": gradtx.lookahead_wrapper(ADAMW),
    "an average around a guard": gradtx.skip_nonfinite(gradtx.ema_params(ADAMW, 0.9)),
    "accumulation": gradtx.accumulate(ADAMW, 4),
    "sharpness": gradtx.sam_wrapper(ADAMW, 0.1),
    "rates in the state": gradtx.inject_hyperparams(gradtx.adamw)(learning_rate=0.1),
    "names": gradtx.named_chain(("clip", gradtx.clip(1.0)), ("adam", ADAMW)),
    "links": gradtx.chain(
        gradtx.scale_by_adam(), gradtx.trace(0.5), gradtx.add_decayed_weights(1e-4), gradtx.scale_by_learning_rate(0.1)
    ),
    "one group of parameters": gradtx.partition({"all": ADAMW}, lambda params: jax.tree.map(lambda p: "all", params)),
    "half-precision moments": gradtx.adamw(0.1, mu_dtype="bfloat16"),
}


@pytest.mark.parametrize("tx", EDITS.values(), ids=EDITS)
def test_an_edited_chain_keeps_its_moments_there_and_back(tx: Any) -> None:
    old = after(ADAMW)
    there = gradtx.load_state(tx, PARAMS, gradtx.state_dict(ADAMW, old), missing="init")
    assert there.dropped == ()
    fresh = {name: np.asarray(x) for name, x in gradtx.state_dict(tx, tx.init(PARAMS))["leaves"].items()}
    for name, x in gradtx.state_dict(tx, there.state)["leaves"].items():
        if name in there.initialized:
            np.testing.assert_array_equal(x, fresh[name])
    found = {name.split("/")[-1] if name.endswith("adam/count") else name for name in there.carried}
    assert {"count", "mu/dense/kernel", "nu/dense/bias", "learning_rate"} <= found
    back = gradtx.load_state(ADAMW, PARAMS, gradtx.state_dict(tx, there.state))
    if "mu_dtype" in repr(tx):
        old = jax.tree.map(lambda x: x, old)
        old = (old[0]._replace(mu=jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), old[0].mu)), *old[1:])
    assert_same(back.state, old)
    assert len(back.dropped) == len(fresh) - len(jax.tree.leaves(old))


def test_groups_keep_their_own_moments() -> None:
    groups = gradtx.partition({"a": ADAMW, "b": gradtx.sgd(0.1, 0.9)}, gradtx.by_path({".*bias": "b"}, default="a"))
    loaded = gradtx.load_state(groups, PARAMS, gradtx.state_dict(ADAMW, after(ADAMW)), missing="init")
    assert loaded.carried == ("count", "mu/dense/kernel", "mu/scalar", "nu/dense/kernel", "nu/scalar", "a/learning_rate")
    assert loaded.initialized == ("trace/dense/bias", "b/learning_rate")
    assert loaded.dropped == ("mu/dense/bias", "nu/dense/bias")
    assert str(loaded).splitlines()[1:] == [
        "initialized: trace/dense/bias, b/learning_rate",
        "dropped: mu/dense/bias, nu/dense/bias",
    ]


def test_of_several_equals_none_is_guessed() -> None:
    one = gradtx.chain(gradtx.trace(0.9), gradtx.scale(-0.1))
    two = gradtx.chain(gradtx.trace(0.5), gradtx.trace(0.9), gradtx.scale(-0.1))
    saved = gradtx.state_dict(one, after(one))
    with pytest.raises(ValueError, match=r"lacks `trace-1/trace/dense/bias`, .* and has `trace/dense/bias`, "):
        gradtx.load_state(two, PARAMS, saved)
    loaded = gradtx.load_state(two, PARAMS, saved, missing="init", rename={"(.*)": r"trace-2/\1"})
    np.testing.assert_array_equal(loaded.state[1].trace["scalar"], after(one)[0].trace["scalar"])
    assert not loaded.state[0].trace["scalar"]
    again = gradtx.load_state(two, PARAMS, gradtx.state_dict(two, loaded.state))
    assert_same(again.state, loaded.state)


def test_renamed_layers_and_a_count_for_two() -> None:
    new = {"block": PARAMS["dense"], "scalar": PARAMS["scalar"]}
    tx = gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 9))
    rename = {"(mu|nu)/dense/(.*)": r"\1/block/\2", "count": ["scale_by_adam/count", "scale_by_learning_rate/count"]}
    old = after(ADAMW)
    loaded = gradtx.load_state(tx, new, gradtx.state_dict(ADAMW, old), rename=rename)
    assert int(loaded.state[0].count) == int(loaded.state[2].count) == 2
    np.testing.assert_array_equal(loaded.state[0].mu["block"]["kernel"], old[0].mu["dense"]["kernel"])
    step = jax.jit(lambda grads, state: tx.update(grads, state, new), donate_argnums=1)
    step(new, loaded.state)  # no array is there twice, nor one of the old state
    assert all(not x.is_deleted() for x in jax.tree.leaves(old))


def test_a_schedule_in_the_place_of_a_constant_goes_on_at_the_step_count() -> None:
    """Where the checkpoint has one count alone, and nothing else of the link is missing."""
    rate, old = gradtx.linear_schedule(0.1, 0.0, 9), after(ADAMW)
    saved = gradtx.state_dict(ADAMW, old)
    loaded = gradtx.load_state(gradtx.adamw(rate, weight_decay=rate), PARAMS, saved)
    counts = {
        name: int(x)
        for name, x in gradtx.state_dict(gradtx.adamw(rate, weight_decay=rate), loaded.state)["leaves"].items()
        if name.endswith("count")
    }
    assert counts == {"scale_by_adam/count": 2, "add_decayed_weights/count": 2, "scale_by_learning_rate/count": 2}
    average = gradtx.chain(gradtx.ema(0.9), ADAMW)  # its count is of its own sums, which begin here
    assert int(gradtx.load_state(average, PARAMS, saved, missing="init").state[0].count) == 0
    two = gradtx.chain(gradtx.trace(0.9), gradtx.scale_by_learning_rate(0.1))
    without = gradtx.load_state(
        gradtx.chain(gradtx.trace(0.9), gradtx.scale_by_learning_rate(rate)),
        PARAMS,
        gradtx.state_dict(two, after(two)),
        missing="init",
    )
    assert without.initialized == ("count",)
    dropped = gradtx.load_state(gradtx.adamw(rate), PARAMS, saved, missing="init", rename={"count": None})
    assert dropped.initialized == ("scale_by_adam/count", "scale_by_learning_rate/count")


def test_what_is_left_out_starts_anew() -> None:
    loaded = gradtx.load_state(ADAMW, PARAMS, gradtx.state_dict(ADAMW, after(ADAMW)), missing="init", rename={".*bias": None})
    assert loaded.initialized == loaded.dropped == ("mu/dense/bias", "nu/dense/bias")
    assert not loaded.state[0].mu["dense"]["bias"].any()


def test_another_optimizer_of_the_same_structure_is_refused() -> None:
    saved = gradtx.state_dict(ADAMW, after(ADAMW))
    nadamw = gradtx.nadamw(0.1)
    text = (
        r"load_state: the checkpoint is of another optimizer: its `count` belongs to adamw > scale_by_adam, that of tx to "
        r"nadamw > scale_by_adam\.\n  checkpoint: adamw\(learning_rate=0\.1\)\n  tx: nadamw\(learning_rate=0\.1\)\n"
        r"If that is meant, carry it over by name: rename=\{'\.\*': r'\\g<0>'\}\.$"
    )
    for missing in ("error", "init"):
        with pytest.raises(ValueError, match=text):
            gradtx.load_state(nadamw, PARAMS, saved, missing=missing)
    assert_same(gradtx.load_state(nadamw, PARAMS, saved, rename={".*": r"\g<0>"}).state, after(ADAMW))
    for other in (gradtx.adamax(0.1), gradtx.sgd(0.1)):
        with pytest.raises(ValueError, match="of another optimizer"):
            gradtx.load_state(other, PARAMS, saved, missing="init")


def test_another_kernel_is_no_place_for_moments() -> None:
    adam, adamax = gradtx.scale_by_adam(), gradtx.scale_by_adamax()
    with pytest.raises(ValueError, match=r"(?s)the checkpoint lacks `count`, `mu/dense/bias`, .* tx: scale_by_adamax\(\)"):
        gradtx.load_state(adamax, PARAMS, gradtx.state_dict(adam, after(adam)))


def saved_adamw(**changed: Any) -> Any:
    saved = gradtx.state_dict(ADAMW, after(ADAMW))
    return {key: changed.get(key, value) for key, value in saved.items()}


def cut(saved: Any, *names: str) -> Any:
    return saved | {"leaves": {name: x for name, x in saved["leaves"].items() if name not in names}}


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "no dict": ((1, 2), TypeError, r"load_state: saved is a tuple of 2, expected what gradtx\.state_dict gives\."),
    "another dict": ({"params": 1}, TypeError, "load_state: saved is a dict with keys 'params', expected what"),
    "newer": (
        {"version": 2, "leaves": {}},
        ValueError,
        r"load_state: saved has the version 2, but this gradtx reads up to 1: a newer one",
    ),
    "no entries": (
        {"version": 1, "leaves": {}},
        TypeError,
        "load_state: saved lacks `optimizer`, `config`, `entries`, expected what",
    ),
    "half a text": (
        saved_adamw(entries='{"count'),
        ValueError,
        r"load_state: the text saved\['entries'\] is cut short or was changed: ",
    ),
    "cut short": (
        cut(saved_adamw(), "count", "mu/scalar"),
        ValueError,
        "load_state: saved is cut short: it lacks `count`, `mu/scalar`, which",
    ),
    "foreign": (
        saved_adamw(entries="{}"),
        ValueError,
        r"load_state: saved has `count`, .* and 3 more, which no state_dict wrote\.",
    ),
}


@pytest.mark.parametrize(("saved", "error", "text"), WRONG.values(), ids=WRONG)
def test_what_is_no_whole_checkpoint_is_refused(saved: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{text}"):
        gradtx.load_state(ADAMW, PARAMS, saved)


def test_shapes_and_kinds_of_numbers_must_fit() -> None:
    saved = saved_adamw()
    wide = {**PARAMS, "scalar": jnp.zeros(3)}
    text = r"the checkpoint's `mu/scalar` has shape \(\), expected \(3,\), .* rename=\{'mu/scalar': None\} and missing='init'"
    with pytest.raises(ValueError, match=text):
        gradtx.load_state(ADAMW, wide, saved)
    saved["leaves"]["count"] = jnp.float32(1.0)
    with pytest.raises(ValueError, match="the checkpoint's `count` has dtype float32, expected int32"):
        gradtx.load_state(ADAMW, PARAMS, saved)


RENAMINGS = {
    "(": r"rename has '\(', which is no regular expression: ",
    "mu/dens/.*": r"rename has 'mu/dens/\.\*', which matches no name of the checkpoint: `count`, ",
    "mu/(.*)": r"rename makes 'mu/dense/bias' 'mo/dense/bias', which the state of tx has not: .*Did you mean 'mu/dense/bias'\?",
    "(mu|nu)/scalar": r"rename makes both 'mu/scalar' and 'nu/scalar' 'mu/scalar'\.",
    "count": r"rename has 'count': '\\\\1', whose replacement does not fit the pattern: ",
}
REPLACEMENTS = {"mu/(.*)": r"mo/\1", "(mu|nu)/scalar": "mu/scalar", "count": r"\1"}


@pytest.mark.parametrize(("pattern", "text"), RENAMINGS.items())
def test_renamings_that_fit_nothing_are_refused(pattern: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"load_state: {text}"):
        gradtx.load_state(ADAMW, PARAMS, saved_adamw(), rename={pattern: REPLACEMENTS.get(pattern, "x")})


def test_a_missing_array_says_what_to_do() -> None:
    text = r"(?s)the checkpoint lacks `steps`, `clipped`, `norm`\.\n  checkpoint: adamw.*missing='init' takes them from tx\.init\(params\)"
    with pytest.raises(ValueError, match=text):
        gradtx.load_state(EDITS["a clip in front"], PARAMS, saved_adamw())
    with pytest.raises(
        TypeError, match=r"load_state: missing is 'int' \(str\), expected one of 'error', 'init'\. Did you mean 'init'"
    ):
        gradtx.load_state(ADAMW, PARAMS, saved_adamw(), missing="int")


def test_states_of_other_transformations_are_refused() -> None:
    text = "state_dict > scale_by_adam: state is a ScaleByLearningRateState, expected ScaleByAdamState; does it belong to another"
    with pytest.raises(TypeError, match=text):
        gradtx.state_dict(ADAMW, tuple(reversed(ADAMW.init(PARAMS))))
    with pytest.raises(TypeError, match=r"state_dict > chain: state is a tuple of 2, expected the state of chain\(scale_by_adam"):
        gradtx.state_dict(ADAMW, ADAMW.init(PARAMS)[:2])


def test_reset_of_a_part() -> None:
    state = gradtx.reset(ADAMW, PARAMS, after(ADAMW), "(mu|nu)/dense/.*")
    old = after(ADAMW)
    assert not state[0].nu["dense"]["kernel"].any()
    assert state[0].mu["scalar"] == old[0].mu["scalar"]
    assert state[0].count == 2
    with pytest.raises(
        ValueError, match=r"reset: path is 'mu/dense/bas', which matches no name .*: `count`, .* Did you mean 'mu/dense/bias'\?"
    ):
        gradtx.reset(ADAMW, PARAMS, old, "mu/dense/bas")
    with pytest.raises(ValueError, match=r"reset: path has '\*', which is no regular expression"):
        gradtx.reset(ADAMW, PARAMS, old, "*")


def test_optax_states_have_names_too() -> None:
    tx = gradtx.chain(gradtx.clip(1.0), optax.adam(0.1))
    saved = gradtx.state_dict(tx, after(tx))
    assert {"count", "mu/dense/kernel"} <= set(saved["leaves"])
    assert_same(gradtx.load_state(gradtx.chain(optax.adam(0.1)), PARAMS, saved).state, after(tx)[1:])


def test_states_of_nnx() -> None:
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    tx = gradtx.adamw(0.1)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    saved = gradtx.state_dict(tx, optimizer.opt_state)
    assert set(saved["leaves"]) == {"count", "mu/kernel", "mu/bias", "nu/kernel", "nu/bias", "learning_rate"}
    other = nnx.Optimizer(model, tx, wrt=nnx.Param)
    loaded = gradtx.load_state(tx, nnx.state(model, nnx.Param), pickle.loads(pickle.dumps(saved))).state
    other.opt_state = jax.tree.unflatten(jax.tree.structure(other.opt_state), jax.tree.leaves(loaded))
    other.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    assert gradtx.state_dict(tx, other.opt_state)["leaves"]["count"] == 2


def golden_transformation() -> Any:
    """Everything that is stored in its own way: groups, equals, keys, bfloat16, a schedule."""
    adam = gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 9), mu_dtype="bfloat16")
    sgd = gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.5), gradtx.add_noise(0.1, 0.5, key=1), gradtx.scale_by_learning_rate(0.1))
    tx = gradtx.partition({"a": adam, "b": sgd}, gradtx.by_path({".*bias": "b"}, default="a"))
    return gradtx.skip_nonfinite(gradtx.ema_params(gradtx.chain(gradtx.clip_by_global_norm(1.0), tx), 0.9))


def test_a_checkpoint_of_the_first_form_is_read() -> None:
    """Written by `python tests/storage/test_checkpoint.py`, once; every later gradtx reads it."""
    tx, saved = golden_transformation(), read(GOLDEN)
    loaded = gradtx.load_state(tx, PARAMS, saved)
    for x, y in zip(bits(loaded.state), bits(after(tx)), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x.astype(np.float64), y.astype(np.float64), rtol=1e-6 if x.dtype.itemsize > 2 else 1e-2)


if __name__ == "__main__":
    assert not GOLDEN.exists(), "what users have is not written again"
    saved = gradtx.state_dict(golden_transformation(), after(golden_transformation()))
    leaves = {f"leaves/{name}": x for name, x in saved.pop("leaves").items()}
    np.savez(GOLDEN, **saved, **leaves)
