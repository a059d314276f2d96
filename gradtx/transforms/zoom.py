"""The zoom line search: steps that decrease enough and leave little slope."""

from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.domains import Bound, Flag, NonNegative, PositiveInt, one_of
from gradtx.core.leaves import cast_like, select_tree, zeros_like
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, Updates
from gradtx.core.varying import while_loop
from gradtx.transforms.linesearch import (
    PositiveOrInf,
    ascent,
    bind_value_fn,
    checked_gradient,
    line_dtype,
    miss,
    moved,
    scaled,
    slope_along,
)

Guess = Annotated[str, one_of("one", "keep")]


class ZoomLinesearchInfo(NamedTuple):
    """Evaluations in the last search, and by how much each condition was missed (0: it holds)."""

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array
    curvature_error: jax.Array


class ScaleByZoomLinesearchState(NamedTuple):
    """The last step size, and the value and the gradient at the point that it led to.

    `grad` is as `jax.grad` gives it.
    """

    learning_rate: jax.Array
    value: jax.Array
    grad: Updates
    info: ZoomLinesearchInfo

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"learning_rate": self.learning_rate, "linesearch_steps": self.info.num_linesearch_steps}


class _Point(NamedTuple):
    """A step, and value and slope there."""

    step: jax.Array
    value: jax.Array
    slope: jax.Array


class _Search(NamedTuple):
    """A search under way. Once bracketed, a good step lies between `low` (the best) and `high`."""

    count: jax.Array
    low: _Point
    high: _Point
    reference: _Point  # the end that was given up last
    bracketed: jax.Array
    trial: _Point
    grad: Updates
    decrease_error: jax.Array
    curvature_error: jax.Array
    safe: _Point  # the best point so far that decreases enough, else the start
    safe_grad: Updates
    done: jax.Array
    failed: jax.Array


def _between(low: _Point, high: _Point, reference: _Point) -> jax.Array:
    """The next trial: the minimizer of a cubic, else of a parabola, else the middle.

    The first that lies well inside the interval is taken.
    """
    width = jnp.abs(high.step - low.step)
    left, right = jnp.minimum(low.step, high.step), jnp.maximum(low.step, high.step)
    db, dc = high.step - low.step, reference.step - low.step
    known = (db != 0) & (dc != 0) & (db != dc)
    safe_db, safe_dc, safe_gap = jnp.where(db != 0, db, 1), jnp.where(known, dc, 1), jnp.where(known, db - dc, 1)
    rb = (high.value - low.value - low.slope * db) / safe_db**2
    rc = (reference.value - low.value - low.slope * dc) / safe_dc**2
    a = (rb - rc) / safe_gap
    b = rb - a * db
    radical = b * b - 3 * a * low.slope
    root = b + jnp.sqrt(jnp.maximum(radical, 0))
    cubic = low.step - low.slope / jnp.where(root != 0, root, 1)
    parabola = low.step - low.slope / jnp.where(rb != 0, 2 * rb, 1)
    use_cubic = known & (radical >= 0) & (root != 0) & (cubic > left + 0.2 * width) & (cubic < right - 0.2 * width)
    use_parabola = (rb != 0) & (parabola > left + 0.1 * width) & (parabola < right - 0.1 * width)
    return jnp.where(use_cubic, cubic, jnp.where(use_parabola, parabola, (low.step + high.step) / 2))


class scale_by_zoom_linesearch(Transformation, keeps_zero=True):
    """Multiplies updates by a step `s` that satisfies the strong Wolfe conditions.

    Decrease: `f(x + s*u) <= f(x) + slope_rtol * s * f'`. Curvature: `|f'(s)| <= curv_rtol * |f'|`,
    with `f'(s)` the slope along `u` at `s`, and `f' = f'(0)`. Near a minimum, where differences of
    values are rounding errors, the decrease may instead be told by the slope:
    `f'(s) <= (2*slope_rtol - 1) * f'` and `f(x + s*u) <= f(x) + approx_dec_rtol * |f(x)|`. The step
    grows until an interval holds a good one, which is then narrowed by interpolation. If none is
    found, the best step that decreases enough is taken, else 0.

    Updates must point downhill: put a `scale(-1.0)` or a learning rate before. The update needs
    `params` and the extra arguments `value`, `grad` (value and gradient at `params`; for complex
    parameters the conjugate of `jax.grad`) and `value_fn`. Other extra arguments go to `value_fn`
    where it takes them. To search along some parameters alone, use `gradtx.masked`, not Optax's.

    Args:
      max_linesearch_steps: most evaluations of value and gradient in one search, >= 1.
      max_learning_rate: largest step, > 0; None is no bound.
      tol: by how much the conditions may be missed, >= 0.
      increase_factor: growth of the step until an interval is found.
      slope_rtol: part of the slope that the decrease must reach, >= 0.
      curv_rtol: part of the slope that may remain; inf asks for decrease alone.
      approx_dec_rtol: for the decrease by slope; None leaves that out.
      stepsize_precision: width of the interval below which the best step so far is taken.
      initial_guess_strategy: "keep" starts from the last step (for gradients), "one" from 1 (for
        Newton's and its kin).
      verbose: whether to print when a search fails.
      has_aux: whether `value_fn` gives `(value, aux)`; `aux` is dropped.

    State: `ScaleByZoomLinesearchState(learning_rate, value, grad, info)`; 4 bytes a parameter.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> fn = lambda x: jnp.sum(x**4)
      >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(15))
      >>> params = jnp.array([1.0, 2.0])
      >>> value, grad = jax.value_and_grad(fn)(params)
      >>> known = dict(value=value, grad=grad, value_fn=fn)
      >>> updates, state = tx.update(grad, tx.init(params), params, **known)
      >>> after = fn(params + updates)
      >>> bool(after < value), bool(gradtx.tree.get(state, "value") == after)
      (True, True)

    Source: Nocedal and Wright 2006, "Numerical Optimization", algorithms 3.5 and 3.6; Hager and
    Zhang 2006, doi:10.1145/1132973.1132979, equations 23 and 27, for the decrease by slope.

    **Differs:** a search that finds no decrease takes the step 0, where Optax takes its last trial,
    and starts from 1 again; a direction that does not descend must decrease the value all the same.
    Extra arguments that `value_fn` does not take are left to other transformations. Optax has no
    `has_aux`.
    """

    max_linesearch_steps: PositiveInt
    max_learning_rate: PositiveOrInf | None = None
    tol: NonNegative = 0.0
    increase_factor: PositiveOrInf = 2.0
    slope_rtol: NonNegative = 1e-4
    curv_rtol: Bound = 0.9
    approx_dec_rtol: NonNegative | None = 1e-6
    stepsize_precision: NonNegative = 1e-5
    initial_guess_strategy: Guess = "keep"
    verbose: Flag = False
    _: KW_ONLY
    has_aux: Flag = False

    def init(self, params: Params) -> ScaleByZoomLinesearchState:
        dtype = line_dtype(params)
        unknown = jnp.full((), jnp.inf, dtype)
        info = ZoomLinesearchInfo(zero_count(), unknown, unknown)
        return ScaleByZoomLinesearchState(jnp.ones((), dtype), unknown, zeros_like(params), info)

    def step(
        self,
        updates: Updates,
        state: ScaleByZoomLinesearchState,
        params: Params | None = None,
        *,
        value: Scalar = None,
        grad: Updates | None = None,
        value_fn: ExtraArg = None,
        **extra_args: ExtraArg,
    ) -> tuple[Updates, ScaleByZoomLinesearchState]:
        grad = checked_gradient(params, value, grad, value_fn)
        dtype = state.value.dtype
        fn = jax.value_and_grad(bind_value_fn(value_fn, extra_args, self.has_aux))

        def evaluate(step: jax.Array) -> tuple[_Point, Updates]:
            value, grad = fn(moved(params, updates, step))
            return _Point(step, value.astype(dtype), slope_along(ascent(grad), updates, dtype)), cast_like(grad, state.grad)

        start = _Point(jnp.zeros((), dtype), jnp.asarray(value, dtype), slope_along(grad, updates, dtype))
        guess = jnp.where(state.learning_rate > 0, state.learning_rate, 1) if self.initial_guess_strategy == "keep" else 1
        found = while_loop(
            lambda s: ~(s.done | s.failed),
            lambda s: self.next_trial(s, start, evaluate),
            _begin(start, cast_like(ascent(grad), state.grad), jnp.asarray(guess, dtype)),
        )
        taken, taken_grad = select_tree(found.done, (found.trial, found.grad), (found.safe, found.safe_grad))
        if self.verbose:
            jax.lax.cond(found.done, lambda: None, lambda: _report(found, start, taken))
        info = ZoomLinesearchInfo(found.count, found.decrease_error, found.curvature_error)
        return scaled(updates, taken.step), ScaleByZoomLinesearchState(taken.step, taken.value, taken_grad, info)

    def next_trial(self, s: _Search, start: _Point, evaluate: Callable[[jax.Array], tuple[_Point, Updates]]) -> _Search:
        """The search after one more evaluation."""
        larger = jnp.where(s.count == 0, s.trial.step, self.increase_factor * s.low.step).astype(start.step.dtype)
        largest = jnp.asarray(jnp.inf if self.max_learning_rate is None else self.max_learning_rate, larger.dtype)
        step = jnp.where(s.bracketed, _between(s.low, s.high, s.reference), jnp.minimum(larger, largest))
        trial, grad = evaluate(step)
        decrease_error, curvature_error = self.errors(trial, start)
        good = jnp.maximum(decrease_error, curvature_error) <= self.tol
        worse = (decrease_error > 0) | ((trial.value >= s.low.value) & (s.count > 0))
        ahead = jnp.where(s.bracketed, s.high.step - s.low.step, 1)
        turned = ~worse & (trial.slope * ahead >= 0)
        bracketed = s.bracketed | worse | turned | good
        low = select_tree(worse, s.low, trial)
        better = (decrease_error <= self.tol) & (~s.bracketed | (trial.value < s.safe.value))
        safe, safe_grad = select_tree(better, (trial, grad), (s.safe, s.safe_grad))
        done = good | (~bracketed & (larger >= largest))
        narrow = s.bracketed & (jnp.abs(s.high.step - s.low.step) <= self.stepsize_precision) & (safe.step > 0)
        return _Search(
            count=safe_increment(s.count),
            low=low,
            high=select_tree(worse, trial, select_tree(turned, s.low, s.high)),
            reference=select_tree(~s.bracketed, low, select_tree(worse | turned, s.high, s.low)),
            bracketed=bracketed,
            trial=trial,
            grad=grad,
            decrease_error=decrease_error,
            curvature_error=curvature_error,
            safe=safe,
            safe_grad=safe_grad,
            done=done,
            failed=~done & (narrow | (s.count + 1 >= self.max_linesearch_steps)),
        )

    def errors(self, trial: _Point, start: _Point) -> tuple[jax.Array, jax.Array]:
        """By how much a step misses the decrease and the curvature."""
        slope = jnp.minimum(start.slope, 0)
        decrease = trial.value - start.value - self.slope_rtol * trial.step * slope
        if self.approx_dec_rtol is not None:
            by_slope = trial.slope - (2 * self.slope_rtol - 1) * slope
            rise = trial.value - start.value - self.approx_dec_rtol * jnp.abs(start.value)
            decrease = jnp.minimum(decrease, jnp.maximum(by_slope, rise))
        return miss(decrease), miss(jnp.abs(trial.slope) - self.curv_rtol * jnp.abs(start.slope))


def _begin(start: _Point, grad: Updates, guess: jax.Array) -> _Search:
    unknown, no = jnp.full_like(start.value, jnp.inf), jnp.zeros((), bool)
    trial = start._replace(step=guess)
    return _Search(zero_count(), start, start, start, no, trial, grad, unknown, unknown, start, grad, no, no)


def _report(found: _Search, start: _Point, taken: _Point) -> None:
    jax.debug.print(
        "scale_by_zoom_linesearch: no step satisfies both conditions; value {value}, slope {slope}, last trial {trial}, "
        "decrease missed by {decrease}, curvature by {curvature}; taking step {taken}.",
        value=start.value,
        slope=start.slope,
        trial=found.trial.step,
        decrease=found.decrease_error,
        curvature=found.curvature_error,
        taken=taken.step,
    )
