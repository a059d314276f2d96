"""Methods that find their step sizes: DoG, Prodigy, D-Adaptation, MoMo, Polyak's, against their papers in float64."""

from collections.abc import Callable
from typing import Any

import adaptive_oracles as ao
import field_oracles as fo
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles as o
import pytest
from oracles import rate
from problems import MANY_SHAPES, Problem, distance, quadratic, tanh_regression, trajectories, trajectory

import gradtx

TANH, QUADRATIC = tanh_regression(), quadratic(MANY_SHAPES)


def falling(count: Any) -> Any:
    return 1.0 / (1.0 + 0.1 * count)


def as_they_are(g: np.ndarray, x: np.ndarray, t: int, s: dict[str, Any]) -> np.ndarray:
    return g


METHODS: dict[str, tuple[Any, Callable[[], Any], Any]] = {  # gradtx, the oracle's rule for the tree, and what follows
    "dog": (lambda: gradtx.dog(), lambda: fo.dog(("heuristic", 1e-6)), rate(1.0)),
    "dog, distance": (lambda: gradtx.dog(falling, ("distance", 0.1), 1e-3), lambda: fo.dog(("distance", 0.1), 1e-3), rate(falling)),
    "dog, learning rate": (lambda: gradtx.dog(0.5, ("learning_rate", 0.2)), lambda: fo.dog(("learning_rate", 0.2)), rate(0.5)),
    "dowg": (lambda: gradtx.dowg(), lambda: fo.dowg(1e-4), rate(1.0)),
    "dowg, distance": (lambda: gradtx.dowg(falling, 0.01, 1e-2), lambda: fo.dowg(0.01, 1e-2), rate(falling)),
    "prodigy": (lambda: gradtx.prodigy(estim_lr0=1e-3), lambda: fo.prodigy(d0=1e-3), as_they_are),
    "prodigy, options": (
        lambda: gradtx.prodigy(falling, (0.8, 0.95), 0.9, 1e-4, 1e-2, 0.7, 0.1, True),
        lambda: fo.prodigy(falling, 0.8, 0.95, 0.9, 1e-4, 1e-2, 0.7, 0.1, True),
        as_they_are,
    ),
    "dadapt_adamw": (lambda: gradtx.dadapt_adamw(estim_lr0=1e-3), lambda: ao.dadapt_adamw(d0=1e-3), as_they_are),
    "dadapt_adamw, options": (
        lambda: gradtx.dadapt_adamw(falling, (0.8, 0.95), 1e-4, 1e-2, 0.1),
        lambda: ao.dadapt_adamw(falling, 0.8, 0.95, 1e-4, 1e-2, 0.1),
        as_they_are,
    ),
}


@pytest.mark.parametrize("problem", [TANH, QUADRATIC], ids=["tanh", "quadratic"])
@pytest.mark.parametrize("name", METHODS)
def test_the_paper(name: str, problem: Any) -> None:
    make, before, after = METHODS[name]
    expected = o.follow(problem.gradient, problem.params, 30, after, before=before())
    assert distance(trajectory(make(), problem, 30), expected) < 1e-10


@pytest.mark.parametrize("arguments", [{}, {"f_min": -0.1, "max_learning_rate": 0.2}, {"eps": 0.1}])
def test_polyak(arguments: dict[str, float]) -> None:
    names = {"f_min": "f_min", "max_learning_rate": "largest", "eps": "eps"}
    before = fo.polyak(value_of(TANH), **{names[key]: number for key, number in arguments.items()})
    expected = o.follow(TANH.gradient, TANH.params, 20, rate(1.0), before=before)
    (ours,) = trajectories([gradtx.polyak_sgd(**arguments)], TANH, 20, objective=True)
    assert distance(ours, expected) < 1e-10


def value_of(problem: Problem) -> Callable[[Any], float]:
    """The loss for NumPy."""

    def value(params: Any) -> float:
        with jax.enable_x64(True):
            return float(problem.loss(params))

    return value


MODELS: dict[str, tuple[Any, dict[str, Any]]] = {  # gradtx, and the oracle's arguments
    "momo": (lambda: gradtx.momo(), {}),
    "momo, options": (
        lambda: gradtx.momo(falling, 0.8, -0.1, 0.05, True),
        {"lr": falling, "beta": 0.8, "bound": -0.1, "decay": 0.05, "adapt": True},
    ),
    "momo_adam": (lambda: gradtx.momo_adam(0.05), {"lr": 0.05, "adam": (0.999, 1e-8)}),
    "momo_adam, options": (
        lambda: gradtx.momo_adam(falling, 0.8, 0.95, 1e-3, -0.1, 0.05, True),
        {"lr": falling, "beta": 0.8, "bound": -0.1, "decay": 0.05, "adapt": True, "adam": (0.95, 1e-3)},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_the_loss(name: str) -> None:
    make, arguments = MODELS[name]
    expected = o.follow(TANH.gradient, TANH.params, 30, as_they_are, before=ao.momo(value_of(TANH), **arguments))
    (ours,) = trajectories([make()], TANH, 30, objective=True)
    assert distance(ours, expected) < 1e-10


@pytest.mark.parametrize("tx", [gradtx.momo(), gradtx.momo_adam()])
def test_models_want_a_scalar(tx: Any) -> None:
    with pytest.raises(TypeError, match=r"value is .*, expected a real scalar, such as the loss"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2), value=jnp.ones(2))


@pytest.mark.parametrize(("name", "slope"), [("momo", 1e-9), ("momo_adam", 1e-12)])
def test_models_step_at_gradients_whose_squares_optax_takes_for_zero(name: str, slope: float) -> None:
    """The loss `slope * |x|` at 1: the model meets its bound far away, so the largest step is taken."""
    params, grads = jnp.ones(1), jnp.array([slope])
    found = []
    for lib in (gradtx, optax.contrib):
        tx = getattr(lib, name)(0.5)
        updates, _ = tx.update(grads, tx.init(params), params, value=jnp.asarray(slope))
        found.append(float(updates[0]))
    assert found[0] < 0 == found[1]


def test_dadapt_of_zero_gradients_is_nan_in_optax() -> None:
    params = jnp.ones(2)
    for lib, finite in ((gradtx, True), (optax.contrib, False)):
        tx = lib.dadapt_adamw()
        _, state = tx.update(jnp.zeros(2), tx.init(params), params)
        assert bool(jnp.isfinite(state.estim_lr)) is finite


def test_polyak_takes_no_step_below_the_least_loss_if_told_so() -> None:
    params = jnp.array([3.0, 4.0])
    for variant, factor in (("sps", -0.04), ("sps+", 0.0)):
        tx = gradtx.scale_by_polyak(f_min=2.0, variant=variant)
        updates, state = tx.update(params, tx.init(params), params, value=1.0)
        np.testing.assert_allclose(updates, factor * params, rtol=1e-6)
        np.testing.assert_allclose(state.learning_rate, factor, rtol=1e-6)


def test_polyak_of_gradients_whose_squares_leave_the_range_of_float32() -> None:
    tx = gradtx.scale_by_polyak(max_learning_rate=1e30)
    for size, value in ((1e-25, 1e-30), (1e25, 1e30)):
        grads = jnp.array([size])
        updates, _ = tx.update(grads, tx.init(grads), grads, value=value)
        np.testing.assert_allclose(updates, value / size, rtol=1e-5)
    updates, _ = tx.update(jnp.zeros(1), tx.init(grads), grads, value=1.0)
    np.testing.assert_array_equal(updates, 0)


def test_polyak_wants_a_scalar() -> None:
    tx = gradtx.polyak_sgd()
    with pytest.raises(TypeError, match=r"value is .*, expected a real scalar, such as the loss"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2), value=jnp.ones(2))


def test_without_gradients_nothing_moves() -> None:
    params = {"w": jnp.ones(3), "b": jnp.zeros(())}
    grads = jax.tree.map(jnp.zeros_like, params)
    for tx in (gradtx.dog(eps=0.0), gradtx.dowg(eps=0.0), gradtx.prodigy(), gradtx.dadapt_adamw(eps=0.0), gradtx.cocob(eps=0.0)):
        updates, _ = tx.update(grads, tx.init(params), params)
        jax.tree.map(np.testing.assert_array_equal, updates, grads)
