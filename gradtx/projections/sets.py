"""Sets as values, for arguments such as `projection=`: each makes a function `project(tree, weights=None)`.

Like optimizers they print as the call that made them, compare, hash, pickle and turn into configs. With `weights` the
function gives the point `y` of the set with the least `sum w_i*(y_i - x_i)^2`; sets without that form refuse them.
"""

import functools
from collections.abc import Callable
from typing import Any

from jax.typing import ArrayLike

from gradtx.core import checks
from gradtx.core.checks import Number, Positive
from gradtx.core.values import factory
from gradtx.projections.boxes import (
    check_edge,
    projection_box,
    projection_hypercube,
    projection_linf_ball,
    projection_non_negative,
)
from gradtx.projections.inputs import Numbers, check_bounds, check_weights
from gradtx.projections.norms import (
    projection_l1_ball,
    projection_l1_sphere,
    projection_l2_ball,
    projection_l2_sphere,
    projection_linf_sphere,
    projection_simplex,
)
from gradtx.projections.planes import (
    check_equations,
    check_normal,
    projection_affine_set,
    projection_halfspace,
    projection_hyperplane,
    projection_vector,
)

Projection = Callable[..., Any]
"""A function `project(tree, weights=None)` that gives the nearest tree of a set."""
from gradtx.core.value import Value


def _by_element(name: str, project: Callable[[Any], Any]) -> Projection:
    """A projection that weights do not change."""

    def projection(tree: Any, weights: Any = None) -> Any:
        if weights is not None:
            with checks.calling(f"projections.{name}"):
                check_weights(weights, tree)
        return project(tree)

    return projection


def _unweighted(name: str, project: Callable[[Any], Any]) -> Projection:
    """A projection that has no weighted form here."""

    def projection(tree: Any, weights: Any = None) -> Any:
        if weights is not None:
            raise ValueError(
                f"projections.{name}: weights are given, expected None: this set has no weighted projection here. "
                "box, hypercube, non_negative, linf_ball and l2_ball have."
            )
        return project(tree)

    return projection


@factory(name="projections.box")
def box(lower: Numbers, upper: Numbers) -> Projection:
    """The trees between two bounds, as a value: `projection_box`; with or without weights.

    Args:
      lower: lower bound: one number, or a tree like the one to project; -inf is no bound.
      upper: upper bound, in the same form.

    Returns:
      The projection, a function of a tree and optional weights.

    Raises:
      ValueError, TypeError: `lower > upper` somewhere, or a bound is no number.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> project = gradtx.projections.box(-1.0, 1.0)
      >>> project, project({"w": jnp.array([3.0, 0.5])})
      (projections.box(lower=-1.0, upper=1.0), {'w': Array([1. , 0.5], dtype=float32)})
    """
    with checks.calling("projections.box"):
        check_bounds(lower, upper)
    return lambda tree, weights=None: projection_box(tree, lower, upper, weights=weights)


@factory(name="projections.hypercube")
def hypercube(scale: Numbers = 1.0) -> Projection:
    """The trees between 0 and `scale`, as a value: `projection_hypercube`; with or without weights.

    Args:
      scale: edge, > 0: one number, or a tree like the one to project.

    Returns:
      The projection, a function of a tree and optional weights.

    Raises:
      ValueError, TypeError: `scale` is not positive.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.hypercube(2.0)(jnp.array([3.0, -0.5]))
      Array([2., 0.], dtype=float32)
    """
    with checks.calling("projections.hypercube"):
        check_edge(scale)
    return _by_element("hypercube", lambda tree: projection_hypercube(tree, scale))


class non_negative(Value):
    """The trees without negative elements, as a value: `projection_non_negative`; with or without weights.

    Returns:
      The projection, a function of a tree and optional weights.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.non_negative()(jnp.array([3.0, -0.5]))
      Array([3., 0.], dtype=float32)
    """

    @functools.cached_property
    def stands_for(self) -> Any:
        return _by_element("non_negative", projection_non_negative)

    def __call__(self, count: Any) -> Any:
        return self.stands_for(count)


class simplex(Value):
    """The trees of non-negative elements with the sum `scale`, as a value: `projection_simplex`.

    Args:
      scale: what the elements sum to, > 0.

    Returns:
      The projection, a function of a tree.

    Raises:
      ValueError, TypeError: `scale` is not positive.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.simplex()(jnp.array([3.0, 2.5, -0.5]))
      Array([0.75, 0.25, 0.  ], dtype=float32)
    """

    scale: Positive = 1.0

    @functools.cached_property
    def stands_for(self) -> Any:
        return _unweighted("simplex", lambda tree: projection_simplex(tree, self.scale))

    def __call__(self, count: Any) -> Any:
        return self.stands_for(count)


class l1_ball(Value):
    """The trees with `sum |x| <= radius`, as a value: `projection_l1_ball`.

    Args:
      radius: > 0.

    Returns:
      The projection, a function of a tree.

    Raises:
      ValueError, TypeError: `radius` is not positive.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.l1_ball(2.0)(jnp.array([3.0, -0.5]))
      Array([ 2., -0.], dtype=float32)
    """

    radius: Positive = 1.0

    @functools.cached_property
    def stands_for(self) -> Any:
        return _unweighted("l1_ball", lambda tree: projection_l1_ball(tree, self.radius))

    def __call__(self, count: Any) -> Any:
        return self.stands_for(count)


class l2_ball(Value):
    """The trees with `||x|| <= radius`, as a value: `projection_l2_ball`; with or without weights.

    Args:
      radius: > 0.

    Returns:
      The projection, a function of a tree and optional weights.

    Raises:
      ValueError, TypeError: `radius` is not positive.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.l2_ball(2.5)(jnp.array([3.0, -4.0]))
      Array([ 1.5, -2. ], dtype=float32)
    """

    radius: Positive = 1.0

    @functools.cached_property
    def stands_for(self) -> Any:
        return lambda tree, weights=None: projection_l2_ball(tree, self.radius, weights=weights)

    def __call__(self, count: Any) -> Any:
        return self.stands_for(count)


class linf_ball(Value):
    """The trees with no magnitude above `radius`, as a value: `projection_linf_ball`; with or without weights.

    Args:
      radius: > 0.

    Returns:
      The projection, a function of a tree and optional weights.

    Raises:
      ValueError, TypeError: `radius` is not positive.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.linf_ball(2.0)(jnp.array([3.0, -0.5]))
      Array([ 2. , -0.5], dtype=float32)
    """

    radius: Positive = 1.0

    @functools.cached_property
    def stands_for(self) -> Any:
        return _by_element("linf_ball", lambda tree: projection_linf_ball(tree, self.radius))

    def __call__(self, count: Any) -> Any:
        return self.stands_for(count)


class l1_sphere(Value):
    """The trees with `sum |x| = radius`, as a value: `projection_l1_sphere`.

    Args:
      radius: > 0.

    Returns:
      The projection, a function of a tree.

    Raises:
      ValueError, TypeError: `radius` is not positive.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.l1_sphere(2.0)(jnp.array([0.5, -0.5]))
      Array([ 1., -1.], dtype=float32)
    """

    radius: Positive = 1.0

    @functools.cached_property
    def stands_for(self) -> Any:
        return _unweighted("l1_sphere", lambda tree: projection_l1_sphere(tree, self.radius))

    def __call__(self, count: Any) -> Any:
        return self.stands_for(count)


class l2_sphere(Value):
    """The trees with `||x|| = radius`, as a value: `projection_l2_sphere`.

    Args:
      radius: > 0.

    Returns:
      The projection, a function of a tree.

    Raises:
      ValueError, TypeError: `radius` is not positive.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.l2_sphere()(jnp.array([3.0, -4.0])).round(3)
      Array([ 0.6, -0.8], dtype=float32)
    """

    radius: Positive = 1.0

    @functools.cached_property
    def stands_for(self) -> Any:
        return _unweighted("l2_sphere", lambda tree: projection_l2_sphere(tree, self.radius))

    def __call__(self, count: Any) -> Any:
        return self.stands_for(count)


class linf_sphere(Value):
    """The trees whose largest magnitude is `radius`, as a value: `projection_linf_sphere`.

    Args:
      radius: > 0.

    Returns:
      The projection, a function of a tree.

    Raises:
      ValueError, TypeError: `radius` is not positive.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.linf_sphere()(jnp.array([3.0, -0.5]))
      Array([ 1. , -0.5], dtype=float32)
    """

    radius: Positive = 1.0

    @functools.cached_property
    def stands_for(self) -> Any:
        return _unweighted("linf_sphere", lambda tree: projection_linf_sphere(tree, self.radius))

    def __call__(self, count: Any) -> Any:
        return self.stands_for(count)


@factory(name="projections.vector")
def vector(a: Numbers) -> Projection:
    """The multiples of a tree `a`, as a value: `projection_vector`.

    Args:
      a: direction: a tree like the one to project, not zero.

    Returns:
      The projection, a function of a tree.

    Raises:
      ValueError, TypeError: `a` is zero, or not of numbers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.vector({"v": 1.0, "w": 1.0})({"v": 3.0, "w": 1.0})["v"].round(3)
      Array(2., dtype=float32)
    """
    with checks.calling("projections.vector"):
        check_normal(a)
    return _unweighted("vector", lambda tree: projection_vector(tree, a))


@factory(name="projections.hyperplane")
def hyperplane(a: Numbers, b: Number) -> Projection:
    """The trees with `<a, y> = b`, as a value: `projection_hyperplane`.

    Args:
      a: normal vector: a tree like the one to project, not zero.
      b: offset, a number.

    Returns:
      The projection, a function of a tree.

    Raises:
      ValueError, TypeError: `a` is zero, or not of numbers; `b` is no finite number.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.hyperplane({"v": 1.0, "w": 1.0}, 2.0)({"v": 3.0, "w": 1.0})["v"].round(3)
      Array(2., dtype=float32)
    """
    with checks.calling("projections.hyperplane"):
        check_normal(a)
    return _unweighted("hyperplane", lambda tree: projection_hyperplane(tree, a, b))


@factory(name="projections.halfspace")
def halfspace(a: Numbers, b: Number) -> Projection:
    """The trees with `<a, y> <= b`, as a value: `projection_halfspace`.

    Args:
      a: normal vector, pointing out of the set: a tree like the one to project, not zero.
      b: offset, a number.

    Returns:
      The projection, a function of a tree.

    Raises:
      ValueError, TypeError: `a` is zero, or not of numbers; `b` is no finite number.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.halfspace({"v": 1.0, "w": 1.0}, 2.0)({"v": 3.0, "w": 1.0})["v"].round(3)
      Array(2., dtype=float32)
    """
    with checks.calling("projections.halfspace"):
        check_normal(a)
    return _unweighted("halfspace", lambda tree: projection_halfspace(tree, a, b))


@factory(name="projections.affine_set")
def affine_set(a: ArrayLike, b: ArrayLike) -> Projection:
    """The trees with `A y = b`, as a value: `projection_affine_set`.

    Args:
      a: matrix `A` of shape (equations, elements of the tree); an array or nested lists.
      b: right-hand sides, of shape (equations,).

    Returns:
      The projection, a function of a tree.

    Raises:
      ValueError: `a` is no matrix, or `b` has another shape.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.affine_set([[1.0, 1.0]], [2.0])(jnp.array([3.0, 1.0])).round(3)
      Array([2., 0.], dtype=float32)
    """
    with checks.calling("projections.affine_set"):
        check_equations(a, b)
    return _unweighted("affine_set", lambda tree: projection_affine_set(tree, a, b))
