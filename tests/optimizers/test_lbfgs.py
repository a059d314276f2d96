"""L-BFGS against its definition in float64, and against SciPy's count of evaluations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import distance, tanh_regression, trajectories
from sklearn.datasets import load_breast_cancer

import gradtx

TANH = tanh_regression()


def flat(tree: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([tree[name].ravel() for name in tree])


def oracle(memory: int, scaled: bool, rate: float, steps: int) -> dict[str, np.ndarray]:
    """Nocedal and Wright, equations 7.16 to 7.20, with the matrix written out: `x -= rate * P @ g`."""
    shapes = {name: p.shape for name, p in TANH.params.items()}
    cuts = np.cumsum([p.size for p in TANH.params.values()])[:-1]

    def tree(x: np.ndarray) -> dict[str, np.ndarray]:
        return {name: part.reshape(shapes[name]) for name, part in zip(shapes, np.split(x, cuts), strict=True)}

    x, pairs, path, last = flat(TANH.params), [], [], None
    eye = np.eye(x.size)
    for _ in range(steps):
        g = flat({name: TANH.gradient(tree(x))[name] for name in shapes})
        if last is not None:
            s, y = x - last[0], g - last[1]
            assert s @ y > 0
            pairs = [*pairs, (s, y)][-memory:]
        p = min(1.0, 1 / np.linalg.norm(g)) * eye if scaled else eye
        if pairs and scaled:
            s, y = pairs[-1]
            p = (s @ y) / (y @ y) * eye
        for s, y in pairs:
            v = eye - np.outer(y, s) / (s @ y)
            p = v.T @ p @ v + np.outer(s, s) / (s @ y)
        last = x, g
        x = x - rate * p @ g
        path.append(tree(x))
    return {name: np.stack([point[name] for point in path]) for name in shapes}


@pytest.mark.parametrize(("memory", "scaled"), [(10, True), (3, True), (5, False)])
def test_thirty_steps_of_the_definition(memory: int, scaled: bool) -> None:
    tx = gradtx.lbfgs(0.3, memory, scaled, None)
    assert distance(trajectories([tx], TANH, 30)[0], oracle(memory, scaled, 0.3, 30)) < 1e-10


def rosenbrock(x: Any) -> jax.Array:
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def breast_cancer(l2: float) -> Any:
    x, y = load_breast_cancer(return_X_y=True)
    x = np.c_[(x - x.mean(0)) / x.std(0), np.ones(len(x))]
    sign = 2.0 * y - 1

    def loss(w: Any) -> jax.Array:
        return jnp.mean(jnp.logaddexp(0, -sign * (x @ w))) + l2 / 2 * jnp.sum(w**2)

    return loss


PROBLEMS = {
    "logistic regression": (lambda: breast_cancer(1e-3), np.zeros(31)),
    "Rosenbrock, 2": (lambda: rosenbrock, np.array([-1.2, 1.0])),
    "Rosenbrock, 100": (lambda: rosenbrock, np.tile([-1.2, 1.0], 50)),
}


def test_rosenbrock_in_forty_updates() -> None:
    with jax.enable_x64(True):
        x = jnp.array([-1.2, 1.0])
        params, result = gradtx.minimize(rosenbrock, x, gradtx.lbfgs(memory_size=10), tol=1e-8 / np.sqrt(2))
        assert float(jnp.linalg.norm(jax.grad(rosenbrock)(params))) < 1e-8
        assert int(result.steps) <= 40


def test_complex_parameters_count_as_pairs_of_real_ones() -> None:
    matrix = np.array([[1, -2], [3, 4], [-4 + 2j, 5 - 3j], [-2 - 2j, 6]])

    def of_complex(z: Any) -> jax.Array:
        return jnp.sum(jnp.abs(matrix @ z - 1) ** 1.5)

    def of_real(x: Any) -> jax.Array:
        return of_complex(x[0] + 1j * x[1])

    z = np.array([1 - 1j, 1j])
    with jax.enable_x64(True):
        found, result = gradtx.minimize(of_complex, jnp.asarray(z), gradtx.lbfgs(), max_steps=6, tol=0.0)
        real, other = gradtx.minimize(of_real, jnp.stack([z.real, z.imag]), gradtx.lbfgs(), max_steps=6, tol=0.0)
        np.testing.assert_allclose(found, real[0] + 1j * real[1], rtol=1e-8)
        np.testing.assert_allclose(result.value, other.value, rtol=1e-10)
        np.testing.assert_allclose(result.gradient_norm, np.max(np.abs(jax.grad(of_complex)(found))), rtol=1e-6)


def updates_of(tx: Any, points: list[tuple[Any, Any]]) -> list[Any]:
    state, out = tx.init(points[0][0]), []
    for x, g in points:
        u, state = tx.update(g, state, x)
        out.append((u, state))
    return out


def test_pairs_without_positive_curvature_are_left_out() -> None:
    tx, zero = gradtx.scale_by_lbfgs(4), jnp.zeros(2)
    g = jnp.array([0.3, 0.4])
    good = [(zero, g), (jnp.array([1.0, 0.0]), g + jnp.array([2.0, 0.0]))]
    for x, y in (
        ([2.0, 0.0], [1.0, 0.0]),
        ([1.0, 1e-3], [2.0, -1e-3]),
        ([1.0, 1.0], [3.0, 1e-8]),
    ):  # negative; negative; nearly orthogonal
        (_, state), (u, after) = updates_of(tx, [*good, (jnp.array(x), g + jnp.array(y))])[1:]
        assert after.weights_memory.tolist() == [0.5, 0, 0, 0]
        np.testing.assert_allclose(u, 0.5 * (g + jnp.array(y)), rtol=1e-6)  # the good pair and its scale: curvature 2
    assert state.weights_memory.tolist() == [0.5, 0, 0, 0]


def test_tiny_curvature_divides_nothing() -> None:
    tx, g = gradtx.scale_by_lbfgs(4), jnp.array([1e-20, -1e-21])
    (u, state) = updates_of(tx, [(jnp.zeros(2), g), (jnp.full(2, 1e-22), 1.01 * g), (jnp.full(2, 2e-22), 1.02 * g)])[-1]
    assert bool(jnp.all(jnp.isfinite(u)))
    assert state.weights_memory.tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(u, 1.02 * g, rtol=1e-6)


def test_pairs_are_forgotten_where_the_parameters_stayed() -> None:
    tx, x, g = gradtx.scale_by_lbfgs(4), jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0])
    path = updates_of(tx, [(0 * x, 0 * g), (x, g), (x, g)])
    assert path[1][1].weights_memory.tolist() == [0.5, 0, 0, 0]
    assert path[2][1].weights_memory.tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(path[2][0], g / 2)  # min(1, 1/||g||)


def test_float32_parameters_with_x64_under_scan() -> None:
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            tx, x = gradtx.lbfgs(), jnp.array([-1.2, 1.0], dtype)

            def step(carry: Any, _: None, tx: Any = tx) -> Any:
                x, state = carry
                value, grad = jax.value_and_grad(rosenbrock)(x)
                updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=rosenbrock)
                return (gradtx.apply_updates(x, updates), state), value

            (x, state), _ = jax.lax.scan(step, (x, tx.init(x)), None, length=40)
            assert {leaf.dtype for leaf in jax.tree.leaves((x, state))} == {jnp.dtype(dtype), jnp.dtype("int32")}
            np.testing.assert_allclose(x, [1, 1], atol=1e-3 if dtype == jnp.float32 else 1e-7)


def test_a_state_of_other_parameters() -> None:
    tx = gradtx.scale_by_lbfgs(2)
    state = tx.init(jnp.ones(3))
    with pytest.raises(
        ValueError, match=r"scale_by_lbfgs: updates leaf `\(root\)` has shape \(2,\), but the tree in the state has \(3,\)"
    ):
        tx.update(jnp.ones(2), state, jnp.ones(2))
    with pytest.raises(ValueError, match="updates and the tree in the state differ in structure: `w` is only in updates"):
        tx.update({"w": jnp.ones(3)}, state, {"w": jnp.ones(3)})
    with pytest.raises(ValueError, match="scale_by_lbfgs: needs the parameters"):
        tx.update(jnp.ones(3), state)
