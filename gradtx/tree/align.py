"""Trees side by side, and rules for one array lifted over trees that may hold anything."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import checks
from gradtx.core.leaves import is_masked_or_none, map_leaves
from gradtx.core.numerics import common_dtype
from gradtx.core.paths import ROOT, leaves_by_path, structure_difference
from gradtx.core.types import DType, Leaf, LeafRule, Scalar, Tree
from gradtx.tree.mirrors import entries_like


def lift(
    name: str,
    rule: LeafRule,
    trees: Mapping[str, Tree],
    first_decides: bool = False,
    holds: Scalar = False,
    **scalars: Scalar,
) -> Tree:
    """`map_leaves` for trees that may hold integers and scalars.

    Results can hold the number `holds`.
    """
    with checks.calling(f"tree.{name}"):
        columns, put_back = aligned(trees, first_decides=first_decides)
        numbers = [holds, *(x for x in scalars.values() if x is not None)]
        firsts = [_wide_enough(row, numbers) for row in zip(*columns, strict=True)]
        return put_back(map_leaves(rule, firsts, *columns[1:], **scalars) if firsts else [])


def _wide_enough(row: tuple[Leaf, ...], numbers: list[Scalar]) -> Leaf:
    """The first leaf of a row, in a shape and dtype that hold a result made from all of them."""
    first = row[0]
    shape = np.broadcast_shapes(*map(np.shape, row))
    if np.shape(first) != shape:
        first = jnp.broadcast_to(first, shape)
    own = rank(jnp.result_type(first))
    if any(rank(jnp.result_type(x)) > own for x in (*row, *numbers)):
        first = jnp.asarray(first, common_dtype(*row, *numbers))
    return first


def rank(dtype: DType) -> int:
    """The kind of a dtype: 0 boolean, 1 integer, 2 floating, 3 complex; -1 for anything else."""
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    return next((i for i, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind)), -1)


def scalar_array(name: str, argument: str, value: Scalar) -> jax.Array:
    """A scalar as an array, so that eager code is not compiled again for each value."""
    if np.shape(value) != ():
        raise TypeError(f"tree.{name}: {argument} is {checks.kind(value)}, expected a scalar.")
    return jnp.asarray(value)


def aligned(
    trees: Mapping[str, Tree], *, first_decides: bool = False, shapes: str = "scalars"
) -> tuple[list[list[Leaf]], Callable[[list[Leaf]], Tree]]:
    """The trees' leaves side by side without None or masked ones, and what puts results back.

    Args:
      trees: trees of one structure by the names that errors call them.
      first_decides: whether the other trees may have anything where the first has None or
        `MaskedNode`.
      shapes: "equal", "scalars" (equal or scalar) or "any".
    """
    (first_name, first), *others = trees.items()
    entries, treedef = jax.tree.flatten(first, is_leaf=is_masked_or_none)
    columns, known = [entries], [np.shape(x) for x in entries]
    for name, tree in others:
        column = entries_like(treedef, tree)
        if column is None or not all(_go_together(x, y, first_decides) for x, y in zip(entries, column, strict=True)):
            raise checks.WrongValue(f"{structure_difference(first_name, first, name, tree)}.")
        for i, (x, y) in enumerate(zip(entries, column, strict=True)):
            if is_masked_or_none(x) or shapes == "any" or np.shape(y) == known[i]:
                continue
            if shapes == "equal" or () not in (np.shape(y), known[i]):
                path = "/".join(list(leaves_by_path(first, is_leaf=is_masked_or_none))[i]) or ROOT
                raise checks.WrongValue(
                    f"{name} leaf `{path}` has shape {np.shape(y)}, but {first_name} has {known[i]} there; "
                    "shapes must be equal, nothing is broadcast."
                )
            known[i] = known[i] or np.shape(y)
        columns.append(column)
    present = [i for i, x in enumerate(entries) if not is_masked_or_none(x)]

    def put_back(results: list[Leaf]) -> Tree:
        out = list(entries)
        for i, result in zip(present, results, strict=True):
            out[i] = result
        return treedef.unflatten(out)

    return [[column[i] for i in present] for column in columns], put_back


def _go_together(x: Leaf, y: Leaf, first_decides: bool) -> bool:
    if is_masked_or_none(x):
        return first_decides or is_masked_or_none(y)
    return not is_masked_or_none(y) and jax.tree_util.all_leaves([y])
