"""How much machinery stands between a call and a kernel: calls, files and jumps in traced updates, lines, `Any`, public names.

    python benchmarks/structure.py

Counted, not timed: the numbers are the same on every machine, and `tests/test_structure.py` holds them.
"""

import ast
import dataclasses
import io
import itertools
import sys
import time
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

import gradtx

PACKAGE = Path(gradtx.__file__).parent


class Calls(NamedTuple):
    """Python functions of gradtx that ran: how many, in how many files, how often the file changed, and how deep they were."""

    calls: int
    files: int
    hops: int
    depth: int


def calls_in(run: Callable[[], object]) -> Calls:
    """Counts the calls of functions whose code lies in gradtx, comprehensions among them."""
    seen: list[str] = []
    stack: list[bool] = []
    deepest = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal deepest
        if event == "call":
            name = frame.f_code.co_filename  # type: ignore[attr-defined]
            own = name.startswith(str(PACKAGE))
            stack.append(own)
            if own:
                seen.append(name)
                deepest = max(deepest, sum(stack))
        elif event == "return" and stack:
            stack.pop()

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return Calls(len(seen), len(set(seen)), sum(a != b for a, b in itertools.pairwise(seen)), deepest)


def build() -> Calls:
    """The calls that make `adamw(1e-3)`."""
    gradtx.adamw(1e-3)
    return calls_in(lambda: gradtx.adamw(1e-3))


def traced_update(tx: gradtx.Transformation, params: object) -> Calls:
    """The calls in one traced update."""
    state = tx.init(params)

    def trace() -> object:
        return jax.jit(lambda grads, state, params: tx.update(grads, state, params)).trace(params, state, params)

    trace()
    return calls_in(trace)


def code_lines(path: Path) -> int:
    """Lines with code: no blank ones, comments or docstrings."""
    source = path.read_text()
    docs = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docs.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    skip = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docs)


def anys(path: Path) -> int:
    """How often `Any` or `typing.Any` stands in the code, imports apart."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return sum(getattr(node, "id", None) == "Any" or getattr(node, "attr", None) == "Any" for node in nodes)


def largest_factory() -> tuple[str, int]:
    """The public class with most fields, and their number."""
    sizes = {
        name: len(dataclasses.fields(value))
        for name in gradtx.__all__
        if hasattr(value := getattr(gradtx, name), "__dataclass_fields__")
    }
    return max(sizes.items(), key=lambda item: item[1])


def measure() -> dict[str, int]:
    """All counts, by name."""
    files = sorted(PACKAGE.rglob("*.py"))
    lines = {path: code_lines(path) for path in files}
    adamw = traced_update(gradtx.adamw(1e-3), {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)})
    muon = traced_update(gradtx.muon(0.02), {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)})
    return {
        "calls to build adamw": build().calls,
        **{f"{key} in a traced update of adamw": value for key, value in adamw._asdict().items()},
        **{f"{key} in a traced update of muon": value for key, value in muon._asdict().items()},
        "fields of the largest factory": largest_factory()[1],
        "Any per 1,000 code lines": round(1000 * sum(map(anys, files)) / sum(lines.values())),
        "code lines of core": sum(n for path, n in lines.items() if path.parent.name == "core"),
        "code lines": sum(lines.values()),
        "public names": len(gradtx.__all__),
    }


def main() -> None:
    """Prints the table."""
    for name, value in measure().items():
        print(f"{name:45} {value:6,}")
    print(f"{'largest factory':45} {largest_factory()[0]:>6}")
    times = []
    for _ in range(200):
        start = time.perf_counter()
        gradtx.adamw(1e-3)
        times.append(time.perf_counter() - start)
    print(f"{'time to build adamw, us':45} {sorted(times)[100] * 1e6:6.1f}")


if __name__ == "__main__":
    main()
