"""A NaN gradient shows: no optimizer turns it into a silent zero."""

import jax.numpy as jnp
import pytest

import gradtx

MAKERS = {
    "adagrad": lambda: gradtx.adagrad(0.1, eps=0.0),
    "adam": lambda: gradtx.adam(0.1, eps=0.0),
    "adamax": lambda: gradtx.adamax(0.1, eps=0.0),
    "amsgrad": lambda: gradtx.amsgrad(0.1, eps=0.0),
    "rmsprop": lambda: gradtx.rmsprop(0.1, eps=0.0),
}


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in MAKERS.items()])
def test_nan_propagates(make) -> None:
    tx, params = make(), jnp.zeros(2)
    state = tx.init(params)
    for gradient in ([jnp.nan, 1.0], [1.0, 1.0]):
        updates, state = tx.update(jnp.asarray(gradient), state, params)
        assert bool(jnp.isnan(updates[0]))
        assert bool(jnp.isfinite(updates[1]))
