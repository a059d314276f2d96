"""From updates to parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import checks
from gradtx.core.leaves import map_leaves
from gradtx.core.numerics import cond, with_complement
from gradtx.core.paths import structure_difference
from gradtx.core.trees import is_none, raise_other_shape
from gradtx.core.types import Leaf, LeafRule, Params, Scalar, Tree, Updates


def apply_updates(params: Params, updates: Updates) -> Tree:
    """Adds updates to parameters: `p + u`, in at least float32, stored in the dtype of `p`.

    Args:
      params: tree of arrays. Leaves that are None stay None.
      updates: tree of the same structure and shapes; where a leaf is None (or a float0, the
        gradient of an integer) its parameter stays.

    Returns:
      The new parameters, each with the shape and dtype it had.

    Raises:
      ValueError: structures or shapes differ; nothing is broadcast.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.apply_updates({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([0.5, -0.5])})
      {'w': Array([1.5, 1.5], dtype=float32)}
    """
    with checks.calling("apply_updates"):
        return _map_pairs(jnp.add, {"params": params, "updates": updates})


def incremental_update(new_tensors: Tree, old_tensors: Tree, step_size: Scalar) -> Tree:
    """Moves old values towards new ones (Polyak averaging): `s * new + (1 - s) * old`.

    Args:
      new_tensors: tree of arrays.
      old_tensors: tree of the same structure and shapes.
      step_size: `s`, in [0, 1]: 1 gives the new values, 0 the old ones.

    Returns:
      The averaged tree, in the dtypes of `new_tensors`.

    Raises:
      ValueError: structures or shapes differ.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.incremental_update(jnp.array(4.0), jnp.array(0.0), step_size=0.25)
      Array(1., dtype=float32)
    """
    with checks.calling("incremental_update"):
        s, rest = with_complement(step_size)
        pair = {"new_tensors": new_tensors, "old_tensors": old_tensors}
        return _map_pairs(lambda new, old, *, s, rest: s * new + rest * old, pair, s=s, rest=rest)


def periodic_update(new_tensors: Tree, old_tensors: Tree, steps: Scalar, update_period: Scalar) -> Tree:
    """New values every `update_period` steps, where `steps % update_period == 0`; else old ones.

    Args:
      new_tensors: tree of arrays.
      old_tensors: tree of the same structure, shapes and dtypes.
      steps: step count, an integer.
      update_period: steps from one update to the next, at least 1.

    Returns:
      One of the two trees.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> new, old = jnp.array(1.0), jnp.array(0.0)
      >>> [float(gradtx.periodic_update(new, old, step, 3)) for step in range(4)]
      [1.0, 0.0, 0.0, 1.0]
    """
    due = jnp.mod(steps, update_period) == 0
    return cond(due, lambda: new_tensors, lambda: old_tensors)


def _is_nothing(x: Leaf) -> bool:
    return x is None or getattr(x, "dtype", None) == jax.dtypes.float0


def _map_pairs(rule: LeafRule, trees: dict[str, Tree], **scalars: Scalar) -> Tree:
    """`map_leaves` of two trees by name, where None in the second keeps the leaf of the first."""
    (first_name, first), (second_name, second) = trees.items()
    lefts, treedef = jax.tree.flatten(first, is_leaf=is_none)
    rights, other = jax.tree.flatten(second, is_leaf=is_none)
    if treedef != other:
        pair = type(second) is tuple and len(second) == 2 and jax.tree.structure(second[0], is_leaf=is_none) == treedef
        hint = " Was the pair (updates, state) of tx.update handed over?" if pair else ""
        raise checks.WrongValue(f"{structure_difference(second_name, second, first_name, first)}.{hint}")
    if any(x is not None and y is not None and np.shape(x) != np.shape(y) for x, y in zip(lefts, rights, strict=True)):
        raise_other_shape(second, first, first_name, scalars=False, own=second_name)
    pairs = [i for i, right in enumerate(rights) if not _is_nothing(right) and lefts[i] is not None]
    moved = map_leaves(rule, [lefts[i] for i in pairs], [rights[i] for i in pairs], **scalars)
    for i, leaf in zip(pairs, moved, strict=True):
        lefts[i] = leaf
    return treedef.unflatten(lefts)
