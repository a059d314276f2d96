"""Which array of a checkpoint becomes which array of a new state."""

import collections
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gradtx.core import checks
from gradtx.core.transformation import Transformation
from gradtx.core.types import Tree
from gradtx.storage.names import Entry

Owner = tuple[str, ...]
"""Presets and labels around a transformation, and the transformation."""
Group = tuple[Owner, str]
"""Owner and field: what arrays of a state and of a checkpoint have in common."""
Rename = Mapping[str, str | Sequence[str] | None]
"""New names by patterns of old ones; a list copies, None drops."""


class Sides(NamedTuple):
    """The new state and the checkpoint: arrays by name, with what they belong to."""

    tx: Transformation
    saved: Mapping[str, Tree]
    new: dict[str, Entry]
    about: dict[str, dict]

    def renamed(self, rename: Rename) -> tuple[dict[str, str], tuple[str, ...]]:
        """Old names by new ones, as the user says, and the old ones to drop."""
        sources: dict[str, str] = {}
        dropped: list[str] = []
        patterns = {pattern_of("rename", key): value for key, value in rename.items()}
        used = set()
        for name in self.about:
            match = next((found for one in patterns if (found := one.fullmatch(name))), None)
            if match is None:
                continue
            used.add(match.re)
            wanted = patterns[match.re]
            if wanted is None:
                dropped.append(name)
            for replacement in [wanted] if isinstance(wanted, str) else wanted or ():
                self.claim(sources, _expanded(match, replacement), name)
        if idle := [pattern.pattern for pattern in patterns if pattern not in used]:
            raise checks.WrongValue(f"rename has {idle[0]!r}, which matches no name of the checkpoint: {some(self.about)}.")
        return sources, tuple(dropped)

    def claim(self, sources: dict[str, str], target: str, name: str) -> None:
        """Notes where a renamed array goes."""
        if target not in self.new:
            hint = checks.did_you_mean(target, self.new)
            raise checks.WrongValue(f"rename makes {name!r} {target!r}, which the state of tx has not: {some(self.new)}.{hint}")
        if target in sources:
            raise checks.WrongValue(f"rename makes both {sources[target]!r} and {name!r} {target!r}.")
        sources[target] = name

    def matched(self, sources: dict[str, str], dropped: tuple[str, ...]) -> dict[str, str]:
        """The same for all others: those of one field and one transformation.

        What stands around may differ by what was put around the other.
        """
        free = {name for name in self.about if name not in {*sources.values(), *dropped}}
        old = _grouped((name, tuple(x["owner"]), x["field"]) for name, x in self.about.items() if name in free)
        new = _grouped((name, x.owner, x.field) for name, x in self.new.items() if name not in sources)
        found: dict[str, str] = {}
        for alike in (operator.eq, _kin):
            for group, other in _pairs(new, old, alike):
                if len(new[group]) == len(old[other]):  # of more or fewer equals nobody knows which is which
                    found |= dict(zip(new.pop(group), old.pop(other), strict=True))
        for (owner, field), (other, _) in _beside(new, old):
            if owner[-1] == other[-1] and not _kin(owner, other):
                self.raise_other(field, owner, other)
        return found

    def counts(self, sources: dict[str, str], dropped: tuple[str, ...]) -> dict[str, str]:
        """The step count of the checkpoint for schedules in the place of constants.

        They are those that lack nothing but a count; where the checkpoint has counts that differ,
        nobody knows which is meant.
        """
        kept = {name: x for name, x in self.about.items() if name not in dropped}
        steps = {name: self.saved["leaves"][name] for name, x in kept.items() if x["field"] == "count"}
        if len({int(x) for x in steps.values() if np.ndim(x) == 0}) != 1:
            return {}
        lacking = {(x.labels, x.owner) for name, x in self.new.items() if name not in sources and x.field != "count"}
        missing = [name for name, x in self.new.items() if name not in sources and x.field == "count"]
        return {name: next(iter(steps)) for name in missing if self.new[name][:2] not in lacking}

    def raise_other(self, field: str, owner: Owner, other: Owner) -> None:
        """Raises for the state of another optimizer."""
        raise checks.WrongValue(
            f"the checkpoint is of another optimizer: its `{field}` belongs to {' > '.join(other)}, that of tx to "
            f"{' > '.join(owner)}.{self.both()}\nIf that is meant, carry it over by name: rename={{'.*': r'\\g<0>'}}."
        )

    def raise_missing(self, initialized: tuple[str, ...], dropped: tuple[str, ...]) -> None:
        """Raises for arrays that the checkpoint lacks."""
        left = f", and has {some(dropped)}, which tx has not" if dropped else ""
        raise checks.WrongValue(
            f"the checkpoint lacks {some(initialized)}{left}.{self.both()}\n"
            "missing='init' takes them from tx.init(params); rename={...} says what they were called."
        )

    def both(self) -> str:
        """Both optimizers, in lines of their own."""
        return f"\n  checkpoint: {self.saved['optimizer']}\n  tx: {self.tx!r}"


def _grouped(entries: Iterable[tuple[str, Owner, str]]) -> dict[Group, list[str]]:
    groups: dict[Group, list[str]] = collections.defaultdict(list)
    for name, owner, field in entries:
        groups[owner, field].append(name)
    return groups


def _beside(new: Iterable[Group], old: Iterable[Group]) -> Iterator[tuple[Group, Group]]:
    """All pairs of groups of one field."""
    fields: dict[str, list[Group]] = collections.defaultdict(list)
    for group in old:
        fields[group[1]].append(group)
    for group in new:
        for other in fields[group[1]]:
            yield group, other


def _pairs(new: Iterable[Group], old: Iterable[Group], alike: Callable[[Owner, Owner], bool]) -> list[tuple[Group, Group]]:
    """The groups that are alike, where each has only the other."""
    found = [(group, other) for group, other in _beside(new, old) if alike(group[0], other[0])]
    times = [collections.Counter(side) for side in zip(*found, strict=True)]
    return [(group, other) for group, other in found if times[0][group] == times[1][other] == 1]


def _kin(owner: Owner, other: Owner) -> bool:
    """Whether one transformation is the other with presets and labels put around."""
    short, long = sorted((owner, other), key=len)
    rest = iter(long)
    return short[-1] == long[-1] and all(name in rest for name in short)


def pattern_of(argument: str, text: str) -> re.Pattern[str]:
    """A regular expression from an argument."""
    try:
        return re.compile(text)
    except re.error as error:
        raise checks.WrongValue(f"{argument} has {text!r}, which is no regular expression: {error}.") from None


def _expanded(match: re.Match[str], replacement: str) -> str:
    try:
        return match.expand(replacement)
    except (re.error, IndexError) as error:
        found = f"rename has {match.re.pattern!r}: {replacement!r}"
        raise checks.WrongValue(f"{found}, whose replacement does not fit the pattern: {error}.") from None


def some(names: Iterable[str]) -> str:
    """The first names of a list, as text."""
    names = list(names)
    return ", ".join(f"`{name}`" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
