"""Distributed matrix signs on 8 host devices: equal to one device's, with the fewest collectives."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx

SCRIPT = pathlib.Path(__file__).with_name("distributed_muon.py")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """Every layout, in one process with 8 devices."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_every_layout_equals_one_device_and_keeps_its_sharding(measured):
    assert len(measured) == 17
    for name, found in measured.items():
        assert found["error"] < (0.03 if "bfloat16" in name else 5e-6), name
        assert found["kept"], name


@pytest.mark.parametrize("name", ["rows, auto", "rows, explicit"])
def test_rows_of_48_matrices_take_two_all_to_alls(measured, name):
    found = measured[name]["collectives"]
    assert found.keys() == {"all-to-all"}
    assert len(found["all-to-all"]) == 2
    assert 4 * sum(found["all-to-all"]) <= 0.8e6  # bytes a device; the gradients have 2.36e6


@pytest.mark.parametrize("name", ["two axes, auto", "two axes, explicit", "svd"])
def test_two_axes_are_one_hop(measured, name):
    found = measured[name]["collectives"]
    assert found.keys() == {"all-to-all"}
    assert len(found["all-to-all"]) == 2


@pytest.mark.parametrize("name", ["replicated, auto", "replicated, explicit"])
def test_replicated_parameters_take_one_all_gather(measured, name):
    found = measured[name]["collectives"]
    assert found.keys() == {"all-gather"}
    assert len(found["all-gather"]) == 1


def test_few_matrices_cut_along_their_long_side_sum_gram_matrices_alone(measured):
    found = measured["long side"]["collectives"]
    assert found.keys() == {"all-reduce"}
    assert sum(found["all-reduce"]) == 2 * 16 * 16 + 2  # R of two matrices of 16 rows, and their largest entries


def test_rounds_bound_the_memory(measured):
    assert len(measured["rounds"]["collectives"]["all-to-all"]) == 2 * 3  # three shapes, one at a time


@pytest.mark.parametrize(
    ("distribute", "text"),
    [
        ("x", r"^orthogonalize: distribute is \('x',\), but there is no mesh\. Call it under jax\.set_mesh\(mesh\)\.$"),
        ("y", r"^orthogonalize: distribute has the axis 'y', expected one of the mesh's: \('x',\)\.$"),
    ],
)
def test_errors(distribute, text):
    tx, grads = gradtx.orthogonalize(distribute=distribute), jnp.ones((4, 4))
    if distribute == "x":
        with pytest.raises(ValueError, match=text):
            tx.update(grads, tx.init(grads))
        return
    with jax.set_mesh(jax.make_mesh((1,), ("x",))), pytest.raises(ValueError, match=text):
        tx.update(grads, tx.init(grads))


def test_one_device_is_a_mesh_too():
    grads = {"w": jax.random.normal(jax.random.key(0), (4, 6))}
    plain, shared = gradtx.orthogonalize(), gradtx.orthogonalize(distribute="x")
    with jax.set_mesh(jax.make_mesh((1,), ("x",))):
        found, _ = jax.jit(shared.update)(grads, shared.init(grads))
    assert jnp.allclose(found["w"], plain.update(grads, plain.init(grads))[0]["w"], atol=1e-5)


def test_configs():
    tx = gradtx.orthogonalize(distribute=gradtx.Distribution(("x", "y")))
    assert gradtx.from_config(gradtx.to_config(tx)) == tx
