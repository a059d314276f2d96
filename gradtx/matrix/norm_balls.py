"""Which norm measures each parameter's step, and how large its ball is: by path and shape."""

import functools
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import KW_ONLY
from typing import Annotated, NamedTuple

import jax
import numpy as np

from gradtx.compose.labels import check_used, compile_patterns, may_hide_paths, resolve
from gradtx.core import checks
from gradtx.core.domains import Domain, NonNegative
from gradtx.core.leaves import MaskedNode, is_masked_or_none
from gradtx.core.paths import ROOT, beginning, leaves_by_path
from gradtx.core.types import Leaf, Params, Tree
from gradtx.core.value import Value, record
from gradtx.matrix.dimensions import MuonDimensionNumbers, checked_numbers
from gradtx.matrix.routing import CONVOLUTION, EMBEDDING, Route, matrix_axes, routes

OF_MATRICES = ("spectral", "spectral_conv", "sign", "column", "row")
NORMS = (*OF_MATRICES, "rms")


@record
class NormBall(NamedTuple):
    """The ball in which a parameter moves: a norm, a radius, and which axes make a matrix.

    Attributes:
      norm: 'spectral', 'spectral_conv', 'sign', 'column', 'row' (of matrices), or 'rms' (of vectors
        and numbers); `scale_by_lmo` has their formulas.
      radius: the size of steps, >= 0.
      weight_dimension_numbers: None takes leaves of two axes as one matrix (in, out).
    """

    norm: str = "spectral"
    radius: float = 1.0
    weight_dimension_numbers: MuonDimensionNumbers | None = None


Balls = tuple[NormBall | None, ...]
"""For each leaf of a tree its ball; None for an empty leaf."""
BallRule = Tree | Callable[[Params], Tree]
"""A tree of balls, a prefix of one, or a function from parameters to one."""

AXES = Domain("gradtx.matrix_axes(...)", lambda value: isinstance(value, matrix_axes))


class norm_balls(Value):
    """A rule that gives every parameter its norm, by path and shape, as Scion's authors choose.

    Matrices inside a network get 'spectral', convolutions 'spectral_conv', embeddings and output
    heads 'sign', all else 'rms'. Which is which is as in `matrix_axes`. The inputs of an embedding
    are its features, as those of a head that shares it.

    Args:
      rules: regular expressions of whole paths (as in `by_path`) with a `NormBall` for each; they
        decide first.
      radius: of all but embeddings and heads, >= 0.
      outer_radius: of embeddings and heads, >= 0.
      weight_dimension_numbers: `matrix_axes({...})` with rules of your own on what is a matrix.

    Raises:
      ValueError: a pattern, or an alternative in one, that matches nothing; a parameter of three or
        more axes that no rule covers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"up": jnp.zeros((4, 8)), "bias": jnp.zeros(8), "head": jnp.zeros((8, 10))}
      >>> rule = gradtx.norm_balls({"head": gradtx.NormBall("row", 10.0)})
      >>> [ball[:2] for ball in rule(params).values()]
      [('rms', 50.0), ('row', 10.0), ('spectral', 50.0)]

    Source: Pethick et al. 2025, arXiv:2502.07529, and the radii of their NanoGPT,
    https://github.com/LIONS-EPFL/scion.
    """

    rules: Mapping[str, NormBall] | None = None
    radius: NonNegative = 50.0
    outer_radius: NonNegative = 3000.0
    _: KW_ONLY
    weight_dimension_numbers: Annotated[matrix_axes, AXES] = matrix_axes()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rules is not None and not isinstance(self.rules, Mapping):
            raise TypeError(
                f"norm_balls: rules is {checks.kind(self.rules)}, expected a dict from regular expressions to NormBall(...)."
            )
        for pattern, ball in (self.rules or {}).items():
            if not isinstance(ball, NormBall):
                raise TypeError(f"norm_balls: the rule of {pattern!r} is {checks.kind(ball)}, expected NormBall(...).")
        compile_patterns("norm_balls", self.rules or {})  # a wrong pattern fails here, not at the first step

    def __call__(self, params: Params) -> Tree:
        """The tree of balls for a tree of parameters."""
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_masked_or_none)
        patterns = compile_patterns("norm_balls", self.rules or {})
        named = list(leaves_by_path(params, is_leaf=is_masked_or_none))
        paths = ["/".join(parts) or ROOT for parts in named]
        ruled = [next((ball for pattern, ball in patterns if pattern.fullmatch(path)), None) for path in paths]
        with checks.calling("norm_balls"):
            if leaves and not any(map(may_hide_paths, leaves)):
                check_used([pattern for pattern, _ in patterns], paths)
            others = treedef.unflatten([leaf if ball is None else MaskedNode() for leaf, ball in zip(leaves, ruled, strict=True)])
            found = routes(self.weight_dimension_numbers.compiled, others)
        balls = [
            leaf if is_masked_or_none(leaf) else ball or self.by_route(route, parts, np.shape(leaf))
            for leaf, ball, route, parts in zip(leaves, ruled, found, named, strict=True)
        ]
        return treedef.unflatten(balls)

    def by_route(self, route: Route, parts: tuple[str, ...], shape: tuple[int, ...]) -> NormBall:
        """The ball of what Muon would send there."""
        if route.numbers is not None:
            return NormBall("spectral_conv" if route.role == CONVOLUTION else "spectral", self.radius, route.numbers)
        if route.role and len(shape) == 2:
            outputs_first = route.role == EMBEDDING or parts[-1] == "weight"
            return NormBall("sign", self.outer_radius, MuonDimensionNumbers(*((1, 0) if outputs_first else (0, 1))))
        return NormBall("rms", self.radius)


def balls_once(what: str, balls: BallRule) -> Callable[[Params], Balls]:
    """The ball of each leaf of a tree, found once for each structure and shapes."""
    known: dict[Hashable, Balls] = {}

    def found(params: Params) -> Balls:
        leaves, treedef = jax.tree.flatten(params)
        key = (treedef, tuple(map(np.shape, leaves)))
        if key not in known:
            known[key] = tuple(_balls_for(what, balls, params))
        return known[key]

    return found


def _balls_for(what: str, balls: BallRule, params: Params) -> list[NormBall | None]:
    def is_entry(x: Leaf) -> bool:
        return is_masked_or_none(x) or isinstance(x, NormBall)

    tree = balls if isinstance(balls, NormBall) else resolve(what, balls, params)
    given = leaves_by_path(tree, is_leaf=is_entry)
    entries: list[NormBall | None] = []
    for parts, leaf in leaves_by_path(params).items():
        path, owner = "/".join(parts) or ROOT, beginning(parts, given)
        if owner is None:
            hint = " Rules by path go through gradtx.by_path({...})." if isinstance(balls, Mapping) else ""
            raise checks.WrongValue(f"{what} has nothing for the leaf `{path}`.{hint}")
        ball, shape = given[owner], np.shape(leaf)
        if not isinstance(ball, NormBall):
            raise checks.WrongType(f"{what} gives {checks.kind(ball)} for `{path}`, expected NormBall(...).")
        entries.append(_checked(what, path, ball, shape) if math.prod(shape) else None)
    return entries


def _checked(what: str, path: str, ball: NormBall, shape: tuple[int, ...]) -> NormBall:
    found = f"{what} gives {ball} for `{path}` of shape {shape}"
    if ball.norm not in NORMS:
        names = ", ".join(map(repr, NORMS))
        raise checks.WrongValue(f"{found}, expected a norm among {names}.{checks.did_you_mean(str(ball.norm), NORMS)}")
    if not 0 <= ball.radius < math.inf:
        raise checks.WrongValue(f"{found}, expected a finite radius >= 0.")
    if ball.norm == "rms":
        return ball
    if ball.weight_dimension_numbers is None and len(shape) != 2:
        cure = "weight_dimension_numbers in it" if len(shape) > 2 else "the norm 'rms'"
        raise checks.WrongValue(f"{found}, which is no matrix, expected {cure}.")
    numbers = checked_numbers(what, path, ball.weight_dimension_numbers or MuonDimensionNumbers(), shape)
    if ball.norm == "column" and numbers.output_blocks != 1:
        raise checks.WrongValue(f"{found}, expected output_blocks=1 for 'column', which measures all outputs of an input.")
    return ball._replace(weight_dimension_numbers=numbers)


@functools.lru_cache(maxsize=4096)
def spatial_size(numbers: MuonDimensionNumbers, shape: tuple[int, ...]) -> int:
    """How many places a convolution sums over: its inputs but the channels, nearest the output."""
    ndim = len(shape)
    inputs, outputs = ([int(i) % ndim for i in ((axes,) if isinstance(axes, (int, np.integer)) else axes)] for axes in numbers[:2])
    channels = min(inputs, key=lambda i: min(abs(i - j) for j in outputs))
    return math.prod(shape[i] for i in inputs if i != channels)
