"""Line searches: their conditions, where they fail, what they keep, and what they say to a wrong call."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

START = jnp.array([-1.2, 1.0])
ZOOM, BACKTRACK = gradtx.scale_by_zoom_linesearch(20), gradtx.scale_by_backtracking_linesearch(30, store_grad=True)
BOTH = pytest.mark.parametrize("search", [ZOOM, BACKTRACK], ids=["zoom", "backtracking"])


def rosenbrock(x: Any) -> jax.Array:
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def well(x: Any) -> jax.Array:
    """Finite for |x| < 1 alone."""
    return jnp.sum(-jnp.log(1 - x**2) + x)


def call(tx: Any, fn: Any, params: Any, state: Any = None, **data: Any) -> Any:
    value, grad = jax.value_and_grad(fn)(params)
    return tx.update(grad, tx.init(params) if state is None else state, params, value=value, grad=grad, value_fn=fn, **data)


def line(fn: Any, x: Any, u: Any, s: Any) -> tuple[Any, Any]:
    """Value and slope at `x + s*u`."""
    return jax.jvp(lambda t: fn(x + t * u), (s,), (jnp.ones_like(s),))


def test_backtracking_against_the_rule_in_numpy() -> None:
    def f(x: Any) -> float:
        return float(100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2)

    def g(x: Any) -> Any:
        return np.array([-400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)])

    with jax.enable_x64(True):
        search = gradtx.scale_by_backtracking_linesearch(50, 0.2, 0.6, 2.0, 0.5)
        tx, params = gradtx.chain(gradtx.scale(-1.0), search), jnp.asarray(np.array([-1.2, 1.0]))
        state, step = tx.init(params), jax.jit(lambda x, s: call(tx, rosenbrock, x, s))
        x, last = np.array([-1.2, 1.0]), 1.0
        for _ in range(30):
            updates, state = step(params, state)
            params = params + updates
            last, trials = min(2.0 * last, 0.5), 1
            while f(x - last * g(x)) > f(x) - 0.2 * last * g(x) @ g(x):
                last, trials = 0.6 * last, trials + 1
            x = x - last * g(x)
            assert int(state[1].info.num_linesearch_steps) == trials
            np.testing.assert_allclose(params, x, rtol=1e-10)
            np.testing.assert_allclose(state[1].value, f(x), rtol=1e-10)
            assert state[1].grad is None


@BOTH
def test_trials_outside_the_domain_are_shortened(search: Any) -> None:
    tx, x = gradtx.chain(gradtx.scale(-100.0), search), jnp.array([0.5, -0.3])
    updates, state = call(tx, well, x)
    assert well(x + updates) < well(x)
    np.testing.assert_allclose(state[1].value, well(x + updates), rtol=1e-5)


@BOTH
def test_nothing_but_nan_ahead_gives_a_step_of_zero(search: Any) -> None:
    x = jnp.array([0.5])

    def fn(y: Any) -> jax.Array:
        return jnp.where(jnp.all(y == 0.5), jnp.sum(y), jnp.nan)

    updates, state = search.update(-x, search.init(x), x, value=jnp.float32(0.5), grad=x, value_fn=fn)
    assert (float(updates[0]), float(state.learning_rate), float(state.value), float(state.grad[0])) == (0, 0, 0.5, 0.5)
    assert float(state.info.decrease_error) == np.inf
    updates, state = call(search, lambda y: jnp.sum(y), x, state)  # ascends: the search starts again, and fails again
    assert int(state.info.num_linesearch_steps) > 1
    u = -jnp.ones(1)
    updates, state = search.update(u, state, x, value=0.5, grad=-u, value_fn=jnp.sum)
    assert float(updates[0]) < 0


def test_zoom_takes_no_step_uphill() -> None:
    updates, state = call(ZOOM, rosenbrock, START)
    assert updates.tolist() == [0, 0]
    assert float(state.value) == float(rosenbrock(START))


def test_the_decrease_is_told_by_the_slope_where_values_round() -> None:
    """Near the minimum of 1e4 + x^2, float32 values do not differ: the slope still shows the way."""

    def fn(x: Any) -> jax.Array:
        return 1e4 + jnp.sum(x**2)

    x = jnp.array([1e-3])
    for rtol, expected in ((1e-6, 0.5), (None, None)):
        search = gradtx.scale_by_zoom_linesearch(20, approx_dec_rtol=rtol, curv_rtol=0.1)
        _, state = call(gradtx.chain(gradtx.scale(-1.0), search), fn, x)
        assert expected is None or abs(float(state[1].learning_rate) - expected) < 0.1
        assert (float(state[1].info.decrease_error) == 0) == (expected is not None)


def test_steps_grow_to_the_largest_rate_and_start_where_told() -> None:
    def fn(x: Any) -> jax.Array:
        return -jnp.sum(x)

    x, u = jnp.zeros(1), jnp.ones(1)
    arguments = {"value": fn(x), "grad": -u, "value_fn": fn}
    for strategy, trials in (("keep", 1), ("one", 5)):  # 10 at once; 1, 2, 4, 8, 10
        search = gradtx.scale_by_zoom_linesearch(20, max_learning_rate=10.0, initial_guess_strategy=strategy)
        _, state = search.update(u, search.init(x), x, **arguments)
        assert (float(state.learning_rate), int(state.info.num_linesearch_steps)) == (10, 5)
        _, state = search.update(u, state, x, **arguments)
        assert (float(state.learning_rate), int(state.info.num_linesearch_steps)) == (10, trials)


@BOTH
def test_extra_arguments_reach_the_function(search: Any) -> None:
    def fn(x: Any, data: Any, *, shift: Any = 0.0) -> jax.Array:
        return jnp.sum((x - data - shift) ** 2)

    tx, x, data = gradtx.chain(gradtx.scale(-0.5), search), jnp.zeros(2), jnp.array([1.0, 2.0])
    value, grad = jax.value_and_grad(fn)(x, data, shift=1.0)
    updates, _ = tx.update(grad, tx.init(x), x, value=value, grad=grad, value_fn=fn, data=data, shift=1.0, of_others=3)
    np.testing.assert_allclose(updates, data + 1, rtol=1e-5)
    with pytest.raises(TypeError, match=r"value_fn takes no argument `shfit`\. Did you mean 'shift'\?"):
        tx.update(grad, tx.init(x), x, value=value, grad=grad, value_fn=fn, data=data, shfit=1.0)


@pytest.mark.parametrize("make", [gradtx.scale_by_zoom_linesearch, gradtx.scale_by_backtracking_linesearch])
def test_auxiliary_output(make: Any) -> None:
    def fn(x: Any) -> Any:
        return rosenbrock(x), {"twice": 2 * x}

    plain, with_aux = (gradtx.chain(gradtx.scale(-1.0), make(15, has_aux=aux)) for aux in (False, True))
    expected, _ = call(plain, rosenbrock, START)
    (value, _), grad = jax.value_and_grad(fn, has_aux=True)(START)
    arguments = {"value": value, "grad": grad, "value_fn": fn}
    updates, _ = with_aux.update(grad, with_aux.init(START), START, **arguments)
    assert updates.tolist() == expected.tolist()
    with pytest.raises(TypeError, match=r"value_fn gives a tuple, expected a number; set has_aux=True if it is \(value, aux\)"):
        plain.update(grad, plain.init(START), START, **arguments)
    with pytest.raises(TypeError, match=r"value_fn gives an array .*, expected \(value, aux\), since has_aux is set"):
        with_aux.update(grad, with_aux.init(START), START, **arguments | {"value_fn": rosenbrock})


@BOTH
def test_complex_parameters_count_as_pairs_of_real_ones(search: Any) -> None:
    tx = gradtx.chain(gradtx.scale(-1.0), search)

    def of_complex(z: Any) -> jax.Array:
        return rosenbrock([z.real, z.imag])

    z = jnp.asarray(-1.2 + 1j)
    value, grad = jax.value_and_grad(of_complex)(z)
    grad = jnp.conj(grad)
    updates, state = tx.update(grad, tx.init(z), z, value=value, grad=grad, value_fn=of_complex)
    expected, expected_state = call(tx, rosenbrock, START)
    np.testing.assert_allclose([updates.real, updates.imag], expected, rtol=1e-6)
    np.testing.assert_allclose(state[1].grad, expected_state[1].grad @ np.array([1, -1j]), rtol=1e-5)  # as jax.grad has it
    assert state[1].value.dtype == jnp.float32


@pytest.mark.parametrize(
    "tx",
    [gradtx.chain(gradtx.scale(-1.0), ZOOM), gradtx.chain(gradtx.scale(-1.0), BACKTRACK), gradtx.lbfgs(), gradtx.newton()],
    ids=["zoom", "backtracking", "lbfgs", "newton"],
)
def test_the_function_sees_parameters_of_their_own_dtypes(tx: Any) -> None:
    seen: set[Any] = set()

    def fn(p: Any) -> jax.Array:
        seen.add((jax.tree.structure(p), p["half"].dtype, p["single"].dtype))
        return jnp.sum((p["half"] - 1) ** 2).astype(jnp.float32) + jnp.sum((p["single"] - 2) ** 2)

    params = {"half": jnp.zeros(2, jnp.bfloat16), "none": None, "single": jnp.zeros(1)}
    (value, grad), state = jax.value_and_grad(fn)(params), tx.init(params)
    updates, after = tx.update(grad, state, params, value=value, grad=grad, value_fn=fn)
    assert fn(gradtx.apply_updates(params, updates)) < value
    gradtx.minimize(fn, params, tx, max_steps=5)
    assert seen == {(jax.tree.structure(params), jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32))}
    assert jax.tree.map(jnp.result_type, (updates, after)) == jax.tree.map(jnp.result_type, (params, state))


@pytest.mark.parametrize("has_aux", [False, True])
def test_value_and_gradient_from_the_state(has_aux: bool) -> None:
    calls = []

    def fn(x: Any, a: Any) -> Any:
        jax.debug.callback(lambda: calls.append(1))
        value = jnp.sum((x - a) ** 4)
        return (value, x + 1) if has_aux else value

    tx, x = gradtx.lbfgs(linesearch=gradtx.scale_by_zoom_linesearch(20, has_aux=has_aux)), jnp.array([1.0, 2.0], jnp.float32)
    value_and_grad = gradtx.value_and_grad_from_state(fn, has_aux=has_aux)
    state, a = tx.init(x), jnp.ones(2)
    for _ in range(3):
        out, grad = value_and_grad(x, a, state=state)
        expected, expected_grad = jax.value_and_grad(fn, has_aux=has_aux)(x, a)
        np.testing.assert_allclose(jax.tree.leaves((out, grad))[0], jax.tree.leaves((expected, expected_grad))[0], rtol=1e-6)
        np.testing.assert_allclose(grad, expected_grad, rtol=1e-6)
        assert not has_aux or out[1].tolist() == (x + 1).tolist()
        value = out[0] if has_aux else out
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=fn, a=a)
        x = gradtx.apply_updates(x, updates)
    jax.effects_barrier()
    calls.clear()
    jax.block_until_ready(value_and_grad(x, a, state=state))
    jax.effects_barrier()
    assert len(calls) == int(has_aux)


def test_value_and_gradient_missing_in_the_state() -> None:
    value_and_grad = gradtx.value_and_grad_from_state(rosenbrock)
    for tx, text in (
        (gradtx.adam(0.1), "`value` is found 0 times in the state, expected once. Line searches keep it"),
        (gradtx.scale_by_backtracking_linesearch(5), "`grad` is found 0 times in the state"),
        (gradtx.chain(ZOOM, ZOOM), "`value` is found 2 times in the state"),
    ):
        with pytest.raises(ValueError, match=f"^value_and_grad_from_state: {text}"):
            value_and_grad(START, state=tx.init(START))


# Wrong calls --------------------------------------------------------------------------------------------------

CALL = (
    "call tx.update(grad, state, params, value=value, grad=grad, value_fn=fn), with value, grad = jax.value_and_grad(fn)(params)."
)


@pytest.mark.parametrize(
    ("drop", "found"),
    [
        (("value", "grad", "value_fn"), "missing extra arguments `value`, `grad`, `value_fn`"),
        (("grad", "value_fn"), "missing extra arguments `grad`, `value_fn`"),
        (("value",), "missing extra argument `value`"),
    ],
)
@pytest.mark.parametrize(
    ("tx", "name"),
    [
        (gradtx.lbfgs(), "lbfgs > scale_by_zoom_linesearch"),
        (gradtx.bfgs(), "bfgs > scale_by_zoom_linesearch"),
        (BACKTRACK, "scale_by_backtracking_linesearch"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_called_like_adam(tx: Any, name: str, drop: tuple[str, ...], found: str) -> None:
    extra = {"value": 1.0, "grad": START, "value_fn": rosenbrock}
    given = {key: x for key, x in extra.items() if key not in drop}
    with pytest.raises(TypeError, match=f"^{re.escape(f'{name}: {found}; {CALL}')}"):
        tx.update(START, tx.init(START), START, **given)


@BOTH
@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        (
            {"value": jnp.ones(2)},
            ValueError,
            "value is an array of shape (2,) and dtype float32, expected a scalar, value_fn(params).",
        ),
        ({"value_fn": 3.0}, TypeError, "value_fn is 3.0 (float), expected a function from parameters to a number."),
        ({"value_fn": lambda x: x}, TypeError, "value_fn gives an array of shape (2,) and dtype float32, expected a real scalar."),
        ({"grad": {"w": START}}, ValueError, "grad and params differ in structure: `w` is only in grad."),
        ({"grad": jnp.ones(3)}, ValueError, "grad leaf `(root)` has shape (3,), but params has (2,) there"),
    ],
)
def test_wrong_extra_arguments(search: Any, wrong: dict[str, Any], error: type[Exception], text: str) -> None:
    extra = {"value": 1.0, "grad": START, "value_fn": rosenbrock} | wrong
    with pytest.raises(error, match=re.escape(text)):
        search.update(START, search.init(START), START, **extra)


@BOTH
def test_misspelt_extra_arguments(search: Any) -> None:
    with pytest.raises(TypeError, match=r"unknown extra argument `value_fnc`\. Did you mean 'value_fn'\?"):
        search.update(START, search.init(START), START, value=1.0, grad=START, value_fnc=rosenbrock)


@BOTH
def test_parameters_are_needed(search: Any) -> None:
    with pytest.raises(ValueError, match=r"needs the parameters; call tx\.update"):
        search.update(START, search.init(START), value=1.0, grad=START, value_fn=rosenbrock)


@BOTH
def test_a_line_search_of_all_parameters_after_a_mask(search: Any) -> None:
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    value_fn = lambda p: jnp.sum(p["a"] ** 2) + jnp.sum(p["b"] ** 4)  # noqa: E731
    for first in (
        gradtx.partition({1: gradtx.lbfgs(linesearch=None), 2: gradtx.sgd(0.1)}, {"a": 1, "b": 2}),
        gradtx.selective_transform(gradtx.sgd(1.0), freeze_mask={"a": False, "b": True}),
    ):
        tx = gradtx.chain(first, search)
        updates, _ = call(tx, value_fn, params)
        assert value_fn(gradtx.apply_updates(params, updates)) < value_fn(params)


@pytest.mark.parametrize("make", [gradtx.scale_by_zoom_linesearch, gradtx.scale_by_backtracking_linesearch])
def test_verbose_prints_failures_alone(make: Any, capsys: Any) -> None:
    search = make(3, verbose=True)
    call(gradtx.chain(gradtx.scale(-1e-3), search), rosenbrock, START)
    jax.effects_barrier()
    assert capsys.readouterr().out == ""
    call(search, rosenbrock, START)
    jax.effects_barrier()
    assert re.search(f"{make.__name__}: no step .*; value 24.2.*, slope .*; taking step", capsys.readouterr().out)


def test_metrics() -> None:
    _, state = call(gradtx.chain(gradtx.scale(-1e-3), ZOOM), rosenbrock, START)
    found = gradtx.metrics(state)
    assert found["learning_rate"] == state[1].learning_rate
    assert found["linesearch_steps"] == state[1].info.num_linesearch_steps
