"""`explain` says what `muon` does."""

import jax
import jax.numpy as jnp
import pytest

import gradtx

PARAMS = {
    "blocks": {"experts": jnp.zeros((2, 4, 8)), "conv": {"kernel": jnp.zeros((3, 3, 4, 8)), "bias": jnp.zeros(8)}},
    "head": jnp.zeros((8, 3)),
}
RULES = gradtx.matrix_axes({".*experts": gradtx.MuonDimensionNumbers(1, 2)})
TABLE = """
parameter           shape         to    why
blocks/conv/bias    (8,)          adam  a vector
blocks/conv/kernel  (3, 3, 4, 8)  muon  a convolution, by its name: inputs (0, 1, 2), outputs (3,)
blocks/experts      (2, 4, 8)     muon  rule '.*experts': inputs (1,), outputs (2,), batch (0,)
head                (8, 3)        adam  an output head, by the name 'head'
"""


def test_table_of_a_muon_anywhere_in_a_chain():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.muon(0.02, muon_weight_dimension_numbers=RULES))
    assert gradtx.explain(tx, PARAMS) == TABLE.strip()
    assert gradtx.explain(tx, jax.eval_shape(lambda: PARAMS)) == TABLE.strip()
    labels = {path: row.split("  muon  ") for path, row in zip("abcd", TABLE.strip().splitlines()[1:], strict=True)}
    state = tx.init(PARAMS)
    mu = [x.shape for x in jax.tree.leaves(state[1].inner_states["muon"]) if x.ndim]
    assert len(mu) == sum(len(parts) == 2 for parts in labels.values())


def test_given_numbers():
    tx = gradtx.muon(0.02, muon_weight_dimension_numbers={"w": gradtx.MuonDimensionNumbers(), "v": None})
    text = gradtx.explain(tx, {"w": jnp.zeros((2, 3)), "v": jnp.zeros((2, 3))})
    assert text.splitlines()[1:] == [
        "v          (2, 3)  adam  given",
        "w          (2, 3)  muon  given: inputs (0,), outputs (1,)",
    ]


def test_a_muon_by_hand():
    links = gradtx.chain(gradtx.trace(0.9), gradtx.orthogonalize(weight_dimension_numbers=RULES), gradtx.scale(-0.1))
    tx = gradtx.partition({"muon": links, "adam": gradtx.adamw(0.1)}, gradtx.muon_labels(RULES))
    assert gradtx.explain(gradtx.accumulate(tx, 2), PARAMS) == TABLE.strip()
    state = tx.init(PARAMS)
    updates, _ = tx.update(PARAMS, state, PARAMS)
    assert jax.tree.structure(updates) == jax.tree.structure(PARAMS)


@pytest.mark.parametrize(("tx", "found"), [(gradtx.adam(0.1), 0), (gradtx.chain(gradtx.muon(0.1), gradtx.muon(0.1)), 2)])
def test_not_one_muon(tx, found):
    with pytest.raises(ValueError, match=rf"^explain: tx has {found} muon in it, expected one: .*\(learning_rate=0\.1\)\)?\.$"):
        gradtx.explain(tx, {})
