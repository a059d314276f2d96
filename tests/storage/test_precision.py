"""Half-precision parameters that lose no step: masters, compensation, rounding at random, and what is seen of losses."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from oracles import follow, rate

import gradtx
from gradtx.storage.precision import KahanState, MasterWeightsState

BF16, F16 = jnp.bfloat16, jnp.float16
FORMS = ("float32", "int16", "int8")
RNG = np.random.default_rng(1)


def tree(dtype: Any = BF16) -> dict[str, Any]:
    """Half precision beside float32, a scalar, an empty and a missing leaf."""
    kernel = jnp.asarray(RNG.normal(size=(8, 16)) * 0.1, dtype)
    return {
        "kernel": kernel,
        "bias": jnp.linspace(-1, 1, 8),
        "scale": jnp.asarray(1.0, dtype),
        "empty": jnp.zeros((0, 3), dtype),
        "none": None,
    }


def gradients(params: Any, steps: int, dtype: Any = None) -> list[Any]:
    def one(p: Any) -> Any:
        return jnp.asarray(RNG.normal(size=p.shape), dtype or p.dtype)

    return [jax.tree.map(one, params) for _ in range(steps)]


def run(tx: Any, params: Any, grads: list[Any], apply: Any = gradtx.apply_updates) -> tuple[Any, Any]:
    state = tx.init(params)

    @jax.jit
    def step(params: Any, state: Any, g: Any) -> Any:
        updates, state = tx.update(g, state, params)
        return apply(params, updates), state

    for g in grads:
        params, state = step(params, state, g)
    return params, state


def wide(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def assert_equal(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


# Masters

ADAMW = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(gradtx.cosine_decay_schedule(1e-2, 40), weight_decay=0.1))


@pytest.mark.parametrize("apply", [gradtx.apply_updates, optax.apply_updates])
def test_masters_are_the_float32_run_and_parameters_are_their_rounding(apply: Any) -> None:
    params = tree()
    grads = gradients(params, 20, jnp.float32)
    moved, state = run(gradtx.master_weights(ADAMW), params, grads, apply)
    expected, _ = run(ADAMW, wide(params), grads)
    for name in ("kernel", "scale"):
        np.testing.assert_allclose(state.masters[name], expected[name], rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(moved[name], state.masters[name].astype(BF16))
    np.testing.assert_allclose(moved["bias"], expected["bias"], rtol=1e-6)
    assert state.masters["bias"] == gradtx.MaskedNode()


def test_parameters_are_the_rounded_masters_after_every_step() -> None:
    """With gradients, and so updates, of half precision: unless a parameter halves in one step, or changes its sign."""
    params = tree()
    tx = gradtx.master_weights(gradtx.sgd(1e-2))
    state = tx.init(params)
    for g in gradients(params, 30):
        updates, state = tx.update(g, state, params)
        assert updates["kernel"].dtype == BF16
        before, params = params, gradtx.apply_updates(params, updates)
        master = state.masters["kernel"]
        exact = params["kernel"] == master.astype(BF16)
        ratio = np.asarray(master / before["kernel"].astype(jnp.float32))
        assert np.all(exact | (ratio < 0.5) | (ratio > 2))
        off = jnp.abs(params["kernel"].astype(jnp.float32) - master)
        # The master, the update and the parameter are each rounded once.
        assert np.all(off <= 2.0**-8 * (3 * jnp.abs(master) + jnp.abs(before["kernel"].astype(jnp.float32))))


def test_int16_makes_the_same_masters_in_half_the_memory() -> None:
    params = tree()
    grads = gradients(params, 30, jnp.float32)
    full, split = (run(gradtx.master_weights(gradtx.adamw(1e-3), form), params, grads) for form in ("float32", "int16"))
    np.testing.assert_array_equal(full[0]["kernel"], split[0]["kernel"])
    sizes = [sum(x.nbytes for x in jax.tree.leaves(state.masters)) for _, state in (full, split)]
    assert sizes == [129 * 4, 129 * 2]


def test_int8_is_within_its_24_bits_of_float64() -> None:
    params = {"w": jnp.asarray(RNG.normal(size=200), BF16)}
    moved, _ = run(
        gradtx.master_weights(gradtx.sgd(1e-3), "int8"), params, [{"w": jnp.sin(jnp.arange(200.0) + t)} for t in range(50)]
    )
    start = {"w": np.asarray(params["w"], np.float64)}
    count = iter(range(50))
    expected = follow(lambda p: {"w": np.sin(np.arange(200.0) + next(count))}, start, 50, rate(1e-3))["w"][-1]
    off = np.abs(np.asarray(moved["w"], np.float64) - expected)
    assert np.all(off <= 1.01 * 2.0**-9 * np.maximum(np.abs(expected), 2.0**-9) * 2 + 50 * 2.0**-16 * np.abs(expected))


@pytest.mark.parametrize("form", FORMS)
def test_a_thousand_small_steps_arrive(form: str) -> None:
    """Plain bfloat16 stays at 1.0 under AdamW at 1e-3."""
    params, grads = {"w": jnp.ones(4, BF16)}, [{"w": jnp.ones(4, BF16)}] * 500
    still, _ = run(gradtx.adamw(1e-3), params, grads)
    np.testing.assert_array_equal(still["w"], np.ones(4))
    expected, _ = run(gradtx.adamw(1e-3), wide(params), grads)
    moved, _ = run(gradtx.master_weights(gradtx.adamw(1e-3), form), params, grads)
    rtol = 2.0**-6 if form == "int8" else 2.0**-8  # 500 equal steps, rounded to 24 bits alike
    np.testing.assert_allclose(moved["w"].astype(jnp.float32), expected["w"], rtol=rtol)


@pytest.mark.parametrize("form", FORMS)
def test_parameters_that_cross_zero_with_gradients_of_half_precision(form: str) -> None:
    """Updates in half precision do not reach every rounded master, 0 among them."""
    params = {"w": jnp.asarray(RNG.normal(size=2000) * 1e-2, BF16)}
    grads = [{"w": jnp.asarray(RNG.normal(size=2000), BF16)} for _ in range(100)]
    moved, _ = run(gradtx.master_weights(gradtx.sgd(3e-3), form), params, grads)
    expected, _ = run(gradtx.sgd(3e-3), wide(params), [wide(g) for g in grads])
    off = moved["w"].astype(jnp.float32) - expected["w"]
    assert float(jnp.max(jnp.abs(off))) < 4e-4
    assert float(jnp.sqrt(jnp.mean(off**2))) < 7e-5


@pytest.mark.parametrize("form", FORMS)
def test_float16_parameters_have_float32_masters(form: str) -> None:
    params = {"w": jnp.asarray([1.0, 3e-5, -6e-8, 0.0], F16)}
    moved, state = run(gradtx.master_weights(gradtx.sgd(1e-6), form), params, [{"w": jnp.ones(4, jnp.float32)}] * 10)
    assert state.masters["w"].dtype == jnp.float32
    np.testing.assert_allclose(state.masters["w"], params["w"].astype(jnp.float32) - 1e-5, rtol=1e-5)
    np.testing.assert_array_equal(moved["w"], state.masters["w"].astype(F16))


def test_float64_masters_of_float32_parameters() -> None:
    with jax.enable_x64(True):
        params = {"w": jnp.ones(3, jnp.float32), "wide": jnp.ones(2, jnp.float64)}
        moved, state = run(gradtx.master_weights(gradtx.sgd(1e-9), "float64"), params, [jax.tree.map(jnp.ones_like, params)] * 100)
        np.testing.assert_allclose(state.masters["w"], 1 - 1e-7, rtol=1e-9)
        assert moved["w"].dtype == jnp.float32
        np.testing.assert_array_equal(moved["w"], state.masters["w"].astype(jnp.float32))


@pytest.mark.parametrize("form", FORMS)
def test_complex_and_wide_parameters_need_no_masters(form: str) -> None:
    params = {"c": jnp.ones(3, jnp.complex64) * 1j, "w": jnp.ones(3)}
    tx = gradtx.master_weights(gradtx.adam(0.1), form)
    moved, state = run(tx, params, gradients(params, 3))
    assert jax.tree.leaves(state.masters) == []
    expected, _ = run(gradtx.adam(0.1), params, [])
    assert jax.tree.structure(moved) == jax.tree.structure(expected)


def test_parameters_changed_by_hand_go_back_to_their_masters() -> None:
    params = {"w": jnp.ones(3, BF16)}
    tx = gradtx.master_weights(gradtx.sgd(0.0))
    state = tx.init(params)
    updates, _ = tx.update({"w": jnp.zeros(3, BF16)}, state, {"w": jnp.full(3, 2.0, BF16)})
    np.testing.assert_array_equal(updates["w"], -np.ones(3))


@pytest.mark.parametrize("make", [lambda tx: gradtx.master_weights(tx, "int8"), gradtx.master_weights, gradtx.kahan])
def test_a_gradient_that_is_not_finite_is_skipped_around_it_and_seen_without(make: Any) -> None:
    params = {"w": jnp.ones(3, BF16)}
    bad = {"w": jnp.asarray([jnp.nan, 1.0, jnp.inf], BF16)}
    moved, state = run(gradtx.skip_nonfinite(make(gradtx.sgd(1e-3))), params, [bad])
    np.testing.assert_array_equal(moved["w"], params["w"])
    assert_equal(state.inner_state, gradtx.skip_nonfinite(make(gradtx.sgd(1e-3))).init(params).inner_state)
    moved, _ = run(make(gradtx.sgd(1e-3)), params, [bad])
    assert np.isnan(moved["w"][0])
    assert moved["w"][1] == 1
    assert not np.isfinite(moved["w"][2])


@pytest.mark.parametrize("make", [lambda tx: gradtx.master_weights(tx, "int8"), gradtx.master_weights, gradtx.kahan])
def test_scan_vmap_and_donation_of_half_precision(make: Any) -> None:
    tx, params = make(gradtx.adamw(1e-2)), tree()
    grads = gradients(params, 4)
    expected = run(tx, params, grads)
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *grads)

    def steps(params: Any, state: Any) -> Any:
        def step(carry: Any, g: Any) -> Any:
            updates, state = tx.update(g, carry[1], carry[0])
            return (gradtx.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, (params, state), stacked)[0]

    own = jax.tree.map(jnp.copy, params)
    assert_equal(jax.jit(steps, donate_argnums=(0, 1))(own, tx.init(own)), expected)
    assert not any(x.is_deleted() for x in jax.tree.leaves(params))
    lanes = jax.tree.map(lambda x: jnp.stack([x, x]), params)
    both = jax.jit(jax.vmap(lambda p: steps(p, tx.init(p))))(lanes)
    assert_equal(jax.tree.map(lambda x: x[1], both), expected)


def test_inside_partition_masked_and_around_an_average() -> None:
    params = {"a": jnp.ones(4, BF16), "b": jnp.ones(4, BF16)}
    grads = [jax.tree.map(jnp.ones_like, params)] * 100
    labels = gradtx.by_path({"a": "a"}, default="b")
    tx = gradtx.partition({"a": gradtx.master_weights(gradtx.sgd(1e-3)), "b": gradtx.sgd(1e-3)}, labels)
    moved, _ = run(tx, params, grads)
    np.testing.assert_allclose(moved["a"].astype(jnp.float32), 0.9, rtol=2.0**-8)
    np.testing.assert_array_equal(moved["b"], np.ones(4))
    tx = gradtx.master_weights(gradtx.ema_params(gradtx.sgd(1e-3), 0.5))
    _, state = run(tx, params, grads)
    np.testing.assert_allclose(state.inner_state.average["a"], 0.901, rtol=1e-4)  # of the masters


def test_the_second_gradient_of_sam_is_taken_in_the_parameters_precision() -> None:
    seen = []

    def grad_fn(p: Any) -> Any:
        seen.append(p["w"].dtype)
        return p

    params = {"w": jnp.ones(3, BF16)}
    tx = gradtx.master_weights(gradtx.sam_wrapper(gradtx.sgd(1e-3), rho=0.1))
    updates, _ = tx.update(params, tx.init(params), params, grad_fn=grad_fn)
    assert seen == [BF16]
    assert updates["w"].dtype == BF16


def test_nnx_optimizer() -> None:
    class Model(nnx.Module):
        def __init__(self) -> None:
            self.w = nnx.Param(jnp.ones(3, BF16))

    model = Model()
    optimizer = nnx.Optimizer(model, gradtx.master_weights(gradtx.adamw(1e-3), "int8"), wrt=nnx.Param)
    for _ in range(100):
        optimizer.update(model, nnx.state(model, nnx.Param))
    np.testing.assert_allclose(model.w[...].astype(jnp.float32), 0.9, rtol=0.01)


def test_nothing_comes_after_them() -> None:
    for make in (gradtx.master_weights, gradtx.kahan):
        text = rf"argument 0 is {make.__name__}\(.*\), before scale\(.*must be applied as they are"
        with pytest.raises(ValueError, match=text):
            gradtx.chain(make(gradtx.sgd(0.1)), gradtx.scale(2.0))
        with pytest.raises(ValueError, match=f"^{make.__name__}: needs the parameters; call tx.update"):
            make(gradtx.sgd(0.1)).update(jnp.ones(2), make(gradtx.sgd(0.1)).init(jnp.ones(2)))


# Kahan


def test_kahan_follows_float64() -> None:
    params = {"w": jnp.asarray(RNG.normal(size=200), BF16)}
    grads = [{"w": jnp.sin(jnp.arange(200.0) + t)} for t in range(200)]
    moved, state = run(gradtx.kahan(gradtx.sgd(1e-3)), params, grads)
    count = iter(range(200))
    start = {"w": np.asarray(params["w"], np.float64)}
    expected = follow(lambda p: {"w": np.sin(np.arange(200.0) + next(count))}, start, 200, rate(1e-3))["w"][-1]
    whole = np.asarray(moved["w"], np.float64) + np.asarray(state.compensation["w"], np.float64)
    assert isinstance(state, KahanState)
    assert state.compensation["w"].dtype == BF16
    assert np.max(np.abs(whole - expected) / np.maximum(np.abs(expected), 0.05)) < 2e-3
    plain, _ = run(gradtx.sgd(1e-3), params, grads)
    assert np.max(np.abs(np.asarray(plain["w"], np.float64) - expected)) > 10 * np.max(np.abs(whole - expected))


def test_kahan_keeps_what_updates_of_half_precision_miss() -> None:
    """Where one turns a parameter's sign, the update itself is rounded, and the parameter ends elsewhere."""
    p = jnp.asarray(RNG.uniform(0.5, 1, 1000), BF16)
    g = jnp.asarray(RNG.uniform(0.5, 1, 1000), BF16)
    tx = gradtx.kahan(gradtx.sgd(1.37))
    updates, state = jax.jit(tx.update)(g, tx.init(p), p)
    end, lost = (np.asarray(x, np.float64) for x in (gradtx.apply_updates(p, updates), state.compensation))
    expected = np.asarray(p, np.float64) - 1.37 * np.asarray(g, np.float64)
    assert np.mean(end != np.asarray(jnp.asarray(expected, BF16), np.float64)) > 0.1
    np.testing.assert_allclose(end + lost, expected, atol=2.0**-16)


def test_kahan_leaves_wide_parameters_alone() -> None:
    params = tree(jnp.float32)
    grads = gradients(params, 5)
    moved, state = run(gradtx.kahan(ADAMW), params, grads)
    expected, _ = run(ADAMW, params, grads)
    assert_equal(moved, expected)
    assert jax.tree.leaves(state.compensation) == []


# Rounding at random


def test_apply_updates_rounds_at_random() -> None:
    params = {"w": jnp.ones((100, 100), BF16), "wide": jnp.ones(3), "none": None}
    updates = {"w": jnp.full((100, 100), -1e-3), "wide": jnp.full(3, -1e-3), "none": None}
    new = gradtx.apply_updates(params, updates, rounding="stochastic", key=jax.random.key(3))
    assert new["w"].dtype == BF16
    assert set(np.unique(new["w"].astype(jnp.float32))) == {1.0, 1 - 2**-8}
    assert abs(float(jnp.mean(new["w"].astype(jnp.float32))) - 0.999) < 2e-4
    np.testing.assert_array_equal(new["wide"], np.float32(1) - np.float32(1e-3))
    assert_equal(gradtx.apply_updates(params, updates, rounding="nearest"), gradtx.apply_updates(params, updates))
    again = gradtx.apply_updates(params, updates, rounding="stochastic", key=3)
    assert_equal(new, again)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"rounding": "stochastic"}, "apply_updates: key is None, expected a random key for rounding='stochastic'"),
        ({"rounding": "up"}, "apply_updates: rounding is 'up' (str), expected one of 'nearest', 'stochastic'"),
    ],
)
def test_wrong_rounding(arguments: Any, text: str) -> None:
    with pytest.raises(TypeError, match=re.escape(text)):
        gradtx.apply_updates({}, {}, **arguments)


def test_random_rounding_checks_trees() -> None:
    with pytest.raises(ValueError, match="apply_updates: updates and params differ in structure: `b` is only in params"):
        gradtx.apply_updates({"b": 1.0}, {}, rounding="stochastic", key=0)


# What is seen


def test_rounded_away_counts_what_moves_nothing() -> None:
    params = {"w": jnp.asarray([1.0, 1.0, 1.0, 0.001], BF16), "wide": jnp.ones(2), "empty": jnp.zeros((0,), F16)}
    grads = {"w": jnp.asarray([1e-3, 0.0, 0.1, 1e-3], BF16), "wide": jnp.asarray([1e-3, 1e-9]), "empty": jnp.zeros((0,), F16)}
    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.rounded_away())
    _, state = tx.update(grads, tx.init(params), params)
    assert float(gradtx.metrics(state)["rounded_away"]) == pytest.approx(2 / 5)
    _, state = tx.update(jax.tree.map(jnp.zeros_like, grads), state, params)
    assert float(gradtx.metrics(state)["rounded_away"]) == 0
    guarded = gradtx.chain(gradtx.master_weights(gradtx.sgd(1.0)), gradtx.rounded_away())
    _, state = guarded.update({"w": grads["w"]}, guarded.init({"w": params["w"]}), {"w": params["w"]})
    assert float(gradtx.metrics(state)["rounded_away"]) == 0


NOTE = "`a` and 1 more are bfloat16 and lose small updates: see master_weights, kahan, rounded_away."


def test_summary_warns_where_nothing_guards_half_precision() -> None:
    params = {"a": jnp.ones(2, BF16), "b": jnp.ones(2, BF16), "c": jnp.ones(2, F16), "w": jnp.ones(2)}
    plain = gradtx.adamw(1e-3)
    notes = gradtx.summary(plain, params).notes
    assert notes[0] == NOTE
    assert notes[1].startswith("`c` is float16 and loses small updates: see")
    assert len(notes) == 2
    assert f"Note: {NOTE}" in str(gradtx.summary(plain, params))
    for tx in (gradtx.master_weights(plain), gradtx.kahan(plain), gradtx.skip_nonfinite(gradtx.kahan(plain))):
        assert gradtx.summary(tx, params).notes == ()
    assert gradtx.summary(gradtx.schedule_free_sgd(0.1), params).notes == ()
    assert gradtx.summary(gradtx.chain(plain, gradtx.freeze(gradtx.by_path({}, default=True))), params).notes == ()
    some = gradtx.partition({"x": gradtx.kahan(plain), "y": plain}, gradtx.by_path({"a|b": "x"}, default="y"))
    assert [note[:14] for note in gradtx.summary(some, params).notes] == ["`c` is float16"]


def test_bytes_are_those_of_the_docstrings() -> None:
    params = {"w": jnp.ones((100, 10), BF16)}
    for form, own in zip(FORMS, (4, 2, 1), strict=True):
        table = gradtx.summary(gradtx.master_weights(gradtx.sgd(0.1), form), params)
        assert table.rows[0].state_bytes == own * 1000
    assert gradtx.summary(gradtx.kahan(gradtx.sgd(0.1)), params).rows[0].state_bytes == 2000
    assert isinstance(gradtx.master_weights(gradtx.sgd(0.1)).init(params), MasterWeightsState)
