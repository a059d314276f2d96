"""Averages of updates over steps: heavy ball, Nesterov, exponential moving average."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.base import GradientTransformation
from gradtx.core.checks import Decay, DecayOrSchedule, Flag, FloatDType, Function, scheduled_value
from gradtx.core.leaves import map_leaves, zeros_like
from gradtx.core.numerics import default_float, one_minus_power, safe_increment, zero_count
from gradtx.core.values import factory


class TraceState(NamedTuple):
    """The accumulated updates."""

    trace: Any


class ScheduledTraceState(NamedTuple):
    """Steps taken, and the accumulated updates."""

    count: jax.Array
    trace: Any


class EmaState(NamedTuple):
    """Steps taken, and the average before bias correction."""

    count: jax.Array
    ema: Any


def _heavy_ball(g: jax.Array, m: jax.Array, *, decay: Any) -> tuple[jax.Array, jax.Array]:
    m = g + decay * m
    return m, m


def _nesterov(g: jax.Array, m: jax.Array, *, decay: Any) -> tuple[jax.Array, jax.Array]:
    m = g + decay * m
    return g + decay * m, m


@factory(keeps_zero=True)
def trace(decay: DecayOrSchedule, nesterov: Flag = False, accumulator_dtype: FloatDType | None = None) -> GradientTransformation:
    """Momentum: `m = g + decay * m`; gives `m`, or `g + decay * m` with `nesterov`.

    After it, `scale_by_learning_rate(eta)` gives the heavy ball `x -= eta * m`. The form `v = rho*v - alpha*g, x += v` has the
    rate inside: `chain(scale_by_learning_rate(alpha), trace(rho))`; the two agree at a constant rate only. The damped form
    `v = beta*v + (1-beta)*g` is `ema(beta, debias=False)`.

    Args:
      decay: number in [0, 1), or a schedule of the steps taken so far (annealed from 0.5 to 0.9, say).
      nesterov: whether to look one step ahead.
      accumulator_dtype: dtype in which `m` is stored; None is float32, or wider for wider parameters.

    State: `TraceState(trace)`, 4 bytes a parameter; with a schedule `ScheduledTraceState(count int32, trace)`.

    Returns:
      The transformation. At constant gradients its output grows to `1 / (1 - decay)` times the gradient.

    Raises:
      ValueError, TypeError: an argument outside its domain.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.trace(0.5)
      >>> state = tx.init(jnp.zeros(()))
      >>> for _ in range(3):
      ...     u, state = tx.update(jnp.array(1.0), state)
      >>> float(u)
      1.75

    Source: Polyak 1964; Nesterov in the form of Sutskever et al. 2013, in the shifted variable.

    **Differs:** Optax has no schedules here, and keeps the trace of half-precision parameters in half precision.
    """
    rule = _nesterov if nesterov else _heavy_ball

    def init(params: Any) -> TraceState | ScheduledTraceState:
        m = zeros_like(params, accumulator_dtype)
        return ScheduledTraceState(zero_count(), m) if callable(decay) else TraceState(m)

    def update(updates: Any, state: TraceState, params: Any = None, **extra_args: Any) -> tuple[Any, TraceState]:
        updates, m = map_leaves(rule, updates, state.trace, decay=decay)
        return updates, TraceState(m)

    def scheduled(
        updates: Any, state: ScheduledTraceState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, ScheduledTraceState]:
        assert callable(decay)
        updates, m = map_leaves(rule, updates, state.trace, decay=scheduled_value("decay", decay, state.count))
        return updates, ScheduledTraceState(safe_increment(state.count), m)

    return GradientTransformation(init, scheduled if callable(decay) else update)


def _ema(g: jax.Array, m: jax.Array, *, decay: Any, correction: Any) -> tuple[jax.Array, jax.Array]:
    m = decay * m + (1 - decay) * g
    return m / correction, m


@factory(keeps_zero=True)
def ema(decay: Decay, debias: Flag = True, accumulator_dtype: FloatDType | None = None) -> GradientTransformation:
    """Exponential moving average: `m = decay * m + (1 - decay) * g`; gives `m / (1 - decay^t)`, or `m` without `debias`.

    It averages over about `1 / (1 - decay)` steps. Without `debias` it is the notes' third form of momentum.

    Args:
      decay: in [0, 1).
      debias: whether to divide by `1 - decay^t`, the weight that `t` steps have gathered.
      accumulator_dtype: dtype in which `m` is stored; None is float32, or wider for wider parameters.

    State: `EmaState(count int32, ema)`; 4 bytes a parameter.

    Returns:
      The transformation.

    Raises:
      ValueError, TypeError: an argument outside its domain.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.ema(0.9)
      >>> u, state = tx.update(jnp.array(2.0), tx.init(jnp.zeros(())))
      >>> round(float(u), 4), round(float(state.ema), 4)
      (2.0, 0.2)

    Source: bias correction as in Kingma and Ba 2014, arXiv:1412.6980, section 3.

    **Differs:** Optax keeps the average of half-precision parameters in half precision.
    """

    def init(params: Any) -> EmaState:
        return EmaState(zero_count(), zeros_like(params, accumulator_dtype))

    def update(updates: Any, state: EmaState, params: Any = None, **extra_args: Any) -> tuple[Any, EmaState]:
        count = safe_increment(state.count)
        correction = one_minus_power(decay, count) if debias else 1.0
        updates, m = map_leaves(_ema, updates, state.ema, decay=decay, correction=correction)
        return updates, EmaState(count, m)

    return GradientTransformation(init, update)


@factory(composite=True, measuring=True)
def measure_with_ema(
    measure: Function, decay: Decay, debias: Flag = True, accumulator_dtype: FloatDType | None = None
) -> GradientTransformation:
    """An average of a measurement, for `monitor`: `m = decay * m + (1 - decay) * f(u)`, as `ema` gives it.

    Args:
      measure: function of the updates' tree; gives an array or a tree. Booleans and integers count as numbers.
      decay, debias, accumulator_dtype: as in `ema`.

    State: `EmaState(count int32, ema)`; 4 bytes for each number that is measured.

    Returns:
      A transformation whose output is the average, in the place of the updates: for `monitor`, not for a chain.

    Raises:
      ValueError, TypeError: an argument outside its domain.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> clipped = gradtx.measure_with_ema(lambda u: gradtx.global_norm(u) > 1.0, decay=0.5)
      >>> tx = gradtx.chain(gradtx.monitor({"clipped": clipped}), gradtx.clip_by_global_norm(1.0))
      >>> state = tx.init(jnp.zeros(()))
      >>> for norm in (2.0, 0.5):
      ...     _, state = tx.update(jnp.array(norm), state)
      >>> round(float(gradtx.metrics(state)["clipped"]), 4)  # 0.25 of the 0.75 that two steps have gathered
      0.3333
    """
    average: Any = ema(decay, debias, accumulator_dtype)

    def measured(updates: Any) -> Any:
        def number(x: Any) -> jax.Array:
            x = jnp.asarray(x)
            return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(default_float())

        return jax.tree.map(number, measure(updates))

    def init(params: Any) -> EmaState:
        return average.init(measured(params))

    def update(updates: Any, state: EmaState, params: Any = None, **extra_args: Any) -> tuple[Any, EmaState]:
        return average.update(measured(updates), state)

    return GradientTransformation(init, update)
