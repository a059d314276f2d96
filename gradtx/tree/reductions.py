"""From trees to numbers."""

from collections.abc import Callable, Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.core import checks
from gradtx.core.domains import Domain
from gradtx.core.numerics import abs_sq, default_float, promote, root_sum_squares, stacked
from gradtx.core.trees import is_inexact
from gradtx.core.types import Leaf, Tree, Updates
from gradtx.core.varying import axes_of
from gradtx.tree.align import aligned


def _are_names(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value))


AxisNames = Annotated[
    str | Sequence[str],
    Domain(
        "the name of a mesh axis, or several",
        _are_names,
        canonical=lambda value: tuple(value) if isinstance(value, list) else value,
    ),
]
"""Axes of a mesh."""


def sum(tree: Tree, associative_reduction: bool = False) -> jax.Array:
    """The sum of all elements, in at least float32; integers stay integers.

    Args:
      tree: tree of arrays.
      associative_reduction: taken for Optax's sake and without effect; leaves' sums are always
        added in one reduction.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.sum({"w": jnp.ones(1000, jnp.bfloat16), "b": 0.5})
      Array(1000.5, dtype=float32)
    """
    del associative_reduction
    return _total([jnp.sum(promote(x)) for x in jax.tree.leaves(tree)])


def vdot(tree_x: Tree, tree_y: Tree) -> jax.Array:
    """The inner product `sum(conj(x) * y)`, in at least float32 on every device.

    Raises:
      ValueError: structures or shapes differ.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.vdot([jnp.array([1.0, 2.0])], [jnp.array([3.0, 4.0])])
      Array(11., dtype=float32)
    """
    with checks.calling("tree.vdot"):
        (xs, ys), _ = aligned({"tree_x": tree_x, "tree_y": tree_y}, shapes="equal")
    # Multiplied element by element, since matrix units of TPUs and GPUs may round float32 factors;
    # it also shards.
    return _total([jnp.sum(jnp.conj(promote(x)) * promote(y)) for x, y in zip(xs, ys, strict=True)])


def norm(tree: Tree, ord: int | str | float | None = None, squared: bool = False) -> jax.Array:
    """The norm of all elements as one vector; real also for complex trees.

    Args:
      tree: tree of arrays.
      ord: None or 2 for the Euclidean norm, 1 for the sum of magnitudes, `inf` (or "inf",
        "infinity") for the largest.
      squared: whether to return the norm's square.

    Returns:
      A scalar in at least float32; 0 for a tree without elements.

    Raises:
      ValueError: another `ord`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.norm({"w": jnp.array([3e30, 4j * 1e30])}) / 1e30
      Array(5., dtype=float32)

    **Differs:** the Euclidean norm does not overflow where squares would. In Optax the infinity
    norm of an empty tree is -inf.
    """
    leaves = [promote(x) if is_inexact(x) else jnp.asarray(x, default_float()) for x in jax.tree.leaves(tree)]
    if ord is None or ord == 2:
        return _total([jnp.sum(abs_sq(x)) for x in leaves]) if squared else root_sum_squares(leaves)
    if ord == 1:
        value = _total([jnp.sum(jnp.abs(x)) for x in leaves])
    elif ord in (np.inf, "inf", "infinity"):
        value = _extreme(jnp.max, [jnp.abs(x) for x in leaves], jnp.zeros((), default_float()))
    else:
        raise ValueError(f"tree.norm: ord is {checks.kind(ord)}, expected None, 1, 2 or inf.")
    return value * value if squared else value


def global_norm(updates: Updates, *, axis_name: AxisNames | None = None) -> jax.Array:
    """The Euclidean norm of all elements: `tree.norm(updates)`.

    Args:
      updates: tree of arrays.
      axis_name: inside `jax.shard_map`, the mesh axes along which devices hold the shards: a name,
        or several. A leaf that does not vary over an axis is a copy and counts once; with
        `check_vma=False`, where types do not tell, every leaf is a shard.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.global_norm({"w": jnp.array([3.0]), "b": jnp.array(4.0)})
      Array(5., dtype=float32)
    """
    if axis_name is None:
        return norm(updates)
    groups: dict[tuple[str, ...], list[Leaf]] = {}
    for x in jax.tree.leaves(updates):
        groups.setdefault(shards_over(x, axis_name), []).append(x)
    return root_sum_squares([_over(norm(leaves), names) for names, leaves in groups.items()])


def mean_square(x: Leaf, axis_name: AxisNames | None = None) -> jax.Array:
    """The mean of squared magnitudes of an array, or of the one whose shards devices hold."""
    local = jnp.mean(abs_sq(x))
    names = shards_over(x, axis_name)
    return jax.lax.pmean(local, names) if names else local


def on_every_device(condition: jax.Array, axis_name: AxisNames | None) -> jax.Array:
    """Whether a condition holds on all devices along mesh axes."""
    names = shards_over(condition, axis_name)
    return jax.lax.pmin(condition.astype(jnp.int32), names) > 0 if names else condition


def shards_over(x: Leaf, axis_name: AxisNames | None) -> tuple[str, ...]:
    """The mesh axes, of those named, along which devices hold different values of an array.

    All of them where types do not tell.
    """
    names = (axis_name,) if isinstance(axis_name, str) else axis_name or ()
    return tuple(sorted(name for name in {*names} if name in axes_of(x) or name not in axes_of(jax.lax.axis_index(name))))


def _over(local: jax.Array, names: tuple[str, ...]) -> jax.Array:
    """The norm of what devices hold together, from each one's norm; squares do not overflow."""
    if not names:
        return local
    largest = jax.lax.pmax(jax.lax.stop_gradient(local), names)
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return unit * jnp.sqrt(jax.lax.psum(jnp.square(local / unit), names))


def max(tree: Tree) -> jax.Array:
    """The largest element; -inf for a tree without elements.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.max([jnp.array([1, 5]), jnp.array([3])])
      Array(5, dtype=int32)

    **Differs:** Optax turns integers into floats.
    """
    return _extreme(jnp.max, jax.tree.leaves(tree), jnp.asarray(-jnp.inf, default_float()))


def min(tree: Tree) -> jax.Array:
    """The smallest element; inf for a tree without elements.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.min([jnp.array([1, 5]), jnp.array([3])])
      Array(1, dtype=int32)

    **Differs:** Optax turns integers into floats.
    """
    return _extreme(jnp.min, jax.tree.leaves(tree), jnp.asarray(jnp.inf, default_float()))


def size(tree: Tree) -> int:
    """The number of elements.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.size({"w": jnp.ones((2, 3)), "b": 1.0})
      7
    """
    total = 0
    for leaf in jax.tree.leaves(tree):
        total += np.size(leaf)
    return total


def allclose(a: Leaf, b: Leaf, rtol: ArrayLike = 1e-05, atol: ArrayLike = 1e-08, equal_nan: bool = False) -> jax.Array:
    """Whether `|a - b| <= atol + rtol * |b|` for all elements.

    Args:
      a: tree of arrays.
      b: tree of the same structure and shapes.
      rtol: relative tolerance.
      atol: absolute tolerance.
      equal_nan: whether NaN equals NaN.

    Raises:
      ValueError: structures or shapes differ.

    Example:
      >>> import gradtx
      >>> bool(gradtx.tree.allclose([1.0], [1.000001])), bool(gradtx.tree.allclose([1.0], [1.1]))
      (True, False)
    """
    with checks.calling("tree.allclose"):
        (xs, ys), _ = aligned({"a": a, "b": b}, shapes="equal")
    close = [jnp.allclose(promote(x), promote(y), rtol, atol, equal_nan) for x, y in zip(xs, ys, strict=True)]
    return jnp.all(jnp.asarray(close, bool))


def _total(parts: list[jax.Array]) -> jax.Array:
    return jnp.sum(jnp.stack(parts)) if parts else jnp.zeros((), default_float())


def _extreme(reduction: Callable[[jax.Array], jax.Array], leaves: list[Leaf], of_none: jax.Array) -> jax.Array:
    parts = [reduction(jnp.asarray(x)) for x in leaves if np.size(x)]
    return reduction(stacked(parts)) if parts else of_none
