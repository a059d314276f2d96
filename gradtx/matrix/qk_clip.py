"""QK-clip: queries and keys of an attention head shrink where its logits have grown too large."""

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.labels import check_used, compile_patterns
from gradtx.core import checks
from gradtx.core.checked import checked
from gradtx.core.domains import Domain, Positive
from gradtx.core.leaves import is_masked_or_none
from gradtx.core.numerics import promote
from gradtx.core.paths import ROOT, beginning, leaves_by_path
from gradtx.core.types import Params, Scalar, Tree


class HeadAxis(NamedTuple):
    """Where the heads of an attention lie in a parameter, and which share of a clip it takes.

    Attributes:
      axis: an axis whose elements are heads, or heads one after the other, equally wide.
      power: of the factor by which logits shrink, in (0, 1]: 0.5 for queries and keys, so that
        their product takes all; 1 for what meets an untouched partner.
    """

    axis: int
    power: float = 0.5


def _are_heads(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(pattern, str) and isinstance(one, HeadAxis) and 0 < one.power <= 1 for pattern, one in value.items()
    )


HEADS = Domain("a dict from regular expressions of whole paths to HeadAxis(axis, power in (0, 1])", _are_heads)


@checked
def qk_clip(params: Params, max_logits: Tree, heads: Annotated[Mapping[str, HeadAxis], HEADS], tau: Positive = 100.0) -> Params:
    """The parameters after a step, with heads scaled down whose largest logit is above `tau`.

    With `c = tau / S` where `S > tau`, and 1 elsewhere, the slice of a head is multiplied by
    `c^power`. So the same batch gives logits of at most `tau`. Call it after `apply_updates`:
    `params = qk_clip(params, max_logits, heads)`. The optimizer's state stays as it is.

    Args:
      params: the parameters.
      max_logits: the largest scaled logit of each head before the softmax, over the batch:
        `(heads,)`, or `(layers, heads)` for layers that are stacked along the first axis of
        parameters. A tree of these, each at the path of its attention, such as
        `{"block0": {"attention": s}}`; an array alone is for all parameters.
      heads: regular expressions of whole paths, and for each where the heads lie. Parameters that
        none matches stay as they are. For queries and keys with the same heads it is
        `{".*/(query|key)/kernel": HeadAxis(1)}`. With grouped queries, or where positions are
        rotated in a key that heads share (MLA), queries take it all: `HeadAxis(1, power=1)`.
      tau: the largest logit to allow, > 0.

    Returns:
      A tree like `params`.

    Raises:
      ValueError: a pattern that matches nothing, an axis that a parameter has not or that its heads
        do not divide, or a parameter that matches and has no logits.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"query": jnp.ones((2, 2)), "key": jnp.ones((2, 2)), "value": jnp.ones((2, 2))}
      >>> logits = jnp.array([50.0, 400.0])  # of two heads
      >>> gradtx.qk_clip(params, logits, {"query|key": gradtx.HeadAxis(1)})["query"]
      Array([[1. , 0.5],
             [1. , 0.5]], dtype=float32)

    Source: Kimi Team 2025, arXiv:2507.20534, section 2.1; MaxText,
    https://github.com/AI-Hypercomputer/maxtext.

    **Differs:** MaxText divides by `S + 1e-6` wherever `S` is, which makes NaN of negative logits.
    """
    patterns = compile_patterns("qk_clip", heads)
    named = leaves_by_path(params, is_leaf=is_masked_or_none)
    paths = ["/".join(parts) or ROOT for parts in named]
    logits = leaves_by_path(max_logits)
    check_used([pattern for pattern, _ in patterns], paths)
    new = []
    for path, (parts, leaf) in zip(paths, named.items(), strict=True):
        one = next((one for pattern, one in patterns if pattern.fullmatch(path)), None)
        if one is None or is_masked_or_none(leaf):
            new.append(leaf)
            continue
        owner = beginning(parts, logits)
        if owner is None:
            known = ", ".join(f"`{'/'.join(place) or ROOT}`" for place in logits)
            raise checks.WrongValue(f"max_logits has nothing for the parameter `{path}`; it has {known or 'nothing'}.")
        new.append(_clipped(path, leaf, logits[owner], one, tau))
    return jax.tree.structure(params, is_leaf=is_masked_or_none).unflatten(new)


def _clipped(path: str, leaf: jax.Array, logits: jax.Array, one: HeadAxis, tau: Scalar) -> jax.Array:
    shape, largest = np.shape(leaf), promote(logits)
    found = f"the parameter `{path}` has shape {shape}"
    if not -len(shape) <= one.axis < len(shape):
        raise checks.WrongValue(f"{found}, expected one with the axis {one.axis} of {one}.")
    axis = one.axis % len(shape)
    stacked, count = largest.shape[:-1], largest.shape[-1] if largest.ndim else 0
    if not count or shape[axis] % count or shape[: len(stacked)] != stacked or axis < len(stacked):
        raise checks.WrongValue(f"{found}, and its max_logits {largest.shape}; expected (..., heads) that divide its axis {axis}.")
    factors = jnp.where(largest > tau, tau / jnp.where(largest > tau, largest, 1), 1) ** one.power
    wide = jnp.repeat(factors, shape[axis] // count, axis=-1)
    return (promote(leaf) * wide.reshape(_beside(shape, len(stacked), axis))).astype(jnp.result_type(leaf))


def _beside(shape: Sequence[int], stacked: int, axis: int) -> tuple[int, ...]:
    """The shape in which factors broadcast: that of the leaf along layers and heads, else 1."""
    return tuple(n if i < stacked or i == axis else 1 for i, n in enumerate(shape))
