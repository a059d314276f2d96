"""Writes the pages of the reference when the site is built: a page a room, every public name of it."""

import collections
import re
from types import ModuleType

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import gradtx

ROOMS = {
    "optimizers": "Optimizers",
    "matrix": "Muon and its links",
    "transforms": "Transformations",
    "wrappers": "Wrappers",
    "compose": "Composition",
    "schedules": "Schedules",
    "storage": "Storage",
    "diagnostics": "Diagnostics",
    "projections": "Projections",
    "linalg": "Matrix functions",
    "tree": "Trees and states",
    "sampling": "Sampling",
    "core": "Classes of your own",
    "domains": "Domains of fields",
}
"""The rooms, in the order of the site, and the titles of their pages."""


def public_names() -> dict[str, list[str]]:
    """The public names of each room as `room.file.name`; types that only annotations need are left out."""
    found: dict[str, set[str]] = collections.defaultdict(set)
    for name in gradtx.__all__:
        value = getattr(gradtx, name)
        if isinstance(value, ModuleType):
            room = value.__name__.removeprefix("gradtx.").split(".")[0]
            own = [key for key, one in vars(value).items() if getattr(one, "__module__", None) == value.__name__ and key[0] != "_"]
            names = getattr(value, "__all__", own)
            values = {key: getattr(value, key) for key in names}
        else:
            room, values = None, {name: value}
        for key, one in values.items():
            module = getattr(one, "__module__", None) or ""
            if callable(one) and module.startswith("gradtx."):
                found[room or module.split(".")[1]].add(f"{module}.{key}")
    found["domains"] = {"gradtx.domains"}
    return {room: sorted(names, key=lambda path: path.rsplit(".", 1)[-1].lower()) for room, names in found.items()}


def pages() -> dict[str, str]:
    """The text of each page, by its place."""
    names = public_names()
    assert set(names) <= set(ROOMS), sorted(set(names) - set(ROOMS))
    return {
        f"reference/{room}.md": f"# {title}\n\n" + "\n\n".join(f"::: {name}" for name in names[room]) + "\n"
        for room, title in ROOMS.items()
        if room in names
    }


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs."""
    for place, text in pages().items():
        files.append(File.generated(config, place, content=text))
    return files


class Signatures(griffe.Extension):
    """Gives a class of values the signature that its fields make, and sections the names that the site knows."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Called by griffe when an object was read."""
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"^(State|Source):", r"**\1:**", text, flags=re.MULTILINE)

    def on_class_members(self, *, cls: griffe.Class, **_: object) -> None:
        """Called by griffe when a class was read."""
        if "__init__" in cls.members or not cls.bases:
            return
        fields = griffe.Parameters()
        kind = griffe.ParameterKind.positional_or_keyword
        for name, member in cls.members.items():
            if not isinstance(member, griffe.Attribute) or member.annotation is None or name.startswith("__"):
                continue
            if "KW_ONLY" in str(member.annotation):
                kind = griffe.ParameterKind.keyword_only
            elif not name.startswith("_"):
                fields.add(griffe.Parameter(name, annotation=member.annotation, kind=kind, default=member.value))
        init = griffe.Function("__init__", parameters=fields, parent=cls)
        cls.set_member("__init__", init)
