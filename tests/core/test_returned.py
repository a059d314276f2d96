"""What an update returns has the tree and the shapes of what it got."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx

PARAMS = {"b": jnp.ones(2), "w": jnp.ones((3, 2))}
ADAM = gradtx.adam(0.1)


class returning(gradtx.Transformation):
    """A user's transformation that returns `f(updates)`."""

    f: Any

    def step(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return self.f(updates), state


def pair(f: Any) -> Any:
    """The same as two functions."""

    def hand_made(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return f(updates), state

    return gradtx.GradientTransformation(lambda params: gradtx.EmptyState(), hand_made)


SAME_TREE = "differ in structure: `w` is only in the updates that it got; expected the same tree."


@pytest.mark.parametrize(
    ("f", "text"),
    [
        (
            lambda u: u | {"w": u["w"][0]},
            "step returned update leaf `w` of shape (2,), expected (3, 2), the shape of the update that it got.",
        ),
        (
            lambda u: u | {"b": jnp.sum(u["b"])},
            "step returned update leaf `b` of shape (), expected (2,), the shape of the update that it got.",
        ),
        (lambda u: {"b": u["b"]}, f"the update that step returned and the updates that it got {SAME_TREE}"),
        (lambda u: u | {"w": None}, f"the update that step returned and the updates that it got {SAME_TREE}"),
    ],
)
@pytest.mark.parametrize("params", [None, PARAMS])
def test_updates_that_come_back_in_another_shape(f: Any, text: str, params: Any) -> None:
    hand_made = pair(f)
    for tx, name in (
        (returning(f), "returning"),
        (gradtx.chain(returning(f), ADAM), "chain > returning"),
        (gradtx.chain(gradtx.clip(1.0), hand_made, ADAM), "chain > pair"),
        (gradtx.named_chain(("mine", hand_made), ("adam", ADAM)), "named_chain > pair"),
        (gradtx.stateless(lambda u, p: f(u)), "stateless"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(f'{name}: {text}')}$"):
            tx.update(PARAMS, tx.init(PARAMS), params)


@pytest.mark.parametrize(
    ("f", "found", "expected"),
    [(lambda b: b + 1j, "complex64", "float32"), (jnp.sign, None, None), (lambda b: b > 0, "bool", "float32")],
)
def test_updates_of_another_kind_of_number(f: Any, found: str | None, expected: str | None) -> None:
    tx = gradtx.chain(returning(lambda u: u | {"b": f(u["b"])}), gradtx.scale(1.0))
    if found is None:
        tx.update(PARAMS, tx.init(PARAMS))
        return
    text = f"chain > returning: step returned update leaf `b` of dtype {found}, expected {expected}, the dtype of the update that"
    with pytest.raises(ValueError, match=f"^{re.escape(text)} it got.$"):
        tx.update(PARAMS, tx.init(PARAMS))


class counting(gradtx.Transformation):
    """A user's transformation whose state becomes `f(state)`."""

    f: Any

    def init(self, params: Any) -> Any:
        return {"count": jnp.zeros((), jnp.int32), "mean": jnp.zeros(2)}

    def step(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return updates, self.f(state)


@pytest.mark.parametrize(
    ("f", "text"),
    [
        (
            lambda s: s | {"mean": jnp.zeros(3)},
            "step returned state leaf `mean` of shape (3,), expected (2,), the shape of the state that it got.",
        ),
        (
            lambda s: s | {"count": s["count"] + 1.0},
            "step returned state leaf `count` of dtype float32, expected int32, the dtype of the state that it got.",
        ),
        (
            lambda s: {"count": s["count"]},
            "the state that step returned and the state that it got differ in structure: `mean` is only in the state that it got; "
            "expected the same tree.",
        ),
    ],
)
def test_states_that_come_back_otherwise(f: Any, text: str) -> None:
    tx = counting(f)
    with pytest.raises(ValueError, match=f"^{re.escape(f'counting: {text}')}$"):
        tx.update(PARAMS, tx.init(PARAMS))


def test_a_key_in_the_state_hides_no_other_mistake() -> None:
    class keyed(gradtx.Transformation):
        def init(self, params: Any) -> Any:
            return {"key": jax.random.key(0), "mean": jnp.zeros(2)}

        def step(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
            return updates, {"key": jax.random.split(state["key"])[0], "mean": jnp.zeros(3)}

    with pytest.raises(ValueError, match=r"^keyed: step returned state leaf `mean` of shape \(3,\), expected \(2,\)"):
        keyed().update(PARAMS, keyed().init(PARAMS))
