"""Pictures of what the diagnostics measure. Each function takes an `ax` of matplotlib, or makes one, draws on it and returns it.

Colors are told apart by all kinds of color vision (Okabe and Ito 2008; maps: viridis), and lines by dashes too. Needs the extra
`plot`: `pip install gradtx[plot]`.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradtx.core import checks
from gradtx.core.checks import Flag, PositiveInt
from gradtx.core.values import checked

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 2, 1, 2)), (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)))
LEVELS = 14
WIDTH = 1.8


def _axes(ax: Any, projection: str | None = None) -> Any:
    if ax is not None:
        if projection == "3d" and getattr(ax, "name", None) != "3d":
            raise TypeError(
                f"{checks.where()}: ax is {checks.kind(ax)}, expected one made with projection='3d' for a surface, "
                "such as figure.add_subplot(projection='3d')."
            )
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f"{checks.where()}: needs matplotlib, which is not installed: pip install gradtx[plot].") from error
    return plt.figure(figsize=(6.4, 4.4), layout="constrained").add_subplot(projection=projection)


def _style(i: int) -> dict[str, Any]:
    return {"color": COLORS[i % len(COLORS)], "linestyle": DASHES[i % len(DASHES)], "linewidth": WIDTH}


def _named(argument: str, value: Any, what: str) -> dict[str, Any]:
    """A mapping from names, or one nameless thing."""
    named = dict(value) if isinstance(value, Mapping) else {"": value}
    if not named:
        raise ValueError(f"{checks.where()}: {argument} is empty, expected {what}.")
    return named


def _finished(ax: Any, xlabel: str, ylabel: str, names: Any = ()) -> Any:
    """Labels, a light grid, and a legend beside the data where there is more than one name."""
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(True, color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if any(names):
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0, handlelength=3)
    return ax


@checked
def schedules(schedule: Any, steps: PositiveInt, *, ax: Any = None) -> Any:
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
      >>> ax = plots.schedules({"cosine": gradtx.cosine_decay_schedule(0.1, 100), "constant": 0.05}, steps=100)
      >>> ax.get_xlabel(), ax.get_ylabel()
      ('step', 'learning rate')
    """
    named = _named("schedule", schedule, "at least one schedule")
    counts, ax = np.arange(steps), _axes(ax)
    for i, (name, one) in enumerate(named.items()):
        if callable(one):
            values = [float(checks.scheduled_value("schedule", one, count)) for count in counts]
        elif checks.is_real_scalar(one):
            values = np.full(steps, float(one))
        else:
            raise TypeError(
                f"{checks.where()}: schedule is {checks.kind(one)}, expected a schedule, a number, or a dict of them by name."
            )
        ax.plot(counts, values, label=name, **_style(i))
    if all(np.min(line.get_ydata()) >= 0 for line in ax.lines):
        ax.set_ylim(bottom=0)
    return _finished(ax, "step", "learning rate", named)


@checked
def spectrum(density: Any, *, ax: Any = None) -> Any:
    """The density of the Hessian's eigenvalues, of one model or of several, on a logarithmic scale.

    Args:
      density: what `spectral_density` gives, or a dict of it by name.
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
    named = _named("density", density, "at least one density")
    ax = _axes(ax)
    highest = 0.0
    for i, (name, one) in enumerate(named.items()):
        _require(one, "density", "spectral_density", "grid", "density")
        grid, height = np.asarray(one.grid), np.asarray(one.density)
        ax.plot(grid, height, label=name, **_style(i))
        highest = max(highest, float(np.nanmax(height)))
    ax.set_yscale("log")
    ax.set_ylim(highest * 1e-6, highest * 3)
    return _finished(ax, "eigenvalue", "density", named)


@checked
def landscape_1d(landscape: Any, *, ax: Any = None) -> Any:
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
    named = _named("landscape", landscape, "at least one landscape")
    ax = _axes(ax)
    ax.axvline(0, color="0.6", linewidth=0.8)
    for i, (name, one) in enumerate(named.items()):
        _require(one, "landscape", "landscape_1d", "x", "loss")
        ax.plot(np.asarray(one.x), np.asarray(one.loss), label=name, **_style(i))
    return _finished(ax, "along the direction", "loss", named)


@checked
def landscape_2d(landscape: Any, *, ax: Any = None, surface: Flag = False, log: Flag = False) -> Any:
    """The loss on a plane, as contours or as a surface, with the path of training where the landscape has one.

    Args:
      landscape: what `gradtx.diagnostics.landscape_2d` gives.
      ax: axes to draw on, with projection='3d' for a surface; None makes a figure.
      surface: whether to draw a surface in three dimensions.
      log: whether colors and heights follow the logarithm of the loss, which must be positive.

    Returns:
      The axes. Losses that are not finite are left blank.

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
    _require(landscape, "landscape", "landscape_2d", "x", "y", "loss", "path")
    x, y, loss = (np.asarray(a, np.float64) for a in (landscape.x, landscape.y, landscape.loss))
    loss = np.ma.masked_invalid(loss)
    if log:
        if loss.min() <= 0:
            raise ValueError(f"{checks.where()}: the loss is as low as {loss.min():.3g}, expected > 0 for log=True.")
        loss = np.log10(loss)
    label = "log10 of the loss" if log else "loss"
    path = None if landscape.path is None else np.asarray(landscape.path, np.float64)
    return (_surface if surface else _contours)(_axes(ax, "3d" if surface else None), x, y, loss, label, path)


def _contours(ax: Any, x: np.ndarray, y: np.ndarray, loss: Any, label: str, path: np.ndarray | None) -> Any:
    filled = ax.contourf(x, y, loss, levels=4 * LEVELS, cmap="viridis")
    filled.set_edgecolor("face")  # no seams between the colors in vector files
    if loss.max() > loss.min():
        ax.contour(x, y, loss, levels=LEVELS, colors="white", linewidths=0.5, alpha=0.6)
    bar = ax.figure.colorbar(filled, ax=ax, label=label)
    bar.ax.yaxis.set_major_locator(_ticks(6))
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


def _surface(ax: Any, x: np.ndarray, y: np.ndarray, loss: Any, label: str, path: np.ndarray | None) -> Any:
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
    ax.set_zlim(floor, high if high > low else low + 1)
    ax.set_xlabel("first direction", labelpad=6)
    ax.set_ylabel("second direction", labelpad=8)
    ax.set_zlabel(label, labelpad=6)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_major_locator(_ticks(4))
        axis.set_pane_color((1, 1, 1, 0))
    ax.view_init(elev=28, azim=-60)
    ax.set_box_aspect(None, zoom=0.9)  # so that the label of the loss is on the picture
    return ax


def _ticks(most: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most)


@checked
def comparison(
    losses: Any, *, ax: Any = None, xlabel: str = "step", ylabel: str = "loss", log: Flag = True, smoothing: PositiveInt = 1
) -> Any:
    """What optimizers reach over time: one line for each, or the mean with a band of one standard deviation over seeds.

    Args:
      losses: dict from names to losses of shape (steps,) or (seeds, steps).
      ax: axes to draw on; None makes a figure.
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
    named = _named("losses", losses, "at least one optimizer's losses")
    runs = {name: np.atleast_2d(np.asarray(values, np.float64)) for name, values in named.items()}
    for name, values in runs.items():
        if values.ndim != 2 or not values.size:
            at = f"losses[{name!r}]" if name else "losses"
            raise ValueError(f"{checks.where()}: {at} has shape {np.shape(named[name])}, expected (steps,) or (seeds, steps).")
    smooth = {name: _running_mean(values, smoothing) for name, values in runs.items()}
    ax = _axes(ax)
    styles = {name: _style(i) for i, name in enumerate(named)}
    for name in sorted(named, key=lambda name: _last(smooth[name])):
        values = smooth[name]
        mean = values.mean(0)
        steps = np.arange(1, len(mean) + 1)
        ax.plot(steps, mean, label=name, **styles[name])
        if len(values) > 1:
            deviation = values.std(0, ddof=1)
            ax.fill_between(steps, mean - deviation, mean + deviation, color=styles[name]["color"], alpha=0.15, linewidth=0)
    finite = np.concatenate([values[np.isfinite(values)] for values in smooth.values()])
    if log and finite.size and finite.min() > 0:
        ax.set_yscale("log")
        ax.set_ylim(finite.min() * 0.8, finite.max() * 1.25)
    return _finished(ax, xlabel, ylabel, named)


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
    ends = np.arange(1, values.shape[1] + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[:, ends] - sums[:, starts]) / (ends - starts)


def _last(values: np.ndarray) -> float:
    last = float(values.mean(0)[-1])
    return last if math.isfinite(last) else math.inf


@checked
def singular_values(updates: Any, *, ax: Any = None) -> Any:
    """The singular values of matrices over the largest one: all 1 for Muon's updates, few large ones for a gradient's.

    Args:
      updates: a matrix, or a dict of matrices by name (of several optimizers, or of several layers).
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
    named = _named("updates", updates, "at least one matrix")
    ax = _axes(ax)
    for i, (name, matrix) in enumerate(named.items()):
        if np.ndim(matrix) != 2 or not np.size(matrix):
            at = f"updates[{name!r}]" if name else "updates"
            raise ValueError(f"{checks.where()}: {at} has shape {np.shape(matrix)}, expected a matrix.")
        values = np.linalg.svd(np.asarray(jnp.asarray(matrix, jnp.float32), np.float64), compute_uv=False)
        style = _style(i) | ({"marker": ".", "markersize": 5} if len(values) <= 64 else {})
        ax.plot(np.arange(1, len(values) + 1), values / (values[0] or 1), label=name, **style)
    ax.set_ylim(0, 1.05)
    return _finished(ax, "index of the singular value", "singular value / largest", named)


@checked
def lr_range_test(found: Any, *, ax: Any = None) -> Any:
    """What `gradtx.lr_range_test` found: the loss against the rate, and a line at the suggested one.

    Args:
      found: its result. Of the range test, the losses and their running mean; of fixed rates, the mean loss of the last tenth
        of the steps of each, with crosses at the top for rates at which the loss exploded.
      ax: axes to draw on; None makes a figure.

    Returns:
      The axes. Losses above the first one are cut off where the loss exploded.

    Raises:
      TypeError: something else.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> from gradtx.diagnostics import plots
      >>> found = gradtx.lr_range_test(lambda w: jnp.sum(w**2), jnp.ones(3), gradtx.sgd)
      >>> plots.lr_range_test(found).get_xscale()
      'log'
    """
    _require(found, "found", "lr_range_test", "learning_rates", "losses", "smoothed", "suggestion", "diverged_at")
    ax, rates, losses = _axes(ax), np.asarray(found.learning_rates, np.float64), np.asarray(found.losses, np.float64)
    ax.set_xscale("log")
    if losses.ndim == 1:
        ax.plot(rates, losses, color="0.75", linewidth=1.0, label="loss")
        ax.plot(rates, np.asarray(found.smoothed), label="its running mean", **_style(0))
        shown = np.append(losses[: max(int(found.diverged_at), 1)], losses[0])
    else:
        exploded = np.asarray(found.diverged_at) < losses.shape[1]
        last = losses[:, -math.ceil(losses.shape[1] / 10) :].mean(1)
        ax.plot(rates[~exploded], last[~exploded], marker="o", label="last tenth of the steps", **_style(0))
        shown = np.append(last[~exploded], losses[0, 0])
        top = np.full(int(exploded.sum()), np.nanmax(shown))
        ax.plot(rates[exploded], top, "x", color=COLORS[1], label="exploded", clip_on=False)
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    ax.set_ylim(low - 0.05 * (high - low or 1), high + 0.1 * (high - low or 1))
    if math.isfinite(suggestion := float(found.suggestion)):
        ax.axvline(suggestion, color=COLORS[2], linestyle=DASHES[1], linewidth=1.2, label=f"suggested: {suggestion:.2g}")
    return _finished(ax, "learning rate", "loss", ["more than one"])


def _require(value: Any, argument: str, maker: str, *fields: str) -> None:
    if not all(hasattr(value, field) for field in fields):
        raise TypeError(
            f"{checks.where()}: {argument} is {checks.kind(value)}, expected what gradtx.diagnostics.{maker} gives"
            f"{'' if maker in ('landscape_2d', 'lr_range_test') else ', or a dict of it by name'}."
        )
