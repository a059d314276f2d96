"""The machinery between a call and a kernel stays as small as it has become: what `benchmarks/structure.py` prints."""

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parent.parent / "benchmarks" / "structure.py"
REACHED = {
    "calls to build adamw": 13,
    "calls in a traced update of adamw": 68,
    "hops in a traced update of adamw": 25,
    "files in a traced update of adamw": 9,
    "calls in a traced update of muon": 144,
    "files in a traced update of muon": 19,
    "fields of the largest factory": 12,
    "Any per 1,000 code lines": 8,
    "code lines of core": 1635,
    "public names": 289,
}


@pytest.fixture(scope="module")
def counts() -> dict[str, int]:
    spec = importlib.util.spec_from_file_location("structure", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["structure"] = module
    spec.loader.exec_module(module)
    return module.measure()


@pytest.mark.parametrize("name", REACHED)
def test_no_more_than_what_was_reached(counts: dict[str, int], name: str) -> None:
    assert counts[name] <= REACHED[name]
