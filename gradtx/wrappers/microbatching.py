"""Functions of a large batch in the memory of a small one, in Optax's form.

`gradtx.microbatched` does so for `jax.value_and_grad` in one line.
"""

import dataclasses
import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.core import checks
from gradtx.core.leaves import in_dtypes_of
from gradtx.core.numerics import compute_dtype
from gradtx.core.types import Leaf, Scalar, Tree

Function = Callable[..., Tree]


@dataclasses.dataclass(frozen=True)
class Accumulator:
    """What becomes of the outputs of microbatches.

    Attributes:
      init: from the shapes and dtypes of one output to the first carry.
      update: from carry, output and index of a microbatch to the next carry.
      finalize: from the last carry to the result.
      aggregate: from the outputs of one microbatch's examples, on axis 0, to one output; for
        `micro_vmap`.
    """

    init: Callable[[Tree], Tree]
    update: Callable[[Tree, Tree, Scalar], Tree]
    finalize: Callable[[Tree], Tree]
    aggregate: Callable[[Tree], Tree]


class AccumulationType(enum.Enum):
    """Usual accumulators."""

    MEAN = enum.auto()
    """The mean over all microbatches."""
    SUM = enum.auto()
    """The sum over microbatches."""
    RUNNING_MEAN = enum.auto()
    """The mean over the microbatches that ran."""
    CONCAT = enum.auto()
    """All outputs along axis 0, in the order of the batch."""


Accumulators = Tree
"""An `Accumulator` or an `AccumulationType`, or a tree of them that is a prefix of the output."""


def reshape_batch_axis(tree: Tree, microbatch_size: int, axis: int = 0) -> Tree:
    """A batch axis as two: microbatches, then the examples of one.

    Of `n` microbatches, the first has the examples 0, n, 2n, ...: each device's share of a batch
    that is sharded gives as many examples to each microbatch.

    Args:
      tree: tree of arrays with that axis.
      microbatch_size: examples of a microbatch; it divides the axis.
      axis: the batch axis, >= 0.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> optax.microbatching.reshape_batch_axis(jnp.arange(6), 2)
      Array([[0, 3],
             [1, 4],
             [2, 5]], dtype=int32)
    """

    def reshaped(x: jax.Array) -> jax.Array:
        count, rest = x.shape[axis] // microbatch_size, x.shape[axis + 1 :]
        shape, sharding = (*x.shape[:axis], microbatch_size, count, *rest), jax.typeof(x).sharding
        if not any(sharding.spec):
            return x.reshape(shape).swapaxes(axis, axis + 1)
        spec = (*sharding.spec, *(None,) * (x.ndim - len(sharding.spec)))
        placed = NamedSharding(sharding.mesh, PartitionSpec(*spec[: axis + 1], None, *spec[axis + 1 :]))
        return x.reshape(shape, out_sharding=placed).swapaxes(axis, axis + 1)

    return jax.tree.map(reshaped, tree)


def _batch_again(x: jax.Array) -> jax.Array:
    """The outputs of microbatches in the order of the batch."""
    x = x.swapaxes(0, 1)
    sharding, shape = jax.typeof(x).sharding, (x.shape[0] * x.shape[1], *x.shape[2:])
    if not any(sharding.spec):
        return x.reshape(shape)
    spec = (*sharding.spec, *(None,) * (x.ndim - len(sharding.spec)))
    return x.reshape(shape, out_sharding=NamedSharding(sharding.mesh, PartitionSpec(spec[0], *spec[2:])))


def _wide_zeros(s: Leaf) -> jax.Array:
    return jnp.zeros_like(s, dtype=compute_dtype(s.dtype) if jnp.issubdtype(s.dtype, jnp.inexact) else s.dtype)


def _usual(kind: AccumulationType, count: int, like: Tree) -> Accumulator:
    """A usual accumulator for outputs like these; sums run in at least float32."""

    def mapped(function: Callable[..., jax.Array]) -> Callable[..., Tree]:
        return lambda *trees: jax.tree.map(function, *trees)

    if kind is AccumulationType.CONCAT:
        return Accumulator(
            mapped(lambda s: jnp.broadcast_to(jnp.zeros_like(s), (count, *s.shape))),
            lambda carry, value, i: jax.tree.map(lambda c, v: c.at[i].set(v), carry, value),
            mapped(_batch_again),
            lambda values: values,
        )
    if kind is not AccumulationType.SUM and not all(jnp.issubdtype(s.dtype, jnp.inexact) for s in jax.tree.leaves(like)):
        raise checks.WrongType(f"the accumulator is {kind.name}, but an output is no floating array; sum it, or concatenate.")
    add = mapped(lambda c, v: c + v.astype(c.dtype))
    if kind is AccumulationType.SUM:
        return Accumulator(
            mapped(_wide_zeros),
            lambda c, v, i: add(c, v),
            lambda c: in_dtypes_of(c, like),
            mapped(lambda x: jnp.sum(x, axis=0, dtype=x.dtype)),
        )
    mean = mapped(lambda x: jnp.mean(x, axis=0))
    if kind is AccumulationType.MEAN:
        return Accumulator(
            mapped(_wide_zeros), lambda c, v, i: add(c, v), lambda c: in_dtypes_of(jax.tree.map(lambda x: x / count, c), like), mean
        )
    return Accumulator(
        mapped(_wide_zeros),
        lambda c, v, i: jax.tree.map(lambda a, b: a + (b.astype(a.dtype) - a) / (i + 1), c, v),
        lambda c: in_dtypes_of(c, like),
        mean,
    )


def _resolved(accumulator: Accumulators, count: int, like: Tree) -> Accumulator:
    """One accumulator for the whole output, from a prefix of it."""

    def one(kind: object, part: Tree) -> Accumulator:
        if isinstance(kind, Accumulator):
            return kind
        if not isinstance(kind, AccumulationType):
            raise checks.WrongType(f"accumulator is {checks.kind(kind)}, expected an Accumulator or an AccumulationType.")
        return _usual(kind, count, part)

    each, treedef = jax.tree.flatten(accumulator)
    own = [one(kind, part) for kind, part in zip(each, treedef.flatten_up_to(like), strict=True)]

    def over(method: str, *trees: Tree, last: tuple = ()) -> Tree:
        columns = [treedef.flatten_up_to(tree) for tree in trees]
        return treedef.unflatten([getattr(a, method)(*row, *last) for a, *row in zip(own, *columns, strict=True)])

    return Accumulator(
        lambda value: over("init", value),
        lambda carry, value, i: over("update", carry, value, last=(i,)),
        lambda carry: over("finalize", carry),
        lambda values: over("aggregate", values),
    )


def microbatch(
    fun: Function,
    argnums: int | Sequence[int],
    microbatch_size: int | None,
    accumulator: Accumulators = AccumulationType.SUM,
    *,
    argnames: str | Sequence[str] = (),
    in_axes: int | Sequence[int] = 0,
    num_real_microbatches: Scalar | None = None,
) -> Function:
    """A function of a batch, evaluated on one microbatch after another.

    Args:
      fun: the function.
      argnums: which of its arguments have a batch axis.
      microbatch_size: examples of a microbatch; it divides the batch. None is `fun` itself.
      accumulator: what becomes of the outputs: an `AccumulationType`, an `Accumulator`, or a tree
        of them that is a prefix of the output.
      argnames: which arguments by name have a batch axis.
      in_axes: the batch axis of each, those of `argnums` first; or one for all.
      num_real_microbatches: how many microbatches run; None is all. It may be a tracer.

    Returns:
      A function with the arguments of `fun`.

    Raises:
      ValueError: batch axes differ in size, or `microbatch_size` does not divide them.
      TypeError: the mean of an output that is no floating array.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> total = optax.microbatch(lambda x: jnp.sum(3 * x), 0, microbatch_size=2)
      >>> int(total(jnp.arange(1, 5)))
      30

    **Differs:** sums of half-precision outputs run in float32.
    """
    if microbatch_size is None:
        return fun
    size: int = microbatch_size
    places: list[int | str] = [*((argnums,) if isinstance(argnums, int) else argnums)]
    places += [argnames] if isinstance(argnames, str) else list(argnames)
    axes = (in_axes,) * len(places) if isinstance(in_axes, int) else tuple(in_axes)

    def whole(*args: Tree, **kwargs: Tree) -> Tree:
        given = {**dict(enumerate(args)), **kwargs}
        count = _microbatches([given[place] for place in places], axes, size)
        cut = {place: reshape_batch_axis(given[place], size, axis) for place, axis in zip(places, axes, strict=True)}

        def part(index: Scalar) -> Tree:
            own = dict(given)
            for place, axis in zip(places, axes, strict=True):
                own[place] = jax.tree.map(lambda x, axis=axis: jnp.take(x, index, axis=axis), cut[place])
            return fun(*(own[i] for i in range(len(args))), **{name: own[name] for name in kwargs})

        like = jax.eval_shape(part, 0)
        rule = _resolved(accumulator, count, like)
        bound = count if num_real_microbatches is None else num_real_microbatches
        return rule.finalize(jax.lax.fori_loop(0, bound, lambda i, c: rule.update(c, part(i), i), rule.init(like)))

    return whole


def _microbatches(batches: list[Tree], axes: Sequence[int], size: int) -> int:
    """How many microbatches there are."""
    sizes = {x.shape[axis] for batch, axis in zip(batches, axes, strict=True) for x in jax.tree.leaves(batch)}
    if len(sizes) != 1:
        raise checks.WrongValue(f"microbatch: batch axes have the sizes {sorted(sizes)}, expected one size.")
    if (batch := sizes.pop()) % size:
        raise checks.WrongValue(f"microbatch: microbatch_size is {size}, expected a divisor of the batch's {batch} examples.")
    return batch // size


def micro_vmap(
    fun: Function,
    in_axes: int | Sequence[int | None] | None = 0,
    out_axes: int = 0,
    *,
    microbatch_size: int | None = None,
    vmap_fn: Callable[..., Function] = jax.vmap,
    accumulator: Accumulators = AccumulationType.CONCAT,
    num_real_microbatches: Scalar | None = None,
) -> Function:
    """`jax.vmap` by microbatches, whose outputs may be summed at once.

    Args:
      fun: function of one example.
      in_axes: the batch axis of each argument, or None; or one for all. Arguments by name have it
        first.
      out_axes: 0; others are not there yet.
      microbatch_size: examples of a microbatch; None is all.
      vmap_fn: what to call in the place of `jax.vmap`.
      accumulator: what becomes of the outputs; see `microbatch`.
      num_real_microbatches: how many microbatches run; None is all.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> optax.microbatching.micro_vmap(lambda x: x**2, microbatch_size=2)(jnp.arange(6))
      Array([ 0,  1,  4,  9, 16, 25], dtype=int32)
    """
    if out_axes != 0:
        raise NotImplementedError(f"micro_vmap: out_axes is {out_axes}, expected 0.")
    axes = (in_axes,) if isinstance(in_axes, int) or in_axes is None else tuple(in_axes)

    def one_microbatch(*args: Tree, kwargs: Tree) -> Tree:
        outputs = vmap_fn(fun, axes, out_axes)(*args, **kwargs)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), outputs)
        return _resolved(accumulator, 1, like).aggregate(outputs)

    batched = microbatch(
        one_microbatch,
        tuple(i for i, axis in enumerate(axes) if axis is not None),
        microbatch_size,
        accumulator,
        argnames="kwargs",
        in_axes=(*(axis for axis in axes if axis is not None), 0),
        num_real_microbatches=num_real_microbatches,
    )
    return lambda *args, **kwargs: batched(*args, kwargs=kwargs)


class IndividualOutputs(NamedTuple):
    """What `micro_grad` gives of each example: the loss, the metrics, what else it returned."""

    values: Tree
    metrics: Tree
    aux: Tree


def micro_grad(
    fun: Function,
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
    *,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    microbatch_size: int | None = None,
    accumulator: Accumulators = AccumulationType.SUM,
    transform_fn: Callable[[Tree], Tree] = lambda x: x,
    metrics_fn: Callable[[Tree], Tree] = lambda x: None,
    num_real_microbatches: Scalar | None = None,
) -> Callable[..., tuple[Tree, IndividualOutputs]]:
    """The gradient of each example, changed, measured and then summed, by microbatches.

    Args:
      fun: loss of a batch, `fun(params, batch, ...)`.
      has_aux: whether it gives `(loss, aux)`.
      argnums: the arguments to differentiate by.
      batch_argnums: the arguments that have a batch axis, which is their first.
      keep_batch_dim: whether `fun` gets each example as a batch of one; else it has no batch axis.
      microbatch_size: examples of a microbatch; None is all.
      accumulator: what becomes of the gradients; see `microbatch`.
      transform_fn: what to do with the gradient of one example, such as clipping.
      metrics_fn: what to measure of it before.
      num_real_microbatches: how many microbatches run; None is all.

    Returns:
      A function with the arguments of `fun` that gives the accumulated gradients, and
      `IndividualOutputs(values, metrics, aux)`, each with an axis of examples.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> loss = lambda w, x: jnp.mean((w * x) ** 2)
      >>> grad, each = optax.microbatching.micro_grad(loss, microbatch_size=2)(1.0, jnp.arange(4.0))
      >>> float(grad), each.values.tolist()
      (28.0, [0.0, 1.0, 4.0, 9.0])
    """
    batches = (batch_argnums,) if isinstance(batch_argnums, int) else tuple(batch_argnums)
    with_aux = fun if has_aux else lambda *args, **kwargs: (fun(*args, **kwargs), None)
    value_and_grad = jax.value_and_grad(with_aux, argnums, has_aux=True)

    def of_example(*args: Tree, **kwargs: Tree) -> tuple[Tree, IndividualOutputs]:
        (value, aux), grad = value_and_grad(*args, **kwargs)
        return transform_fn(grad), IndividualOutputs(value, metrics_fn(grad), aux)

    micro = micro_vmap(
        of_example,
        [0 if i in batches else None for i in range(max(batches) + 1)],
        accumulator=(accumulator, AccumulationType.CONCAT),
        microbatch_size=microbatch_size,
        num_real_microbatches=num_real_microbatches,
    )
    if not keep_batch_dim:
        return micro

    def of_batches(*args: Tree, **kwargs: Tree) -> tuple[Tree, IndividualOutputs]:
        ones = [jax.tree.map(lambda x: jnp.expand_dims(x, 1), arg) if i in batches else arg for i, arg in enumerate(args)]
        return micro(*ones, **kwargs)

    return of_batches
