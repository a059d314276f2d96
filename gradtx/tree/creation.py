"""Dtypes, new trees, random trees."""

import inspect
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from gradtx.core import checks
from gradtx.core.numerics import common_dtype, compute_dtype, default_float, is_key
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.types import Leaf, Tree
from gradtx.tree.align import aligned


def cast(tree: Tree, dtype: DTypeLike | None) -> Tree:
    """Leaves in `dtype`; None leaves them as they are.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.cast({"w": 1.0}, jnp.bfloat16)
      {'w': Array(1, dtype=bfloat16)}
    """
    return tree if dtype is None else jax.tree.map(lambda x: jnp.asarray(x).astype(dtype), tree)


def cast_like(tree: Tree, other_tree: Tree) -> Tree:
    """Leaves in the dtypes of the other tree's leaves, whatever their shapes.

    Python numbers there change nothing.

    Raises:
      ValueError: structures differ.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.cast_like([1.0], [jnp.ones(3, jnp.float16)])
      [Array(1., dtype=float16)]
    """
    with checks.calling("tree.cast_like"):
        (xs, others), put_back = aligned({"tree": tree, "other_tree": other_tree}, shapes="any")
    pairs = zip(xs, others, strict=True)
    return put_back([jnp.asarray(x).astype(o.dtype) if hasattr(o, "dtype") else x for x, o in pairs])


def dtype(tree: Tree, mixed_dtype_handler: str | None = None) -> Tree:
    """The dtype of the leaves; the default float for a tree without any.

    Args:
      tree: tree of arrays.
      mixed_dtype_handler: what to return if dtypes differ: "promote" for the one that JAX promotes
        them to, "highest" or "lowest" for the leaf's dtype to which all others promote, or which
        promotes to all others; None is an error.

    Raises:
      ValueError: dtypes differ and there is no handler, none of them is the highest or lowest, or
        the handler is unknown.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.dtype([jnp.ones(1, jnp.float16), jnp.ones(1)], "lowest")
      dtype('float16')
    """
    found = {jnp.result_type(x): "/".join(parts) or ROOT for parts, x in reversed(leaves_by_path(tree).items())}
    if mixed_dtype_handler not in (None, "promote", "highest", "lowest"):
        given = checks.kind(mixed_dtype_handler)
        raise ValueError(f"tree.dtype: mixed_dtype_handler is {given}, expected None, 'promote', 'highest' or 'lowest'.")
    if not found:
        return default_float()
    if len(found) == 1:
        return next(iter(found))
    shown = " and ".join(f"{kind} (`{path}`)" for kind, path in reversed(found.items()))
    if mixed_dtype_handler is None:
        raise ValueError(f"tree.dtype: leaves are {shown}, expected one dtype, or a mixed_dtype_handler.")
    if mixed_dtype_handler == "promote":
        return common_dtype(*found)
    chosen = operator.itemgetter(0 if mixed_dtype_handler == "highest" else 1)
    for candidate in found:
        if all(common_dtype(candidate, other) == chosen((candidate, other)) for other in found):
            return candidate
    raise ValueError(f"tree.dtype: leaves are {shown}, of which none is the {mixed_dtype_handler}: not all promote to one another.")


def zeros_like(tree: Tree, dtype: DTypeLike | None = None) -> Tree:
    """Zeros in `dtype`, or in each leaf's own.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.zeros_like([jnp.ones(2)])
      [Array([0., 0.], dtype=float32)]
    """
    return full_like(tree, 0, dtype)


def ones_like(tree: Tree, dtype: DTypeLike | None = None) -> Tree:
    """Ones in `dtype`, or in each leaf's own.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.ones_like([jnp.zeros(2)])
      [Array([1., 1.], dtype=float32)]
    """
    return full_like(tree, 1, dtype)


def full_like(tree: Tree, fill_value: ArrayLike, dtype: DTypeLike | None = None) -> Tree:
    """`fill_value` everywhere, in `dtype` or in each leaf's own.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.full_like([jnp.zeros(2)], 7)
      [Array([7., 7.], dtype=float32)]
    """
    return jax.tree.map(lambda x: jnp.full_like(x, fill_value, dtype=dtype or jnp.result_type(x)), tree)


def batch_shape(tree: Tree, shape: tuple[int, ...] = ()) -> Tree:
    """Leaves repeated along new leading axes of `shape`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.tree.batch_shape(jnp.ones(3), (2, 4)).shape
      (2, 4, 3)
    """
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *np.shape(x))), tree)


def split_key_like(rng_key: jax.Array, target_tree: Tree) -> Tree:
    """A tree of independent PRNG keys, one for each leaf.

    Example:
      >>> import jax, gradtx
      >>> keys = gradtx.tree.split_key_like(jax.random.key(0), {"w": 1.0, "b": 2.0})
      >>> bool(keys["w"] == keys["b"])
      False
    """
    treedef = jax.tree.structure(target_tree)
    return treedef.unflatten(list(jax.random.split(rng_key, treedef.num_leaves)))


def random_like(
    rng_key: jax.Array, target_tree: Tree, sampler: Callable[..., jax.Array] = jax.random.normal, dtype: DTypeLike | None = None
) -> Tree:
    """Random numbers in the shapes of a tree, drawn independently for each leaf.

    Args:
      rng_key: PRNG key.
      target_tree: tree of arrays.
      sampler: function `(key, shape, dtype)`, such as those of `jax.random`.
      dtype: dtype of the numbers; None is each leaf's own.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> noise = gradtx.tree.random_like(jax.random.key(0), {"w": jnp.zeros((2, 3), jnp.float16)})
      >>> noise["w"].shape, noise["w"].dtype
      ((2, 3), dtype('float16'))

    **Differs:** numbers in half precision are drawn in float32 and rounded. Drawn in bfloat16
    itself, as in Optax, `jax.random.normal` has but 128 values, none beyond 2.52.
    """
    shards = "out_sharding" in inspect.signature(sampler).parameters

    def sample(leaf: Leaf, key: jax.Array) -> jax.Array:
        wanted = np.dtype(dtype or jnp.result_type(leaf))
        placed = {"out_sharding": jax.typeof(leaf).sharding} if shards else {}
        return jnp.asarray(sampler(key, np.shape(leaf), compute_dtype(wanted), **placed)).astype(wanted)

    return jax.tree.map(sample, target_tree, split_key_like(rng_key, target_tree))


def unwrap_random_key_data(input_tree: Tree) -> Tree:
    """PRNG keys as their integers, to compare or save trees; other leaves as they are.

    Example:
      >>> import jax, gradtx
      >>> gradtx.tree.unwrap_random_key_data([jax.random.key(1), 2.0])
      [Array([0, 1], dtype=uint32), 2.0]
    """
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, input_tree)
