"""Optax's `MultiSteps`: accumulation with a rule that leaves gradients out."""

from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core import checks
from gradtx.core.domains import Flag, FloatDType, Function, scheduled_value
from gradtx.core.leaves import each_leaf, zeros_like
from gradtx.core.numerics import abs_sq, promote, safe_increment, zero_count
from gradtx.core.pairs import Inner
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, State, Tree, Updates
from gradtx.wrappers.accumulate import CountOrSchedule, check_accumulable, step_or_gather, zeros_in


class MultiStepsState(NamedTuple):
    """Microbatches since the last step, steps taken, inner state, gathered gradients.

    `skip_state` is what the skipping rule said last.
    """

    mini_step: jax.Array
    gradient_step: jax.Array
    inner_opt_state: State
    acc_grads: Updates
    skip_state: State


class MultiSteps(Transformation):
    """Takes one step of `opt` with the mean (or sum) of `k` gradients that were not skipped.

    `acc += (g - acc) / (n + 1)` after `n` gradients, or `acc += g`; updates are zero between steps.
    A call whose gradients the rule skips does not count, so a step always has `k` gradients;
    `accumulate(..., skip_nonfinite=True)` leaves a microbatch out and steps with the others.

    Args:
      opt: the optimizer; none that calls `grad_fn`, as SAM does.
      every_k_schedule: `k`, a whole number >= 1, or a schedule of the steps taken by `opt`.
      use_grad_mean: whether `opt` gets the mean of the gradients, else their sum.
      should_skip_update_fn: None, or a function of `(updates, gradient_step, params)` that gives a
        boolean scalar (True: leave these out) and a tree of arrays for the state, such as
        `skip_not_finite`, `skip_large_updates`.
      accumulator_dtype: dtype of what is gathered; wider where parameters are.

    State: `MultiStepsState(mini_step int32, gradient_step int32, inner_opt_state, acc_grads,
      skip_state)`; 4 bytes a parameter and 8 more.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax
      >>> rule = gradtx.optax.skip_not_finite
      >>> tx = gradtx.optax.MultiSteps(gradtx.sgd(1.0), 2, should_skip_update_fn=rule)
      >>> params = jnp.zeros(())
      >>> state = tx.init(params)
      >>> for gradient in (1.0, jnp.nan, 3.0):
      ...     updates, state = tx.update(jnp.array(gradient), state, params)
      ...     print(float(updates), bool(tx.has_updated(state)))
      0.0 False
      0.0 False
      -2.0 True

    **Differs:** Optax's is no transformation itself; its `gradient_transformation` makes one, which
    here is the same object. Optax hands `opt` the mean in the gradients' dtype; here it stays in
    the accumulator's.
    """

    opt: Inner
    every_k_schedule: CountOrSchedule
    use_grad_mean: Flag = True
    should_skip_update_fn: Function | None = None
    accumulator_dtype: FloatDType = jnp.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_accumulable("MultiSteps", "opt", self.opt)

    @property
    def gathers(self) -> bool:  # type: ignore[override]
        """Whether a step takes several calls."""
        return self.every_k_schedule != 1

    @property
    def inside(self) -> tuple[Transformation, ...]:
        return (self.opt,)

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        return (Part(self.opt, params, state.inner_opt_state),)

    def undone(self, before: MultiStepsState, after: MultiStepsState) -> MultiStepsState:
        used_up = after.mini_step == 0
        return before._replace(
            mini_step=jnp.where(used_up, 0, before.mini_step),
            inner_opt_state=self.opt.undone(before.inner_opt_state, after.inner_opt_state),
            acc_grads=jax.tree.map(lambda x: jnp.where(used_up, 0, x), before.acc_grads),
        )

    def init(self, params: Params) -> MultiStepsState:
        _, skip_state = self.skips(zeros_like(params), zero_count(), params)
        acc = zeros_in(params, self.accumulator_dtype)
        return MultiStepsState(zero_count(), zero_count(), self.opt.init(params), acc, skip_state)

    def step(
        self, updates: Updates, state: MultiStepsState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, MultiStepsState]:
        skip, skip_state = self.skips(updates, state.gradient_step, params)
        n = state.mini_step.astype(jnp.float32)

        @each_leaf
        def gather(g: jax.Array, acc: jax.Array) -> tuple[jax.Array, jax.Array]:
            new = acc + (g - acc) / (n + 1) if self.use_grad_mean else acc + g
            return g, jnp.where(skip, acc, new)

        def gathered() -> Updates:
            return gather(updates, state.acc_grads)[1]

        k = scheduled_value("every_k_schedule", self.every_k_schedule, state.gradient_step)
        emit = ~skip & (state.mini_step >= k - 1)

        def optimize(acc: Updates) -> tuple[Updates, State]:
            return self.opt.advance(acc, state.inner_opt_state, params, extra_args)

        changed, kept, inner_state = step_or_gather(
            emit, gathered, optimize, state.acc_grads, state.inner_opt_state, updates, params
        )
        return changed, MultiStepsState(
            jnp.where(emit, 0, jnp.where(skip, state.mini_step, safe_increment(state.mini_step))),
            jnp.where(emit, safe_increment(state.gradient_step), state.gradient_step),
            inner_state,
            jax.tree.map(lambda x: jnp.where(emit, 0, x), kept),
            skip_state,
        )

    def skips(self, updates: Updates, gradient_step: jax.Array, params: Params | None) -> tuple[jax.Array, Tree]:
        """Whether to leave these gradients out, and what the rule wants in the state."""
        if self.should_skip_update_fn is None:
            return jnp.asarray(False), ()
        skip, skip_state = self.should_skip_update_fn(updates, gradient_step, params)
        if jnp.shape(skip) != () or jnp.result_type(skip) != jnp.bool_:
            raise checks.WrongValue(f"should_skip_update_fn gives {checks.kind(skip)} first, expected a boolean scalar.")
        return jnp.asarray(skip), skip_state

    def has_updated(self, state: MultiStepsState) -> jax.Array:
        """Whether the last call took a step."""
        return (state.mini_step == 0) & (state.gradient_step > 0)

    @property
    def inner_opt(self) -> Transformation:
        """`opt`, as Optax names it."""
        return self.opt

    def gradient_transformation(self) -> Self:
        """The same object, for code that was written for Optax."""
        return self


def skip_not_finite(updates: Updates, gradient_step: Scalar, params: Params) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A rule for `MultiSteps`: skip where any element is NaN or infinite.

    Args:
      updates: the gradients of a call.
      gradient_step, params: not used.

    Returns:
      A boolean scalar, and `{"should_skip", "num_not_finite"}`.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax
      >>> skip, found = gradtx.optax.skip_not_finite({"w": jnp.array([1.0, jnp.inf])}, 0, None)
      >>> bool(skip), int(found["num_not_finite"])
      (True, 1)
    """
    counts = [jnp.sum(~jnp.isfinite(x), dtype=jnp.int32) for x in jax.tree.leaves(updates)]
    number = jnp.sum(jnp.stack(counts), dtype=jnp.int32) if counts else zero_count()
    return number > 0, {"should_skip": number > 0, "num_not_finite": number}


def skip_large_updates(
    updates: Updates, gradient_step: Scalar, params: Params, max_squared_norm: ArrayLike
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A rule for `MultiSteps`: skip where `|g|^2` is not below `max_squared_norm`, or is NaN.

    Bind `max_squared_norm` with `functools.partial`.

    Args:
      updates: the gradients of a call.
      gradient_step, params: not used.
      max_squared_norm: the bound, in units of the squared gradient.

    Returns:
      A boolean scalar, and `{"should_skip", "norm_squared"}`.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax
      >>> updates = {"w": jnp.array([3.0, 4.0])}
      >>> skip, found = gradtx.optax.skip_large_updates(updates, 0, None, max_squared_norm=20.0)
      >>> bool(skip), float(found["norm_squared"])
      (True, 25.0)
    """
    parts = [jnp.sum(abs_sq(promote(x))).astype(jnp.float32) for x in jax.tree.leaves(updates)]
    squared = jnp.sum(jnp.stack(parts)) if parts else jnp.zeros(())
    skip = ~(squared < max_squared_norm)
    return skip, {"should_skip": skip, "norm_squared": squared}
