"""What `benchmarks/compiled.py` says of programs for a TPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


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
