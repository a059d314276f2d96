"""What lectures claim, in small: the benchmarks of `benchmarks/theory` with their `SMALL` sizes, and the results of the whole ones.

A claim that takes longer than seconds has no small form.
"""

import ast
import importlib
import json
import math
from pathlib import Path

import pytest

from benchmarks.theory import harness
from benchmarks.theory.harness import Number

FOLDER = Path(harness.__file__).parent
SOURCES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.py"))}
CLAIMS = [name for name, source in SOURCES.items() if "harness.run(" in source]
QUICK = [name for name in CLAIMS if "\nSMALL" in SOURCES[name]]


@pytest.mark.parametrize("name", QUICK)
def test_it_holds_in_small(name: str) -> None:
    module = importlib.import_module(f"benchmarks.theory.{name}")
    numbers, curves = module.measure(**module.SMALL)
    assert not harness.failures(numbers)
    assert module.draw(curves).axes


@pytest.mark.slow
@pytest.mark.parametrize("name", CLAIMS)
def test_it_holds(name: str) -> None:
    module = importlib.import_module(f"benchmarks.theory.{name}")
    assert not harness.failures(module.measure().numbers)


@pytest.mark.parametrize("name", CLAIMS)
def test_its_result_is_there_and_holds(name: str) -> None:
    result = json.loads((harness.RESULTS / f"{name}.json").read_text())
    assert result["benchmark"] == f"benchmarks.theory.{name}"
    assert result["claim"] == ast.get_docstring(ast.parse(SOURCES[name])).split("\n")[0]  # type: ignore[union-attr]
    for key, number in result["numbers"].items():
        low, high = number["expected"]
        assert number["holds"], key
        slack = 1e-5 * abs(number["value"])  # values and bounds are written with six digits
        assert low is None or number["value"] >= low - slack, key
        assert high is None or number["value"] <= high + slack, key
    assert (harness.RESULTS / f"{name}.png").stat().st_size < 60_000


def test_every_result_has_its_claim() -> None:
    assert {path.stem for path in harness.RESULTS.iterdir()} == set(CLAIMS)


@pytest.mark.parametrize("value", [0.8, 1.2, math.nan])
def test_a_number_outside_is_found(value: float) -> None:
    assert harness.failures({"x": Number(value, 0.9, 1.1)}) == [f"x is {value:g}, expected 0.9 to 1.1"]
    assert not harness.failures({"x": harness.near(1.05, 1, 0.1)})


def test_slope_of_a_power() -> None:
    assert harness.slope([k**-1.5 for k in range(1, 500)]) == pytest.approx(-1.5)
    assert harness.slope([5.0 * k**0.5 for k in (10, 20, 40)], counts=[10, 20, 40]) == pytest.approx(0.5)
