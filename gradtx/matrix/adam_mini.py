"""Adam-mini: Adam with one second moment for each output neuron, or head, not each weight."""

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.chain import chain
from gradtx.compose.labels import check_used, compile_patterns
from gradtx.core import checks
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Mask, NonNegative, PositiveInt, Rate
from gradtx.core.leaves import zeros_like
from gradtx.core.numerics import (
    abs_sq,
    guarded_ratio,
    one_minus_power,
    promote,
    root_plus_eps,
    running_mean,
    safe_increment,
    zero_count,
)
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.transformation import Transformation
from gradtx.core.trees import raise_unlike
from gradtx.core.types import ExtraArg, Moment, Params, Squares, Updates
from gradtx.matrix.routing import CONVOLUTION_NAME, EMBEDDING_NAME
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

Counts = tuple[int, ...]
"""How many blocks lie along each axis of a leaf."""
_BIAS = re.compile(r"b|bias(es)?", re.IGNORECASE)
_QUERY_OR_KEY = re.compile(r"(w_?)?[qk]|[qk]_proj|query|key", re.IGNORECASE)


class ScaleByAdamMiniState(NamedTuple):
    """Steps taken, first moment, and a second moment for each block."""

    count: jax.Array
    mu: Moment
    nu: Squares


class scale_by_adam_mini(Transformation, keeps_zero=True):
    """Adam's direction with one second moment a block: `m_hat / (sqrt(v_hat) + eps)`.

    `v = b2*v + (1-b2) * mean(|g|^2)`, the mean over a block. By path and shape: of a matrix each
    output is a block; of an embedding each row; of a query or key each head; of a convolution, by
    its name, each output channel. A bias has Adam's second moments, any other vector one.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      head_size: outputs of one head, >= 1, for queries and keys by name; None gives each output a
        block there too.
      blocks: regular expressions of whole paths (as in `by_path`) and, for each, how many blocks
        lie along each axis, as in `{".*query/kernel": (1, 8, 1)}`. They decide first.

    State: `ScaleByAdamMiniState(count int32, mu, nu)`; 4 bytes a parameter and 4 a block.

    Raises:
      ValueError: a leaf of three or more axes without an entry in `blocks`; numbers there that do
        not divide the axes; a `head_size` that does not divide the outputs.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"kernel": jnp.zeros((512, 64)), "bias": jnp.zeros(64)}
      >>> state = gradtx.scale_by_adam_mini().init(params)
      >>> state.nu["kernel"].shape, state.nu["bias"].shape
      ((1, 64), (64,))

    Source: Zhang et al. 2024, "Adam-mini", arXiv:2406.16793, algorithms 1 and 3; names and rows as
    in version 1.1.1 of https://github.com/zyushun/Adam-mini.
    """

    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8
    _: KW_ONLY
    head_size: PositiveInt | None = None
    blocks: Mapping[str, Counts] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks is not None and not isinstance(self.blocks, Mapping):
            found = checks.kind(self.blocks)
            raise TypeError(f"{type(self).__name__}: blocks is {found}, expected a dict from regular expressions to tuples.")
        self.compiled  # noqa: B018  # a wrong pattern fails here, not at the first step

    @functools.cached_property
    def compiled(self) -> list[tuple[re.Pattern[str], Counts]]:
        """The patterns and their numbers of blocks."""
        return compile_patterns(type(self).__name__, self.blocks or {})

    def init(self, params: Params) -> ScaleByAdamMiniState:
        leaves, treedef = jax.tree.flatten(params)
        named = leaves_by_path(params)
        paths = ["/".join(parts) or ROOT for parts in named]
        if leaves:
            check_used([pattern for pattern, _ in self.compiled], paths)
        counts = [self.counts(parts, np.shape(leaf)) for parts, leaf in named.items()]
        nu = [jnp.zeros_like(_means(abs_sq(promote(leaf)), own)) for leaf, own in zip(leaves, counts, strict=True)]
        return ScaleByAdamMiniState(zero_count(), zeros_like(params), treedef.unflatten(nu))

    def counts(self, parts: tuple[str, ...], shape: tuple[int, ...]) -> Counts:
        """How many blocks lie along each axis of the leaf at a path."""
        path = "/".join(parts) or ROOT
        for pattern, counts in self.compiled:
            if pattern.fullmatch(path):
                if not _divides(counts, shape):
                    raise checks.WrongValue(
                        f"blocks gives {counts!r} for `{path}` of shape {shape}, "
                        "expected a whole number for each axis that divides it."
                    )
                return tuple(counts)
        name, ones = parts[-1] if parts else "", (1,) * len(shape)
        if not math.prod(shape) or (len(shape) == 1 and _BIAS.fullmatch(name)):
            return shape
        if len(shape) < 2:
            return ones
        output = 0 if name == "weight" else len(shape) - 1
        if any(map(EMBEDDING_NAME.fullmatch, parts)):
            output = 0
        elif len(shape) > 2 and not any(map(CONVOLUTION_NAME.fullmatch, parts)):
            raise checks.WrongValue(
                f"the parameter `{path}` has shape {shape}, and nothing tells its blocks. Say how many lie along each axis: "
                f"blocks={{{path!r}: {(*ones[1:], shape[-1])}}} for one for each place of the last axis."
            )
        outputs = shape[output]
        if self.head_size is not None and any(map(_QUERY_OR_KEY.fullmatch, parts)):
            if outputs % self.head_size:
                raise checks.WrongValue(f"head_size is {self.head_size}, expected a divisor of the {outputs} outputs of `{path}`.")
            outputs //= self.head_size
        return (*ones[:output], outputs, *ones[output + 1 :])

    def step(
        self, updates: Updates, state: ScaleByAdamMiniState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByAdamMiniState]:
        count = safe_increment(state.count)
        c1, c2 = one_minus_power(self.b1, count), one_minus_power(self.b2, count)

        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            g = promote(g)
            m = running_mean(m, g, self.b1).astype(m.dtype)
            v = running_mean(v, _means(abs_sq(g), v.shape), self.b2).astype(v.dtype)
            size = root_plus_eps(v / c2, self.eps).astype(v.dtype)
            return guarded_ratio(m / c1, _spread(size, g.shape), self.eps).astype(g.dtype), m, v

        grads, treedef = jax.tree.flatten(updates)
        if jax.tree.structure(state.nu) != treedef:
            raise_unlike(updates, state.nu)
        rows = zip(grads, jax.tree.leaves(state.mu), jax.tree.leaves(state.nu), strict=True)
        results = [rule(*row) for row in rows]
        directions, mu, nu = (treedef.unflatten([row[k] for row in results]) for k in range(3))
        return directions, ScaleByAdamMiniState(count, mu, nu)


def _divides(counts: object, shape: tuple[int, ...]) -> bool:
    if not isinstance(counts, (tuple, list)) or len(counts) != len(shape):
        return False
    return all(isinstance(k, int) and k > 0 and n % k == 0 for k, n in zip(counts, shape, strict=True))


def _blocks(x: jax.Array, counts: Counts) -> jax.Array:
    """`x` with each axis as two: blocks, and places in a block."""
    return x.reshape([size for k, n in zip(counts, x.shape, strict=True) for size in (k, n // max(k, 1))])


def _means(x: jax.Array, counts: Counts) -> jax.Array:
    """The mean of each block, in the shape of `counts`."""
    if all(k in (1, n) for k, n in zip(counts, x.shape, strict=True)):
        return jnp.mean(x, axis=tuple(i for i, k in enumerate(counts) if k != x.shape[i]), keepdims=True)
    return jnp.mean(_blocks(x, counts), axis=tuple(range(1, 2 * x.ndim, 2)))


def _spread(means: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A number for each block, in a shape that goes with arrays of `shape`."""
    if all(k in (1, n) for k, n in zip(means.shape, shape, strict=True)):
        return means
    for axis, n in enumerate(shape):
        means = jnp.repeat(means, n // means.shape[axis], axis=axis)
    return means


class adam_mini(Preset):
    """Adam-mini with decoupled weight decay: `-learning_rate * (u + weight_decay * p)`.

    `u` is the direction of `scale_by_adam_mini`. Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step, as
        AdamW's does.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.
      head_size: outputs of one head, >= 1, for queries and keys by name; None gives each output a
        block there too.
      blocks: regular expressions of whole paths (as in `by_path`) and, for each, how many blocks
        lie along each axis, as in `{".*query/kernel": (1, 8, 1)}`. They decide first.

    State: `(ScaleByAdamMiniState, WeightDecayState, ScaleByLearningRateState)`; 4 bytes a parameter
      and 4 a block.

    Raises:
      ValueError: a leaf of three or more axes without an entry in `blocks`; numbers there that do
        not divide the axes; a `head_size` that does not divide the outputs.

    Example:
      >>> import gradtx
      >>> gradtx.adam_mini(1e-3, weight_decay=0.1, head_size=64)
      adam_mini(learning_rate=0.001, weight_decay=0.1, head_size=64)

    Source: Zhang et al. 2024, "Adam-mini", arXiv:2406.16793.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8
    weight_decay: Rate = 0.0
    mask: Mask | None = None
    _: KW_ONLY
    head_size: PositiveInt | None = None
    blocks: Mapping[str, Counts] | None = None

    def chain(self) -> Transformation:
        return chain(
            scale_by_adam_mini(self.b1, self.b2, self.eps, head_size=self.head_size, blocks=self.blocks),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )
