"""SOAP on 8 host devices, in every layout: equal to one device's, with Muon's collectives; its state lies apart."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = pathlib.Path(__file__).with_name("distributed_soap.py")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """Every layout, in one process with 8 devices."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_every_layout_equals_one_device(measured: dict[str, Any]) -> None:
    assert len(measured) == 9
    for name, found in measured.items():
        assert found["moved"] > 0.1, name
        assert found["error"] < 1e-10, name


def test_parameters_and_state_stay_where_they_were(measured: dict[str, Any]) -> None:
    for name, found in measured.items():
        assert found["stated"], name  # as `state_sharding` says
        assert found["kept"], name
        assert found["share"] <= 0.14, name  # of the state, on each of 8 devices; the rest are matrices of odd shapes


@pytest.mark.parametrize("name", ["rows, auto", "rows, explicit"])
def test_gradients_go_there_and_updates_back_and_nothing_else_moves(measured: dict[str, Any], name: str) -> None:
    assert measured[name]["collectives"] == {"all-to-all": [16 * 16 * 16 / 8] * 2}


@pytest.mark.parametrize("name", ["two axes, auto", "two axes, explicit"])
def test_two_axes_take_two_all_to_alls_each_way(measured: dict[str, Any], name: str) -> None:
    assert measured[name]["collectives"] == {"all-to-all": [8 * 16 * 16 / 8] * 4}


def test_whole_parameters_take_one_all_gather_of_updates(measured: dict[str, Any]) -> None:
    assert measured["replicated"]["collectives"] == {"all-gather": [8 * 16 * 16]}


def test_a_batch_that_lies_apart_sends_nothing(measured: dict[str, Any]) -> None:
    assert measured["experts"]["collectives"] == {}


def test_where_devices_do_not_divide_the_matrices_each_part_of_the_state_moves_too(measured: dict[str, Any]) -> None:
    """A gradient, an update, and six parts of the state there and back: of 8 matrices, of which three are not zeros."""
    assert measured["three matrices"]["collectives"] == {"all-to-all": [16 * 16] * 14}
