"""The table of what an optimizer does with every parameter: bytes to the last one, and who touches what."""

import io
import json
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES
from flax import nnx

import gradtx
from gradtx import by_path, summary
from gradtx.wrappers.lookahead import LookaheadParams, lookahead

PARAMS = {
    "dense": {"bias": jnp.zeros(4), "kernel": jnp.ones((3, 4))},
    "out": {"bias": jnp.zeros(2), "kernel": jnp.ones((4, 2), jnp.bfloat16)},
    "scale": jnp.ones(()),
}
STALLS = ("`out/kernel` is bfloat16 and loses small updates: see master_weights, kahan, rounded_away.",)
SMALL = {"bias": jnp.ones(2), "kernel": jnp.ones((2, 2))}
KERNELS = by_path({r".*/kernel": True}, default=False)
ADAM, DECAYING = "scale_by_adam, scale_by_learning_rate", "scale_by_adam, add_decayed_weights, scale_by_learning_rate"


def rows(tx: Any, params: Any = PARAMS) -> dict[str, Any]:
    return {row.path: row for row in summary(tx, params).rows}


def touched(tx: Any, path: str, params: Any = PARAMS) -> tuple[str, ...]:
    return rows(tx, params)[path].transformations


def test_every_factory() -> None:
    """The bytes are those of the state, and what moves a parameter after a freeze is not called frozen."""
    claimed = {}
    for name, case in CASES.items():
        tx = gradtx.chain(gradtx.set_to_zero(), case.make())
        table, state = summary(tx, SMALL), tx.init(SMALL)
        assert table.state_bytes == sum(x.nbytes for x in jax.tree.leaves(state)), name
        assert table.parameter_bytes == sum(x.nbytes for x in jax.tree.leaves(SMALL))
        if any(row.frozen for row in table.rows):
            claimed[name] = tx, case, table
    assert {"adam", "set_to_zero", "clip", "trace", "scale_by_learning_rate", "amsgrad", "radam", "signum", "adagrad"} <= set(
        claimed
    )

    def two_steps(tx: Any, case: Any) -> Any:
        step = lambda state, _: tx.update(SMALL, state, SMALL, **case.extra_for(SMALL))[::-1]  # noqa: E731
        return jax.lax.scan(step, tx.init(SMALL), None, 2)[1]

    found = jax.jit(lambda: {name: two_steps(tx, case) for name, (tx, case, _) in claimed.items()})()
    for name, (*_, table) in claimed.items():
        for row, u in zip(table.rows, jax.tree.leaves(found[name]), strict=True):
            assert not (row.frozen and np.any(u)), (name, row.path)


COPIES = {"dense/bias": 16, "dense/kernel": 48, "out/bias": 8, "out/kernel": 32, "scale": 4}  # one in float32
TEXT_BYTES = {
    "sgd": (gradtx.sgd(0.1), 0, 4),
    "momentum": (gradtx.sgd(0.1, 0.9), 1, 4),
    "adamw": (gradtx.adamw(0.1), 2, 8),
    "lbfgs": (gradtx.chain(gradtx.scale_by_lbfgs(memory_size=3)), 8, None),
    "lookahead": (gradtx.lookahead_wrapper(gradtx.adam(0.1)), 3, 12),
    "accumulated": (gradtx.accumulate(gradtx.adam(0.1), 2), 3, None),
    "injected": (gradtx.inject_hyperparams(gradtx.adam)(0.1), 2, 4 + 5 * 4 + 8),
    "optax": (optax.sgd(0.1, 0.9, accumulator_dtype=jnp.float32), 1, 0),
}


@pytest.mark.parametrize("name", TEXT_BYTES)
def test_every_parameter_has_its_own_copies(name: str) -> None:
    tx, copies, shared = TEXT_BYTES[name]
    table = summary(tx, PARAMS)
    assert table.parameters == 4 + 12 + 2 + 8 + 1
    assert {row.path: row.state_bytes for row in table.rows} == {path: copies * n for path, n in COPIES.items()}
    assert shared is None or table.shared_bytes == shared


def test_muon_keeps_one_number_for_a_matrix_and_two_for_the_rest() -> None:
    found = rows(gradtx.muon(0.1))
    for path, row in found.items():
        assert row.state_bytes == (1 if "kernel" in path else 2) * COPIES[path]
        assert row.transformations[0].startswith("muon(ema, orthogonalize, " if "kernel" in path else "muon(adamw(scale_by_adam, ")


def test_a_decay_of_zero_touches_nothing() -> None:
    assert touched(gradtx.muon(0.1), "dense/kernel") == ("muon(ema, orthogonalize, scale_by_shape, scale_by_learning_rate)",)
    assert touched(gradtx.muon(0.1), "dense/bias") == (f"muon(adamw({ADAM}))",)
    decaying = gradtx.muon(0.1, weight_decay=0.1)
    assert touched(decaying, "dense/kernel") == (
        "muon(ema, orthogonalize, scale_by_shape, add_decayed_weights, scale_by_learning_rate)",
    )
    assert touched(decaying, "dense/bias") == (f"muon(adamw({ADAM}))",)
    assert touched(gradtx.adamw(0.1, weight_decay=0.0, mask=KERNELS), "dense/kernel") == (f"adamw({ADAM})",)
    assert summary(gradtx.muon(0.1), PARAMS).notes == summary(decaying, PARAMS).notes == STALLS
    scheduled = gradtx.adamw(0.1, weight_decay=gradtx.constant_schedule(0.0))
    assert touched(scheduled, "scale") == (f"adamw({DECAYING})",)


def test_matrices_over_all_parameters_are_shared() -> None:
    n = 4 + 12 + 2 + 8 + 1
    assert summary(gradtx.scale_by_bfgs(), PARAMS).shared_bytes >= 4 * n * n
    found = rows(gradtx.adagrad_full_matrix(0.1))  # a matrix for each parameter: its own
    assert {path: row.state_bytes for path, row in found.items()} == {path: b * b // 4 for path, b in COPIES.items()}


def test_masks_show() -> None:
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1, mask=KERNELS))
    assert touched(tx, "dense/kernel") == ("clip_by_global_norm", f"adamw({DECAYING})")
    assert touched(tx, "dense/bias") == ("clip_by_global_norm", f"adamw({ADAM})")


def test_what_nothing_touches_is_noted() -> None:
    table = summary(gradtx.masked(gradtx.adam(0.1), KERNELS), PARAMS)
    found = {row.path: row for row in table.rows}
    assert found["out/kernel"].transformations == (f"adam({ADAM})",)
    assert found["out/kernel"].state_bytes == 64
    assert found["scale"].transformations == ()
    assert found["scale"].state_bytes == 0
    assert table.frozen == 0
    assert (
        table.notes
        == tuple(
            f"nothing touches `{path}`: its gradient passes as its update, uphill." for path in ("dense/bias", "out/bias", "scale")
        )
        + STALLS
    )
    inside = gradtx.lookahead_wrapper(gradtx.masked(gradtx.adam(0.1), KERNELS))  # has slow weights of the others
    assert touched(inside, "scale") == ("lookahead_wrapper",)


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.chain(gradtx.sgd(0.1), gradtx.freeze(KERNELS)),
        gradtx.selective_transform(gradtx.adam(0.1), freeze_mask=KERNELS),
        gradtx.partition({"stay": gradtx.set_to_zero(), "go": gradtx.adam(0.1)}, by_path({".*kernel": "stay"}, default="go")),
        gradtx.chain(gradtx.freeze(KERNELS), gradtx.sgd(0.1, 0.9)),
    ],
    ids=lambda tx: repr(tx)[:20],
)
def test_frozen_parameters(tx: Any) -> None:
    """Said of those whose updates are zero, and of no other."""
    table, state = summary(tx, PARAMS), tx.init(PARAMS)
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    updates, state = tx.update(ones, state, PARAMS)
    updates, _ = tx.update(ones, state, PARAMS)
    still = [not np.any(u) for u in jax.tree.leaves(updates)]
    assert [row.frozen for row in table.rows] == still
    assert any(still)
    assert table.frozen == 12 + 8
    assert "27 parameters, 20 of them frozen" in str(table)


def test_what_is_added_after_zero_does_not_stay() -> None:
    assert not rows(gradtx.chain(gradtx.set_to_zero(), gradtx.add_decayed_weights(0.1)))["scale"].frozen
    assert rows(gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.set_to_zero()))["scale"].frozen
    assert not rows(gradtx.chain(gradtx.set_to_zero(), gradtx.sam_wrapper(gradtx.sgd(0.1))))[
        "scale"
    ].frozen  # asks for new gradients
    assert rows(gradtx.sam_wrapper(gradtx.chain(gradtx.sgd(0.1), gradtx.set_to_zero())))["scale"].frozen


def test_labels_and_masks_without_parameters_are_noted() -> None:
    tx = gradtx.partition({"a": gradtx.adam(0.1), "b": gradtx.sgd(0.1)}, lambda params: jax.tree.map(lambda _: "a", params))
    assert summary(gradtx.lookahead_wrapper(tx), PARAMS).notes == ("partition: no parameter has the label 'b'.", *STALLS)
    nowhere = by_path({}, default=False)
    assert summary(gradtx.chain(gradtx.sgd(0.1), gradtx.freeze(nowhere)), PARAMS).notes == (
        "freeze: set_to_zero touches no parameter.",
        *STALLS,
    )
    idle = "add_decayed_weights: its mask is True for no parameter."
    assert summary(gradtx.adamw(0.1, mask=nowhere), PARAMS).notes == (idle, *STALLS)
    with pytest.raises(ValueError, match=r"by_path: the pattern 'kernel' matches no parameter"):
        summary(gradtx.freeze(by_path({"kernel": True}, default=False)), PARAMS)


def test_other_libraries_are_noted() -> None:
    table = summary(gradtx.chain(optax.clip(1.0), gradtx.masked(optax.trace(0.9), KERNELS)), PARAMS)
    assert (
        table.notes
        == tuple(
            f"{outer} has {inner} in it, which is no transformation of gradtx: which parameters it touches is not known."
            for outer, inner in (("chain", "clip"), ("masked", "trace"))
        )
        + STALLS
    )
    assert [row.state_bytes for row in table.rows] == [0, 48, 0, 16, 0]
    note, stalls = summary(optax.sgd(0.1), PARAMS).notes
    assert stalls == STALLS[0]
    assert note.startswith("tx is chain, which is no transformation of gradtx")


def test_models_of_every_host() -> None:
    shapes = jax.eval_shape(nn.Dense(2).init, jax.random.key(0), jnp.ones((1, 3)))["params"]
    assert list(rows(gradtx.adam(0.1), shapes)) == ["bias", "kernel"]
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    assert {p: r.state_bytes for p, r in rows(gradtx.adam(0.1), nnx.state(model, nnx.Param)).items()} == {"bias": 16, "kernel": 48}
    mlp = eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0))
    arrays = eqx.filter(mlp, eqx.is_inexact_array)
    assert rows(gradtx.adam(0.1), arrays)["layers/1/weight"].state_bytes == 24
    with pytest.raises(TypeError, match=r"summary: params leaf `activation` is .*, expected a floating or complex array"):
        summary(gradtx.adam(0.1), mlp)
    with pytest.raises(TypeError, match="summary: params is a Linear, expected a tree of arrays"):
        summary(gradtx.adam(0.1), model)


def test_single_and_absent_parameters() -> None:
    masked = {"a": gradtx.MaskedNode(), "b": jnp.ones(2), "c": gradtx.MaskedNode(), "d": jnp.ones(3)}
    assert {path: row.state_bytes for path, row in rows(gradtx.adam(0.1), masked).items()} == {"b": 16, "d": 24}
    assert rows(gradtx.adam(0.1), jnp.ones(3))["(root)"].state_bytes == 24
    assert rows(gradtx.scale_by_lbfgs(memory_size=2), jnp.ones(3))["(root)"].state_bytes == 6 * 12
    assert list(rows(gradtx.adam(0.1), [None, 2.0])) == ["1"]
    empty = summary(gradtx.adam(0.1), {})
    assert (empty.rows, empty.state_bytes, empty.state_bytes_per_parameter) == ((), 8, 8)
    assert "total" in str(empty)


def test_both_versions_of_lookaheads_parameters() -> None:
    found = rows(lookahead(gradtx.adam(0.1), 5, 0.5), LookaheadParams.init_synced({"w": jnp.ones(3)}))
    assert found["fast/w"].transformations == (f"lookahead(adam({ADAM}))",)
    assert found["slow/w"].transformations == ("lookahead",)


def test_nothing_is_allocated() -> None:
    shapes = {"w": jax.ShapeDtypeStruct((1 << 20, 1 << 20), jnp.float32)}  # 4 TiB
    table = summary(gradtx.adamw(0.1), shapes)
    assert table.state_bytes == 2 * 4 * 2**40 + 8
    assert table.state_bytes_per_parameter == pytest.approx(8)


def test_the_same_inside_jit_and_under_another_watch() -> None:
    expected = summary(gradtx.adam(0.1), PARAMS)
    found = []
    jax.jit(lambda params: found.append(summary(gradtx.adam(0.1), params)))(PARAMS)
    assert found == [expected]


def test_the_dict_is_json() -> None:
    table = summary(gradtx.adamw(0.1), PARAMS)
    again = json.loads(json.dumps(table.as_dict()))
    assert again == table.as_dict()
    assert again["state_bytes"] == 8 + 2 * sum(COPIES.values())
    assert again["rows"][1] == {
        "path": "dense/kernel",
        "shape": [3, 4],
        "dtype": "float32",
        "transformations": [f"adamw({DECAYING})"],
        "nbytes": 48,
        "state_bytes": 96,
        "frozen": False,
    }


def test_text_and_rich_show_the_same() -> None:
    from rich.console import Console

    table = summary(gradtx.chain(gradtx.sgd(0.1), gradtx.freeze(by_path({"scale": True}, default=False))), PARAMS)
    text = str(table)
    assert repr(table) == text
    assert max(map(len, text.splitlines())) < 100
    below = f"{text.splitlines()[-2]}\nNote: {STALLS[0]}"
    assert text.endswith(f"[2] sgd(scale_by_learning_rate), set_to_zero: frozen\n{below}")
    out = io.StringIO()
    Console(file=out, width=120).print(table)
    drawn = out.getvalue()
    for word in text.replace("-", " ").split():
        assert word in drawn, word


def test_it_is_a_value() -> None:
    first, second = (summary(gradtx.adam(rate), PARAMS) for rate in (0.1, 0.2))
    assert first == second  # neither is a table of rates
    assert hash(first) == hash(second)
    assert first != summary(gradtx.sgd(0.1), PARAMS)
    with pytest.raises(AttributeError):
        first.shared_bytes = 3  # type: ignore[misc]


def test_a_factory_that_was_not_called() -> None:
    with pytest.raises(TypeError, match=r"summary: tx is the class adam, expected a gradient transformation.* call it, adam\("):
        summary(gradtx.adam, PARAMS)
