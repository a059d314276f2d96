"""Shampoo: gradients between inverse roots of their outer products along every axis, in blocks."""

import functools
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core import checks
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Domain, Fraction, Mask, NonNegative, PositiveInt, Rate
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import abs_sq, cond, guarded_ratio, one_minus_power, running_mean, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Moment, Params, Scalar, Squares, Tree, Updates
from gradtx.core.value import record
from gradtx.linalg.eigenbasis import after
from gradtx.linalg.roots import inverse_root
from gradtx.matrix.blocks import Group, Stacking, along, lying_as_a_stack, on_shares, outer, stacking_once
from gradtx.matrix.dimensions import MatrixRule
from gradtx.matrix.on_mesh import on_automatic_axes
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

GRAFTS = ("adam", "rmsprop", "sgd")


@record
class Graft(NamedTuple):
    """The method whose updates say how large each block's update is.

    Attributes:
      method: 'adam' `m_hat / (sqrt(v_hat) + eps)`, 'rmsprop' `m_hat / (sqrt(v) + eps)`, or 'sgd'
        `m_hat`.
      b2: decay of the running mean of squares `v`, in [0, 1); often 0.99 for 'rmsprop'.
      eps: added to its root, >= 0; in units of the gradient.
    """

    method: str = "adam"
    b2: float = 0.999
    eps: float = 1e-10


def _is_graft(value: Any) -> bool:
    return isinstance(value, Graft) and value.method in GRAFTS and 0 <= value.b2 < 1 and value.eps >= 0


GRAFT = Domain(f"Graft(method, b2 in [0, 1), eps >= 0) with a method among {', '.join(map(repr, GRAFTS))}", _is_graft)


class ScaleByShampooState(NamedTuple):
    """Steps taken, mean gradient, mean squares of the graft, and matrices.

    Of these there is for each shape of a block and each of its axes one array, a stack of square
    matrices: sums or running means of outer products, and their inverse roots.
    """

    count: jax.Array
    mu: Moment
    nu: Squares
    statistics: Tree
    roots: Tree


class scale_by_shampoo(Transformation, keeps_zero=True):
    """Shampoo's direction: the mean gradient times an inverse root of a matrix along each axis.

    For a matrix `G`, with `m_hat` its bias-corrected running mean:
    `(L + eps)^(-1/4) m_hat (R + eps)^(-1/4)`, where `L` gathers `G G^T` and `R` gathers `G^T G`. A
    tensor of `k` axes has a matrix for each of them, at the power `-1/(2k)`; a vector has one, at
    `-1/2`. With `b2` 1 they are sums; else they are running means over `1 - b2^t`. Axes longer than
    `block_size` are cut into equal blocks, each a tensor of its own. A graft, such as Adam, says
    how large the update of each block is; until step `start` its updates are used as they are.

    Roots are computed at step `start` and then whenever `frequency` divides the step, at `10 n^3`
    operations for each matrix of `n` rows. All blocks of one shape are one stack. On a mesh each
    device keeps the matrices of its share of a stack, and computes with them: gradients and means
    move there, and updates back.

    Args:
      b1: decay of the mean of gradients, in [0, 1).
      b2: decay of the matrices, in [0, 1]; 1 sums them up.
      eps: added to the matrices' diagonals, >= 0; in units of the gradient squared.
      graft: `Graft("adam", b2, eps)`, `Graft("rmsprop", ...)` or `Graft("sgd")`.
      frequency: how many steps lie between two computations of roots, >= 1.
      start: the first step with matrices, >= 1; None is `frequency`.
      block_size: most elements of a block along an axis, >= 1.
      weight_dimension_numbers: which axes make a matrix, and which are a stack of matrices: as in
        `orthogonalize`. None, for all leaves or for one, takes a leaf as one tensor.

    State: `ScaleByShampooState(count int32, mu, nu, statistics, roots)`; 8 bytes a parameter, 4
      with the graft 'sgd', and `8 n^2` for each axis of `n` elements of a block: 16 more bytes a
      parameter for square matrices.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_shampoo(graft=gradtx.Graft("sgd"))
      >>> grads = jnp.array([[3.0, 0.0], [0.0, 0.1]])
      >>> updates, state = tx.update(grads, tx.init(grads))
      >>> (updates / updates[0, 0]).round(3)
      Array([[1., 0.],
             [0., 1.]], dtype=float32)

    Source: Gupta et al. 2018, arXiv:1802.09568; Shi et al. 2023, arXiv:2309.06497, and its code,
    https://github.com/facebookresearch/optimizers.

    **Differs:** the authors' code merges short axes into one, which `weight_dimension_numbers` does
    here by name; its last block along an axis is the rest, where blocks here have equal size; and
    it lets `eps` be less than the rounding of the largest eigenvalue, which amplifies noise.
    """

    b1: Decay = 0.9
    b2: Fraction = 1.0
    eps: NonNegative = 1e-12
    _: KW_ONLY
    graft: Annotated[Graft, GRAFT] = Graft()
    frequency: PositiveInt = 1
    start: PositiveInt | None = None
    block_size: PositiveInt = 1024
    weight_dimension_numbers: MatrixRule | None = None

    @functools.cached_property
    def stacking(self) -> Callable[[Params], Stacking]:
        """How the leaves of a tree make stacks of blocks."""
        return stacking_once("weight_dimension_numbers", self.weight_dimension_numbers, self.block_size)

    def init(self, params: Params) -> ScaleByShampooState:
        leaves = jax.tree.leaves(params)
        groups = self.stacking(params).groups

        def matrices(value: float) -> Tree:
            made = tuple(tuple(value * _identities(group, n) for n in group.block) for group in groups)
            return jax.tree.map(lambda x: lying_as_a_stack(x, leaves), made)

        nu = real_full_like(params, 0) if self.graft.method != "sgd" else ()
        return ScaleByShampooState(zero_count(), zeros_like(params), nu, matrices(0.0), matrices(1.0))

    def step(
        self, updates: Updates, state: ScaleByShampooState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByShampooState]:
        return on_automatic_axes(self.on_stacks, jax.tree.leaves(updates), (updates, state), updates, state)

    def on_stacks(self, updates: Updates, state: ScaleByShampooState) -> tuple[Updates, ScaleByShampooState]:
        """The rule."""
        t = safe_increment(state.count)
        means, grafted, mu, nu = self.first_order(updates, state, t)
        stacking = self.stacking(updates)
        _check(stacking, state)
        leaves, treedef = jax.tree.flatten(updates)
        moved = stacking.stack(leaves, jax.tree.leaves(means))
        kept = list(zip(stacking.norms(jax.tree.leaves(grafted)), state.statistics, state.roots, strict=True))
        results = on_shares(self.of_group, moved, kept, t, leaves)
        directions, statistics, roots = (tuple(result[k] for result in results) for k in range(3))
        shampoo = stacking.unstack(directions, leaves)
        begun = t >= self.first
        chosen = [jnp.where(begun, a, b) for a, b in zip(shampoo, jax.tree.leaves(grafted), strict=True)]
        return treedef.unflatten(chosen), ScaleByShampooState(t, mu, nu, statistics, roots)

    @property
    def first(self) -> int:
        """The first step with matrices."""
        return self.frequency if self.start is None else self.start

    def first_order(self, updates: Updates, state: ScaleByShampooState, t: jax.Array) -> tuple[Updates, Updates, Moment, Squares]:
        """The mean gradients and the updates of the graft, with what they leave."""
        method, b2, eps = self.graft
        c1 = one_minus_power(self.b1, t)
        c2 = one_minus_power(b2, t) if method == "adam" else 1.0
        if method == "sgd":

            @each_leaf
            def mean(g: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
                m = running_mean(m, g, self.b1)
                return m / c1, m

            means, mu = mean(updates, state.mu)
            return means, means, mu, state.nu

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m, v = running_mean(m, g, self.b1), running_mean(v, abs_sq(g), b2)
            m_hat = m / c1
            return guarded_ratio(m_hat, jnp.sqrt(v / c2) + eps, eps), m, v, m_hat

        grafted, mu, nu, means = rule(updates, state.mu, state.nu)
        return means, grafted, mu, nu

    def of_group(self, moved: jax.Array, kept: Any, t: jax.Array) -> Any:
        """The directions of one group of blocks, with its matrices and their roots."""
        g, m = moved[:, 0], moved[:, 1]
        sizes, statistics, roots = kept
        axes = range(len(statistics))
        weight, correction = _sum_or_mean(self.b2, t)
        statistics = tuple((self.b2 * s + weight * outer(g, i)).astype(s.dtype) for i, s in zip(axes, statistics, strict=True))

        def computed() -> Tree:
            found: list[jax.Array] = []
            for s in statistics:
                found.append(inverse_root(after(s, found) / correction, 2 * len(statistics), self.eps).astype(s.dtype))
            return tuple(found)

        due = (t == self.first) | ((t > self.first) & (t % self.frequency == 0))
        roots = cond(due, computed, lambda: roots)
        direction = m
        for i, root in zip(axes, roots, strict=True):
            direction = along(root, direction, i)
        norms = jnp.sqrt(jnp.sum(abs_sq(direction), axis=tuple(range(1, m.ndim))))
        factors = sizes / (norms + 1e-16)  # as the authors' code guards it
        return (direction * factors.reshape(-1, *[1] * (m.ndim - 1))).astype(m.dtype), statistics, roots


def _identities(group: Group, n: int) -> jax.Array:
    return jnp.broadcast_to(jnp.eye(n, dtype=group.dtype), (group.size, n, n))


def _sum_or_mean(b2: Scalar, t: jax.Array) -> tuple[Scalar, Scalar]:
    """The weight of a new outer product, and what the matrices are over: `1 - b2^t` of a mean."""
    if isinstance(b2, (int, float)):
        return (1.0, 1.0) if b2 == 1 else (1 - b2, one_minus_power(b2, t))
    return jnp.where(b2 == 1, 1, 1 - b2), jnp.where(b2 == 1, 1, one_minus_power(b2, t))


def _check(stacking: Stacking, state: ScaleByShampooState) -> None:
    expected = [[(group.size, n, n) for n in group.block] for group in stacking.groups]
    found = jax.tree.map(jnp.shape, [list(stack) for stack in state.statistics])
    if found != expected:
        raise checks.WrongValue(
            f"the matrices in the state have shapes {found}, expected {expected}. Was the state made from other parameters, "
            "or with another block_size or weight_dimension_numbers?"
        )


class shampoo(Preset):
    """Shampoo: `-learning_rate * (u + weight_decay * p)`, `u` the direction of `scale_by_shampoo`.

    With the graft 'adam' updates are as large as Adam's, and so is a good learning rate. Its update
    needs `params` for weight decay.

    Args:
      learning_rate: number >= 0 or schedule; with the graft 'adam' one unit moves each parameter by
        about 1 a step. The authors' default is 0.01.
      b1: decay of the mean of gradients, in [0, 1).
      b2: decay of the matrices, in [0, 1]; 1 sums them up.
      eps: added to the matrices' diagonals, >= 0; in units of the gradient squared.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.
      graft: `Graft("adam", b2, eps)`, `Graft("rmsprop", ...)` or `Graft("sgd")`.
      frequency: how many steps lie between two computations of roots, >= 1.
      start: the first step with matrices, >= 1; None is `frequency`.
      block_size: most elements of a block along an axis, >= 1.
      weight_dimension_numbers: which axes make a matrix, and which are a stack of matrices: as in
        `orthogonalize`. None, for all leaves or for one, takes a leaf as one tensor.

    State: `(ScaleByShampooState, WeightDecayState, ScaleByLearningRateState)`; 24 bytes a parameter
      for square matrices up to `block_size`.

    Example:
      >>> import gradtx
      >>> rest = gradtx.adamw(1e-3)  # for embeddings, vectors and numbers
      >>> matrices = gradtx.shampoo(1e-3, b2=0.99, frequency=10)
      >>> tx = gradtx.partition({"muon": matrices, "adam": rest}, gradtx.muon_labels())

    Source: Gupta et al. 2018, arXiv:1802.09568; Shi et al. 2023, arXiv:2309.06497.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Fraction = 1.0
    eps: NonNegative = 1e-12
    weight_decay: Rate = 0.0
    mask: Mask | None = None
    _: KW_ONLY
    graft: Annotated[Graft, GRAFT] = Graft()
    frequency: PositiveInt = 1
    start: PositiveInt | None = None
    block_size: PositiveInt = 1024
    weight_dimension_numbers: MatrixRule | None = None

    def chain(self) -> Transformation:
        own = ("graft", "frequency", "start", "block_size", "weight_dimension_numbers")
        return chain(
            scale_by_shampoo(self.b1, self.b2, self.eps, **{name: getattr(self, name) for name in own}),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )
