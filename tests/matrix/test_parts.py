"""Matrices of unequal widths side by side, and those below each other, move as they would as leaves of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

Numbers = gradtx.MuonDimensionNumbers
QKV = Numbers(0, 1, (8, 4, 4))
LINKS = {
    "orthogonalize": lambda numbers: gradtx.orthogonalize(method="svd", weight_dimension_numbers=numbers),
    "scale_by_shape": lambda numbers: gradtx.scale_by_shape("spectral", weight_dimension_numbers=numbers),
    "scale_by_normuon": lambda numbers: gradtx.scale_by_normuon(weight_dimension_numbers=numbers),
    "scale_by_adamuon": lambda numbers: gradtx.scale_by_adamuon(weight_dimension_numbers=numbers),
    "scale_by_dion2": lambda numbers: gradtx.scale_by_dion2(
        0.5, signs=gradtx.orthogonalize(method="svd"), weight_dimension_numbers=numbers
    ),
    **{
        f"scale_by_lmo, {norm}": lambda numbers, norm=norm: gradtx.scale_by_lmo(
            jax.tree.map(lambda entry: gradtx.NormBall(norm, 1.0, entry), numbers, is_leaf=lambda x: isinstance(x, Numbers)),
            spectral=gradtx.orthogonalize(method="svd"),
        )
        for norm in ("spectral", "sign", "row")
    },
}


def steps(link, numbers, updates):
    """The updates of two steps."""
    tx = link(numbers)
    _, state = tx.update(updates, tx.init(updates))
    return tx.update(jax.tree.map(jnp.sin, updates), state)[0]


def check(link, numbers, together, parts, own, whole):
    """That a leaf moves as its parts do apart."""
    found = steps(link, {"w": numbers}, {"w": together})["w"]
    expected = steps(link, dict.fromkeys(parts, own), parts)
    np.testing.assert_allclose(found, whole([expected[name] for name in parts]), atol=1e-5)


@pytest.mark.parametrize("name", LINKS)
def test_unequal_widths(name):
    w = jax.random.normal(jax.random.key(0), (6, 16))
    parts = dict(zip("qkv", jnp.split(w, [8, 12], axis=1), strict=True))
    check(LINKS[name], QKV, w, parts, Numbers(), lambda new: jnp.concatenate(new, axis=1))


@pytest.mark.parametrize("name", LINKS)
def test_heads_one_below_the_other(name):
    w = jax.random.normal(jax.random.key(0), (12, 5))
    parts = dict(zip("abc", jnp.split(w, 3), strict=True))
    check(LINKS[name], Numbers(0, 1, 1, 3), w, parts, Numbers(), jnp.concatenate)


@pytest.mark.parametrize("name", ["orthogonalize", "scale_by_normuon", "scale_by_dion2"])
def test_with_layers_heads_and_outputs_of_two_axes(name):
    w = jax.random.normal(jax.random.key(0), (2, 8, 4, 3))  # layers, inputs, heads, width: two heads of queries
    parts = dict(zip("qkv", jnp.split(w, [2, 3], axis=2), strict=True))
    check(LINKS[name], Numbers(1, (2, 3), (6, 3, 3)), w, parts, Numbers(1, (2, 3)), lambda new: jnp.concatenate(new, axis=2))
    blocks = w.reshape(2, 2, 4, 4, 3)
    parts = {f"{i}{k}": x for i in range(2) for k, x in enumerate(jnp.split(blocks[:, i], [2, 3], axis=2))}

    def whole(new):
        return jnp.stack([jnp.concatenate(new[:3], axis=2), jnp.concatenate(new[3:], axis=2)], axis=1).reshape(w.shape)

    check(LINKS[name], Numbers(1, (2, 3), (6, 3, 3), 2), w, parts, Numbers(1, (2, 3)), whole)


def test_equal_widths_are_a_number_of_blocks():
    w = jax.random.normal(jax.random.key(0), (6, 12))
    tx = gradtx.orthogonalize(weight_dimension_numbers=Numbers(0, 1, [4, 4, 4]))
    assert tx.numbers(w) == (Numbers(0, 1, 3),)


def test_muon_with_grouped_queries_and_heads():
    params = {"qkv": jnp.ones((8, 16)), "out": jnp.ones((8, 8)), "bias": jnp.ones(16)}
    rules = gradtx.matrix_axes({"qkv": QKV, "out": Numbers(0, 1, 1, 2)})
    tx = gradtx.muon(0.02, muon_weight_dimension_numbers=rules)
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), params)
    updates, _ = tx.update(grads, tx.init(params), params)
    for block in [*jnp.split(updates["qkv"], [8, 12], axis=1), *jnp.split(updates["out"], 2)]:
        singular = np.linalg.svd(block, compute_uv=False)
        assert 0.6 < singular.min() / (0.02 * max(1, block.shape[1] / block.shape[0]) ** 0.5) <= 1.2
    text = gradtx.explain(tx, params)
    assert "inputs (0,), outputs (1,), (8, 4, 4) blocks" in text
    assert "inputs (0,), outputs (1,), 2 blocks of inputs" in text
    assert gradtx.from_config(gradtx.to_config(tx)) == tx


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        (Numbers(0, 1, (8, 5)), r"expected output_blocks that add up to its 12 outputs\.$"),
        (Numbers(0, 1, (13, -1)), r"expected output_blocks that add up to its 12 outputs\.$"),
        (Numbers(0, 1, 1, 4), r"expected input_blocks that divide the 6 elements of its first input axis\.$"),
    ],
)
def test_errors(numbers, text):
    with pytest.raises(ValueError, match=r"^orthogonalize: weight_dimension_numbers gives .* for `w` of shape \(6, 12\), " + text):
        gradtx.orthogonalize(weight_dimension_numbers={"w": numbers}).init({"w": jnp.ones((6, 12))})


def test_blocks_end_where_an_axis_does():
    text = r"expected output_blocks that end where its first output axis does, multiples of 4\.$"
    with pytest.raises(ValueError, match=text):
        gradtx.orthogonalize(weight_dimension_numbers=Numbers(0, (1, 2), (6, 2))).init(jnp.ones((3, 2, 4)))


def test_methods_of_one_stack_refuse_them():
    text = r"^scale_by_shampoo: weight_dimension_numbers gives .*, expected output_blocks that are a number, and input_blocks=1\.$"
    with pytest.raises(ValueError, match=text):
        gradtx.scale_by_shampoo(weight_dimension_numbers=QKV).init(jnp.ones((6, 16)))
