"""What `benchmarks/compiled.py` says of programs for a TPU."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


@pytest.mark.tpu
@pytest.mark.slow
def test_quantized_updates_for_a_tpu_move_less_than_plain_ones() -> None:
    pytest.importorskip("libtpu", reason="compiles for TPUs with libtpu: pip install 'gradtx[tpu]'")
    here = {"JAX_PLATFORMS": "cpu", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-8"}
    names = "adamw,quantize_state,quantize_state_4"
    command = [sys.executable, str(BENCHMARKS / "compiled.py"), "--case", "a", "--layers", "1", "--only", names]
    done = subprocess.run(command, env={**os.environ, **here}, capture_output=True, text=True, check=True)
    found = [int(megabytes) for megabytes in re.findall(r"^\| \w+, gradtx \| (\d+) \|", done.stdout, re.MULTILINE)]
    assert len(found) == 6
    for plain, eight, four in (found[:3], found[3:]):
        assert four <= eight <= 0.8 * plain


def test_a_table_is_written_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later run replaces its lines and leaves the others; what failed, or is of other versions, is no result."""
    module("compiled_rows")
    compiled = module("compiled")
    monkeypatch.setattr(compiled, "heading", lambda: "# jax 1")
    path, section = tmp_path / "table.md", compiled.section(compiled.CASES["a"], "float32")
    sgd, adamw = (compiled.Key(section, f"{name}, gradtx") for name in ("sgd", "adamw"))
    compiled.write(path, {adamw: "| adamw, gradtx | 2 |", sgd: "| sgd, gradtx | 1 |"})
    compiled.write(path, compiled.read(path) | {sgd: "| sgd, gradtx | 3 |"})
    assert compiled.read(path) == {sgd: "| sgd, gradtx | 3 |", adamw: "| adamw, gradtx | 2 |"}
    assert path.read_text().splitlines()[-2:] == ["| sgd, gradtx | 3 |", "| adamw, gradtx | 2 |"]  # in the order of the rows
    compiled.write(path, compiled.read(path) | {sgd: f"| sgd, gradtx | {compiled.FAILED}why |"})
    assert compiled.read(path).keys() == {adamw}
    monkeypatch.setattr(compiled, "heading", lambda: "# jax 2")
    assert not compiled.read(path)


@pytest.mark.tpu
def test_updates_for_a_tpu_move_what_their_arithmetic_needs() -> None:
    """Bytes a parameter.

    28 for AdamW in float32, 22 in bfloat16 with its moments in float32; clipping, and a guard that looks at all results, read what
    they look at once more; a step that ends an accumulation of float32 writes and reads updates too. What compensation and masters of 24 bits add is
    themselves, read and written.
    """
    pytest.importorskip("libtpu", reason="compiles for TPUs with libtpu: pip install 'gradtx[tpu]'")
    bounds = {
        "float32": {"adamw": 28, "clipped": 32, "accumulate": 44, "skip_nonfinite": 44, "kahan": 28, "master_weights_int8": 28},
        "bfloat16": {"adamw": 22, "clipped": 24, "accumulate": 38, "skip_nonfinite": 34, "kahan": 26, "master_weights_int8": 24},
    }
    here = {"JAX_PLATFORMS": "cpu", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-8"}
    command = [sys.executable, str(BENCHMARKS / "compiled.py"), "--case", "a", "--layers", "0", "--library", "gradtx"]
    command += ["--only", ",".join(bounds["float32"])]
    done = subprocess.run(command, env={**os.environ, **here}, capture_output=True, text=True, check=True)
    rows = re.findall(r"^\| (\w+), gradtx \| (\d+) \| \d+ \| (\d+)", done.stdout, re.MULTILINE)
    million = 39.42
    expected = [(name, bytes_each) for kind in bounds.values() for name, bytes_each in kind.items()]
    assert [name for name, *_ in rows] == [name for name, _ in expected]
    for (name, megabytes, temporary), (_, bytes_each) in zip(rows, expected, strict=True):
        assert int(megabytes) <= 1.02 * bytes_each * million, (name, rows)
        assert int(temporary) <= 2 * million, (name, rows)  # no tree beside the state


MUON = """
import jax.numpy as jnp
from compiled import Case, compiled
from compiled_rows import ROWS
import gradtx
from gradtx.diagnostics.hlo import cost

for mesh in ((8, 1), (1, 8), (2, 4)):
    program = compiled(ROWS["muon"].gradtx(), gradtx, ROWS["muon"], Case("v5e:2x4", mesh, 2, 256), jnp.float32)
    found = cost(program.as_text()).number
    print(*mesh, found.pop("all-to-all"), found.pop("all-reduce"), sum(found.values()))
"""


@pytest.mark.tpu
def test_muon_on_8_tpus_moves_matrices_of_a_shape_together() -> None:
    """Two shapes there and back, an axis at a time; a long table moves alone, and sums 3 Gram matrices and a maximum."""
    pytest.importorskip("libtpu", reason="compiles for TPUs with libtpu: pip install 'gradtx[tpu]'")
    here = {"JAX_PLATFORMS": "cpu", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-8"}
    paths = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **here, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", MUON], env=environment, capture_output=True, text=True, check=True)
    assert [tuple(map(int, line.split())) for line in done.stdout.splitlines()] == [
        (8, 1, 6, 4, 0),
        (1, 8, 4, 4, 0),
        (2, 4, 10, 4, 0),
    ]
