"""The backtracking line search: the first of ever smaller steps that decreases enough."""

from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.domains import Flag, NonNegative, PositiveInt, interval
from gradtx.core.leaves import cast_like, select_tree, zeros_like
from gradtx.core.numerics import cond, safe_increment, zero_count
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

Shrink = Annotated[ArrayLike, interval(0, 1, "()")]


class BacktrackingLinesearchInfo(NamedTuple):
    """Evaluations in the last search, and by how much the decrease was missed (0: it holds)."""

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """The last step size, and the value and the gradient at the point that it led to.

    `grad` is as `jax.grad` gives it; None where it is not kept.
    """

    learning_rate: jax.Array
    value: jax.Array
    grad: Updates | None
    info: BacktrackingLinesearchInfo

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"learning_rate": self.learning_rate, "linesearch_steps": self.info.num_linesearch_steps}


class _Search(NamedTuple):
    count: jax.Array
    step: jax.Array
    value: jax.Array
    grad: Updates | None
    decrease_error: jax.Array


class scale_by_backtracking_linesearch(Transformation, keeps_zero=True):
    """Multiplies updates by a step `s` that decreases the value enough.

    Enough is `f(x + s*u) <= (1 + rtol) * f(x) + slope_rtol * s * f' + atol`, with `f'` the slope
    along `u`. The search starts from `min(increase_factor * last step, max_learning_rate)` and
    multiplies by `decrease_factor` until the condition holds or no evaluations are left; then the
    last step is taken, or 0 where the value there is not finite.

    Updates must point downhill: put a `scale(-1.0)` or a learning rate before. The update needs
    `params` and the extra arguments `value`, `grad` (value and gradient at `params`; for complex
    parameters the conjugate of `jax.grad`) and `value_fn`. Other extra arguments go to `value_fn`
    where it takes them. To search along some parameters alone, use `gradtx.masked`, not Optax's.

    Args:
      max_backtracking_steps: most decreases of the step in one search, >= 1.
      slope_rtol: part of the slope that the decrease must reach, >= 0.
      decrease_factor: in (0, 1).
      increase_factor: growth of the first trial over the last step, > 0; 1 keeps it, inf always
        starts from `max_learning_rate`.
      max_learning_rate: largest step, > 0.
      atol: absolute tolerance, >= 0, in units of the value.
      rtol: relative tolerance, >= 0.
      store_grad: whether to compute and keep the gradient at the new point, for
        `value_and_grad_from_state`.
      verbose: whether to print when a search fails.
      has_aux: whether `value_fn` gives `(value, aux)`; `aux` is dropped.

    State: `ScaleByBacktrackingLinesearchState(learning_rate, value, grad, info)`; 0 bytes a
      parameter, 4 with `store_grad`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> fn = lambda x: jnp.sum(x**2)
      >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(15))
      >>> params = jnp.array([1.0, 2.0])
      >>> value, grad = jax.value_and_grad(fn)(params)
      >>> known = dict(value=value, grad=grad, value_fn=fn)
      >>> updates, state = tx.update(grad, tx.init(params), params, **known)
      >>> round(float(state[1].learning_rate), 4)  # 1 leads as far up the other side
      0.8

    Source: Armijo 1966; Nocedal and Wright 2006, "Numerical Optimization", algorithm 3.1; Vaswani
    et al. 2019, arXiv:1905.09997, for the step that grows again.

    **Differs:** a direction that does not descend must still decrease the value. After a step of 0
    the search starts from `max_learning_rate`, where Optax stays at 0. Extra arguments that
    `value_fn` does not take are left to other transformations. For complex parameters `grad` is the
    conjugate, as in the zoom search; Optax wants the one here and the other there. Optax has no
    `has_aux`.
    """

    max_backtracking_steps: PositiveInt
    slope_rtol: NonNegative = 1e-4
    decrease_factor: Shrink = 0.8
    increase_factor: PositiveOrInf = 1.5
    max_learning_rate: PositiveOrInf = 1.0
    atol: NonNegative = 0.0
    rtol: NonNegative = 0.0
    store_grad: Flag = False
    verbose: Flag = False
    _: KW_ONLY
    has_aux: Flag = False

    def init(self, params: Params) -> ScaleByBacktrackingLinesearchState:
        dtype = line_dtype(params)
        unknown = jnp.full((), jnp.inf, dtype)
        grad = zeros_like(params) if self.store_grad else None
        info = BacktrackingLinesearchInfo(zero_count(), unknown)
        return ScaleByBacktrackingLinesearchState(jnp.ones((), dtype), unknown, grad, info)

    def step(
        self,
        updates: Updates,
        state: ScaleByBacktrackingLinesearchState,
        params: Params | None = None,
        *,
        value: Scalar = None,
        grad: Updates | None = None,
        value_fn: ExtraArg = None,
        **extra_args: ExtraArg,
    ) -> tuple[Updates, ScaleByBacktrackingLinesearchState]:
        grad = checked_gradient(params, value, grad, value_fn)
        dtype = state.value.dtype
        value, slope = jnp.asarray(value, dtype), jnp.minimum(slope_along(grad, updates, dtype), 0)
        fn = bind_value_fn(value_fn, extra_args, self.has_aux)

        def trial(s: _Search) -> _Search:
            step = jnp.where(s.count > 0, self.decrease_factor * s.step, s.step).astype(dtype)
            new_value, new_grad = self.evaluated(fn, moved(params, updates, step))
            new_value = new_value.astype(dtype)
            error = miss(new_value - (1 + self.rtol) * value - self.slope_rtol * step * slope)
            last = (error <= self.atol) | (s.count >= self.max_backtracking_steps)
            kept = s.grad if new_grad is None else cond(last, lambda: cast_like(new_grad(), s.grad), lambda: s.grad)
            return _Search(safe_increment(s.count), step, new_value, kept, error)

        first = jnp.where(state.learning_rate > 0, self.increase_factor * state.learning_rate, self.max_learning_rate)
        first = jnp.minimum(first, self.max_learning_rate).astype(dtype)
        here = cast_like(ascent(grad), state.grad) if self.store_grad else None
        found = while_loop(
            lambda s: ~(s.decrease_error <= self.atol) & (s.count <= self.max_backtracking_steps),
            trial,
            _Search(zero_count(), first, value, here, jnp.full((), jnp.inf, dtype)),
        )
        usable = jnp.isfinite(found.decrease_error)
        step, new_value, new_grad = select_tree(
            usable, (found.step, found.value, found.grad), (jnp.zeros_like(found.step), value, here)
        )
        if self.verbose:
            jax.lax.cond(found.decrease_error <= self.atol, lambda: None, lambda: _report(found, value, slope, step))
        info = BacktrackingLinesearchInfo(found.count, found.decrease_error)
        return scaled(updates, step), ScaleByBacktrackingLinesearchState(step, new_value, new_grad, info)

    def evaluated(self, fn: Callable[[Params], jax.Array], point: Params) -> tuple[jax.Array, Callable[[], Updates] | None]:
        """The value at a point, and a function to its gradient there (None: none is kept)."""
        if not self.store_grad:
            return fn(point), None
        value, pullback = jax.vjp(fn, point)
        return value, lambda: pullback(jnp.ones_like(value))[0]


def _report(found: _Search, value: jax.Array, slope: jax.Array, taken: jax.Array) -> None:
    jax.debug.print(
        "scale_by_backtracking_linesearch: no step decreases enough; value {value}, slope {slope}, last trial {trial}, "
        "decrease missed by {decrease}; taking step {taken}.",
        value=value,
        slope=slope,
        trial=found.step,
        decrease=found.decrease_error,
        taken=taken,
    )
