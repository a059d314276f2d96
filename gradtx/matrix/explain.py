"""Where an optimizer sends each parameter, in words."""

import numpy as np

from gradtx.compose.partition import partition
from gradtx.core import checks, domains
from gradtx.core.pairs import Inner, as_transformation
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.types import Params
from gradtx.core.walk import everything
from gradtx.matrix.dimensions import axes_of, numbers_for
from gradtx.matrix.routing import matrix_axes, muon_labels, routes


def explain(tx: Inner, params: Params) -> str:
    """A table of where Muon sends each parameter, and why.

    Muon may be anywhere inside `tx`, and written by hand with `muon_labels`.

    Args:
      tx: a transformation with one `muon`, or one `partition` by `muon_labels`, in it.
      params: the parameters, or their shapes (`jax.eval_shape`).

    Returns:
      A table as text: path, shape, `muon` or `adam`, and the reason.

    Raises:
      ValueError: `tx` holds no `muon`, or more than one.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> print(gradtx.explain(gradtx.muon(0.02), {"mlp": {"kernel": jnp.ones((8, 24))}}))
      parameter   shape    to    why
      mlp/kernel  (8, 24)  muon  a matrix: inputs (0,), outputs (1,)
    """
    domains.check_argument("explain", "tx", tx, domains.TRANSFORMATION)
    labels = [one.param_labels for one in everything(as_transformation(tx)) if isinstance(one, partition)]
    found = [rule for rule in labels if isinstance(rule, muon_labels)]
    if len(found) != 1:
        raise ValueError(f"explain: tx has {len(found)} muon in it, expected one: {tx!r}.")
    numbers = found[0].axes
    rows = [("parameter", "shape", "to", "why")]
    with checks.calling("explain"):
        entries = numbers_for("weight_dimension_numbers", numbers, params)
        if isinstance(numbers, matrix_axes):
            reasons = [route.why for route in routes(numbers.compiled, params) if route.why != "masked"]
        else:
            reasons = ["given"] * len(entries)
    for (parts, leaf), entry, why in zip(leaves_by_path(params).items(), entries, reasons, strict=True):
        shape = tuple(np.shape(leaf))
        if entry is not None:
            batch, inputs, outputs = axes_of(entry, len(shape))
            blocks = f", {entry.output_blocks} blocks" if entry.output_blocks != 1 else ""
            blocks += f", {entry.input_blocks} blocks of inputs" if entry.input_blocks != 1 else ""
            why = f"{why}: inputs {inputs}, outputs {outputs}{f', batch {batch}' if batch else ''}{blocks}"
        rows.append(("/".join(parts) or ROOT, str(shape), "adam" if entry is None else "muon", why))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows)
