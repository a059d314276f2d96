"""Which parameters are matrices: the rules, their order, and what they say where nothing can be told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradtx
from gradtx import MuonDimensionNumbers as Numbers
from gradtx.matrix.dimensions import from_matrices, numbers_for, to_matrices


def numbers(path, shape, rules=None):
    """What `matrix_axes` says of one parameter."""
    tree = jnp.zeros(shape)
    for part in reversed(path.split("/")):
        tree = {part: tree}
    return next(iter(numbers_for("numbers", gradtx.matrix_axes(rules), tree)))


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("layers/0/kernel", (8, 16), Numbers(0, 1)),
        ("layers/0/weight", (16, 8), Numbers(1, 0)),
        ("mlp/~/linear_0/w", (8, 16), Numbers(0, 1)),
        ("attention/out/kernel", (8, 8), Numbers(0, 1)),
        ("layers/0/bias", (16,), None),
        ("temperature", (), None),
        ("attention/query/bias", (4, 16), None),
        ("layers/norm/scale", (12, 64), None),
        ("wte/embedding", (100, 8), None),
        ("token_embed/kernel", (100, 8), None),
        ("wpe", (64, 8), None),
        ("lm_head/kernel", (8, 100), None),
        ("Head/kernel", (8, 10), None),
        ("classifier/weight", (10, 8), None),
        ("multi_head/kernel", (8, 8), Numbers(0, 1)),
        ("blocks/0/qkv/kernel", (8, 24), Numbers(0, 1, 3)),
        ("blocks/0/c_attn/kernel", (8, 24), Numbers(0, 1, 3)),
        ("conv1/kernel", (3, 3, 8, 16), Numbers((0, 1, 2), 3)),
        ("Conv_0/kernel", (5, 8, 16), Numbers((0, 1), 2)),
        ("conv/weight", (16, 8, 3, 3), Numbers((1, 2, 3), 0)),
    ],
)
def test_default_rules(path, shape, expected):
    assert numbers(path, shape) == expected


def test_own_rules_come_first():
    assert numbers("experts/up", (4, 8, 16), {"experts/.*": Numbers(1, 2)}) == Numbers(1, 2)
    assert numbers("lm_head/kernel", (8, 100), {"lm_head/kernel": "muon"}) == Numbers(0, 1)
    assert numbers("layers/0/kernel", (8, 16), {"layers/.*": "adam"}) is None
    assert numbers("qkv/kernel", (8, 20), {"qkv/kernel": "muon"}) == Numbers(0, 1)


def test_nnx_has_the_same_paths_in_init_and_update():
    class Model(nnx.Module):
        def __init__(self):
            self.inner = nnx.Linear(4, 8, rngs=nnx.Rngs(0))
            self.head = nnx.Linear(8, 3, rngs=nnx.Rngs(0))

    model = Model()
    optimizer = nnx.Optimizer(model, gradtx.muon(0.02), wrt=nnx.Param)
    before = jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    optimizer.update(model, jax.tree.map(lambda p: p + 0.1, nnx.state(model, nnx.Param)))
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    change = np.linalg.svd(after["inner"]["kernel"] - before["inner"]["kernel"], compute_uv=False)
    assert np.all((change > 0.4 * 0.02 * np.sqrt(2)) & (change < 1.4 * 0.02 * np.sqrt(2)))
    np.testing.assert_allclose(
        np.abs(after["head"]["kernel"] - before["head"]["kernel"]), 0.02 * (1 + 0.09 / 0.19), rtol=1e-3
    )  # Nadam's first step


@pytest.mark.parametrize("entry", [Numbers(0, 2), Numbers((2, 0), 1), Numbers(-1, 0), Numbers(1, 2, 3), Numbers(0, (1, 2), 2)])
def test_matrices_and_back(entry):
    x = jax.random.normal(jax.random.key(0), (2, 4, 6))
    matrices = to_matrices(x, entry)
    assert matrices.ndim == 3
    np.testing.assert_array_equal(from_matrices(matrices, entry, x.shape), x)


def test_trees_prefixes_and_functions():
    params = {"a": {"x": jnp.zeros((2, 3)), "y": jnp.zeros((3, 2))}, "b": jnp.zeros((2, 2)), "none": None}
    tree = {"a": Numbers(1, 0), "b": None, "none": None}
    assert numbers_for("n", tree, params) == [Numbers(1, 0), Numbers(1, 0), None]
    assert numbers_for("n", lambda p: tree, params) == [Numbers(1, 0), Numbers(1, 0), None]
    assert numbers_for("n", Numbers(), params) == [Numbers()] * 3


def test_rules_print_compare_and_make_configs():
    rule = gradtx.matrix_axes({"experts/.*": Numbers(1, 2), "table": "adam"})
    assert rule == gradtx.matrix_axes({"experts/.*": Numbers(1, 2), "table": "adam"})
    tx = gradtx.muon(0.02, muon_weight_dimension_numbers=rule)
    assert gradtx.from_config(gradtx.to_config(tx)) == tx


@pytest.mark.parametrize(
    ("path", "shape", "rules", "text"),
    [
        (
            "blocks/query/kernel",
            (8, 2, 4),
            None,
            r"the parameter `blocks/query/kernel` has shape \(8, 2, 4\), and nothing tells which of its axes make a matrix\. Write a rule: "
            r"gradtx\.matrix_axes\(\{'blocks/query/kernel': gradtx\.MuonDimensionNumbers\(0, \(1, 2\)\)\}\) for \(inputs, heads, width\) as one "
            r"matrix; or MuonDimensionNumbers\(0, 2\) for a matrix for each head; MuonDimensionNumbers\(\(0, 1\), 2\) for \(heads, width, outputs\) "
            r"as one matrix; MuonDimensionNumbers\(1, 2\) for matrices along axis 0 \(scanned layers, experts\); or 'adam'\.",
        ),
        (
            "attention/out/kernel",
            (2, 4, 8),
            None,
            r".*\{'attention/out/kernel': gradtx\.MuonDimensionNumbers\(\(0, 1\), 2\)\}\) for \(heads, .*",
        ),
        ("up", (2, 4, 8), None, r".*\{'up': gradtx\.MuonDimensionNumbers\(1, 2\)\}\) for matrices along axis 0 .*"),
        (
            "b",
            (3,),
            {"b": "muon"},
            r"the rule of 'b' is 'muon', but `b` has shape \(3,\)\. A vector or a number is no matrix: its rule can only be 'adam'\.",
        ),
        (
            "qkv/kernel",
            (8, 20),
            None,
            r"the parameter `qkv/kernel` has shape \(8, 20\) and is named 'qkv', but its output is not three times its input\. Write a rule: "
            r"gradtx\.matrix_axes\(\{'qkv/kernel': 'muon'\}\) for one matrix, or MuonDimensionNumbers\(output_blocks=\.\.\.\) for equal parts, or with their widths, \(queries, keys, values\)\.",
        ),
        (
            "experts/up",
            (2, 3, 4),
            {"experts/up": "muon"},
            r"the rule of 'experts/up' is 'muon', but `experts/up` has shape \(2, 3, 4\)\. Write.*",
        ),
        (
            "w",
            (2, 3),
            {"w": Numbers(0, 2)},
            r".* gives MuonDimensionNumbers\(.*\) for `w` of shape \(2, 3\), expected axes that it has\.",
        ),
        ("w", (2, 3), {"w": Numbers(0, -2)}, r".* for `w` of shape \(2, 3\), expected axes that are all different\."),
        ("w", (2, 3), {"w": Numbers(0, 1, 2)}, r".* for `w` of shape \(2, 3\), expected output_blocks that divide its 3 outputs\."),
        ("w", (2, 3), {"v": "adam"}, r"matrix_axes: the pattern 'v' matches no parameter .*"),
    ],
)
def test_errors_at_parameters(path, shape, rules, text):
    with pytest.raises(ValueError, match=f"^(matrix_axes: )?{text}$"):
        numbers(path, shape, rules)


@pytest.mark.parametrize(
    ("rules", "error", "text"),
    [
        (["w"], TypeError, r"matrix_axes: rules is a list of 1, expected a dict from regular expressions to dimension numbers\."),
        (
            {"w": "mun"},
            TypeError,
            r"matrix_axes: the rule of 'w' is 'mun' \(str\), expected MuonDimensionNumbers\(\.\.\.\), 'muon' or 'adam'\.",
        ),
        ({"(": "adam"}, ValueError, r"matrix_axes: rules has the pattern '\(', expected a regular expression .*"),
    ],
)
def test_errors_of_rules(rules, error, text):
    with pytest.raises(error, match=f"^{text}$"):
        gradtx.matrix_axes(rules)


def test_errors_of_trees():
    with pytest.raises(
        ValueError, match=r"^n has nothing for the leaf `b`\. Rules by path go through gradtx\.matrix_axes\(\{\.\.\.\}\)\.$"
    ):
        numbers_for("n", {"a": Numbers()}, {"a": jnp.zeros((2, 2)), "b": jnp.zeros(2)})
    with pytest.raises(TypeError, match=r"^n gives 3 \(int\) for `a`, expected MuonDimensionNumbers or None\.$"):
        numbers_for("n", {"a": 3}, {"a": jnp.zeros((2, 2))})


def test_all_unclear_parameters_are_named():
    params = {name: {"kernel": jnp.zeros((2, 4, 8))} for name in ("key", "out", "query")}
    with pytest.raises(
        ValueError, match=r"the parameter `key/kernel` has .* So it is with `out/kernel` \(2, 4, 8\), `query/kernel` \(2, 4, 8\)\.$"
    ):
        gradtx.matrix_axes()(params)
