"""Running an optimizer to convergence in one loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks
from gradtx.core.apply import apply_updates
from gradtx.core.checks import NonNegative, PositiveInt
from gradtx.core.leaves import cast_like
from gradtx.core.numerics import is_tracer, safe_increment, zero_count
from gradtx.core.transformation import Inner, as_transformation, wants
from gradtx.core.trees import check_leaves
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
      evaluations: of the function, at the steps and in line searches; without those of Hessians and of `grad_fn`.
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
    aux: Any = None

    def message(self) -> str:
        """The reason in words."""
        if is_tracer(self.reason):
            raise TypeError("MinimizeResult.message: reason is a tracer, expected a number. Call message() outside of jax.jit.")
        return MESSAGES[int(self.reason)]


class _Run(NamedTuple):
    params: Any
    state: Any
    value: jax.Array
    grad: Any
    gradient_norm: jax.Array
    best: tuple[jax.Array, jax.Array]
    since_best: jax.Array
    since_move: jax.Array
    steps: jax.Array
    evaluations: jax.Array
    reason: jax.Array


def minimize(
    fn: Callable[..., Any],
    x0: Any,
    tx: Any,
    *args: Any,
    max_steps: PositiveInt = 1000,
    tol: NonNegative = 1e-5,
    patience: PositiveInt = 100,
    has_aux: bool = False,
) -> tuple[Any, MinimizeResult]:
    """Runs an optimizer on a function until its gradient is small, in one `lax.while_loop`.

    Every step passes `value`, `grad` and `value_fn` to the optimizer, so that `lbfgs`, `bfgs`, `newton` and line searches work as
    they are, and `grad_fn` to one that wants it. What a line search at the end of the chain evaluated is not evaluated again.

    Args:
      fn: function `fn(x, *args)` to a real scalar.
      x0: start, a tree of arrays.
      tx: optimizer, such as `lbfgs()` or `adam(1e-2)`.
      *args: further arguments of `fn`, such as data.
      max_steps: most updates, >= 1.
      tol: converged when no element of the gradient is larger, >= 0; in units of the gradient.
      patience: stops after so many steps in a row in which neither the value nor the gradient's norm fell below its least.
      has_aux: whether `fn` gives `(value, aux)`.

    Returns:
      The parameters, and a `MinimizeResult(value, gradient_norm, steps, evaluations, converged, reason, aux)`. The loop also stops
      where the parameters did not move for two steps, and, with the last finite parameters, where a value is not finite. Can be
      called under `jax.jit` and `jax.vmap`.

    Raises:
      TypeError: `tx` is no transformation, `fn` does not give a real scalar, or a leaf of `x0` is no floating array.
      ValueError: `max_steps`, `tol` or `patience` is out of range.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> fn = lambda x, c: jnp.sum((x["w"] - c) ** 4 + (x["w"] - c) ** 2)
      >>> params, result = gradtx.minimize(fn, {"w": jnp.zeros(2)}, gradtx.lbfgs(), jnp.array([1.0, 2.0]), tol=1e-4)
      >>> params["w"].round(3), bool(result.converged), int(result.steps) < 10
      (Array([1., 2.], dtype=float32), True, True)
    """
    for argument, value, hint in (
        ("tx", tx, Inner),
        ("max_steps", max_steps, PositiveInt),
        ("tol", tol, NonNegative),
        ("patience", patience, PositiveInt),
    ):
        if (domain := checks.domain_of(hint)) is not None:
            checks.check_argument("minimize", argument, value, domain)
    tx = as_transformation(tx)
    with checks.calling("minimize"):
        check_leaves("x0", x0)
        x0 = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), x0)
        plain = bind_value_fn(lambda x: fn(x, *args), {}, has_aux)
    dtype = line_dtype(x0)
    value_and_grad = jax.value_and_grad(plain)

    def evaluate(params: Any) -> tuple[jax.Array, Any]:
        with checks.calling("minimize"):
            value, grad = value_and_grad(params)
        return value.astype(dtype), ascent(grad)

    wanted = wants(tx)

    def step(run: _Run) -> _Run:
        extra = {"value": run.value, "grad": run.grad, "value_fn": plain}
        if "grad_fn" in wanted:
            extra = {k: x for k, x in extra.items() if k in wanted} | {"grad_fn": lambda params: evaluate(params)[1]}
        updates, state = tx.update(run.grad, run.state, run.params, **extra)
        params = apply_updates(run.params, updates)
        found = _last_search(state)
        if found is None:
            value, grad = evaluate(params)
        else:
            value, grad = found.value.astype(dtype), ascent(cast_like(found.grad, run.grad))
        searched = [count for _, count in get_all_with_path(state, "num_linesearch_steps")]
        evaluations = run.evaluations + sum(searched) + int(found is None)
        gradient_norm = norm(grad, "inf").astype(dtype)
        finite = jnp.isfinite(value) & jnp.isfinite(gradient_norm)
        same = [jnp.array_equal(new, old) for new, old in zip(jax.tree.leaves(params), jax.tree.leaves(run.params), strict=True)]
        stayed = jnp.all(jnp.asarray(same, bool))
        since_move = jnp.where(stayed, run.since_move + 1, 0)
        better = (value < run.best[0]) | (gradient_norm < run.best[1])
        since_best = jnp.where(better, 0, run.since_best + 1)
        steps = safe_increment(run.steps)
        stuck = (since_move >= 2) | (since_best >= patience)
        reason = jnp.select(
            [~finite, gradient_norm <= tol, stuck, steps >= max_steps], [NOT_FINITE, CONVERGED, NO_PROGRESS, MAX_STEPS], RUNNING
        )

        def keep(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, old)

        value, grad, params, gradient_norm = keep(
            (value, grad, params, gradient_norm), (run.value, run.grad, run.params, run.gradient_norm)
        )
        best = jnp.fmin(value, run.best[0]), jnp.fmin(gradient_norm, run.best[1])
        reason = reason.astype(jnp.int32)
        return _Run(params, state, value, grad, gradient_norm, best, since_best, since_move, steps, evaluations, reason)

    value, grad = evaluate(x0)
    gradient_norm = norm(grad, "inf").astype(dtype)
    finite = jnp.isfinite(value) & jnp.isfinite(gradient_norm)
    reason = jnp.where(finite, jnp.where(gradient_norm <= tol, CONVERGED, RUNNING), NOT_FINITE).astype(jnp.int32)
    zero = zero_count()
    start = _Run(
        x0, tx.init(x0), value, grad, gradient_norm, (value, gradient_norm), zero, zero, zero, safe_increment(zero), reason
    )
    end = while_loop(lambda run: run.reason == RUNNING, step, start)
    aux = fn(end.params, *args)[1] if has_aux else None
    converged = end.reason == CONVERGED
    return end.params, MinimizeResult(end.value, end.gradient_norm, end.steps, end.evaluations, converged, end.reason, aux)


def _last_search(state: Any) -> Any:
    """The state of a line search at the end of a chain that kept value and gradient, else None."""
    while type(state) is tuple and state:
        state = state[-1]
    searches = (ScaleByZoomLinesearchState, ScaleByBacktrackingLinesearchState)
    return state if isinstance(state, searches) and state.grad is not None else None
