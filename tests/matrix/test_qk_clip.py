"""QK-clip against its formula, and on attention: logits come down to `tau`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

HeadAxis = gradtx.HeadAxis


def logits(params, x, heads):
    """The largest scaled logit of each head."""
    q, k = (jnp.einsum("td,dhw->thw", x, params[name].reshape(4, heads, -1)) for name in ("query", "key"))
    return jnp.max(jnp.einsum("thw,shw->hts", q, k) / np.sqrt(q.shape[-1]), axis=(1, 2))


@pytest.mark.parametrize("fused", [False, True])
def test_logits_come_down_to_tau(fused):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        name: jax.random.normal(key, (4, 3, 5)) * jnp.array([1.0, 3.0, 9.0])[:, None] for name, key in zip("qk", keys, strict=False)
    }
    params = {"query": params["q"], "key": params["k"], "value": jnp.ones((4, 3, 5))}
    if fused:
        params = {name: p.reshape(4, 15) for name, p in params.items()}
    x = jax.random.normal(keys[2], (6, 4))
    before = logits(params, x, 3)
    tau = float(jnp.sort(before)[1]) / 2
    clipped = jax.jit(lambda p, s: gradtx.qk_clip(p, s, {"query|key": HeadAxis(1)}, tau))(params, before)
    np.testing.assert_allclose(logits(clipped, x, 3), jnp.minimum(before, tau), rtol=1e-5)
    np.testing.assert_array_equal(clipped["value"], params["value"])
    queries = gradtx.qk_clip(params, before, {"query": HeadAxis(1, 1.0)}, tau)
    np.testing.assert_allclose(logits(queries, x, 3), jnp.minimum(before, tau), rtol=1e-5)


def test_formula_by_path_with_stacked_layers():
    params = {
        "first": {"query": {"kernel": np.full((3, 2, 4), 2.0)}, "out": {"kernel": np.ones((2, 4, 3))}},
        "layers": {"key": {"kernel": np.full((2, 3, 8), 2.0)}},
        "none": None,
    }
    given = {"first": {"query": np.array([400.0, -9.0])}, "layers": np.array([[99.0, 100.0], [200.0, np.nan]])}
    with jax.enable_x64(True):
        found = gradtx.qk_clip(params, given, {"first/query/kernel": HeadAxis(-2), "layers/key/.*": HeadAxis(2, 0.3)})
    expected = np.full((3, 2, 4), 2.0)
    expected[:, 0] *= (100 / 400) ** 0.5
    np.testing.assert_allclose(found["first"]["query"]["kernel"], expected, rtol=1e-12)
    expected = np.full((2, 3, 8), 2.0)
    expected[1, :, :4] *= 0.5**0.3
    np.testing.assert_allclose(found["layers"]["key"]["kernel"], expected, rtol=1e-12)
    np.testing.assert_array_equal(found["first"]["out"]["kernel"], np.ones((2, 4, 3)))
    assert found["none"] is None


def test_half_precision_parameters_round_once():
    p = jnp.asarray(1.171875, jnp.bfloat16) * jnp.ones((2, 2), jnp.bfloat16)
    found = gradtx.qk_clip({"q": p}, jnp.array([300.0, 1.0]), {"q": HeadAxis(1)})["q"]
    assert found.dtype == jnp.bfloat16
    assert found[0, 0] == jnp.asarray(1.171875 / np.sqrt(3), jnp.bfloat16)


@pytest.mark.parametrize(
    ("given", "heads", "text"),
    [
        (jnp.ones(2), {"k": HeadAxis(1)}, r"^qk_clip: the pattern 'k' matches no parameter"),
        (
            jnp.ones(2),
            {"q": HeadAxis(3)},
            r"^qk_clip: the parameter `q` has shape \(4, 6\), expected one with the axis 3 of HeadAxis",
        ),
        (
            jnp.ones(4),
            {"q": HeadAxis(1)},
            r"^qk_clip: the parameter `q` has shape \(4, 6\), and its max_logits \(4,\); expected \(\.\.\., h",
        ),
        ({"v": jnp.ones(2)}, {"q": HeadAxis(1)}, r"^qk_clip: max_logits has nothing for the parameter `q`; it has `v`\.$"),
    ],
)
def test_errors(given, heads, text):
    with pytest.raises(ValueError, match=text):
        gradtx.qk_clip({"q": jnp.ones((4, 6))}, given, heads)


def test_errors_of_arguments():
    params = {"q": jnp.ones((4, 6))}
    with pytest.raises(
        TypeError, match=r"^qk_clip: heads is .*, expected a dict from regular expressions of whole paths to HeadAxis"
    ):
        gradtx.qk_clip(params, jnp.ones(2), {"q": 1})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r"^qk_clip: heads is .*, expected a dict .* HeadAxis\(axis, power in \(0, 1\]\)"):
        gradtx.qk_clip(params, jnp.ones(2), {"q": HeadAxis(1, 2.0)})
    with pytest.raises(ValueError, match=r"^qk_clip: tau is 0\.0 \(float\), expected a finite number > 0"):
        gradtx.qk_clip(params, jnp.ones(2), {"q": HeadAxis(1)}, 0.0)
