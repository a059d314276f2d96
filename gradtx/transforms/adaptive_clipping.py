"""Bounds on gradients that follow their usual norms: for each leaf, or for all together."""

from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.domains import Bound, Decay, NonNegative, NonNegativeInt, Positive, PositiveInt
from gradtx.core.leaves import each_leaf
from gradtx.core.numerics import compute_dtype, default_float, real_dtype, running_mean, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Tree, Updates
from gradtx.transforms.scaling import scaled
from gradtx.tree.reductions import AxisNames, global_norm


class AdagcState(NamedTuple):
    """Steps taken, steps that clipped a leaf, last norm of all leaves, usual norm of each.

    A usual norm is 0 until a gradient of the leaf was not 0.
    """

    steps: jax.Array
    clipped: jax.Array
    norm: jax.Array
    usual: Tree

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"grad_norm": self.norm, "clip_fraction": self.clipped / jnp.maximum(self.steps, 1)}


class adagc(Transformation, keeps_zero=True):
    """Clips each leaf by its own usual norm: `g * min(1, lambda_rel * usual / |g|)`.

    `usual = beta*usual + (1-beta) * |clipped g|` for each leaf. In the first `warmup_steps - 1`
    steps all leaves are clipped together to the norm `lambda_abs`, and `usual` is the least norm of
    the clipped leaf so far. Norms that are zero, inf or NaN do not count; where one is inf or NaN
    the leaf passes unchanged, so that a wrapper that skips non-finite steps sees it.

    Args:
      lambda_abs: largest norm of all leaves together in the warm-up, > 0.
      lambda_rel: largest norm of a leaf in units of its usual norm, > 0; at 1 norms can only fall.
      beta: decay of the usual norms, in [0, 1).
      warmup_steps: the first step, counted from 1, that is clipped by usual norms, >= 0.
      axis_name: inside `jax.shard_map`, the mesh axes along which devices hold the shards of
        updates; see `global_norm`.

    State: `AdagcState(steps int32, clipped int32, norm float32, usual)`; 4 bytes a leaf and 12.
      `gradtx.metrics` reports `grad_norm` (the last norm of all leaves before clipping) and
      `clip_fraction` (the share of steps that clipped a leaf).

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.adagc(warmup_steps=2)
      >>> _, state = tx.update(jnp.array([0.3, 0.4]), tx.init(jnp.zeros(2)))
      >>> updates, state = tx.update(jnp.array([30.0, 40.0]), state)
      >>> [round(float(u), 3) for u in updates]  # of norm 1.05 * 0.5
      [0.315, 0.42]

    Source: Wang et al. 2025, "AdaGC", arXiv:2502.11034, algorithm 1.

    **Differs:** in the paper a leaf whose gradient was zero once in the warm-up stays frozen.
    """

    lambda_abs: Positive = 1.0
    lambda_rel: Positive = 1.05
    beta: Decay = 0.98
    warmup_steps: NonNegativeInt = 100
    _: KW_ONLY
    axis_name: AxisNames | None = None

    def init(self, params: Params) -> AdagcState:
        usual = jax.tree.map(lambda p: jnp.zeros((), real_dtype(compute_dtype(jnp.result_type(p)))), params)
        return AdagcState(zero_count(), zero_count(), jnp.zeros((), default_float()), usual)

    def step(
        self, updates: Updates, state: AdagcState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, AdagcState]:
        steps = safe_increment(state.steps)
        warming = steps < self.warmup_steps
        whole = global_norm(updates, axis_name=self.axis_name)
        norms = jax.tree.map(lambda g: global_norm(g, axis_name=self.axis_name), updates)

        @each_leaf
        def rule(g: jax.Array, usual: jax.Array, norm: jax.Array) -> tuple[jax.Array, ...]:
            fresh = usual == 0
            largest = jnp.where(warming | fresh, self.lambda_abs, self.lambda_rel * usual)
            size = jnp.where(warming | fresh, whole.astype(usual.dtype), norm)
            clips = (size > largest) & jnp.isfinite(size)
            ratio = jnp.where(clips, largest / jnp.where(clips, size, 1), 1)
            after = ratio * norm
            new = jnp.where(warming, jnp.minimum(usual, after), running_mean(usual, after, self.beta))
            counts = (norm > 0) & jnp.isfinite(norm) & jnp.isfinite(size)
            return g * ratio, jnp.where(counts, jnp.where(fresh, after, new), usual), ratio

        updates, usual, ratios = rule(updates, state.usual, norms)
        least = jnp.sort(jnp.stack([jnp.ones(()), *(x.astype(jnp.float32) for x in jax.tree.leaves(ratios))]))[0]
        clipped = jnp.where(least < 1, safe_increment(state.clipped), state.clipped)
        return updates, AdagcState(steps, clipped, whole.astype(state.norm.dtype), usual)


class ZclipState(NamedTuple):
    """What `zclip` keeps.

    Attributes:
      steps: steps taken.
      clipped: steps that clipped.
      norm: the last norm before clipping.
      counted: norms in the statistics.
      mean: of norms.
      variance: of norms.
    """

    steps: jax.Array
    clipped: jax.Array
    norm: jax.Array
    counted: jax.Array
    mean: jax.Array
    variance: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        fraction = self.clipped / jnp.maximum(self.steps, 1)
        return {"grad_norm": self.norm, "clip_fraction": fraction, "usual_norm": self.mean}


class zclip(Transformation, keeps_zero=True):
    """Clips the norm of all gradients where it is an outlier among the recent ones.

    With `n` the norm and `z = (n - mean) / (std + eps)`: where `z > z_thresh`, `n` counts as
    `c = mean + z_thresh^2/z * std`, so that larger outliers are clipped to less, else `c = n`.
    The gradient is scaled to the norm `min(c, max_norm)`. Then `mean = alpha*mean + (1-alpha)*c`
    and `variance = alpha*variance + (1-alpha) * (c - mean)^2`. The first `warmup_steps` norms give
    mean and variance themselves; meanwhile `max_norm` alone bounds. A norm that is inf or NaN
    counts for nothing, and its gradient passes unchanged.

    Args:
      alpha: decay of mean and variance, in [0, 1).
      z_thresh: how many standard deviations above the mean is an outlier, > 0.
      max_norm: largest norm at any time, >= 0; inf for none.
      warmup_steps: norms that the statistics begin with, >= 1.
      eps: added to the standard deviation, >= 0; in units of the gradient.
      axis_name: inside `jax.shard_map`, the mesh axes along which devices hold the shards of
        updates; see `global_norm`.

    State: `ZclipState(steps, clipped int32, norm float32, counted int32, mean, variance float32)`,
      24 bytes. `gradtx.metrics` reports `grad_norm`, `clip_fraction` and `usual_norm`, the mean.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.zclip(max_norm=float("inf"), warmup_steps=2)
      >>> state = tx.init(jnp.zeros(()))
      >>> for gradient in (1.0, 2.0, 100.0):
      ...     updates, state = tx.update(jnp.array(gradient), state)
      >>> round(float(updates), 3)  # 1.5 + 2.5^2/197 * 0.5
      1.516

    Source: Kumar et al. 2025, "ZClip", arXiv:2504.02507, as in
    https://github.com/bluorion-com/ZClip.
    """

    alpha: Decay = 0.97
    z_thresh: Positive = 2.5
    max_norm: Bound = 1.0
    warmup_steps: PositiveInt = 25
    eps: NonNegative = 1e-6
    _: KW_ONLY
    axis_name: AxisNames | None = None

    def init(self, params: Params) -> ZclipState:
        zero = jnp.zeros((), default_float())
        return ZclipState(zero_count(), zero_count(), zero, zero_count(), zero, zero)

    def step(
        self, updates: Updates, state: ZclipState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ZclipState]:
        norm = global_norm(updates, axis_name=self.axis_name).astype(state.norm.dtype)
        finite, started = jnp.isfinite(norm), state.counted >= self.warmup_steps
        spread = jnp.sqrt(state.variance)
        above = norm - state.mean
        outlier = started & finite & (above > self.z_thresh * (spread + self.eps))
        c = jnp.where(outlier, state.mean + self.z_thresh**2 * spread * (spread + self.eps) / jnp.where(outlier, above, 1), norm)
        largest = jnp.minimum(c, self.max_norm)
        too_large = finite & (norm > largest)
        ratio = jnp.where(too_large, largest / jnp.where(too_large, norm, 1), 1)
        counted = jnp.where(finite & ~started, safe_increment(state.counted), state.counted)
        share = jnp.where(started, 1 - self.alpha, 1 / jnp.maximum(counted, 1).astype(norm.dtype)).astype(norm.dtype)
        mean = state.mean + share * (c - state.mean)
        # In the warm-up the variance of all so far (Welford 1962), then a running one.
        change = jnp.where(started, jnp.square(c - mean), (c - state.mean) * (c - mean))
        variance = state.variance + share * (change - state.variance)
        return scaled(ratio, updates), ZclipState(
            safe_increment(state.steps),
            jnp.where(too_large, safe_increment(state.clipped), state.clipped),
            norm,
            counted,
            jnp.where(finite, mean, state.mean),
            jnp.where(finite, variance, state.variance),
        )
