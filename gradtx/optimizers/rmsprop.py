"""RMSProp: gradients over their running root mean square or standard deviation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.plain import identity
from gradtx.core.checks import Decay, DecayOrSchedule, Flag, NonNegative, Rate
from gradtx.core.leaves import map_leaves, real_full_like, zeros_like
from gradtx.core.numerics import abs_sq, guarded_ratio, one_minus_power, safe_increment, zero_count
from gradtx.core.transformation import Params, Preset, Transformation, Updates
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate


class ScaleByRmsState(NamedTuple):
    """Steps taken, and the second moment."""

    count: jax.Array
    nu: Any


class ScaleByRStdDevState(NamedTuple):
    """Steps taken, first moment, second moment."""

    count: jax.Array
    mu: Any
    nu: Any


def _over_root(g: jax.Array, v: jax.Array, eps: Any, eps_in_sqrt: bool) -> jax.Array:
    return guarded_ratio(g, jnp.sqrt(v + eps) if eps_in_sqrt else jnp.sqrt(v) + eps, eps)


def _rms(g: jax.Array, v: jax.Array, *, decay: Any, eps: Any, eps_in_sqrt: bool, correction: Any) -> tuple[jax.Array, jax.Array]:
    v = decay * v + (1 - decay) * abs_sq(g)
    return _over_root(g, v / correction, eps, eps_in_sqrt), v


def _stddev(
    g: jax.Array, m: jax.Array, v: jax.Array, *, decay: Any, eps: Any, eps_in_sqrt: bool, correction: Any
) -> tuple[jax.Array, ...]:
    m = decay * m + (1 - decay) * g
    v = decay * v + (1 - decay) * abs_sq(g)
    variance = jnp.maximum(v / correction - abs_sq(m / correction), 0)  # rounding may take it below zero
    return _over_root(g, variance, eps, eps_in_sqrt), m, v


class scale_by_rms(Transformation, keeps_zero=True):
    """Divides by the running root mean square: `g / sqrt(v + eps)`, `v = decay*v + (1-decay)*|g|^2`.

    Args:
      decay: in [0, 1).
      eps: >= 0; in units of the gradient squared, or of the gradient if outside the root.
      initial_scale: `v` at the start, >= 0.
      eps_in_sqrt: False gives `g / (sqrt(v) + eps)`.
      bias_correction: whether to divide `v` by `1 - decay^t`.

    State: `ScaleByRmsState(count int32, nu)`; 4 bytes a parameter.

    Returns:
      The transformation. One unit of a learning rate after it moves each parameter by about 1 a step.

    Raises:
      ValueError, TypeError: an argument outside its domain.

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
        self, updates: Updates, state: ScaleByRmsState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, ScaleByRmsState]:
        count = safe_increment(state.count)
        hypers = {"decay": self.decay, "eps": self.eps, "eps_in_sqrt": self.eps_in_sqrt}
        hypers["correction"] = one_minus_power(self.decay, count) if self.bias_correction else 1.0
        updates, nu = map_leaves(_rms, updates, state.nu, **hypers)
        return updates, ScaleByRmsState(count, nu)


class scale_by_stddev(Transformation, keeps_zero=True):
    """Divides by the running standard deviation: `g / sqrt(v - |m|^2 + eps)`, `m` and `v` averages of `g` and `|g|^2`.

    Args:
      decay: of both averages, in [0, 1).
      eps: >= 0; in units of the gradient squared, or of the gradient if outside the root.
      initial_scale: `v` at the start, >= 0.
      eps_in_sqrt: False gives `g / (sqrt(v - |m|^2) + eps)`.
      bias_correction: whether to divide `m` and `v` by `1 - decay^t`.

    State: `ScaleByRStdDevState(count int32, mu, nu)`; 8 bytes a parameter.

    Raises:
      ValueError, TypeError: an argument outside its domain.

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
        self, updates: Updates, state: ScaleByRStdDevState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, ScaleByRStdDevState]:
        count = safe_increment(state.count)
        hypers = {"decay": self.decay, "eps": self.eps, "eps_in_sqrt": self.eps_in_sqrt}
        hypers["correction"] = one_minus_power(self.decay, count) if self.bias_correction else 1.0
        updates, mu, nu = map_leaves(_stddev, updates, state.mu, state.nu, **hypers)
        return updates, ScaleByRStdDevState(count, mu, nu)


class rmsprop(Preset):
    """RMSProp: `-learning_rate * g / sqrt(v + eps)`, then momentum; see `scale_by_rms`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step.
      decay, eps, initial_scale, eps_in_sqrt, bias_correction: as in `scale_by_rms`.
      centered: whether to divide by the standard deviation, as `scale_by_stddev`.
      momentum: decay of a `trace` of the steps themselves, in [0, 1) or a schedule; None is none.
      nesterov: whether that momentum looks one step ahead.

    State: `(ScaleByRmsState or ScaleByRStdDevState, ScaleByLearningRateState, TraceState or EmptyState)`; 4 bytes a parameter,
      4 more if centered, 4 more with momentum.

    Raises:
      ValueError, TypeError: an argument outside its domain.

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

    def chain(self) -> Any:
        kernel = scale_by_stddev if self.centered else scale_by_rms
        return chain(
            kernel(self.decay, self.eps, self.initial_scale, self.eps_in_sqrt, self.bias_correction),
            scale_by_learning_rate(self.learning_rate),
            identity() if self.momentum is None else trace(self.momentum, self.nesterov),
        )
