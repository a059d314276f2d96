"""RMSProp: gradients over their running root mean square or standard deviation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.plain import identity
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, DecayOrSchedule, Flag, NonNegative, Rate
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import abs_sq, guarded_ratio, moments, one_minus_power, running_mean, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, Squares, Updates
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate


class ScaleByRmsState(NamedTuple):
    """Steps taken, and the second moment."""

    count: jax.Array
    nu: Squares


class ScaleByRStdDevState(NamedTuple):
    """Steps taken, first moment, second moment."""

    count: jax.Array
    mu: Updates
    nu: Updates


def over_root(g: jax.Array, v: jax.Array, eps: Scalar, eps_in_sqrt: bool) -> jax.Array:
    """`g / sqrt(v + eps)`, or `g / (sqrt(v) + eps)`."""
    return guarded_ratio(g, jnp.sqrt(v + eps) if eps_in_sqrt else jnp.sqrt(v) + eps, eps)


class scale_by_rms(Transformation, keeps_zero=True):
    """Divides by a running root mean square: `g / sqrt(v + eps)`, `v = decay*v + (1-decay)*|g|^2`.

    One unit of a learning rate after it moves each parameter by about 1 a step.

    Args:
      decay: decay of the averages, in [0, 1).
      eps: >= 0; in units of the gradient squared, or of the gradient if outside the root.
      initial_scale: `v` at the start, >= 0; in units of the gradient squared.
      eps_in_sqrt: whether `eps` is added inside the root; False adds it outside.
      bias_correction: whether to divide averages by `1 - decay^t`.

    State: `ScaleByRmsState(count int32, nu)`; 4 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_rms(bias_correction=True)
      >>> tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 1., -1.], dtype=float32)

    Source: Tieleman and Hinton 2012, lecture 6.5.

    **Differs:** Optax keeps the step count only with `bias_correction`.
    """

    decay: Decay = 0.9
    eps: NonNegative = 1e-8
    initial_scale: NonNegative = 0.0
    eps_in_sqrt: Flag = True
    bias_correction: Flag = False

    def init(self, params: Params) -> ScaleByRmsState:
        return ScaleByRmsState(zero_count(), real_full_like(params, self.initial_scale))

    def step(
        self, updates: Updates, state: ScaleByRmsState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByRmsState]:
        decay, t = self.decay, safe_increment(state.count)
        c = one_minus_power(decay, t) if self.bias_correction else 1.0

        @each_leaf
        def rule(g: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            v = running_mean(v, abs_sq(g), decay)
            return over_root(g, v / c, self.eps, self.eps_in_sqrt), v

        updates, nu = rule(updates, state.nu)
        return updates, ScaleByRmsState(t, nu)


class scale_by_stddev(Transformation, keeps_zero=True):
    """Divides by the running standard deviation: `g / sqrt(v - |m|^2 + eps)`.

    With `m = decay*m + (1-decay)*g` and `v = decay*v + (1-decay)*|g|^2`.

    Args:
      decay: decay of the averages, in [0, 1).
      eps: >= 0; in units of the gradient squared, or of the gradient if outside the root.
      initial_scale: `v` at the start, >= 0; in units of the gradient squared.
      eps_in_sqrt: whether `eps` is added inside the root; False adds it outside.
      bias_correction: whether to divide averages by `1 - decay^t`.

    State: `ScaleByRStdDevState(count int32, mu, nu)`; 8 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_stddev(decay=0.5)
      >>> tx.update(jnp.array([1.0, -2.0]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 2., -2.], dtype=float32)

    Source: Graves 2013, arXiv:1308.0850, equations 38 to 41.

    **Differs:** a variance that rounding makes negative counts as 0, where Optax gives NaN.
    """

    decay: Decay = 0.9
    eps: NonNegative = 1e-8
    initial_scale: NonNegative = 0.0
    eps_in_sqrt: Flag = True
    bias_correction: Flag = False

    def init(self, params: Params) -> ScaleByRStdDevState:
        return ScaleByRStdDevState(zero_count(), zeros_like(params), real_full_like(params, self.initial_scale))

    def step(
        self, updates: Updates, state: ScaleByRStdDevState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByRStdDevState]:
        decay, t = self.decay, safe_increment(state.count)
        c = one_minus_power(decay, t) if self.bias_correction else 1.0

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m, v = moments(g, m, v, decay, decay)
            variance = jnp.maximum(v / c - abs_sq(m / c), 0)  # rounding may take it below zero
            return over_root(g, variance, self.eps, self.eps_in_sqrt), m, v

        updates, mu, nu = rule(updates, state.mu, state.nu)
        return updates, ScaleByRStdDevState(t, mu, nu)


class rmsprop(Preset):
    """RMSProp: `-learning_rate * g / sqrt(v + eps)`, then momentum; see `scale_by_rms`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step.
      decay: decay of the averages, in [0, 1).
      eps: >= 0; in units of the gradient squared, or of the gradient if outside the root.
      initial_scale: `v` at the start, >= 0; in units of the gradient squared.
      eps_in_sqrt: whether `eps` is added inside the root; False adds it outside.
      centered: whether to divide by the standard deviation, as `scale_by_stddev`.
      momentum: decay of a `trace` of the steps themselves, in [0, 1) or a schedule; None is none.
      nesterov: whether to look one step ahead.
      bias_correction: whether to divide averages by `1 - decay^t`.

    State: `(ScaleByRmsState or ScaleByRStdDevState, ScaleByLearningRateState, TraceState or
      EmptyState)`; 4 bytes a parameter, 4 more if centered, 4 more with momentum.

    Example:
      >>> import gradtx
      >>> gradtx.rmsprop(1e-3, centered=True, momentum=0.9)
      rmsprop(learning_rate=0.001, centered=True, momentum=0.9)

    Source: Tieleman and Hinton 2012, lecture 6.5; Graves 2013, arXiv:1308.0850.
    """

    learning_rate: Rate
    decay: Decay = 0.9
    eps: NonNegative = 1e-8
    initial_scale: NonNegative = 0.0
    eps_in_sqrt: Flag = True
    centered: Flag = False
    momentum: DecayOrSchedule | None = None
    nesterov: Flag = False
    bias_correction: Flag = False

    def chain(self) -> Transformation:
        kernel = scale_by_stddev if self.centered else scale_by_rms
        return chain(
            kernel(self.decay, self.eps, self.initial_scale, self.eps_in_sqrt, self.bias_correction),
            scale_by_learning_rate(self.learning_rate),
            identity() if self.momentum is None else trace(self.momentum, self.nesterov),
        )
