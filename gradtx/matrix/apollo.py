"""APOLLO: the sizes of Adam's steps from random projections of the gradients, in little memory."""

import functools
import math
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.compose.chain import chain
from gradtx.compose.masking import select
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Mask, NonNegative, Positive, PositiveInt, Rate, one_of
from gradtx.core.leaves import MaskedNode
from gradtx.core.numerics import abs_sq, guarded_ratio, moments, one_minus_power, promote, real_dtype, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.trees import raise_unlike
from gradtx.core.types import ExtraArg, Moment, Params, Scalar, Squares, Updates
from gradtx.matrix.dimensions import MatrixRule, MuonDimensionNumbers, Numbers, from_matrices, numbers_once, to_matrices
from gradtx.matrix.routing import matrix_axes
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.noise import Key, as_key
from gradtx.transforms.scaling import scale_by_learning_rate

GROWTH = 1.01
"""By how much a step may be larger than the last: Fira, Chen et al. 2024, arXiv:2410.01623."""
LEAST_NORM = 1e-8
"""Added to norms of projected gradients and of steps, as in the authors' code."""
ScaleType = Annotated[str, one_of("channel", "tensor")]


class ScaleByApolloState(NamedTuple):
    """What APOLLO keeps.

    Attributes:
      count: steps taken.
      rng_key: the key of all projections.
      mu: first moment, of a matrix's projected gradient.
      nu: second moment, of the same.
      norm: norm of each matrix's last step; `MaskedNode` for what is no matrix.
    """

    count: jax.Array
    rng_key: jax.Array
    mu: Moment
    nu: Squares
    norm: Updates


class scale_by_apollo(Transformation, keeps_zero=True):
    """Gradients scaled as Adam would scale their projections: `sqrt(scale) * s * g`.

    `r = P g` has `rank` rows in place of the shorter axis of a matrix, where `P` is Gaussian of
    variance `1/rank`, drawn anew every `update_proj_gap` steps. `s = |n| / |r|` for each slice of
    the longer axis, or for the whole matrix, with `n` Adam's direction for `r`. A step is at most
    1.01 times as large as the one before. What is no matrix gets Adam's direction.

    Args:
      rank: rows of the projected gradient, >= 1; the shorter axis at most. A quarter of it with
        'channel', 1 with 'tensor' (APOLLO-Mini) in the paper.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, before bias correction, >= 0; in units of the gradient.
      scale: > 0; 128 for APOLLO-Mini.
      scale_type: 'channel', a factor for each slice of the longer axis, or 'tensor', one for each
        matrix.
      update_proj_gap: steps from one projection to the next, >= 1.
      key: random key, or a whole number to seed one.
      weight_dimension_numbers: which axes make a matrix: a tree of `MuonDimensionNumbers` (None
        where a leaf is no matrix), or a function from the parameters to one, such as `matrix_axes`.
        None takes leaves of two axes as matrices (in, out) and refuses those of more.

    State: `ScaleByApolloState(count int32, rng_key, mu, nu, norm)`; 8 bytes times `rank` for each
      place of a matrix's longer axis, 4 a matrix, 8 for each other parameter.

    Raises:
      ValueError: a leaf of three or more axes without dimension numbers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> state = gradtx.scale_by_apollo(rank=2).init(jnp.zeros((64, 512)))
      >>> state.mu.shape  # a stack of one matrix
      (1, 2, 512)

    Source: Zhu et al. 2024, "APOLLO: SGD-like Memory, AdamW-level Performance", arXiv:2412.05270,
    algorithm 1, as in https://github.com/zhuhanqing/APOLLO.

    **Differs:** after a step of zero the next one has no bound; in the authors' code it could only
    grow by a hundredth a step from 1e-8.
    """

    rank: PositiveInt
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-6
    _: KW_ONLY
    scale: Positive = 1.0
    scale_type: ScaleType = "channel"
    update_proj_gap: PositiveInt = 200
    key: Key = 0
    weight_dimension_numbers: MatrixRule | None = None

    @functools.cached_property
    def numbers(self) -> Callable[[Params], Numbers]:
        """The dimension numbers of each leaf."""
        return numbers_once("weight_dimension_numbers", self.weight_dimension_numbers)

    def init(self, params: Params) -> ScaleByApolloState:
        leaves, treedef = jax.tree.flatten(params)
        numbers, key = self.numbers(params), as_key(self.key)
        lows = [self.projected(promote(x), entry, key) for x, entry in zip(leaves, numbers, strict=True)]
        mu = [jnp.zeros_like(low) for low in lows]
        nu = [jnp.zeros_like(low, dtype=real_dtype(low.dtype)) for low in lows]
        norm = [
            MaskedNode() if entry is None else jnp.zeros_like(_norms(to_matrices(promote(x), entry), (1, 2)))
            for x, entry in zip(leaves, numbers, strict=True)
        ]
        return ScaleByApolloState(zero_count(), key, *map(treedef.unflatten, (mu, nu, norm)))

    def projected(self, g: jax.Array, entry: MuonDimensionNumbers | None, key: jax.Array) -> jax.Array:
        """A leaf's gradient with the shorter axis of its matrices projected; else as it is."""
        if entry is None:
            return g
        matrices = to_matrices(g, entry)
        short = shorter_axis(matrices)
        p = projection(key, min(self.rank, matrices.shape[short]), matrices.shape[short], matrices.dtype)
        sharding = jax.typeof(matrices).sharding
        spec = PartitionSpec(*(None if i == short else name for i, name in enumerate(sharding.spec)))
        product = "rn,bnm->brm" if short == 1 else "rm,bnm->bnr"
        out = NamedSharding(sharding.mesh, spec) if any(sharding.spec) else None
        return jnp.einsum(product, p, matrices, precision="highest", out_sharding=out)

    def step(
        self, updates: Updates, state: ScaleByApolloState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByApolloState]:
        count = safe_increment(state.count)
        correction = jnp.sqrt(one_minus_power(self.b2, count)) / one_minus_power(self.b1, count)
        drawn = jax.random.fold_in(state.rng_key, state.count // self.update_proj_gap)
        numbers = self.numbers(updates)
        grads, treedef = jax.tree.flatten(updates)
        some = select(updates, [entry is not None for entry in numbers])
        if jax.tree.structure(some) != jax.tree.structure(state.norm) or treedef != jax.tree.structure(state.mu):
            raise_unlike(updates, state.mu)
        norms = iter(jax.tree.leaves(state.norm))
        directions, mu, nu, norm = [], [], [], []
        for i, (g, m, v) in enumerate(zip(grads, jax.tree.leaves(state.mu), jax.tree.leaves(state.nu), strict=True)):
            wide, entry = promote(g), numbers[i]
            low = self.projected(wide, entry, jax.random.fold_in(drawn, i))
            m, v = (x.astype(old.dtype) for x, old in zip(moments(low, m, v, self.b1, self.b2), (m, v), strict=True))
            u = guarded_ratio(m, jnp.sqrt(v) + self.eps, self.eps)
            if entry is not None:
                u, last = self.scaled(to_matrices(wide, entry), low, u, next(norms))
                u = from_matrices(u, entry, g.shape)
                norm.append(last)
            directions.append((correction.astype(v.dtype) * u).astype(wide.dtype))
            mu.append(m)
            nu.append(v)
        after = ScaleByApolloState(
            count, state.rng_key, treedef.unflatten(mu), treedef.unflatten(nu), jax.tree.structure(some).unflatten(norm)
        )
        return treedef.unflatten(directions), after

    def scaled(self, g: jax.Array, low: jax.Array, n: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The matrices' gradients, scaled and bounded, and the norms of these steps."""
        axes: tuple[int, ...] = (shorter_axis(g),) if self.scale_type == "channel" else (1, 2)
        u = g * (_norms(n, axes) / (_norms(low, axes) + LEAST_NORM))
        norm = _norms(u, (1, 2))
        limiter = jnp.where(last > 0, jnp.maximum(norm / (last + LEAST_NORM), GROWTH) / GROWTH, 1)
        root: Scalar = math.sqrt(self.scale) if isinstance(self.scale, (int, float)) else jnp.sqrt(self.scale)
        return root * (u / limiter), (norm / limiter).astype(last.dtype)


def shorter_axis(matrices: jax.Array) -> int:
    """The axis of a stack of matrices that is projected: 1 or 2; of square ones the inputs."""
    return 1 if matrices.shape[1] <= matrices.shape[2] else 2


def projection(key: jax.Array, rank: int, n: int, dtype: jnp.dtype) -> jax.Array:
    """A Gaussian matrix (rank, n) that keeps squared norms on average."""
    real = real_dtype(dtype)
    return (jax.random.normal(key, (rank, n), real) / math.sqrt(rank)).astype(dtype)


def _norms(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    return jnp.sqrt(jnp.sum(abs_sq(x), axis=axes, keepdims=True))


class apollo(Preset):
    """APOLLO with decoupled weight decay: `-learning_rate * (u + weight_decay * p)`.

    `u` is the direction of `scale_by_apollo`. Vectors, embeddings and heads get Adam's, by path and
    shape as `matrix_axes` says. Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. Often
        0.01 with 'channel'.
      rank: rows of the projected gradient, >= 1; the shorter axis at most. A quarter of it with
        'channel', 1 with 'tensor' (APOLLO-Mini) in the paper.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, before bias correction, >= 0; in units of the gradient.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.
      scale: > 0; 128 for APOLLO-Mini.
      scale_type: 'channel', a factor for each slice of the longer axis, or 'tensor', one for each
        matrix.
      update_proj_gap: steps from one projection to the next, >= 1.
      key: random key, or a whole number to seed one.
      weight_dimension_numbers: `matrix_axes({...})` with rules of your own, or a tree of
        `MuonDimensionNumbers` with None for Adam, or a function from the parameters to one. None
        is `matrix_axes()`.

    State: `(ScaleByApolloState, WeightDecayState, ScaleByLearningRateState)`; 8 bytes times `rank`
      for each place of a matrix's longer axis, 8 for each other parameter.

    Raises:
      ValueError: a parameter of three or more axes that no rule names.

    Example:
      >>> import gradtx
      >>> gradtx.apollo(0.01, rank=256)
      apollo(learning_rate=0.01, rank=256)
      >>> mini = gradtx.apollo(0.01, rank=1, scale=128.0, scale_type="tensor")

    Source: Zhu et al. 2024, arXiv:2412.05270.
    """

    learning_rate: Rate
    rank: PositiveInt
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-6
    weight_decay: Rate = 0.0
    mask: Mask | None = None
    _: KW_ONLY
    scale: Positive = 1.0
    scale_type: ScaleType = "channel"
    update_proj_gap: PositiveInt = 200
    key: Key = 0
    weight_dimension_numbers: MatrixRule | None = None

    def chain(self) -> Transformation:
        axes = matrix_axes() if self.weight_dimension_numbers is None else self.weight_dimension_numbers
        return chain(
            scale_by_apollo(
                self.rank,
                self.b1,
                self.b2,
                self.eps,
                scale=self.scale,
                scale_type=self.scale_type,
                update_proj_gap=self.update_proj_gap,
                key=self.key,
                weight_dimension_numbers=axes,
            ),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )
