"""Scion's balls against the authors' code, in NumPy, and where its rule sends parameters."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles as o
import pytest
from matrix_oracles import jordan, lmo, polar
from problems import distance, tanh_regression, trajectory

import gradtx

TANH = tanh_regression()
SVD = gradtx.orthogonalize(method="svd")


def balls(norm: str, radius: float) -> gradtx.by_path:
    return gradtx.by_path({"w": gradtx.NormBall(norm, radius)}, default=gradtx.NormBall("rms", 0.5))


def rule(norm: str, radius: float):
    def of_leaf(g, x, t, s):
        return lmo(g, x, t, s, norm, radius if g.ndim == 2 else 0.5)

    return of_leaf


@pytest.mark.parametrize(("norm", "radius"), [("spectral", 2.0), ("sign", 6.0), ("column", 1.5), ("row", 4.0)])
def test_oracle(norm, radius):
    tx = gradtx.scion(o.falling, 0.8, balls(norm, radius), spectral=SVD)
    rules = [partial(o.ema, beta=0.8, debias=False), rule(norm, radius), partial(o.decay, weight_decay=1.0), o.rate(o.falling)]
    assert distance(trajectory(tx, TANH, 30), o.follow(TANH.gradient, TANH.params, 30, *rules)) < 1e-10


def test_oracle_without_the_constraint():
    tx = gradtx.scion(0.01, balls=balls("spectral", 2.0), constrained=False, spectral=SVD)
    rules = [partial(o.ema, beta=0.9, debias=False), rule("spectral", 2.0), o.rate(0.01)]
    assert distance(trajectory(tx, TANH, 30), o.follow(TANH.gradient, TANH.params, 30, *rules)) < 1e-10


def test_matrix_signs_are_jordans_by_default():
    g = np.random.default_rng(0).standard_normal((7, 4))
    with jax.enable_x64(True):
        tx = gradtx.scale_by_lmo(gradtx.NormBall("spectral"))
        found, _ = tx.update(jnp.asarray(g), tx.init(jnp.asarray(g)))
    np.testing.assert_allclose(found, jordan(g) * np.sqrt(4 / 7), atol=1e-6)  # eps stands beside a norm of another scale


@pytest.mark.parametrize(("inputs", "outputs"), [((0, 1, 2), 3), ((1, 2, 3), 0)])
def test_convolution(inputs, outputs):
    """`SpectralConv`: flattened to (out, rest), times `sqrt(out/in) / k^2`, whether channels come last or first."""
    g = np.random.default_rng(0).standard_normal((3, 3, 4, 5))  # height, width, in, out
    x = g if outputs == 3 else g.transpose(3, 2, 0, 1)
    ball = gradtx.NormBall("spectral_conv", 2.0, gradtx.MuonDimensionNumbers(inputs, outputs))
    with jax.enable_x64(True):
        tx = gradtx.scale_by_lmo(ball, spectral=SVD)
        found, _ = tx.update(jnp.asarray(x), tx.init(jnp.asarray(x)))
    expected = 2 * polar(g.reshape(36, 5)).reshape(3, 3, 4, 5) * np.sqrt(5 / 4) / 9
    np.testing.assert_allclose(found if outputs == 3 else found.transpose(2, 3, 1, 0), expected, atol=1e-10)


@pytest.mark.parametrize("norm", ["spectral", "sign", "column", "row"])
def test_layers_in_one_leaf_move_as_layers_apart(norm):
    layers = jax.random.normal(jax.random.key(0), (3, 5, 4))
    one, many = gradtx.NormBall(norm, 2.0), gradtx.NormBall(norm, 2.0, gradtx.MuonDimensionNumbers(1, 2))
    together = gradtx.scale_by_lmo(many)
    found, _ = together.update(layers, together.init(layers))
    apart = gradtx.scale_by_lmo(one)
    expected = [apart.update(x, apart.init(x))[0] for x in layers]
    np.testing.assert_allclose(found, jnp.stack(expected), atol=2e-6)


def test_a_learning_rate_up_to_one_keeps_parameters_in_their_balls():
    params = {"w": jnp.full((4, 4), 0.4), "b": jnp.full(3, -0.6)}
    tx = gradtx.scion(0.3, balls=gradtx.by_path({"w": gradtx.NormBall("sign", 2.0), "b": gradtx.NormBall("rms", 1.0)}))
    state = tx.init(params)
    for i in range(20):
        grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(i), p.shape), params)  # noqa: B023
        updates, state = tx.update(grads, state, params)
        params = gradtx.apply_updates(params, updates)
    assert float(jnp.max(jnp.abs(params["w"]))) <= 2.0 / 4 + 1e-6
    assert float(jnp.sqrt(jnp.mean(params["b"] ** 2))) <= 1.0 + 1e-6


def test_the_rule_by_path_and_shape():
    params = {
        "wte": {"embedding": jnp.zeros((10, 4))},
        "conv": {"kernel": jnp.zeros((3, 3, 4, 8))},
        "mlp": {"kernel": jnp.zeros((4, 8)), "bias": jnp.zeros(8), "weight": jnp.zeros((8, 4))},
        "lm_head": {"kernel": jnp.zeros((4, 10)), "weight": jnp.zeros((10, 4))},
        "gain": jnp.zeros(()),
    }
    numbers = gradtx.MuonDimensionNumbers
    found = gradtx.norm_balls({"mlp/bias": gradtx.NormBall("rms", 0.1)})(params)
    assert found["wte"]["embedding"] == gradtx.NormBall("sign", 3000.0, numbers(1, 0))
    assert found["conv"]["kernel"] == gradtx.NormBall("spectral_conv", 50.0, numbers((0, 1, 2), 3))
    assert found["mlp"]["kernel"] == gradtx.NormBall("spectral", 50.0, numbers(0, 1))
    assert found["mlp"]["weight"] == gradtx.NormBall("spectral", 50.0, numbers(1, 0))
    assert found["mlp"]["bias"] == gradtx.NormBall("rms", 0.1)
    assert found["lm_head"]["kernel"] == gradtx.NormBall("sign", 3000.0, numbers(0, 1))
    assert found["lm_head"]["weight"] == gradtx.NormBall("sign", 3000.0, numbers(1, 0))
    assert found["gain"] == gradtx.NormBall("rms", 50.0)
    tx = gradtx.scion(0.1)
    assert jax.tree.structure(jax.eval_shape(tx.init, params)[0].ema) == jax.tree.structure(params)


def test_a_rule_of_a_leaf_of_many_axes_needs_no_other():
    params = {"experts": jnp.ones((2, 3, 4))}
    ball = gradtx.NormBall("spectral", 1.0, gradtx.MuonDimensionNumbers(1, 2))
    tx = gradtx.scale_by_lmo(gradtx.norm_balls({"experts": ball}))
    assert tx.update(params, tx.init(params))[0]["experts"].shape == (2, 3, 4)


def test_configs():
    tx = gradtx.scion(0.1, balls=gradtx.norm_balls({".*": gradtx.NormBall("row", 2.0, gradtx.MuonDimensionNumbers(1, 0))}))
    assert gradtx.from_config(gradtx.to_config(tx)) == tx


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            gradtx.NormBall("spectrl"),
            r"balls gives NormBall\(norm='spectrl', .*\) for `b` of shape \(3,\), expected a norm among .* Did",
        ),
        (gradtx.NormBall("rms", -1.0), r"balls gives .* for `b` of shape \(3,\), expected a finite radius >= 0\."),
        (gradtx.NormBall("sign"), r"balls gives .* for `b` of shape \(3,\), which is no matrix, expected the norm 'rms'\."),
        ({"b": gradtx.NormBall("rms")}, r"balls has nothing for the leaf `w`\. Rules by path go through gradtx.by_path\(\{"),
        ({"b": "rms", "w": "sign"}, r"balls gives 'rms' \(str\) for `b`, expected NormBall\(\.\.\.\)\."),
        (
            {"b": gradtx.NormBall("rms"), "w": gradtx.NormBall("sign")},
            r"balls gives .* for `w` of shape \(2, 3, 4\), which is no matrix, expected weight_dimension_numbers in it\.",
        ),
        (
            {"b": gradtx.NormBall("rms"), "w": gradtx.NormBall("column", 1.0, gradtx.MuonDimensionNumbers(1, 2, 2))},
            r"balls gives .* for `w` of shape \(2, 3, 4\), expected output_blocks=1 for 'column'",
        ),
    ],
)
def test_errors_name_the_leaf(given, text):
    params = {"b": jnp.ones(3), "w": jnp.ones((2, 3, 4))}
    with pytest.raises((ValueError, TypeError), match=f"^scale_by_lmo: {text}"):
        gradtx.scale_by_lmo(given).init(params)


def test_errors_of_arguments():
    with pytest.raises(ValueError, match=r"^scale_by_lmo: spectral has weight_dimension_numbers, expected an orthogonalize"):
        gradtx.scale_by_lmo(spectral=gradtx.orthogonalize(weight_dimension_numbers=gradtx.MuonDimensionNumbers()))
    with pytest.raises(
        TypeError, match=r"^norm_balls: rules is 'row' \(str\), expected a dict from regular expressions to NormBall"
    ):
        gradtx.norm_balls("row")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^norm_balls: the rule of 'w' is 'row' \(str\), expected NormBall\(\.\.\.\)\."):
        gradtx.norm_balls({"w": "row"})
    with pytest.raises(TypeError, match=r"^norm_balls: weight_dimension_numbers is None, expected gradtx.matrix_axes\(\.\.\.\)"):
        gradtx.norm_balls(weight_dimension_numbers=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^norm_balls: the pattern 'v' matches no parameter"):
        gradtx.norm_balls({"v": gradtx.NormBall()})({"w": jnp.ones(3)})
