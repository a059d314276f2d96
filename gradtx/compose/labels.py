"""Labels for parameters: by path, and trees of labels spread over a parameters' tree."""

import functools
import re
from collections.abc import Mapping
from typing import TypeVar

import jax
import numpy as np

from gradtx.compose.alternatives import alternatives
from gradtx.core import checks, domains
from gradtx.core.leaves import MaskedNode, is_masked, is_masked_or_none
from gradtx.core.paths import ROOT, beginning, leaves_by_path
from gradtx.core.types import Leaf, Params, Tree
from gradtx.core.value import Value

T = TypeVar("T")


class by_path(Value):
    """A rule that labels parameters by their paths: labels for `partition`, booleans for masks.

    It is a function from the parameters to a tree of labels. Paths read `layers/0/kernel`, the same
    for dicts, Linen, NNX and Equinox. The first pattern that matches the *whole* path decides.

    Args:
      rules: regular expressions (as in `re.fullmatch`) and their labels, in order of precedence.
      default: label where no pattern matches; None makes that an error.

    Raises:
      ValueError: a pattern is no regular expression or matches no parameter; one of its
        alternatives, as in `(bias|scale)`, matches none (those of negative lookarounds, verbose
        patterns and patterns with numbered references are not looked at); or a parameter matches no
        pattern and there is no default.
      TypeError: `rules` is no mapping from strings.

    Example:
      >>> import gradtx
      >>> rule = gradtx.by_path({r".*/bias": "no_decay"}, default="decay")
      >>> rule({"dense": {"kernel": 1.0, "bias": 0.0}})
      {'dense': {'bias': 'no_decay', 'kernel': 'decay'}}
    """

    rules: Mapping[str, object]
    default: object = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.rules, Mapping) or not all(isinstance(pattern, str) for pattern in self.rules):
            found = checks.kind(self.rules)
            raise TypeError(f"by_path: rules is {found}, expected a dict from regular expressions to labels.")
        self.compiled  # noqa: B018  # a wrong pattern fails here, not at the first step

    @functools.cached_property
    def compiled(self) -> list[tuple[re.Pattern[str], object]]:
        """The patterns and their labels."""
        return compile_patterns("by_path", self.rules)

    def __call__(self, params: Params) -> Tree:
        """The tree of labels for a tree of parameters."""
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_masked_or_none)
        paths = ["/".join(parts) or ROOT for parts in leaves_by_path(params, is_leaf=is_masked_or_none)]
        with checks.calling("by_path"):
            if leaves and not any(map(may_hide_paths, leaves)):
                check_used([pattern for pattern, _ in self.compiled], paths)
            labelled = zip(paths, leaves, strict=True)
            return treedef.unflatten([leaf if is_masked_or_none(leaf) else self._label(path) for path, leaf in labelled])

    def _label(self, path: str) -> object:
        for pattern, label in self.compiled:
            if pattern.fullmatch(path):
                return label
        if self.default is None:
            raise checks.WrongValue(f"no pattern matches the parameter `{path}`, and there is no default.")
        return self.default


def compile_patterns(name: str, rules: Mapping[str, T]) -> list[tuple[re.Pattern[str], T]]:
    """Rules with their patterns compiled, or an error that names the first that is none."""
    compiled = []
    for pattern, label in rules.items():
        try:
            compiled.append((re.compile(pattern), label))
        except re.error as error:
            hint = f" For any text write '.*': '.{pattern}'." if pattern.startswith("*") else ""
            raise ValueError(f"{name}: rules has the pattern {pattern!r}, expected a regular expression ({error}).{hint}") from None
    return compiled


def may_hide_paths(leaf: Leaf) -> bool:
    """Whether a node may stand for a whole subtree, whose paths nobody sees.

    gradtx's `MaskedNode` stands for one leaf.
    """
    return is_masked(leaf) and not isinstance(leaf, MaskedNode)


def check_used(patterns: list[re.Pattern[str]], paths: list[str]) -> None:
    """Raises for a pattern that decides nothing, or whose alternative `a|b` matches nothing."""
    deciding = {next((p for p in patterns if p.fullmatch(path)), None) for path in paths}
    for i, pattern in enumerate(patterns):
        if pattern in deciding:
            _check_alternatives(pattern, paths)
            continue
        if not any(map(pattern.fullmatch, paths)):
            raise checks.WrongValue(
                f"the pattern {pattern.pattern!r} matches no parameter (the whole path must match); "
                f"paths are {_some(paths)}.{_cure(pattern.pattern, paths)}"
            )
        earlier = next(p.pattern for p in patterns[:i] if any(p.fullmatch(path) and pattern.fullmatch(path) for path in paths))
        raise checks.WrongValue(
            f"the pattern {pattern.pattern!r} decides no parameter: patterns before it, such as {earlier!r}, "
            "match all that it matches. Put it first."
        )


def _check_alternatives(pattern: re.Pattern[str], paths: list[str]) -> None:
    for text, by_way_of_it in alternatives(pattern):
        if not any(map(by_way_of_it.fullmatch, paths)):
            raise checks.WrongValue(
                f"in the pattern {pattern.pattern!r} the alternative {text!r} matches no parameter; "
                f"paths are {_some(paths)}.{_misspelt(text, paths)}"
            )


def _cure(pattern: str, paths: list[str]) -> str:
    """What to write instead of a pattern that matches nothing, where that can be guessed."""
    anywhere = f"(.*/)?{pattern}"
    if any(re.fullmatch(anywhere, path) for path in paths):
        return f" To match it anywhere write {anywhere!r}."
    # A glob, or a layer's name alone.
    for whole in (re.sub(r"(?<![.\])\]])\*", ".*", pattern), f"{anywhere}/.*"):
        if any(re.fullmatch(whole, path) for path in paths):
            return f" Did you mean {whole!r}?"
    return _misspelt(pattern, paths)


def _misspelt(pattern: str, paths: list[str]) -> str:
    """A name in the paths for a word of a pattern that is close to it."""
    names = sorted({part for path in paths for part in path.split("/")})
    for word in re.findall(r"\w+", pattern):
        if word not in names and (hint := checks.did_you_mean(word, names)):
            return f"{hint[:-1]} for {word!r}?"
    return ""


def spread(what: str, labels: Tree, params: Params) -> list[Leaf]:
    """One label for each leaf of `params`, in order, from a tree of labels or a function.

    Trees are compared by path, so that labels in a dict fit a FrozenDict or an NNX State. A label
    stands for all below it.

    Raises:
      ValueError: a leaf has no label, or a label is at a path where the parameters have nothing.
    """
    tree = resolve(what, labels, params)
    leaves, treedef = jax.tree.flatten(tree)
    if treedef == jax.tree.structure(params):
        return leaves
    found = leaves_by_path(tree)
    chosen, used = [], set()
    for parts, leaf in leaves_by_path(params, is_leaf=is_masked_or_none).items():
        owner = beginning(parts, found)
        if owner is not None:
            used.add(owner)
        if is_masked_or_none(leaf):
            used.update(path for path in found if is_masked(leaf) and path[: len(parts)] == parts)
            continue
        if owner is None:
            raise checks.WrongValue(
                f"{what} has nothing for the parameter `{'/'.join(parts) or ROOT}`; "
                f"its paths are {_some(['/'.join(p) or ROOT for p in found])}."
            )
        chosen.append(found[owner])
    for parts in found:
        if parts and parts not in used:  # one label for the whole tree fits a tree without leaves
            raise checks.WrongValue(f"{what} has the path `{'/'.join(parts) or ROOT}`, which no parameter has.")
    return chosen


def spread_mask(what: str, mask: Tree, params: Params) -> list[bool]:
    """`spread` of a mask: True or False for each leaf."""
    keep = spread(what, mask, params)
    if not all(isinstance(entry, (bool, np.bool_)) for entry in keep):
        for parts, entry in zip(leaves_by_path(params), keep, strict=True):
            domains.check_argument("", f"{what} for `{'/'.join(parts) or ROOT}`", entry, domains.FLAG)
    return keep


def resolve(what: str, labels: Tree, params: Params) -> Tree:
    """`labels(params)` for a function, else the tree itself.

    A tree stays as it is also where its nodes can be called, as an Equinox module can.
    """
    leaves = jax.tree.leaves(labels)
    is_function = len(leaves) == 1 and leaves[0] is labels and callable(labels)
    if not is_function:
        return labels
    try:
        return labels(params)
    except TypeError:
        if why := checks.misfit(labels, params):
            raise checks.WrongType(
                f"{what} is a function of other arguments than the parameters: {why}. It gets their whole tree; "
                "rules by path go through by_path({pattern: label})."
            ) from None
        raise


def _some(paths: list[str]) -> str:
    shown = ", ".join(f"`{p}`" for p in paths[:6])
    return shown + (", ..." if len(paths) > 6 else "") if paths else "none"
