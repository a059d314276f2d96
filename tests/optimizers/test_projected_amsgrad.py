"""AMSGrad with projection: float64 oracle, the weighted projection's optimality, Reddi's example, errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import distance, tanh_regression, trajectory

import gradtx
from gradtx.projections import box, l2_ball

TANH = tanh_regression()
KEYS = sorted(TANH.params)


def nearest_in_box(y: dict[str, np.ndarray], w: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.clip(y[name], -0.2, 0.3) for name in y}


def nearest_in_ball(y: dict[str, np.ndarray], w: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`w*y/(w + mu)` with the norm 0.8, by bisection of `mu`."""

    def at(mu: float) -> dict[str, np.ndarray]:
        return {name: w[name] * y[name] / (w[name] + mu) for name in y}

    def norm(x: dict[str, np.ndarray]) -> float:
        return float(np.sqrt(sum(np.sum(leaf**2) for leaf in x.values())))

    if norm(y) <= 0.8:
        return y
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if norm(at(middle)) > 0.8 else (low, middle)
    return at(high)


def amsgrad(steps: int, project: Any, lr: Any, b1: Any, b2: float, eps: float) -> dict[str, np.ndarray]:
    """Reddi et al. 2018, algorithm 2, with `eps` added to the root."""
    x = dict(TANH.params)
    m, v, v_max = ({name: np.zeros_like(leaf) for name, leaf in x.items()} for _ in range(3))
    path = []
    for t in range(steps):
        g, decay = TANH.gradient(x), b1(t) if callable(b1) else b1
        rate = lr(t) if callable(lr) else lr
        w, y = {}, {}
        for name in x:
            m[name] = decay * m[name] + (1 - decay) * g[name]
            v[name] = b2 * v[name] + (1 - b2) * g[name] ** 2
            v_max[name] = np.maximum(v_max[name], v[name])
            w[name] = np.sqrt(v_max[name]) + eps
            y[name] = x[name] - rate * m[name] / w[name]
        x = project(y, w)
        path.append(x)
    return {name: np.stack([point[name] for point in path]) for name in x}


def falling_rate(count: Any) -> Any:
    return 0.1 / (1.0 + count) ** 0.5


def falling_decay(count: Any) -> Any:
    return 0.9 / (1.0 + count)


@pytest.mark.parametrize(
    ("projection", "oracle"), [(box(-0.2, 0.3), nearest_in_box), (l2_ball(0.8), nearest_in_ball)], ids=["box", "ball"]
)
@pytest.mark.parametrize(("lr", "b1"), [(0.02, 0.9), (falling_rate, falling_decay)], ids=["constant", "schedules"])
def test_oracle(projection, oracle, lr, b1):
    ours = trajectory(gradtx.projected_amsgrad(lr, projection, b1, 0.95, 1e-6), TANH, 30)
    expected = amsgrad(30, oracle, lr, b1, 0.95, 1e-6)
    free = amsgrad(30, lambda y, w: y, lr, b1, 0.95, 1e-6)
    assert distance(ours, expected) < 1e-10
    assert distance(free, expected) > 0.1  # the set binds


def test_without_bounds_it_is_amsgrad_without_bias_correction():
    tx = gradtx.projected_amsgrad(0.02, box(-jnp.inf, jnp.inf))
    plain = gradtx.amsgrad(0.02, bias_correction_mu=False, bias_correction_nu=False)
    assert distance(trajectory(tx, TANH, 30), trajectory(plain, TANH, 30)) < 1e-12


def test_the_step_is_optimal_in_the_weighted_norm():
    """Karush-Kuhn-Tucker: `w*(x - y) = -mu*x` with one `mu >= 0`, and `|x| = radius`; the plain projection of `y` is another point."""
    rng = np.random.default_rng(2)
    params, grads = (rng.normal(size=6) for _ in range(2))
    grads *= np.logspace(0, 2, 6)
    params /= np.linalg.norm(params)
    tx = gradtx.projected_amsgrad(0.5, l2_ball(1.0), b1=0.0, b2=0.9)
    with jax.enable_x64(True):
        updates, state = tx.update(jnp.asarray(grads), tx.init(jnp.asarray(params)), jnp.asarray(params))
        x, v_max = params + np.asarray(updates), np.asarray(state.amsgrad.nu_max)
    w = np.sqrt(v_max) + 1e-8
    y = params - 0.5 * grads / w
    assert np.linalg.norm(y) > 1.5
    assert np.linalg.norm(x) == pytest.approx(1.0, abs=1e-12)
    mu = -w * (x - y) / x
    np.testing.assert_allclose(mu, mu[0], rtol=1e-9)
    assert mu[0] > 0
    assert np.linalg.norm(x - y / np.linalg.norm(y)) > 0.1


def test_reddis_example():
    """The gradient of `3x` each third step, else of `-x`, on [-1, 1]: -1 is best. AMSGrad finds it, where Adam ends at +1."""

    def lr(count: Any) -> Any:
        return 0.1 / jnp.sqrt(count + 1.0)

    tx = gradtx.projected_amsgrad(lr, box(-1.0, 1.0), b1=0.0, b2=0.1)
    adam = gradtx.adam(lr, b1=0.0, b2=0.1)

    def step(carry: Any, count: Any) -> Any:
        (x, state), (z, other) = carry
        g = jnp.where(count % 3 == 1, 3.0, -1.0)
        u, state = tx.update(g, state, x)
        v, other = adam.update(g, other, z)
        return ((x + u, state), (jnp.clip(z + v, -1.0, 1.0), other)), None

    zero = jnp.zeros(())
    counts = jnp.arange(1, 100_001)
    run = jax.jit(lambda: jax.lax.scan(step, ((zero, tx.init(zero)), (zero, adam.init(zero))), counts)[0])
    (x, _), (z, _) = run()
    assert float(x) == pytest.approx(-1.0, abs=0.01)
    assert float(z) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_parameters_enter_the_set_in_one_step(dtype):
    params = {"a": jnp.array([5.0, -7.0], dtype), "b": jnp.array(0.25, dtype)}
    tx = gradtx.projected_amsgrad(0.1, box(-1.0, 1.0))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    new = gradtx.apply_updates(params, updates)
    assert updates["a"].dtype == dtype
    assert np.array_equal(np.asarray(new["a"], float), [1.0, -1.0])
    assert float(new["b"]) == 0.25


def test_learning_rate_is_in_the_state():
    tx = gradtx.projected_amsgrad(falling_rate, box(-1.0, 1.0))
    g = jnp.ones(2)
    state = tx.init(g)
    for _ in range(4):
        _, state = tx.update(g, state, g)
    assert float(gradtx.metrics(state)["learning_rate"]) == pytest.approx(0.05)


# Errors -------------------------------------------------------------------------------------------------------


def halves(tree: Any, weights: Any = None) -> Any:
    return {name: leaf[:1] for name, leaf in tree.items()}


def leaves_alone(tree: Any, weights: Any = None) -> Any:
    return list(tree.values())


def unweighted(tree: Any) -> Any:
    return tree


def test_params_are_needed():
    tx = gradtx.projected_amsgrad(0.1, box(-1.0, 1.0))
    with pytest.raises(ValueError, match=r"^projected_amsgrad: needs the parameters; call tx\.update\(updates, state, params\)\.$"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


def test_a_projection_that_changes_the_tree():
    params = {"w": jnp.ones(3)}
    for bad, text in (
        (halves, r"projection changed the shape of `w` from \(3,\) to \(1,\)"),
        (leaves_alone, "projection changed the structure: the tree and its projection differ in structure"),
    ):
        tx = gradtx.projected_amsgrad(0.1, bad)
        with pytest.raises(ValueError, match=f"^projected_amsgrad: {text}"):
            tx.update(params, tx.init(params), params)


def test_a_projection_of_the_wrong_kind():
    text = r"^projected_amsgrad: projection is {}, expected a function project\(tree, weights=None\)\."
    with pytest.raises(TypeError, match=text.format("the function unweighted") + " It projects in a weighted norm: minimize sum"):
        gradtx.projected_amsgrad(0.1, unweighted)
    with pytest.raises(TypeError, match=text.format(r"1\.0 \(float\)")):
        gradtx.projected_amsgrad(0.1, 1.0)
    with pytest.raises(TypeError, match=text.format(r"the class projections\.box") + " This is the factory itself: call it"):
        gradtx.projected_amsgrad(0.1, box)


def test_a_set_without_a_weighted_form():
    params = jnp.ones(3)
    tx = gradtx.projected_amsgrad(0.1, gradtx.projections.simplex())
    with pytest.raises(ValueError, match="this set has no weighted projection here"):
        tx.update(params, tx.init(params), params)


def test_a_schedule_of_b1_out_of_range():
    params = jnp.ones(3)
    tx = gradtx.projected_amsgrad(0.1, box(-1.0, 1.0), b1=lambda count: 1.5)
    with pytest.raises(ValueError, match=r"b1 is 1\.5 \(float\), expected a number in \[0, 1\)"):
        tx.update(params, tx.init(params), params)
