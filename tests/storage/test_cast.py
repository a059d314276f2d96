"""`cast_state`: which arrays it casts, to what, and that random rounding keeps a running mean moving."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.core.types import Moment, Squares
from gradtx.storage.kinds import kinds_in

PARAMS = {"a": jnp.ones((3, 4)), "b": jnp.ones(4), "c": jnp.ones(2, jnp.complex64)}


def dtypes(state: Any) -> set[str]:
    return {str(x.dtype) for x in jax.tree.leaves(state)}


def test_moments_alone_are_cast() -> None:
    state = gradtx.cast_state(gradtx.adamw(1e-3), "bfloat16").init(PARAMS).inner_state
    assert dtypes(state[0].mu) == {"bfloat16", "complex64"}
    assert dtypes(state[0].nu) == {"bfloat16"}
    assert dtypes((state[0].count, state[2])) == {"int32", "float32"}


@pytest.mark.parametrize(
    ("tx", "cast"),
    [
        (gradtx.schedule_free_adamw(1e-3), 1),  # nu; z is a weight
        (gradtx.lookahead_wrapper(gradtx.sgd(0.1, 0.9)), 1),  # the momentum, not the slow weights
        (gradtx.ema_params(gradtx.adam(1e-3), 0.9), 2),
        (gradtx.adagrad(0.1), 0),  # its sums never decay
        (gradtx.amsgrad(0.1), 2),  # nor does the maximum
        (gradtx.rmsprop(0.1, centered=True), 0),  # a difference of the two
        (gradtx.muon(0.02), 3),  # in all: momentum of the matrix, two moments of the vector
        (gradtx.accumulate(gradtx.sgd(0.1), 2), 0),
        (gradtx.lbfgs(), 0),
        (optax.adam(1e-3), 0),  # declares nothing that gradtx knows
    ],
)
def test_weights_sums_and_gradients_stay(tx: Any, cast: int) -> None:
    params = {"a": jnp.ones((3, 4)), "b": jnp.ones(4)} if "muon" in repr(tx) else {"a": jnp.ones((3, 4))}
    leaves = jax.tree.leaves(gradtx.cast_state(tx, "bfloat16").init(params))
    assert sum(x.dtype == jnp.bfloat16 for x in leaves) == cast


def test_kinds_are_read_from_annotations() -> None:
    class Inner(NamedTuple):
        x: Any
        y: Any

    class Declared(NamedTuple):
        rate: jax.Array
        m: Moment
        v: Squares | None
        missing: Squares | None
        count: jax.Array

    zero = jnp.zeros(2)
    state = {"s": Declared(zero, Inner(zero, [zero]), zero, None, jnp.zeros((), jnp.int32)), "other": (zero, gradtx.MaskedNode())}
    assert kinds_in(state) == [None, None, "moment", "moment", "squares", None]


def test_a_rule_by_path() -> None:
    rule = gradtx.by_path({".*mu/.*": "bfloat16", ".*nu/a": "bfloat16"}, default="keep")
    tx = gradtx.cast_state(optax.adam(1e-3), rule)
    params = {"a": jnp.ones(3), "b": jnp.ones(3)}
    updates, state = jax.jit(tx.update)(params, tx.init(params), params)
    own = state.inner_state[0]
    assert [str(x.dtype) for x in (own.mu["a"], own.mu["b"], own.nu["a"], own.nu["b"])] == ["bfloat16"] * 3 + ["float32"]
    np.testing.assert_allclose(updates["a"], -1e-3, rtol=1e-5)


def test_steps_are_those_of_float32_with_a_rounded_state() -> None:
    tx, inner = gradtx.cast_state(gradtx.scale_by_adam(), "bfloat16"), gradtx.scale_by_adam()
    params = {"w": jnp.ones(5)}
    state, plain = tx.init(params), inner.init(params)
    for t in range(3):
        g = {"w": jnp.sin(jnp.arange(5.0) + t)}
        updates, state = tx.update(g, state, params)
        expected, plain = inner.update(g, plain, params)
        np.testing.assert_array_equal(updates["w"], expected["w"])
        mu, nu = (gradtx.tree.cast(gradtx.tree.cast(m, jnp.bfloat16), jnp.float32) for m in (plain.mu, plain.nu))
        plain = plain._replace(mu=mu, nu=nu)
        np.testing.assert_array_equal(state.inner_state.nu["w"], nu["w"])


def test_a_mean_of_squares_stalls_to_the_nearest_and_not_at_random() -> None:
    """After 1,500 steps at constant gradients `1 - 0.999^1500` is right."""
    means = {}
    for rounding in ("nearest", "stochastic"):
        tx = gradtx.cast_state(gradtx.scale_by_adam(b2=0.999), "bfloat16", rounding=rounding)
        params = {"w": jnp.zeros(1000)}

        def step(state: Any, _: None, tx: Any = tx, params: Any = params) -> Any:
            return tx.update({"w": jnp.ones(1000)}, state, params)[1], None

        state, _ = jax.jit(lambda state, step=step: jax.lax.scan(step, state, None, 1500))(tx.init(params))
        means[rounding] = float(jnp.mean(state.inner_state.nu["w"].astype(jnp.float32)))
    right = 1 - 0.999**1500
    assert means["nearest"] < 0.5 * right
    assert means["stochastic"] == pytest.approx(right, rel=0.01)


def test_another_key_rounds_otherwise_and_an_equal_one_alike() -> None:
    params = {"w": jnp.zeros(100)}

    def nu(key: Any) -> Any:
        tx = gradtx.cast_state(gradtx.scale_by_adam(), "bfloat16", rounding="stochastic", key=key)
        return tx.update({"w": jnp.linspace(0.1, 1, 100)}, tx.init(params), params)[1].inner_state.nu["w"]

    np.testing.assert_array_equal(nu(1), nu(1))
    assert np.any(nu(1) != nu(2))


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("float16", "cast_state: dtype for `nu/w` is 'float16' (str), expected a floating dtype with the range of float32"),
        ("float8_e4m3fn", "Squares overflow or stall in fewer bits; quantize_state(...) stores them in 8 or 4."),
        (gradtx.by_path({"mu/w": 8}, default="keep"), "cast_state: dtype for `mu/w` is 8 (int), expected a floating dtype"),
        (gradtx.by_path({"m/w": "bfloat16"}, default="keep"), "the pattern 'm/w' matches no parameter"),
    ],
)
def test_wrong_dtypes(dtype: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(text)):
        gradtx.cast_state(gradtx.scale_by_adam(), dtype).init({"w": jnp.ones(2)})
