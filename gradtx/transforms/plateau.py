"""A learning rate that falls where a measured value no longer does."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks, domains
from gradtx.core.domains import Fraction, NonNegative, NonNegativeInt, PositiveInt
from gradtx.core.numerics import default_float, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, Updates
from gradtx.transforms.backtracking import Shrink
from gradtx.transforms.scaling import scaled


class ReduceLROnPlateauState(NamedTuple):
    """What `reduce_on_plateau` has seen.

    Attributes:
      scale: the factor in use.
      best_value: the best mean of `accumulation_size` values, inf before any.
      plateau_count: means since then.
      cooldown_count: means that the cooldown still takes.
      count: values in the mean that is being formed.
      avg_value: their mean.
    """

    scale: jax.Array
    best_value: jax.Array
    plateau_count: jax.Array
    cooldown_count: jax.Array
    count: jax.Array
    avg_value: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"plateau_scale": self.scale}


class reduce_on_plateau(Transformation, keeps_zero=True):
    """Scales updates down for good when a value stops falling: `scale * u`.

    Each time `scale = max(factor * scale, min_scale)`. A value is better if
    `value < best - rtol*|best| - atol`. At the `patience`-th value in a row that is no better, the
    scale falls; for `cooldown` values after that none counts as no better. Put it last in a chain;
    it multiplies the learning rate. Its update needs the extra argument `value`, a real scalar such
    as the loss. NaN is never better.

    Args:
      factor: in (0, 1).
      patience: values in a row that are no better, >= 1.
      rtol: by which part of the best value a value must be lower, in [0, 1].
      atol: by how much it must be lower, >= 0, in units of the value. Both tolerances 0: any lower
        value is better.
      cooldown: values that are not judged after a reduction, >= 0. They may still set the best
        value.
      accumulation_size: how many values are averaged to one before they are judged, >= 1: more for
        a minibatch's loss.
      min_scale: least scale, >= 0.

    State: `ReduceLROnPlateauState(scale, best_value, plateau_count, cooldown_count, count,
      avg_value)`, 24 bytes. `gradtx.metrics` reports `scale` as `plateau_scale`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.reduce_on_plateau(factor=0.5, patience=2))
      >>> state = tx.init(jnp.array(0.0))
      >>> for loss in [3.0, 2.0, 2.0, 2.5, 1.0]:
      ...     updates, state = tx.update(jnp.array(1.0), state, value=loss)
      ...     print(updates)
      -1.0
      -1.0
      -1.0
      -0.5
      -0.5

    Source: the rule of torch.optim.lr_scheduler.ReduceLROnPlateau, with Optax's arguments. He et
    al. 2016, arXiv:1512.03385, section 3.4, divide the rate by 10 "when the error plateaus".

    **Differs:** Optax (0.2.8, `contrib`) compares with `(1 - rtol)*best - atol`, so that for a
    negative best value a worse one is better and the scale never falls. It keeps the scale and the
    values in the parameters' dtype, and demands a tolerance above 0. PyTorch reduces one value
    later.
    """

    factor: Shrink = 0.1
    patience: PositiveInt = 10
    rtol: Fraction = 1e-4
    atol: NonNegative = 0.0
    cooldown: NonNegativeInt = 0
    accumulation_size: PositiveInt = 1
    min_scale: NonNegative = 0.0

    def init(self, params: Params) -> ReduceLROnPlateauState:
        one, zero, best = (jnp.asarray(x, default_float()) for x in (1, 0, jnp.inf))
        return ReduceLROnPlateauState(one, best, zero_count(), zero_count(), zero_count(), zero)

    def step(
        self,
        updates: Updates,
        state: ReduceLROnPlateauState,
        params: Params | None = None,
        *,
        value: Scalar,
        **extra_args: ExtraArg,
    ) -> tuple[Updates, ReduceLROnPlateauState]:
        if not domains.is_real_scalar(value):
            raise checks.WrongType(f"value is {checks.kind(value)}, expected a real scalar, such as the loss.")
        count = safe_increment(state.count)
        value = jnp.asarray(value).astype(state.avg_value.dtype)
        mean = (state.count.astype(value.dtype) * state.avg_value + value) / count.astype(value.dtype)
        seen = state._replace(count=count, avg_value=mean.astype(state.avg_value.dtype))
        full = count == self.accumulation_size
        after = jax.tree.map(lambda new, old: jnp.where(full, new, old).astype(old.dtype), self.judged(seen), seen)
        return scaled(after.scale, updates), after

    def judged(self, state: ReduceLROnPlateauState) -> ReduceLROnPlateauState:
        """The state after a full mean."""
        best = state.best_value
        # At the first value the best is infinite, and inf - inf is NaN.
        tolerance = jnp.where(jnp.isfinite(best), self.rtol * jnp.abs(best) + self.atol, 0)
        better = state.avg_value < best - tolerance
        cooling = state.cooldown_count > 0
        waited = jnp.where(better | cooling, 0, safe_increment(state.plateau_count))
        falls = waited >= self.patience
        lower = jnp.maximum(state.scale * self.factor, self.min_scale)
        return ReduceLROnPlateauState(
            scale=jnp.where(falls, lower, state.scale),
            best_value=jnp.where(better, state.avg_value, best),
            plateau_count=jnp.where(falls, 0, waited),
            cooldown_count=jnp.where(falls, self.cooldown, jnp.where(cooling, state.cooldown_count - 1, 0)),
            count=jnp.zeros_like(state.count),
            avg_value=jnp.zeros_like(state.avg_value),
        )
