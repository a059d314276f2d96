"""Training on digits with NaN, infinite and huge gradients at random steps: lost without a wrapper, unharmed with one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

import gradtx
from gradtx.wrappers.nonfinite import apply_if_finite

STEPS, BATCH = 300, 64
FAULTS = {"none": 0.0, "nan": jnp.nan, "inf": jnp.inf, "huge": 1e30}


def trained(tx: Any) -> dict[str, tuple[float, bool, Any]]:
    """Test accuracy, whether parameters and state are finite, and the state, for each kind of fault; in one program."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = jnp.asarray(x[order] / 16, jnp.float32), jnp.asarray(y[order])
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "in": 0.2 * jax.random.normal(keys[0], (64, 32)),
        "out": 0.2 * jax.random.normal(keys[1], (32, 10)),
        "bias": jnp.zeros(10),
    }
    batches = jax.random.randint(keys[2], (STEPS, BATCH), 0, 1000)
    faulty = np.zeros(STEPS, bool)
    faulty[np.random.default_rng(1).choice(np.arange(20, STEPS - 20), 12, replace=False)] = True

    def logits(p: Any, x: Any) -> Any:
        return jnp.tanh(x @ p["in"]) @ p["out"] + p["bias"]

    def loss(p: Any, i: Any) -> Any:
        return -jnp.mean(jax.nn.log_softmax(logits(p, x[i]))[jnp.arange(BATCH), y[i]])

    def run(fault: Any) -> Any:
        def step(carry: Any, at: Any) -> Any:
            params, state = carry
            i, bad = at
            grads = jax.grad(loss)(params, i)
            wrong = grads["in"].at[3, 5].set(fault)
            grads = grads | {"in": jnp.where(bad & (fault != 0), wrong, grads["in"])}
            updates, state = tx.update(grads, state, params)
            return (gradtx.apply_updates(params, updates), state), None

        (params, state), _ = jax.lax.scan(step, (params_start, tx.init(params_start)), (batches, jnp.asarray(faulty)))
        accuracy = jnp.mean(jnp.argmax(logits(params, x[1000:]), -1) == y[1000:])
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves((params, state))]))
        return accuracy, finite, state

    params_start = params
    accuracy, finite, states = jax.jit(jax.vmap(run))(jnp.array(list(FAULTS.values())))
    return {
        name: (float(accuracy[i]), bool(finite[i]), jax.tree.map(lambda leaf: leaf[i], states))  # noqa: B023
        for i, name in enumerate(FAULTS)
    }


INNER = gradtx.adam(0.01)


@pytest.mark.parametrize(
    ("tx", "kinds"),
    [
        (gradtx.skip_nonfinite(INNER), ("nan", "inf", "huge")),
        (gradtx.skip_spikes(INNER, window=32), ("nan", "inf", "huge")),
        (apply_if_finite(INNER, 5), ("nan", "inf")),
        (gradtx.accumulate(INNER, 2, skip_nonfinite=True), ("nan", "inf")),
    ],
    ids=["skip_nonfinite", "skip_spikes", "apply_if_finite", "accumulate"],
)
def test_wrapped_runs_end_as_the_clean_one(tx: Any, kinds: tuple[str, ...]) -> None:
    results = trained(tx)
    clean, finite, state = results["none"]
    assert clean > 0.93
    assert finite
    counter = next(name for name in ("skipped", "total_notfinite", "left_out") if hasattr(state, name))
    assert int(getattr(state, counter)) == 0
    for kind in kinds:
        accuracy, finite, state = results[kind]
        assert finite, kind
        assert accuracy > clean - 0.005, kind
        assert int(getattr(state, counter)) == 12, kind


def test_without_a_wrapper_the_run_is_destroyed() -> None:
    results = trained(INNER)
    assert results["none"][0] > 0.93
    for kind in ("nan", "inf"):
        assert results[kind][0] < 0.2
        assert not results[kind][1]
    assert not results["huge"][1]  # the second moment is infinite: that weight never moves again
