"""Holds the floors, the index, the case rows and the table of what exists true."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
from cases import CASES
from projection_cases import SETS
from schedule_cases import ALL as SCHEDULES

import gradtx
from gradtx.core.value import registry

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gradtx"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
FLOORS = {
    "core": 0,
    "domains": 1,
    "linalg": 1,
    "schedules": 1,
    "tree": 1,
    "projections": 1,
    "sampling": 1,
    "compose": 2,
    "transforms": 3,
    "optimizers": 4,
    "matrix": 4,
    "wrappers": 5,
    "storage": 5,
    "diagnostics": 6,
    "optax": 7,
}
OWN = {name for name in registry if name.islower() and ":" not in name and name[0] != "_"} - {
    "injected",
    "injected_stateful",
    "track_per_element_mean_and_variance_with_ema",
}
"""The classes of values. Bases and Optax's `MultiSteps` are in capitals; what `inject_hyperparams` makes is no factory; and
Optax's aggregating is loaded where it is used alone.
"""


TWINS = {"apply_if_finite", "flatten", "lookahead", "sam", "split_real_and_imaginary"}
"""Those that only `gradtx.optax` has, since their shape is Optax's."""


def tracked() -> set[str]:
    """The files that git knows: an example's picture at the top level is none of them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return set(listed.strip("\0").split("\0"))


def folder(module: str) -> str:
    """The folder, or file, of `gradtx` that a module name lies in."""
    return module.split(".")[1]


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_its_floor_and_below(path: Path) -> None:
    own = FLOORS[path.relative_to(PACKAGE).parts[0].removesuffix(".py")]
    for module in imports(path):
        assert module != "gradtx"
        assert not module.startswith("jax._src")
        if module.startswith("gradtx."):
            assert FLOORS[folder(module)] <= own, module


@pytest.mark.parametrize("path", [*MODULES, *(ROOT / "tests").rglob("*.py")], ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400, "split it"


def test_nothing_else_at_the_top_level() -> None:
    allowed = {"pyproject.toml", "README.md", "LICENSE", "uv.lock", "gradtx", "tests", "examples", "benchmarks", "docs"}
    found = {name.split("/")[0] for name in tracked() if not name.startswith(".")}
    assert found <= allowed


def test_the_readme_links_to_files_that_git_tracks() -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text())
    relative = {target for target in targets if not re.match(r"[a-z]+:", target)}
    assert relative  # the pictures, at least
    assert relative - tracked() == set()


def test_the_license_is_the_one_that_the_package_names() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "LICENSE" in tracked()
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
    assert "Apache License" in text
    assert "Copyright 2026 The gradtx authors" in text


def test_the_index_lists_what_it_imports() -> None:
    assert list(gradtx.__all__) == sorted(gradtx.__all__)
    for name in gradtx.__all__:
        assert hasattr(gradtx, name), name
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imported = {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported - {"_checks"} == set(gradtx.__all__)


def test_only_the_index_shows() -> None:
    assert dir(gradtx) == sorted([*gradtx.__all__, "__version__"])
    assert not {"Any", "did_you_mean"} & set(vars(gradtx))


def test_every_factory_has_its_row() -> None:
    schedules = {type(case.make(gradtx)).__name__ for case in SCHEDULES.values()}
    rows = (
        set(CASES)
        | schedules
        | {f"projections.{name}" for name in SETS}
        | {"by_path", "matrix_axes", "muon_labels", "norm_balls", "early_stopping"}
        | {"differentially_private_aggregate", "dpsgd"}  # which take gradients of examples: their mirror test has them
    )  # rules of parameters make no transformation; their mirror tests have them
    assert rows == OWN | {"inject_hyperparams", "MultiSteps"}  # a function, which makes a value when it is called twice
    elsewhere = {name for name in OWN if name.startswith("projections.") or name in TWINS}
    assert set(gradtx.__all__) >= OWN - elsewhere


TYPES = {"OptState", "Params", "ScalarOrSchedule", "Schedule", "Updates"}


@pytest.mark.parametrize("name", sorted(set(gradtx.__all__) - TYPES))
def test_public_names_are_documented(name: str) -> None:
    value = getattr(gradtx, name)
    assert len(value.__doc__ or "") > 20
    if name in OWN:
        assert "Example:" in value.__doc__


@pytest.mark.parametrize("name", sorted(OWN))
def test_the_reference_lists_every_factory(name: str) -> None:
    assert re.search(rf"`{name}`", (ROOT / "docs" / "pages" / "reference" / "index.md").read_text())


def widths(path: Path) -> dict[int, int]:
    """The lines of docstrings, and of comments that stand alone, with their widths."""
    source = path.read_text()
    lines = source.splitlines()
    texts = {i for i, line in enumerate(lines, 1) if line.lstrip().startswith("#")}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            texts.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return {i: len(lines[i - 1]) for i in texts}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_docstrings_and_comments_are_at_most_100_columns_wide(path: Path) -> None:
    assert {line: width for line, width in widths(path).items() if width > 100} == {}
