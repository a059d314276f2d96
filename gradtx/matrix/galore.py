"""GaLore: an optimizer whose moments see projections of the gradients to few dimensions."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.chain import chain
from gradtx.core import checks
from gradtx.core.composites import Preset
from gradtx.core.domains import Mask, Number, PositiveInt, Rate
from gradtx.core.leaves import MaskedNode, is_masked_or_none
from gradtx.core.numerics import cond, promote, safe_increment, zero_count
from gradtx.core.pairs import Inner
from gradtx.core.sharding import gathered, placed_like
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import ExtraArg, Leaf, Params, State, Tree, Updates
from gradtx.core.value import Value
from gradtx.core.walk import everything
from gradtx.matrix.dimensions import MatrixRule, MuonDimensionNumbers, Numbers, from_matrices, numbers_once, to_matrices
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


class GaLoreState(NamedTuple):
    """Steps taken, the inner state, and for every matrix its basis; else `MaskedNode`."""

    count: jax.Array
    base_optimizer_state: State
    projector: Tree


class _matrices(Value):
    """Which leaves are matrices where no tree says so.

    Those of two axes, or with numbers for all, those of at least two.
    """

    numbers: MuonDimensionNumbers | None = None

    def __call__(self, params: Params) -> Tree:
        def entry(leaf: Leaf) -> Tree:
            if is_masked_or_none(leaf):
                return leaf
            if self.numbers is None:
                return MuonDimensionNumbers() if np.ndim(leaf) == 2 else None
            return self.numbers if np.ndim(leaf) >= 2 else None

        return jax.tree.map(entry, params, is_leaf=is_masked_or_none)


def _basis(g: jax.Array, rank: int) -> jax.Array:
    """The first singular vectors of the longer side of each matrix."""
    u, _, vh = jnp.linalg.svd(g, full_matrices=False)
    return u[..., :rank] if g.shape[-2] >= g.shape[-1] else jnp.conj(jnp.swapaxes(vh, -1, -2))[..., :rank]


def _down(g: jax.Array, basis: jax.Array) -> jax.Array:
    """Matrices in the coordinates of their bases."""
    return jnp.conj(jnp.swapaxes(basis, -1, -2)) @ g if g.shape[-2] >= g.shape[-1] else g @ basis


def _up(low: jax.Array, basis: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Matrices of a shape from their coordinates."""
    return basis @ low if shape[-2] >= shape[-1] else low @ jnp.conj(jnp.swapaxes(basis, -1, -2))


class scale_by_galore(Transformation):
    """GaLore: `scale * P @ inner(P^T @ g)`, with `P` the first `rank` left singular vectors of `g`.

    A wider matrix than it is tall is projected from the right: `scale * inner(g @ P) @ P^T`. `P`
    comes from the gradient of each `update_proj_gap`-th step, the first included. Leaves that are
    no matrices go to the inner transformation as they are.

    Args:
      rank: how many dimensions are left, >= 1.
      update_proj_gap: steps from one projection to the next, >= 1.
      scale: factor of the updates of matrices, any finite number.
      base_optimizer: the inner transformation, which sees projections, no parameters: a kernel such
        as `scale_by_lion()`. None is `scale_by_adam()`.
      weight_dimension_numbers: which axes make a matrix: `MuonDimensionNumbers` for all leaves of
        two axes or more, a tree of them, with None for leaves that are no matrices, or a function
        from parameters to one. None takes the leaves of two axes.

    State: `GaLoreState(count int32, base_optimizer_state, projector)`; for a matrix of `n` times
      `m <= n`, `4*n*rank` bytes, and the inner state of `rank` times `m` numbers.

    Raises:
      ValueError: the inner transformation needs the parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_galore(rank=1, base_optimizer=gradtx.identity())
      >>> grads = jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> tx.update(grads, tx.init(grads))[0]
      Array([[3., 0.],
             [0., 0.]], dtype=float32)

    Source: Zhao et al. 2024, arXiv:2403.03507, algorithms 1 and 2.

    **Differs:** axes that no number names are a batch of matrices; in Optax they are an error. The
    decomposition is in at least float32, of float64 in float64.
    """

    rank: PositiveInt = 128
    update_proj_gap: PositiveInt = 200
    scale: Number = 1.0
    base_optimizer: Inner | None = None
    weight_dimension_numbers: MatrixRule | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        found = next((tx for tx in everything(self.inner) if tx.needs_params), None)
        if found is not None:
            raise checks.WrongValue(
                f"base_optimizer holds {found!r}, which needs the parameters, but inside there are only projections of gradients. "
                "Put it after this transformation; galore has a weight decay of its own."
            ).by("scale_by_galore")

    @functools.cached_property
    def inner(self) -> Transformation:
        """The inner transformation."""
        return scale_by_adam() if self.base_optimizer is None else self.base_optimizer

    @property
    def inside(self) -> tuple[Transformation, ...]:
        return (self.inner,)

    def parts(self, params: Params, state: GaLoreState) -> tuple[Part, ...]:
        low = None if params is None else jax.eval_shape(lambda p: self.projected(p)[0], params)
        return (Part(self.inner, low, state.base_optimizer_state),)

    @functools.cached_property
    def numbers_of(self) -> Callable[[Params], Numbers]:
        """The dimension numbers of each leaf of a tree."""
        given = self.weight_dimension_numbers
        rule = _matrices(given) if given is None or isinstance(given, MuonDimensionNumbers) else given
        return numbers_once("weight_dimension_numbers", rule)

    def projected(self, params: Params) -> tuple[Updates, Tree]:
        """Zeros for the projections and for the bases."""
        leaves, treedef = jax.tree.flatten(params)
        low, bases = [], []
        for leaf, entry in zip(leaves, self.numbers_of(params), strict=True):
            g = None if entry is None else to_matrices(promote(leaf), entry)
            bases.append(MaskedNode() if g is None else jnp.zeros(self.basis_shape(g.shape), g.dtype))
            low.append(jnp.zeros_like(promote(leaf)) if g is None else jnp.zeros(self.low_shape(g.shape), g.dtype))
        return treedef.unflatten(low), treedef.unflatten(bases)

    def basis_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the bases of a stack of matrices."""
        batch, n, m = shape
        return batch, max(n, m), min(self.rank, n, m)

    def low_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the projections of a stack of matrices."""
        batch, n, m = shape
        rank = min(self.rank, n, m)
        return (batch, rank, m) if n >= m else (batch, n, rank)

    def init(self, params: Params) -> GaLoreState:
        low, bases = self.projected(params)
        return GaLoreState(zero_count(), self.inner.init(low), bases)

    def step(
        self, updates: Updates, state: GaLoreState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, GaLoreState]:
        leaves, treedef = jax.tree.flatten(updates)
        numbers = self.numbers_of(updates)
        which = [i for i, entry in enumerate(numbers) if entry is not None]
        stacks = [to_matrices(gathered(promote(leaves[i])), numbers[i]) for i in which]
        bases, of_bases = jax.tree.flatten(state.projector)
        due = state.count % self.update_proj_gap == 0
        bases = cond(due, lambda: [_basis(g, self.rank) for g in stacks], lambda: bases) if which else bases
        low = list(leaves)
        for i, g, basis in zip(which, stacks, bases, strict=True):
            low[i] = _down(g, basis)
        moves, after = self.inner.advance(treedef.unflatten(low), state.base_optimizer_state, None, extra_args)
        moves = jax.tree.leaves(moves)
        for i, g, basis in zip(which, stacks, bases, strict=True):
            full = from_matrices(_up(moves[i], basis, g.shape), numbers[i], leaves[i].shape)
            moves[i] = placed_like(jnp.asarray(self.scale * full).astype(g.dtype), leaves[i])
        return treedef.unflatten(moves), GaLoreState(safe_increment(state.count), after, of_bases.unflatten(bases))


class galore(Preset):
    """GaLore with decoupled weight decay: `-learning_rate * (u + weight_decay * p)`.

    `u` is what `scale_by_galore` gives. Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; with Adam inside, one unit moves each coordinate of a
        projection by about `scale` a step.
      rank: how many dimensions are left, >= 1.
      update_proj_gap: steps from one projection to the next, >= 1.
      scale: factor of the updates of matrices, any finite number.
      base_optimizer: the inner transformation, which sees projections, no parameters: a kernel such
        as `scale_by_lion()`. None is `scale_by_adam()`.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.
      weight_dimension_numbers: which axes make a matrix: `MuonDimensionNumbers` for all leaves of
        two axes or more, a tree of them, with None for leaves that are no matrices, or a function
        from parameters to one. None takes the leaves of two axes.

    State: `(GaLoreState, WeightDecayState, ScaleByLearningRateState)`; for a matrix of `n` times
      `m <= n`, `4*rank*(n + 2*m)` bytes with Adam inside.

    Example:
      >>> import gradtx
      >>> gradtx.galore(1e-2, rank=4, scale=0.25)
      galore(learning_rate=0.01, rank=4, scale=0.25)

    Source: Zhao et al. 2024, arXiv:2403.03507.
    """

    learning_rate: Rate
    rank: PositiveInt = 128
    update_proj_gap: PositiveInt = 200
    scale: Number = 1.0
    base_optimizer: Inner | None = None
    weight_decay: Rate = 0.0
    mask: Mask | None = None
    weight_dimension_numbers: MatrixRule | None = None

    def chain(self) -> Transformation:
        kernel = scale_by_galore(self.rank, self.update_proj_gap, self.scale, self.base_optimizer, self.weight_dimension_numbers)
        return chain(kernel, add_decayed_weights(self.weight_decay, self.mask), scale_by_learning_rate(self.learning_rate))
