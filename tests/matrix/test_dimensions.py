"""Dimension numbers are found once for each structure and shapes of a tree."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.matrix import dimensions, routing

PARAMS = {"dense": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What looks at paths: a list that grows by a call of each function that does."""
    calls: list[Any] = []

    def counted(function: Any) -> Any:
        return lambda *args, **kwargs: (calls.append(function), function(*args, **kwargs))[1]

    for module, name in (
        (dimensions, "numbers_for"),
        (dimensions, "leaves_by_path"),
        (routing, "leaves_by_path"),
        (routing, "_route"),
    ):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    return calls


def test_a_trace_of_update_after_init_looks_at_no_path(asked: list[Any]) -> None:
    tx = gradtx.muon(0.02, weight_decay=0.1)
    state = tx.init(PARAMS)
    assert asked
    asked.clear()
    for _ in range(2):
        jax.jit(lambda g, s, p: tx.update(g, s, p)).lower(PARAMS, state, PARAMS)
    assert not asked


def test_other_shapes_and_structures_are_asked_again(asked: list[Any]) -> None:
    tx = gradtx.orthogonalize(weight_dimension_numbers=gradtx.matrix_axes())
    for params in (PARAMS, {"dense": PARAMS["dense"]["kernel"]}, {"dense": jnp.ones((2, 2))}):
        asked.clear()
        tx.init(params)
        assert asked
        asked.clear()
        tx.init(params)
        assert not asked


def test_lists_of_axes_have_a_hash() -> None:
    numbers = gradtx.MuonDimensionNumbers([0, 1], 2)  # type: ignore[arg-type]
    assert dimensions.numbers_for("numbers", numbers, jnp.ones((2, 3, 4))) == [gradtx.MuonDimensionNumbers((0, 1), 2)]
