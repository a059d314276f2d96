"""What the pictures share: axes, styles, legends, and checks of what is drawn."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gradtx.core import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import MaxNLocator

T = TypeVar("T")

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# 6 kinds of dashes against 7 colors: 42 lines differ.
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 2, 1, 2)), (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1)))
WIDTH = 1.8


def axes_for(ax: "Axes | None", projection: str | None = None) -> "Axes":
    """The axes given, or those of a new figure."""
    if ax is not None:
        if not hasattr(ax, "plot"):
            raise checks.WrongType(f"ax is {checks.kind(ax)}, expected axes of matplotlib, such as plt.figure().add_subplot().")
        if projection is None and getattr(ax, "name", None) == "3d":
            raise checks.WrongType("ax has three dimensions, expected flat axes; a landscape with surface=True takes these.")
        if projection == "3d" and getattr(ax, "name", None) != "3d":
            raise checks.WrongType(
                f"ax is {checks.kind(ax)}, expected one made with projection='3d' for a surface, "
                "such as figure.add_subplot(projection='3d')."
            )
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise checks.NotInstalled("needs matplotlib, which is not installed: pip install gradtx[plot].") from error
    return plt.figure(figsize=(6.4, 4.4), layout="constrained").add_subplot(projection=projection)


def style_of(i: int) -> dict[str, Any]:
    """Color and dashes of the i-th line."""
    return {"color": COLORS[i % len(COLORS)], "linestyle": DASHES[i % len(DASHES)], "linewidth": WIDTH}


def named_of(argument: str, value: T | Mapping[str, T], what: str) -> dict[str, T]:
    """A mapping from names, or one nameless thing."""
    named = dict(value) if isinstance(value, Mapping) else {"": value}
    if not named:
        raise checks.WrongValue(f"{argument} is empty, expected {what}.")
    return named


def finished(ax: "Axes", xlabel: str, ylabel: str, names: Iterable[str] = ()) -> "Axes":
    """Labels, a light grid, and a legend beside the data where there is more than one name."""
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(True, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if any(names):
        makes_room = ax.figure.get_layout_engine() is not None
        beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.0, "frameon": False}
        ax.legend(handlelength=3, **(beside if makes_room else {"loc": "best", "framealpha": 0.8}))
    return ax


def ticks(most: int) -> "MaxNLocator":
    """A locator of at most so many ticks."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most)


def require(value: object, argument: str, maker: str, *fields: str) -> None:
    """Raises for what has not the fields of the diagnostics' results."""
    if not all(hasattr(value, field) for field in fields):
        raise checks.WrongType(
            f"{argument} is {checks.kind(value)}, expected what gradtx.diagnostics.{maker} gives"
            f"{'' if maker in ('landscape_2d', 'lr_range_test') else ', or a dict of it by name'}."
        )


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Means over the last `width` columns, or over as many as there are."""
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
    ends = np.arange(1, values.shape[1] + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[:, ends] - sums[:, starts]) / (ends - starts)


def last_of(values: np.ndarray) -> float:
    """The mean of the last column; inf where it is not finite."""
    last = float(values.mean(0)[-1])
    return last if math.isfinite(last) else math.inf
