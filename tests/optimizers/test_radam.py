"""RAdam: float64 oracle, the lengths `rho` in float32, thresholds, errors."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import distance, tanh_regression, trajectory

import gradtx
from gradtx.optimizers.radam import approximate_length, rectification

TANH = tanh_regression()


def radam(
    steps: int,
    lr: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    nesterov: bool = False,
) -> tuple[dict[str, np.ndarray], list[bool]]:
    """Liu et al. 2019, algorithm 2, whose threshold is `rho > 4` and whose `eps` is 0; also which steps adapt."""
    x, m, v = dict(TANH.params), dict.fromkeys(TANH.params, 0.0), dict.fromkeys(TANH.params, 0.0)
    path, adapts = [], []
    rho_inf = 2 / (1 - b2) - 1
    for t in range(1, steps + 1):
        g = TANH.gradient(x)
        rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
        adapts.append(rho >= threshold and rho > 4)
        moved = {}
        for name in x:
            m[name] = b1 * m[name] + (1 - b1) * g[name]
            v[name] = b2 * v[name] + (1 - b2) * g[name] ** 2
            m_hat = m[name] / (1 - b1**t)
            if nesterov:
                m_hat = b1 * m[name] / (1 - b1 ** (t + 1)) + (1 - b1) * g[name] / (1 - b1**t)
            step = m_hat
            if adapts[-1]:
                r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
                step = r * m_hat / (np.sqrt(v[name] / (1 - b2**t) + eps_root) + eps)
            moved[name] = x[name] - lr * step
        x = moved
        path.append(x)
    return {name: np.stack([point[name] for point in path]) for name in x}, adapts


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({}, 6),
        ({"threshold": 4.0}, 5),
        ({"b1": 0.8, "b2": 0.95, "eps": 1e-3, "eps_root": 1e-4, "nesterov": True}, 6),
        ({"b2": 0.61, "threshold": 4.0}, 11),
        ({"b2": 0.6}, None),
        ({"b2": 0.3, "nesterov": True}, None),
        ({"b2": 0.0}, None),
        ({"b1": 0.0, "b2": 0.99}, 6),
    ],
)
def test_oracle(options, first):
    expected, adapts = radam(30, 0.05, **options)
    assert (adapts.index(True) + 1 if any(adapts) else None) == first
    assert distance(trajectory(gradtx.radam(0.05, **options), TANH, 30), expected) < 1e-10


def exact_length(b2: float, t: int) -> float:
    """`rho_inf - 2*t*b2^t/(1-b2^t)` in rational numbers."""
    b, power = Fraction(b2), Fraction(b2) ** t
    return float((1 + b) / (1 - b) - 2 * t * power / (1 - power))


@pytest.mark.parametrize("b2", [0.3, 0.6, 0.9, 0.95, 0.999, 0.9999, 0.999999])
def test_lengths_in_float32(b2):
    """Exact rational numbers against float32, where the textbook form is off by 1 at b2 = 0.999999."""
    for t in (1, 2, 5, 6, 10, 50, 200):
        rho, _ = approximate_length(b2, jnp.asarray(t, jnp.int32))
        assert rho.dtype == jnp.float32
        np.testing.assert_allclose(float(rho), exact_length(b2, t), rtol=1e-6)


@pytest.mark.parametrize("b2", [0.0, 0.5, 0.6, 0.999, 0.9999999])
def test_lengths_at_the_largest_count(b2):
    rho, rho_inf = approximate_length(b2, jnp.asarray(2**31 - 1, jnp.int32))
    np.testing.assert_allclose(float(rho), 2 / (1 - b2) - 1, rtol=1e-5)
    tractable, r = rectification(rho, rho_inf, 4.0)
    assert bool(tractable) == (b2 > 0.6)
    np.testing.assert_allclose(float(r), 1.0, rtol=1e-5)


@pytest.mark.parametrize("b2", [0.0, 0.5, 0.999])
def test_a_traced_decay_gives_the_same(b2):
    tx = gradtx.scale_by_radam(b2=b2)
    g = jnp.array([0.5, -2.0])

    def two_steps(make):
        state = make().init(g)._replace(count=jnp.asarray(7, jnp.int32))
        u, state = make().update(g, state)
        return u

    traced = jax.jit(lambda decay: two_steps(lambda: gradtx.scale_by_radam(b2=decay)))(jnp.float32(b2))
    np.testing.assert_allclose(traced, two_steps(lambda: tx), rtol=1e-3)  # float32(0.999) is 1e-5 off in 1 - b2


def test_after_many_steps_it_is_adam():
    g = jnp.array([0.5, -2.0])
    states = []
    for make in (gradtx.scale_by_radam, gradtx.scale_by_adam):
        state = make().init(g)._replace(count=jnp.asarray(10**6, jnp.int32), mu=g, nu=g**2)
        states.append(make().update(g, state)[0])
    np.testing.assert_allclose(*states, rtol=1e-6)


def test_the_threshold_is_in_the_domain_of_r():
    with pytest.raises(
        ValueError,
        match=r"^radam: threshold is 3\.9 \(float\), expected a finite number >= 4\. At or below 4 the variance is infinite\.$",
    ):
        gradtx.radam(0.1, threshold=3.9)
    with pytest.raises(TypeError, match=r"^scale_by_radam: threshold is 'a' \(str\), expected a finite number >= 4"):
        gradtx.scale_by_radam(threshold="a")
    assert jax.jit(lambda s: gradtx.radam(0.1, threshold=s).init(jnp.zeros(2))[0].count)(5.0) == 0
