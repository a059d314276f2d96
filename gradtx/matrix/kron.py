"""PSGD Kron: a preconditioner with a triangular factor along each axis, fitted as it goes."""

import functools
import math
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.chain import chain
from gradtx.core import checks
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Domain, Fraction, Mask, PositiveInt, Rate, Schedule, one_of, scheduled_value
from gradtx.core.leaves import each_leaf, zeros_like
from gradtx.core.numerics import abs_sq, cond, default_float, one_minus_power, running_mean, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Moment, Params, Tree, Updates
from gradtx.matrix.blocks import Group, Stacking, along, lying_as_a_stack, on_shares, outer, stacking_once
from gradtx.matrix.dimensions import MatrixRule
from gradtx.matrix.on_mesh import on_automatic_axes
from gradtx.schedules.decay import exponential_decay
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.noise import Key, as_key
from gradtx.transforms.scaling import scale_by_learning_rate

DAMPING = float(np.finfo(np.float32).eps) ** 0.5
"""How large the noise is beside the mean gradient, as in the authors' code."""
LARGEST_RMS = 1.1
"""What the root mean square of a tensor's update is clipped to, as in the authors' code."""
BALANCING = 0.01
"""With what probability the factors of a tensor get one size again, as in the authors' code."""
UPDATES = "high"
"""The precision of products that move the factors: TensorFloat-32, as in the authors' code."""

PROBABILITY = exponential_decay(1.0, 1000, math.exp(-1), 500, end_value=0.03)
"""How often factors move, as in the authors' code: always for 500 steps, then down to 0.03."""

MODES = ("one_diag", "all_diag")


def _is_probability(value: object) -> bool:
    return checks.is_schedule(value) or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1)


Probability = Annotated[float | Schedule, Domain("a number in (0, 1], or a schedule", _is_probability)]


class ScaleByKronState(NamedTuple):
    """Steps taken, mean gradient, factors, steps since they moved, and the key for the next step.

    For each shape of a tensor and each of its axes there is one array of factors: a stack of
    triangular matrices, or of their diagonals.
    """

    count: jax.Array
    mu: Moment
    factors: Tree
    waited: jax.Array
    rng_key: jax.Array


class scale_by_kron(Transformation, keeps_zero=True):
    """PSGD's direction with Kronecker factors: the mean gradient times `Q^T Q` along each axis.

    With `M` the bias-corrected mean gradient of a matrix, the update is `Q1^T Q1 M Q2^T Q2`,
    clipped to the root mean square 1.1. The upper triangular factors follow a descent that whitens
    `M`: with noise `V`, `G = M + 3.5e-4 mean|M| V`, `A = Q1 G Q2^T` and `B = Q1^-T V Q2^-1`,

        `Q1 -= preconditioner_lr * triu(A A^T - B B^T) / |A A^T + B B^T| @ Q1`

    and likewise `Q2`; the norm is a lower bound of the spectral one. A tensor has a factor for each
    of its axes; that of a long axis, and those of vectors, are diagonal. They move when
    `1 / probability` steps are over. Where the mean gradient is zero, factors stay. All tensors of
    one shape are one stack. On a mesh each device keeps the factors of its share of a stack: mean
    gradients move there, and updates back.

    Args:
      b1: decay of the mean of gradients, in [0, 1).
      preconditioner_update_probability: how often factors move: a number in (0, 1], or a schedule
        of the step, from 1. The default is 1 for 500 steps and falls as `exp(-(t - 500) / 1000)` to
        0.03.
      max_size_triangular: longest axis with a triangular factor, >= 1.
      min_ndim_triangular: least number of axes of a tensor with triangular factors, >= 1.
      memory_save_mode: None; 'one_diag': the longest axis has a diagonal factor; 'all_diag': all.
      preconditioner_lr: the step of the factors, in [0, 1].
      key: random key, or a whole number to seed one.
      weight_dimension_numbers: which axes make a matrix, and which are a stack of matrices: as in
        `orthogonalize`. None, for all leaves or for one, takes a leaf as one tensor.

    State: `ScaleByKronState(count int32, mu, factors, waited int32, rng_key)`; 4 bytes a parameter,
      and `4 n^2` for an axis of `n` elements, `4 n` where its factor is diagonal: 12 bytes a
      parameter for square matrices.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_kron()
      >>> grads = jnp.array([[3.0, 0.0], [0.0, 0.1]])
      >>> state = tx.init(grads)
      >>> for _ in range(200):
      ...     updates, state = tx.update(grads, state)
      >>> bool(updates[1, 1] > 0.3 * updates[0, 0])
      True

    Source: Li 2015, arXiv:1512.04202; Pooladzandi and Li 2024, arXiv:2402.04553, and
    https://github.com/evanatyourservice/psgd_jax, kron.py.

    **Differs:** the authors' code has diagonal factors for axes of one element, which have none
    here; clips leaves where tensors are clipped here; and moves factors at zero gradients, so that
    those of a frozen parameter overflow.
    """

    b1: Decay = 0.9
    preconditioner_update_probability: Probability = PROBABILITY
    max_size_triangular: PositiveInt = 8192
    min_ndim_triangular: PositiveInt = 2
    memory_save_mode: Annotated[str, one_of(*MODES)] | None = None
    _: KW_ONLY
    preconditioner_lr: Fraction = 0.1
    key: Key = 0
    weight_dimension_numbers: MatrixRule | None = None

    @functools.cached_property
    def stacking(self) -> Callable[[Params], Stacking]:
        """How the leaves of a tree make stacks of tensors."""
        return stacking_once("weight_dimension_numbers", self.weight_dimension_numbers)

    def triangular(self, shape: tuple[int, ...]) -> list[bool]:
        """Which axes of a tensor have a triangular factor."""
        longest = max(range(len(shape)), key=lambda i: (shape[i], i))
        diagonal = {None: (), "one_diag": (longest,), "all_diag": range(len(shape))}[self.memory_save_mode]
        enough = len(shape) >= self.min_ndim_triangular
        return [enough and 1 < n <= self.max_size_triangular and i not in diagonal for i, n in enumerate(shape)]

    def shapes(self, group: Group) -> list[tuple[int, ...]]:
        """The shapes of a group's factors."""
        kinds = zip(group.block, self.triangular(group.block), strict=True)
        return [(group.size, n, n) if triangular else (group.size, n) for n, triangular in kinds]

    def init(self, params: Params) -> ScaleByKronState:
        leaves = jax.tree.leaves(params)

        def factor(shape: tuple[int, ...], dtype: Any) -> jax.Array:
            one = jnp.eye(shape[-1], dtype=dtype) if len(shape) == 3 else jnp.ones(shape[-1], dtype)
            return lying_as_a_stack(jnp.broadcast_to(one, shape), leaves)

        groups = self.stacking(params).groups
        factors = tuple(tuple(factor(shape, group.dtype) for shape in self.shapes(group)) for group in groups)
        return ScaleByKronState(zero_count(), zeros_like(params), factors, zero_count(), as_key(self.key))

    def step(
        self, updates: Updates, state: ScaleByKronState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByKronState]:
        return on_automatic_axes(self.on_stacks, jax.tree.leaves(updates), (updates, state), updates, state)

    def on_stacks(self, updates: Updates, state: ScaleByKronState) -> tuple[Updates, ScaleByKronState]:
        """The rule."""
        t = safe_increment(state.count)
        correction = one_minus_power(self.b1, t)

        @each_leaf
        def mean(g: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
            m = running_mean(m, g, self.b1)
            return m / correction, m

        means, mu = mean(updates, state.mu)
        stacking = self.stacking(updates)
        self.check(stacking, state)
        leaves, treedef = jax.tree.flatten(means)
        probability = scheduled_value("preconditioner_update_probability", self.preconditioner_update_probability, t)
        waited = safe_increment(state.waited)
        due = waited.astype(default_float()) >= 1 / jnp.asarray(probability, default_float())
        next_key, noise, coin = jax.random.split(state.rng_key, 3)
        balanced = jax.random.uniform(coin) < BALANCING
        keys = jax.random.split(noise, max(len(stacking.groups), 1))
        kept = [
            (jax.random.split(key, group.size), factors)
            for key, group, factors in zip(keys, stacking.groups, state.factors, strict=False)
        ]
        results = on_shares(self.of_group, stacking.stack(leaves), kept, (due, balanced), leaves)
        directions, factors = (tuple(result[k] for result in results) for k in range(2))
        state = ScaleByKronState(t, mu, factors, jnp.where(due, 0, waited).astype(jnp.int32), next_key)
        return treedef.unflatten(stacking.unstack(directions, leaves)), state

    def of_group(self, moved: jax.Array, kept: Any, when: Any) -> Any:
        """The directions of one stack of tensors, with its factors."""
        m = moved[:, 0]
        keys, factors = kept
        due, balanced = when
        factors = cond(due, lambda: self.fitted(m, keys, factors, balanced), lambda: factors)
        direction = m
        for i, q in enumerate(factors):
            if q.ndim == 2:
                direction = direction * abs_sq(_beside(q, direction, i))
            else:
                direction = along(q.conj().swapaxes(1, 2), along(q, direction, i), i)
        rms = jnp.sqrt(_mean(abs_sq(direction)))
        return (direction / jnp.maximum(1, rms / LARGEST_RMS)).astype(m.dtype), factors

    def fitted(self, m: jax.Array, keys: jax.Array, factors: tuple[jax.Array, ...], balanced: jax.Array) -> tuple[jax.Array, ...]:
        """The factors after one step of their descent."""
        sizes = _mean(jnp.abs(m))
        v = jax.vmap(lambda key: jax.random.normal(key, m.shape[1:], m.dtype))(keys)
        a = m + DAMPING * sizes * v
        b = v.conj()
        old = cond(balanced, lambda: _balanced(factors), lambda: factors)
        for i, q in enumerate(old):
            a = _beside(q, a, i) * a if q.ndim == 2 else along(q, a, i, UPDATES)
            b = b / _beside(q, b, i) if q.ndim == 2 else _solved(q, b, i)
        moved = [self.descended(q, a, b.conj(), i) for i, q in enumerate(old)]
        at_rest = [(sizes == 0).reshape(-1, *[1] * (q.ndim - 1)) for q in factors]
        return tuple(jnp.where(rest, q, new).astype(q.dtype) for rest, q, new in zip(at_rest, factors, moved, strict=True))

    def descended(self, q: jax.Array, a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
        """One factor after a step."""
        tiny = jnp.finfo(q.dtype).tiny
        if q.ndim == 2:
            others = tuple(i for i in range(1, a.ndim) if i != axis + 1)
            one, other = (jnp.sum(abs_sq(x), axis=others) for x in (a, b))
            return q - self.preconditioner_lr * (one - other) * q / (jnp.max(one + other, axis=1, keepdims=True) + tiny)
        one, other = (outer(x, axis, UPDATES) for x in (a, b))
        size = _norm_lower_bound(one + other)[:, None, None] + tiny
        return q - jnp.matmul(jnp.triu(self.preconditioner_lr * (one - other)) / size, q, precision=UPDATES)

    def check(self, stacking: Stacking, state: ScaleByKronState) -> None:
        """Raises for a state of other parameters."""
        expected = [self.shapes(group) for group in stacking.groups]
        found = [[q.shape for q in factors] for factors in state.factors]
        if found != expected:
            raise checks.WrongValue(
                f"the factors in the state have shapes {found}, expected {expected}. Was the state made from other parameters, "
                "or with other arguments?"
            )


def _beside(q: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """Diagonal factors in a shape that broadcasts along one axis of each tensor."""
    return q.reshape(len(q), *[-1 if i == axis else 1 for i in range(x.ndim - 1)])


def _mean(x: jax.Array) -> jax.Array:
    """The mean of each tensor of a stack."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)), keepdims=True)


def _solved(q: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """`x Q^-1` along one axis of each tensor."""
    rows = jnp.moveaxis(x, axis + 1, -1)
    flat = rows.reshape(len(q), -1, q.shape[-1])
    solved = jax.lax.linalg.triangular_solve(q, flat, left_side=False, lower=False)
    return jnp.moveaxis(solved.reshape(rows.shape), -1, axis + 1)


def _norm_lower_bound(a: jax.Array) -> jax.Array:
    """A lower bound of the spectral norm of each Hermitian matrix of a stack, within `sqrt(2)`.

    Two steps of the power method from the longest row.
    """
    largest = jnp.max(jnp.abs(a), axis=(1, 2))
    scaled = a / jnp.where(largest == 0, 1, largest)[:, None, None]
    longest = jnp.argmax(jnp.sum(abs_sq(scaled), axis=2), axis=1)
    row = jnp.take_along_axis(scaled, longest[:, None, None], axis=1)[:, 0].conj()
    x = jnp.matmul(scaled, row[..., None], precision=UPDATES)
    norm = jnp.linalg.norm(x, axis=1, keepdims=True)
    y = jnp.matmul(scaled.conj().swapaxes(1, 2), x / jnp.where(norm == 0, 1, norm), precision=UPDATES)
    return largest * jnp.linalg.norm(y[..., 0], axis=1)


def _balanced(factors: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The factors of each tensor with one largest entry, their product unchanged."""
    sizes = [jnp.max(jnp.abs(q), axis=tuple(range(1, q.ndim)), keepdims=True) for q in factors]
    logarithms = [jnp.log(size.reshape(-1)) for size in sizes]
    middle = jnp.exp(sum(logarithms[1:], start=logarithms[0]) / len(factors))
    return tuple((q * (middle.reshape(size.shape) / size)).astype(q.dtype) for q, size in zip(factors, sizes, strict=True))


class kron(Preset):
    """PSGD Kron: `-learning_rate * (u + weight_decay * p)`, `u` the direction of `scale_by_kron`.

    Updates have a root mean square of about 1, at most 1.1. Its update needs `params` for weight
    decay.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. The
        authors' default is 0.001; often a third of Adam's.
      b1: decay of the mean of gradients, in [0, 1).
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.
      preconditioner_update_probability: how often factors move: a number in (0, 1], or a schedule
        of the step, from 1. The default is 1 for 500 steps and falls as `exp(-(t - 500) / 1000)` to
        0.03.
      max_size_triangular: longest axis with a triangular factor, >= 1.
      min_ndim_triangular: least number of axes of a tensor with triangular factors, >= 1.
      memory_save_mode: None; 'one_diag': the longest axis has a diagonal factor; 'all_diag': all.
      preconditioner_lr: the step of the factors, in [0, 1].
      key: random key, or a whole number to seed one.
      weight_dimension_numbers: which axes make a matrix, and which are a stack of matrices: as in
        `orthogonalize`. None, for all leaves or for one, takes a leaf as one tensor.

    State: `(ScaleByKronState, WeightDecayState, ScaleByLearningRateState)`; 12 bytes a parameter
      for square matrices.

    Example:
      >>> import gradtx
      >>> gradtx.kron(3e-4, weight_decay=0.1, memory_save_mode="one_diag")
      kron(learning_rate=0.0003, weight_decay=0.1, memory_save_mode='one_diag')

    Source: Li 2015, arXiv:1512.04202; https://github.com/evanatyourservice/psgd_jax.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    weight_decay: Rate = 0.0
    mask: Mask | None = None
    preconditioner_update_probability: Probability = PROBABILITY
    max_size_triangular: PositiveInt = 8192
    min_ndim_triangular: PositiveInt = 2
    memory_save_mode: Annotated[str, one_of(*MODES)] | None = None
    _: KW_ONLY
    preconditioner_lr: Fraction = 0.1
    key: Key = 0
    weight_dimension_numbers: MatrixRule | None = None

    def chain(self) -> Transformation:
        others = ("learning_rate", "weight_decay", "mask")
        own = {name: value for name, value in self.arguments.items() if name not in others}
        return chain(
            scale_by_kron(**own), add_decayed_weights(self.weight_decay, self.mask), scale_by_learning_rate(self.learning_rate)
        )
