"""SOAP against the authors' code in NumPy, over stacks, long sides, vectors and batches."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import second_order_oracles as so

import gradtx

STEPS = 30
NUMBERS = gradtx.MuonDimensionNumbers


def paths(shapes: dict[str, tuple[int, ...]], steps: int = STEPS) -> dict[str, np.ndarray]:
    """Gradients that share most of their directions, so that bases mean something."""
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal((steps, *shape)) * np.geomspace(1, 0.05, shape[-1] if shape else 1).reshape(-1 if shape else ())
        for name, shape in shapes.items()
    }


def updates_of(tx: Any, path: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """The updates of each step, stacked, and the state after the first step."""
    first = {name: jnp.asarray(steps[0]) for name, steps in path.items()}
    _, state = tx.update(first, tx.init(first), first)
    rest = {name: jnp.asarray(steps[1:]) for name, steps in path.items()}
    _, found = jax.lax.scan(lambda s, u: tx.update(u, s)[::-1], state, rest)
    return found, state


def expected(rule: Any, steps: np.ndarray) -> np.ndarray:
    state: dict[str, Any] = {}
    return np.stack([rule(g, g, t, state) for t, g in enumerate(steps, start=1)])[1:]


SHAPES = {"square": (5, 5), "wide": (4, 7), "tall": (7, 4), "other": (5, 5), "vector": (6,), "number": ()}
SQUARE, SHORT = {"square": (0, 1), "other": (0, 1)}, {"square": (0,), "other": (0,), "wide": (0,), "tall": (1,)}
LONG_SIDES = {"square": (), "other": (), "wide": (0,), "tall": (1,)}
ONE_SIDE, LONG = {"one_sided": True, "precondition_frequency": 4}, {"max_precond_dim": 4, "precondition_frequency": 4}
ROWS: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "soap": (gradtx.scale_by_soap, so.soap, {}, {}, SQUARE),
    "soap, options": (
        gradtx.scale_by_soap,
        so.soap,
        {"b1": 0.8, "b2": 0.9, "shampoo_beta": 0.7, "eps": 1e-3, "precondition_frequency": 3, "normalize": True},
        {"b1": 0.8, "b2": 0.9, "beta": 0.7, "eps": 1e-3, "every": 3, "normalize": True},
        SQUARE,
    ),
    "soap, each step": (gradtx.scale_by_soap, so.soap, {"precondition_frequency": 1}, {"every": 1}, SQUARE),
    "soap, one side": (gradtx.scale_by_soap, so.soap, ONE_SIDE, {"every": 4}, SHORT),
    "soap, long sides": (gradtx.scale_by_soap, so.soap, LONG, {"every": 4}, LONG_SIDES),
    "kl_soap": (gradtx.scale_by_kl_soap, so.kl_soap, {}, {}, SQUARE),
    "kl_soap, options": (
        gradtx.scale_by_kl_soap,
        so.kl_soap,
        {"b1": 0.8, "b2": 0.9, "shampoo_beta": 0.7, "eps": 1e-3, "precondition_frequency": 3},
        {"b1": 0.8, "b2": 0.9, "beta": 0.7, "eps": 1e-3, "every": 3},
        SQUARE,
    ),
    "kl_soap, one side": (gradtx.scale_by_kl_soap, so.kl_soap, ONE_SIDE, {"every": 4}, SHORT),
    "soap_muon": (gradtx.scale_by_soap_muon, so.soap_muon, {}, {}, SQUARE),
    "soap_muon, options": (
        gradtx.scale_by_soap_muon,
        so.soap_muon,
        {"beta": 0.8, "b2": 0.8, "shampoo_beta": 0.7, "eps": 1e-1, "precondition_frequency": 3},
        {"mu": 0.8, "b2": 0.8, "beta": 0.7, "eps": 1e-1, "every": 3},
        SQUARE,
    ),
    "soap_muon, one side": (gradtx.scale_by_soap_muon, so.soap_muon, ONE_SIDE, {"every": 4}, SHORT),
}


@pytest.mark.parametrize("name", ROWS)
def test_oracle(name: str) -> None:
    make, oracle, arguments, of_oracle, axes = ROWS[name]
    path = paths({leaf: shape for leaf, shape in SHAPES.items() if len(shape) < 2 or leaf in axes})
    with jax.enable_x64(True):
        found, _ = updates_of(make(**arguments), path)
    for leaf, steps in path.items():
        rule = partial(oracle, axes=axes.get(leaf, ()), **of_oracle)
        np.testing.assert_allclose(found[leaf], expected(rule, steps), rtol=0, atol=1e-10, err_msg=leaf)
