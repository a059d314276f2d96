"""Training that stops and goes on ends where training in one go ends, on other devices and in other processes too."""

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "examples" / "train_distributed.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_distributed", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_goes_on_where_it_was(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    always = ["--steps", "6", "--save-every", "2", "--batch", "2", "--optimizer", "adamw", "--bits", "8"]
    whole = script.main([*always, "--folder", str(tmp_path / "whole")])
    script.main([*always, "--stop", "5", "--folder", str(tmp_path / "cut")])
    assert "1 devices: 1 along data, 1 along model" in capsys.readouterr().out
    rest = script.main([*always, "--folder", str(tmp_path / "cut")])
    assert "goes on at step 4" in capsys.readouterr().out
    assert rest["losses"] == whole["losses"]
    jax.tree.map(np.testing.assert_array_equal, rest["params"], whole["params"])
    assert rest["starts"] == [(0, 1), (4, 1)]
    assert (tmp_path / "cut" / "curve.png").stat().st_size > 10_000


def started(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")} | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(PATH), "--steps", "6", "--save-every", "2", "--batch", "8", "--folder", str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run(folder: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What it prints, and its last checkpoint."""
    process = started(folder, *arguments)
    output, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]
    return output, pickle.loads((folder / "train.pickle").read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--bits", "8"), ("--optimizer", "adamw", "--zero1")], ids=" ".join)
def test_killed_on_eight_devices_it_goes_on_on_four(tmp_path: Path, options: tuple[str, ...]) -> None:
    _, whole = run(tmp_path / "whole", "--devices", "8", *options)
    process = started(tmp_path / "killed", "--devices", "8", *options)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 4"):
            process.kill()
    process.communicate()
    output, rest = run(tmp_path / "killed", "--devices", "4", *options)
    assert "goes on at step 4" in output
    assert "4 devices: 2 along data, 2 along model" in output
    assert rest["starts"] == [(0, 8), (4, 4)]
    assert rest["losses"][:4] == whole["losses"][:4]
    np.testing.assert_allclose(rest["losses"], whole["losses"], rtol=1e-3)


@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_alone(tmp_path: Path) -> None:
    """The state is in two processes, a half in each, and the file has the whole."""
    _, whole = run(tmp_path / "whole", "--devices", "8")
    two = "--devices", "8", "--processes", "2"
    run(tmp_path / "two", *two, "--stop", "3")
    output, found = run(tmp_path / "two", *two, "--stop", "4")
    assert output.count("goes on at step 2") == 1  # of two processes one speaks
    assert len(found["losses"]) == 4
    _, rest = run(tmp_path / "two", "--devices", "4")
    np.testing.assert_allclose(rest["losses"], whole["losses"], rtol=1e-3)
