"""The picture of the saddle: what leaves it and what stays."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "examples" / "saddle.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("saddle", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_noise_leaves_the_saddle(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "saddle.png"
    results = script.main(["--steps", "120", "--seed", "1", "--plot", str(path)])
    assert list(results) == ["gradient descent", "perturbed GD", "perturbed SGD", "SGLD"]
    for name, result in results.items():
        assert {field: values.shape for field, values in result.items()} == dict.fromkeys(("x", "y", "loss"), (121,))
        assert (result["x"][0], result["y"][0], result["loss"][0]) == (1.0, 0.0, 1.0)
        if name == "gradient descent":
            assert np.all(result["y"] == 0)
            assert abs(result["loss"][-1]) < 1e-6
        else:
            assert result["loss"][-1] == pytest.approx(script.LOWEST, abs=0.03)
    assert path.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert str(path) in printed.replace("\n", "")
    assert "perturbed GD" in printed


def test_steps_below_one_are_refused(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["--steps", "0"])
    assert "--steps must be at least 1" in capsys.readouterr().err
