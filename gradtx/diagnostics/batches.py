"""What a measurement averages over: one batch, many, or one that is cut; each counts by its size, none need be of the same size.

Where a function here takes `batches`, it takes the arguments of `loss_fn` after the parameters:

- `()`, the default, for a `loss_fn` of the parameters alone;
- a tuple, one batch: `(x, y)`. With `batch_size` its leading axis is cut into batches of that size, the last one smaller;
- any other iterable of such tuples (a list, a data loader): many batches.

`loss_fn` is a mean over its batch, so that the mean over batches, weighted by size, is the loss of all the data. A batch's size is
the length of the leading axis of its arrays; scalars and keys, which have none, go to each batch whole.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import checks
from gradtx.core.numerics import default_float
from gradtx.core.paths import leaves_by_path


class Group(NamedTuple):
    """Batches of one shape: their arguments with a leading axis of batches, and each one's share of all the data."""

    args: tuple[Any, ...]
    shares: jax.Array


Data = tuple[Group, ...]


def gather(batches: Any, batch_size: int | None = None) -> Data:
    """Batches, as the functions here take them, in as few groups as they have shapes."""
    if isinstance(batches, tuple):
        if batch_size is None:
            return (Group(jax.tree.map(lambda x: jnp.asarray(x)[None], batches), jnp.ones(1, default_float())),)
        batches = _cut(batches, batch_size)
    elif batch_size is not None:
        raise ValueError(f"{checks.where()}: batch_size is {batch_size}, but batches is {checks.kind(batches)}, cut already.")
    return _grouped(_listed(batches))


def mean_over(data: Data, function: Callable[..., Any]) -> Any:
    """The mean of `function(*batch)`, a tree of arrays, over the batches, weighted by size; one batch at a time."""
    one = jax.tree.map(lambda x: x[0], data[0].args)
    total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *one))

    def add(total: Any, group: Group) -> tuple[Any, None]:
        return jax.tree.map(lambda t, x: t + group.shares.astype(t.dtype) * x, total, function(*group.args)), None

    for group in data:
        total, _ = jax.lax.scan(add, total, group)
    return total


def _listed(batches: Any) -> list[tuple[Any, ...]]:
    if isinstance(batches, (Mapping, str)) or hasattr(batches, "shape") or not isinstance(batches, Iterable):
        raise TypeError(
            f"{checks.where()}: batches is {checks.kind(batches)}, expected a tuple of the arguments of loss_fn after the "
            "parameters, such as (x, y) or (x,), or an iterable of such tuples."
        )
    listed = list(batches)
    for i, batch in enumerate(listed):
        if not isinstance(batch, (tuple, list)):
            raise TypeError(
                f"{checks.where()}: batches[{i}] is {checks.kind(batch)}, expected a tuple of the arguments of loss_fn after the "
                "parameters. One batch alone is a tuple, not a list: (x, y)."
            )
    if not listed:
        raise ValueError(f"{checks.where()}: batches is empty, expected at least one batch.")
    return [tuple(batch) for batch in listed]


def _cut(batch: tuple[Any, ...], size: int) -> list[tuple[Any, ...]]:
    total = _size("batches", batch)
    rows = [slice(start, start + size) for start in range(0, total, size)]
    return [jax.tree.map(lambda x, rows=rows: x[rows] if np.ndim(x) else x, batch) for rows in rows]


def _grouped(batches: list[tuple[Any, ...]]) -> Data:
    sizes = [_size(f"batches[{i}]", batch) for i, batch in enumerate(batches)]
    alike: dict[Any, list[int]] = {}
    for i, batch in enumerate(batches):
        leaves, treedef = jax.tree.flatten(batch)
        alike.setdefault((treedef, *((np.shape(x), jnp.result_type(x)) for x in leaves)), []).append(i)
    return tuple(
        Group(
            jax.tree.map(lambda *xs: jnp.stack(xs), *(batches[i] for i in rows)),
            jnp.asarray([sizes[i] / sum(sizes) for i in rows], default_float()),
        )
        for rows in alike.values()
    )


def _size(name: str, batch: tuple[Any, ...]) -> int:
    """How many examples a batch has."""
    lengths = {"/".join(path): np.shape(leaf)[0] for path, leaf in leaves_by_path(batch).items() if np.ndim(leaf)}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        found = ", ".join(f"{length} in `{path}`" for path, length in lengths.items()) or "no array with an axis"
        raise ValueError(
            f"{checks.where()}: {name} has {found}, expected arrays whose leading axes are equally long, the batch's size."
        )
    return next(iter(lengths.values()))
