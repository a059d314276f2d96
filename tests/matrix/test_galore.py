"""GaLore against its paper in float64: projections, what they hold, and what sees them."""

from functools import partial
from typing import Any

import adaptive_oracles as ao
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles as o
import pytest
from oracles import falling, rate
from problems import distance, quadratic, tanh_regression, trajectories, trajectory

import gradtx
from gradtx.matrix.dimensions import MuonDimensionNumbers

TANH, TWO = tanh_regression(), quadratic({"tall": (5, 3), "wide": (2, 6), "bias": (3,)})


ROWS: dict[str, tuple[Any, list[Any]]] = {
    "galore": (lambda: gradtx.galore(0.05, 2, 4), [partial(ao.galore, rank=2, gap=4, inner=o.adam), rate(0.05)]),
    "galore, options": (
        lambda: gradtx.galore(falling, 1, 7, 0.25, gradtx.trace(0.9), 0.1),
        [
            partial(ao.galore, rank=1, gap=7, scale=0.25, inner=partial(o.heavy_ball, beta=0.9)),
            partial(o.decay, weight_decay=0.1),
            rate(falling),
        ],
    ),
}


@pytest.mark.parametrize("problem", [TANH, TWO], ids=["tanh", "quadratic"])
@pytest.mark.parametrize("name", ROWS)
def test_the_paper(name: str, problem: Any) -> None:
    make, rules = ROWS[name]
    assert distance(trajectory(make(), problem, 30), o.follow(problem.gradient, problem.params, 30, *rules)) < 1e-10


OPTAX: dict[str, Any] = {
    "galore": lambda lib, at: at.galore(falling, 2, 7, 0.5, lib.scale_by_adam(eps=1e-3), 0.1, {"w": True, "b": False}),
    "scale_by_galore": lambda lib, at: lib.chain(at.scale_by_galore(1, 3), lib.scale(-0.01)),
}


@pytest.mark.parametrize("name", OPTAX)
def test_optax(name: str) -> None:
    """Bases turn with the last bits of gradients, so the tolerance is that of a decomposition."""
    txs = [OPTAX[name](gradtx, gradtx), OPTAX[name](optax, optax.contrib)]
    assert distance(*trajectories(txs, TANH, 100, np.float32)) < 1e-5


def test_at_full_rank_nothing_is_lost() -> None:
    grads = {"tall": jnp.arange(12.0).reshape(4, 3) ** 2, "wide": jnp.sin(jnp.arange(10.0)).reshape(2, 5)}
    tx = gradtx.scale_by_galore(8, base_optimizer=gradtx.identity())
    updates, _ = tx.update(grads, tx.init(grads))
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, g, rtol=1e-4, atol=1e-4), updates, grads)


def test_moments_are_of_projections() -> None:
    params = {"w": jnp.ones((16, 8)), "b": jnp.ones(8)}
    state = gradtx.scale_by_galore(2).init(params)
    assert state.projector["w"].shape == (1, 16, 2)
    assert state.base_optimizer_state.mu["w"].shape == (1, 2, 8)
    assert state.base_optimizer_state.mu["b"].shape == (8,)
    kept = sum(x.size for x in jax.tree.leaves(state))
    assert kept < sum(x.size for x in jax.tree.leaves(gradtx.scale_by_adam().init(params)))


def test_axes_that_are_one_together_are_those_of_optax() -> None:
    params = {"heads": jnp.cos(jnp.arange(24.0)).reshape(4, 3, 2), "w": jnp.ones((2, 2))}
    moved = []
    for lib, numbers in ((gradtx, MuonDimensionNumbers), (optax.contrib, optax.contrib.GaLoreDimensionNumbers)):
        tx = lib.galore(0.1, 2, weight_dimension_numbers={"heads": numbers(0, (1, 2)), "w": None})
        moved.append(tx.update(params, tx.init(params), params)[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *moved)


def test_numbers_for_all_leave_vectors_alone() -> None:
    params = {"heads": jnp.ones((4, 3, 2)), "bias": jnp.ones(3)}
    state = gradtx.scale_by_galore(1, weight_dimension_numbers=MuonDimensionNumbers(0, 1)).init(params)
    assert state.projector["heads"].shape == (2, 4, 1)  # the last axis is a batch of matrices
    assert state.base_optimizer_state.mu["bias"].shape == (3,)


def test_complex_matrices() -> None:
    grads = jnp.array([[1 + 1j, 2.0], [0.5j, 1.0], [2.0, -1j]])
    tx = gradtx.scale_by_galore(2, base_optimizer=gradtx.identity())
    np.testing.assert_allclose(tx.update(grads, tx.init(grads))[0], grads, rtol=1e-5, atol=1e-5)


def test_the_summary_sees_the_projections() -> None:
    params = {"w": jax.ShapeDtypeStruct((64, 32), jnp.float32), "b": jax.ShapeDtypeStruct((32,), jnp.float32)}
    assert "galore" in str(gradtx.summary(gradtx.galore(0.1, rank=2), params))
