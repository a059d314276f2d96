"""Matrix signs run by the plan of the platform that a program is lowered for, whatever the host is."""

import collections
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.linalg.msign import msign


def products(function: Any, *args: Any, platform: str) -> list[str]:
    """The shapes that products have in the program for a platform."""
    text = jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()
    return re.findall(r"dot_general.*-> tensor<(\S+)xf32>", text)


MATRICES = [jnp.ones((3, 5)), jnp.ones((5, 3)), jnp.ones((3, 5))]
TALL = gradtx.chain(
    gradtx.ema(0.95, nesterov=True), gradtx.orthogonalize("polar_express", 4, normalization="frobenius", method="gram")
)


def updates(grads: Any) -> Any:
    return TALL.update(grads, TALL.init(grads))[0]


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("cpu", {"3x3": 28, "3x5": 2}),  # one segment of four steps, in one function for wide and one for tall matrices
        ("tpu", {"3x3x3": 12, "3x3x5": 2}),  # two segments of two steps
        ("cuda", {"3x3x3": 12, "3x3x5": 2}),
    ],
)
def test_muon(platform: str, expected: dict[str, int]) -> None:
    """Each matrix alone on CPUs; in one stack, by segments as short as narrow products need, on accelerators."""
    assert collections.Counter(products(updates, MATRICES, platform=platform)) == expected


def test_precision_counts_where_it_is_known() -> None:
    """Three passes of bfloat16 carry segments of three steps on a TPU, TF32 those of two."""

    def signs(x: jax.Array) -> jax.Array:
        return msign(x, coefficients="jordan", steps=6, method="gram", precision="high")

    found = {platform: products(signs, jnp.ones((3, 5)), platform=platform) for platform in ("cpu", "tpu", "cuda")}
    assert {platform: shapes.count("3x5") for platform, shapes in found.items()} == {"cpu": 2, "tpu": 2, "cuda": 3}


def test_stacks_of_msign() -> None:
    """On a CPU a loop of single matrices, elsewhere products of the whole stack."""
    x = jnp.ones((4, 3, 5))
    assert set(products(msign, x, platform="cpu")) == {"3x3", "3x5"}
    assert set(products(msign, x, platform="tpu")) == {"4x3x3", "4x3x5"}


@pytest.mark.parametrize("platform", ["tpu", "cpu"])
def test_the_devices_of_the_mesh_decide(platform: str) -> None:
    device = jax.sharding.AbstractDevice(device_kind="any", num_cores=None, platform=platform)
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device)
    tx = gradtx.orthogonalize("jordan", normalization="frobenius", method="gram", distribute="data")

    def step(grads: Any) -> Any:
        return tx.update(grads, tx.init(grads))[0]

    with jax.sharding.use_abstract_mesh(mesh):
        text = str(jax.make_jaxpr(step)(MATRICES))
    assert ("f32[1,3,3]" in text or "f32[3,3,3]" in text) == (platform == "tpu")
    assert "platform_index" not in text


def test_eager_calls_are_those_of_their_device() -> None:
    x = jax.random.normal(jax.random.key(0), (4, 3, 5))
    np.testing.assert_array_equal(msign(x), jax.jit(msign)(x))
