"""Optax's `sam` and `normalize`: Optax's numbers, and what it gets wrong."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import pytest
import sam_oracles as so
from problems import distance, quadratic, tanh_regression

import gradtx
from gradtx.wrappers.adversarial import sam

SMALL, TANH = quadratic({"w": (5, 3), "b": (3,)}), tanh_regression()


class Optax:
    """Optax with the names of its `contrib` at the top, as gradtx has them."""

    normalize, sam = staticmethod(optax.contrib.normalize), staticmethod(optax.contrib.sam)

    def __getattr__(self, name: str) -> Any:
        return getattr(optax, name)


ROWS = {
    "sam": lambda lib, opaque: lib.sam(lib.sgd(0.1), lib.chain(lib.normalize(), lib.sgd(0.05)), 2, True, opaque),
    "momentum, period 4": lambda lib, opaque: lib.sam(
        lib.sgd(0.05, 0.9), lib.chain(lib.normalize(), lib.sgd(0.02, 0.5)), sync_period=4, opaque_mode=opaque
    ),
    "adversary goes on": lambda lib, opaque: lib.sam(lib.adam(3e-4), lib.sgd(0.2, 0.9), 3, reset_state=False, opaque_mode=opaque),
}


class Ours:
    """gradtx, with the twin that only `gradtx.optax` has."""

    def __getattr__(self, name: str) -> Any:
        return sam if name == "sam" else getattr(gradtx, name)


@pytest.mark.parametrize("opaque", [False, True], ids=["transparent", "opaque"])
def test_parity(opaque: bool) -> None:
    """Float32, 100 calls each."""
    pairs = [[make(lib, opaque) for lib in (Ours(), Optax())] for make in ROWS.values()]
    paths = [path for path, _ in so.run([tx for pair in pairs for tx in pair], SMALL, 100, np.float32, opaque)]
    for name, ours, theirs in zip(ROWS, paths[::2], paths[1::2], strict=True):
        assert distance(ours, theirs) < 1e-6, name


@pytest.mark.parametrize("name", ["normalize", "sam"])
def test_same_arguments_in_the_same_order(name: str) -> None:
    ours, theirs = (inspect.signature(value).parameters for value in (getattr(Ours(), name), getattr(optax.contrib, name)))
    assert {k: p.default for k, p in ours.items()} == {k: p.default for k, p in theirs.items()}


def test_two_calls_are_one_step_of_sam() -> None:
    adversary = gradtx.chain(gradtx.normalize(), gradtx.sgd(0.05))
    outer = gradtx.sgd(0.1, 0.9)
    (_, slow), (opaque, _), (wrapped, _) = (
        so.run([tx], TANH, steps, opaque=i)[0]
        for tx, steps, i in (
            (sam(outer, adversary), 60, False),
            (sam(outer, adversary, opaque_mode=True), 30, True),
            (gradtx.sam_wrapper(outer, 0.05), 30, False),
        )
    )
    assert distance(opaque, wrapped) < 1e-12
    assert distance({k: path[1::2] for k, path in slow.items()}, wrapped) < 1e-12
    between = {k: np.concatenate([TANH.params[k][None], path[1:-1:2]]) for k, path in slow.items()}
    assert distance({k: path[::2] for k, path in slow.items()}, between) < 1e-12  # `eval_params` ignores the steps uphill


def test_period_one_is_the_optimizer_alone() -> None:
    """Optax steps from the parameters before last."""
    plain = gradtx.sgd(0.1, 0.9)
    paths = so.run([sam(plain, gradtx.sgd(0.1), 1), plain], TANH, 30)
    assert distance(paths[0][0], paths[1][0]) < 1e-12
    theirs = so.run([optax.contrib.sam(optax.sgd(0.1, 0.9), optax.sgd(0.1), 1)], TANH, 30)
    assert distance(theirs[0][0], paths[1][0]) > 0.01


def test_a_nan_of_the_optimizer_that_is_not_due_goes_nowhere() -> None:
    """Where both are computed and blended, one NaN spoils the other."""
    spoiled = gradtx.stateless(lambda updates, params: jax.tree.map(lambda u: u * jnp.nan, updates))
    params = jnp.array([3.0, 4.0])
    for lib, first in ((Ours(), 3.5), (Optax(), np.nan)):
        tx = lib.sam(spoiled, lib.sgd(0.5 / 3))
        updates, _ = tx.update(params, tx.init(params), params)
        np.testing.assert_allclose(params[0] + updates[0], first)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_normalize(dtype: Any) -> None:
    tx, state = gradtx.normalize(), gradtx.EmptyState()
    np.testing.assert_array_equal(tx.update(jnp.zeros(3, dtype), state)[0], np.zeros(3))
    large = {"w": jnp.asarray([3e4, 4e4], dtype), "b": jnp.zeros((), dtype)}
    np.testing.assert_allclose(
        np.float32(tx.update(large, state)[0]["w"]), [0.6, 0.8], rtol=2e-3 if dtype != jnp.bfloat16 else 1e-2
    )


def test_gradients_are_averaged_over_a_mapped_axis() -> None:
    adversary = gradtx.chain(gradtx.normalize(), gradtx.sgd(0.5))
    tx = sam(gradtx.sgd(1.0), adversary, opaque_mode=True, batch_axis_name="batch")
    w, batch = jnp.array([3.0, 4.0]), jnp.array([1.0, 3.0])

    def step(x: Any) -> Any:
        return tx.update(w, tx.init(w), w, grad_fn=lambda p, i: x * p)[0]

    updates = jax.vmap(step, axis_name="batch")(batch)
    np.testing.assert_allclose(updates, [[-6.6, -8.8]] * 2, rtol=1e-6)


def test_eval_params_under_a_mask() -> None:
    tx = gradtx.masked(sam(gradtx.sgd(1.0), gradtx.sgd(0.5)), {"a": True, "b": False})
    params = {"a": jnp.array([2.0], jnp.bfloat16), "b": jnp.array([1.0])}
    state, seen = tx.init(params), []
    for _ in range(2):
        updates, state = tx.update(params, state, params)
        params = gradtx.apply_updates(params, updates)
        found = gradtx.eval_params(state, params)
        assert found["b"] is params["b"]
        seen.append((float(params["a"][0]), float(found["a"][0])))
    assert seen == [(3.0, 2.0), (-1.0, -1.0)]


def test_errors() -> None:
    tx, w = sam(gradtx.sgd(0.1), gradtx.sgd(0.1), opaque_mode=True), jnp.ones(2)
    with pytest.raises(
        TypeError, match=r"^sam: missing extra argument `grad_fn`; call tx.update\(updates, state, params, grad_fn="
    ):
        tx.update(w, tx.init(w), w)
    for opaque in (False, True):
        tx = sam(gradtx.sgd(0.1), gradtx.sgd(0.1), opaque_mode=opaque)
        with pytest.raises(ValueError, match=r"^sam: needs the parameters; call tx.update\(updates, state, params\)\.$"):
            tx.update(w, tx.init(w), grad_fn=lambda p, i: p)


@pytest.mark.parametrize(
    "adversary",
    [
        gradtx.sgd(0.1, 0.9, accumulator_dtype=jnp.bfloat16),
        gradtx.stateless(lambda updates, params: jax.tree.map(lambda u: u.astype(jnp.bfloat16), updates)),
    ],
    ids=["its momentum", "its updates"],
)
@pytest.mark.parametrize("opaque", [False, True], ids=["transparent", "opaque"])
def test_an_adversary_in_half_precision(adversary: Any, opaque: bool) -> None:
    """Both branches of a step, and both calls of a period, give the dtypes that came in."""
    tx, params = sam(gradtx.adam(0.1), adversary, opaque_mode=opaque), {"w": jnp.ones(3)}
    state = tx.init(params)
    step = jax.jit(lambda g, state: tx.update(g, state, params, **({"grad_fn": lambda p, i: p} if opaque else {})))
    for _ in range(2):
        updates, after = step(params, state)
        assert jax.tree.map(jnp.result_type, (updates, after)) == jax.tree.map(jnp.result_type, (params, state))
        state = after
