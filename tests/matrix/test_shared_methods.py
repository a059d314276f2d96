"""Methods of stacks on 8 host devices: equal to one device's, in few collectives, with the matrices shared out."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = pathlib.Path(__file__).with_name("shared_methods.py")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """Every method in every layout, in one process with 8 devices."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_every_layout_equals_one_device_and_keeps_its_sharding(measured):
    assert len(measured) == 22
    for name, found in measured.items():
        assert found["error"] < 2e-5, name
        assert found["kept"], name


@pytest.mark.parametrize("axes", ["Auto", "Explicit"])
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("scion, rows", {"all-to-all": 4, "all-reduce": 1}),
        ("adamuon, rows", {"all-to-all": 4, "all-reduce": 1}),
        ("shampoo, rows", {"all-to-all": 4, "all-gather": 1, "all-reduce": 1}),  # there and back by axis, a vector, norms
        ("shampoo, replicated", {"all-to-all": 1, "all-gather": 2}),  # updates alone
        ("kron, rows", {"all-to-all": 4, "all-gather": 1}),
        ("kron, replicated", {"all-to-all": 1, "all-gather": 2}),
    ],
)
def test_matrices_move_together(measured, name, most, axes):
    found = measured[f"{name}, {axes}"]["collectives"]
    assert found.keys() <= most.keys()
    assert all(count <= most[kind] for kind, count in found.items())


@pytest.mark.parametrize("name", ["shampoo", "kron"])
def test_each_device_keeps_its_share_of_the_matrices(measured, name):
    for layout in ("rows", "replicated"):
        for axes in ("Auto", "Explicit"):
            assert measured[f"{name}, {layout}, {axes}"]["share"] == 1 / 8
