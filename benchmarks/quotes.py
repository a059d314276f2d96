"""Numbers that the README and the pages quote from results: each stands before a comment that names its file and its key.

    python -m benchmarks.quotes            # says which differ
    python -m benchmarks.quotes --write    # puts the measured ones in, with as many digits as before

A quote is `2.01<!-- theory/rates.json nesterov -->`: the number, its unit `%` if it has one (the result is then a share of 1), and
the comment. The file is one below `benchmarks/results`, the key one of its `numbers`.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
COMMENT = re.compile(r"<!--\s*(?P<file>\S+\.json)(?:\s+(?P<key>\S+))?\s*-->")
QUOTE = re.compile(r"(?P<number>[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)(?P<unit>\s?%)?\s*" + COMMENT.pattern)


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
        numbers = json.loads(path.read_text())["numbers"]
        if self.key not in numbers:
            raise LookupError(f"{self.file} has no number {self.key}")
        value = numbers[self.key]["value"] * (100 if self.percent else 1)
        mantissa, exponent, _ = self.number.partition("e")
        digits = len(mantissa.partition(".")[2])
        return f"{value:.{digits}e}".replace("e+0", "e").replace("e-0", "e-") if exponent else f"{value:,.{digits}f}"


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
