"""`python -m benchmarks`: what it lists, what it leaves out, what it says of failures."""

import os
from pathlib import Path

import pytest

from benchmarks import __main__ as runner
from benchmarks.__main__ import Benchmark


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two programs: one prints, one fails."""
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "shared_code", lambda: [tmp_path / "library.py"])
    (tmp_path / "library.py").touch()
    made = []
    for name, code in (("good", "print(42)"), ("group.bad", "raise ValueError('no memory')")):
        source = tmp_path / f"{name}.py"
        source.write_text(f'"""What is {name}?\n\nMore.\n"""\n{code}\n')
        made.append(Benchmark(name, source, (str(source),), (tmp_path / f"{name}.txt",), prints=True))
    monkeypatch.setattr(runner, "benchmarks", lambda: made)
    return tmp_path


def age(path: Path, seconds: float) -> None:
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))


def test_it_lists_questions_and_results(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["--list"]) == 0
    assert capsys.readouterr().out == (
        "good: What is good?\n    good.txt (not there)\ngroup.bad: What is group.bad?\n    group.bad.txt (not there)\n"
    )


def test_it_runs_what_is_older_than_the_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = folder / "good.txt"
    for path in (folder / "good.py", folder / "library.py"):
        age(path, 100)
    assert runner.main(["--only", "good"]) == 0
    assert result.read_text() == "42\n"
    result.write_text("kept")
    assert runner.main(["--only", "good"]) == 0
    assert result.read_text() == "kept"
    assert "0 to run, 1 up to date" in capsys.readouterr().out
    assert runner.main(["--only", "good", "--force"]) == 0
    assert result.read_text() == "42\n"
    result.write_text("old")
    age(result, 200)
    assert runner.main(["--only", "good"]) == 0
    assert result.read_text() == "42\n"


def test_a_failure_is_reported_and_leaves_the_old_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = folder / "group.bad.txt"
    old.write_text("old")
    assert runner.main(["--force"]) == 1
    printed = capsys.readouterr().out
    assert "[1/2] good" in printed
    assert "group.bad failed:" in printed
    assert "ValueError: no memory" in printed
    assert old.read_text() == "old"
    assert (folder / "good.txt").read_text() == "42\n"


def test_a_folder_is_a_name(folder: Path) -> None:
    assert [b.name for b in runner.chosen(runner.benchmarks(), "group")] == ["group.bad"]


def test_a_wrong_name_is_refused(folder: Path) -> None:
    with pytest.raises(SystemExit, match=r"--only: there is no benchmark 'goo'. Did you mean good\?"):
        runner.main(["--only", "goo"])


def test_every_program_is_there() -> None:
    every = {benchmark.name: benchmark for benchmark in runner.benchmarks()}
    assert all(benchmark.source.is_file() and benchmark.question for benchmark in every.values())
    assert {"compiled", "low_precision", "muon", "networks.train_lm", "step_time", "theory.rates"} <= every.keys()
    assert not {"common", "networks", "quotes", "theory.harness", "theory.digits"} & every.keys()
