"""Why `minimize` stops, what it counts, and what it refuses."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

START = jnp.array([-1.2, 1.0])


def rosenbrock(x: Any) -> jax.Array:
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def squares(x: Any) -> jax.Array:
    return jnp.sum(x**2)


@pytest.mark.parametrize(
    ("tx", "steps", "evaluations"),
    [
        (gradtx.sgd(0.25), 17, 18),  # halves x
        (optax.sgd(0.25), 17, 18),
        (gradtx.newton(), 1, 2),
        (gradtx.storm(k=0.5), None, None),  # wants grad_fn
        (gradtx.chain(gradtx.sgd(0.5), gradtx.scale_by_backtracking_linesearch(5)), 1, 3),  # keeps no gradient
        (gradtx.chain(gradtx.sgd(0.5), gradtx.scale_by_backtracking_linesearch(5, store_grad=True)), 1, 2),
        (gradtx.chain(gradtx.sgd(0.5), gradtx.scale_by_zoom_linesearch(5), gradtx.scale(0.5)), 17, None),  # evaluated elsewhere
        (optax.lbfgs(), None, None),
    ],
)
def test_any_optimizer(tx: Any, steps: int | None, evaluations: int | None) -> None:
    params, result = gradtx.minimize(squares, jnp.array([1.0]), tx, tol=2e-5, max_steps=3000)
    assert bool(result.converged)
    assert abs(float(params[0])) <= 1e-5
    np.testing.assert_allclose(result.value, squares(params), rtol=1e-6)
    np.testing.assert_allclose(result.gradient_norm, 2 * abs(params[0]), rtol=1e-6)
    assert steps is None or int(result.steps) == steps
    assert evaluations is None or int(result.evaluations) == evaluations


def test_arguments_auxiliary_output_trees_and_vmap() -> None:
    def fn(p: Any, a: Any, b: Any) -> Any:
        return jnp.sum((p["w"] - a) ** 2) + (p["b"] - b) ** 2, {"sum": jnp.sum(p["w"])}

    def run(a: Any) -> Any:
        return gradtx.minimize(fn, {"w": jnp.zeros(2), "b": 0.0, "none": None}, gradtx.lbfgs(), a, 3.0, has_aux=True)

    params, result = jax.jit(jax.vmap(run))(jnp.array([[1.0, 2.0], [-4.0, 0.5]]))
    np.testing.assert_allclose(params["w"], [[1, 2], [-4, 0.5]], rtol=1e-4)
    np.testing.assert_allclose(params["b"], [3, 3], rtol=1e-4)
    np.testing.assert_allclose(result.aux["sum"], [3, -3.5], rtol=1e-4)
    assert result.converged.tolist() == [True, True]


def test_at_the_minimum_already() -> None:
    params, result = gradtx.minimize(squares, jnp.zeros(2), gradtx.lbfgs())
    assert (int(result.steps), int(result.evaluations), bool(result.converged)) == (0, 1, True)
    assert params.tolist() == [0, 0]


def test_max_steps() -> None:
    _, result = gradtx.minimize(rosenbrock, START, gradtx.sgd(1e-3), max_steps=7)
    assert (int(result.steps), bool(result.converged)) == (7, False)
    assert result.message() == "max_steps were taken; raise it, or tol"


def test_not_finite_values_end_with_the_last_finite_parameters() -> None:
    params, result = gradtx.minimize(rosenbrock, START, gradtx.sgd(0.1))
    assert result.message().startswith("the value or its gradient is not finite; the parameters are the last ones where they were")
    assert bool(jnp.all(jnp.isfinite(params)))
    np.testing.assert_allclose(result.value, rosenbrock(params), rtol=1e-6)
    params, result = gradtx.minimize(lambda x: jnp.sum(jnp.log(x)), jnp.array([-1.0]), gradtx.lbfgs())
    assert (int(result.steps), bool(result.converged), params.tolist()) == (0, False, [-1])
    assert "not finite" in result.message()


@pytest.mark.parametrize(
    ("tx", "steps"),
    [(gradtx.set_to_zero(), 2), (gradtx.sgd(1.0), 5), (gradtx.scale_by_zoom_linesearch(5), 2)],  # stays; jumps; uphill
)
def test_no_progress(tx: Any, steps: int) -> None:
    params, result = gradtx.minimize(squares, jnp.array([1.0]), tx, patience=5)
    assert (int(result.steps), bool(result.converged)) == (steps, False)
    assert result.message().startswith("no progress: the parameters stayed, or neither value nor gradient fell")
    assert abs(float(params[0])) == 1


def test_a_zero_first_rate_is_no_standstill() -> None:
    tx = gradtx.sgd(gradtx.warmup_constant_schedule(0.0, 0.25, 4))
    assert bool(gradtx.minimize(squares, jnp.array([1.0]), tx)[1].converged)


def test_the_message_is_for_numbers() -> None:
    with pytest.raises(
        TypeError, match=r"MinimizeResult\.message: reason is a tracer, expected a number\. Call message\(\) outside of"
    ):
        jax.jit(lambda x: gradtx.minimize(squares, x, gradtx.lbfgs())[1].message())(START)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"tx": gradtx.lbfgs}, TypeError, "minimize: tx is the class lbfgs, expected a gradient transformation"),
        ({"max_steps": 0}, ValueError, "minimize: max_steps is 0 (int), expected a whole number >= 1."),
        ({"tol": -1.0}, ValueError, "minimize: tol is -1.0 (float), expected a finite number >= 0."),
        ({"patience": 0}, ValueError, "minimize: patience is 0 (int), expected a whole number >= 1."),
        (
            {"fn": lambda x: x},
            TypeError,
            "minimize: value_fn gives an array of shape (2,) and dtype float32, expected a real scalar.",
        ),
        (
            {"x0": jnp.arange(2)},
            TypeError,
            "minimize: x0 leaf `(root)` is an array of shape (2,) and dtype int32, expected a floating",
        ),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    given = {"fn": squares, "x0": START, "tx": gradtx.lbfgs()} | arguments
    with pytest.raises(error, match=f"^{re.escape(text)}"):
        gradtx.minimize(**given)
