"""Numbers in the README and in the pages are those of the results, and what makes sure of it finds mistakes."""

import json
from pathlib import Path

import pytest

from benchmarks import quotes

TEXTS = {path.relative_to(quotes.ROOT).as_posix(): path for path in quotes.texts()}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    numbers = {"slope": {"value": -1.996}, "share": {"value": 0.9752}, "count": {"value": 4779.0}, "error": {"value": 1.84e-15}}
    (tmp_path / "x.json").write_text(json.dumps({"numbers": numbers}))
    (tmp_path / "t.md").write_text("| | a | b |\n|---|---|---|\n| `row` 1 | 183.5 ms, 3.20 | 1,411.4 |\n| row 2 | -0.0095 | |\n")
    return tmp_path


@pytest.mark.parametrize("name", TEXTS)
def test_quoted_numbers_are_measured_ones(name: str) -> None:
    assert not quotes.wrong(TEXTS[name].read_text())


def test_pages_on_theory_quote() -> None:
    for name, path in TEXTS.items():
        if "/theory/" in name:
            assert list(quotes.quotes(path.read_text())), name


RIGHT = "-2.00<!-- x.json slope --> 97.5 %<!-- x.json share --> 98%<!-- x.json share --> 4,779<!-- x.json count --> 1.8e-15<!-- x.json error -->"


def test_right_numbers_pass(results: Path) -> None:
    assert len(list(quotes.quotes(RIGHT))) == 5
    assert not quotes.wrong(RIGHT, results)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-1.99<!-- x.json slope -->", "-1.99 is quoted, -2.00 was measured: x.json slope"),
        ("97.4 %<!-- x.json share -->", "97.4 is quoted, 97.5 was measured: x.json share"),
        ("1.0<!-- x.json slop -->", "x.json has no number slop"),
        ("1.0<!-- x.json -->", "x.json has no number None"),
        ("1.0<!-- y.json slope -->", "there is no result y.json"),
        ('183<!-- t.md "row 1" 0 -->', '183 is quoted, 184 was measured: t.md "row 1" 0'),
        ('1,411<!-- t.md "row 1" 3 -->', 't.md has no number "row 1" 3'),
        ('1<!-- t.md "row 3" 0 -->', 't.md has no number "row 3" 0'),
        ("about two<!-- x.json slope -->", "1 comments have no number before them"),
    ],
)
def test_a_wrong_quote_is_found(text: str, complaint: str, results: Path) -> None:
    assert quotes.wrong(text, results) == [complaint]


def test_numbers_in_tables(results: Path) -> None:
    right = '184<!-- t.md "row 1" 0 --> 3.2<!-- t.md "row 1" 1 --> 1,411<!-- t.md "row 1" 2 --> -0.010<!-- t.md "row 2" 0 -->'
    assert len(list(quotes.quotes(right))) == 4
    assert not quotes.wrong(right, results)


def test_written_numbers_keep_their_digits(results: Path) -> None:
    text = RIGHT.replace("-2.00", "0.00").replace("97.5", "0.0").replace("4,779", "0").replace("1.8e", "0.0e")
    assert quotes.written(text, results) == RIGHT
