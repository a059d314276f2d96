"""Arithmetic on trees of arrays, leaf by leaf: `gradtx.tree`, named as `optax.tree`.

What holds for all functions here:

- Entries that are None or `MaskedNode` stay as they are, and empty arrays pass.
- Trees that go together have one structure and, leaf by leaf, one shape, or a `ValueError` names
  the first path that differs. Leaves that are scalars go with any shape in arithmetic; nothing else
  is broadcast.
- **Differs:** leaves are computed in at least float32. A result is stored in the dtype of the first
  tree's leaf, unless that cannot hold it (an integer a fraction, a real a complex number). Sums and
  norms stay in at least float32.
"""

from gradtx.tree.arithmetic import (
    add,
    add_scale,
    bias_correction,
    clip,
    conj,
    div,
    mul,
    real,
    scale,
    sub,
    update_infinity_moment,
    update_moment,
    update_moment_per_elem_norm,
    where,
)
from gradtx.tree.creation import (
    batch_shape,
    cast,
    cast_like,
    dtype,
    full_like,
    ones_like,
    random_like,
    split_key_like,
    unwrap_random_key_data,
    zeros_like,
)
from gradtx.tree.lookup import NamedTupleKey, get, get_all_with_path, set
from gradtx.tree.mirrors import map_params
from gradtx.tree.reductions import allclose, global_norm, max, min, norm, size, sum, vdot

__all__ = [
    "NamedTupleKey",
    "add",
    "add_scale",
    "allclose",
    "batch_shape",
    "bias_correction",
    "cast",
    "cast_like",
    "clip",
    "conj",
    "div",
    "dtype",
    "full_like",
    "get",
    "get_all_with_path",
    "global_norm",
    "map_params",
    "max",
    "min",
    "mul",
    "norm",
    "ones_like",
    "random_like",
    "real",
    "scale",
    "set",
    "size",
    "split_key_like",
    "sub",
    "sum",
    "unwrap_random_key_data",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
    "vdot",
    "where",
    "zeros_like",
]
