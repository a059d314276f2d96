"""Tracing an update takes time in proportion to the number of leaves, for every row."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from cases import Case, rows

SMALL, LARGE, LARGEST = (8, 20, 32), (20, 60, 100), (100, 200, 400)
"""The larger trees are traced where the smaller ones decide nothing, as for Muon, whose stacks of matrices are still filling."""


def calls_to_trace(case: Any, leaves: int) -> int:
    """Calls of Python and C functions while an update is traced on a tree of so many leaves of one shape."""
    params = {f"{i:03}": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(1)} for i in range(leaves // 2)}
    tx, count = case.make(), 0
    state = jax.eval_shape(tx.init, params)

    def update(updates: Any, state: Any, params: Any) -> Any:
        return tx.update(updates, state, params, **case.extra_for(params))

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1

    sys.setprofile(counted)
    try:
        jax.eval_shape(update, params, state, params)
    finally:
        sys.setprofile(None)
    return count


@rows(2)
def test_tracing_grows_linearly(case: Case) -> None:
    calls_to_trace(case, 4)  # what leaves of one shape share
    assert any(grows_linearly(case, sizes) for sizes in (SMALL, LARGE))


@pytest.mark.slow
@rows()
def test_tracing_grows_linearly_up_to_400_leaves(case: Case) -> None:
    calls_to_trace(case, 4)
    assert grows_linearly(case, LARGEST)


def grows_linearly(case: Any, sizes: tuple[int, int, int]) -> bool:
    few, some, many = (calls_to_trace(case, size) for size in sizes)
    return (many - some) / (sizes[2] - sizes[1]) < 1.25 * (some - few) / (sizes[1] - sizes[0])
