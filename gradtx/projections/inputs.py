"""The boundary around projections, and checks of what they take and give back."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import checks, domains
from gradtx.core.checked import checked
from gradtx.core.domains import Domain
from gradtx.core.leaves import cast_like
from gradtx.core.numerics import compute_dtype, is_tracer
from gradtx.core.paths import ROOT, leaves_by_path, structure_difference
from gradtx.core.trees import check_leaves
from gradtx.core.types import Leaf, Scalar, Tree

P = ParamSpec("P")
R = TypeVar("R")


def projection(function: Callable[P, R]) -> Callable[P, R]:
    """The boundary around a projection.

    It sees its tree in at least float32; the result has the dtypes of the tree that was given.
    Arguments are checked against the domains in their annotations, and errors name the projection.
    """
    signature = inspect.signature(function)

    @checked
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        name, tree = next(iter(bound.arguments.items()))
        check_leaves("tree", tree)
        bound.arguments[name] = jax.tree.map(lambda x: jnp.asarray(x, compute_dtype(jnp.result_type(x))), tree)
        return cast_like(function(*bound.args, **bound.kwargs), tree)

    return call


def parts(tree: Tree, *, ordered: bool = True) -> list[jax.Array]:
    """The leaves with elements; `ordered` for sets that complex numbers are not in."""
    if ordered:
        for path, leaf in leaves_by_path(tree).items():
            if jnp.iscomplexobj(leaf):
                raise checks.WrongType(
                    f"tree leaf `{_text(path)}` is {checks.kind(leaf)}, expected real numbers. Complex ones have balls and spheres."
                )
    return [x for x in jax.tree.leaves(tree) if x.size]


def _is_numeric(value: object) -> bool:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return True
    dtype = getattr(value, "dtype", None)
    return dtype is not None and (jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating))


def _is_scalar(value: Tree) -> bool:
    return jax.tree_util.all_leaves([value]) and np.shape(value) == ()


def _is_numbers(value: Tree) -> bool:
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(map(_is_numeric, leaves))


Numbers = Annotated[Tree, Domain("a real number or a tree of them like the tree to project", _is_numbers)]
NUMBERS = cast(Domain, domains.domain_of(Numbers))


def like(argument: str, value: Tree, tree: Tree, *, scalars: bool = True) -> Tree:
    """`value` as a tree like `tree`: one number for all leaves, or a tree of the same shapes."""
    leaves, treedef = jax.tree.flatten(tree)
    if leaves:
        domains.check_argument("", argument, value, NUMBERS)
    if scalars and _is_scalar(value):
        return treedef.unflatten([value] * len(leaves))
    if jax.tree.structure(value) != treedef:
        raise checks.WrongValue(f"{structure_difference(argument, value, 'the tree', tree)}.")
    for (path, own), leaf in zip(leaves_by_path(value).items(), leaves, strict=True):
        found, expected = np.shape(own), np.shape(leaf)
        if found != expected and not (scalars and found == ()):
            raise checks.WrongValue(
                f"{argument} leaf `{_text(path)}` has shape {found}, but the tree has {expected} there; "
                "shapes must be equal, nothing is broadcast."
            )
    return value


def known(value: Leaf) -> np.ndarray | None:
    """The numbers of a value that can be read now: no tracer, no array spread over other hosts."""
    if is_tracer(value) or not getattr(value, "is_fully_addressable", True):
        return None
    return np.asarray(value)


def check_each(argument: str, tree: Tree, test: Callable[[np.ndarray], np.ndarray], expected: str, cause: str = "") -> None:
    """Raises a `ValueError` that shows the first number for which `test` fails, of those known."""
    for path, leaf in leaves_by_path(tree).items():
        numbers = known(leaf)
        if numbers is not None and not np.all(good := test(numbers)):
            first = float(np.ravel(numbers)[np.argmin(np.ravel(good))])
            at = f" at `{_text(path)}`" if path else ""
            raise checks.WrongValue(f"{argument} is {first:g}{at}, expected {expected}.{cause}")


def check_bounds(lower: Scalar, upper: Scalar) -> None:
    """Raises a `ValueError` unless `lower <= upper`, where both are known and of one shape."""
    if _is_scalar(lower):
        lower = jax.tree.map(lambda _: lower, upper)
    elif _is_scalar(upper):
        upper = jax.tree.map(lambda _: upper, lower)
    highs = leaves_by_path(upper)
    for path, leaf in leaves_by_path(lower).items():
        low, high = known(leaf), known(highs.get(path, leaf))
        if low is None or high is None or (low.shape != high.shape and () not in (low.shape, high.shape)):
            continue
        low, high = map(np.ravel, np.broadcast_arrays(low, high))
        good = low <= high
        if not good.all():
            i, at = np.argmin(good), f" at `{_text(path)}`" if path else ""
            raise checks.WrongValue(
                f"lower is {low[i]:g} and upper is {high[i]:g}{at}, expected lower <= upper. Were they swapped?"
            )


def check_weights(weights: Tree, tree: Tree) -> Tree:
    """The weights as a tree like `tree`; raises where a known one is negative."""
    weights = like("weights", weights, tree)
    check_each("weights", weights, lambda w: ~(w < 0), "numbers >= 0", " A weight is the cost of moving an element.")
    return weights


def check_projection(before: Tree, after: Tree) -> None:
    """Raises unless a projection gave back a tree of the structure and shapes that it was given.

    For transformations that take a projection from their user; it costs nothing at run time.

    Args:
      before: the tree that was projected.
      after: what came back.

    Raises:
      ValueError: the trees differ; names the first path where they do.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.projections import check_projection
      >>> check_projection({"w": jnp.ones(3)}, {"w": jnp.zeros(3)})
      >>> check_projection({"w": jnp.ones(3)}, {"w": jnp.zeros(2)})  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      gradtx.WrongValue: projection changed the shape of `w` from (3,) to (2,), expected a tree ...
    """
    expected = "expected a tree like the one it is given"
    if jax.tree.structure(before) != jax.tree.structure(after):
        difference = structure_difference("the tree", before, "its projection", after)
        raise checks.WrongValue(f"projection changed the structure: {difference}; {expected}.")
    afters = jax.tree.leaves(after)
    for (path, own), other in zip(leaves_by_path(before).items(), afters, strict=True):
        if np.shape(own) != np.shape(other):
            change = f"from {np.shape(own)} to {np.shape(other)}"
            raise checks.WrongValue(f"projection changed the shape of `{_text(path)}` {change}, {expected}.")


def _text(path: tuple[str, ...]) -> str:
    return "/".join(path) or ROOT
