"""Matrix signs on automatic axes of 8 host devices, without an argument: equal to one device's, in few collectives."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = pathlib.Path(__file__).with_name("automatic_muon.py")


def measure(*arguments: str) -> dict[str, Any]:
    """Layouts, in one process with 8 devices."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return measure()


def check(measured: dict[str, Any], count: int) -> None:
    layouts = {name: found for name, found in measured.items() if name != "modes"}
    assert len(layouts) == count
    for name, found in layouts.items():
        assert found["error"] < (2 * 0.03 if name == "bfloat16" else 5e-6), name  # of two updates
        assert found["kept"], name


def test_some_layouts_equal_one_device_and_keep_their_sharding(measured):
    check(measured, 6)


@pytest.mark.slow
def test_every_layout_equals_one_device_and_keeps_its_sharding():
    check(measure("all"), 13)


@pytest.mark.parametrize(
    ("name", "kind", "most"),
    [
        ("blocks, tensor", "all-to-all", 4),  # two shapes, there and back
        ("blocks, both", "all-to-all", 8),  # and an axis a time
        ("blocks, rows", "all-to-all", 8),  # what leads out lies the other way round
        ("blocks, replicated", "all-gather", 2),
    ],
)
def test_matrices_of_a_shape_move_together(measured, name, kind, most):
    found = measured[name]["collectives"]
    assert found.keys() == {kind}
    assert len(found[kind]) <= most


def test_two_axes_move_no_more_than_the_matrices(measured):
    """There and back over each axis: four times what a device has, and the zeros that fill its share."""
    elements = 3 * 12 * 32 * 32 / 8
    assert sum(measured["blocks, both"]["collectives"]["all-to-all"]) <= 1.4 * 4 * elements


@pytest.mark.parametrize("mode", ["eager", "vmap", "grad", "jvp", "scan"])
def test_transformations_of_updates(measured, mode):
    assert measured["modes"][mode] < (1e-4 if mode in ("grad", "jvp") else 5e-6)
