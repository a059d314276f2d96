"""Steps that overwrite parameters and state (`donate_argnums`): no array of the state is another's, nor the optimizer's own."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.wrappers.multi_steps import MultiSteps

RATE, DECAY, KEY, RAW = jnp.array(0.1), jnp.array(0.8), jax.random.key(0), jax.random.PRNGKey(1)
GIVEN = (RATE, DECAY, KEY, RAW)

OPTIMIZERS = {
    "key": lambda: gradtx.noisy_sgd(0.1, key=KEY),
    "old key": lambda: gradtx.perturbed_sgd(0.1, key=RAW),
    "one key twice": lambda: gradtx.chain(gradtx.add_noise(0.1, 0.5, KEY), gradtx.add_sphere_noise(0.1, KEY), gradtx.sgd(0.1)),
    "one rate twice": lambda: gradtx.chain(gradtx.sgd(RATE), gradtx.scale_by_learning_rate(RATE, flip_sign=False)),
    "rate injected": lambda: gradtx.inject_hyperparams(gradtx.sgd)(RATE),
    "rate injected inside": lambda: gradtx.accumulate(gradtx.inject_hyperparams(gradtx.adam)(RATE, b1=DECAY), 2),
    "rate of a wrapper": lambda: gradtx.momentum_sam(gradtx.sgd(RATE), rho=RATE),
    "interpolation": lambda: gradtx.schedule_free_sgd(RATE, b1=DECAY),
    "rate of a declared schedule": lambda: gradtx.sgd(gradtx.constant_schedule(RATE)),
    "rate of a function": lambda: gradtx.adam(lambda count: RATE),
    "injected rate of a function": lambda: gradtx.inject_hyperparams(gradtx.adam)(lambda count: RATE),
    "factor of a function": lambda: gradtx.scale_by_schedule(lambda count: RATE),
    "rates of groups": lambda: gradtx.partition({"a": gradtx.sgd(RATE), "c": gradtx.sgd(RATE)}, {"w": "a", "b": "c"}),
    "class": lambda: MultiSteps(gradtx.chain(gradtx.sgd(RATE), gradtx.scale_by_learning_rate(RATE)), 2),
    "parameters": lambda: gradtx.chain(first_parameters(), first_parameters()),
}


class first_parameters(gradtx.Transformation):
    """A user's transformation whose state is the very parameters."""

    def init(self, params: Any) -> Any:
        return params

    def step(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return updates, state


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_donated_steps_overwrite_nothing_else(make: Any) -> None:
    tx = make()

    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(params, state, params, value=jnp.sum(params["w"]))
        return gradtx.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    for _ in range(2):
        params = {"w": jnp.ones(2), "b": jnp.ones(())}
        state = tx.init(params)
        for _ in range(3):
            params, state = step(params, state)
    assert bool(jnp.all(jnp.isfinite(params["w"])))
    assert not any(x.is_deleted() for x in GIVEN)


def test_only_what_is_shared_is_copied() -> None:
    made = []

    class keeps(gradtx.Transformation):
        def init(self, params: Any) -> Any:
            made.append(jnp.zeros(3))
            return {"own": made[-1], "again": made[-1], "params": params}

    params = jnp.ones(2)
    state = keeps().init(params)
    assert state["again"] is made[-1]  # the first in the tree's order
    assert state["own"] is not made[-1]
    assert state["params"] is not params
    assert bool(jnp.all(state["params"] == params))
