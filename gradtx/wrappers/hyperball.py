"""Hyperball: matrices that stay on the sphere where they started, and turn by a relative step."""

import functools
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.masking import select
from gradtx.core.composites import Wrapper
from gradtx.core.domains import Rate
from gradtx.core.leaves import MaskedNode
from gradtx.core.numerics import abs_sq, promote
from gradtx.core.pairs import Inner
from gradtx.core.trees import raise_unlike
from gradtx.core.types import ExtraArg, Params, State, Updates
from gradtx.core.walk import check_not_final
from gradtx.linalg.msign import unit_vector
from gradtx.matrix.dimensions import MatrixRule, MuonDimensionNumbers, Numbers, from_matrices, numbers_once, to_matrices
from gradtx.transforms.scaling import ScaleByLearningRateState, scale_by_learning_rate


class HyperballState(NamedTuple):
    """The wrapped transformation's state, the rate in use, and the first norm of every matrix.

    `radius` has `MaskedNode` for a leaf that is no matrix.
    """

    inner_state: State
    rate: ScaleByLearningRateState
    radius: Params


class hyperball(Wrapper, keeps_zero=True, final=True, needs_params=True):
    """Every matrix keeps its first norm: `w = R*v/|v|`, with `v = w - learning_rate * R*u/|u|`.

    `u` is the direction of `inner`, `R` the Frobenius norm that the matrix had at `init`. Each
    matrix of a stack has its own. The size of `u` does not matter, and no weight decay is needed.
    What is no matrix has no sphere and moves by `-learning_rate * u`; so does a matrix that was
    zero at `init`. Usually other parameters go elsewhere by path, see the example. Its update needs
    `params`. Nothing may change the updates before they are applied.

    Args:
      inner: a direction along the gradient, without a learning rate: `scale_by_adam()`, or
        `chain(trace(0.95, nesterov=True), orthogonalize())`.
      learning_rate: number >= 0 or schedule: the relative step, about the angle in radians. Begin
        with the root of the product of learning rate and weight decay of the method with decay.
      weight_dimension_numbers: which axes make a matrix: a tree of `MuonDimensionNumbers` (None
        where a leaf is no matrix), or a function from the parameters to one, such as `matrix_axes`.
        None takes leaves of two axes as matrices (in, out) and refuses those of more.

    State: `HyperballState(inner_state, rate, radius)`; 4 bytes a matrix and the rate more than the
      wrapped one's.

    Raises:
      ValueError: a leaf of three or more axes without dimension numbers; `inner` keeps averages of
        the parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.hyperball(gradtx.scale_by_adam(), 0.1), 3.0 * jnp.eye(2)
      >>> updates, state = tx.update(jnp.ones((2, 2)), tx.init(params), params)
      >>> params = gradtx.apply_updates(params, updates)
      >>> round(float(jnp.linalg.norm(params)), 4), round(3 * 2**0.5, 4)
      (4.2426, 4.2426)

      Muon on the sphere, with AdamW for all else, which `muon_labels` finds by path:

      >>> axes = gradtx.matrix_axes()
      >>> muon = gradtx.chain(
      ...     gradtx.trace(0.95, nesterov=True),
      ...     gradtx.orthogonalize(weight_dimension_numbers=axes),
      ... )
      >>> matrices = gradtx.hyperball(muon, 0.01, weight_dimension_numbers=axes)
      >>> parts = {"muon": matrices, "adam": gradtx.adamw(6e-4)}
      >>> tx = gradtx.partition(parts, gradtx.muon_labels())
      >>> params = {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}
      >>> updates, _ = tx.update(params, tx.init(params), params)

    Source: Wen et al. 2026, "Fantastic Pretraining Optimizers and Where to Find Them II: Hyperball
    Optimization", arXiv:2606.16899; MuonH and AdamH in https://github.com/marin-community/marin.

    **Differs:** that code takes the norm anew from the parameters at each step, so that rounding
    adds up, and a zero matrix there gives 0/0.
    """

    inner: Inner
    learning_rate: Rate
    _: KW_ONLY
    weight_dimension_numbers: MatrixRule | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_final("hyperball", "inner", self.inner)

    @functools.cached_property
    def numbers(self) -> Callable[[Params], Numbers]:
        """The dimension numbers of each leaf."""
        return numbers_once("weight_dimension_numbers", self.weight_dimension_numbers)

    @functools.cached_property
    def descent(self) -> scale_by_learning_rate:
        """The step of what has no sphere."""
        return scale_by_learning_rate(self.learning_rate)

    def init(self, params: Params) -> HyperballState:
        leaves, treedef = jax.tree.flatten(params)
        radius = [
            MaskedNode() if entry is None else _norms(to_matrices(promote(leaf), entry))
            for leaf, entry in zip(leaves, self.numbers(params), strict=True)
        ]
        return HyperballState(self.inner.init(params), self.descent.init(params), treedef.unflatten(radius))

    def step(
        self, updates: Updates, state: HyperballState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, HyperballState]:
        directions, inner_state = self.inner.advance(updates, state.inner_state, params, extra_args)
        steps, rate = self.descent.step(directions, state.rate)
        numbers = self.numbers(params)
        leaves, treedef = jax.tree.flatten(steps)
        some = select(params, [entry is not None for entry in numbers])
        if jax.tree.structure(some) != jax.tree.structure(state.radius):
            raise_unlike(some, state.radius)
        radii, eta = iter(jax.tree.leaves(state.radius)), self.descent.rate(state.rate.count)
        for i, (w, u) in enumerate(zip(jax.tree.leaves(params), jax.tree.leaves(directions), strict=True)):
            if (entry := numbers[i]) is not None:
                leaves[i] = _turn(w, u, leaves[i], next(radii), eta, entry)
        return treedef.unflatten(leaves), HyperballState(inner_state, rate, state.radius)


def _turn(
    w: jax.Array, u: jax.Array, free: jax.Array, radius: jax.Array, rate: jax.Array, entry: MuonDimensionNumbers
) -> jax.Array:
    """The update of the matrices of one leaf; `free` is that of a matrix without a sphere."""
    matrices, direction, plain = (to_matrices(promote(x), entry) for x in (w, u, free))
    turn = rate.astype(radius.dtype) * radius * unit_vector(direction, (1, 2))
    moves = jnp.any(turn != 0, axis=(1, 2), keepdims=True)  # else rounding alone would move it
    new = radius * unit_vector(matrices - turn, (1, 2)) - matrices
    change = jnp.where(radius == 0, plain, jnp.where(moves, new, 0))
    return from_matrices(change, entry, w.shape).astype(free.dtype)


def _norms(matrices: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(abs_sq(matrices), axis=(1, 2), keepdims=True))
