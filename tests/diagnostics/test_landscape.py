"""Lines and planes through the parameters: values, directions, errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.diagnostics import landscape_1d, landscape_2d, random_direction, trajectory_plane

PARAMS = {"conv": jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 2, 5)), jnp.float32), "bias": jnp.ones(5)}


def loss(p: Any, x: Any) -> jax.Array:
    return jnp.sum(p["conv"] ** 2) * jnp.mean(x) + jnp.sum(p["bias"])


@pytest.mark.parametrize("axis", [-1, 2])
def test_directions_are_as_long_as_their_filters(axis: int) -> None:
    direction = random_direction(jax.random.key(0), PARAMS, filter_axis=axis)
    others = tuple(i for i in range(4) if i != axis % 4)
    lengths = [np.sqrt((np.asarray(t["conv"]) ** 2).sum(axis=others)) for t in (direction, PARAMS)]
    np.testing.assert_allclose(*lengths, rtol=1e-5)
    assert not direction["bias"].any()
    assert not np.allclose(direction["conv"], PARAMS["conv"])


def test_a_line_between_two_solutions() -> None:
    other = jax.tree.map(lambda p: 2 * p + 1, PARAMS)
    x = jnp.arange(4.0)
    line = landscape_1d(loss, PARAMS, [(x[:1],), (x[1:],)], gradtx.tree.sub(other, PARAMS), extent=(0.0, 1.0), points=2)
    np.testing.assert_allclose(line.x, [0, 1])
    np.testing.assert_allclose(line.loss, [loss(PARAMS, x), loss(other, x)], rtol=1e-6)


def test_random_planes_are_seeded_and_centered() -> None:
    x = jnp.ones(1)
    plane = landscape_2d(loss, PARAMS, (x,), points=3, extent=(-0.5, 0.5))
    assert float(plane.loss[1, 1]) == pytest.approx(float(loss(PARAMS, x)), rel=1e-6)
    keys = jax.random.split(jax.random.key(0))
    moved = jax.tree.map(
        lambda p, a, b: p + 0.5 * a - 0.5 * b, PARAMS, random_direction(keys[0], PARAMS), random_direction(keys[1], PARAMS)
    )
    assert float(plane.loss[0, 2]) == pytest.approx(float(loss(moved, x)), rel=1e-5)  # rows are y, columns x


def test_the_plane_of_a_trajectory() -> None:
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(30, 2)))[0]
    end, places = rng.normal(size=30), np.array([[4.0, 1.0], [2.0, -1.0], [1.0, 0.5], [0.0, 0.0]])
    trajectory = [
        {"a": jnp.asarray(w[:12].reshape(3, 4), jnp.float32), "b": jnp.asarray(w[12:], jnp.float32)} for w in end + places @ basis.T
    ]
    plane = trajectory_plane(trajectory)
    np.testing.assert_allclose(np.sum(plane.explained), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(plane.path, axis=1), np.linalg.norm(places, axis=1), atol=1e-5)
    for i, place in enumerate(plane.path):  # the path leads to the parameters
        there = jax.tree.map(lambda w, a, b, c=place: w + c[0] * a + c[1] * b, trajectory[-1], *plane.directions)
        np.testing.assert_allclose(there["b"], trajectory[i]["b"], atol=1e-5)
    picture = landscape_2d(lambda p: jnp.sum(p["b"]), trajectory[-1], directions=plane.directions, path=plane.path, points=2)
    low, high = np.asarray(plane.path).min(0), np.asarray(plane.path).max(0)
    np.testing.assert_allclose(
        [picture.x[0], picture.y[1]], [low[0] - 0.2 * (high - low)[0], high[1] + 0.2 * (high - low)[1]], rtol=1e-5
    )
    assert picture.path is not None


def test_each_axis_may_have_its_extent() -> None:
    axes = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    plane = landscape_2d(jnp.sum, jnp.zeros(2), directions=axes, extent=((-1, 1), (-2, 2)), points=51)
    np.testing.assert_allclose([plane.x[0], plane.x[-1], plane.y[0], plane.y[-1]], [-1, 1, -2, 2])
    assert plane.x[25] == plane.y[25] == 0


def test_a_trajectory_that_stays() -> None:
    plane = trajectory_plane([PARAMS] * 3)
    assert not plane.explained.any()
    assert not plane.path.any()


def test_a_path_without_extent_has_room() -> None:
    axes = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    plane = landscape_2d(jnp.sum, jnp.zeros(2), directions=axes, path=jnp.zeros((3, 2)), points=2)
    np.testing.assert_allclose(plane.x, [-1, 1])


BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (landscape_1d, {"extent": (1.0, -1.0)}, TypeError, r"landscape_1d: extent is a tuple of 2, expected a pair \(low, high\) of numbers, low < high\. It is \(1\.0, -1\.0\)\."),
    (landscape_1d, {"direction": {"w": jnp.ones(3)}}, ValueError, r"landscape_1d: direction leaf `w` has shape \(3,\), but params has \(2,\) there"),
    (landscape_2d, {"directions": {"w": jnp.ones(2)}}, TypeError, r"landscape_2d: directions is a dict with keys 'w', expected a pair of trees like the parameters, such as `\.directions` of trajectory_plane"),
    (landscape_2d, {"directions": ({"w": jnp.ones(2)}, {"v": jnp.ones(2)})}, ValueError, r"params and directions\[1\] differ in structure: `w` is only in params"),
    (landscape_2d, {"path": jnp.ones(4)}, ValueError, r"path is an array of shape \(4,\) and dtype float32, expected one of shape \(steps, 2\)\."),
]  # fmt: skip


@pytest.mark.parametrize(("draw", "arguments", "error", "text"), BAD)
def test_bad_arguments_are_named(draw: Any, arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        draw(lambda p: jnp.sum(p["w"]), {"w": jnp.ones(2)}, **arguments)


def test_short_trajectories_are_refused() -> None:
    with pytest.raises(ValueError, match=r"trajectory_plane: trajectory is a list of 2, expected a list of at least 3 trees\."):
        trajectory_plane([PARAMS, PARAMS])
    with pytest.raises(ValueError, match=r"params and trajectory\[0\] differ in structure: `bias` is only in params"):
        trajectory_plane([{"conv": PARAMS["conv"]}, PARAMS, PARAMS])
