"""Checks of trees: leaves are arrays, structures and shapes agree. Errors name the leaf."""

import functools
import inspect
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import checks
from gradtx.core.paths import ROOT, beginning, leaves_by_path, structure_difference
from gradtx.core.types import DType, Leaf, Params, State, Tree, Updates


def is_inexact(leaf: Leaf) -> bool:
    """Whether a leaf is a floating or complex array, or a Python number of that kind."""
    dtype = getattr(leaf, "dtype", None)
    return isinstance(leaf, (float, complex)) if dtype is None else is_inexact_dtype(dtype)


@functools.lru_cache(maxsize=64)
def is_inexact_dtype(dtype: DType) -> bool:
    """Whether a dtype is floating or complex."""
    return bool(jnp.issubdtype(dtype, jnp.inexact))


_WHOLE_MODEL = (
    " Was a whole model handed over? Pass its arrays alone: nnx.state(model, nnx.Param) in Flax NNX, "
    "variables['params'] in Linen, eqx.filter(model, eqx.is_inexact_array) in Equinox."
)


def check_no_module(params: Params) -> None:
    """Raises for a module of Flax: its statistics and random streams are no parameters."""
    if any(base.__name__ == "Module" and base.__module__.startswith("flax.") for base in type(params).__mro__):
        raise checks.WrongType(f"params is a {type(params).__name__}, expected a tree of arrays.{_WHOLE_MODEL}")


def check_leaves(argument: str, tree: Tree) -> None:
    """Raises a `TypeError` for the first leaf of `tree` that is no floating or complex array."""
    for parts, leaf in leaves_by_path(tree).items():
        if not is_inexact(leaf):
            raise checks.WrongType(
                f"{argument} leaf `{'/'.join(parts) or ROOT}` is {checks.kind(leaf)}, "
                f"expected a floating or complex array.{_leaf_hint(leaf)}"
            )


def _leaf_hint(leaf: Leaf) -> str:
    dtype = getattr(leaf, "dtype", None)
    if dtype == jax.dtypes.float0:
        return " float0 is the gradient of an integer parameter: leave it out of the parameters, or mask it with gradtx.freeze."
    if dtype is not None or isinstance(leaf, (bool, int)):
        return " Keep integers and booleans out of the parameters, or wrap the whole optimizer: gradtx.masked(tx, mask)."
    if callable(leaf) or inspect.isroutine(leaf):
        return _WHOLE_MODEL
    return ""


def check_same_shapes(updates: Updates, params: Params) -> None:
    """Raises unless updates and parameters agree in structure and shapes. Nothing broadcasts."""
    leaves, treedef = jax.tree.flatten(updates)
    others, other = jax.tree.flatten(params)
    if treedef == other and list(map(np.shape, leaves)) == list(map(np.shape, others)):
        return
    check_no_module(params)
    if treedef != other:
        raise_unlike(updates, params, "params")
    raise_other_shape(updates, params, "params", scalars=False)


def check_returned(returned: tuple, given: tuple, params: Params, *, measures: bool, keeps_form: bool) -> None:
    """Raises unless a step returned updates and a state like those that it got.

    Structure, shapes and kinds of number must agree. Updates may be like the parameters instead.
    Those of a transformation that `measures`, and the state of one that does not keep its form, may
    be anything.
    """
    (updates, state), (old_updates, old_state) = returned, given
    if not measures:
        alike = params is None or jax.tree.structure(updates) == jax.tree.structure(old_updates)
        _check_like("update", updates, old_updates if alike else params)
    if keeps_form:
        _check_like("state", state, old_state)


def _check_like(what: str, returned: Tree, given: Tree) -> None:
    found, treedef = jax.tree.flatten(returned)
    expected, other = jax.tree.flatten(given)
    if treedef != other:
        got = "the updates that it got" if what == "update" else "the state that it got"
        difference = structure_difference(f"the {what} that step returned", returned, got, given)
        raise checks.WrongValue(f"{difference}; expected the same tree.")
    for i, (x, y) in enumerate(zip(found, expected, strict=True)):
        if x is y:
            continue
        if np.shape(x) != np.shape(y):
            difference = f"of shape {np.shape(x)}, expected {np.shape(y)}, the shape"
        elif _kind(x) != _kind(y):
            difference = f"of dtype {jnp.result_type(x)}, expected {jnp.result_type(y)}, the dtype"
        else:
            continue
        path = "/".join(list(leaves_by_path(returned))[i]) or ROOT
        raise checks.WrongValue(f"step returned {what} leaf `{path}` {difference} of the {what} that it got.")


def _kind(leaf: Leaf) -> str:
    """What kind of number a leaf holds: real, complex, an integer, a boolean."""
    dtype = getattr(leaf, "dtype", None) or np.result_type(leaf)
    return "f" if is_inexact_dtype(dtype) and dtype.kind == "V" else getattr(dtype, "kind", str(dtype))  # a random key has none


def require_params(params: Params) -> Tree:
    """`params`, or a `ValueError` that shows the call where they were left out."""
    if params is None:
        raise checks.WrongValue("needs the parameters; call tx.update(updates, state, params).")
    return params


def raise_wrong_state(state: State, expected: type, detail: str = "") -> None:
    """Raises the `TypeError` for a state of the wrong type."""
    raise checks.WrongType(
        f"state is {checks.kind(state)}, expected {detail or expected.__name__}; {_cause(state, expected)} "
        "The call is tx.update(updates, state, params), with the state of tx.init(params)."
    )


def _cause(state: State, expected: type) -> str:
    """Why a state may be of the wrong type.

    Some checkpoints turn tuples to lists, named tuples to dicts, and empty ones to None.
    """
    restored = "was it restored from a checkpoint without a target? Restore it into tx.init(params)."
    fields = getattr(expected, "_fields", None)
    if (isinstance(state, Mapping) and state and fields is not None and set(state) <= set(fields)) or (
        state is None and fields == ()
    ):
        return restored
    if isinstance(state, list):
        return f"{restored} Or were state and params swapped?"
    return "does it belong to another optimizer?" if isinstance(state, tuple) else "were state and params swapped?"


def raise_unlike(updates: Updates, other: Tree, name: str = "the tree in the state") -> None:
    """Raises for two trees of unlike structure; names the first path that only one has."""
    if other is None:
        raise checks.WrongValue("a rule got None for a tree. Where it is params, give the class the keyword `needs_params=True`.")
    cause = "Were the gradients taken with respect to another argument, or the state made from other parameters?"
    if isinstance(updates, tuple) and len(updates) == 2 and getattr(updates[0], "shape", None) == ():
        cause = "Was the pair (loss, grads) of jax.value_and_grad handed over?"
    difference = structure_difference("updates", updates, name, other)
    if _lacks_a_gradient(updates, other):
        difference += ", its gradient is None"
        cause = "Leave it out of params too (in Equinox by one filter for both), or make its gradient zeros."
    raise checks.WrongValue(f"{difference}. {cause}")


def _lacks_a_gradient(updates: Updates, other: Tree) -> bool:
    """Whether the first path that only the other tree has is None in the updates."""
    found, others = leaves_by_path(updates), leaves_by_path(other)
    missing = next((path for path in others if path not in found), None)
    if missing is None or any(path not in others for path in found):
        return False
    return beginning(missing, [path for path, x in leaves_by_path(updates, is_leaf=is_none).items() if x is None]) is not None


def is_none(x: object) -> bool:
    """Whether a leaf is missing."""
    return x is None


def raise_other_shape(
    updates: Updates, other: Tree, name: str = "the tree in the state", scalars: bool = True, own: str = "updates"
) -> None:
    """Raises for the first leaf whose shape differs between two trees of one structure."""
    others = leaves_by_path(other)
    for parts, update in leaves_by_path(updates).items():
        found, expected = np.shape(update), np.shape(others.get(parts, update))
        if found != expected and not (scalars and expected == ()):
            raise checks.WrongValue(
                f"{own} leaf `{'/'.join(parts) or ROOT}` has shape {found}, but {name} has {expected} there; "
                "shapes must be equal, nothing is broadcast."
            )
