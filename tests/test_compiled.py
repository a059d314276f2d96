"""What `benchmarks/compiled.py` reads from compiled programs, and what it says of programs for a TPU."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
PROGRAM = """HloModule step

%body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[], f32[8,128]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8,128]{1,0} get-tuple-element(%p), index=1
  %y = f32[8,128]{1,0} multiply(%x, %x), backend_config={"estimated_cycles":"100"}
  ROOT %t = (s32[], f32[8,128]{1,0}) tuple(%i, %y)
}

%condition (q: (s32[], f32[8,128])) -> pred[] {
  %q = (s32[], f32[8,128]{1,0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

%cheap (c: bf16[8,128]) -> bf16[8,128] {
  ROOT %c = bf16[8,128]{1,0} parameter(0)
}

%dear (d: bf16[8,128]) -> bf16[8,128] {
  %d = bf16[8,128]{1,0} parameter(0)
  ROOT %e = bf16[8,128]{1,0} negate(%d)
}

ENTRY %main (a: f32[8,128], b: bf16[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0} parameter(0)
  %b = bf16[8,128]{1,0} parameter(1)
  %fast = f32[8,128]{1,0:T(8,128)S(1)} negate(%a), backend_config={"estimated_cycles":"7"}
  %zero = s32[] constant(0)
  %init = (s32[], f32[8,128]{1,0}) tuple(%zero, %a)
  %loop = (s32[], f32[8,128]{1,0}) while(%init), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %last = f32[8,128]{1,0} get-tuple-element(%loop), index=1
  %chosen = bf16[8,128]{1,0} conditional(%zero, %b, %b), branch_computations={%cheap, %dear}
  ROOT %sum = f32[8,128]{1,0} all-reduce(%last), replica_groups={}, to_apply=%condition
}
"""


def module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


def hlo() -> Any:
    return module("hlo")


def test_bytes_cycles_and_collectives_of_a_program() -> None:
    """A loop counts as often as it runs; vector memory (`S(1)`) is free; of a conditional the dearest branch counts."""
    size = 8 * 128 * 4
    cost = hlo().cost(PROGRAM)
    loop, negated, exchanged, branch = 3 * 3 * size, size, 2 * size, 2 * size // 2
    assert cost.hbm == loop + negated + exchanged + branch
    assert cost.cycles == 3 * 100 + 7
    assert cost.number == {"all-reduce": 1}
    assert cost.moved == {"all-reduce": size}


def test_the_cheapest_branch_of_a_conditional() -> None:
    program = hlo()
    assert program.cost(PROGRAM).hbm - program.cost(PROGRAM, cheapest=True).hbm == 2 * 8 * 128 * 2


def test_a_table_is_written_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later run replaces its lines and leaves the others; what failed, or is of other versions, is no result."""
    hlo()
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
    they look at once more; a step that ends an accumulation of float32 writes and reads updates too.
    """
    pytest.importorskip("libtpu", reason="compiles for TPUs with libtpu: pip install 'gradtx[tpu]'")
    bounds = {
        "float32": {"adamw": 28, "clipped": 32, "accumulate": 44, "skip_nonfinite": 44},
        "bfloat16": {"adamw": 22, "clipped": 24, "accumulate": 38, "skip_nonfinite": 34},
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
