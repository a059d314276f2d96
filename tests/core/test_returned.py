"""What an update returns has the tree and the shapes of what it got."""

import functools
import re
from typing import Any

import jax.numpy as jnp
import pytest

import gradtx

PARAMS = {"b": jnp.ones(2), "w": jnp.ones((3, 2))}
ADAM = gradtx.adam(0.1)


@gradtx.factory(composite=True)
def returning(f: Any) -> gradtx.GradientTransformation:
    """A user's transformation that returns `f(updates)`."""
    return gradtx.GradientTransformation(gradtx.init_empty_state, lambda u, state, params=None, **extra_args: (f(u), state))


SAME_TREE = "differ in structure: `w` is only in the updates that it got; expected the same tree."


@pytest.mark.parametrize(
    ("f", "text"),
    [
        (
            lambda u: u | {"w": u["w"][0]},
            "update returned leaf `w` of shape (2,), expected (3, 2), the shape of the update that it got.",
        ),
        (
            lambda u: u | {"b": jnp.sum(u["b"])},
            "update returned leaf `b` of shape (), expected (2,), the shape of the update that it got.",
        ),
        (lambda u: {"b": u["b"]}, f"what update returned and the updates that it got {SAME_TREE}"),
        (lambda u: u | {"w": None}, f"what update returned and the updates that it got {SAME_TREE}"),
    ],
)
@pytest.mark.parametrize("params", [None, PARAMS])
def test_updates_that_come_back_in_another_shape(f: Any, text: str, params: Any) -> None:
    hand_made = gradtx.GradientTransformation(*map(functools.partial, (returning(f).init.function, returning(f).update.function)))
    for tx, name in (
        (returning(f), "returning"),
        (gradtx.chain(returning(f), ADAM), "chain > returning"),
        (gradtx.chain(gradtx.clip(1.0), hand_made, ADAM), "chain > argument 1"),
        (gradtx.named_chain(("mine", hand_made), ("adam", ADAM)), "named_chain > argument 'mine'"),
        (gradtx.stateless(lambda u, p: f(u)), "stateless"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(f'{name}: {text}')}$"):
            tx.update(PARAMS, tx.init(PARAMS), params)
