"""Sets as values, for arguments such as `projection=`: functions `project(tree, weights=None)`.

Like optimizers they print as the call that made them, compare, hash, pickle and turn into configs.
With `weights` the function gives the point `y` of the set with the least `sum w_i*(y_i - x_i)^2`;
sets without that form refuse them.
"""

from collections.abc import Callable

from jax.typing import ArrayLike

from gradtx.core import checks
from gradtx.core.domains import Number, Positive
from gradtx.core.types import Tree
from gradtx.core.value import Value
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

Projection = Callable[..., Tree]
"""A function `project(tree, weights=None)` that gives the nearest tree of a set."""


class Set(Value):
    """A set as a value, whose call gives the nearest tree in it.

    Subclasses define `project`, and `check` for their arguments.
    """

    def __init_subclass__(cls, **traits: object):
        if cls.__module__ == __name__:  # `repr`, errors and configs use the name that users write
            cls.__name__ = f"projections.{cls.__name__}"
        super().__init_subclass__(**traits)

    def __post_init__(self) -> None:
        super().__post_init__()
        with checks.calling(type(self).__name__):
            self.check()

    def check(self) -> None:
        """Raises for arguments that do not make a set."""

    def project(self, tree: Tree) -> Tree:
        """The nearest tree of the set."""
        raise NotImplementedError(f"{type(self).__name__}: project is missing; it gives the nearest tree of the set.")

    def __call__(self, tree: Tree, weights: Tree = None) -> Tree:
        """The nearest tree of the set, without weights."""
        if weights is not None:
            text = "weights are given, expected None: this set has no weighted projection here. "
            others = "box, hypercube, non_negative, linf_ball and l2_ball have."
            raise checks.WrongValue(text + others).by(type(self).__name__)
        return self.project(tree)


class ElementwiseSet(Set):
    """A set that bounds each element by itself, so that weights change nothing."""

    def __call__(self, tree: Tree, weights: Tree = None) -> Tree:
        """The nearest tree of the set, whatever the weights."""
        if weights is not None:
            with checks.calling(type(self).__name__):
                check_weights(weights, tree)
        return self.project(tree)


class box(ElementwiseSet):
    """The trees between two bounds, as a value: `projection_box`; with or without weights.

    Args:
      lower: lower bound: one number, or a tree like the one to project; -inf is no bound.
      upper: upper bound, in the same form.

    Raises:
      ValueError: `lower > upper` somewhere.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> project = gradtx.projections.box(-1.0, 1.0)
      >>> project, project({"w": jnp.array([3.0, 0.5])})
      (projections.box(lower=-1.0, upper=1.0), {'w': Array([1. , 0.5], dtype=float32)})
    """

    lower: Numbers
    upper: Numbers

    def check(self) -> None:
        check_bounds(self.lower, self.upper)

    def project(self, tree: Tree) -> Tree:
        return projection_box(tree, self.lower, self.upper)


class hypercube(ElementwiseSet):
    """The trees between 0 and `scale`, as a value: `projection_hypercube`; with or without weights.

    Args:
      scale: edge, > 0: one number, or a tree like the one to project.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.hypercube(2.0)(jnp.array([3.0, -0.5]))
      Array([2., 0.], dtype=float32)
    """

    scale: Numbers = 1.0

    def check(self) -> None:
        check_edge(self.scale)

    def project(self, tree: Tree) -> Tree:
        return projection_hypercube(tree, self.scale)


class non_negative(ElementwiseSet):
    """The trees without negative elements, as a value: `projection_non_negative`.

    With or without weights.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.non_negative()(jnp.array([3.0, -0.5]))
      Array([3., 0.], dtype=float32)
    """

    def project(self, tree: Tree) -> Tree:
        return projection_non_negative(tree)


class linf_ball(ElementwiseSet):
    """The trees with no magnitude above `radius`, as a value: `projection_linf_ball`.

    With or without weights.

    Args:
      radius: > 0.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.linf_ball(2.0)(jnp.array([3.0, -0.5]))
      Array([ 2. , -0.5], dtype=float32)
    """

    radius: Positive = 1.0

    def project(self, tree: Tree) -> Tree:
        return projection_linf_ball(tree, self.radius)


class l2_ball(Set):
    """The trees with `||x|| <= radius`, as a value: `projection_l2_ball`; with or without weights.

    Args:
      radius: > 0.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.l2_ball(2.5)(jnp.array([3.0, -4.0]))
      Array([ 1.5, -2. ], dtype=float32)
    """

    radius: Positive = 1.0

    def __call__(self, tree: Tree, weights: Tree = None) -> Tree:
        return projection_l2_ball(tree, self.radius, weights=weights)


class l1_ball(Set):
    """The trees with `sum |x| <= radius`, as a value: `projection_l1_ball`.

    Args:
      radius: > 0.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.l1_ball(2.0)(jnp.array([3.0, -0.5]))
      Array([ 2., -0.], dtype=float32)
    """

    radius: Positive = 1.0

    def project(self, tree: Tree) -> Tree:
        return projection_l1_ball(tree, self.radius)


class simplex(Set):
    """The trees of non-negative elements with the sum `scale`, as a value: `projection_simplex`.

    Args:
      scale: what the elements sum to, > 0.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.simplex()(jnp.array([3.0, 2.5, -0.5]))
      Array([0.75, 0.25, 0.  ], dtype=float32)
    """

    scale: Positive = 1.0

    def project(self, tree: Tree) -> Tree:
        return projection_simplex(tree, self.scale)


class l1_sphere(Set):
    """The trees with `sum |x| = radius`, as a value: `projection_l1_sphere`.

    Args:
      radius: > 0.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.l1_sphere(2.0)(jnp.array([0.5, -0.5]))
      Array([ 1., -1.], dtype=float32)
    """

    radius: Positive = 1.0

    def project(self, tree: Tree) -> Tree:
        return projection_l1_sphere(tree, self.radius)


class l2_sphere(Set):
    """The trees with `||x|| = radius`, as a value: `projection_l2_sphere`.

    Args:
      radius: > 0.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.l2_sphere()(jnp.array([3.0, -4.0])).round(3)
      Array([ 0.6, -0.8], dtype=float32)
    """

    radius: Positive = 1.0

    def project(self, tree: Tree) -> Tree:
        return projection_l2_sphere(tree, self.radius)


class linf_sphere(Set):
    """The trees whose largest magnitude is `radius`, as a value: `projection_linf_sphere`.

    Args:
      radius: > 0.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.linf_sphere()(jnp.array([3.0, -0.5]))
      Array([ 1. , -0.5], dtype=float32)
    """

    radius: Positive = 1.0

    def project(self, tree: Tree) -> Tree:
        return projection_linf_sphere(tree, self.radius)


class vector(Set):
    """The multiples of a tree `a`, as a value: `projection_vector`.

    Args:
      a: direction: a tree like the one to project, not zero.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.vector({"v": 1.0, "w": 1.0})({"v": 3.0, "w": 1.0})["v"].round(3)
      Array(2., dtype=float32)
    """

    a: Numbers

    def check(self) -> None:
        check_normal(self.a)

    def project(self, tree: Tree) -> Tree:
        return projection_vector(tree, self.a)


class hyperplane(Set):
    """The trees with `<a, y> = b`, as a value: `projection_hyperplane`.

    Args:
      a: normal vector: a tree like the one to project, not zero.
      b: offset, a finite number.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> project = gradtx.projections.hyperplane({"v": 1.0, "w": 1.0}, 2.0)
      >>> project({"v": 3.0, "w": 1.0})["v"].round(3)
      Array(2., dtype=float32)
    """

    a: Numbers
    b: Number

    def check(self) -> None:
        check_normal(self.a)

    def project(self, tree: Tree) -> Tree:
        return projection_hyperplane(tree, self.a, self.b)


class halfspace(Set):
    """The trees with `<a, y> <= b`, as a value: `projection_halfspace`.

    Args:
      a: normal vector, pointing out of the set: a tree like the one to project, not zero.
      b: offset, a finite number.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> project = gradtx.projections.halfspace({"v": 1.0, "w": 1.0}, 2.0)
      >>> project({"v": 3.0, "w": 1.0})["v"].round(3)
      Array(2., dtype=float32)
    """

    a: Numbers
    b: Number

    def check(self) -> None:
        check_normal(self.a)

    def project(self, tree: Tree) -> Tree:
        return projection_halfspace(tree, self.a, self.b)


class affine_set(Set):
    """The trees with `A y = b`, as a value: `projection_affine_set`.

    Args:
      a: matrix `A` of shape (equations, elements of the tree); an array or nested lists.
      b: right-hand sides, of shape (equations,).

    Raises:
      ValueError: `a` is no matrix, or `b` has another shape.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.projections.affine_set([[1.0, 1.0]], [2.0])(jnp.array([3.0, 1.0])).round(3)
      Array([2., 0.], dtype=float32)
    """

    a: ArrayLike
    b: ArrayLike

    def check(self) -> None:
        check_equations(self.a, self.b)

    def project(self, tree: Tree) -> Tree:
        return projection_affine_set(tree, self.a, self.b)
