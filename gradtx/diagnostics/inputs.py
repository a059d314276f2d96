"""What the measurements of a loss take: a loss, parameters, and trees like them."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import checks, domains
from gradtx.core.domains import Domain
from gradtx.core.numerics import is_tracer, promote
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.trees import check_no_module, is_inexact
from gradtx.core.types import Params, Tree
from gradtx.diagnostics.batches import LossFn
from gradtx.diagnostics.progress import Tick
from gradtx.tree.align import aligned

Key = Annotated[
    jax.Array | None, Domain("a random key, such as jax.random.key(0), or None", lambda x: x is None or hasattr(x, "dtype"))
]
"""A random key; None is `jax.random.key(0)`, the same numbers at each call."""

Samples = Annotated[
    int, Domain("a whole number >= 2", lambda x: isinstance(x, int) and not isinstance(x, bool) and x >= 2, numeric=True)
]
"""How many random draws an estimate with a standard error takes."""


def key_or_default(key: Key) -> jax.Array:
    """The key, or the default one."""
    return jax.random.key(0) if key is None else key


def real_params(params: Params) -> Tree:
    """Parameters in at least float32; a `TypeError` for leaves that are no real floating arrays."""
    check_no_module(params)
    for path, leaf in leaves_by_path(params).items():
        if not is_inexact(leaf) or jnp.iscomplexobj(leaf):
            raise checks.WrongType(
                f"params leaf `{'/'.join(path) or ROOT}` is {checks.kind(leaf)}, expected a real floating array. "
                "Pass the parameters alone (state.params of a TrainState, nnx.state(model, nnx.Param)); the rest goes into loss_fn."
            )
    if not any(np.size(leaf) for leaf in jax.tree.leaves(params)):
        raise checks.WrongValue("params has no elements, expected a tree of floating arrays.")
    return jax.tree.map(promote, params)


def like_params(name: str, tree: Tree, params: Params) -> Tree:
    """A tree that must have the structure and the shapes of the parameters, in their dtypes."""
    aligned({"params": params, name: tree}, shapes="equal")
    return jax.tree.map(lambda x, p: jnp.asarray(x).astype(p.dtype), tree, params)


@partial(jax.jit, static_argnums=0)
def loss_at(loss_fn: LossFn, params: Params, directions: tuple[Tree, ...], place: jax.Array, *batch: Tree) -> jax.Array:
    """`L(w + sum_i place_i d_i)` for one batch."""

    def moved(w: jax.Array, *ds: jax.Array) -> jax.Array:
        return w + sum(jnp.asarray(c, w.dtype) * d for c, d in zip(place, ds, strict=True))

    return scalar_loss(loss_fn)(jax.tree.map(moved, params, *directions), *batch)


def each(function: Callable[[jax.Array], Tree], rows: jax.Array, tick: Tick) -> Tree:
    """The trees that `function` gives for the rows of an array, stacked.

    A loop in Python runs it; inside `jit` a compiled one.
    """
    if is_tracer(rows):
        return jax.lax.map(function, rows)
    return jax.tree.map(lambda *xs: jnp.stack(xs), *[tick(function(row)) for row in rows])


def scalar_loss(loss_fn: LossFn) -> Callable[..., jax.Array]:
    """`loss_fn` with a `TypeError` for what is no scalar."""

    def loss(*args: Tree) -> jax.Array:
        value = loss_fn(*args)
        if not domains.is_real_scalar(value) or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            hint = " Was a pair (loss, aux) returned? Return the loss alone." if isinstance(value, tuple) else ""
            raise checks.WrongType(f"loss_fn gave {checks.kind(value)}, expected a real floating scalar, the mean loss.{hint}")
        return jnp.asarray(value)

    return loss
