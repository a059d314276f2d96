"""Adam-mini against its definition, and which blocks a parameter has."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import oracles as o
import pytest
import recent_oracles as ro
from problems import distance, quadratic, tanh_regression, trajectory

import gradtx

TANH = tanh_regression()


def by_name(rules: dict[str, Any], problem: Any, steps: int, *after: Any) -> Any:
    """The oracle with blocks for each leaf."""
    paths = {}
    for name, blocks in rules.items():
        alone = {name: problem.params[name]}

        def gradient(p: Any, name: str = name) -> Any:
            return {name: problem.gradient({**problem.params, **p})[name]}

        paths |= o.follow(gradient, alone, steps, partial(ro.adam_mini, blocks=blocks), *after)
    return paths


def test_oracle() -> None:
    """The quadratic has a gradient for each leaf alone."""
    problem = quadratic({"q": (4, 6), "kernel": (3, 4), "weight": (3, 4), "embed": (5, 2), "bias": (3,), "scale": (3,), "g": ()})
    blocks = {"q": (1, 3), "kernel": (1, 4), "weight": (3, 1), "embed": (5, 1), "bias": (3,), "scale": (1,), "g": ()}
    tx = gradtx.adam_mini(o.falling, weight_decay=0.1, head_size=2)
    expected = by_name(blocks, problem, 30, partial(o.decay, weight_decay=0.1), o.rate(o.falling))
    assert distance(trajectory(tx, problem, 30), expected) < 1e-10


def test_with_a_block_for_each_element_it_is_adam() -> None:
    tx = gradtx.adam_mini(0.05, blocks={"w": (5, 3), "b": (3,)})
    assert distance(trajectory(tx, TANH, 30), trajectory(gradtx.adam(0.05), TANH, 30)) < 1e-14


def test_blocks_along_several_axes() -> None:
    problem = quadratic({"heads": (4, 2, 6)})
    tx = gradtx.adam_mini(0.05, blocks={"heads": (2, 2, 3)})
    assert distance(trajectory(tx, problem, 20), by_name({"heads": (2, 2, 3)}, problem, 20, o.rate(0.05))) < 1e-10


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("layers/0/mlp/kernel", (4, 8), (1, 8)),
        ("layers/0/mlp/weight", (8, 4), (8, 1)),
        ("attn/q_proj/kernel", (4, 8), (1, 4)),
        ("attn/wk/weight", (8, 4), (4, 1)),
        ("attn/value/kernel", (4, 8), (1, 8)),
        ("embed/embedding", (10, 4), (10, 1)),
        ("lm_head/kernel", (4, 10), (1, 10)),
        ("conv/kernel", (3, 3, 2, 4), (1, 1, 1, 4)),
        ("conv/weight", (4, 2, 3, 3), (4, 1, 1, 1)),
        ("norm/scale", (4,), (1,)),
        ("mlp/bias", (4,), (4,)),
        ("attn/query/kernel", (4, 2, 3), (1, 2, 1)),
        ("empty/kernel", (0, 3), (0, 3)),
    ],
)
def test_blocks_by_path(path: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    tree: Any = jnp.ones(shape)
    for part in reversed(path.split("/")):
        tree = {part: tree}
    blocks = {".*query/kernel": (1, 2, 1)} if "query" in path else None
    nu = gradtx.scale_by_adam_mini(head_size=2, blocks=blocks).init(tree).nu
    for part in path.split("/"):
        nu = nu[part]
    assert nu.shape == expected


@pytest.mark.parametrize(
    ("arguments", "shape", "text"),
    [
        ({}, (2, 3, 4), r"the parameter `q` has shape \(2, 3, 4\), and nothing tells its blocks\..* blocks={'q': \(1, 1, 4\)}"),
        ({"head_size": 3}, (4, 8), r"head_size is 3, expected a divisor of the 8 outputs of `q`\."),
        (
            {"blocks": {"q": (1, 3)}},
            (4, 8),
            r"blocks gives \(1, 3\) for `q` of shape \(4, 8\), expected a whole number for each axis",
        ),
        ({"blocks": {"q": (1,)}}, (4, 8), r"blocks gives \(1,\) for `q` of shape \(4, 8\)"),
        ({"blocks": {"k": (1, 1)}}, (4, 8), r"the pattern 'k' matches no parameter"),
    ],
)
def test_wrong_blocks(arguments: dict[str, Any], shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ValueError, match="^scale_by_adam_mini: " + text):
        gradtx.scale_by_adam_mini(**arguments).init({"q": jnp.ones(shape)})


def test_a_state_of_other_parameters() -> None:
    tx = gradtx.scale_by_adam_mini()
    with pytest.raises(ValueError, match=r"^scale_by_adam_mini: "):
        tx.update({"a": jnp.ones(2)}, tx.init({"b": jnp.ones(2)}))
