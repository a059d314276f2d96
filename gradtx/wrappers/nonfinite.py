"""Steps that are not taken: where something is not finite, or far larger than usual."""

from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.recompute import after_check
from gradtx.core.composites import Wrapper
from gradtx.core.domains import NonNegativeInt, Positive, PositiveInt
from gradtx.core.leaves import all_finite, in_dtypes_of, select_tree, zeros_like
from gradtx.core.numerics import cond, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.trees import is_inexact
from gradtx.core.types import Extra, ExtraArg, Params, State, Updates
from gradtx.tree.reductions import AxisNames, global_norm, on_every_device


class SkipNonfiniteState(NamedTuple):
    """Steps skipped in all and in a row, and the wrapped transformation's state."""

    skipped: jax.Array
    skipped_in_a_row: jax.Array
    inner_state: State

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}


class SkipSpikesState(NamedTuple):
    """What `skip_spikes` keeps.

    Attributes:
      skipped: steps skipped in all.
      skipped_in_a_row: those since the last step taken.
      large_in_a_row: large ones since one of usual size.
      counted: steps in the averages.
      mean: of `log|g|`.
      variance: of `log|g|`.
      inner_state: the optimizer's state.
    """

    skipped: jax.Array
    skipped_in_a_row: jax.Array
    large_in_a_row: jax.Array
    counted: jax.Array
    mean: jax.Array
    variance: jax.Array
    inner_state: State

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row, "usual_norm": jnp.exp(self.mean)}


class ApplyIfFiniteState(NamedTuple):
    """Non-finite steps in a row, whether the last was finite, such steps in all, inner state."""

    notfinite_count: jax.Array
    last_finite: jax.Array
    total_notfinite: jax.Array
    inner_state: State


def _became_nonfinite(new: State, old: State) -> jax.Array:
    """Whether an element is NaN or infinite that was not before.

    A state may begin with an infinite best value.
    """
    pairs = [(x, y) for x, y in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True) if is_inexact(x)]
    bad = [jnp.any(~jnp.isfinite(x) & jnp.isfinite(y)) for x, y in pairs]
    return jnp.sort(jnp.stack(bad))[-1] if bad else jnp.asarray(False)  # sorted, as in `all_finite`


def attempt(
    inner: Transformation,
    allowed: jax.Array,
    axis_name: AxisNames | None,
    updates: Updates,
    state: State,
    params: Params | None,
    extra_args: Extra,
) -> tuple[Updates, State, jax.Array]:
    """A step of `inner` if it is allowed and all that it gives is finite.

    Else zeros and what is left of the state. The step is computed in any case: a conditional around
    whole trees copies them, at every step, to save work at the rare ones.
    """

    def run(updates: Updates, state: State, params: Params | None) -> tuple[Updates, State]:
        changed, after = inner.advance(updates, state, params, extra_args)
        return in_dtypes_of(changed, updates), after

    def is_good(result: tuple[Updates, State]) -> jax.Array:
        applied = in_dtypes_of(result[0], params)  # in float16 it may be infinite
        return allowed & on_every_device(all_finite(applied) & ~_became_nonfinite(result[1], state), axis_name)

    (changed, after), good = after_check(run, is_good, updates, state, params)
    left = select_tree(allowed, inner.undone(state, after), state)
    return select_tree(good, changed, zeros_like(updates)), select_tree(good, after, left), good


class skip_nonfinite(Wrapper, keeps_zero=True):
    """Skips a step whose gradients, updates or new state hold a NaN or an infinity.

    Updates are then zero, and the state stays. So a gradient of 1e30, finite itself, is skipped
    where its square overflows in a second moment. After a skipped step state and parameters are bit
    for bit what they were, except for the counters. An accumulation inside leaves out a microbatch
    that is not finite; where its step is skipped, it drops what it gathered and begins anew. Guard
    what the loop itself keeps (batch statistics): keep the old one unless
    `gradtx.metrics(state)["skipped_in_a_row"] == 0`.

    Args:
      inner: the optimizer.
      max_consecutive: >= 0, or None; after so many skipped steps in a row the next one sets all
        updates to NaN, so that a run that no longer trains ends visibly. The state stays finite.
      axis_name: inside `jax.shard_map`, the mesh axes along which devices hold the shards of
        parameters: they skip a step together.

    State: `SkipNonfiniteState(skipped int32, skipped_in_a_row int32, inner_state)`; 8 bytes more.
      `gradtx.metrics` reports both.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.skip_nonfinite(gradtx.adam(0.1))
      >>> state = tx.init(jnp.zeros(2))
      >>> updates, state = tx.update(jnp.array([1.0, jnp.nan]), state)
      >>> updates, {k: int(v) for k, v in gradtx.metrics(state).items() if "skipped" in k}
      (Array([0., 0.], dtype=float32), {'skipped': 1, 'skipped_in_a_row': 1})
    """

    max_consecutive: NonNegativeInt | None = None
    _: KW_ONLY
    axis_name: AxisNames | None = None

    def init(self, params: Params) -> SkipNonfiniteState:
        return SkipNonfiniteState(zero_count(), zero_count(), self.inner.init(params))

    def step(
        self, updates: Updates, state: SkipNonfiniteState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, SkipNonfiniteState]:
        allowed = on_every_device(all_finite(updates), self.axis_name)
        changed, inner_state, taken = attempt(self.inner, allowed, self.axis_name, updates, state.inner_state, params, extra_args)
        row = jnp.where(taken, 0, safe_increment(state.skipped_in_a_row))
        if self.max_consecutive is not None:
            gave_up = row > self.max_consecutive
            changed = jax.tree.map(lambda u: jnp.where(gave_up, jnp.nan, u).astype(u.dtype), changed)
        skipped = jnp.where(taken, state.skipped, safe_increment(state.skipped))
        return changed, SkipNonfiniteState(skipped, row, inner_state)


LEAST_SPREAD = 0.1
"""Least standard deviation of `log|g|`: where norms hardly vary, a small change is no spike."""


class skip_spikes(Wrapper, keeps_zero=True):
    """Skips a step whose gradient norm is not finite or far above the usual.

    Far above is `log|g| > mean + sigma * max(std, 0.1)`. Mean and variance of `log|g|` are
    exponential averages over about `window` accepted steps. Skipped steps do not change them, nor
    do gradients of zero, which are accepted (frozen parameters, masked batches). A smaller one
    enters as `mean - sigma * max(std, 0.1)`. The averages are trusted after `window / 4` such steps
    (at least 1); until then only what is not finite is skipped. After `window` steps skipped for
    their size, with none of usual size between, the new size counts as usual, so that a lasting
    change does not stop the training. Updates and new states that are not finite are skipped as by
    `skip_nonfinite`.

    Args:
      inner: the optimizer.
      sigma: how many standard deviations above the mean is a spike, > 0.
      window: over how many steps to average, >= 1.
      axis_name: inside `jax.shard_map`, the mesh axes along which devices hold the shards of
        parameters: the norm is that of all, and they skip a step together.

    State: `SkipSpikesState(skipped, skipped_in_a_row, large_in_a_row, counted int32, mean, variance
      float32, inner_state)`; 24 bytes more. `gradtx.metrics` reports `skipped`, `skipped_in_a_row`,
      and `usual_norm`, `exp` of the mean.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.skip_spikes(gradtx.sgd(1.0), window=4)
      >>> state = tx.init(jnp.zeros(()))
      >>> for gradient in (1.0, 1.1, 1e30, 0.9):
      ...     updates, state = tx.update(jnp.array(gradient), state)
      ...     print(round(float(updates), 2))
      -1.0
      -1.1
      0.0
      -0.9

    Source: the practice of skipping loss spikes in large runs (Chowdhery et al. 2022,
    arXiv:2204.02311, section 5.1), with the gradient norm as the sign, as in Takase et al. 2023,
    arXiv:2312.16903.
    """

    sigma: Positive = 6.0
    window: PositiveInt = 128
    _: KW_ONLY
    axis_name: AxisNames | None = None

    def init(self, params: Params) -> SkipSpikesState:
        zero = jnp.zeros((), jnp.float32)
        return SkipSpikesState(zero_count(), zero_count(), zero_count(), zero_count(), zero, zero, self.inner.init(params))

    def step(
        self, updates: Updates, state: SkipSpikesState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, SkipSpikesState]:
        norm = global_norm(updates, axis_name=self.axis_name).astype(jnp.float32)
        finite = jnp.isfinite(norm)
        sized = finite & (norm > 0)
        size = jnp.log(jnp.where(sized, norm, 1))
        trusted = state.counted >= max(self.window // 4, 1)
        reach = self.sigma * jnp.maximum(jnp.sqrt(state.variance), LEAST_SPREAD)
        large = sized & trusted & (size > state.mean + reach)
        anew = large & (state.large_in_a_row >= self.window)
        allowed = finite & (~large | anew)
        changed, inner_state, taken = attempt(self.inner, allowed, self.axis_name, updates, state.inner_state, params, extra_args)
        seen = jnp.where(trusted & ~anew, jnp.maximum(size, state.mean - reach), size)
        enters = taken & sized
        usual = state.counted, state.mean, state.variance
        counted, mean, variance = select_tree(enters, self.averages(state, seen, anew), usual)
        return changed, SkipSpikesState(
            jnp.where(taken, state.skipped, safe_increment(state.skipped)),
            jnp.where(taken, 0, safe_increment(state.skipped_in_a_row)),
            jnp.where(enters, 0, jnp.where(large, safe_increment(state.large_in_a_row), state.large_in_a_row)),
            counted,
            mean,
            variance,
            inner_state,
        )

    def averages(self, state: SkipSpikesState, size: jax.Array, anew: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Steps counted, mean and variance after one more size; `anew` begins with that one."""
        counted = jnp.where(anew, 1, safe_increment(state.counted))
        share = 1 / jnp.minimum(counted, self.window).astype(jnp.float32)
        change = jnp.where(anew, 0.0, size - state.mean)
        mean = jnp.where(anew, size, state.mean) + share * change
        return counted, mean, (1 - share) * (jnp.where(anew, 0.0, state.variance) + share * change**2)


class apply_if_finite(Wrapper, keeps_zero=True):
    """Optax's guard: skips gradients with a NaN or an infinity, then applies *every* one.

    After `max_consecutive_errors` skipped in a row, the next such gradient reaches optimizer and
    parameters, and destroys both. `skip_nonfinite` does not do that, and looks at updates and
    states too.

    Args:
      inner: the optimizer.
      max_consecutive_errors: how many in a row are skipped, >= 0.

    State: `ApplyIfFiniteState(notfinite_count int32, last_finite bool, total_notfinite int32,
      inner_state)`; 9 bytes more.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax
      >>> tx = gradtx.optax.apply_if_finite(gradtx.sgd(1.0), max_consecutive_errors=1)
      >>> updates, state = tx.update(jnp.array(jnp.nan), tx.init(jnp.zeros(())))
      >>> float(updates), int(state.total_notfinite)
      (0.0, 1)
    """

    max_consecutive_errors: NonNegativeInt

    def init(self, params: Params) -> ApplyIfFiniteState:
        return ApplyIfFiniteState(zero_count(), jnp.asarray(True), zero_count(), self.inner.init(params))

    def step(
        self, updates: Updates, state: ApplyIfFiniteState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ApplyIfFiniteState]:
        finite = all_finite(updates)
        row = jnp.where(finite, 0, safe_increment(state.notfinite_count))

        def step() -> tuple[Updates, State]:
            changed, inner_state = self.inner.advance(updates, state.inner_state, params, extra_args)
            return in_dtypes_of(changed, updates), inner_state

        allowed = finite | (row > self.max_consecutive_errors)
        changed, inner_state = cond(allowed, step, lambda: (zeros_like(updates), state.inner_state))
        total = jnp.where(finite, state.total_notfinite, safe_increment(state.total_notfinite))
        return changed, ApplyIfFiniteState(row, finite, total, inner_state)
