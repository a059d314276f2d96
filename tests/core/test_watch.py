"""Calls of `init` are seen with what they got and what they made, nested as they were made."""

import jax.numpy as jnp
import pytest

import gradtx
from gradtx.core.watch import watching

PARAMS = {"w": jnp.ones(3)}


def test_calls_are_seen_as_they_are_nested() -> None:
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1))
    with watching() as seen:
        state = tx.init(PARAMS)
    (outer,) = seen
    assert outer.call.factory is gradtx.chain
    assert outer.state is state
    assert outer.params is PARAMS
    assert [one.call.factory.__name__ for one in outer.inside] == ["clip", "adam"]
    assert [one.state for one in outer.inside[1].inside] == list(state[1])
    tx.init(PARAMS)
    assert len(seen) == 1  # nobody watches any more


def test_an_error_ends_the_watch() -> None:
    bad = gradtx.masked(gradtx.sgd(0.1), {"v": True})
    with watching() as seen:
        with pytest.raises(ValueError, match="mask"):
            gradtx.chain(gradtx.adam(0.1), bad).init(PARAMS)
        gradtx.sgd(0.1).init(PARAMS)
    assert [one.call.factory.__name__ for one in seen] == ["sgd"]
