"""One transformation after another."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.transforms.momentum import EmaState, TraceState
from gradtx.wrappers.multi_steps import MultiSteps

GRADS = {"w": jnp.asarray([3.0, -4.0]), "b": jnp.asarray(0.5)}
SWAPPED = "were state and params swapped? The call is tx.update(updates, state, params), with the state of tx.init(params)."
OTHER = "does it belong to another optimizer? The call is tx.update(updates, state, params), with the state of tx.init(params)."


def run(tx: Any, grads: Any = GRADS) -> Any:
    return tx.update(grads, tx.init(grads), grads)


def test_order_of_application() -> None:
    first, _ = run(gradtx.chain(gradtx.scale(10.0), gradtx.clip(1.0)))
    second, _ = run(gradtx.chain(gradtx.clip(1.0), gradtx.scale(10.0)))
    np.testing.assert_array_equal(first["w"], [1.0, -1.0])
    np.testing.assert_array_equal(second["w"], [10.0, -10.0])
    np.testing.assert_array_equal(second["b"], 5.0)


def test_states_go_to_their_members() -> None:
    tx = gradtx.chain(gradtx.trace(0.5), gradtx.chain(gradtx.ema(0.5), gradtx.clip(9.0)))
    (trace, (ema, clip)) = run(tx)[1]
    assert isinstance(trace, TraceState)
    assert isinstance(ema, EmaState)
    assert clip == gradtx.EmptyState()


def test_an_empty_chain_changes_nothing() -> None:
    updates, state = run(gradtx.chain())
    assert state == ()
    assert jax.tree.map(float, jax.tree.map(jnp.sum, updates)) == {"w": -1.0, "b": 0.5}


@pytest.mark.parametrize("make", [lambda *txs: gradtx.chain(*txs), lambda *txs: gradtx.named_chain(*zip("ab", txs, strict=True))])
def test_half_precision_is_rounded_once_at_the_end(make: Any) -> None:
    """The product underflows in float16 between the two members, and overflows the other way round."""
    grads = {"w": jnp.asarray([1.5, 3.0], jnp.float16), "v": jnp.asarray([1.5, 3.0], jnp.bfloat16)}
    for tx in (make(gradtx.scale(1e-8), gradtx.scale(1e8)), make(gradtx.scale(1e8), gradtx.scale(1e-8))):
        updates, _ = run(tx, grads)
        assert updates["w"].dtype == jnp.float16
        assert updates["v"].dtype == jnp.bfloat16
        np.testing.assert_array_equal(updates["w"], grads["w"])


def test_no_member_changes_the_tree() -> None:
    def flat(updates: Any, params: Any) -> Any:
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(updates)])

    with pytest.raises(
        ValueError, match=r"^chain > stateless: the update that step returned and the updates that it got differ in structure"
    ):
        run(gradtx.chain(gradtx.stateless(flat), gradtx.scale(2.0)))


def test_named_chain_is_chain_with_names() -> None:
    members = {"clip": gradtx.clip_by_global_norm(1.0), "adam": gradtx.adam(0.1)}
    updates, state = run(gradtx.named_chain(*members.items()))
    expected, states = run(gradtx.chain(*members.values()))
    assert list(state) == ["adam", "clip"]  # a compiled step sorts keys
    jax.tree.map(np.testing.assert_array_equal, (updates, (state["clip"], state["adam"])), (expected, states))


def test_named_chain_takes_its_states_by_name() -> None:
    tx = gradtx.named_chain(("b", gradtx.trace(0.5)), ("a", gradtx.scale(2.0)))
    state = tx.init(GRADS)
    sorted_state = dict(sorted(state.items()))  # as a checkpoint, or a passage through jit, may give it back
    jax.tree.map(np.testing.assert_array_equal, tx.update(GRADS, sorted_state), tx.update(GRADS, state))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: gradtx.chain(gradtx.scale(1.0)).update(GRADS, GRADS, GRADS),
            f"chain: state is a dict with keys 'w', 'b', expected tuple; {SWAPPED}",
        ),
        (
            lambda: gradtx.chain(gradtx.scale(1.0), gradtx.clip(1.0)).update(GRADS, (gradtx.EmptyState(),)),
            f"chain: state is a tuple of 1, expected a tuple of 2 states, one for each member; {OTHER}",
        ),
        (
            lambda: gradtx.chain(gradtx.scale(1.0)).update(GRADS, gradtx.EmptyState()),
            f"chain: state is an EmptyState, expected a tuple of 1 states, one for each member; {OTHER}",
        ),
        (
            lambda: gradtx.chain(gradtx.scale(1.0), gradtx.ema(0.5)).update(GRADS, (gradtx.EmptyState(), gradtx.EmptyState())),
            f"chain > ema: state is an EmptyState, expected EmaState; {OTHER}",
        ),
        (
            lambda: gradtx.adam(0.1).update(GRADS, gradtx.sgd(0.1).init(GRADS)),
            f"adam > scale_by_adam: state is an EmptyState, expected ScaleByAdamState; {OTHER}",
        ),
        (
            lambda: gradtx.named_chain(("a", gradtx.scale(1.0))).update(GRADS, ()),
            f"named_chain: state is a tuple of 0, expected dict; {OTHER}",
        ),
        (
            lambda: gradtx.named_chain(("a", gradtx.scale(1.0)), ("c", gradtx.clip(1.0))).update(GRADS, GRADS),
            f"named_chain: state is a dict with keys 'w', 'b', expected a dict with keys 'a', 'c'; {SWAPPED}",
        ),
        (
            lambda: gradtx.named_chain(gradtx.scale(1.0)),
            "named_chain: argument 0 is scale(step_size=1.0), expected a pair (name, transformation).",
        ),
        (lambda: gradtx.named_chain(("a",)), "named_chain: argument 0 is a tuple of 1, expected a pair (name, transformation)."),
        (
            lambda: gradtx.named_chain(("a", gradtx.clip(1.0)), (1, gradtx.clip(1.0))),
            "named_chain: argument 1 is a tuple of 2, expected a pair (name, transformation).",
        ),
        (
            lambda: gradtx.named_chain(("opt", gradtx.adam)),
            "named_chain: argument 0 ('opt') is the class adam, expected a gradient transformation (a pair of init and update). "
            "This is the factory itself: call it, adam(...).",
        ),
        (
            lambda: gradtx.named_chain(("a", gradtx.clip(1.0)), ("b", gradtx.clip(2.0)), ("a", gradtx.scale(1.0))),
            "named_chain: the name 'a' occurs twice, expected distinct names.",
        ),
    ],
)
def test_errors(call: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    assert str(error.value) == text


AVERAGING = {
    "ema_params": gradtx.ema_params(gradtx.sgd(0.1), 0.9),
    "swa": gradtx.swa(gradtx.sgd(0.1)),
    "lookahead_wrapper": gradtx.lookahead_wrapper(gradtx.sgd(0.1)),
    "momentum_sam": gradtx.momentum_sam(gradtx.sgd(0.1), 0.1),
    "schedule_free": gradtx.accumulate(gradtx.schedule_free(gradtx.sgd(0.1), 0.1), 2),
    "schedule_free_adamw": gradtx.schedule_free_adamw(0.1),
    "ranger": gradtx.ranger(0.1),
    "accelegrad": gradtx.accelegrad(1.0),
}


@pytest.mark.parametrize("name", AVERAGING)
def test_what_changes_the_updates_of_an_average_is_refused(name: str) -> None:
    tx = AVERAGING[name]
    with pytest.raises(
        ValueError,
        match=rf"chain: argument 1 is .*, before scale\(step_size=2.0\), but the updates of {name} must be applied as they are\. Expected it last",
    ):
        gradtx.chain(gradtx.clip(1.0), tx, gradtx.identity(), gradtx.scale(2.0))
    with pytest.raises(ValueError, match=rf"named_chain: argument 0 is .* the updates of {name} must be applied as they are"):
        gradtx.named_chain(("a", tx), ("b", gradtx.scale(2.0)))
    for wrapper, argument in (("cautious", "inner"), ("lookahead_wrapper", "inner"), ("schedule_free", "base_optimizer")):
        with pytest.raises(
            ValueError,
            match=rf"{wrapper}: {argument} holds {name}\(.*, whose updates must be applied as they are, but {wrapper} changes them\. Put {wrapper} inside it\.",
        ):
            getattr(gradtx, wrapper)(tx, **({"learning_rate": 0.1} if wrapper == "schedule_free" else {}))
    gradtx.chain(gradtx.clip(1.0), tx, gradtx.monitor({"size": gradtx.tree.norm}), gradtx.identity())


class shrink(gradtx.Transformation, keeps_zero=True):
    """A transformation of a user's own, without a state."""

    def step(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return jax.tree.map(lambda u: u / 2, updates), state


GATHERING = {
    "accumulate": gradtx.accumulate(gradtx.identity(), 2),
    "apply_every": gradtx.apply_every(2),
    "MultiSteps": MultiSteps(gradtx.identity(), 2),
    "skip_nonfinite": gradtx.skip_nonfinite(gradtx.chain(gradtx.clip(1.0), gradtx.accumulate(gradtx.identity(), 2))),
    "masked": gradtx.masked(gradtx.accumulate(gradtx.identity(), 2), {"w": True, "b": False}),
}
STEPPING = {
    "adamw": gradtx.adamw(0.1),
    "trace": gradtx.trace(0.9),
    "momentum": gradtx.sgd(0.1, 0.9),
    "add_decayed_weights": gradtx.add_decayed_weights(0.1),
    "add_noise": gradtx.add_noise(0.1, 0.5, key=0),
    "schedule": gradtx.sgd(gradtx.linear_schedule(0.1, 0.0, 10)),
    "average": gradtx.ema_params(gradtx.sgd(0.1), 0.9),
    "accumulate": gradtx.accumulate(gradtx.sgd(0.1), 3),
    "inject_hyperparams": gradtx.inject_hyperparams(gradtx.adam)(0.1),
    "foreign": optax.scale(-0.1),
}
RESTING = {
    "scale": gradtx.scale(-0.1),
    "sgd": gradtx.sgd(0.1),
    "clip": gradtx.chain(gradtx.clip_by_global_norm(0.1), gradtx.clip(0.01), gradtx.scale_by_learning_rate(0.1)),
    "inject_hyperparams": gradtx.inject_hyperparams(gradtx.sgd)(0.1),
    "freeze": gradtx.freeze({"w": False, "b": True}),
    "partition": gradtx.partition({"w": gradtx.sgd(0.1), "b": gradtx.set_to_zero()}, {"w": "w", "b": "b"}),
    "constraint": gradtx.keep_params_nonnegative(),
    "own": shrink(),
    "monitor": gradtx.monitor({"size": gradtx.tree.norm}),
}


@pytest.mark.parametrize("gathering", GATHERING)
@pytest.mark.parametrize("stepping", STEPPING)
def test_no_step_after_an_accumulation(gathering: str, stepping: str) -> None:
    first, second = GATHERING[gathering], STEPPING[stepping]
    with pytest.raises(
        ValueError,
        match=r"^chain: argument 1 (is|holds) (accumulate|apply_every|MultiSteps)\(.*, whose updates are zero between its steps, but .* "
        r"after it takes every call for a step\. Put it inside: accumulate\(chain\(\.\.\.\), every_k\)\.$",
    ):
        gradtx.chain(gradtx.clip(1.0), first, gradtx.identity(), second)
    with pytest.raises(ValueError, match=r"^named_chain: argument 0 .* takes every call for a step"):
        gradtx.named_chain(("a", first), ("b", second))
    gradtx.chain(second, first) if stepping not in ("accumulate", "average") else None


@pytest.mark.parametrize("gathering", ["accumulate", "apply_every", "MultiSteps", "skip_nonfinite"])
@pytest.mark.parametrize("resting", RESTING)
def test_what_rests_may_follow_an_accumulation(gathering: str, resting: str) -> None:
    """The step of two calls is that of one call with what was gathered, and between the calls nothing moves."""
    first, then = GATHERING[gathering], RESTING[resting]
    tx, params = gradtx.chain(first, then), {"w": jnp.asarray([3.0, 4.0]), "b": jnp.asarray(0.5)}
    state, after, gathered = tx.init(params), then.init(params), first.init(params)
    for i in range(4):
        grads = jax.tree.map(lambda g: g / (i + 1), GRADS)  # noqa: B023
        updates, state = tx.update(grads, state, params)
        expected, gathered = first.update(grads, gathered, params)
        if i % 2:
            expected, after = then.update(expected, after, params)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), updates, expected)
        assert any(map(jnp.any, jax.tree.leaves(updates))) == bool(i % 2)


def test_masks_may_keep_an_accumulation_and_a_step_apart() -> None:
    """Each of the two has parameters of its own."""
    own = {"w": True, "b": False}
    other = {"w": False, "b": True}
    tx = gradtx.chain(gradtx.masked(gradtx.accumulate(gradtx.sgd(0.1), 2), own), gradtx.masked(gradtx.adam(0.1), other))
    updates, _ = tx.update(GRADS, tx.init(GRADS), GRADS)
    assert not jnp.any(updates["w"])
    assert jnp.any(updates["b"])
