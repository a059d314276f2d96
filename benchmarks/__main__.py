"""All benchmarks: what they ask, what they write, and a way to run them.

    python -m benchmarks --list                    # names, questions, results
    python -m benchmarks                           # runs all whose results are older than the code
    python -m benchmarks --only theory.rates,muon  # these
    python -m benchmarks --only theory --force     # a whole folder, also what is up to date

A run that is broken off goes on where it was: what has a result newer than its own code and gradtx's is left out. A benchmark that
fails leaves its old result. What only prints is kept in `benchmarks/results/NAME.txt`. `compiled` needs libtpu and takes hours.
"""

import argparse
import ast
import difflib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

try:
    from rich import progress as rich_progress
except ImportError:  # rich belongs to the extra `examples`
    rich_progress = None

ROOT = Path(__file__).parent.parent
FOLDER, RESULTS = ROOT / "benchmarks", ROOT / "benchmarks" / "results"
TOOLS = ("__main__", "networks", "quotes")  # programs that are no benchmark, or several
WRITING = {
    "low_precision": (("--write",), "low_precision.md"),
    "compiled": (("--write", "--resume"), "tpu_compiled.md"),
    "cutest": (("--write",), "cutest.md"),
    "ranking": ((), "ranking.md"),
}
EXAMPLES = ("train_lm", "sam_flatness")


class Benchmark(NamedTuple):
    """A program: where it is, how it is called, the files that it writes, and whether what it prints is its result."""

    name: str
    source: Path
    command: tuple[str, ...]
    results: tuple[Path, ...]
    prints: bool = False

    @property
    def question(self) -> str:
        """The first line of its docstring."""
        return (ast.get_docstring(ast.parse(self.source.read_text())) or "").split("\n")[0]

    def is_fresh(self, code: Iterable[Path]) -> bool:
        """Whether its results are newer than its own file and `code`."""
        if not all(path.is_file() for path in self.results):
            return False
        newest = max(path.stat().st_mtime for path in (self.source, *code))
        return min(path.stat().st_mtime for path in self.results) > newest

    def run(self) -> str:
        """Runs it; an error in words, empty if there is none."""
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
        done = subprocess.run(
            [sys.executable, *self.command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return (done.stderr or done.stdout).strip()[-2000:] or f"exit status {done.returncode}"
        if self.prints:
            self.results[0].write_text(done.stdout)
        return ""


def benchmarks() -> list[Benchmark]:
    """All of them, by name."""
    found = []
    for path in FOLDER.glob("*.py"):
        if path.stem not in (*TOOLS, *WRITING) and "\nif __name__ ==" in path.read_text():
            found.append(Benchmark(path.stem, path, (f"benchmarks/{path.name}",), (RESULTS / f"{path.stem}.txt",), prints=True))
    for name, (arguments, result) in WRITING.items():
        found.append(Benchmark(name, FOLDER / f"{name}.py", (f"benchmarks/{name}.py", *arguments), (RESULTS / result,)))
    for name in EXAMPLES:
        files = tuple(RESULTS / f"{name}{suffix}" for suffix in (".json", ".png"))
        found.append(Benchmark(f"networks.{name}", ROOT / "examples" / f"{name}.py", ("-m", "benchmarks.networks", name), files))
    for path in sorted((FOLDER / "theory").glob("*.py")):
        if "harness.run(" in path.read_text() and path.stem != "harness":
            files = tuple(RESULTS / "theory" / f"{path.stem}{suffix}" for suffix in (".json", ".png"))
            found.append(Benchmark(f"theory.{path.stem}", path, ("-m", f"benchmarks.theory.{path.stem}"), files))
    return sorted(found)


def shared_code() -> list[Path]:
    """What every result depends on."""
    shared = [FOLDER / "common.py", FOLDER / "theory" / "harness.py", FOLDER / "theory" / "digits.py", FOLDER / "networks.py"]
    return [*shared, *(ROOT / "gradtx").rglob("*.py")]


def chosen(every: list[Benchmark], only: str | None) -> list[Benchmark]:
    """Those of a list of names; a name before a dot is all that it holds."""
    if only is None:
        return every
    picked = []
    for name in filter(None, only.split(",")):
        matches = [b for b in every if name in (b.name, b.name.split(".")[0])]
        if not matches:
            near = difflib.get_close_matches(name, [b.name for b in every], n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise SystemExit(f"--only: there is no benchmark {name!r}.{hint} `python -m benchmarks --list` shows all.")
        picked += matches
    return list(dict.fromkeys(picked))


def with_progress(work: list[Benchmark]) -> Iterator[Benchmark]:
    """One after another, with a bar where rich is installed and the output is a terminal."""
    if rich_progress is None or not sys.stdout.isatty():
        for i, benchmark in enumerate(work, 1):
            print(f"[{i}/{len(work)}] {benchmark.name}", flush=True)
            yield benchmark
        return
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
    )
    with rich_progress.Progress(*columns) as bar:
        task = bar.add_task("", total=len(work))
        for benchmark in work:
            bar.update(task, description=benchmark.name)
            yield benchmark
            bar.advance(task)


def show(every: list[Benchmark], code: list[Path]) -> None:
    """Names, questions and results of all."""
    for benchmark in every:
        print(f"{benchmark.name}: {benchmark.question}")
        for path in benchmark.results:
            state = "up to date" if benchmark.is_fresh(code) else "older than the code" if path.is_file() else "not there"
            print(f"    {path.relative_to(ROOT)} ({state})")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="show them, run none")
    parser.add_argument("--only", help="names with commas between; `theory` is all of its folder")
    parser.add_argument("--force", action="store_true", help="also what is up to date")
    options = parser.parse_args(argv)
    every, code = chosen(benchmarks(), options.only), shared_code()
    if options.list:
        show(every, code)
        return 0
    work = [benchmark for benchmark in every if options.force or not benchmark.is_fresh(code)]
    print(f"{len(work)} to run, {len(every) - len(work)} up to date")
    errors = {benchmark.name: error for benchmark in with_progress(work) if (error := benchmark.run())}
    for name, error in errors.items():
        print(f"{name} failed:\n{error}")
    return int(bool(errors))


if __name__ == "__main__":
    raise SystemExit(main())
