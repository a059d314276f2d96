"""Optax's `MultiSteps`: accumulation as a class, with a rule that leaves gradients out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks
from gradtx.core.leaves import cast_like, map_leaves, widen
from gradtx.core.numerics import abs_sq, cond, promote, safe_increment, zero_count
from gradtx.core.transformation import GradientTransformation
from gradtx.wrappers.accumulate import CountOrSchedule, accumulable, microsteps, zeros_as, zeros_in


class MultiStepsState(NamedTuple):
    """Microbatches since the last step, steps taken, inner state, gathered gradients, and what the skipping rule said last."""

    mini_step: jax.Array
    gradient_step: jax.Array
    inner_opt_state: Any
    acc_grads: Any
    skip_state: Any


def _mean(g: jax.Array, acc: jax.Array, *, n: Any) -> tuple[jax.Array, jax.Array]:
    return g, acc + (g - acc) / (n + 1)


def _sum(g: jax.Array, acc: jax.Array, *, n: Any) -> tuple[jax.Array, jax.Array]:
    return g, acc + g


class MultiSteps:
    """Takes one step of `opt` with the gradients of `k` calls: their mean (or sum), once `k` of them were not skipped.

    A call whose gradients the rule skips counts for nothing, so that a step always has `k` gradients; `accumulate(...,
    skip_nonfinite=True)` leaves a microbatch out and steps with those that are left.

    Args:
      opt: the optimizer.
      every_k_schedule: `k`, a whole number >= 1, or a schedule of the steps taken by `opt`.
      use_grad_mean: whether `opt` gets the mean of the gradients, else their sum.
      should_skip_update_fn: None, or a function of `(updates, gradient_step, params)` that gives a boolean scalar (True: leave
        these out) and a tree of arrays for the state, such as `skip_not_finite`, `skip_large_updates`.
      accumulator_dtype: dtype of what is gathered; wider where parameters are.

    Raises:
      ValueError, TypeError: an argument outside its domain, or `opt` calls `grad_fn`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.MultiSteps(gradtx.sgd(1.0), 2, should_skip_update_fn=gradtx.skip_not_finite)
      >>> params = jnp.zeros(())
      >>> state = tx.init(params)
      >>> for gradient in (1.0, jnp.nan, 3.0):
      ...     updates, state = tx.update(jnp.array(gradient), state, params)
      ...     print(float(updates), bool(tx.has_updated(state)))
      0.0 False
      0.0 False
      -2.0 True

    **Differs:** Optax hands `opt` the mean in the gradients' dtype; here it stays in the accumulator's.
    """

    def __init__(
        self,
        opt: Any,
        every_k_schedule: Any,
        use_grad_mean: bool = True,
        should_skip_update_fn: Callable[..., Any] | None = None,
        accumulator_dtype: Any = jnp.float32,
    ):
        checks.check_argument("MultiSteps", "opt", opt, checks.TRANSFORMATION)
        domain = checks.domain_of(CountOrSchedule)
        assert domain is not None
        checks.check_argument("MultiSteps", "every_k_schedule", every_k_schedule, domain)
        if should_skip_update_fn is not None and not callable(should_skip_update_fn):
            raise TypeError(
                f"MultiSteps: should_skip_update_fn is {checks.kind(should_skip_update_fn)}, expected a function, or None."
            )
        self.inside, self.gathers = opt, every_k_schedule != 1
        self.inner_opt = accumulable("MultiSteps", opt, "opt")
        self._every_k = every_k_schedule
        self._rule = _mean if use_grad_mean else _sum
        self._skip = should_skip_update_fn
        self._dtype = accumulator_dtype

    def __repr__(self) -> str:
        return f"MultiSteps(opt={self.inside!r}, every_k_schedule={self._every_k!r})"

    def init(self, params: Any) -> MultiStepsState:
        """The state: 4 bytes a parameter beside the inner one's."""
        acc = zeros_in(params, self._dtype)
        skip_state = () if self._skip is None else self._skip(zeros_as(params), zero_count(), params)[1]
        return MultiStepsState(zero_count(), zero_count(), self.inner_opt.init(params), acc, skip_state)

    def update(self, updates: Any, state: MultiStepsState, params: Any = None, **extra_args: Any) -> tuple[Any, MultiStepsState]:
        """Gathers; at each k-th call the updates of `opt`, else zeros."""
        with checks.calling("MultiSteps"):
            return self._update(updates, state, params, extra_args)

    def _update(self, updates: Any, state: MultiStepsState, params: Any, extra_args: dict[str, Any]) -> tuple[Any, MultiStepsState]:
        skip, skip_state = jnp.asarray(False), ()
        if self._skip is not None:
            skip, skip_state = self._skip(updates, state.gradient_step, params)
            if jnp.shape(skip) != () or jnp.result_type(skip) != jnp.bool_:
                raise checks.WrongValue(f"should_skip_update_fn gives {checks.kind(skip)} first, expected a boolean scalar.")
        _, acc = map_leaves(self._rule, widen(updates), state.acc_grads, n=state.mini_step.astype(jnp.float32))
        acc = jax.tree.map(lambda new, old: jnp.where(skip, old, new), acc, state.acc_grads)
        emit = ~skip & (state.mini_step >= microsteps("every_k_schedule", self._every_k, state.gradient_step) - 1)

        def step() -> tuple[Any, Any]:
            changed, inner_state = self.inner_opt.update(acc, state.inner_opt_state, params, **extra_args)
            return cast_like(changed, updates), inner_state

        changed, inner_state = cond(emit, step, lambda: (zeros_as(updates), state.inner_opt_state))
        return changed, MultiStepsState(
            jnp.where(emit, 0, jnp.where(skip, state.mini_step, safe_increment(state.mini_step))),
            jnp.where(emit, safe_increment(state.gradient_step), state.gradient_step),
            inner_state,
            jax.tree.map(lambda x: jnp.where(emit, 0, x), acc),
            skip_state,
        )

    def has_updated(self, state: MultiStepsState) -> jax.Array:
        """Whether the last call took a step."""
        return (state.mini_step == 0) & (state.gradient_step > 0)

    def gradient_transformation(self) -> GradientTransformation:
        """As a transformation."""
        return GradientTransformation(self.init, self.update)


def skip_not_finite(updates: Any, gradient_step: Any, params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A rule for `MultiSteps`: skip where any element is NaN or infinite.

    Args:
      updates: the gradients of a call.
      gradient_step, params: not used.

    Returns:
      A boolean scalar, and `{"should_skip", "num_not_finite"}`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> skip, found = gradtx.skip_not_finite({"w": jnp.array([1.0, jnp.inf])}, 0, None)
      >>> bool(skip), int(found["num_not_finite"])
      (True, 1)
    """
    counts = [jnp.sum(~jnp.isfinite(x), dtype=jnp.int32) for x in jax.tree.leaves(updates)]
    number = jnp.sum(jnp.stack(counts), dtype=jnp.int32) if counts else zero_count()
    return number > 0, {"should_skip": number > 0, "num_not_finite": number}


def skip_large_updates(
    updates: Any, gradient_step: Any, params: Any, max_squared_norm: Any
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A rule for `MultiSteps`, with `max_squared_norm` bound by `functools.partial`: skip where `|g|^2` is not below it, or NaN.

    Args:
      updates: the gradients of a call.
      gradient_step, params: not used.
      max_squared_norm: the bound, in units of the squared gradient.

    Returns:
      A boolean scalar, and `{"should_skip", "norm_squared"}`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> skip, found = gradtx.skip_large_updates({"w": jnp.array([3.0, 4.0])}, 0, None, max_squared_norm=20.0)
      >>> bool(skip), float(found["norm_squared"])
      (True, 25.0)
    """
    parts = [jnp.sum(abs_sq(promote(x))).astype(jnp.float32) for x in jax.tree.leaves(updates)]
    squared = jnp.sum(jnp.stack(parts)) if parts else jnp.zeros(())
    skip = ~(squared < max_squared_norm)
    return skip, {"should_skip": skip, "norm_squared": squared}
