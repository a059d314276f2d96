"""What `benchmarks/networks.py` takes from the examples, and the file that it writes."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from benchmarks import networks


def test_numbers_of_the_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"heldout_loss": 2.5, "state_bytes": 400}

    def draw(arguments: list[str]) -> dict[str, dict[str, float]]:
        assert arguments == ["--plot", str(tmp_path / "train_lm.png")]
        Image.new("RGB", (8, 8), (250, 0, 0)).save(arguments[1])
        return {"sgd": row}

    script = SimpleNamespace(main=draw)
    monkeypatch.setitem(sys.modules, "train_lm", script)
    monkeypatch.setattr(sys, "path", sys.path[:])
    networks.main(["train_lm"], tmp_path)
    result = json.loads((tmp_path / "train_lm.json").read_text())
    assert {name: number["value"] for name, number in result["numbers"].items()} == {"loss_sgd": 2.5, "state_bytes_sgd": 400.0}
    with Image.open(tmp_path / "train_lm.png") as picture:
        assert picture.mode == "P"  # few colours
    assert result["benchmark"] == "benchmarks.networks"


def test_numbers_of_flat_minima() -> None:
    row = {"largest": 1.5, "trace": (10.0, 0.5), "flatness": SimpleNamespace(loss=0.1, standard_error=0.01), "accuracy": 0.97}
    numbers = networks.of_sam_flatness({"SAM, without skip connections": row})
    assert {name: (number.value, number.spread) for name, number in numbers.items()} == {
        "lambda_max_sam_without": (1.5, None),
        "trace_sam_without": (10.0, 0.5),
        "flatness_sam_without": (0.1, 0.01),
        "accuracy_sam_without": (0.97, None),
    }


def test_another_example_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        networks.main(["train_nothing"])
    assert "invalid choice: 'train_nothing'" in capsys.readouterr().err
