"""Coordinate checks: whether activations keep their size in wider models, as training begins."""

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import checks
from gradtx.core.apply import apply_updates
from gradtx.core.checked import checked
from gradtx.core.domains import Domain, Function, PositiveInt
from gradtx.core.pairs import Inner, as_transformation
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.types import Params, Tree
from gradtx.tree.arithmetic import conj

Model = tuple[Inner, Params, Callable[[Params], tuple[jax.Array, Tree]]]
"""An optimizer, parameters, and their loss with activations beside it."""


def _are_widths(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or not all(isinstance(x, int) and x > 0 for x in value):
        return False
    return len(set(value)) > 1


Widths = Annotated[Sequence[int], Domain("two or more different whole numbers >= 1", _are_widths)]


class CoordinateCheck(NamedTuple):
    """Sizes of K activations in W widths, at the start and after each of T steps.

    Attributes:
      widths: (W,).
      names: the paths of the activations, K of them.
      sizes: mean magnitudes, (W, T + 1, K).
      slopes: exponents of the width that they follow, by least squares, (T + 1, K): 0 where a size
        does not depend on the width.
    """

    widths: np.ndarray
    names: tuple[str, ...]
    sizes: np.ndarray
    slopes: np.ndarray


@checked
def coordinate_check(build: Function, widths: Widths, steps: PositiveInt = 3) -> CoordinateCheck:
    """Trains a model for a few steps in several widths, and measures its activations.

    Under a parametrization whose learning rates transfer, mean magnitudes of activations do not
    depend on the width, before and after every step. Take a large learning rate, so that a fault
    shows.

    Args:
      build: function from a width to `(tx, params, loss_fn)`; `loss_fn(params)` gives the loss of a
        fixed batch, and a tree of activations.
      widths: at least two.
      steps: how many, >= 1.

    Returns:
      `CoordinateCheck(widths, names, sizes, slopes)`; `plots.coordinate_check` draws it.

    Raises:
      TypeError: `build` gives something else.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> from gradtx import diagnostics
      >>> def build(width):
      ...     params = {"in": jnp.ones((1, width)), "out": jnp.zeros((width, 1))}
      ...     def loss(p):
      ...         hidden = jnp.ones((4, 1)) @ p["in"]
      ...         out = hidden @ p["out"]
      ...         return jnp.mean((out - 1) ** 2), {"hidden": hidden, "out": out}
      ...     return gradtx.adam(0.01), params, loss
      >>> found = diagnostics.coordinate_check(build, [8, 16, 32], steps=1)
      >>> found.names
      ('hidden', 'out')
      >>> found.slopes[1].round(2).tolist()  # Adam's step on `out` is of one size in all widths
      [0.0, 1.0]

    Source: Yang et al. 2022, arXiv:2203.03466, appendix D.1.
    """
    sizes, names = [], ()
    for width in widths:
        names, rows = _trained(build(width), steps)
        sizes.append(rows)
    table = np.asarray(sizes, np.float64)
    logs = np.log(np.maximum(table, np.finfo(np.float64).tiny))
    x = np.log(np.asarray(widths, np.float64))
    x = x - x.mean()
    slopes = np.einsum("w,wtk->tk", x, logs) / np.sum(x**2)
    constant = np.all(table == 0, axis=0)
    return CoordinateCheck(np.asarray(widths), names, table, np.where(constant, 0.0, slopes))


def _trained(model: Model, steps: int) -> tuple[tuple[str, ...], list[list[float]]]:
    """The names of the activations, and their mean magnitudes before and after each step."""
    if not isinstance(model, tuple) or len(model) != 3 or not checks.is_transformation(model[0]) or not callable(model[2]):
        raise checks.WrongType(f"build gave {checks.kind(model)}, expected a tuple (tx, params, loss_fn).")
    tx, (_, params, loss_fn) = as_transformation(model[0]), model
    found = jax.eval_shape(loss_fn, params)
    if not isinstance(found, tuple) or len(found) != 2:
        raise checks.WrongType(f"loss_fn gave {checks.kind(found)}, expected a pair (loss, activations).")

    @jax.jit
    def step(params: Params, state: Tree) -> tuple[Params, Tree, list[jax.Array]]:
        (_, seen), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, state = tx.update(conj(grads), state, params)
        return apply_updates(params, updates), state, [jnp.mean(jnp.abs(x)) for x in jax.tree.leaves(seen)]

    names = tuple("/".join(parts) or ROOT for parts in leaves_by_path(found[1]))
    state, rows = tx.init(params), []
    for _ in range(steps + 1):
        params, state, sizes = step(params, state)
        rows.append([float(size) for size in sizes])
    return names, rows
