"""Noise on updates: its distribution, its length, its keys."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

SHAPES = {"a": (3, 4), "b": (5,), "c": (), "d": (5,)}
ELEMENTS = 23


def zeros(dtype: Any = jnp.float32) -> dict[str, Any]:
    return {name: jnp.zeros(shape, dtype) for name, shape in SHAPES.items()}


def draws(tx: Any, like: Any, steps: int) -> Any:
    """What is added to zero updates in each of some steps."""

    def step(state: Any, _: None) -> Any:
        noise, state = tx.update(like, state)
        return state, noise

    return jax.jit(lambda: jax.lax.scan(step, tx.init(like), None, length=steps)[1])()


def flat(noise: Any) -> np.ndarray:
    """One row of all elements for each step."""
    return np.concatenate([np.asarray(leaf, np.float64).reshape(len(leaf), -1) for leaf in jax.tree.leaves(noise)], axis=1)


MAKE = {
    "add_noise": lambda key: gradtx.add_noise(0.5, 0.0, key),
    "add_sphere_noise": lambda key: gradtx.add_sphere_noise(2.0, key),
    "add_langevin_noise": lambda key: gradtx.add_langevin_noise(0.5, key=key),
}
ALL = pytest.mark.parametrize("name", MAKE)


# Distribution -----------------------------------------------------------------------------------------------


def test_sphere_noise_is_uniform_on_the_sphere_of_the_whole_tree():
    radius, steps = 2.5, 20_000
    noise = flat(draws(gradtx.add_sphere_noise(radius, 3), zeros(), steps))
    assert noise.shape == (steps, ELEMENTS)
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), radius, rtol=1e-6)
    deviation = radius / np.sqrt(ELEMENTS)  # of each element
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=5 * deviation / np.sqrt(steps))
    covariance = noise.T @ noise / steps
    np.testing.assert_allclose(covariance, deviation**2 * np.eye(ELEMENTS), atol=6 * np.sqrt(2) * deviation**2 / np.sqrt(steps))


def test_sphere_noise_is_added():
    tx, zero = gradtx.add_sphere_noise(0.5, 3), jnp.zeros(4)
    noise, _ = tx.update(zero, tx.init(zero))
    np.testing.assert_allclose(tx.update(zero + 3.0, tx.init(zero))[0], 3.0 + noise, rtol=1e-6)


def test_on_a_line_the_sphere_is_two_points():
    noise = np.asarray(draws(gradtx.add_sphere_noise(0.25, 0), jnp.zeros(()), 400))
    np.testing.assert_allclose(np.abs(noise), 0.25, rtol=1e-6)
    assert 140 < (noise > 0).sum() < 260


def test_langevin_noise_has_the_variance_of_its_formula():
    rate, temperature, steps = 0.02, 0.5, 4
    tx = gradtx.add_langevin_noise(gradtx.polynomial_schedule(rate, 0.0, 1, steps), temperature, key=5)
    noise = np.asarray(draws(tx, jnp.zeros(50_000), steps + 1))
    expected = np.sqrt(2 * rate * (1 - np.arange(steps + 1) / steps) * temperature)
    np.testing.assert_allclose(noise.std(axis=1), expected, rtol=0.02)  # six standard errors
    assert np.all(noise[steps] == 0)  # the rate is 0
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=6 * expected[0] / np.sqrt(50_000))


def test_langevin_noise_at_temperature_zero_is_none():
    u = {"w": jnp.linspace(-1.0, 1.0, 5)}
    tx = gradtx.add_langevin_noise(0.1, 0.0, key=0)
    np.testing.assert_array_equal(tx.update(u, tx.init(u))[0]["w"], u["w"])


def test_complex_noise_has_two_parts():
    noise = draws(gradtx.add_langevin_noise(0.5, key=0), jnp.zeros(50_000, jnp.complex64), 1)[0]
    np.testing.assert_allclose([noise.real.std(), noise.imag.std()], 1.0, rtol=0.02)
    sphere = draws(gradtx.add_sphere_noise(2.0, 0), {"z": jnp.zeros(4, jnp.complex64), "x": jnp.zeros(3)}, 20_000)
    squares = {name: np.mean(np.abs(leaf) ** 2, axis=(0, 1)) for name, leaf in sphere.items()}
    np.testing.assert_allclose([squares["z"], squares["x"]], [2 * 4 / 11, 4 / 11], rtol=0.03)  # eleven real numbers


# Keys -------------------------------------------------------------------------------------------------------


@ALL
def test_noise_is_reproducible_by_key_and_differs_otherwise(name: str):
    like = {"a": jnp.zeros(5), "b": jnp.zeros(5)}

    def both(key: Any) -> Any:
        known = draws(MAKE[name](7), like, 2), draws(MAKE[name](jax.random.PRNGKey(7)), like, 2)
        return *known, jax.vmap(lambda k: draws(MAKE[name](k), like, 2))(key)

    keys = jnp.stack([jax.random.key(7), jax.random.key(8)])  # traced, one lane each
    seeded, old_style, lanes = jax.jit(both)(keys)
    for other in (old_style, jax.tree.map(lambda x: x[0], lanes)):
        np.testing.assert_allclose(flat(other), flat(seeded), rtol=1e-6)
    rows = np.stack([flat(jax.tree.map(lambda x, i=i: x[i], lanes)) for i in range(2)])
    assert len(np.unique(rows.round(5))) == rows.size  # by key, step, leaf and element


def test_radius_may_be_traced():
    norms = jax.vmap(lambda r: gradtx.global_norm(draws(gradtx.add_sphere_noise(r, 0), zeros(), 1)))(jnp.array([0.5, 2.0]))
    np.testing.assert_allclose(norms, [0.5, 2.0], rtol=1e-6)


# Dtypes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", ["add_sphere_noise", "add_langevin_noise"])
def test_noise_in_half_precision_is_that_of_float32_rounded(name: str, dtype: Any):
    narrow, wide = (draws(MAKE[name](1), [jnp.zeros(7, d), jnp.zeros((), d)], 2) for d in (dtype, jnp.float32))
    for x, y in zip(narrow, wide, strict=True):
        assert x.dtype == dtype
        np.testing.assert_allclose(x.astype(jnp.float32), y, rtol=1e-2)


def test_noise_in_float64_has_its_length():
    with jax.enable_x64(True):
        noise = draws(gradtx.add_sphere_noise(2.5, 3), zeros(jnp.float64), 3)
        np.testing.assert_allclose(np.linalg.norm(flat(noise), axis=1), 2.5, rtol=1e-14)


def test_trees_without_elements_stay():
    for like in ({}, {"a": None}, {"a": jnp.zeros((0, 3))}):
        for name in ("add_sphere_noise", "add_langevin_noise"):
            tx = MAKE[name](0)
            updates, _ = tx.update(like, tx.init(like))
            assert jax.tree.structure(updates) == jax.tree.structure(like)
            assert all(leaf.shape == (0, 3) for leaf in jax.tree.leaves(updates))


# Errors -----------------------------------------------------------------------------------------------------


def test_a_key_is_required():
    with pytest.raises(
        TypeError, match=r"^add_sphere_noise: missing a required argument: 'key'; the call is add_sphere_noise\(radius, key\)"
    ):
        gradtx.add_sphere_noise(1.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^add_langevin_noise: missing a required .*argument: 'key'"):
        gradtx.add_langevin_noise(0.1)  # type: ignore[call-arg]


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan"), float("inf")])
def test_the_radius_is_positive(radius: float):
    with pytest.raises(ValueError, match=r"^add_sphere_noise: radius is .*, expected a finite number > 0"):
        gradtx.add_sphere_noise(radius, 0)


def test_another_transformation_s_state_is_named():
    other = gradtx.add_noise(0.1, 0.5, 0).init(zeros())
    with pytest.raises(TypeError, match=r"^add_sphere_noise: state is an AddNoiseState, expected AddSphereNoiseState"):
        gradtx.add_sphere_noise(1.0, 0).update(zeros(), other)
