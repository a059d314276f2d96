"""Training that stops and goes on ends where training in one go ends, on 8 devices too."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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


def test_it_goes_on_where_it_was(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "SAVE_EVERY", 20)
    whole = script.main(["--steps", "60", "--folder", str(tmp_path / "whole")])
    assert whole["loss"] < 0.5
    script.main(["--steps", "60", "--stop", "35", "--folder", str(tmp_path / "cut")])
    capsys.readouterr()
    rest = script.main(["--steps", "60", "--folder", str(tmp_path / "cut")])
    assert "goes on at step 20" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, rest["params"], whole["params"])
    assert int(rest["state"][1][0].count) == 60


def test_on_eight_devices(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_CPU_ENABLE_ASYNC_DISPATCH": "0"}
    command = [sys.executable, str(PATH), "--steps", "10", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "on each of 8 devices" in done.stdout
    assert "step 10: loss" in done.stdout
