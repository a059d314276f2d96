"""Trees as real vectors, and back."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.numerics import promote
from gradtx.core.sharding import gathered, placed_like
from gradtx.core.types import DType, Tree


def to_vector(tree: Tree, dtype: DType) -> jax.Array:
    """All elements in one real vector, whole on every device.

    Complex leaves come as real and then imaginary parts.
    """
    parts = [jnp.zeros(0, dtype)]
    for leaf in map(gathered, map(promote, jax.tree.leaves(tree))):
        parts += [part.ravel().astype(dtype) for part in ((leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,))]
    return jnp.concatenate(parts)


def from_vector(vector: jax.Array, like: Tree) -> Tree:
    """The tree of `to_vector`, with the shapes, dtypes and sharding of `like`."""
    leaves, treedef = jax.tree.flatten(like)
    new, at = [], 0

    def take(size: int) -> jax.Array:
        nonlocal at
        at += size
        return vector[at - size : at]

    for leaf in leaves:
        size, dtype = math.prod(np.shape(leaf)), jnp.result_type(leaf)
        flat = jax.lax.complex(take(size), take(size)) if jnp.iscomplexobj(leaf) else take(size)
        new.append(placed_like(flat.reshape(np.shape(leaf)).astype(dtype), leaf))
    return treedef.unflatten(new)
