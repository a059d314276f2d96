"""Runs every block of code in the README and in the pages, and holds the pages to what exists."""

import doctest
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import gradtx
import gradtx.optax

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "pages"
TEXTS = [ROOT / "README.md", *sorted(PAGES.rglob("*.md"))]
BLOCK = re.compile(r"^( *)```(python|pycon)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run_blocks(path: Path) -> None:
    """The blocks of a page in turn, with one namespace, as a reader would type them."""
    names: dict[str, object] = {"__name__": path.stem}
    text = path.read_text()
    for match in BLOCK.finditer(text):
        _, language, code = match.groups()
        line = text[: match.start()].count("\n") + 1
        if language == "python":
            exec(compile("\n" * line + code, str(path), "exec"), names)
            continue
        example = doctest.DocTestParser().get_doctest(code, names, path.name, str(path), line)
        example.globs = names  # the parser copies it
        report: list[str] = []
        failed, _ = doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=report.append, clear_globs=False)
        assert not failed, "".join(report)


TYPES = {"Inner", "OptState", "Params", "ScalarOrSchedule", "Schedule", "Updates"}  # for annotations


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The module that writes the pages of the reference."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_block_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks(path)


def test_a_wrong_output_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```pycon\n>>> x\n2\n```\n")
    with pytest.raises(AssertionError, match="Got:"):
        run_blocks(page)


class _AnyTag(yaml.SafeLoader):
    """Reads the names of functions in `mkdocs.yml` as text."""


_AnyTag.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix)


def places(entry: object) -> set[str]:
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        return {entry}
    children = entry.values() if isinstance(entry, dict) else entry
    assert not isinstance(children, str)
    return set().union(*map(places, children))


def test_the_navigation_has_every_page(reference: ModuleType) -> None:
    config = yaml.load((ROOT / "docs" / "mkdocs.yml").read_text(), _AnyTag)
    written = {path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.md")}
    assert places(config["nav"]) == written | set(reference.pages())


@pytest.mark.parametrize("name", sorted(set(gradtx.__all__) - TYPES))
def test_the_reference_has_every_public_name(reference: ModuleType, name: str) -> None:
    text = "\n".join(reference.pages().values())
    assert re.search(rf"^::: gradtx\.(\S+\.)?{name}$", text, re.MULTILINE) or isinstance(getattr(gradtx, name), ModuleType)


def test_the_readme_counts_the_names_of_optax() -> None:
    rows = list(gradtx.optax.rows())
    native = sum(place.startswith("gradtx") for _, place in rows)
    assert f"{native} of its {len(rows)} names" in (ROOT / "README.md").read_text()


def test_the_readme_is_short() -> None:
    prose = re.sub(r"```.*?```|<!--.*?-->", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(prose.split()) <= 600
