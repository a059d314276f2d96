"""The table of flatness: what it holds for one small network, and, when slow tests run, what it shows."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sam_flatness", EXAMPLES / "sam_flatness.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_one_small_network(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WIDTH": 4, "BLOCKS": 1, "MEASURED": 16, "METHODS": ("SAM",), "TITLES": {True: "small"}}.items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(script, "draw", lambda results, planes, path: path.touch())
    results = script.main(["--epochs", "1", "--plot", str(tmp_path / "flat.png")])
    assert list(results) == ["SAM, small"]
    row = results["SAM, small"]
    assert row["largest"] == pytest.approx(float(row["density"].nodes.max()), rel=1e-2)  # two ways to one number
    assert np.isfinite([*row["trace"], *row["flatness"]]).all()
    assert 0 <= row["accuracy"] <= 1
    assert "SAM" in capsys.readouterr().out


def test_no_epochs_are_refused(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["--epochs", "0"])
    assert "--epochs must be at least 1" in capsys.readouterr().err


@pytest.fixture
def as_users_compile() -> Iterator[None]:
    """With XLA's optimizations, as the script runs: long trainings round apart without them."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_compile")
def test_sam_finds_flatter_minima(script: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "flat.png"
    results = script.main(["--plot", str(path)])
    for title in script.TITLES.values():
        plain, sam = results[f"plain, {title}"], results[f"SAM, {title}"]
        assert sam["largest"] < plain["largest"]
        assert sam["flatness"].loss + 2 * sam["flatness"].standard_error < plain["flatness"].loss
        assert sam["accuracy"] > 0.93
    assert path.read_bytes().startswith(b"\x89PNG")
