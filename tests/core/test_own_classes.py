"""What a class of a user's own has to have, and what it is told otherwise."""

import re
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def _assert_raises(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == text


PARAMS = {"b": jnp.ones(2), "w": jnp.ones((3, 2))}


def test_steps_and_presets_that_return_something_else() -> None:
    class forgetful(gradtx.Preset):
        def chain(self) -> Any:
            gradtx.scale(1.0)

    class lost_state(gradtx.Transformation):
        def step(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
            return updates

    text = "forgetful: chain returned None, expected a gradient transformation (a pair of init and update). Is a `return` missing?"
    _assert_raises(lambda: forgetful().init(PARAMS), TypeError, text)
    text = "lost_state: step returned a dict with keys 'b', 'w', expected a pair (updates, state)."
    _assert_raises(lambda: lost_state().update(PARAMS, gradtx.EmptyState()), TypeError, text)


def test_what_is_missing_in_a_class_of_your_own() -> None:
    class no_step(gradtx.Transformation):
        rate: float = 0.1

    class no_chain(gradtx.Preset):
        rate: float = 0.1

    text = "no_step: step is missing; it is the rule of a transformation."
    with pytest.raises(NotImplementedError, match=f"^{re.escape(text)}"):
        no_step().update(PARAMS, gradtx.EmptyState())
    text = "no_chain: chain is missing; it makes what the preset stands for."
    _assert_raises(lambda: no_chain().init(PARAMS), NotImplementedError, text)


def test_a_class_that_overrides_update_is_refused() -> None:
    text = "as_in_optax: define step, never update: update is step with the checks around it."
    with pytest.raises(TypeError, match=f"^{text}$"):

        class as_in_optax(gradtx.Transformation):
            def update(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
                return updates, state


def test_a_step_takes_all_extra_arguments() -> None:
    text = r"forgetful: step has to take \*\*extra_args, since a chain hands all of them to every member\."
    with pytest.raises(TypeError, match=f"^{text}$"):

        class forgetful(gradtx.Transformation):
            def step(self, updates: Any, state: Any, params: Any = None) -> Any:
                return updates, state


class BeliefState(typing.NamedTuple):
    """Steps taken, and two running means."""

    count: jax.Array
    m: gradtx.Updates
    s: gradtx.Updates


class scale_by_belief(gradtx.Transformation):
    """A newcomer's AdaBelief, its annotations as text."""

    b1: "gradtx.domains.Decay" = 0.9
    b2: "gradtx.domains.Decay" = 0.999
    eps: "gradtx.domains.NonNegative" = 1e-16

    def init(self, params: Any) -> BeliefState:
        return BeliefState(jnp.zeros((), jnp.int32), gradtx.zeros_like(params), gradtx.zeros_like(params))

    def step(self, updates: Any, state: "BeliefState", params: Any = None, **extra_args: Any) -> Any:
        count = gradtx.safe_increment(state.count)

        @gradtx.each_leaf
        def rule(g: Any, m: Any, s: Any) -> Any:
            m = self.b1 * m + (1 - self.b1) * g
            s = self.b2 * s + (1 - self.b2) * (g - m) ** 2 + self.eps
            return m / (1 - self.b1**count) / (jnp.sqrt(s / (1 - self.b2**count)) + self.eps), m, s

        updates, m, s = rule(updates, state.m, state.s)
        return updates, BeliefState(count, m, s)


def test_annotations_may_be_text() -> None:
    with pytest.raises(ValueError, match=r"^scale_by_belief: b1 is 1.5 \(float\), expected a number in \[0, 1\)\.$"):
        scale_by_belief(1.5)
    with pytest.raises(TypeError, match=r"^scale_by_belief: state is an EmptyState, expected BeliefState; does it belong"):
        scale_by_belief().update(PARAMS, gradtx.EmptyState())


def test_a_newcomers_adabelief_equals_optax() -> None:
    optax = pytest.importorskip("optax")
    paths = []
    for tx in (gradtx.chain(scale_by_belief(), gradtx.scale_by_learning_rate(0.1)), optax.adabelief(0.1)):
        params, state = PARAMS, tx.init(PARAMS)
        for k in range(5):
            grads = jax.tree.map(lambda p, k=k: p * (k - 1.5), params)
            updates, state = jax.jit(tx.update)(grads, state, params)
            params = gradtx.apply_updates(params, updates)
        paths.append(params)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-6), *paths)


def test_fields_without_defaults_come_first() -> None:
    text = r"^reversed: the field rate without a default comes after decay, which has one\.$"
    with pytest.raises(TypeError, match=text):
        type("reversed", (gradtx.Value,), {"__annotations__": {"decay": float, "rate": float}, "decay": 0.9})


def test_traits_that_are_none() -> None:
    text = r"^spelt: unknown trait need_params\. Did you mean 'needs_params'\?$"
    with pytest.raises(TypeError, match=text):
        type(gradtx.Transformation)("spelt", (gradtx.Transformation,), {}, need_params=True)


class pulled(gradtx.Transformation):
    """Reads params without declaring it."""

    def step(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return gradtx.each_leaf(lambda u, p: u - p)(updates, params), state


def test_params_that_a_rule_reads_and_nobody_asked_for() -> None:
    text = "pulled: a rule got None for a tree. Where it is params, give the class the keyword `needs_params=True`."
    tx = pulled()
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        tx.update(PARAMS, tx.init(PARAMS))
