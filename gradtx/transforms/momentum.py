"""Averages of updates over steps: heavy ball, Nesterov, exponential moving average."""

import functools
from dataclasses import KW_ONLY
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.domains import Decay, DecayOrSchedule, Flag, FloatDType, Function, scheduled_value
from gradtx.core.leaves import each_leaf, zeros_like
from gradtx.core.numerics import default_float, one_minus_power, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Leaf, Moment, Params, Tree, Updates


class TraceState(NamedTuple):
    """The accumulated updates, and, for a schedule, the steps taken."""

    trace: Moment
    count: jax.Array | None = None


class EmaState(NamedTuple):
    """Steps taken, the average before bias correction, and with a schedule its weight so far."""

    count: jax.Array
    ema: Moment
    weight: jax.Array | None = None


class trace(Transformation, keeps_zero=True):
    """Momentum: `m = g + decay * m`; gives `m`, or `g + decay * m` with `nesterov`.

    At constant gradients it grows to `1 / (1 - decay)` times the gradient. After it,
    `scale_by_learning_rate(eta)` gives the heavy ball `x -= eta * m`. The form
    `v = rho*v - alpha*g, x += v` has the rate inside:
    `chain(scale_by_learning_rate(alpha), trace(rho))`; the two agree at a constant rate only. The
    damped form `v = beta*v + (1-beta)*g` is `ema(beta, debias=False)`.

    Args:
      decay: number in [0, 1), or a schedule of the steps taken so far (annealed from 0.5 to 0.9,
        say).
      nesterov: whether to look one step ahead.
      accumulator_dtype: dtype in which `m` is stored; None is float32, or wider for wider
        parameters.

    State: `TraceState(trace, count int32)`, 4 bytes a parameter; the count with a schedule alone.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.trace(0.5)
      >>> state = tx.init(jnp.zeros(()))
      >>> for _ in range(3):
      ...     u, state = tx.update(jnp.array(1.0), state)
      >>> float(u)
      1.75

    Source: Polyak 1964; Nesterov in the form of Sutskever et al. 2013, in the shifted variable.

    **Differs:** Optax has no schedules here, and keeps the trace of half-precision parameters in
    half precision.
    """

    decay: DecayOrSchedule
    nesterov: Flag = False
    accumulator_dtype: FloatDType | None = None

    def init(self, params: Params) -> TraceState:
        return TraceState(zeros_like(params, self.accumulator_dtype), zero_count() if callable(self.decay) else None)

    def step(
        self, updates: Updates, state: TraceState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, TraceState]:
        decay = scheduled_value("decay", self.decay, state.count)

        @each_leaf
        def rule(g: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
            m = g + decay * m
            return g + decay * m if self.nesterov else m, m

        updates, m = rule(updates, state.trace)
        return updates, TraceState(m, None if state.count is None else safe_increment(state.count))


class ema(Transformation, keeps_zero=True):
    """Exponential moving average: `m = decay*m + (1-decay)*g`; gives `m / (1 - decay^t)`.

    It averages over about `1 / (1 - decay)` steps. Without `debias` it gives `m`: momentum in its
    damped form. With `nesterov` it looks one step ahead, as if `g` came again:
    `decay*m / (1 - decay^(t+1)) + (1-decay)*g / (1 - decay^t)`.

    Args:
      decay: number in [0, 1), or a schedule of the steps taken so far (annealed from 0.5 to 0.9,
        say).
      debias: whether to divide by `1 - decay^t`, the weight that `t` steps have gathered; with a
        schedule it is `1 - decay(0) * ... * decay(t-1)`.
      accumulator_dtype: dtype in which `m` is stored; None is float32, or wider for wider
        parameters.
      nesterov: whether to look one step ahead.

    State: `EmaState(count int32, ema, weight float32)`; 4 bytes a parameter; the weight with a
      schedule alone.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.ema(0.9)
      >>> u, state = tx.update(jnp.array(2.0), tx.init(jnp.zeros(())))
      >>> round(float(u), 4), round(float(state.ema), 4)
      (2.0, 0.2)

    Source: bias correction as in Kingma and Ba 2014, arXiv:1412.6980, section 3; nesterov: Dozat
    2016, "Incorporating Nesterov Momentum into Adam".

    **Differs:** Optax has no `nesterov` and no schedules here, and keeps the average of
    half-precision parameters in half precision.
    """

    decay: DecayOrSchedule
    debias: Flag = True
    accumulator_dtype: FloatDType | None = None
    _: KW_ONLY
    nesterov: Flag = False

    def init(self, params: Params) -> EmaState:
        weight = jnp.zeros((), default_float()) if callable(self.decay) else None
        return EmaState(zero_count(), zeros_like(params, self.accumulator_dtype), weight)

    def step(
        self, updates: Updates, state: EmaState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmaState]:
        decay: Any = self.decay
        if callable(decay):
            decay = scheduled_value("decay", decay, state.count)
        count, weight = safe_increment(state.count), state.weight
        if weight is None:
            c = one_minus_power(decay, count) if self.debias else 1.0
            c_next = one_minus_power(decay, safe_increment(count)) if self.debias and self.nesterov else c
        else:
            weight = (decay * weight + (1 - decay)).astype(weight.dtype)
            c, c_next = (weight, decay * weight + (1 - decay)) if self.debias else (1.0, 1.0)

        @each_leaf
        def rule(g: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
            m = decay * m + (1 - decay) * g
            return decay * m / c_next + (1 - decay) * g / c if self.nesterov else m / c, m

        updates, m = rule(updates, state.ema)
        return updates, EmaState(count, m, weight)


class measure_with_ema(Transformation, measuring=True, any_leaves=True):
    """An average of a measurement: `m = decay*m + (1-decay)*measure(u)`; gives `m / (1 - decay^t)`.

    For `monitor`, not for a chain. Without `debias` it gives `m`.

    Args:
      measure: function of the updates' tree; gives an array or a tree. Booleans and integers count
        as numbers.
      decay: in [0, 1); it averages over about `1 / (1 - decay)` steps.
      debias: whether to divide by `1 - decay^t`, the weight that `t` steps have gathered.
      accumulator_dtype: dtype in which `m` is stored; None is float32, or wider for wider
        measurements.

    State: `EmaState(count int32, ema)`; 4 bytes for each number that is measured.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> clipped = gradtx.measure_with_ema(lambda u: gradtx.global_norm(u) > 1.0, decay=0.5)
      >>> tx = gradtx.chain(gradtx.monitor({"clipped": clipped}), gradtx.clip_by_global_norm(1.0))
      >>> state = tx.init(jnp.zeros(()))
      >>> for norm in (2.0, 0.5):
      ...     _, state = tx.update(jnp.array(norm), state)
      >>> round(float(gradtx.metrics(state)["clipped"]), 4)  # 0.25 / (1 - 0.5^2)
      0.3333
    """

    measure: Function
    decay: Decay
    debias: Flag = True
    accumulator_dtype: FloatDType | None = None

    @functools.cached_property
    def average(self) -> ema:
        """The average of the measurements."""
        return ema(self.decay, self.debias, self.accumulator_dtype)

    def measured(self, updates: Updates) -> Tree:
        """The measurement as a tree of floating arrays."""

        def number(x: Leaf) -> jax.Array:
            x = jnp.asarray(x)
            return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(default_float())

        return jax.tree.map(number, self.measure(updates))

    def init(self, params: Params) -> EmaState:
        return self.average.init(self.measured(params))

    def step(
        self, updates: Updates, state: EmaState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Tree, EmaState]:
        return self.average.step(self.measured(updates), state)
