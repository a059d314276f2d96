"""Training that is killed at random steps ends, bit for bit, where training that nobody kills ends."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed.py")
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}


def run(folder: Path, store: str, steps: int | None) -> list[str]:
    """What it prints until it ends, or until it is killed, without a warning, after some steps."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(SCRIPT), str(folder), store]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if steps is not None and len(lines) == steps:
            process.kill()
    _, errors = process.communicate()
    assert lines, errors[-3000:]
    return lines


def check(tmp_path: Path, store: str, kills: int) -> None:
    whole = run(tmp_path / "whole", store, None)
    assert len(whole) == 41
    chance = random.Random(kills)
    for _ in range(kills):
        lines = run(tmp_path / "killed", store, chance.randint(1, 3))
        assert len(lines) < 41
    last = run(tmp_path / "killed", store, None)
    assert int(last[0]) > 1
    assert last[-1] == whole[-1]


def test_twice_with_pickle(tmp_path: Path) -> None:
    check(tmp_path, "pickle", 2)


@pytest.mark.slow
@pytest.mark.parametrize("store", ["pickle", "orbax"])
def test_ten_times(tmp_path: Path, store: str) -> None:
    check(tmp_path, store, 10)
