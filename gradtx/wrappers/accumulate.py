"""One step of an optimizer from the gradients of several microbatches."""

from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.groups import cut
from gradtx.core import checks
from gradtx.core.checked import checked
from gradtx.core.composites import Wrapper
from gradtx.core.domains import Domain, Flag, FloatDType, Function, PositiveInt, Schedule, scheduled_value
from gradtx.core.leaves import all_finite, each_leaf, in_dtypes_of, zeros_like
from gradtx.core.numerics import common_dtype, cond, safe_increment, zero_count
from gradtx.core.transformation import Part, Transformation, wants
from gradtx.core.types import DType, ExtraArg, Params, State, Tree, Updates
from gradtx.core.varying import scan


def _is_count(value: object) -> bool:
    return checks.is_schedule(value) or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


CountOrSchedule = Annotated[
    int | Schedule, Domain("a whole number >= 1, or a schedule of the steps taken by the optimizer", _is_count, numeric=True)
]


class AccumulateState(NamedTuple):
    """What an accumulation keeps.

    Attributes:
      mini_step: microbatches seen since the last step.
      used: how many of them are in the sum.
      gradient_step: steps taken.
      left_out: microbatches left out in all.
      accumulator: sum of gradients; of no meaning after a step, where the next microbatch begins a
        new sum (it holds the updates of that step if parameters are as wide as the sum).
      inner_state: the optimizer's state.
    """

    mini_step: jax.Array
    used: jax.Array
    gradient_step: jax.Array
    left_out: jax.Array
    accumulator: Updates
    inner_state: State

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"gradient_step": self.gradient_step, "left_out": self.left_out}


class accumulate(Wrapper, keeps_zero=True):
    """Takes one step with the mean gradient of `every_k` microbatches: `inner(sum(g) / k)`.

    Between steps updates are zero, so the training loop stays as it is. Equal microbatches of a
    mean loss give the step of the large batch. The extra arguments of the last microbatch reach
    `inner`; those of the others are dropped. Methods of two gradients (SAM and its kin), which call
    `grad_fn`, stand around an accumulation, not in it.

    Args:
      inner: the optimizer. Clipping belongs inside, to see the mean; so do weight decay, and
        averages and slow weights, which count steps: `accumulate(ema_params(inner, 0.999), 4)`.
      every_k: microbatches to a step, >= 1, or a schedule of the steps taken so far. 1 is `inner`
        itself, at no cost.
      dtype: dtype of the sum; wider where parameters are.
      skip_nonfinite: whether a microbatch with a NaN or an infinity is left out. The mean is then
        over the others; without any other there is no step.

    State: `AccumulateState(mini_step, used, gradient_step, left_out, accumulator, inner_state)`;
      4 bytes a parameter and 16 more. `gradtx.metrics` reports `gradient_step` and `left_out`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.accumulate(gradtx.sgd(1.0), every_k=2)
      >>> params = jnp.zeros(())
      >>> state = tx.init(params)
      >>> for gradient in (1.0, 3.0):
      ...     updates, state = tx.update(jnp.array(gradient), state, params)
      ...     print(float(updates))
      0.0
      -2.0
    """

    every_k: CountOrSchedule
    _: KW_ONLY
    dtype: FloatDType = jnp.float32
    skip_nonfinite: Flag = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_accumulable("accumulate", "inner", self.inner)

    @property
    def gathers(self) -> bool:  # type: ignore[override]
        """Whether a step takes several calls."""
        return self.every_k != 1

    @property
    def is_inner(self) -> bool:
        """Whether this is the optimizer itself."""
        return self.every_k == 1 and not self.skip_nonfinite

    @property
    def state_type(self) -> type:  # type: ignore[override]
        """That of the optimizer, where this is the optimizer itself."""
        return self.inner.state_type if self.is_inner else AccumulateState

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        return (Part(self.inner, params, state),) if self.is_inner else super().parts(params, state)

    def undone(self, before: State, after: State) -> State:
        if self.is_inner:
            return self.inner.undone(before, after)
        left = super().undone(before, after)
        return left._replace(mini_step=jnp.where(after.mini_step == 0, 0, before.mini_step))

    def init(self, params: Params) -> State:
        if self.is_inner:
            return self.inner.init(params)
        zero = zero_count()
        return AccumulateState(zero, zero, zero, zero, zeros_in(params, self.dtype), self.inner.init(params))

    def step(self, updates: Updates, state: State, params: Params | None = None, **extra_args: ExtraArg) -> tuple[Updates, State]:
        if self.is_inner:
            return self.inner.advance(updates, state, params, extra_args)
        first = state.mini_step == 0
        last = state.mini_step >= scheduled_value("every_k", self.every_k, state.gradient_step) - 1
        take = all_finite(updates) if self.skip_nonfinite else jnp.asarray(True)
        used = jnp.where(first, 0, state.used) + take.astype(jnp.int32)

        @each_leaf
        def gather(g: jax.Array, total: jax.Array) -> tuple[jax.Array, jax.Array]:
            total = jnp.where(first, 0, total)
            return g, jnp.where(take, total + g, total)

        def gathered() -> Updates:
            return gather(updates, state.accumulator)[1]

        def optimize(total: Updates) -> tuple[Updates, State]:
            count = used.astype(jnp.float32)
            return self.inner.advance(jax.tree.map(lambda x: x / count, total), state.inner_state, params, extra_args)

        steps = last & (used > 0)
        changed, kept, inner_state = step_or_gather(
            steps, gathered, optimize, state.accumulator, state.inner_state, updates, params
        )
        return changed, AccumulateState(
            jnp.where(last, 0, safe_increment(state.mini_step)),
            used,
            jnp.where(steps, safe_increment(state.gradient_step), state.gradient_step),
            jnp.where(take, state.left_out, safe_increment(state.left_out)),
            kept,
            inner_state,
        )


def step_or_gather(
    steps: jax.Array,
    gathered: Callable[[], Updates],
    optimize: Callable[[Updates], tuple[Updates, State]],
    sums: Updates,
    inner_state: State,
    updates: Updates,
    params: Params | None,
) -> tuple[Updates, Updates, State]:
    """Updates and the new state of `optimize(gathered())` where it is time, else zeros and the old.

    With parameters as wide as the sums, one tree leaves the branches, in the memory of the sums:
    the updates where they are used up, or the new sums. Narrow updates are smaller than that, and
    narrow gradients would be stored in float32 for the branches; there the new sums come first.
    """
    alike = zip(jax.tree.leaves(params), jax.tree.leaves(sums), strict=False)
    shared = all(jnp.result_type(p) == x.dtype for p, x in alike)
    total = sums if shared else gathered()

    def step() -> tuple[Updates, State]:
        changed, after = optimize(gathered() if shared else total)
        return in_dtypes_of(changed, sums if shared else updates), after

    kept, after = cond(steps, step, lambda: (gathered() if shared else zeros_like(updates), inner_state))
    if not shared:
        return kept, total, after
    return in_dtypes_of(jax.tree.map(lambda x: jnp.where(steps, x, 0), kept), updates), kept, after


def check_accumulable(name: str, argument: str, inner: Transformation) -> None:
    """Raises for an optimizer that takes second gradients itself."""
    if "grad_fn" in wants(inner):
        raise ValueError(
            f"{name}: {argument} is {inner!r}, which calls grad_fn: it would see the last microbatch alone. Put the accumulation "
            "inside: update it with the mean gradient of all microbatches and a grad_fn that gives the same at other parameters "
            "(gradtx.microbatched makes both), or accumulate the gradients of gradtx.sam_value_and_grad."
        )


def zeros_in(params: Params, dtype: DType) -> Updates:
    """Zeros in `dtype`, or wider where a parameter is."""
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=common_dtype(p, dtype)), params)


class ApplyEveryState(NamedTuple):
    """Steps since the last update that left, and the sum of updates since then."""

    count: jax.Array
    grad_acc: Updates


class apply_every(Transformation, keeps_zero=True):
    """Lets the *sum* of `k` updates through at every k-th step, and zero between.

    What stands before it moves at every step. After `adam` this is not `adam` on larger batches:
    that is `accumulate(adam(...), k)`.

    Args:
      k: steps from one update to the next, >= 1.

    State: `ApplyEveryState(count int32, grad_acc)`; 4 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.apply_every(2))
      >>> state = tx.init(jnp.zeros(()))
      >>> for gradient in (1.0, 3.0):
      ...     updates, state = tx.update(jnp.array(gradient), state)
      ...     print(float(updates))
      0.0
      -4.0

    **Differs:** Optax keeps the sum of half-precision updates in half precision, and a NaN in what
    it does not let through.
    """

    k: PositiveInt = 1

    @property
    def gathers(self) -> bool:  # type: ignore[override]
        """Whether updates leave at some calls only."""
        return self.k != 1

    def init(self, params: Params) -> ApplyEveryState:
        return ApplyEveryState(zero_count(), zeros_in(params, jnp.float32))

    def step(
        self, updates: Updates, state: ApplyEveryState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ApplyEveryState]:
        first, emit = state.count == 0, state.count == self.k - 1

        @each_leaf
        def rule(g: jax.Array, total: jax.Array) -> tuple[jax.Array, jax.Array]:
            total = jnp.where(first, g, total + g)
            return jnp.where(emit, total, 0), total

        updates, total = rule(updates, state.grad_acc)
        return updates, ApplyEveryState(jnp.where(emit, 0, state.count + 1), total)

    def undone(self, before: ApplyEveryState, after: ApplyEveryState) -> ApplyEveryState:
        return before._replace(count=jnp.where(after.count == 0, 0, before.count))


@checked
def microbatched(
    value_and_grad_fn: Function, microbatches: PositiveInt, *, has_aux: Flag = False
) -> Callable[..., tuple[Tree, Updates]]:
    """`jax.value_and_grad` of a large batch in the memory of a small one.

    Value and gradient are means over microbatches, computed in one `lax.scan`.

    Args:
      value_and_grad_fn: as `jax.value_and_grad(loss)` makes it, of `loss(params, *batch)`, a mean
        over its examples.
      microbatches: >= 1; into how many equal parts the leading axis of each array of the batch is
        cut.
      has_aux: whether the loss gives `(value, aux)`.

    Returns:
      A function of `(params, *batch, **kwargs)` that gives `(value, gradient)`, the means over
      microbatches summed in at least float32, in the dtypes of a single one; with `has_aux`
      `((value, aux), gradient)`, `aux` with a leading axis of microbatches. Scalars, scalar keys
      and keyword arguments are not cut: they go to every microbatch (batch statistics, say).

    Raises:
      ValueError: `microbatches` does not divide a leading axis.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> value_and_grad = jax.value_and_grad(lambda w, x: jnp.mean((w * x) ** 2))
      >>> w, batch = jnp.array(1.0), jnp.array([1.0, 2.0, 3.0, 4.0])
      >>> value, grad = gradtx.microbatched(value_and_grad, 2)(w, batch)
      >>> float(value), float(grad)
      (7.5, 15.0)
    """

    def mean(params: Params, *batch: Tree, **kwargs: Tree) -> tuple[Tree, Updates]:
        parts, whole_again = cut("microbatched", "microbatches", batch, microbatches)
        first = whole_again([x[0] for x in parts])
        shapes = jax.eval_shape(value_and_grad_fn, params, *first, **kwargs)
        if not (isinstance(shapes, tuple) and len(shapes) == 2 and isinstance(shapes[0], tuple) == has_aux):
            raise TypeError(
                f"microbatched: value_and_grad_fn gave {checks.kind(shapes)}, expected a pair (value, gradient), as "
                "jax.value_and_grad(loss) gives, with has_aux ((value, aux), gradient)."
            )
        (value_shape, _), grad_shape = shapes if has_aux else ((shapes[0], None), shapes[1])
        like = value_shape, grad_shape
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, common_dtype(s.dtype, jnp.float32)), like)

        def add(total: Tree, part: Tree) -> tuple[Tree, Tree]:
            out, grad = value_and_grad_fn(params, *whole_again(part), **kwargs)
            value, aux = out if has_aux else (out, None)
            return jax.tree.map(lambda a, b: a + b.astype(a.dtype), total, (value, grad)), aux

        total, aux = scan(add, zeros, parts)
        value, grad = jax.tree.map(lambda x, s: (x / microbatches).astype(s.dtype), total, like)
        return ((value, aux) if has_aux else value), grad

    return mean
