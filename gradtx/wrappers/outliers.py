"""Steps that are not taken where the loss or the gradient norm is an outlier in a window."""

from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks, domains
from gradtx.core.composites import Wrapper
from gradtx.core.domains import Positive, PositiveInt
from gradtx.core.numerics import default_float, safe_increment, zero_count
from gradtx.core.types import ExtraArg, Params, Scalar, State, Updates
from gradtx.tree.reductions import AxisNames, global_norm
from gradtx.wrappers.nonfinite import attempt

LEAST_VALUES = 20
"""As in OLMo-core: fewer values judge nothing."""


class SkipOutliersState(NamedTuple):
    """What `skip_outliers` keeps.

    Attributes:
      skipped: steps skipped in all.
      skipped_in_a_row: those since the last step taken.
      counted: values seen.
      losses: the last of them.
      norms: the gradient norms beside them.
      inner_state: the optimizer's state.
    """

    skipped: jax.Array
    skipped_in_a_row: jax.Array
    counted: jax.Array
    losses: jax.Array
    norms: jax.Array
    inner_state: State

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}


class skip_outliers(Wrapper, keeps_zero=True):
    """Skips a step whose loss or gradient norm is far above those of the last `window` steps.

    Far above is `x > mean + sigma*std` for either, with the standard deviation of a sample. The
    rule holds from the `max(20, window // 2)`-th step on. Outliers enter the window too, so that a
    lasting change soon counts as usual. What is not finite is skipped always and does not enter.
    Updates of a skipped step are zero, and the state stays, as with `skip_nonfinite`. Its update
    needs the extra argument `value`, the loss. `skip_spikes` does without, by the norm alone.

    Args:
      inner: the optimizer.
      sigma: how many standard deviations above the mean is an outlier, > 0.
      window: steps that are remembered, >= 1.
      axis_name: inside `jax.shard_map`, the mesh axes along which devices hold the shards of
        gradients: one name or a tuple of them. The norm is of all shards, and devices skip a step
        together. None elsewhere.

    State: `SkipOutliersState(skipped, skipped_in_a_row, counted int32, losses, norms float32,
      inner_state)`; `12 + 8 * window` bytes more. `gradtx.metrics` reports `skipped` and
      `skipped_in_a_row`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.skip_outliers(gradtx.sgd(1.0), window=20)
      >>> state = tx.init(jnp.zeros(()))
      >>> for i in range(20):
      ...     _, state = tx.update(jnp.array(1.0), state, value=2.0 + i % 2)
      >>> updates, state = tx.update(jnp.array(1.0), state, value=50.0)
      >>> float(updates), int(gradtx.metrics(state)["skipped"])
      (0.0, 1)

    Source: the optimizers of OLMo 2, OLMo et al. 2025, arXiv:2501.00656;
    https://github.com/allenai/OLMo-core, `skip_step_optimizer.py`.

    **Differs:** that code lets a value that is not finite into the window, where it hides all
    outliers after it; its newer versions skip values far below the mean too.
    """

    sigma: Positive = 6.0
    window: PositiveInt = 128
    _: KW_ONLY
    axis_name: AxisNames | None = None

    def init(self, params: Params) -> SkipOutliersState:
        losses, norms = (jnp.zeros(self.window, default_float()) for _ in range(2))
        return SkipOutliersState(zero_count(), zero_count(), zero_count(), losses, norms, self.inner.init(params))

    def step(
        self, updates: Updates, state: SkipOutliersState, params: Params | None = None, *, value: Scalar, **extra_args: ExtraArg
    ) -> tuple[Updates, SkipOutliersState]:
        if not domains.is_real_scalar(value):
            raise checks.WrongType(f"value is {checks.kind(value)}, expected a real scalar, such as the loss.")
        loss = jnp.asarray(value).astype(state.losses.dtype)
        norm = global_norm(updates, axis_name=self.axis_name).astype(state.norms.dtype)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        large = self.is_large(loss, state.losses, state.counted) | self.is_large(norm, state.norms, state.counted)
        extra_args = {**extra_args, "value": value}
        allowed = finite & ~large
        changed, inner_state, taken = attempt(self.inner, allowed, self.axis_name, updates, state.inner_state, params, extra_args)
        here = finite & (jnp.arange(self.window) == state.counted % self.window)
        return changed, SkipOutliersState(
            jnp.where(taken, state.skipped, safe_increment(state.skipped)),
            jnp.where(taken, 0, safe_increment(state.skipped_in_a_row)),
            jnp.where(finite, safe_increment(state.counted), state.counted),
            jnp.where(here, loss, state.losses),
            jnp.where(here, norm, state.norms),
            inner_state,
        )

    def is_large(self, x: jax.Array, seen: jax.Array, counted: jax.Array) -> jax.Array:
        """Whether a value is an outlier among those in a window."""
        known = jnp.arange(self.window) < counted
        n = jnp.minimum(counted, self.window).astype(seen.dtype)
        # Differences from one of the values: the mean of equal ones is then exact.
        off = jnp.where(known, seen - seen[0], 0)
        mean = jnp.sum(off) / jnp.maximum(n, 1)
        variance = jnp.sum(jnp.where(known, jnp.square(off - mean), 0)) / jnp.maximum(n - 1, 1)
        judged = counted + 1 >= max(LEAST_VALUES, self.window // 2)
        return judged & (x - seen[0] > mean + self.sigma * jnp.sqrt(variance))
