"""What learning rates are multiplied by in a wider model: muP's rules, from two models' shapes."""

import math
from typing import Annotated

import jax
import numpy as np

from gradtx.core import checks
from gradtx.core.checked import checked
from gradtx.core.domains import one_of
from gradtx.core.paths import structure_difference
from gradtx.core.types import Params, Tree
from gradtx.matrix.dimensions import MatrixRule, fan, numbers_for
from gradtx.matrix.routing import matrix_axes

Rule = Annotated[str, one_of("adam", "sgd")]


@checked
def mup_multipliers(
    params: Params, base_params: Params, rule: Rule = "adam", weight_dimension_numbers: MatrixRule | None = None
) -> Tree:
    """Multipliers of the learning rates of a model, so that those of a narrower one hold for it.

    Of a matrix whose inputs and outputs both grew, `1/(growth of inputs)` under Adam and all else
    1; under SGD, `growth of outputs / growth of inputs`, and for all else its own growth. For
    `scale_by_path`, after an optimizer's direction. The model itself divides the output of its head
    by the growth, and its first variances by the inputs.

    Args:
      params: the model's parameters, or their shapes.
      base_params: those of the model whose rates are known; a tree of the same structure.
      rule: 'adam', for all methods whose steps do not depend on the gradient's size, or 'sgd'.
      weight_dimension_numbers: what is a matrix: `matrix_axes({...})` with rules of your own, or a
        tree of `MuonDimensionNumbers` with None where a parameter is none, or a function from the
        parameters to one. None is `matrix_axes()`.

    Returns:
      A tree of floats like `params`.

    Raises:
      ValueError: the trees differ, a parameter has another number of axes, or one of three or more
        axes has no rule.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> shapes = lambda n: {"up": jnp.zeros((n, 4 * n)), "bias": jnp.zeros(4 * n)}
      >>> gradtx.mup_multipliers(shapes(256), shapes(64))
      {'bias': 1.0, 'up': 0.25}
      >>> gradtx.mup_multipliers(shapes(256), shapes(64), "sgd")
      {'bias': 4.0, 'up': 1.0}

    Source: Yang et al. 2022, arXiv:2203.03466, table 8; https://github.com/microsoft/mup,
    `optim.py`.
    """
    leaves, treedef = jax.tree.flatten(params)
    base, other = jax.tree.flatten(base_params)
    if treedef != other:
        raise checks.WrongValue(f"{structure_difference('base_params', base_params, 'params', params)}.")
    axes = matrix_axes() if weight_dimension_numbers is None else weight_dimension_numbers
    multipliers = []
    for entry, leaf, small in zip(numbers_for("weight_dimension_numbers", axes, params), leaves, base, strict=True):
        new, old = np.shape(leaf), np.shape(small)
        if len(new) != len(old):
            raise checks.WrongValue(f"base_params has a leaf of shape {old} where params has {new}, expected as many axes.")
        grown = math.prod(new) / (math.prod(old) or 1)
        inputs, outputs = (1.0, grown) if entry is None else (n / k for n, k in zip(fan(entry, new), fan(entry, old), strict=True))
        hidden = inputs != 1 and outputs != 1
        if rule == "adam":
            multipliers.append(1 / inputs if hidden else 1.0)
        else:
            multipliers.append(outputs / inputs if hidden else inputs * outputs)
    return treedef.unflatten(multipliers)
