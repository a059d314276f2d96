"""Curvature against Hessians in closed form and dense ones: products, eigenvalues, trace, density."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

from gradtx.diagnostics import gauss_newton_vp, hessian_trace, hvp, spectral_density, top_eigenvalues

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)) * [1.0, 2.0, 3.0, 0.5]
Y = RNG.normal(size=30)
SIGNS = np.where(Y > 0, 1.0, -1.0)
LABELS = RNG.integers(0, 3, 30)
DIAGONAL = jnp.asarray(np.concatenate([[9.0, -7.0], np.linspace(-0.9, 1, 38)]), jnp.float32)


def linear(w: Any, x: Any, y: Any) -> jax.Array:
    return jnp.mean((x @ w - y) ** 2)


def logistic(w: Any, x: Any, y: Any) -> jax.Array:
    return jnp.mean(jnp.log1p(jnp.exp(-y * (x @ w))))


def softmax_outputs(w: Any, x: Any, y: Any) -> jax.Array:
    return x @ w


def softmax_of_outputs(z: Any, x: Any, y: Any) -> jax.Array:
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=-1))


def softmax(w: Any, x: Any, y: Any) -> jax.Array:
    return softmax_of_outputs(softmax_outputs(w, x, y), x, y)


def quadratic(w: Any) -> jax.Array:
    return jnp.sum(DIAGONAL * w**2) / 2


def mixed(w: Any) -> jax.Array:
    """A quadratic whose Hessian is diagonal in no axis: `Q diag(DIAGONAL) Q`, Q a reflection."""
    u = jnp.linspace(1.0, 2.0, 40)
    return quadratic(w - 2 * u * (u @ w) / (u @ u))


def hessians(w: np.ndarray, v: np.ndarray) -> dict[str, tuple[Any, Any, Any, np.ndarray]]:
    """Loss, parameters, batch and Hessian, transcribed."""
    s = 1 / (1 + np.exp(-X @ w))
    z = np.exp(X @ v)
    p = z / z.sum(1, keepdims=True)
    kronecker = sum(np.kron(np.outer(x, x), np.diag(q) - np.outer(q, q)) for x, q in zip(X, p, strict=True)) / len(X)
    return {
        "linear": (linear, w, (X, Y), 2 / len(X) * X.T @ X),
        "logistic": (logistic, w, (X, SIGNS), X.T @ ((s * (1 - s))[:, None] * X) / len(X)),
        "softmax": (softmax, v, (X, LABELS), kronecker),
    }


W, V = RNG.normal(size=4) / 4, RNG.normal(size=(4, 3)) / 4


@pytest.mark.parametrize("name", ["linear", "logistic", "softmax"])
def test_closed_forms(name: str) -> None:
    with jax.enable_x64(True):
        loss, w, batch, h = hessians(W, V)[name]
        vector = RNG.normal(size=w.shape)
        expected = (h @ vector.ravel()).reshape(w.shape)
        np.testing.assert_allclose(hvp(loss, w, vector, batch), expected, rtol=1e-12)
        rows = (slice(0, 7), slice(7, 14), slice(14, 30))
        uneven = [tuple(a[r] for a in batch) for r in rows]
        np.testing.assert_allclose(hvp(loss, w, vector, uneven), expected, rtol=1e-12)
        np.testing.assert_allclose(hvp(loss, w, vector, batch, batch_size=13), expected, rtol=1e-12)
    exact = np.linalg.eigvalsh(h)[::-1]
    small = jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, (w, batch))
    pairs = top_eigenvalues(loss, *small, k=4, batch_size=13)
    np.testing.assert_allclose(pairs.values, exact[:4], rtol=1e-4)
    for i in range(4):
        v = np.asarray(pairs.vectors[i], np.float64).ravel()
        assert np.linalg.norm(v) == pytest.approx(1, abs=1e-5)
        assert np.linalg.norm(h @ v - float(pairs.values[i]) * v) <= pairs.residuals[i] + 1e-6 * exact[0]
        assert np.abs(exact - float(pairs.values[i])).min() <= pairs.residuals[i]


def test_gauss_newton_is_the_hessian_where_outputs_are_linear() -> None:
    with jax.enable_x64(True):
        _, w, batch, h = hessians(W, V)["softmax"]
        vector = RNG.normal(size=w.shape)
        product = gauss_newton_vp(softmax_outputs, softmax_of_outputs, w, vector, batch, batch_size=11)
        np.testing.assert_allclose(product, (h @ vector.ravel()).reshape(w.shape), rtol=1e-12)


def curved(w: Any, x: Any, y: Any) -> jax.Array:
    return jnp.tanh(x @ w["a"]) @ w["b"]


def squares(z: Any, x: Any, y: Any) -> jax.Array:
    return jnp.mean((z - y) ** 2)


def test_gauss_newton_against_dense_jacobians() -> None:
    with jax.enable_x64(True):
        w = {"a": RNG.normal(size=(4, 3)), "b": RNG.normal(size=3)}
        flat, unravel = ravel_pytree(w)
        jacobian = jax.jacobian(lambda f: curved(unravel(f), X, Y))(flat)
        matrix = 2 / len(X) * jacobian.T @ jacobian
        vector = RNG.normal(size=15)
        product = gauss_newton_vp(curved, squares, w, unravel(vector), (X, Y))
        np.testing.assert_allclose(ravel_pytree(product)[0], matrix @ vector, rtol=1e-11)
        top = top_eigenvalues(squares, w, (X, Y), k=2, predict_fn=curved)
        np.testing.assert_allclose(top.values, np.linalg.eigvalsh(matrix)[:-3:-1], rtol=1e-12)
        trace = hessian_trace(squares, w, (X, Y), predict_fn=curved, samples=200)
        assert abs(trace.value - np.trace(matrix)) < 4 * trace.standard_error


def of_matrix(w: Any, a: Any) -> jax.Array:
    return w @ jnp.matmul(a, w, precision="highest") / 2


@pytest.mark.parametrize(
    "large", [[10, 8, 5, 2, 1], 1 - np.arange(10) * 1e-3, [1] * 6 + [0.9] * 4], ids=["few", "clustered", "repeated"]
)
def test_ten_largest_of_500_to_1e_4(large: Any) -> None:
    rng = np.random.default_rng(3)
    rotation = np.linalg.qr(rng.normal(size=(500, 500)))[0]
    a = (rotation * np.concatenate([large, rng.uniform(0, 0.2, 500 - len(large))])) @ rotation.T
    exact = np.linalg.eigvalsh(a)[:-11:-1]
    pairs = top_eigenvalues(of_matrix, jnp.zeros(500), (jnp.asarray(a, jnp.float32),), k=10)
    np.testing.assert_allclose(pairs.values, exact, rtol=1e-4)
    assert (np.abs(pairs.values - exact) <= pairs.residuals).all()
    moved = np.asarray(pairs.vectors, np.float64) @ a - np.asarray(pairs.values)[:, None] * np.asarray(pairs.vectors, np.float64)
    assert (np.linalg.norm(moved, axis=1) <= pairs.residuals).all()


def test_equinox_models() -> None:
    model = eqx.nn.MLP(4, 1, 5, 1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(p: Any, x: Any) -> jax.Array:
        return jnp.mean(jax.vmap(eqx.combine(p, static))(x) ** 2)

    pairs = top_eigenvalues(loss, params, (X.astype(np.float32),), k=2)
    flat, unravel = ravel_pytree(params)
    dense = np.asarray(jax.jit(jax.hessian(lambda f: loss(unravel(f), X.astype(np.float32))))(flat))
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(dense)[:-3:-1], rtol=1e-4)
    assert jax.tree.structure(pairs.vectors) == jax.tree.structure(params)


def test_numbers_are_parameters_too() -> None:
    def loss(p: Any) -> jax.Array:
        return 2.0 * p["s"] ** 2 + jnp.sum(p["w"] ** 2)

    pairs = top_eigenvalues(loss, {"s": 1.0, "w": jnp.ones(2)})
    np.testing.assert_allclose(pairs.values, [4.0], rtol=1e-6)
    np.testing.assert_allclose(np.abs(pairs.vectors["s"]), [1.0], rtol=1e-5)


def test_which() -> None:
    top = partial(top_eigenvalues, quadratic, jnp.ones(40), k=3)
    np.testing.assert_allclose(top().values, [9, 1, np.linspace(-0.9, 1, 38)[-2]], rtol=1e-5)
    by_size = top(which="magnitude")
    np.testing.assert_allclose(by_size.values, [9, -7, 1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.abs(by_size.vectors[:2, :2]), np.eye(2), atol=1e-5)


def test_trace_is_within_three_standard_errors_in_99_of_100_seeds() -> None:
    keys = jax.random.split(jax.random.key(1), 100)
    value, error = jax.vmap(lambda key: hessian_trace(mixed, jnp.ones(40), samples=50, key=key))(keys)
    misses = np.abs(value - DIAGONAL.sum()) / error
    assert (misses <= 3).sum() >= 99
    assert 0.8 < np.std(misses * np.sign(value - DIAGONAL.sum())) < 1.2  # and the errors are no larger than they must be


def test_the_scale_of_the_loss_does_not_matter() -> None:
    """Squares of products of 1e-30 or 1e30 have no room in float32."""

    def loss(w: Any, size: Any) -> jax.Array:
        return size * jnp.sum(jnp.array([5.0, 4.0, 1.0, -2.0]) * w**2) / 2

    for size in (1e-33, 1e-25, 1.0, 1e25, 1e33):
        batch, params = (jnp.float32(size),), jnp.full(4, 0.01)
        pairs = top_eigenvalues(loss, params, batch, k=2)
        np.testing.assert_allclose(np.float64(pairs.values) / size, [5.0, 4.0], rtol=1e-5)
        assert (np.float64(pairs.residuals) / size < 1e-5).all()
        density = spectral_density(loss, params, batch, samples=1, points=8)
        np.testing.assert_allclose(np.sort(np.float64(density.nodes[0])) / size, [-2.0, 1.0, 4.0, 5.0], rtol=1e-5)


def test_the_error_of_a_trace_has_the_scale_of_the_loss() -> None:
    def loss(w: Any, size: Any) -> jax.Array:
        return size * w[0] * w[1]

    tiny, plain, huge = (hessian_trace(loss, jnp.ones(2), (jnp.float32(size),), samples=20) for size in (2.0**-90, 1.0, 2.0**90))
    for scaled, size in ((tiny, 2.0**-90), (huge, 2.0**90)):
        assert float(scaled.value) == float(plain.value) * size
        assert float(scaled.standard_error) == float(plain.standard_error) * size > 0


def test_density_has_the_moments_of_the_spectrum() -> None:
    density = spectral_density(mixed, jnp.ones(40), steps=20, samples=100)
    np.testing.assert_allclose(density.weights.sum(1), 1, rtol=1e-5)
    for power in range(1, 5):
        samples = np.sum(np.asarray(density.weights, np.float64) * np.asarray(density.nodes, np.float64) ** power, axis=1)
        exact = np.mean(np.asarray(DIAGONAL, np.float64) ** power)
        assert abs(samples.mean() - exact) < 3 * samples.std(ddof=1) / 100**0.5
    step = float(density.grid[1] - density.grid[0])
    assert step * density.density.sum() == pytest.approx(1, abs=1e-3)
    curve = np.asarray(density.density, np.float64)
    assert step * (curve * np.asarray(density.grid, np.float64)).sum() == pytest.approx(
        float(density.weights.ravel() @ density.nodes.ravel()) / 100, abs=1e-2
    )


def test_density_of_one_eigenvalue_has_a_width() -> None:
    for scale in (2.0, 0.0):
        density = spectral_density(lambda w, scale=scale: scale * jnp.sum(w**2), jnp.ones(5), steps=3, samples=2)
        np.testing.assert_allclose(density.nodes, 2 * scale, atol=1e-5)
        assert np.isfinite(density.density).all()
        assert float((density.grid[1] - density.grid[0]) * density.density.sum()) == pytest.approx(1, abs=1e-3)


class Net(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.relu(linen.Conv(4, (3, 3), strides=2)(x[..., None]))
        return linen.Dense(10)(linen.relu(linen.Conv(6, (3, 3), strides=2)(x)).reshape(len(x), -1))


@pytest.mark.slow
def test_convolutional_network_against_its_dense_hessian() -> None:
    digits: Any = load_digits()
    x, y = digits.images[:64].astype(np.float32) / 16, digits.target[:64]
    params = Net().init(jax.random.key(0), x)["params"]
    flat, unravel = ravel_pytree(params)

    def loss(p: Any, x: Any, y: Any) -> jax.Array:
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(Net().apply({"params": p}, x)), y[:, None], axis=-1))

    dense = np.asarray(jax.jit(jax.hessian(lambda f: loss(unravel(f), x, y)))(flat), np.float64)
    exact = np.linalg.eigvalsh((dense + dense.T) / 2)
    pairs = top_eigenvalues(loss, params, (x, y), k=3, batch_size=40)
    np.testing.assert_allclose(pairs.values, exact[:-4:-1], rtol=1e-4)
    assert jax.tree.structure(pairs.vectors) == jax.tree.structure(params)


def test_states_of_nnx_and_half_precision() -> None:
    model = nnx.Linear(4, 1, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    graphdef, params = nnx.split(model, nnx.Param)
    x = X.astype(np.float32)
    pairs = top_eigenvalues(lambda p, x: jnp.mean(nnx.merge(graphdef, p)(x) ** 2), params, (x,), k=2, key=jax.random.key(3))
    augmented = np.hstack([X, np.ones((30, 1))])
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(2 / 30 * augmented.T @ augmented)[:-3:-1], rtol=1e-4)
    assert {leaf.dtype for leaf in jax.tree.leaves(pairs.vectors)} == {np.dtype(np.float32)}


def test_one_program_for_calls_alike() -> None:
    traces = 0

    def loss(w: Any, x: Any) -> jax.Array:
        nonlocal traces
        traces += 1
        return jnp.mean((x @ w) ** 2)

    for i in range(3):
        top_eigenvalues(loss, jnp.full(4, i, jnp.float32), (X + i,), k=2)
        if i == 0:
            first = traces
    assert traces == first


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    top_eigenvalues(quadratic, jnp.ones(40), steps=7, progress=True)
    assert "top_eigenvalues" in capsys.readouterr().out
    top_eigenvalues(quadratic, jnp.ones(40), steps=7)
    assert capsys.readouterr().out == ""


def loss_of_pair(w: Any) -> Any:
    return jnp.sum(w), None


def loss_of_vector(w: Any) -> Any:
    return w**2


BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (top_eigenvalues, {"k": 41}, ValueError, r"top_eigenvalues: k is 41, expected at most 40, the number of parameters\."),
    (top_eigenvalues, {"k": 6, "steps": 5}, ValueError, r"k is 6, expected at most 5, the number of steps\."),
    (top_eigenvalues, {"which": "largest"}, TypeError, r"which is 'largest' \(str\), expected one of 'algebraic', 'magnitude'"),
    (top_eigenvalues, {"params": {"w": jnp.ones(2, jnp.complex64)}}, TypeError, r"params leaf `w` is an array of shape \(2,\) and dtype complex64, expected a real floating array\. Pass the parameters alone \(state\.params of a TrainState"),
    (top_eigenvalues, {"params": {"n": 3}}, TypeError, r"params leaf `n` is 3 \(int\), expected a real floating array"),
    (top_eigenvalues, {"params": {}}, ValueError, r"top_eigenvalues: params has no elements, expected a tree of floating arrays\."),
    (top_eigenvalues, {"loss_fn": loss_of_pair}, TypeError, r"loss_fn gave a tuple of 2, expected a real floating scalar, the mean loss\. Was a pair \(loss, aux\) returned\?"),
    (hessian_trace, {"loss_fn": loss_of_vector}, TypeError, r"loss_fn gave an array of shape \(40,\) and dtype float32, expected a real floating scalar"),
    (top_eigenvalues, {"key": 0}, TypeError, r"top_eigenvalues: key is 0 \(int\), expected a random key, such as jax\.random\.key\(0\), or None\."),
    (hessian_trace, {"loss_fn": lambda w: jnp.sum(w > 0)}, TypeError, r"loss_fn gave an array of shape \(\) and dtype int32, expected a real floating scalar"),
    (hessian_trace, {"samples": 1}, ValueError, r"hessian_trace: samples is 1 \(int\), expected a whole number >= 2\."),
    (spectral_density, {"bandwidth": 0.0}, ValueError, r"spectral_density: bandwidth is 0\.0 \(float\), expected a finite number > 0, or None\."),
    (spectral_density, {"sample": 3}, TypeError, r"got an unexpected keyword argument 'sample'.*Did you mean 'samples'\?"),
]  # fmt: skip


@pytest.mark.parametrize(("measure", "arguments", "error", "text"), BAD)
def test_bad_arguments_are_named(measure: Any, arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        measure(**({"loss_fn": quadratic, "params": jnp.ones(40)} | arguments))


def test_vectors_must_fit() -> None:
    with pytest.raises(ValueError, match=r"hvp: params and vector differ in structure: `b` is only in vector"):
        hvp(quadratic, {"w": jnp.ones(2)}, {"w": jnp.ones(2), "b": jnp.ones(1)})
    with pytest.raises(
        ValueError, match=r"hvp: vector leaf `w` has shape \(3,\), but params has \(2,\) there; shapes must be equal"
    ):
        hvp(quadratic, {"w": jnp.ones(2)}, {"w": jnp.ones(3)})
