"""Numbers that the README and the pages quote from results: each stands before a comment that names its file and its key.

    python -m benchmarks.quotes            # says which differ
    python -m benchmarks.quotes --write    # puts the measured ones in, with as many digits as before

A quote is `2.01<!-- theory/rates.json nesterov -->`: the number, its unit `%` if it has one (the result is then a share of 1), and
the comment. The file is one below `benchmarks/results`, the key one of its `numbers`. Of a result in tables,
`183<!-- muon_cpu.md "row" 0 -->`, the key is the first cell of a row, and which of the numbers in the other cells, from 0.
"""

import argparse
import json
import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
COMMENT = re.compile(r'<!--\s*(?P<file>\S+\.(?:json|md))(?:\s+(?P<key>"[^"]*" \d+|\S+))?\s*-->')
QUOTE = re.compile(rf"(?P<number>{NUMBER})(?P<unit>\s?%)?\s*{COMMENT.pattern}")


class Quote(NamedTuple):
    """One quoted number, and where it is from."""

    number: str
    percent: bool
    file: str
    key: str | None

    def measured(self, results: Path = RESULTS) -> str:
        """The measured number as the text has to show it."""
        path = results / self.file
        if not path.is_file():
            raise LookupError(f"there is no result {self.file}")
        find = in_tables if path.suffix == ".md" else in_json
        if self.key is None or (value := find(path.read_text(), self.key)) is None:
            raise LookupError(f"{self.file} has no number {self.key}")
        value *= 100 if self.percent else 1
        mantissa, exponent, _ = self.number.partition("e")
        digits = len(mantissa.partition(".")[2])
        if exponent:
            return f"{value:.{digits}e}".replace("e+0", "e").replace("e-0", "e-")
        return f"{value.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):,}"


def in_json(text: str, key: str) -> Decimal | None:
    """A number of a result by its key."""
    number = json.loads(text)["numbers"].get(key)
    return number and Decimal(repr(number["value"]))


def in_tables(text: str, key: str) -> Decimal | None:
    """A number of a result in tables: `"first cell of the row" which`."""
    row, _, which = key.removeprefix('"').rpartition('" ')
    for line in text.splitlines():
        first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells and first.replace("`", "") == row:  # Markdown would read code inside a comment
            numbers = re.findall(NUMBER, " ".join(cells))
            return Decimal(numbers[int(which)].replace(",", "")) if int(which) < len(numbers) else None
    return None


def texts() -> list[Path]:
    """Where numbers are quoted."""
    return [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").rglob("*.md"))]


def quotes(text: str) -> Iterator[Quote]:
    """All quotes of a text."""
    for match in QUOTE.finditer(text):
        yield Quote(match["number"], bool(match["unit"]), match["file"], match["key"])


def wrong(text: str, results: Path = RESULTS) -> list[str]:
    """What is wrong with the quotes of a text: missing results and keys, other numbers, comments without a number before them."""
    found = list(quotes(text))
    complaints = []
    if bare := len(COMMENT.findall(text)) - len(found):
        complaints.append(f"{bare} comments have no number before them")
    for quote in found:
        try:
            measured = quote.measured(results)
        except LookupError as error:
            complaints.append(str(error))
            continue
        if measured.lstrip("+") != quote.number.lstrip("+"):
            complaints.append(f"{quote.number} is quoted, {measured} was measured: {quote.file} {quote.key}")
    return complaints


def written(text: str, results: Path = RESULTS) -> str:
    """The text with the measured numbers."""

    def replace(match: re.Match[str]) -> str:
        quote = Quote(match["number"], bool(match["unit"]), match["file"], match["key"])
        return quote.measured(results) + match.group(0)[len(quote.number) :]

    return QUOTE.sub(replace, text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    complaints = 0
    for path in texts():
        text = path.read_text()
        if options.write:
            path.write_text(written(text))
            continue
        for complaint in wrong(text):
            complaints += 1
            print(f"{path.relative_to(ROOT)}: {complaint}")
    return int(complaints > 0)


if __name__ == "__main__":
    raise SystemExit(main())
