"""Pictures of what the diagnostics measure.

Each function takes an `ax` of matplotlib, or makes one, draws on it and returns it. Names stand
beside the axes where the figure makes room for them (`plt.subplots(..., layout="constrained")`, as
figures made here do), else where they cover least.

Colors are told apart by all kinds of color vision (Okabe and Ito 2008; maps: viridis), and lines by
dashes too. Needs the extra `plot`: `pip install gradtx[plot]`.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.core import checks, domains
from gradtx.core.checked import checked
from gradtx.core.domains import Flag, PositiveInt, ScalarOrSchedule
from gradtx.diagnostics.curvature import BANDWIDTH, POINTS, SpectralDensity, blurred
from gradtx.diagnostics.drawing import COLORS, DASHES, axes_for, finished, last_of, named_of, require, running_mean, style_of, ticks
from gradtx.diagnostics.landscape import Landscape1D, Landscape2D
from gradtx.diagnostics.lr_range import LearningRates
from gradtx.diagnostics.widths_drawn import coordinate_check

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "comparison",
    "coordinate_check",
    "landscape_1d",
    "landscape_2d",
    "lr_range_test",
    "schedules",
    "singular_values",
    "spectrum",
]
LEVELS = 14


@checked
def schedules(
    schedule: ScalarOrSchedule | Mapping[str, ScalarOrSchedule], steps: PositiveInt, *, ax: "Axes | None" = None
) -> "Axes":
    """Learning rates over steps 0 to `steps - 1`.

    Args:
      schedule: a schedule, a number, or a dict of them by name.
      steps: how many, as counted by the optimizer.
      ax: axes to draw on; None makes a figure.

    Returns:
      The axes.

    Raises:
      TypeError, ValueError: no schedule, or no steps.

    Example:
      >>> import gradtx
      >>> from gradtx.diagnostics import plots
      >>> cosine = gradtx.cosine_decay_schedule(0.1, 100)
      >>> ax = plots.schedules({"cosine": cosine, "constant": 0.05}, steps=100)
      >>> ax.get_xlabel(), ax.get_ylabel()
      ('step', 'learning rate')
    """
    named = named_of("schedule", schedule, "at least one schedule")
    counts, ax = np.arange(steps), axes_for(ax)
    for i, (name, one) in enumerate(named.items()):
        if callable(one):
            values = [float(domains.scheduled_value("schedule", one, count)) for count in counts]
        elif domains.is_real_scalar(one):
            values = np.full(steps, float(one))
        else:
            raise checks.WrongType(f"schedule is {checks.kind(one)}, expected a schedule, a number, or a dict of them by name.")
        ax.plot(counts, values, label=name, **style_of(i))
    if all(np.min(line.get_ydata()) >= 0 for line in ax.lines):
        ax.set_ylim(bottom=0)
    return finished(ax, "step", "learning rate", named)


@checked
def spectrum(density: SpectralDensity | Mapping[str, SpectralDensity], *, ax: "Axes | None" = None) -> "Axes":
    """The density of the Hessian's eigenvalues, of one model or of several, on a logarithmic scale.

    Args:
      density: what `spectral_density` gives, or a dict of it by name. Several are blurred anew by
        one width, 1 % of their range together: else the blur alone would make the narrower one
        higher.
      ax: axes to draw on; None makes a figure.

    Returns:
      The axes. Below 1e-6 of the highest density nothing is drawn.

    Raises:
      TypeError, ValueError: no density.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.diagnostics import plots, spectral_density
      >>> density = spectral_density(lambda w: jnp.sum(jnp.arange(5.0) * w**2), jnp.ones(5))
      >>> ax = plots.spectrum(density)
      >>> ax.get_xlabel(), ax.get_yscale()
      ('eigenvalue', 'log')
    """
    named = named_of("density", density, "at least one density")
    ax = axes_for(ax)
    for one in named.values():
        require(one, "density", "spectral_density", "nodes", "weights", "grid", "density")
    low, high = (f([float(f(one.nodes)) for one in named.values()]) for f in (np.min, np.max))
    width, highest = BANDWIDTH * (high - low), 0.0
    for i, (name, one) in enumerate(named.items()):
        anew = len(named) > 1 and width > 0
        grid, height = map(np.asarray, blurred(one.nodes, one.weights, width, POINTS) if anew else (one.grid, one.density))
        ax.plot(grid, height, label=name, **style_of(i))
        highest = max(highest, float(np.nanmax(height)))
    ax.set_yscale("log")
    ax.set_ylim(highest * 1e-6, highest * 3)
    return finished(ax, "eigenvalue", "density", named)


@checked
def landscape_1d(landscape: Landscape1D | Mapping[str, Landscape1D], *, ax: "Axes | None" = None) -> "Axes":
    """The loss along a line, of one model or of several; the parameters are at 0.

    Args:
      landscape: what `gradtx.diagnostics.landscape_1d` gives, or a dict of it by name.
      ax: axes to draw on; None makes a figure.

    Returns:
      The axes.

    Raises:
      TypeError, ValueError: no landscape.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import diagnostics
      >>> from gradtx.diagnostics import plots
      >>> line = diagnostics.landscape_1d(lambda w: jnp.sum(w**2), jnp.ones((2, 2)))
      >>> plots.landscape_1d(line).get_ylabel()
      'loss'
    """
    named = named_of("landscape", landscape, "at least one landscape")
    ax = axes_for(ax)
    ax.axvline(0, color="0.6", linewidth=0.8)
    for i, (name, one) in enumerate(named.items()):
        require(one, "landscape", "landscape_1d", "x", "loss")
        if np.ndim(one.loss) != 1:
            raise checks.WrongType(f"landscape is {checks.kind(one)}, a plane, expected a line; plots.landscape_2d draws it.")
        ax.plot(np.asarray(one.x), np.asarray(one.loss), label=name, **style_of(i))
    return finished(ax, "along the direction", "loss", named)


@checked
def landscape_2d(landscape: Landscape2D, *, ax: "Axes | None" = None, surface: Flag = False, log: Flag = False) -> "Axes":
    """The loss on a plane, as contours or a surface, with the path of training if it has one.

    Args:
      landscape: what `gradtx.diagnostics.landscape_2d` gives.
      ax: axes to draw on, with projection='3d' for a surface; None makes a figure.
      surface: whether to draw a surface in three dimensions.
      log: whether colors and heights follow the logarithm of the loss, which must be positive.

    Returns:
      The axes. Losses that are not finite are left blank. A path goes from the square to the
      circle; without one, a circle is at the parameters.

    Raises:
      TypeError, ValueError: no landscape; axes that are flat for a surface; a loss <= 0 with `log`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import diagnostics
      >>> from gradtx.diagnostics import plots
      >>> plane = diagnostics.landscape_2d(lambda w: jnp.sum(w**2), jnp.ones((2, 2)), points=9)
      >>> plots.landscape_2d(plane).get_xlabel()
      'first direction'
    """
    require(landscape, "landscape", "landscape_2d", "x", "y", "loss", "path")
    x, y, loss = (np.asarray(a, np.float64) for a in (landscape.x, landscape.y, landscape.loss))
    loss = np.ma.masked_invalid(loss)
    if log:
        if loss.min() <= 0:
            raise checks.WrongValue(f"the loss is as low as {loss.min():.3g}, expected > 0 for log=True.")
        loss = np.ma.log10(loss)
    label = "log10 of the loss" if log else "loss"
    path = None if landscape.path is None else np.asarray(landscape.path, np.float64)
    return (_surface if surface else _contours)(axes_for(ax, "3d" if surface else None), x, y, loss, label, path)


def _contours(ax: "Axes", x: np.ndarray, y: np.ndarray, loss: np.ma.MaskedArray, label: str, path: np.ndarray | None) -> "Axes":
    filled = ax.contourf(x, y, loss, levels=4 * LEVELS, cmap="viridis")
    filled.set_edgecolor("face")  # no seams between the colors in vector files
    if loss.max() > loss.min():
        ax.contour(x, y, loss, levels=LEVELS, colors="white", linewidths=0.5, linestyles="solid", alpha=0.6)
    bar = ax.figure.colorbar(filled, ax=ax, label=label)
    bar.ax.yaxis.set_major_locator(ticks(6))
    if path is None:
        ax.plot(0, 0, "o", color="white", markeredgecolor="black", markersize=6)
    else:
        ax.plot(*path.T, "-", color="white", linewidth=2.6)
        ax.plot(*path.T, ".-", color=COLORS[1], linewidth=1.4, markersize=5)
        ax.plot(*path[0], "s", color="white", markeredgecolor="black", markersize=7)
        ax.plot(*path[-1], "o", color="white", markeredgecolor="black", markersize=7)
    ax.set_xlabel("first direction")
    ax.set_ylabel("second direction")
    return ax


def _surface(ax: Any, x: np.ndarray, y: np.ndarray, loss: np.ma.MaskedArray, label: str, path: np.ndarray | None) -> "Axes":
    grid_x, grid_y = np.meshgrid(x, y)
    ax.plot_surface(
        grid_x, grid_y, loss.filled(np.nan), cmap="viridis", rstride=1, cstride=1, linewidth=0.15, edgecolor=(0, 0, 0, 0.25)
    )
    low, high = float(loss.min()), float(loss.max())
    floor = low - 0.25 * ((high - low) or 1.0)
    if high > low:
        ax.contour(grid_x, grid_y, loss.filled(np.nan), levels=LEVELS, zdir="z", offset=floor, cmap="viridis", linewidths=0.8)
    if path is not None:
        ax.plot(*path.T, zs=floor, zdir="z", color=COLORS[1], linewidth=1.6)
        for (end_x, end_y), marker in ((path[0], "s"), (path[-1], "o")):
            ax.plot([end_x], [end_y], marker, zs=floor, zdir="z", color="white", markeredgecolor="black", markersize=6)
    ax.set_zlim(floor, high if high > low else low + 1)
    ax.set_xlabel("first direction", labelpad=6)
    ax.set_ylabel("second direction", labelpad=8)
    ax.set_zlabel(label, labelpad=6)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_major_locator(ticks(4))
        axis.set_pane_color((1, 1, 1, 0))
    ax.view_init(elev=28, azim=-60)
    ax.set_box_aspect(None, zoom=0.9)  # so that the label of the loss is on the picture
    return ax


@checked
def comparison(
    losses: ArrayLike | Mapping[str, ArrayLike],
    *,
    ax: "Axes | None" = None,
    steps: ArrayLike | None = None,
    xlabel: str = "step",
    ylabel: str = "loss",
    log: Flag = True,
    smoothing: PositiveInt = 1,
) -> "Axes":
    """What optimizers reach over time: one line for each.

    Over seeds it is the mean, with a band of one standard deviation.

    Args:
      losses: dict from names to losses of shape (steps,) or (seeds, steps).
      ax: axes to draw on; None makes a figure.
      steps: where the losses were measured, the same for all; None is 1, 2, 3, ...
      xlabel: what is counted.
      ylabel: what is measured.
      log: whether the scale of the losses is logarithmic, where all are positive.
      smoothing: how many steps, up to the present one, are averaged.

    Returns:
      The axes. The names stand at the right, outside of the data, the best last value first.

    Raises:
      TypeError, ValueError: losses of another shape, or none.

    Example:
      >>> from gradtx.diagnostics import plots
      >>> ax = plots.comparison({"sgd": [1.0, 0.5, 0.4], "adam": [1.0, 0.3, 0.1]})
      >>> [text.get_text() for text in ax.get_legend().get_texts()]
      ['adam', 'sgd']
    """
    named = named_of("losses", losses, "at least one optimizer's losses")
    runs = {name: np.atleast_2d(np.asarray(values, np.float64)) for name, values in named.items()}
    for name, values in runs.items():
        if values.ndim != 2 or not values.size:
            at = f"losses[{name!r}]" if name else "losses"
            raise checks.WrongValue(f"{at} has shape {np.shape(named[name])}, expected (steps,) or (seeds, steps).")
    smooth = {name: running_mean(values, smoothing) for name, values in runs.items()}
    ax = axes_for(ax)
    styles = {name: style_of(i) for i, name in enumerate(named)}
    for name in sorted(named, key=lambda name: last_of(smooth[name])):
        values = smooth[name]
        mean = values.mean(0)
        places = np.arange(1, len(mean) + 1) if steps is None else np.asarray(steps)
        if places.shape != mean.shape:
            raise checks.WrongValue(f"steps has shape {places.shape}, expected {mean.shape}, as the losses of {name!r} have.")
        ax.plot(places, mean, label=name, **styles[name])
        if len(values) > 1:
            deviation = values.std(0, ddof=1)
            # A band has no end below on a logarithmic scale.
            lowest = mean[mean > 0].min(initial=np.inf) / 10 if log else -np.inf
            ax.fill_between(
                places, np.maximum(mean - deviation, lowest), mean + deviation, color=styles[name]["color"], alpha=0.15, linewidth=0
            )
    finite = np.concatenate([values[np.isfinite(values)] for values in smooth.values()])
    if log and finite.size and finite.min() > 0:
        ax.set_yscale("log")
        ax.set_ylim(finite.min() * 0.8, finite.max() * 1.25)
    return finished(ax, xlabel, ylabel, named)


@checked
def singular_values(updates: jax.Array | Mapping[str, jax.Array], *, ax: "Axes | None" = None) -> "Axes":
    """The singular values of matrices over the largest one.

    A gradient's has few large ones; those of Muon's updates are near 1.

    Args:
      updates: a matrix, or a dict of matrices by name (of several optimizers, or of several
        layers).
      ax: axes to draw on; None makes a figure.

    Returns:
      The axes.

    Raises:
      ValueError: an array that is no matrix.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> from gradtx.diagnostics import plots
      >>> g = jax.random.normal(jax.random.key(0), (8, 8))
      >>> plots.singular_values({"gradient": g, "msign": gradtx.msign(g)}).get_xlabel()
      'index of the singular value'
    """
    named = named_of("updates", updates, "at least one matrix")
    for name, matrix in named.items():
        at = f"updates[{name!r}]" if name else "updates"
        if np.ndim(matrix) != 2 or not np.size(matrix):
            raise checks.WrongValue(f"{at} has shape {np.shape(matrix)}, expected a matrix.")
        if not bool(jnp.all(jnp.isfinite(jnp.asarray(matrix)))):
            raise checks.WrongValue(f"{at} has elements that are not finite, and so no singular values.")
    ax, marked = axes_for(ax), max(min(np.shape(matrix)) for matrix in named.values()) <= 64
    for i, (name, matrix) in enumerate(named.items()):
        values = np.linalg.svd(np.asarray(jnp.asarray(matrix, jnp.float32), np.float64), compute_uv=False)
        style = style_of(i) | ({"marker": ".", "markersize": 5} if marked else {})
        ax.plot(np.arange(1, len(values) + 1), values / (values[0] or 1), label=name, **style)
    ax.set_ylim(0, 1.05)
    return finished(ax, "index of the singular value", "singular value / largest", named)


def basin(smoothed: np.ndarray) -> int:
    """How many steps lead down to the least running mean; all where the loss never fell.

    After them the loss rises to its explosion.
    """
    least = int(np.argmin(smoothed)) if len(smoothed) else 0
    return least + 1 if least else max(len(smoothed), 1)


@checked
def lr_range_test(found: LearningRates, *, ax: "Axes | None" = None) -> "Axes":
    """What `gradtx.lr_range_test` found: loss against rate, and a line at the suggested rate.

    Args:
      found: its result. Of the range test, the losses and their running mean; of fixed rates, the
        mean loss of the last tenth of the steps of each, with crosses at the top for rates at which
        the loss exploded.
      ax: axes to draw on; None makes a figure.

    Returns:
      The axes. After the explosion nothing is drawn, and of its beginning what is no higher than
      the losses before the least running mean.

    Raises:
      TypeError: something else.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> from gradtx.diagnostics import plots
      >>> found = gradtx.lr_range_test(lambda w: jnp.sum(w**2), jnp.ones(3), gradtx.sgd)
      >>> plots.lr_range_test(found).get_xscale()
      'log'
    """
    require(found, "found", "lr_range_test", "learning_rates", "losses", "smoothed", "suggestion", "diverged_at")
    ax, rates, losses = axes_for(ax), np.asarray(found.learning_rates, np.float64), np.asarray(found.losses, np.float64)
    ax.set_xscale("log")
    if losses.ndim == 1:
        exploded, smoothed = int(found.diverged_at), np.asarray(found.smoothed, np.float64)
        ax.plot(rates[: exploded + 1], losses[: exploded + 1], color="0.75", linewidth=1.0, label="loss")
        ax.plot(rates[: exploded + 1], smoothed[: exploded + 1], label="its running mean", **style_of(0))
        shown = losses[: basin(smoothed[:exploded])]
    else:
        order = np.argsort(rates)
        rates, losses, exploded = rates[order], losses[order], (np.asarray(found.diverged_at) < losses.shape[1])[order]
        last = losses[:, -math.ceil(losses.shape[1] / 10) :].mean(1)
        ax.plot(rates[~exploded], last[~exploded], marker="o", label="last tenth of the steps", **style_of(0))
        shown = np.append(last[~exploded], losses[0, 0])
        top = np.full(int(exploded.sum()), np.nanmax(shown))
        if exploded.any():
            ax.plot(rates[exploded], top, "x", color=COLORS[1], label="exploded", clip_on=False)
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    ax.set_ylim(low - 0.05 * (high - low or 1), high + 0.1 * (high - low or 1))
    if math.isfinite(suggestion := float(found.suggestion)):
        ax.axvline(suggestion, color=COLORS[2], linestyle=DASHES[1], linewidth=1.2, label=f"suggested: {suggestion:.2g}")
    return finished(ax, "learning rate", "loss", ["more than one"])
