"""Sophia against its paper in float64 and against Optax, and its estimates of the diagonal."""

from functools import partial
from typing import Any

import adaptive_oracles as ao
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles as o
import pytest
from oracles import falling, rate
from problems import MANY_SHAPES, Problem, distance, quadratic, tanh_regression, trajectories

import gradtx
import gradtx.optax as ours

TANH, QUADRATIC = tanh_regression(), quadratic(MANY_SHAPES)


def told(tx: Any, problem: Problem) -> Any:
    """An optimizer with the loss as its `obj_fn`."""
    return optax.GradientTransformation(tx.init, lambda u, s, p=None: tx.update(u, s, p, obj_fn=problem.loss))


def paths(txs: list[Any], problem: Problem, steps: int, dtype: Any = np.float64) -> list[Any]:
    return trajectories([told(tx, problem) for tx in txs], problem, steps, dtype)


ROWS: dict[str, tuple[Any, dict[str, Any], list[Any]]] = {  # where the Hessian is diagonal, one estimate is exact
    "sophia": (lambda: gradtx.sophia(0.05), {}, [partial(o.decay, weight_decay=1e-4), rate(0.05)]),
    "sophia, options": (
        lambda: gradtx.sophia(falling, 0.9, 0.5, 1e-3, 0.1, gamma=0.5, clip_threshold=0.3, update_interval=3),
        {"b1": 0.9, "b2": 0.5, "eps": 1e-3, "gamma": 0.5, "bound": 0.3, "interval": 3},
        [partial(o.decay, weight_decay=0.1), rate(falling)],
    ),
    "scale_by_sophia, unclipped": (
        lambda: gradtx.chain(gradtx.scale_by_sophia(b2=0.0, eps=0.5, gamma=1.0, clip_threshold=None), gradtx.scale(-0.1)),
        {"b2": 0.0, "eps": 0.5, "gamma": 1.0, "bound": np.inf},
        [rate(0.1)],
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_paper(name: str) -> None:
    """`follow` hands a rule one leaf, so each leaf's curvatures are found by differences of its gradients."""
    make, arguments, rest = ROWS[name]
    shifted = {leaf: x + 1.0 for leaf, x in QUADRATIC.params.items()}
    here, there = (QUADRATIC.gradient(x) for x in (QUADRATIC.params, shifted))
    curvature = {x.shape: there[leaf] - here[leaf] for leaf, x in QUADRATIC.params.items()}
    rule = partial(ao.sophia, diagonal=lambda x: curvature[x.shape], **arguments)
    expected = o.follow(QUADRATIC.gradient, QUADRATIC.params, 30, rule, *rest)
    assert distance(paths([make()], QUADRATIC, 30)[0], expected) < 1e-10


OPTAX: dict[str, Any] = {
    "sophia": lambda lib: lib.contrib.sophia(1e-3),
    "sophia, options": lambda lib: lib.contrib.sophia(
        falling,
        0.9,
        0.9,
        1e-2,
        0.1,
        {"w": True, "b": False},
        0.3,
        0.5,
        2,
        lib.contrib.hutchinson_estimator_diag_hessian(jax.random.key(3)),
    ),
}


@pytest.mark.parametrize("name", OPTAX)
def test_optax(name: str) -> None:
    """The same random signs, the same steps."""
    assert distance(*paths([OPTAX[name](ours), OPTAX[name](optax)], TANH, 100, np.float32)) < 1e-5


def test_the_mean_of_estimates_is_the_diagonal() -> None:
    def loss(p: Any) -> Any:
        return jnp.sum(jnp.prod(p["w"]) + p["w"][0] ** 3 + p["b"] * p["w"][1] + p["b"] ** 4)

    params = {"w": jnp.array([1.0, 2.0]), "b": jnp.array(0.5)}
    tx = gradtx.hutchinson_estimator_diag_hessian(1)

    def one(state: Any, _: None) -> Any:
        estimate, state = tx.update(params, state, params, obj_fn=loss)
        return state, estimate

    _, estimates = jax.lax.scan(one, tx.init(params), None, 4000)
    mean = jax.tree.map(lambda x: jnp.mean(x, axis=0), estimates)
    np.testing.assert_allclose(mean["w"], [6.0, 0.0], atol=0.1)
    np.testing.assert_allclose(mean["b"], 3.0, atol=0.1)
    assert float(jnp.std(estimates["w"][:, 1])) > 0.5


def test_the_win_rate() -> None:
    """Of these four coordinates one has a step below the bound."""
    tx, params = gradtx.scale_by_sophia(b1=0.0, b2=0.0, gamma=1.0, update_interval=1), jnp.array([0.5, 2.0, -3.0, 4.0])
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(params, state, params, obj_fn=lambda x: jnp.sum(x**2) / 2)
    np.testing.assert_allclose(updates, [0.5, 1.0, -1.0, 1.0])
    assert gradtx.metrics(state) == {"win_rate": 0.25}


def test_optax_prints_the_win_rate_if_told_so(capfd: pytest.CaptureFixture[str]) -> None:
    params = jnp.array([0.5, 2.0])
    for lib in (ours, optax):
        tx = lib.contrib.sophia(0.1, verbose=True, print_win_rate_every_n_steps=2)
        state = tx.init(params)
        for _ in range(4):
            _, state = tx.update(params, state, params, obj_fn=lambda x: jnp.sum(x**2))
        jax.effects_barrier()
        assert capfd.readouterr().out.count("Sophia optimizer win rate") == 2
    assert ours.contrib.sophia(0.1, verbose=True) == gradtx.sophia(0.1)


def test_an_estimator_of_ones_own() -> None:
    """It gets the gradients and all extra arguments."""
    squares = gradtx.GradientTransformation(
        lambda p: (), lambda u, s, p=None, *, factor: (jax.tree.map(lambda g: factor * g**2, u), s)
    )
    tx, params = gradtx.scale_by_sophia(b2=0.0, gamma=1.0, hessian_diagonal_fn=squares), jnp.array([2.0, 4.0])
    _, state = tx.update(params, tx.init(params), params, factor=0.5)
    np.testing.assert_allclose(state.nu, [2.0, 8.0])


def test_without_the_loss_the_error_says_how() -> None:
    params = jnp.ones(2)
    with pytest.raises(TypeError, match=r"missing extra argument `obj_fn`; call tx.update\(updates, state, params, obj_fn=...\)"):
        gradtx.sophia(0.1).update(params, gradtx.sophia(0.1).init(params), params)
