"""Every set: membership, nearest point, Optax's numbers, weights, values, half precision, errors."""

import json
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from projection_cases import NORMAL, SETS
from projection_cases import Set as Row

import gradtx
from gradtx import projections
from gradtx.projections.sets import Set

RNG = np.random.default_rng(0)
ROWS = pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in SETS.items()])


def tree(seed: int = 0, dtype: Any = jnp.float32, size: float = 1.0) -> Any:
    rng = np.random.default_rng(seed)
    return {"w": jnp.asarray(size * rng.normal(size=3), dtype), "b": jnp.asarray(size * rng.normal(size=2), dtype)}


def flat(t: Any) -> np.ndarray:
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(t)])


@ROWS
@pytest.mark.parametrize("size", [0.01, 1.0, 1e3])
def test_results_are_in_the_set_and_projecting_again_changes_nothing(row: Set, size: float) -> None:
    project = jax.jit(row.make())
    once = project(tree(1, size=size))
    scale = max(1.0, float(np.abs(flat(once)).max()))
    assert row.residual(flat(once)) <= 2e-6 * scale
    np.testing.assert_allclose(flat(project(once)), flat(once), rtol=1e-5, atol=2e-6 * scale)


@ROWS
def test_no_point_of_the_set_is_nearer(row: Row) -> None:
    with jax.enable_x64(True):
        project, y = row.make(), tree(2, jnp.float64, 2.0)
        x = flat(project(y))
        for seed in range(40):
            other = flat(project(tree(100 + seed, jnp.float64, 2.0)))
            assert np.linalg.norm(x - flat(y)) <= np.linalg.norm(other - flat(y)) * (1 + 1e-10)
            if row.convex:  # the variational inequality, and projections do not move apart
                assert (flat(y) - x) @ (other - x) <= 1e-8
                assert np.linalg.norm(other - x) <= np.linalg.norm(flat(tree(100 + seed, jnp.float64, 2.0)) - flat(y)) + 1e-10


@ROWS
def test_same_as_optax(row: Row) -> None:
    if row.optax is None:
        return
    for seed in range(3):
        np.testing.assert_allclose(flat(row.make()(tree(seed))), flat(row.optax(tree(seed))), rtol=1e-5, atol=2e-6)


@ROWS
def test_vmap_dtype_and_values(row: Row) -> None:
    project = row.make()
    lanes = [tree(0), tree(1)]
    together = jax.vmap(project)(jax.tree.map(lambda *xs: jnp.stack(xs), *lanes))
    for i, lane in enumerate(lanes):
        np.testing.assert_allclose(flat(jax.tree.map(lambda x, i=i: x[i], together)), flat(project(lane)), rtol=1e-5, atol=1e-6)
    assert {x.dtype for x in jax.tree.leaves(project(tree(0, jnp.bfloat16)))} == {jnp.dtype(jnp.bfloat16)}
    assert repr(pickle.loads(pickle.dumps(project))) == repr(project)
    config = json.loads(json.dumps(gradtx.to_config(project)))
    np.testing.assert_allclose(flat(gradtx.from_config(config)(tree(0))), flat(project(tree(0))))


@pytest.mark.parametrize("name", SETS)
def test_sets_bear_the_name_under_which_a_user_finds_them(name: str) -> None:
    project = SETS[name].make()
    assert repr(project).startswith(f"projections.{name}(")
    assert gradtx.to_config(project)["name"] == f"projections.{name}"
    assert type(pickle.loads(pickle.dumps(project))) is getattr(projections, name)
    with pytest.raises(
        TypeError, match=rf"^projections\.{name}: got an unexpected keyword argument 'radios'; the call is projections"
    ):
        getattr(projections, name)(radios=1.0)


def test_a_set_of_a_user_keeps_its_own_name() -> None:
    class singleton(Set):
        value: float

        def project(self, tree: Any) -> Any:
            return jax.tree.map(lambda x: jnp.full_like(x, self.value), tree)

    project = singleton(2.0)
    assert repr(project) == "singleton(value=2.0)"
    assert project(jnp.ones(2)).tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match=r"^singleton: weights are given, expected None"):
        project(jnp.ones(2), weights=jnp.ones(2))


def test_weights_of_elementwise_sets_are_checked() -> None:
    for name in ("box", "hypercube", "non_negative", "linf_ball"):
        project = SETS[name].make()
        np.testing.assert_array_equal(flat(project(tree(3), weights=2.0)), flat(project(tree(3))))
        with pytest.raises(ValueError, match=rf"^projections\.{name}: weights is -1 at `b`, expected numbers >= 0\."):
            project(tree(3), weights=-1.0)


def test_weighted_ball_satisfies_its_optimality_conditions() -> None:
    """`w_i (y_i - x_i) = mu x_i` with one `mu >= 0`, and `|x| = radius` where it is positive."""
    with jax.enable_x64(True):
        y = tree(5, jnp.float64, 3.0)
        weights = jax.tree.map(lambda x: jnp.asarray(10 ** RNG.uniform(-2, 2, x.shape)), y)
        x = flat(projections.l2_ball(1.0)(y, weights=weights))
        mu = flat(weights) * (flat(y) - x) / x
        np.testing.assert_allclose(mu, mu[0], rtol=1e-9)
        assert mu[0] > 0
        np.testing.assert_allclose(np.linalg.norm(x), 1.0, rtol=1e-12)
        inside = jax.tree.map(lambda v: v / 100, y)
        np.testing.assert_array_equal(flat(projections.l2_ball(1.0)(inside, weights=weights)), flat(inside))


def test_weights_do_not_change_a_box() -> None:
    y = tree(3)
    weighted = projections.box(-0.5, 0.25)(y, weights=jax.tree.map(lambda x: jnp.abs(x) + 1, y))
    np.testing.assert_array_equal(flat(weighted), flat(projections.box(-0.5, 0.25)(y)))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: projections.l2_ball(0.0), r"radius is 0\.0 \(float\), expected a finite number > 0"),
        (lambda: projections.simplex(-1.0), r"scale is -1\.0 \(float\), expected a finite number > 0"),
        (lambda: projections.box(1.0, 0.0), r"lower is 1 and upper is 0, expected lower <= upper\. Were they swapped\?"),
        (lambda: projections.hyperplane({"w": np.zeros(3)}, 1.0), "a is zero, expected a vector with a direction"),
        (lambda: projections.affine_set(np.ones((2, 3)), np.ones(3)), r"expected \(equations, elements\) and \(equations,\)"),
        (
            lambda: projections.affine_set(np.ones((2, 3)), np.ones(2))(tree()),
            "a has 3 columns, but the tree has 5 elements; expected as many",
        ),
        (
            lambda: projections.simplex()(tree(), weights=tree()),
            "weights are given, expected None: this set has no weighted projection",
        ),
        (lambda: projections.halfspace(NORMAL, 1.0)({"w": jnp.ones(3)}), "differ in structure: `b` is only in a"),
        (
            lambda: projections.halfspace(NORMAL, 1.0)({"w": jnp.ones(2), "b": jnp.ones(2)}),
            r"a leaf `w` has shape \(3,\), but the tree has \(2,\) there",
        ),
        (
            lambda: projections.check_projection(tree(), {"w": jnp.ones(3)}),
            "^projection changed the structure: .*`b` is only in",
        ),
        (
            lambda: projections.check_projection(tree(), {"w": jnp.ones(2), "b": jnp.ones(2)}),
            "^projection changed the shape of `w`",
        ),
    ],
)
def test_errors(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


SIZED = {  # sets with one size: the argument of the set, and of Optax's function
    **dict.fromkeys(("l1_ball", "l1_sphere", "l2_ball", "l2_sphere", "linf_ball", "linf_sphere"), ("radius", "scale")),
    "simplex": ("scale", "scale"),
}


@pytest.mark.parametrize("value", [0.0, -1.0])
@pytest.mark.parametrize("name", SIZED)
def test_sizes_are_positive(name: str, value: float) -> None:
    of_set, of_function = SIZED[name]
    with pytest.raises(ValueError, match=rf"^projections\.{name}: {of_set} is {value} \(float\), expected a finite number > 0\.$"):
        getattr(projections, name)(**{of_set: value})
    text = rf"^projection_{name}: {of_function} is {value} \(float\), expected a finite number > 0\.$"
    with pytest.raises(ValueError, match=text):
        getattr(projections, f"projection_{name}")(tree(), **{of_function: value})


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_the_sides_of_a_hypercube_are_positive(value: float) -> None:
    with pytest.raises(ValueError, match=rf"^projections\.hypercube: scale is {value:g}, expected numbers > 0\.$"):
        projections.hypercube(value)
    with pytest.raises(ValueError, match=rf"^projection_hypercube: scale is {value:g}, expected numbers > 0\.$"):
        projections.projection_hypercube(tree(), value)


def test_complex_trees_have_no_order() -> None:
    with pytest.raises(TypeError, match=r"tree leaf `w` is an array of shape \(2,\) and dtype complex64, expected real numbers"):
        projections.non_negative()({"w": jnp.ones(2, jnp.complex64)})


@pytest.mark.parametrize("size", [1e20, 1e30, 3e37])
@pytest.mark.parametrize("radius", [1e-3, 1e10])
def test_far_points_come_onto_the_weighted_ball(size: float, radius: float) -> None:
    """Eager and with weights and radius as constants of a program: XLA joins divisions, whose divisors' product overflows."""
    x = {"a": size * jnp.asarray([3.0, -4.0, 1.0]), "b": size * jnp.asarray([2.0])}
    for a in ([1.0, 2.0, 3.0], [1.0, 1e3, 1e-3]):
        weights = {"a": jnp.asarray(a), "b": jnp.asarray([1.0])}

        def project(x: Any, weights: Any = weights) -> Any:
            return projections.projection_l2_ball(x, radius, weights=weights)

        direction = flat(weights) * flat(x)  # as multipliers grow, `x * w/(w + mu)` points along `w*x`
        for y in (project(x), jax.jit(project)(x)):
            np.testing.assert_allclose(flat(y) / radius, direction / np.linalg.norm(direction), rtol=1e-5)
