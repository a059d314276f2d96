"""Which parameters are matrices, and which of their axes are rows and columns."""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gradtx.compose.labels import check_used, compile_patterns, may_hide_paths, resolve
from gradtx.core import checks
from gradtx.core.leaves import is_masked_or_none
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.value import Value, record


@record
class MuonDimensionNumbers(NamedTuple):
    """Which axes of a parameter make a matrix; all axes not named are a batch of matrices.

    Attributes:
      reduction_axis: the input axis, or axes that are one together (of `x @ W`, axis 0).
      output_axis: the output axis or axes.
      output_blocks: how many matrices lie side by side along the output (3 for fused query, key and value).

    **Differs:** Optax has no blocks.
    """

    reduction_axis: int | Sequence[int] = 0
    output_axis: int | Sequence[int] = 1
    output_blocks: int = 1


class Route(NamedTuple):
    """Where a parameter goes: its dimension numbers (None: no matrix for Muon), and why."""

    numbers: MuonDimensionNumbers | None
    why: str


_NO_WEIGHT = re.compile(r"b|bias(es)?|scale|gamma|beta|offset", re.IGNORECASE)
_EMBEDDING = re.compile(r".*embed.*|wte|wpe|.*vocab.*|pos_emb.*|position.*", re.IGNORECASE)
_HEAD = re.compile(
    r"((lm|output|out|cls|class|classification|prediction|token|mlm)_?)?head|logits.*|classifier|unembed.*|readout", re.IGNORECASE
)
_FUSED = re.compile(r".*qkv.*|c_attn|in_proj|query_key_value", re.IGNORECASE)
_CONVOLUTION = re.compile(r".*conv.*", re.IGNORECASE)


class matrix_axes(Value):
    """A rule that tells matrices inside a network from all other parameters, by path and shape; what `muon` routes by.

    It is a function from the parameters to a tree of `MuonDimensionNumbers`, and None where a parameter is no matrix for Muon.

    Own rules decide first. Then, in this order: numbers and vectors, biases and scales by name, embeddings and output heads by name
    (`wte`, `token_embedding`, `lm_head`, `classifier`, ...) are no matrices for Muon; kernels named as fused attention (`qkv`,
    `c_attn`) are three matrices side by side; kernels named as convolutions reduce all axes but their output; all others with two
    axes are matrices, (in, out) as in Flax, or (out, in) where the leaf is called `weight`, as in Equinox and PyTorch.

    Args:
      rules: regular expressions of whole paths (as in `by_path`) and, for each, `MuonDimensionNumbers`, `"muon"` (a plain matrix)
        or `"adam"`. Batch axes (scanned layers, experts) and attention heads must be stated here.

    Raises:
      ValueError: a parameter of three or more axes that nothing tells about; a pattern, or an alternative in one,
        that matches nothing.
      TypeError: a rule that is none.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"experts": {"up": jnp.zeros((8, 4, 16))}, "lm_head": {"kernel": jnp.zeros((4, 100))}}
      >>> rule = gradtx.matrix_axes({"experts/up": gradtx.MuonDimensionNumbers(1, 2)})
      >>> rule(params)
      {'experts': {'up': MuonDimensionNumbers(reduction_axis=1, output_axis=2, output_blocks=1)}, 'lm_head': {'kernel': None}}

    Source: which parameters Muon is for: Jordan 2024, https://kellerjordan.github.io/posts/muon/.
    """

    rules: Mapping[str, Any] | None = None

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
    def compiled(self) -> list[tuple[re.Pattern[str], Any]]:
        """The patterns and their rules."""
        return compile_patterns("matrix_axes", self.rules or {})

    def __call__(self, params: Any) -> Any:
        """The tree of dimension numbers for a tree of parameters."""
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_masked_or_none)
        with checks.calling("matrix_axes"):
            found = routes(self.compiled, params)
        return treedef.unflatten(
            [leaf if is_masked_or_none(leaf) else route.numbers for leaf, route in zip(leaves, found, strict=True)]
        )


AMBIGUOUS = "ambiguous"
"""Why a parameter has no route."""


def routes(rules: Sequence[tuple[re.Pattern[str], Any]], params: Any) -> list[Route]:
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


def _route(parts: tuple[str, ...], shape: tuple[int, ...], rules: Sequence[tuple[re.Pattern[str], Any]]) -> Route:
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
        if _EMBEDDING.fullmatch(part):
            return Route(None, f"an embedding, by the name {part!r}")
        if _HEAD.fullmatch(part):
            return Route(None, f"an output head, by the name {part!r}")
    axes = tuple(range(len(shape)))
    if any(map(_CONVOLUTION.fullmatch, parts)) and len(shape) > 2:
        output_first = name == "weight"
        numbers = MuonDimensionNumbers(axes[1:], 0) if output_first else MuonDimensionNumbers(axes[:-1], len(axes) - 1)
        return Route(numbers, "a convolution, by its name")
    if len(shape) > 2:
        return Route(None, AMBIGUOUS)
    fused = next((part for part in parts if _FUSED.fullmatch(part)), None)
    if fused is not None and name != "weight":
        if shape[1] != 3 * shape[0]:
            raise checks.WrongValue(
                f"the parameter `{path}` has shape {shape} and is named {fused!r}, but its output is not three "
                f"times its input. Write a rule: gradtx.matrix_axes({{{path!r}: 'muon'}}) for one matrix, or "
                "MuonDimensionNumbers(output_blocks=...) for equal parts."
            )
        return Route(plain._replace(output_blocks=3), f"query, key and value, by the name {fused!r}")
    return Route(plain, "a matrix")


def _cure(parts: tuple[str, ...]) -> str:
    """The rules that may be meant, the likeliest first: Flax names the projections of its attention."""
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


def numbers_for(what: str, numbers: Any, params: Any) -> list[MuonDimensionNumbers | None]:
    """One entry for each leaf of `params` from a tree of dimension numbers, a prefix of one, or a function from `params` to one.

    None gives every leaf of two axes a plain matrix, and no numbers to those of fewer. An empty leaf has no matrix.
    """
    named = leaves_by_path(params)
    if numbers is None:
        for parts, leaf in named.items():
            if np.ndim(leaf) > 2:
                raise checks.WrongValue(
                    f"the leaf `{'/'.join(parts) or ROOT}` has shape {np.shape(leaf)}, expected at most two "
                    f"axes. Pass {what}=gradtx.matrix_axes({{...}}), or dimension numbers for each leaf."
                )
        return [MuonDimensionNumbers() if np.ndim(leaf) == 2 and math.prod(np.shape(leaf)) else None for leaf in named.values()]

    def is_entry(x: Any) -> bool:
        return is_masked_or_none(x) or isinstance(x, MuonDimensionNumbers)

    given = leaves_by_path(numbers if isinstance(numbers, MuonDimensionNumbers) else resolve(numbers, params), is_leaf=is_entry)
    entries = []
    for parts, leaf in named.items():
        path = "/".join(parts) or ROOT
        owner = next((parts[:i] for i in range(len(parts), -1, -1) if parts[:i] in given), None)
        if owner is None:
            hint = " Rules by path go through gradtx.matrix_axes({...})." if isinstance(numbers, Mapping) else ""
            raise checks.WrongValue(f"{what} has nothing for the leaf `{path}`.{hint}")
        entry = given[owner]
        if is_masked_or_none(entry) or not math.prod(np.shape(leaf)):
            entries.append(None)
            continue
        if not isinstance(entry, MuonDimensionNumbers):
            raise checks.WrongType(f"{what} gives {checks.kind(entry)} for `{path}`, expected MuonDimensionNumbers or None.")
        _check_numbers(what, path, entry, np.shape(leaf))
        entries.append(entry)
    return entries


def axes_of(numbers: MuonDimensionNumbers, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Batch, reduction and output axes, none negative."""
    reduction, output = (
        tuple(int(i) % ndim for i in ((axes,) if isinstance(axes, (int, np.integer)) else axes))
        for axes in (numbers.reduction_axis, numbers.output_axis)
    )
    return tuple(i for i in range(ndim) if i not in reduction + output), reduction, output


def fan(numbers: MuonDimensionNumbers, shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of one matrix."""
    _, reduction, output = axes_of(numbers, len(shape))
    return math.prod(shape[i] for i in reduction), math.prod(shape[i] for i in output) // numbers.output_blocks


def to_matrices(x: jax.Array, numbers: MuonDimensionNumbers) -> jax.Array:
    """The matrices of a leaf: `(batch, inputs, outputs)`."""
    batch, reduction, output = axes_of(numbers, x.ndim)
    inputs, outputs = fan(numbers, x.shape)
    x = x if batch + reduction + output == tuple(range(x.ndim)) else x.transpose(batch + reduction + output)
    if numbers.output_blocks == 1:
        return x.reshape(-1, inputs, outputs)
    return x.reshape(-1, inputs, numbers.output_blocks, outputs).swapaxes(1, 2).reshape(-1, inputs, outputs)


def from_matrices(matrices: jax.Array, numbers: MuonDimensionNumbers, shape: tuple[int, ...]) -> jax.Array:
    """The leaf of `shape` whose matrices these are."""
    order = sum(axes_of(numbers, len(shape)), ())
    inputs, outputs = fan(numbers, shape)
    if numbers.output_blocks > 1:
        matrices = matrices.reshape(-1, numbers.output_blocks, inputs, outputs).swapaxes(1, 2)
    x = matrices.reshape(tuple(shape[i] for i in order))
    return x if order == tuple(range(len(shape))) else x.transpose(tuple(int(i) for i in np.argsort(order)))


def _check_numbers(what: str, path: str, numbers: MuonDimensionNumbers, shape: tuple[int, ...]) -> None:
    found = f"{what} gives {numbers} for `{path}` of shape {shape}"
    sides = [(axes,) if isinstance(axes, (int, np.integer)) else tuple(axes) for axes in numbers[:2]]
    if any(not -len(shape) <= i < len(shape) for side in sides for i in side) or not all(sides):
        raise checks.WrongValue(f"{found}, expected axes that it has.")
    named = [i % len(shape) for side in sides for i in side]
    if len(set(named)) < len(named):
        raise checks.WrongValue(f"{found}, expected axes that are all different.")
    outputs = math.prod(shape[i] for i in sides[1])
    if numbers.output_blocks < 1 or outputs % numbers.output_blocks:
        raise checks.WrongValue(f"{found}, expected output_blocks that divide its {outputs} outputs.")
