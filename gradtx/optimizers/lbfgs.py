"""L-BFGS, the quasi-Newton method of limited memory: `scale_by_lbfgs`, `lbfgs`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.chain import chain
from gradtx.compose.plain import identity
from gradtx.core.composites import Preset
from gradtx.core.domains import Flag, PositiveInt, Rate
from gradtx.core.leaves import cast_like, each_leaf, zeros_like
from gradtx.core.numerics import root_sum_squares, safe_increment, zero_count
from gradtx.core.pairs import Inner
from gradtx.core.transformation import Transformation
from gradtx.core.trees import raise_other_shape, raise_unlike
from gradtx.core.types import DType, ExtraArg, Params, Tree, Updates
from gradtx.core.varying import scan
from gradtx.transforms.linesearch import line_dtype, moved, scaled
from gradtx.transforms.scaling import scale, scale_by_learning_rate
from gradtx.transforms.zoom import scale_by_zoom_linesearch
from gradtx.tree.creation import batch_shape
from gradtx.tree.reductions import norm, vdot

FROM_ONE = scale_by_zoom_linesearch(20, initial_guess_strategy="one")
"""The line search for Newton's method and its kin, whose natural step is 1."""


class ScaleByLBFGSState(NamedTuple):
    """Steps taken, last parameters and gradients, and differences of both with their weights.

    There are `memory_size` pairs of differences. Pair `t` lies at `t % memory_size` of the
    memories' first axis. A weight is `1 / <s, y>`, or 0 for a pair left out.
    """

    count: jax.Array
    params: Params
    updates: Updates
    diff_params_memory: Params
    diff_updates_memory: Updates
    weights_memory: jax.Array


def stored_like(tree: Tree, stored: Tree) -> Tree:
    """`tree` in the dtypes of one in the state, after a check that structure and shapes agree."""
    if jax.tree.structure(tree) != jax.tree.structure(stored):
        raise_unlike(tree, stored)
    if any(np.shape(x) != np.shape(y) for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(stored), strict=True)):
        raise_other_shape(tree, stored, scalars=False)
    return cast_like(tree, stored)


def inner(x: Tree, y: Tree, dtype: DType) -> jax.Array:
    """`Re <x, y>`: complex numbers count as pairs of real ones."""
    return jnp.real(vdot(x, y)).astype(dtype)


def curvature_weight(s: Params, y: Updates, dtype: DType) -> jax.Array:
    """`1 / <s, y>`, or 0 where the curvature is not positive, or no larger than rounding errors."""
    info = jnp.finfo(dtype)
    curvature, square = inner(s, y, dtype), inner(y, y, dtype)
    lengths = norm(s).astype(dtype) * norm(y).astype(dtype)
    usable = (curvature > info.eps * lengths) & (jnp.minimum(curvature, square) > info.tiny) & jnp.isfinite(lengths)
    return jnp.where(usable, 1 / jnp.where(usable, curvature, 1), 0)


def first_scale(updates: Updates, dtype: DType) -> jax.Array:
    """`min(1, 1/||g||)`: without curvature, a step is no longer than 1, nor than the gradient."""
    length = root_sum_squares(jax.tree.leaves(updates)).astype(dtype)
    return 1 / jnp.maximum(length, 1)


class scale_by_lbfgs(Transformation, keeps_zero=True, needs_params=True):
    """Multiplies gradients by an estimate `P` of the inverse Hessian, from the last steps: `P @ g`.

    With `s = x_{t+1} - x_t`, `y = g_{t+1} - g_t` and `rho = 1/<s, y>`, oldest pair first:
    `P <- (I - rho*s*y') P (I - rho*y*s') + rho*s*s'`, from `P = gamma*I`, `gamma = <s, y>/<y, y>`
    of the newest pair. `P` is never formed; a product costs `4 * memory_size` inner products and
    additions.

    A pair is left out if its curvature is not positive, or no larger than rounding errors. If the
    parameters did not move since the last step (a line search found nothing), all pairs are
    forgotten. Without a pair, `gamma = min(1, 1/||g||)`.

    The update needs `params`. Complex parameters count as pairs of real ones, with conjugates of
    `jax.grad` as gradients.

    Args:
      memory_size: how many pairs are kept, >= 1.
      scale_init_precond: whether to use `gamma`; else 1.

    State: `ScaleByLBFGSState(count int32, params, updates, diff_params_memory, diff_updates_memory,
      weights_memory)`; `8 * memory_size + 8` bytes a parameter.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.scale_by_lbfgs(), gradtx.scale(-1.0))
      >>> params = jnp.array([3.0, -2.0])
      >>> state, update = tx.init(params), jax.jit(tx.update)
      >>> for _ in range(20):
      ...     updates, state = update(jnp.array([1.0, 4.0]) * params, state, params)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(jnp.max(jnp.abs(params)) < 1e-4)
      True

    Source: Nocedal 1980; Liu and Nocedal 1989; Nocedal and Wright 2006, "Numerical Optimization",
    algorithms 7.4 and 7.5. The first scale is a heuristic of Optax's.

    **Differs:** Optax keeps pairs of negative and of tiny curvature, scales by 1 where the newest
    pair has none, and forgets none.
    """

    memory_size: PositiveInt = 10
    scale_init_precond: Flag = True

    def init(self, params: Params) -> ScaleByLBFGSState:
        zeros = zeros_like(params)
        memory = batch_shape(zeros, (self.memory_size,))
        return ScaleByLBFGSState(zero_count(), zeros, zeros, memory, memory, jnp.zeros(self.memory_size, line_dtype(params)))

    def step(
        self, updates: Updates, state: ScaleByLBFGSState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByLBFGSState]:
        dtype = state.weights_memory.dtype
        x, g = stored_like(params, state.params), stored_like(updates, state.updates)
        later = state.count > 0

        @each_leaf
        def difference(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(later, new - old, 0)

        s, y = difference(x, state.params), difference(g, state.updates)
        newest = (state.count - 1) % self.memory_size
        weights = state.weights_memory.at[newest].set(jnp.where(later, curvature_weight(s, y, dtype), 0))
        weights = jnp.where(norm(s) > 0, weights, 0)
        memory_s = _remember(state.diff_params_memory, s, newest)
        memory_y = _remember(state.diff_updates_memory, y, newest)
        order = (state.count + jnp.arange(self.memory_size)) % self.memory_size
        gamma = _gamma(g, memory_y, weights, order) if self.scale_init_precond else jnp.ones((), dtype)
        direction = _two_loops(g, memory_s, memory_y, weights, order, gamma)
        return cast_like(direction, updates), ScaleByLBFGSState(safe_increment(state.count), x, g, memory_s, memory_y, weights)


def _gamma(g: Updates, memory_y: Updates, weights: jax.Array, order: jax.Array) -> jax.Array:
    """`<s, y>/<y, y>` of the newest pair that has a weight."""
    known = weights[order] > 0
    last = order[len(order) - 1 - jnp.argmax(known[::-1])]
    y, some = _recall(memory_y, last), jnp.any(known)
    square = jnp.where(some, weights[last] * inner(y, y, weights.dtype), 1)
    return jnp.where(some, 1 / square, first_scale(g, weights.dtype))


@jax.jit  # since eager loops are compiled anew at every call
def _two_loops(g: Updates, memory_s: Params, memory_y: Updates, weights: jax.Array, order: jax.Array, gamma: jax.Array) -> Updates:
    """`P @ g` by the recursion of Nocedal and Wright, algorithm 7.4; `order` is oldest first."""
    dtype = weights.dtype

    def back(q: Updates, i: jax.Array) -> tuple[Updates, jax.Array]:
        a = weights[i] * inner(_recall(memory_s, i), q, dtype)
        return moved(q, _recall(memory_y, i), -a), a

    def forth(r: Updates, i_and_a: tuple[jax.Array, jax.Array]) -> tuple[Updates, None]:
        i, a = i_and_a
        b = weights[i] * inner(_recall(memory_y, i), r, dtype)
        return moved(r, _recall(memory_s, i), a - b), None

    q, alphas = scan(back, g, order, reverse=True)
    return scan(forth, scaled(q, gamma), (order, alphas))[0]


def _remember(memory: Tree, tree: Tree, index: jax.Array) -> Tree:
    return jax.tree.map(lambda m, x: m.at[index].set(x), memory, tree)


def _recall(memory: Tree, index: jax.Array) -> Tree:
    return jax.tree.map(lambda m: m[index], memory)


class lbfgs(Preset):
    """L-BFGS with a line search: `-s * P @ g`, for the full batch; see `scale_by_lbfgs`.

    The update needs `params` and, with a line search, the extra arguments `value`, `grad` and
    `value_fn`; `minimize` passes them.

    Args:
      learning_rate: number >= 0 or schedule, multiplies the direction before the line search; None
        is 1.
      memory_size, scale_init_precond: as in `scale_by_lbfgs`.
      linesearch: transformation that finds the step `s`,
        `scale_by_zoom_linesearch(20, initial_guess_strategy="one")` if none is given; None takes
        `s = 1`.

    State: `(ScaleByLBFGSState, state of the rate, state of the line search)`;
      `8 * memory_size + 12` bytes a parameter.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> fn = lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
      >>> start = jnp.array([-1.2, 1.0])
      >>> params, result = gradtx.minimize(fn, start, gradtx.lbfgs(), max_steps=100, tol=1e-3)
      >>> params.round(2), bool(result.converged)
      (Array([1., 1.], dtype=float32), True)

    Source: Liu and Nocedal 1989, "On the limited memory BFGS method for large scale optimization".
    """

    learning_rate: Rate | None = None
    memory_size: PositiveInt = 10
    scale_init_precond: Flag = True
    linesearch: Inner | None = FROM_ONE

    def chain(self) -> Transformation:
        rate = scale(-1.0) if self.learning_rate is None else scale_by_learning_rate(self.learning_rate)
        return chain(
            scale_by_lbfgs(self.memory_size, self.scale_init_precond),
            rate,
            identity() if self.linesearch is None else self.linesearch,
        )
