"""The picture of a coordinate check."""

from typing import TYPE_CHECKING

from gradtx.core.checked import checked
from gradtx.diagnostics.drawing import axes_for, finished, require, style_of
from gradtx.diagnostics.widths import CoordinateCheck

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@checked
def coordinate_check(found: CoordinateCheck, *, step: int = -1, ax: "Axes | None" = None) -> "Axes":
    """Mean magnitudes of activations against the width, a line for each; flat lines transfer.

    Args:
      found: what `gradtx.diagnostics.coordinate_check` gives.
      step: after which step; -1 is the last, 0 the start.
      ax: axes to draw on; None makes a figure.

    Returns:
      The axes.

    Raises:
      TypeError: something else.

    Example:
      >>> import numpy as np
      >>> from gradtx.diagnostics import CoordinateCheck, plots
      >>> sizes = np.array([[[1.0]], [[2.0]]])
      >>> found = CoordinateCheck(np.array([8, 16]), ("head",), sizes, np.ones((1, 1)))
      >>> plots.coordinate_check(found).get_xscale()
      'log'
    """
    require(found, "found", "coordinate_check", "widths", "names", "sizes", "slopes")
    ax = axes_for(ax)
    for i, name in enumerate(found.names):
        label = f"{name} ({found.slopes[step, i]:+.2f})"
        ax.plot(found.widths, found.sizes[:, step, i], marker="o", markersize=4, label=label, **style_of(i))
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    return finished(ax, "width", "mean magnitude (exponent of the width)", ["more than one"])
