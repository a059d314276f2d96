"""What SOAP and its kin share: matrices in slowly turning bases, all other leaves as they are."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike

from gradtx.compose.masking import merge, select
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import cond, real_dtype, running_mean, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.trees import raise_unlike
from gradtx.core.types import DType, ExtraArg, Params, Scalar, State, Tree, Updates
from gradtx.linalg.eigenbasis import Basis, after, eigenbasis
from gradtx.matrix.dimensions import MatrixRule, MuonDimensionNumbers, Numbers, fan, numbers_once
from gradtx.matrix.on_mesh import on_automatic_axes
from gradtx.matrix.stacks import (
    Group,
    Groups,
    Row,
    each_matrix,
    from_rows,
    from_stacks,
    groups_of,
    row_of,
    to_stacks,
    zeros_stack,
)


class Clock(NamedTuple):
    """Where in its schedule a step is.

    Attributes:
      t: steps before this one. The first makes the bases, so that the one with `t` = 1 is the first
        in them.
      first: whether this step makes the bases.
      turns: whether the bases follow their matrices at the end of this step.
    """

    t: jax.Array
    first: jax.Array
    turns: jax.Array


def gram_mean(mean: Basis, x: jax.Array, decay: Scalar, precision: PrecisionLike) -> Basis:
    """The running mean of `x^H x`, of a side that has a basis."""
    return None if mean is None else running_mean(mean, jnp.matmul(x.conj().T, x, precision=precision), decay)


def _with_first_bases(row: Row) -> Row:
    """The eigenvectors of the factors, where none were before."""
    left = None if row.left is None else eigenbasis(row.left)
    right = None if row.right is None else eigenbasis(after(row.right, left))
    return row._replace(left_basis=left, right_basis=right)


class InEigenbasis(Transformation, keeps_zero=True):
    """A method that treats each matrix in bases of its own.

    Bases are zero until the first step has made them. A subclass says what it does with one matrix,
    and with a leaf that is none, and declares its state.
    """

    row_type: ClassVar[type]
    """What is kept of a matrix: `mu`, `nu`, `left`, `right`, `left_basis`, `right_basis`, ..."""
    turning: ClassVar[tuple[str, ...]]
    """What of it changes where bases turn."""

    if TYPE_CHECKING:  # fields of its subclasses, at their places among the others, and their rules

        @property
        def precondition_frequency(self) -> int: ...
        @property
        def max_precond_dim(self) -> int: ...
        @property
        def one_sided(self) -> bool: ...
        @property
        def precondition_1d(self) -> bool: ...
        @property
        def weight_dimension_numbers(self) -> MatrixRule | None: ...

        def of_matrix(self, clock: Clock, g: jax.Array, row: Row) -> tuple[jax.Array, Row]:
            """The update of one matrix, and what is kept of it."""
            ...

        def of_leaf(self, clock: Clock, g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            """The update of a leaf without bases, and its moments."""
            ...

        def followed(self, row: Row) -> Row:
            """What is kept of a matrix after its bases have followed its factors."""
            ...

    def turned(self, clock: Clock, row: Row) -> Row:
        """What is kept of a matrix; its bases follow its factors where the clock says so."""

        def changed(row: Row) -> dict[str, Tree]:
            return {name: jax.tree.map(jnp.ravel, getattr(row, name)) for name in self.turning}

        def turn() -> dict[str, Tree]:
            return cond(clock.first, lambda: changed(_with_first_bases(row)), lambda: changed(self.followed(row)))

        # A branch copies what it hands on, so it hands on what changes; and as vectors, which lie
        # in one order: else XLA takes LAPACK's, and turns all matrices round in every step.
        flat = cond(clock.turns, turn, lambda: changed(row))
        like = {name: getattr(row, name) for name in self.turning}
        return row._replace(**jax.tree.map(lambda x, old: x.reshape(old.shape), flat, like))

    def zero_row(self, group: Group, zeros: Callable[..., jax.Array]) -> Row:
        """What is kept of the matrices of one shape before the first step."""
        n, m = group.shape
        sides = self.sides(n, m)
        factors = [zeros(size, size) if side else None for side, size in zip(sides, (n, m), strict=True)]
        return self.row_type(zeros(n, m), zeros(n, m, dtype=real_dtype(group.dtype)), *factors, *factors)

    def sides(self, n: int, m: int) -> tuple[bool, bool]:
        """Whether matrices of this shape have a basis on the left, and on the right."""
        left, right = (1 < size <= self.max_precond_dim for size in (n, m))
        if self.one_sided and left and right:
            return n <= m, n > m
        return left, right

    @functools.cached_property
    def numbers(self) -> Callable[[Params], Numbers]:
        """The dimension numbers of each leaf, as the user states them."""
        return numbers_once("weight_dimension_numbers", self.weight_dimension_numbers)

    def routed(self, leaves: Sequence[jax.Array], tree: Params) -> Numbers:
        """The dimension numbers of the leaves that have bases; None for all others."""
        entries = list(self.numbers(tree))
        for i, leaf in enumerate(leaves):
            if entries[i] is None and self.precondition_1d and leaf.ndim == 1:
                entries[i] = MuonDimensionNumbers(0, ())
            entry = entries[i]
            if entry is not None and not any(self.sides(*fan(entry, leaf.shape))):
                entries[i] = None
        return tuple(entries)

    def init(self, params: Params) -> State:
        leaves = jax.tree.leaves(params)
        numbers = self.routed(leaves, params)
        others = select(params, [entry is None for entry in numbers])
        rows = {}
        for name, group in groups_of(leaves, numbers).items():

            def zeros(*shape: int, dtype: DType = group.dtype, count: int = group.count) -> jax.Array:
                return zeros_stack((count, *shape), dtype, params)

            rows[name] = self.zero_row(group, zeros)
        return self.state_type(zero_count(), zeros_like(others), real_full_like(others, 0), from_rows(self.row_type, rows))

    def step(self, updates: Updates, state: State, params: Params | None = None, **extra_args: ExtraArg) -> tuple[Updates, State]:
        leaves, treedef = jax.tree.flatten(updates)
        numbers = self.routed(leaves, updates)
        bare = [entry is None for entry in numbers]
        groups = groups_of(leaves, numbers)
        others = select(updates, bare)
        if jax.tree.structure(others) != jax.tree.structure(state.mu):
            raise_unlike(others, state.mu)
        t = state.count
        clock = Clock(t, t == 0, (t == 0) | (t % self.precondition_frequency == 0))

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            return self.of_leaf(clock, g, m, v)

        matrices = {i: leaf for i, leaf in enumerate(leaves) if not bare[i]}
        run = functools.partial(self.of_matrices, groups)
        like = (matrices, state.matrices)
        found, kept = on_automatic_axes(run, leaves, like, matrices, state.matrices, clock) if groups else like
        changed, mu, nu = rule(others, state.mu, state.nu)
        updates = merge(treedef.unflatten([found.get(i, leaf) for i, leaf in enumerate(leaves)]), bare, jax.tree.leaves(changed))
        return updates, self.state_type(safe_increment(t), mu, nu, kept)

    def of_matrices(
        self, groups: Groups, leaves: dict[int, jax.Array], kept: State, clock: Clock
    ) -> tuple[dict[int, jax.Array], State]:
        """The updates of all matrices, by the indices of their leaves, and what is kept of them."""
        gradients = to_stacks(leaves, groups)
        stacks = {name: (gradients[name], row_of(kept, name)) for name in groups}
        found = each_matrix(self.of_matrix, stacks, clock, groups, list(leaves.values()))
        updates = from_stacks({name: update for name, (update, _) in found.items()}, groups, list(leaves.values()))
        # A NaN makes its whole matrix NaN: this changes nothing, but XLA lets updates lie as
        # gradients do.
        updates = {i: jnp.where(jnp.isnan(g), g, updates[i].astype(g.dtype)) for i, g in leaves.items()}
        return updates, from_rows(self.row_type, {name: row for name, (_, row) in found.items()})
