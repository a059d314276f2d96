"""Schedules that hold or fall: constant, linear, polynomial, exponential, by steps, inverse root, cosine."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.checks import Flag, NonNegative, Number, Positive, Schedule
from gradtx.core.values import factory
from gradtx.schedules.curves import (
    Natural,
    Whole,
    as_count,
    bend,
    blend,
    cosine,
    hold,
    linear,
    log,
    real,
    since,
    through,
    warm_up,
)


@factory()
def constant_schedule(value: Number) -> Schedule:
    """The same value at every step: `value`.

    Args:
      value: any finite number.

    Returns: the schedule; `value` at step 0 and at the end.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> gradtx.constant_schedule(0.5)(7)
      Array(0.5, dtype=float32)
    """
    return lambda count: hold(as_count(count), value)


@factory()
def linear_schedule(init_value: Number, end_value: Number, transition_steps: Natural, transition_begin: Whole = 0) -> Schedule:
    """A straight line: `init_value + (end_value - init_value) * t/transition_steps`; to 0 it is `eta0 * (1 - t/T)`.

    Args:
      init_value, end_value: finite numbers.
      transition_steps: steps on the way, >= 1.
      transition_begin: steps before at `init_value`, >= 0.

    Returns: the schedule; `init_value` at step 0, `end_value` from step `transition_begin + transition_steps` on.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.linear_schedule(1.0, 0.0, transition_steps=10), (0, 5, 10, 99))]
      [1.0, 0.5, 0.0, 0.0]

    **Differs:** with 0 `transition_steps` Optax stays at `init_value`.
    """
    return lambda count: blend(init_value, end_value, *linear(as_count(count), transition_begin, transition_steps))


@factory()
def polynomial_schedule(
    init_value: Number, end_value: Number, power: Positive, transition_steps: Natural, transition_begin: Whole = 0
) -> Schedule:
    """A power of what is left: `end_value + (init_value - end_value) * (1 - t/transition_steps)^power`.

    Args:
      init_value, end_value, transition_steps, transition_begin: as in `linear_schedule`.
      power: > 0.

    Returns: the schedule; `init_value` at step 0, `end_value` from step `transition_begin + transition_steps` on.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.polynomial_schedule(1.0, 0.0, power=2, transition_steps=10), (0, 5, 10))]
      [1.0, 0.25, 0.0]

    **Differs:** with 0 `transition_steps` or `power` 0 Optax stays at `init_value`.
    """
    return lambda count: bend(init_value, end_value, linear(as_count(count), transition_begin, transition_steps)[0], power)


@factory()
def exponential_decay(
    init_value: Number,
    transition_steps: Natural,
    decay_rate: Positive,
    transition_begin: Whole = 0,
    staircase: Flag = False,
    end_value: Number | None = None,
) -> Schedule:
    """A factor every so many steps: `init_value * decay_rate^(t/transition_steps)`.

    Args:
      init_value: finite number.
      transition_steps: steps for each factor, >= 1.
      decay_rate: the factor, > 0; above 1 the value grows.
      transition_begin: steps before at `init_value`, >= 0.
      staircase: whether `t/transition_steps` is rounded down.
      end_value: bound of the value, from below for `decay_rate` < 1, else from above; None is no bound.

    Returns: the schedule; `init_value` at step 0, in the end `end_value`, or 0 for a `decay_rate` < 1.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.exponential_decay(1.0, 10, decay_rate=0.5, end_value=0.2), (0, 5, 10, 20, 30))]
      [1.0, 0.707, 0.5, 0.25, 0.2]

    **Differs:** with 0 `transition_steps` or `decay_rate` 0 Optax stays at `init_value`.
    """

    def schedule(count: Any) -> jax.Array:
        t, log_rate = since(as_count(count), transition_begin), log(decay_rate)
        transitions = real(t // int(transition_steps)) if staircase else real(t) / transition_steps
        value = real(init_value) * jnp.exp(log_rate * transitions)
        if end_value is None:
            return value
        return jnp.where(log_rate < 0, jnp.maximum(value, real(end_value)), jnp.minimum(value, real(end_value)))

    return schedule


@factory()
def natural_exponential_decay(init_value: Number, decay_rate: NonNegative) -> Schedule:
    """Exponential decay by a rate: `init_value * exp(-decay_rate * t)`.

    Args:
      init_value: finite number.
      decay_rate: `k` per step, >= 0; a `k` per epoch is divided by the steps per epoch.

    Returns: the schedule; `init_value` at step 0, 0 in the end.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.natural_exponential_decay(1.0, 0.1), (0, 10, 20))]
      [1.0, 0.368, 0.135]
    """
    return lambda count: real(init_value) * jnp.exp(-real(decay_rate) * real(as_count(count)))


@factory()
def step_decay_schedule(init_value: Number, step_size: Natural, decay_rate: Positive = 0.1) -> Schedule:
    """A factor at every `step_size`-th step: `init_value * decay_rate^floor(t/step_size)`.

    Args:
      init_value: finite number.
      step_size: steps between factors, >= 1; for every 30 epochs `30 * steps_per_epoch`.
      decay_rate: the factor, > 0.

    Returns: the schedule; `init_value` at step 0, 0 in the end for a `decay_rate` < 1.
      For a list of milestones see `piecewise_constant_schedule`.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.step_decay_schedule(1.0, step_size=30), (0, 29, 30, 60))]
      [1.0, 1.0, 0.1, 0.01]
    """
    return lambda count: real(init_value) * jnp.exp(log(decay_rate) * real(as_count(count) // int(step_size)))


@factory()
def inverse_sqrt_schedule(peak_value: Number, warmup_steps: Whole = 0, init_value: Number = 0.0) -> Schedule:
    """Linear warm-up, then the inverse root of the step: `peak_value * sqrt((warmup_steps + 1) / (t + 1))`.

    Args:
      peak_value: finite number.
      warmup_steps: steps from `init_value` to `peak_value`, >= 0; without, the k-th step has `peak_value / sqrt(k)`.
      init_value: finite number.

    Returns: the schedule; `init_value` at step 0 (`peak_value` without warm-up), 0 in the end.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.inverse_sqrt_schedule(1.0, warmup_steps=24), (0, 12, 24, 99))]
      [0.0, 0.5, 1.0, 0.5]

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 5.3, with the peak as an argument and `t + 1` for the root's step.
    """

    def schedule(count: Any) -> jax.Array:
        t = as_count(count)
        after = real(peak_value) * jnp.sqrt((warmup_steps + 1.0) / (real(t) + 1))
        return warm_up(t, init_value, peak_value, warmup_steps, after)

    return schedule


@factory()
def cosine_decay_schedule(init_value: Number, decay_steps: Natural, alpha: Number = 0.0, exponent: Positive = 1.0) -> Schedule:
    """Half a cosine: `init_value * (alpha + (1 - alpha) * ((1 + cos(pi * t/decay_steps)) / 2)^exponent)`.

    Args:
      init_value: finite number.
      decay_steps: steps on the way, >= 1.
      alpha: the last value as a part of `init_value`; `cosine_annealing_schedule` takes the value itself.
      exponent: > 0.

    Returns: the schedule; `init_value` at step 0, `alpha * init_value` from step `decay_steps` on.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.cosine_decay_schedule(1.0, decay_steps=10, alpha=0.1), (0, 5, 10, 99))]
      [1.0, 0.55, 0.1, 0.1]

    Source: Loshchilov and Hutter 2016, arXiv:1608.03983, equation 5.
    """
    return lambda count: bend(init_value, alpha * real(init_value), cosine(as_count(count), 0, decay_steps)[0], exponent)


@factory()
def cosine_annealing_schedule(init_value: Number, decay_steps: Natural, end_value: Number = 0.0) -> Schedule:
    """Half a cosine to a floor: `end_value + (init_value - end_value) * (1 + cos(pi * t/decay_steps)) / 2`.

    Args:
      init_value, end_value: finite numbers.
      decay_steps: steps on the way, >= 1.

    Returns: the schedule; `init_value` at step 0, `end_value` from step `decay_steps` on.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.cosine_annealing_schedule(0.3, decay_steps=10, end_value=0.1), (0, 5, 10, 99))]
      [0.3, 0.2, 0.1, 0.1]

    Source: Loshchilov and Hutter 2016, arXiv:1608.03983, equation 5. PyTorch's rises again after the end.
    """
    return lambda count: through(as_count(count), "cosine", (0, decay_steps), (init_value, end_value))
