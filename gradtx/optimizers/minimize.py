"""Running an optimizer to convergence in one loop."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.apply import apply_updates
from gradtx.core.checked import checked
from gradtx.core.domains import Flag, Function, NonNegative, PositiveInt
from gradtx.core.leaves import cast_like, select_tree
from gradtx.core.numerics import is_tracer, safe_increment, zero_count
from gradtx.core.pairs import Inner, as_transformation
from gradtx.core.transformation import wants
from gradtx.core.trees import check_leaves
from gradtx.core.types import DType, Params, State, Tree, Updates
from gradtx.core.varying import while_loop
from gradtx.transforms.backtracking import ScaleByBacktrackingLinesearchState
from gradtx.transforms.linesearch import ascent, bind_value_fn, line_dtype
from gradtx.transforms.zoom import ScaleByZoomLinesearchState
from gradtx.tree.lookup import get_all_with_path
from gradtx.tree.reductions import norm

RUNNING, CONVERGED, MAX_STEPS, NOT_FINITE, NO_PROGRESS = range(5)
MESSAGES = (
    "still running",
    "converged: no component of the gradient is above tol",
    "max_steps were taken; raise it, or tol",
    "the value or its gradient is not finite; the parameters are the last ones where they were",
    "no progress: the parameters stayed, or neither value nor gradient fell, for many steps; rounding hides what is left",
)


class MinimizeResult(NamedTuple):
    """How `minimize` ended.

    Attributes:
      value: the function at the parameters returned.
      gradient_norm: largest magnitude of an element of its gradient.
      steps: updates made.
      evaluations: of the function, at the steps and in line searches; without those of Hessians and
        of `grad_fn`.
      converged: whether `gradient_norm <= tol`.
      reason: a code; `message()` has it in words.
      aux: what the function gives besides the value, with `has_aux`.
    """

    value: jax.Array
    gradient_norm: jax.Array
    steps: jax.Array
    evaluations: jax.Array
    converged: jax.Array
    reason: jax.Array
    aux: Tree = None

    def message(self) -> str:
        """The reason in words."""
        if is_tracer(self.reason):
            raise TypeError("MinimizeResult.message: reason is a tracer, expected a number. Call message() outside of jax.jit.")
        return MESSAGES[int(self.reason)]


class _Point(NamedTuple):
    """Parameters, with the value, the gradient and its largest element there."""

    params: Params
    value: jax.Array
    grad: Updates
    gradient_norm: jax.Array

    @property
    def finite(self) -> jax.Array:
        """Whether the value and its gradient are."""
        return jnp.isfinite(self.value) & jnp.isfinite(self.gradient_norm)


class _Run(NamedTuple):
    """A run under way: `at` is its last finite point, `best` the least value and gradient norm."""

    at: _Point
    state: State
    best: tuple[jax.Array, jax.Array]
    since_best: jax.Array
    since_move: jax.Array
    steps: jax.Array
    evaluations: jax.Array
    reason: jax.Array


class _Limits(NamedTuple):
    """When a run ends."""

    max_steps: int
    tol: ArrayLike
    patience: int


@checked
def minimize(
    fn: Function,
    x0: Params,
    tx: Inner,
    *args: Tree,
    max_steps: PositiveInt = 1000,
    tol: NonNegative = 1e-5,
    patience: PositiveInt = 100,
    has_aux: Flag = False,
) -> tuple[Params, MinimizeResult]:
    """Runs an optimizer on a function until its gradient is small, in one `lax.while_loop`.

    Every step passes `value`, `grad` and `value_fn` to the optimizer, so that `lbfgs`, `bfgs`,
    `newton` and line searches work as they are, and `grad_fn` to one that wants it. What a line
    search at the end of the chain evaluated is not evaluated again.

    Args:
      fn: function `fn(x, *args)` to a real scalar.
      x0: start, a tree of arrays.
      tx: optimizer, such as `lbfgs()` or `adam(1e-2)`.
      *args: further arguments of `fn`, such as data.
      max_steps: most updates, >= 1.
      tol: converged when no element of the gradient is larger, >= 0; in units of the gradient.
      patience: stops after so many steps in a row in which neither the value nor the gradient's
        norm fell below its least.
      has_aux: whether `fn` gives `(value, aux)`.

    Returns:
      The parameters, and a `MinimizeResult(value, gradient_norm, steps, evaluations, converged,
      reason, aux)`. The loop also stops where the parameters did not move for two steps, and, with
      the last finite parameters, where a value is not finite. Can be called under `jax.jit` and
      `jax.vmap`.

    Raises:
      TypeError: `fn` does not give a real scalar, or a leaf of `x0` is no floating array.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> fn = lambda x, c: jnp.sum((x["w"] - c) ** 4 + (x["w"] - c) ** 2)
      >>> start, c = {"w": jnp.zeros(2)}, jnp.array([1.0, 2.0])
      >>> params, result = gradtx.minimize(fn, start, gradtx.lbfgs(), c, tol=1e-4)
      >>> params["w"].round(3), bool(result.converged), int(result.steps) < 10
      (Array([1., 2.], dtype=float32), True, True)
    """
    tx, limits = as_transformation(tx), _Limits(max_steps, tol, patience)
    check_leaves("x0", x0)
    x0 = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), x0)
    value_fn = bind_value_fn(lambda x: fn(x, *args), {}, has_aux)
    dtype = line_dtype(x0)

    def evaluate(params: Params) -> _Point:
        value, grad = jax.value_and_grad(value_fn)(params)
        return _point(params, value, ascent(grad), dtype)

    wanted = wants(tx)

    def step(run: _Run) -> _Run:
        at = run.at
        extra = {"value": at.value, "grad": at.grad, "value_fn": value_fn}
        if "grad_fn" in wanted:
            extra = {k: x for k, x in extra.items() if k in wanted} | {"grad_fn": lambda params: evaluate(params).grad}
        updates, state = tx.update(at.grad, run.state, at.params, **extra)
        params, kept = apply_updates(at.params, updates), _last_search(state)
        new = evaluate(params) if kept is None else _point(params, kept.value, ascent(cast_like(kept.grad, at.grad)), dtype)
        searched = sum(count for _, count in get_all_with_path(state, "num_linesearch_steps"))
        return _after(run, new, state, run.evaluations + searched + int(kept is None), limits)

    end = while_loop(lambda run: run.reason == RUNNING, step, _begin(evaluate(x0), tx.init(x0), limits))
    at, converged = end.at, end.reason == CONVERGED
    aux = fn(at.params, *args)[1] if has_aux else None
    return at.params, MinimizeResult(at.value, at.gradient_norm, end.steps, end.evaluations, converged, end.reason, aux)


def _point(params: Params, value: jax.Array, grad: Updates, dtype: DType) -> _Point:
    return _Point(params, value.astype(dtype), grad, norm(grad, "inf").astype(dtype))


def _begin(at: _Point, state: State, limits: _Limits) -> _Run:
    zero = zero_count()
    reason = jnp.where(at.finite, jnp.where(at.gradient_norm <= limits.tol, CONVERGED, RUNNING), NOT_FINITE).astype(jnp.int32)
    return _Run(at, state, (at.value, at.gradient_norm), zero, zero, zero, safe_increment(zero), reason)


def _after(run: _Run, new: _Point, state: State, evaluations: jax.Array, limits: _Limits) -> _Run:
    """The run after a step to a new point."""
    leaves, others = jax.tree.leaves(new.params), jax.tree.leaves(run.at.params)
    stayed = jnp.all(jnp.asarray([jnp.array_equal(x, y) for x, y in zip(leaves, others, strict=True)], bool))
    since_move = jnp.where(stayed, run.since_move + 1, 0)
    better = (new.value < run.best[0]) | (new.gradient_norm < run.best[1])
    since_best = jnp.where(better, 0, run.since_best + 1)
    steps = safe_increment(run.steps)
    ends = {
        NOT_FINITE: ~new.finite,
        CONVERGED: new.gradient_norm <= limits.tol,
        NO_PROGRESS: (since_move >= 2) | (since_best >= limits.patience),
        MAX_STEPS: steps >= limits.max_steps,
    }
    reason = jnp.select(list(ends.values()), list(ends), RUNNING).astype(jnp.int32)
    at = select_tree(new.finite, new, run.at)
    best = jnp.fmin(at.value, run.best[0]), jnp.fmin(at.gradient_norm, run.best[1])
    return _Run(at, state, best, since_best, since_move, steps, evaluations, reason)


def _last_search(state: State) -> State:
    """The state of a line search at the end of a chain that kept value and gradient, else None."""
    while type(state) is tuple and state:
        state = state[-1]
    searches = (ScaleByZoomLinesearchState, ScaleByBacktrackingLinesearchState)
    return state if isinstance(state, searches) and state.grad is not None else None
