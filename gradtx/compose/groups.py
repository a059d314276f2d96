"""Cutting a batch into equal parts."""

from collections.abc import Callable

import jax
import numpy as np

from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.types import Leaf, Tree


def cut(name: str, argument: str, args: tuple[Tree, ...], count: int) -> tuple[list[Leaf], Callable[[list[Leaf]], Tree]]:
    """The leaves with a leading axis, cut along it, and what puts one part of each back."""
    leaves, treedef = jax.tree.flatten(args)
    sizes = {"/".join(path) or ROOT: np.shape(leaf)[0] for path, leaf in leaves_by_path(args).items() if np.ndim(leaf)}
    if not sizes:
        raise ValueError(f"{name}: no argument after the parameters has a leading axis that {argument}={count} could cut.")
    first = next(iter(sizes.values()))
    for path, size in sizes.items():
        if size % count or size != first:
            raise ValueError(
                f"{name}: argument `{path}` after the parameters has {size} entries on its leading axis, expected "
                f"{f'a multiple of {argument}={count}' if size % count else str(first) + ', as the first argument has'}. "
                "What belongs to no example goes to every part as a scalar or a keyword argument."
            )
    cut = [np.ndim(leaf) > 0 for leaf in leaves]
    parts = [leaf.reshape(count, -1, *np.shape(leaf)[1:]) for leaf, c in zip(leaves, cut, strict=True) if c]

    def whole_again(part: list[Leaf]) -> Tree:
        new = iter(part)
        return treedef.unflatten([next(new) if c else leaf for leaf, c in zip(leaves, cut, strict=True)])

    return parts, whole_again
