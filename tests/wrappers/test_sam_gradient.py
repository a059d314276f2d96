"""SAM as a gradient: that of `sam_wrapper`, clean loss and auxiliary output, groups."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

PARAMS = {"w": jnp.array([[0.5, -1.0], [2.0, 0.3], [-0.4, 0.8]]), "b": jnp.array([0.1, -0.2])}
BATCH = {"x": jax.random.normal(jax.random.key(0), (12, 3)), "y": jax.random.normal(jax.random.key(1), (12, 2))}


def loss_fn(params: Any, batch: Any) -> jax.Array:
    return jnp.mean((jnp.tanh(batch["x"] @ params["w"] + params["b"]) - batch["y"]) ** 2)


def with_aux(params: Any, batch: Any) -> Any:
    return loss_fn(params, batch), {"mean": batch["x"].mean(0), "w": params["w"][0, 0]}


def wrapped(p: float, rho: float, batch: Any) -> Any:
    """`sam_wrapper`'s gradient."""
    tx, gradient = gradtx.sam_wrapper(gradtx.scale(1.0), rho, p), lambda q: jax.grad(loss_fn)(q, batch)
    return tx.update(gradient(PARAMS), tx.init(PARAMS), PARAMS, grad_fn=gradient)[0]


def assert_close(x: Any, y: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), x, y)


@pytest.mark.parametrize("p", [1.0, 2.0, np.inf])
def test_is_the_gradient_of_the_wrapper(p: float) -> None:
    loss, gradient = jax.jit(gradtx.sam_value_and_grad(loss_fn, 0.3, p))(PARAMS, BATCH)
    assert float(loss) == pytest.approx(float(loss_fn(PARAMS, BATCH)))
    assert_close(gradient, wrapped(p, 0.3, BATCH))
    (loss, aux), again = jax.jit(gradtx.sam_value_and_grad(with_aux, 0.3, p, has_aux=True))(PARAMS, BATCH)
    assert_close((loss, aux), with_aux(PARAMS, BATCH))  # at the parameters, not at the worst point
    assert_close(again, gradient)


def test_complex_parameters_climb() -> None:
    """The ascent of `|z - c|^2` is `z - c`: `jax.grad` gives its conjugate."""
    c, z = jnp.array([1.0 + 2.0j, -0.5j]), jnp.array([-0.3 + 0.2j, 1.0 + 1.0j])

    def loss(z: jax.Array) -> jax.Array:
        return jnp.sum(jnp.abs(z - c) ** 2)

    away = (z - c) * (1 + 0.5 / jnp.linalg.norm(z - c))
    value, gradient = gradtx.sam_value_and_grad(loss, 0.5)(z)
    np.testing.assert_allclose(value, loss(z), rtol=1e-6)
    np.testing.assert_allclose(gradient, jnp.conj(2 * away), rtol=1e-6)  # in `jax.grad`'s convention
    uphill, tx = lambda z: jnp.conj(jax.grad(loss)(z)), gradtx.sam_wrapper(gradtx.scale(1.0), 0.5)
    np.testing.assert_allclose(tx.update(uphill(z), tx.init(z), z, grad_fn=uphill)[0], 2 * away, rtol=1e-6)


@pytest.mark.parametrize("groups", [1, 3])
def test_groups(groups: int) -> None:
    """The mean over the parts of the gradient at each part's own worst point."""
    run = jax.jit(gradtx.sam_value_and_grad(with_aux, 0.3, has_aux=True, groups=groups))
    (loss, aux), gradient = run(PARAMS, BATCH)
    parts = [jax.tree.map(lambda x, i=i: x[i * 12 // groups : (i + 1) * 12 // groups], BATCH) for i in range(groups)]
    expected = [wrapped(2.0, 0.3, part) for part in parts]
    assert_close(gradient, jax.tree.map(lambda *g: sum(g) / groups, *expected))
    assert float(loss) == pytest.approx(float(loss_fn(PARAMS, BATCH)), rel=1e-5)
    assert_close(aux["mean"], jnp.stack([part["x"].mean(0) for part in parts]))
    if groups > 1:
        whole = gradtx.sam_value_and_grad(loss_fn, 0.3)(PARAMS, BATCH)[1]
        assert float(gradtx.tree.norm(gradtx.tree.sub(whole, gradient))) > 1e-3


def test_what_belongs_to_no_example_goes_to_every_group() -> None:
    seen = []

    def loss(params: Any, x: Any, scale: Any, key: Any, *, raw: Any) -> jax.Array:
        seen.append((jnp.shape(x), jnp.shape(scale), jnp.shape(key), jnp.shape(raw)))
        noise = jax.random.normal(key, x.shape[1:]) + jax.random.normal(raw, x.shape[1:])
        return jnp.mean((x * params + scale * noise) ** 2)

    args = (jnp.ones(2), BATCH["x"][:, :2], 0.5, jax.random.key(3))
    raw = jax.random.PRNGKey(4)
    value, gradient = gradtx.sam_value_and_grad(loss, 0.0, groups=4)(*args, raw=raw)
    assert set(seen) == {((3, 2), (), (), (2,))}
    expected = jax.value_and_grad(loss)(*args, raw=raw)
    assert_close((value, gradient), expected)


def test_two_gradients_a_call_with_the_same_arguments() -> None:
    keys = []

    def loss(params: Any, key: Any) -> jax.Array:
        keys.append(key)
        return jnp.sum(params**2)

    gradtx.sam_value_and_grad(loss)(jnp.ones(2), jax.random.key(7))
    assert len(keys) == 2
    assert keys[0] is keys[1]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("groups", [None, 2])
def test_dtypes_and_zero_gradients(dtype: Any, groups: int | None) -> None:
    params = {"w": jnp.zeros((3, 2), dtype), "none": None}
    x = jnp.zeros((4, 3), dtype)
    loss, gradient = jax.jit(gradtx.sam_value_and_grad(lambda p, x: jnp.mean((x @ p["w"]) ** 2), groups=groups))(params, x)
    assert gradient["w"].dtype == dtype
    np.testing.assert_array_equal(np.float32(gradient["w"]), np.zeros((3, 2)))
    assert float(loss) == 0


def test_the_radius_may_be_traced() -> None:
    radii = jnp.array([0.0, 0.1, 0.3])
    gradients = jax.vmap(lambda rho: gradtx.sam_value_and_grad(loss_fn, rho)(PARAMS, BATCH)[1])(radii)
    assert_close(jax.tree.map(lambda g: g[2], gradients), wrapped(2.0, 0.3, BATCH))
    assert_close(jax.tree.map(lambda g: g[0], gradients), jax.grad(loss_fn)(PARAMS, BATCH))


def test_m_sam_climbs_higher_than_one_perturbation() -> None:
    """The mean over examples of the worst loss about each is at least the worst mean loss."""
    per_example = gradtx.sam_value_and_grad(loss_fn, 0.1, groups=12)(PARAMS, BATCH)[1]
    whole = gradtx.sam_value_and_grad(loss_fn, 0.1)(PARAMS, BATCH)[1]
    plain = jax.grad(loss_fn)(PARAMS, BATCH)
    turns = [float(gradtx.tree.norm(gradtx.tree.sub(g, plain))) for g in (whole, per_example)]
    assert turns[1] > turns[0] > 0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"loss_fn": 3.0}, TypeError, r"loss_fn is 3.0 \(float\), expected a function"),
        ({"rho": -0.1}, ValueError, r"rho is -0.1 \(float\), expected a finite number >= 0"),
        ({"p": 0.9}, ValueError, r"p is 0.9 \(float\), expected a number in \[1, inf\]"),
        ({"p": jnp.ones(())}, ValueError, r"p is Array\(1., dtype=float32.*\), expected a number in \[1, inf\], not an array"),
        ({"has_aux": 1}, TypeError, r"has_aux is 1 \(int\), expected True or False"),
        ({"groups": 0}, ValueError, r"groups is 0 \(int\), expected a whole number >= 1, or None"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^sam_value_and_grad: {text}"):
        gradtx.sam_value_and_grad(**{"loss_fn": loss_fn, **arguments})


def test_batches_that_cannot_be_cut() -> None:
    fn = gradtx.sam_value_and_grad(loss_fn, groups=5)
    text = (
        r"^sam_value_and_grad: argument `0/x` after the parameters has 12 entries on its leading axis, expected a multiple of "
        r"groups=5\. What belongs to no example goes to every part as a scalar or a keyword argument\.$"
    )
    with pytest.raises(ValueError, match=text):
        fn(PARAMS, BATCH)
    fn = gradtx.sam_value_and_grad(lambda p, x, key: jnp.sum(p**2), groups=2)
    text = r"argument `1` after the parameters has 2 entries on its leading axis, expected 4, as the first argument has"
    with pytest.raises(ValueError, match=text):
        fn(jnp.ones(2), jnp.ones((4, 3)), jax.random.PRNGKey(0))
    with pytest.raises(ValueError, match="no argument after the parameters has a leading axis that groups=2 could cut"):
        fn(jnp.ones(2), 1.0, jax.random.key(0))
