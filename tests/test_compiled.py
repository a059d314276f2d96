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


def hlo() -> Any:
    spec = importlib.util.spec_from_file_location("hlo", BENCHMARKS / "hlo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hlo"] = module
    spec.loader.exec_module(module)
    return module


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


@pytest.mark.tpu
def test_updates_for_a_tpu_move_what_their_arithmetic_needs() -> None:
    """28 bytes a parameter for AdamW in float32, 22 in bfloat16 with its moments in float32; clipping reads gradients once more."""
    pytest.importorskip("libtpu", reason="compiles for TPUs with libtpu: pip install 'gradtx[tpu]'")
    here = {"JAX_PLATFORMS": "cpu", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-8"}
    command = [sys.executable, str(BENCHMARKS / "compiled.py"), "--case", "a", "--only", "adamw,clipped"]
    done = subprocess.run(command, env={**os.environ, **here}, capture_output=True, text=True, check=True)
    rows = re.findall(r"^\| (\w+), gradtx \| (\d+) \|", done.stdout, re.MULTILINE)
    found = [(name, int(megabytes)) for name, megabytes in rows]
    million = 124.36
    bounds = {"float32": {"adamw": 28, "clipped": 32}, "bfloat16": {"adamw": 22, "clipped": 24}}
    assert [name for name, _ in found] == ["adamw", "clipped"] * 2
    for (name, megabytes), bytes_each in zip(found, [b for kind in bounds.values() for b in kind.values()], strict=True):
        assert megabytes <= 1.02 * bytes_each * million, name


MUON = """
import jax.numpy as jnp
from compiled import Case, compiled
from compiled_rows import ROWS
import gradtx
from hlo import cost

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
