"""What a measurement averages over: one batch, or many of any sizes, weighted by size.

Where a function here takes `batches`, it takes the arguments of `loss_fn` after the parameters:

- `()`, the default, for a `loss_fn` of the parameters alone;
- a tuple, one batch: `(x, y)`. With `batch_size` its leading axis is cut into batches of that size,
  the last one smaller;
- any other iterable of such tuples (a list, a data loader): many batches.

`loss_fn` is a mean over its batch, so that the mean over batches, weighted by size, is the loss of
all the data. A batch's size is the length of the leading axis of its arrays; scalars and keys,
which have none, go to each batch whole. Each shape of batches is compiled once.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import checks
from gradtx.core.paths import leaves_by_path
from gradtx.core.types import Scalar, Tree

LossFn = Callable[..., Scalar]
"""A function of the parameters and a batch to the mean loss."""
Batch = tuple[Tree, ...]
"""The arguments of `loss_fn` after the parameters."""
Data = list[tuple[Batch, float]]
"""Batches, with their shares of all the data."""


def gather(loss_fn: LossFn, batches: Tree, batch_size: int | None = None) -> Data:
    """Batches with their shares; an error if `loss_fn` takes another number of arguments."""
    data = _gathered(batches, batch_size)
    try:
        signature = inspect.signature(loss_fn)
    except (TypeError, ValueError):  # some callables written in C tell nothing
        return data
    try:
        signature.bind(None, *data[0][0])
    except TypeError as error:
        raise checks.WrongType(
            f"loss_fn cannot be called with the parameters and the {len(data[0][0])} arguments of a batch: "
            f"{error}. A batch is a tuple of the arguments after the parameters: (batch,) for loss_fn(params, batch), (x, y) for "
            "loss_fn(params, x, y), () for loss_fn(params)."
        ) from None
    return data


def _gathered(batches: Tree, batch_size: int | None) -> Data:
    if isinstance(batches, tuple):
        if batch_size is None:
            if any(np.ndim(x) and not np.shape(x)[0] for x in jax.tree.leaves(batches)):
                raise checks.WrongValue("batches is a batch without examples: an array has a leading axis of 0.")
            return [(jax.tree.map(jnp.asarray, batches), 1.0)]
        batches = _cut(batches, batch_size)
    elif batch_size is not None:
        raise checks.WrongValue(f"batch_size is {batch_size}, but batches is {checks.kind(batches)}, cut already.")
    listed = _listed(batches)
    sizes = [_size(f"batches[{i}]", batch) for i, batch in enumerate(listed)]
    return [(jax.tree.map(jnp.asarray, batch), size / sum(sizes)) for batch, size in zip(listed, sizes, strict=True)]


def mean_over(data: Data, function: Callable[..., Tree]) -> Tree:
    """The mean of `function(*batch)`, a tree of arrays, over the batches, weighted by size.

    A loop in Python over compiled calls: XLA runs convolutions 20 times slower in a compiled loop
    on CPUs.
    """
    (first, share), *others = data
    total = function(*first)
    if not others:
        return total
    total = _scaled(total, share)
    for batch, share in others:
        total = _add_share(total, function(*batch), share)
    return total


@jax.jit
def _scaled(x: Tree, share: Scalar) -> Tree:
    return jax.tree.map(lambda x: x * share, x)


@jax.jit
def _add_share(total: Tree, x: Tree, share: Scalar) -> Tree:
    return jax.tree.map(lambda t, x: t + share * x, total, x)


def _listed(batches: Tree) -> list[Batch]:
    if isinstance(batches, (Mapping, str)) or hasattr(batches, "shape") or not isinstance(batches, Iterable):
        raise checks.WrongType(
            f"batches is {checks.kind(batches)}, expected a tuple of the arguments of loss_fn after the "
            "parameters, such as (x, y) or (x,), or an iterable of such tuples."
        )
    listed = list(batches)
    for i, batch in enumerate(listed):
        if not isinstance(batch, (tuple, list)):
            raise checks.WrongType(
                f"batches[{i}] is {checks.kind(batch)}, expected a tuple of the arguments of loss_fn after the "
                "parameters. One batch alone is a tuple, not a list: (x, y)."
            )
    if not listed:
        raise checks.WrongValue("batches is empty, expected at least one batch.")
    return [tuple(batch) for batch in listed]


def _cut(batch: Batch, size: int) -> list[Batch]:
    total = _size("batches", batch)
    rows = [slice(start, start + size) for start in range(0, total, size)]
    return [jax.tree.map(lambda x, rows=rows: x[rows] if np.ndim(x) else x, batch) for rows in rows]


def _size(name: str, batch: Batch) -> int:
    """How many examples a batch has."""
    lengths = {"/".join(path): np.shape(leaf)[0] for path, leaf in leaves_by_path(batch).items() if np.ndim(leaf)}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        found = ", ".join(f"{length} in `{path}`" for path, length in lengths.items()) or "no array with an axis"
        raise checks.WrongValue(f"{name} has {found}, expected arrays whose leading axes are equally long, the batch's size.")
    return next(iter(lengths.values()))
