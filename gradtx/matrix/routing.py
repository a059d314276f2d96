"""Which parameters are matrices inside a network, and which go elsewhere: by path and shape."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from gradtx.compose.labels import check_used, compile_patterns, may_hide_paths
from gradtx.core import checks
from gradtx.core.leaves import is_masked_or_none
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.types import Params, Tree
from gradtx.core.value import Value
from gradtx.matrix.dimensions import MatrixRule, MuonDimensionNumbers, Numbers, numbers_once


class Route(NamedTuple):
    """Where a parameter goes: its dimension numbers (None: no matrix for Muon), and why.

    `role` is what its name says of it, where that is of use elsewhere.
    """

    numbers: MuonDimensionNumbers | None
    why: str
    role: str = ""


CONVOLUTION, EMBEDDING, HEAD = "convolution", "embedding", "head"
"""Roles of parameters."""


Rules = list[tuple[re.Pattern[str], MuonDimensionNumbers | str]]
"""Patterns of whole paths, and for each dimension numbers, 'muon' or 'adam'."""

_NO_WEIGHT = re.compile(r"b|bias(es)?|scale|gamma|beta|offset", re.IGNORECASE)
EMBEDDING_NAME = re.compile(r".*embed.*|wte|wpe|.*vocab.*|pos_emb.*|position.*", re.IGNORECASE)
_HEAD = re.compile(
    r"((lm|output|out|cls|class|classification|prediction|token|mlm)_?)?head|logits.*|classifier|unembed.*|readout", re.IGNORECASE
)
_FUSED = re.compile(r".*qkv.*|c_attn|in_proj|query_key_value", re.IGNORECASE)
CONVOLUTION_NAME = re.compile(r".*conv.*", re.IGNORECASE)


class matrix_axes(Value):
    """A rule that tells matrices inside a network from all other parameters, by path and shape.

    It is a function from the parameters to a tree of `MuonDimensionNumbers`, with None where a
    parameter is no matrix for Muon; `muon` routes by it.

    Your rules decide first. Then, in this order: numbers and vectors, biases and scales by name,
    embeddings and output heads by name (`wte`, `token_embedding`, `lm_head`, `classifier`, ...) are
    no matrices for Muon; kernels named as fused attention (`qkv`, `c_attn`) are three matrices side
    by side; kernels named as convolutions reduce all axes but their output; all others with two
    axes are matrices, (in, out) as in Flax, or (out, in) where the leaf is called `weight`, as in
    Equinox and PyTorch.

    Args:
      rules: regular expressions of whole paths (as in `by_path`) and, for each,
        `MuonDimensionNumbers`, `"muon"` (a plain matrix) or `"adam"`. Batch axes (scanned layers,
        experts) and attention heads must be stated here.

    Raises:
      ValueError: a parameter of three or more axes that no rule covers; a pattern, or an
        alternative in one, that matches nothing.
      TypeError: a rule of another type.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"lm_head": jnp.zeros((4, 100)), "up": jnp.zeros((8, 4, 16))}
      >>> rule = gradtx.matrix_axes({"up": gradtx.MuonDimensionNumbers(1, 2)})
      >>> rule(params)["lm_head"]
      >>> rule(params)["up"]
      MuonDimensionNumbers(reduction_axis=1, output_axis=2, output_blocks=1, input_blocks=1)

    Source: which parameters Muon is for: Jordan 2024, https://kellerjordan.github.io/posts/muon/.
    """

    rules: Mapping[str, MuonDimensionNumbers | str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rules is not None and not isinstance(self.rules, Mapping):
            raise TypeError(
                f"matrix_axes: rules is {checks.kind(self.rules)}, expected a dict from regular expressions to dimension numbers."
            )
        for pattern, rule in (self.rules or {}).items():
            if rule not in ("muon", "adam") and not isinstance(rule, MuonDimensionNumbers):
                raise TypeError(
                    f"matrix_axes: the rule of {pattern!r} is {checks.kind(rule)}, "
                    "expected MuonDimensionNumbers(...), 'muon' or 'adam'."
                )
        self.compiled  # noqa: B018  # a wrong pattern fails here, not at the first step

    @functools.cached_property
    def compiled(self) -> Rules:
        """The patterns and their rules."""
        return compile_patterns("matrix_axes", self.rules or {})

    def __call__(self, params: Params) -> Tree:
        """The tree of dimension numbers for a tree of parameters."""
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_masked_or_none)
        with checks.calling("matrix_axes"):
            found = routes(self.compiled, params)
        return treedef.unflatten(
            [leaf if is_masked_or_none(leaf) else route.numbers for leaf, route in zip(leaves, found, strict=True)]
        )


class muon_labels(Value):
    """A rule that labels matrices `"muon"` and all other parameters `"adam"`, for `partition`.

    With it you write Muon by hand: a chain of your own for the matrices, any transformation for the
    rest.

    Args:
      weight_dimension_numbers: what is a matrix: `matrix_axes({...})` with rules of your own, or a
        tree of `MuonDimensionNumbers` with None where a parameter is none, or a function from the
        parameters to one. None is `matrix_axes()`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}
      >>> rule = gradtx.muon_labels()
      >>> rule(params)
      {'bias': 'adam', 'kernel': 'muon'}
      >>> rate = gradtx.scale_by_learning_rate(0.02)
      >>> links = gradtx.chain(gradtx.trace(0.9), gradtx.orthogonalize(), rate)
      >>> tx = gradtx.partition({"muon": links, "adam": gradtx.adamw(1e-3)}, rule)
    """

    weight_dimension_numbers: MatrixRule | None = None

    @functools.cached_property
    def numbers(self) -> Callable[[Params], Numbers]:
        """The dimension numbers of each leaf."""
        return numbers_once("weight_dimension_numbers", self.axes)

    @property
    def axes(self) -> MatrixRule:
        """What tells the dimension numbers."""
        return matrix_axes() if self.weight_dimension_numbers is None else self.weight_dimension_numbers

    def __call__(self, params: Params) -> Tree:
        """The tree of labels for a tree of parameters."""
        labels = ["adam" if entry is None else "muon" for entry in self.numbers(params)]
        return jax.tree.structure(params).unflatten(labels)


AMBIGUOUS = "ambiguous"
"""Why a parameter has no route."""


def routes(rules: Rules, params: Params) -> list[Route]:
    """The route of every leaf, masked and missing ones included."""
    leaves = leaves_by_path(params, is_leaf=is_masked_or_none)
    if leaves and not any(map(may_hide_paths, leaves.values())):
        check_used([pattern for pattern, _ in rules], ["/".join(parts) or ROOT for parts in leaves])
    found = [
        Route(None, "masked") if is_masked_or_none(leaf) else _route(parts, np.shape(leaf), rules) for parts, leaf in leaves.items()
    ]
    unclear = [parts for parts, route in zip(leaves, found, strict=True) if route.why == AMBIGUOUS]
    if unclear:
        first, *others = unclear
        more = ", ".join(f"`{'/'.join(parts)}` {np.shape(leaves[parts])}" for parts in others)
        raise checks.WrongValue(
            f"the parameter `{'/'.join(first) or ROOT}` has shape {np.shape(leaves[first])}, and nothing tells "
            f"which of its axes make a matrix.{_cure(first)}{f' So it is with {more}.' if more else ''}"
        )
    return found


def _route(parts: tuple[str, ...], shape: tuple[int, ...], rules: Rules) -> Route:
    path, name = "/".join(parts) or ROOT, parts[-1] if parts else ""
    plain = MuonDimensionNumbers(1, 0) if name == "weight" else MuonDimensionNumbers(0, 1)
    for pattern, rule in rules:
        if pattern.fullmatch(path):
            if rule == "muon" and len(shape) != 2:
                cure = _cure(parts) if len(shape) > 2 else " A vector or a number is no matrix: its rule can only be 'adam'."
                raise checks.WrongValue(f"the rule of {pattern.pattern!r} is 'muon', but `{path}` has shape {shape}.{cure}")
            return Route(None if rule == "adam" else plain if rule == "muon" else rule, f"rule {pattern.pattern!r}")
    if len(shape) < 2:
        return Route(None, "a number" if not shape else "a vector")
    if _NO_WEIGHT.fullmatch(name):
        return Route(None, f"named {name!r}")
    for part in parts:
        if EMBEDDING_NAME.fullmatch(part):
            return Route(None, f"an embedding, by the name {part!r}", EMBEDDING)
        if _HEAD.fullmatch(part):
            return Route(None, f"an output head, by the name {part!r}", HEAD)
    axes = tuple(range(len(shape)))
    if any(map(CONVOLUTION_NAME.fullmatch, parts)) and len(shape) > 2:
        output_first = name == "weight"
        numbers = MuonDimensionNumbers(axes[1:], 0) if output_first else MuonDimensionNumbers(axes[:-1], len(axes) - 1)
        return Route(numbers, "a convolution, by its name", CONVOLUTION)
    if len(shape) > 2:
        return Route(None, AMBIGUOUS)
    fused = next((part for part in parts if _FUSED.fullmatch(part)), None)
    if fused is not None and name != "weight":
        if shape[1] != 3 * shape[0]:
            raise checks.WrongValue(
                f"the parameter `{path}` has shape {shape} and is named {fused!r}, but its output is not three "
                f"times its input. Write a rule: gradtx.matrix_axes({{{path!r}: 'muon'}}) for one matrix, or "
                "MuonDimensionNumbers(output_blocks=...) for equal parts, or with their widths, (queries, keys, values)."
            )
        return Route(plain._replace(output_blocks=3), f"query, key and value, by the name {fused!r}")
    return Route(plain, "a matrix")


def _cure(parts: tuple[str, ...]) -> str:
    """Rules to suggest, the likeliest first: Flax names the projections of its attention."""
    into, out_of = "MuonDimensionNumbers(0, (1, 2))", "MuonDimensionNumbers((0, 1), 2)"
    ways = {
        into: "(inputs, heads, width) as one matrix",
        "MuonDimensionNumbers(0, 2)": "a matrix for each head",
        out_of: "(heads, width, outputs) as one matrix",
        "MuonDimensionNumbers(1, 2)": "matrices along axis 0 (scanned layers, experts)",
    }
    likely = out_of if "out" in parts else into if {"query", "key", "value"} & set(parts) else "MuonDimensionNumbers(1, 2)"
    others = "; ".join(f"{numbers} for {meaning}" for numbers, meaning in ways.items() if numbers != likely)
    path = "/".join(parts) or ROOT
    return f" Write a rule: gradtx.matrix_axes({{{path!r}: gradtx.{likely}}}) for {ways[likely]}; or {others}; or 'adam'."
