"""Where an optimizer sends each parameter, in words."""

from typing import Any

import numpy as np

from gradtx.compose.labels import compile_patterns
from gradtx.compose.matrices import axes_of, matrix_axes, numbers_for, routes
from gradtx.core import checks
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.transformation import as_transformation, everything
from gradtx.optimizers.muon import muon


def explain(tx: Any, params: Any) -> str:
    """A table of where `muon` sends each parameter, and why; `muon` may be anywhere inside `tx`.

    Args:
      tx: a transformation with one `muon` in it.
      params: the parameters, or their shapes (`jax.eval_shape`).

    Returns:
      A table as text: path, shape, `muon` or `adam`, and the reason.

    Raises:
      ValueError: `tx` holds no `muon`, or more than one.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> print(gradtx.explain(gradtx.muon(0.02), {"attn": {"qkv": {"kernel": jnp.ones((8, 24))}}}))
      parameter        shape    to    why
      attn/qkv/kernel  (8, 24)  muon  query, key and value, by the name 'qkv': inputs (0,), outputs (1,), 3 blocks
    """
    checks.check_argument("explain", "tx", tx, checks.TRANSFORMATION)
    found = [one for one in everything(as_transformation(tx)) if isinstance(one, muon)]
    if len(found) != 1:
        raise ValueError(f"explain: tx has {len(found)} muon in it, expected one: {tx!r}.")
    numbers = found[0].muon_weight_dimension_numbers
    numbers = matrix_axes() if numbers is None else numbers
    rows = [("parameter", "shape", "to", "why")]
    with checks.calling("explain"):
        entries = numbers_for("muon_weight_dimension_numbers", numbers, params)
        if isinstance(numbers, matrix_axes):
            rules = compile_patterns("matrix_axes", numbers.rules or {})
            reasons = [route.why for route in routes(rules, params) if route.why != "masked"]
        else:
            reasons = ["given"] * len(entries)
    for (parts, leaf), entry, why in zip(leaves_by_path(params).items(), entries, reasons, strict=True):
        shape = tuple(np.shape(leaf))
        if entry is not None:
            batch, inputs, outputs = axes_of(entry, len(shape))
            blocks = f", {entry.output_blocks} blocks" if entry.output_blocks > 1 else ""
            why = f"{why}: inputs {inputs}, outputs {outputs}{f', batch {batch}' if batch else ''}{blocks}"
        rows.append(("/".join(parts) or ROOT, str(shape), "adam" if entry is None else "muon", why))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows)
