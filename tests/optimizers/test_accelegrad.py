"""AcceleGrad against its paper, in float64, and against its rate on Nesterov's hardest quadratic."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import MANY_SHAPES, distance, quadratic, tanh_regression

import gradtx

TANH, QUADRATIC, BOX = tanh_regression(), quadratic(MANY_SHAPES), gradtx.projections.box(-0.3, 0.3)


def paper(problem: Any, steps: int, diameter: float, bound: float, inside: Any) -> dict[str, Any]:
    """Algorithm 1 of arXiv:1809.02864, each sequence for each leaf; the query points from the second on."""
    names = list(problem.params)
    z = y = dict(problem.params)
    squares, weights, total = 0.0, 0.0, dict.fromkeys(names, 0.0)
    path: dict[str, Any] = {"x": [], "y": [], "z": [], "average": [], "eta": []}
    for k in range(steps + 1):
        alpha = 1.0 if k <= 2 else (k + 1) / 4
        tau = 1 / alpha
        x = {n: tau * z[n] + (1 - tau) * y[n] for n in names}
        path["x"].append(x)
        g = problem.gradient(x)
        squares += alpha**2 * sum(np.sum(g[n] ** 2) for n in names)
        eta = 2 * diameter / np.sqrt(bound**2 + squares)
        z = {n: inside(z[n] - alpha * eta * g[n]) for n in names}
        y = {n: x[n] - eta * g[n] for n in names}
        total = {n: total[n] + alpha * y[n] for n in names}
        weights += alpha
        for key, value in (("y", y), ("z", z), ("average", {n: total[n] / weights for n in names}), ("eta", {"": eta})):
            path[key].append(value)
    path["x"] = path["x"][1:] + path["x"][:1]
    return {key: {n: np.stack([point[n] for point in points[:steps]]) for n in points[0]} for key, points in path.items()}


def run(tx: Any, problem: Any, steps: int) -> dict[str, Any]:
    def step(carry: Any, _: None) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(problem.loss)(params), state, params)
        params = gradtx.apply_updates(params, updates)
        average = gradtx.eval_params(state, params)
        return (params, state), {"x": params, "y": state.y, "z": state.z, "average": average, "eta": {"": state.learning_rate}}

    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, problem.params)
        return jax.tree.map(np.asarray, jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=steps)[1])(params))


@pytest.mark.parametrize("projection", [None, BOX], ids=["free", "projected"])
@pytest.mark.parametrize("problem", [TANH, QUADRATIC], ids=["tanh", "quadratic"])
def test_follows_the_paper(problem: Any, projection: Any) -> None:
    found = run(gradtx.accelegrad(1.5, 0.5, projection), problem, 30)
    expected = paper(problem, 30, 1.5, 0.5, np.asarray if projection is None else lambda x: np.clip(x, -0.3, 0.3))
    for key in ("x", "y", "z", "average", "eta"):
        assert distance(found[key], expected[key]) < 1e-10, key


def test_projection_keeps_z_in_the_set() -> None:
    found = run(gradtx.accelegrad(1.5, 0.5, BOX), QUADRATIC, 30)
    assert max(np.abs(leaf).max() for leaf in found["z"].values()) <= 0.3
    assert max(np.abs(leaf).max() for leaf in found["x"].values()) > 0.3  # y steps out of it, and so may x


def test_rate_on_the_hardest_quadratic() -> None:
    """Nesterov's tridiagonal quadratic: `k^2 * gap / (L * D^2)` stays bounded, though no step knows `L`."""
    d, smoothness = 200, 1.0
    optimum = 1 - np.arange(1, d + 1) / (d + 1)
    diameter = 2 * float(np.linalg.norm(optimum))

    def times_a(x: Any) -> Any:
        return 2 * x - jnp.roll(x, 1).at[0].set(0) - jnp.roll(x, -1).at[-1].set(0)

    def loss(x: Any) -> Any:
        return smoothness / 4 * (x @ times_a(x) / 2 - x[0])

    tx = gradtx.accelegrad(diameter)

    def step(carry: Any, _: None) -> Any:
        x, state = carry
        updates, state = tx.update(smoothness / 4 * times_a(x).at[0].add(-1), state, x)
        x = x + updates
        return (x, state), loss(gradtx.eval_params(state, x)) - loss(optimum)

    with jax.enable_x64(True):
        start = jnp.zeros(d)
        gap = np.asarray(jax.jit(lambda x: jax.lax.scan(step, (x, tx.init(x)), None, length=20_000)[1])(start))
    k = np.arange(1, 20_001)
    scaled = (k**2 * gap / (smoothness * diameter**2))[399:]
    assert scaled.max() <= 0.30
    assert scaled.min() > 0


def test_step_size_is_a_metric_and_in_the_state() -> None:
    tx = gradtx.chain(gradtx.identity(), gradtx.accelegrad(2.0, gradient_bound=4.0))
    params = {"w": jnp.ones(2), "b": jnp.ones(())}
    state = tx.init(params)
    assert float(gradtx.metrics(state)["learning_rate"]) == 1.0  # 2 * 2 / 4, before any gradient
    grads = {"w": jnp.asarray([0.0, 2.0]), "b": jnp.asarray(np.sqrt(5.0), jnp.float32)}  # norm 3 over the whole tree
    _, state = tx.update(grads, state, params)
    np.testing.assert_allclose(gradtx.metrics(state)["learning_rate"], 4 / 5, rtol=1e-6)
    np.testing.assert_allclose(state[1].learning_rate, 4 / 5, rtol=1e-6)


def test_half_precision_parameters_do_not_stall() -> None:
    """Steps below half a unit in the last place add up in the state, of which the parameters are roundings."""
    tx, params = gradtx.accelegrad(1e-4), jnp.ones(3, jnp.bfloat16)
    state = tx.init(params)

    def step(carry: Any, _: None) -> Any:
        p, s = carry
        u, s = tx.update(jnp.ones(3, jnp.bfloat16), s, p)
        return (gradtx.apply_updates(p, u), s), (p, s.y)

    (params, state), (_, y) = jax.lax.scan(step, (params, state), None, length=300)
    wide, narrow = float(state.y[0]), float(params[0].astype(jnp.float32))
    assert abs(float(y[0, 0]) - 1) < 2.0**-9
    assert wide < 1 - 2.0**-8
    assert abs(narrow - wide) < 2.0**-8
    assert gradtx.eval_params(state, params).dtype == jnp.bfloat16


def test_state_survives_donation_of_the_parameters() -> None:
    tx, params = gradtx.accelegrad(1.0), {"w": jnp.ones(3)}
    step = jax.jit(lambda g, s, p: tx.update(g, s, p), donate_argnums=(1, 2))
    updates, _ = step({"w": jnp.ones(3)}, tx.init(params), params)
    assert bool(jnp.all(updates["w"] < 0))


def test_errors() -> None:
    params = {"w": jnp.ones(2), "b": jnp.ones(())}
    tx = gradtx.accelegrad(1.0)
    with pytest.raises(ValueError, match=r"accelegrad: needs the parameters; call tx.update\(updates, state, params\)"):
        tx.update(params, tx.init(params))
    for wrong, text in (
        (lambda tree: list(tree.values()), "projection changed the structure"),
        (lambda tree: {**tree, "w": jnp.ones(())}, r"projection changed the shape of `w`"),
    ):
        tx = gradtx.accelegrad(1.0, projection=wrong)
        with pytest.raises(ValueError, match=f"accelegrad: {text}"):
            tx.update(params, tx.init(params), params)
