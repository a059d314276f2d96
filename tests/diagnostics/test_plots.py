"""What the pictures show: the numbers given, labelled, told apart; and errors."""

import sys
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest

import gradtx
from gradtx.diagnostics import Landscape1D, Landscape2D, SpectralDensity, plots
from gradtx.diagnostics.lr_range import LearningRates

mpl.use("Agg")
X = np.linspace(-1, 1, 5)
LINE = Landscape1D(jnp.asarray(X), jnp.asarray(X**2))
PLANE = Landscape2D(
    jnp.asarray(X), jnp.asarray(X[:4]), jnp.asarray(X[:4, None] ** 2 + X + 1.1), jnp.asarray([[0.5, 0.5], [0.0, 0.0]])
)
DENSITY = SpectralDensity(jnp.ones((1, 2)), jnp.ones((1, 2)) / 2, jnp.asarray(X), jnp.asarray([0.0, 1e-9, 2.0, 0.1, 0.0]))
LOSSES = {"a": [4.0, 2.0, 1.0], "b": np.array([[3.0, 1.0, 0.5], [5.0, 3.0, 0.1]])}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def values(line: Any) -> np.ndarray:
    return np.asarray(line.get_ydata(), np.float64)


def drawn(ax: Any) -> Any:
    """Checks that a picture can be made, with nothing of its legend on the data."""
    ax.figure.canvas.draw()
    legend = ax.get_legend()
    if legend is not None:
        assert legend.get_window_extent().x0 >= ax.get_window_extent().x1 - 1
    return ax


def test_schedules() -> None:
    ax = drawn(plots.schedules({"cosine": gradtx.cosine_decay_schedule(0.1, 4), "constant": 0.05}, 5))
    np.testing.assert_allclose(values(ax.lines[0]), 0.05 * (1 + np.cos(np.pi * np.arange(5) / 4)), atol=1e-8)
    np.testing.assert_allclose(values(ax.lines[1]), 0.05)
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()
    assert ax.get_ylim()[0] == 0
    assert plots.schedules(gradtx.linear_schedule(1.0, 0.0, 3), 5, ax=ax) is ax


def test_spectrum() -> None:
    ax = drawn(plots.spectrum({"one": DENSITY, "other": DENSITY}))
    assert len(ax.lines) == 2
    np.testing.assert_allclose(values(ax.lines[0]), values(ax.lines[1]))
    alone = plots.spectrum(DENSITY)
    np.testing.assert_allclose(values(alone.lines[0]), DENSITY.density)
    assert alone.get_ylim() == pytest.approx((2e-6, 6.0))
    assert alone.get_legend() is None


def test_spectra_are_blurred_alike() -> None:
    """Two equal nodes far from what another model has are as high, whatever the range of the rest."""
    wide = DENSITY._replace(nodes=jnp.asarray([[0.0, 10.0]]), weights=jnp.asarray([[0.5, 0.5]]))
    narrow = DENSITY._replace(nodes=jnp.asarray([[0.0, 1.0]]), weights=jnp.asarray([[0.5, 0.5]]))
    one, other = plots.spectrum({"wide": wide, "narrow": narrow}).lines
    assert values(one).max() == pytest.approx(values(other).max(), rel=0.1)
    assert values(one).max() == pytest.approx(0.5 / (0.1 * (2 * np.pi) ** 0.5), rel=0.1)


def test_lines() -> None:
    ax = drawn(plots.landscape_1d({"one": LINE}))
    np.testing.assert_allclose(values(ax.lines[1]), X**2, rtol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("along the direction", "loss")


@pytest.mark.parametrize("log", [False, True])
def test_contours(log: bool) -> None:
    ax = drawn(plots.landscape_2d(PLANE, log=log))
    assert ax.figure.axes[1].get_ylabel() == ("log10 of the loss" if log else "loss")
    np.testing.assert_allclose(ax.lines[0].get_xydata(), PLANE.path)


def test_surfaces() -> None:
    ax = drawn(plots.landscape_2d(PLANE._replace(loss=PLANE.loss.at[0, 0].set(jnp.nan)), surface=True))
    assert ax.name == "3d"
    assert ax.get_zlabel() == "loss"
    assert plots.landscape_2d(PLANE._replace(path=None), surface=True, ax=ax) is ax


def test_flat_landscapes_can_be_drawn() -> None:
    flat = Landscape2D(PLANE.x, PLANE.y, jnp.ones((4, 5)))
    drawn(plots.landscape_2d(flat))
    drawn(plots.landscape_2d(flat, surface=True))


def test_comparison() -> None:
    ax = drawn(plots.comparison(LOSSES, ylabel="training loss", smoothing=2))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["b", "a"]  # the best first
    np.testing.assert_allclose(values(ax.lines[0]), [4.0, 3.0, 1.15])
    np.testing.assert_allclose(values(ax.lines[1]), [4.0, 3.0, 1.5])
    assert len(ax.collections) == 1  # a band where there are seeds
    assert ax.get_yscale() == "log"
    assert ax.get_ylabel() == "training loss"
    assert plots.comparison({"a": [-1.0, np.inf]}).get_yscale() == "linear"


def test_singular_values() -> None:
    ax = drawn(plots.singular_values({"diagonal": np.diag([1.0, 4.0, 2.0]), "zero": np.zeros((2, 3))}))
    np.testing.assert_allclose(values(ax.lines[0]), [1, 0.5, 0.25])
    np.testing.assert_allclose(values(ax.lines[1]), [0, 0])


RANGE = LearningRates(
    jnp.asarray([0.01, 0.1, 1.0]),
    jnp.asarray([4.0, 2.0, jnp.nan]),
    jnp.asarray([4.0, 3.0, jnp.nan]),
    jnp.asarray(0.1),
    jnp.asarray(2),
)
FIXED = LearningRates(
    jnp.asarray([0.01, 1.0]), jnp.asarray([[4.0, 3.0], [4.0, jnp.nan]]), jnp.zeros((2, 2)), jnp.asarray(0.01), jnp.asarray([2, 1])
)


def test_range_of_rates() -> None:
    ax = drawn(plots.lr_range_test(RANGE))
    np.testing.assert_array_equal(values(ax.lines[0]), [4, 2, np.nan])
    np.testing.assert_array_equal(values(ax.lines[1]), [4, 3, np.nan])
    long = RANGE._replace(
        learning_rates=jnp.geomspace(0.01, 10, 4),
        losses=jnp.asarray([4, 9e9, 2, 1]),
        smoothed=jnp.ones(4),
        diverged_at=jnp.asarray(1),
    )
    assert len(values(plots.lr_range_test(long).lines[0])) == 2  # nothing after the explosion
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["loss", "its running mean", "suggested: 0.1"]
    assert ax.get_ylim() == pytest.approx((1.9, 4.2))


def test_the_axis_of_a_range_is_that_of_the_basin() -> None:
    """The running mean lags, so that losses far above the start come before the step that counts as the explosion."""
    found = RANGE._replace(
        learning_rates=jnp.geomspace(0.01, 10, 7),
        losses=jnp.asarray([4.0, 3.0, 2.0, 3.0, 500.0, 1e6, jnp.nan]),
        smoothed=jnp.asarray([4.0, 3.5, 3.0, 3.1, 3.5, 3.9, jnp.nan]),
        diverged_at=jnp.asarray(6),
    )
    assert plots.lr_range_test(found).get_ylim() == pytest.approx((1.9, 4.2))
    never_fell = found._replace(smoothed=jnp.arange(7.0), diverged_at=jnp.asarray(4))
    assert plots.lr_range_test(never_fell).get_ylim() == pytest.approx((1.9, 4.2))


def test_fixed_rates() -> None:
    ax = drawn(plots.lr_range_test(FIXED._replace(suggestion=jnp.asarray(jnp.nan))))
    np.testing.assert_allclose(values(ax.lines[0]), [3.0])  # the rate that did not explode
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [1.0])
    assert len(ax.lines) == 2


def test_fixed_rates_in_any_order() -> None:
    found = LearningRates(
        jnp.asarray([0.1, 0.01]), jnp.asarray([[4.0, 1.0], [4.0, 3.0]]), jnp.zeros((2, 2)), jnp.asarray(0.1), jnp.asarray([2, 2])
    )
    ax = drawn(plots.lr_range_test(found))
    np.testing.assert_allclose(values(ax.lines[0]), [3.0, 1.0])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["last tenth of the steps", "suggested: 0.1"]


def test_legends_on_axes_without_room_stay_inside() -> None:
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    plots.comparison(LOSSES, ax=ax, steps=[0, 50, 100])
    figure.canvas.draw()
    assert ax.get_legend().get_window_extent().x1 <= ax.get_window_extent().x1 + 1
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [0, 50, 100])


def test_a_dozen_lines_have_a_dozen_styles() -> None:
    ax = plots.comparison({str(i): [1.0, 2.0] for i in range(20)})
    assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in ax.lines}) == 20


def flat_axes() -> Any:
    import matplotlib.pyplot as plt

    return plt.figure().add_subplot()


BAD: list[tuple[Any, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (plots.schedules, ("cosine", 5), {}, TypeError, r"schedules: schedule is 'cosine' \(str\), expected a schedule, a number, or a dict of them by name\."),
    (plots.schedules, ({}, 5), {}, ValueError, r"schedules: schedule is empty, expected at least one schedule\."),
    (plots.spectrum, (LINE,), {}, TypeError, r"spectrum: density is a Landscape1D, expected what gradtx\.diagnostics\.spectral_density gives, or a dict"),
    (plots.landscape_2d, (LINE,), {}, TypeError, r"landscape is a Landscape1D, expected what gradtx\.diagnostics\.landscape_2d gives\."),
    (plots.landscape_2d, (PLANE._replace(loss=-PLANE.loss),), {"log": True}, ValueError, r"the loss is as low as -3\.1, expected > 0 for log=True\."),
    (plots.comparison, ({"a": np.ones((2, 2, 2))},), {}, ValueError, r"losses\['a'\] has shape \(2, 2, 2\), expected \(steps,\) or \(seeds, steps\)\."),
    (plots.landscape_1d, (PLANE,), {}, TypeError, r"landscape_1d: landscape is a Landscape2D, a plane, expected a line; plots\.landscape_2d draws it\."),
    (plots.comparison, (LOSSES,), {"steps": [1, 2]}, ValueError, r"steps has shape \(2,\), expected \(3,\), as the losses of 'b' have\."),
    (plots.comparison, (LOSSES,), {"ax": [1]}, TypeError, r"ax is a list of 1, expected axes of matplotlib"),
    (plots.singular_values, ({"g": np.full((2, 2), np.nan)},), {}, ValueError, r"updates\['g'\] has elements that are not finite, and so no singular values\."),
    (plots.singular_values, (np.ones(3),), {}, ValueError, r"singular_values: updates has shape \(3,\), expected a matrix\."),
]  # fmt: skip


@pytest.mark.parametrize(("draw", "args", "kwargs", "error", "text"), BAD)
def test_what_cannot_be_drawn_is_named(draw: Any, args: Any, kwargs: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        draw(*args, **kwargs)


def test_surfaces_want_axes_of_three_dimensions() -> None:
    with pytest.raises(TypeError, match=r"landscape_2d: ax is an Axes, expected one made with projection='3d' for a surface"):
        plots.landscape_2d(PLANE, surface=True, ax=flat_axes())
    with pytest.raises(
        TypeError, match=r"landscape_2d: ax has three dimensions, expected flat axes; a landscape with surface=True takes these\."
    ):
        plots.landscape_2d(PLANE, ax=plots.landscape_2d(PLANE, surface=True))


def test_matplotlib_is_imported_when_it_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"spectrum: needs matplotlib, which is not installed: pip install gradtx\[plot\]\."):
        plots.spectrum(DENSITY)
