"""muP's multipliers, and what a coordinate check says of networks with and without them."""

from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest

import gradtx
from gradtx.diagnostics import CoordinateCheck, coordinate_check, plots

mpl.use("Agg")


def shapes(n: int) -> dict[str, Any]:
    return {
        "embed": jax.ShapeDtypeStruct((50, n), jnp.float32),
        "in": jax.ShapeDtypeStruct((3, n), jnp.float32),
        "up": {"kernel": jax.ShapeDtypeStruct((n, 4 * n), jnp.float32), "bias": jax.ShapeDtypeStruct((4 * n,), jnp.float32)},
        "down": {"weight": jax.ShapeDtypeStruct((n, 4 * n), jnp.float32)},
        "out": jax.ShapeDtypeStruct((n, 7), jnp.float32),
        "lm_head": jax.ShapeDtypeStruct((n, 50), jnp.float32),
        "temperature": jax.ShapeDtypeStruct((), jnp.float32),
    }


def test_multipliers() -> None:
    """Yang et al. 2022, table 8: Adam in all columns; SGD for vectors and hidden matrices."""
    adam = {"embed": 1, "in": 1, "up": {"kernel": 0.125, "bias": 1}, "down": {"weight": 0.125}, "out": 1, "lm_head": 1}
    sgd = {"embed": 8, "in": 8, "up": {"kernel": 1, "bias": 8}, "down": {"weight": 1}, "out": 8, "lm_head": 8}
    assert gradtx.mup_multipliers(shapes(512), shapes(64)) == adam | {"temperature": 1}
    assert gradtx.mup_multipliers(shapes(512), shapes(64), "sgd") == sgd | {"temperature": 1}


def test_inputs_and_outputs_that_grow_differently() -> None:
    new, old = {"up": jnp.zeros((4, 12))}, {"up": jnp.zeros((2, 3))}
    assert gradtx.mup_multipliers(new, old) == {"up": 0.5}
    assert gradtx.mup_multipliers(new, old, "sgd") == {"up": 2.0}


def test_heads_by_rule() -> None:
    new, old = {"query": jnp.zeros((8, 4, 2))}, {"query": jnp.zeros((4, 2, 2))}
    axes = gradtx.matrix_axes({"query": gradtx.MuonDimensionNumbers(0, (1, 2))})
    assert gradtx.mup_multipliers(new, old, weight_dimension_numbers=axes) == {"query": 0.5}
    with pytest.raises(ValueError, match=r"^mup_multipliers > matrix_axes: the parameter `query` has shape \(8, 4, 2\)"):
        gradtx.mup_multipliers(new, old)


def test_wrong_bases() -> None:
    with pytest.raises(ValueError, match=r"^mup_multipliers: base_params"):
        gradtx.mup_multipliers({"a": jnp.ones(2)}, {"b": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"^mup_multipliers: base_params has a leaf of shape \(2, 1\) where params has \(2,\)"):
        gradtx.mup_multipliers({"a": jnp.ones(2)}, {"a": jnp.ones((2, 1))})
    with pytest.raises(TypeError, match=r"^mup_multipliers: rule is 'admw' \(str\), expected one of 'adam', 'sgd'"):
        gradtx.mup_multipliers({"a": jnp.ones(2)}, {"a": jnp.ones(2)}, "admw")


def network(mup: bool) -> Any:
    """Three layers; under muP with its variances, its rates, and its output."""

    def make(width: int) -> dict[str, jax.Array]:
        keys = jax.random.split(jax.random.key(0), 3)
        hidden = jax.random.normal(keys[1], (width, width)) / width**0.5
        first, last = jax.random.normal(keys[0], (4, width)) / 2, jax.random.normal(keys[2], (width, 3))
        return {"in": first, "hidden": hidden, "out": last if mup else last / width**0.5}

    def build(width: int) -> Any:
        x, y = jnp.cos(jnp.arange(32.0)).reshape(8, 4), jnp.sin(jnp.arange(24.0)).reshape(8, 3)
        params, base = make(width), jax.eval_shape(lambda: make(32))

        def loss(p: Any) -> Any:
            first = jnp.tanh(x @ p["in"])
            second = jnp.tanh(first @ p["hidden"])
            out = second @ p["out"] / (width / 32 * 32**0.5 if mup else 1)
            return jnp.mean((out - y) ** 2), {"second": second, "out": out}

        multipliers = gradtx.mup_multipliers(params, base) if mup else {"in": 1.0, "hidden": 1.0, "out": 1.0}
        rate = gradtx.scale_by_learning_rate(0.02)
        return gradtx.chain(gradtx.scale_by_adam(), gradtx.scale_by_path(multipliers), rate), params, loss

    return build


def test_under_mup_activations_keep_their_size() -> None:
    widths = [64, 128, 256, 512]
    with_it, without = (coordinate_check(network(mup), widths, steps=3) for mup in (True, False))
    assert with_it.names == ("out", "second")
    assert with_it.sizes.shape == (4, 4, 2)
    assert np.max(np.abs(with_it.slopes[1:, 1])) < 0.1
    assert with_it.slopes[-1, 0] < 0.1
    assert without.slopes[-1, 0] > 0.4


def test_slopes_of_known_powers() -> None:
    def build(width: int) -> Any:
        sizes = {"flat": jnp.ones(3), "root": jnp.full(2, -(float(width) ** 0.5)), "zero": jnp.zeros(2)}
        return gradtx.sgd(0.0), jnp.ones(()), lambda p: (p**2, sizes)

    found = coordinate_check(build, [2, 8, 32], 1)
    np.testing.assert_allclose(found.slopes, [[0, 0.5, 0]] * 2, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda width: gradtx.sgd(0.1), r"build gave sgd\(.*expected a tuple \(tx, params, loss_fn\)\."),
        (lambda width: (gradtx.sgd(0.1), jnp.ones(()), lambda p: p), r"loss_fn gave .*, expected a pair \(loss, activations\)\."),
    ],
)
def test_wrong_models(build: Any, text: str) -> None:
    with pytest.raises(TypeError, match="^coordinate_check: " + text):
        coordinate_check(build, [1, 2])


def test_one_width_is_no_check() -> None:
    with pytest.raises(TypeError, match=r"^coordinate_check: widths is a list of 1, expected two or more different whole numbers"):
        coordinate_check(network(True), [4])


def test_the_picture() -> None:
    sizes = np.array([[[1.0, 3.0]], [[2.0, 3.0]]])
    found = CoordinateCheck(np.array([8, 16]), ("head", "body"), sizes, np.array([[1.0, 0.0]]))
    ax = plots.coordinate_check(found)
    assert [line.get_label() for line in ax.lines] == ["head (+1.00)", "body (+0.00)"]
    np.testing.assert_allclose(np.asarray(ax.lines[0].get_ydata(), float), [1.0, 2.0])
    with pytest.raises(
        TypeError, match=r"^coordinate_check: found is 3 \(int\), expected what gradtx.diagnostics.coordinate_check gives"
    ):
        plots.coordinate_check(3)  # type: ignore[arg-type]
