"""Schedules that hold or fall: constant, linear, power, exponential, inverse root, cosine."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.domains import Flag, NonNegative, Number, Positive
from gradtx.core.value import Value
from gradtx.schedules.curves import (
    Natural,
    PresetSchedule,
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
    warm_up,
)


class constant_schedule(Value):
    """The same value at every step: `value`.

    Args:
      value: any finite number.

    Example:
      >>> import gradtx
      >>> gradtx.constant_schedule(0.5)(7)
      Array(0.5, dtype=float32)
    """

    value: Number

    def __call__(self, count: ArrayLike) -> jax.Array:
        return hold(as_count(count), self.value)


class linear_schedule(Value):
    """A straight line: `init_value + (end_value - init_value) * t/transition_steps`.

    To 0 it is `eta0 * (1 - t/T)`. It stays at `end_value` from step
    `transition_begin + transition_steps` on.

    Args:
      init_value, end_value: finite numbers.
      transition_steps: steps on the way, >= 1.
      transition_begin: steps before at `init_value`, >= 0.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.linear_schedule(1.0, 0.0, transition_steps=10)
      >>> [round(float(v), 3) for v in map(schedule, (0, 5, 10, 99))]
      [1.0, 0.5, 0.0, 0.0]

    **Differs:** with 0 `transition_steps` Optax stays at `init_value`.
    """

    init_value: Number
    end_value: Number
    transition_steps: Natural
    transition_begin: Whole = 0

    def __call__(self, count: ArrayLike) -> jax.Array:
        left, done = linear(as_count(count), self.transition_begin, self.transition_steps)
        return blend(self.init_value, self.end_value, left, done)


class polynomial_schedule(Value):
    """A power: `end_value + (init_value - end_value) * (1 - t/transition_steps)^power`.

    It stays at `end_value` from step `transition_begin + transition_steps` on.

    Args:
      init_value, end_value: finite numbers.
      power: > 0; 1 is a straight line.
      transition_steps: steps on the way, >= 1.
      transition_begin: steps before at `init_value`, >= 0.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.polynomial_schedule(1.0, 0.0, power=2, transition_steps=10)
      >>> [round(float(v), 3) for v in map(schedule, (0, 5, 10))]
      [1.0, 0.25, 0.0]

    **Differs:** with 0 `transition_steps` or `power` 0 Optax stays at `init_value`.
    """

    init_value: Number
    end_value: Number
    power: Positive
    transition_steps: Natural
    transition_begin: Whole = 0

    def __call__(self, count: ArrayLike) -> jax.Array:
        left, _ = linear(as_count(count), self.transition_begin, self.transition_steps)
        return bend(self.init_value, self.end_value, left, self.power)


class exponential_decay(Value):
    """A factor every so many steps: `init_value * decay_rate^(t/transition_steps)`.

    It ends at `end_value`; without one, at 0 if `decay_rate` < 1.

    Args:
      init_value: finite number.
      transition_steps: steps for each factor, >= 1.
      decay_rate: the factor, > 0; above 1 the value grows.
      transition_begin: steps before at `init_value`, >= 0.
      staircase: whether `t/transition_steps` is rounded down.
      end_value: bound of the value, from below for `decay_rate` < 1, else from above; None is no
        bound.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.exponential_decay(1.0, 10, decay_rate=0.5, end_value=0.2)
      >>> [round(float(v), 3) for v in map(schedule, (0, 5, 10, 20, 30))]
      [1.0, 0.707, 0.5, 0.25, 0.2]

    **Differs:** with 0 `transition_steps` or `decay_rate` 0 Optax stays at `init_value`.
    """

    init_value: Number
    transition_steps: Natural
    decay_rate: Positive
    transition_begin: Whole = 0
    staircase: Flag = False
    end_value: Number | None = None

    def __call__(self, count: ArrayLike) -> jax.Array:
        t, log_rate = since(as_count(count), self.transition_begin), log(self.decay_rate)
        transitions = real(t // int(self.transition_steps)) if self.staircase else real(t) / self.transition_steps
        value = real(self.init_value) * jnp.exp(log_rate * transitions)
        if self.end_value is None:
            return value
        bound = real(self.end_value)
        return jnp.where(log_rate < 0, jnp.maximum(value, bound), jnp.minimum(value, bound))


class natural_exponential_decay(Value):
    """Exponential decay by a rate: `init_value * exp(-decay_rate * t)`; 0 in the end.

    Args:
      init_value: finite number.
      decay_rate: `k` per step, >= 0; a `k` per epoch is divided by the steps per epoch.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.natural_exponential_decay(1.0, 0.1)
      >>> [round(float(v), 3) for v in map(schedule, (0, 10, 20))]
      [1.0, 0.368, 0.135]
    """

    init_value: Number
    decay_rate: NonNegative

    def __call__(self, count: ArrayLike) -> jax.Array:
        return real(self.init_value) * jnp.exp(-real(self.decay_rate) * real(as_count(count)))


class step_decay_schedule(PresetSchedule):
    """A factor at every `step_size`-th step: `init_value * decay_rate^floor(t/step_size)`.

    For a list of milestones see `piecewise_constant_schedule`.

    Args:
      init_value: finite number.
      step_size: steps between factors, >= 1; for every 30 epochs `30 * steps_per_epoch`.
      decay_rate: the factor, > 0.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.step_decay_schedule(1.0, step_size=30)
      >>> [round(float(v), 3) for v in map(schedule, (0, 29, 30, 60))]
      [1.0, 1.0, 0.1, 0.01]
    """

    init_value: Number
    step_size: Natural
    decay_rate: Positive = 0.1

    def schedule(self) -> exponential_decay:
        return exponential_decay(self.init_value, self.step_size, self.decay_rate, staircase=True)


class inverse_sqrt_schedule(Value):
    """Linear warm-up, then an inverse root: `peak_value * sqrt((warmup_steps + 1) / (t + 1))`.

    It begins at `init_value`, or at `peak_value` without warm-up, and is 0 in the end.

    Args:
      peak_value: finite number.
      warmup_steps: steps from `init_value` to `peak_value`, >= 0; with 0 the k-th step has
        `peak_value / sqrt(k)`.
      init_value: finite number.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.inverse_sqrt_schedule(1.0, warmup_steps=24)
      >>> [round(float(v), 3) for v in map(schedule, (0, 12, 24, 99))]
      [0.0, 0.5, 1.0, 0.5]

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 5.3, with the peak as an argument and
    `t + 1` for the root's step.
    """

    peak_value: Number
    warmup_steps: Whole = 0
    init_value: Number = 0.0

    def __call__(self, count: ArrayLike) -> jax.Array:
        t = as_count(count)
        after = real(self.peak_value) * jnp.sqrt((self.warmup_steps + 1.0) / (real(t) + 1))
        return warm_up(t, self.init_value, self.peak_value, self.warmup_steps, after)


class inverse_power_schedule(Value):
    """A power of the step: `init_value / (t + 1)^power`: `init_value / k^power` in the k-th step.

    With a power in (1/2, 1] the sum of all values is infinite and that of their squares is not, as
    stochastic gradient descent wants it.

    Args:
      init_value: finite number.
      power: > 0.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.inverse_power_schedule(1.0, power=1.0)
      >>> [round(float(v), 3) for v in map(schedule, (0, 1, 3, 99))]
      [1.0, 0.5, 0.25, 0.01]

    Source: Robbins and Monro 1951.
    """

    init_value: Number
    power: Positive = 1.0

    def __call__(self, count: ArrayLike) -> jax.Array:
        return real(self.init_value) * (real(as_count(count)) + 1) ** -real(self.power)


class cosine_decay_schedule(Value):
    """Half a cosine: `init_value * (alpha + (1 - alpha) * c^exponent)`.

    Here `c = (1 + cos(pi * t/decay_steps)) / 2`. It stays at `alpha * init_value` from step
    `decay_steps` on.

    Args:
      init_value: finite number.
      decay_steps: steps on the way, >= 1.
      alpha: the last value as a part of `init_value`; `cosine_annealing_schedule` takes the value
        itself.
      exponent: > 0.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.cosine_decay_schedule(1.0, decay_steps=10, alpha=0.1)
      >>> [round(float(v), 3) for v in map(schedule, (0, 5, 10, 99))]
      [1.0, 0.55, 0.1, 0.1]

    Source: Loshchilov and Hutter 2016, arXiv:1608.03983, equation 5.
    """

    init_value: Number
    decay_steps: Natural
    alpha: Number = 0.0
    exponent: Positive = 1.0

    def __call__(self, count: ArrayLike) -> jax.Array:
        left, _ = cosine(as_count(count), 0, self.decay_steps)
        return bend(self.init_value, self.alpha * real(self.init_value), left, self.exponent)


class cosine_annealing_schedule(Value):
    """Half a cosine to a floor: `end_value + (init_value - end_value) * c`.

    Here `c = (1 + cos(pi * t/decay_steps)) / 2`. It stays at `end_value` from step `decay_steps`
    on, where PyTorch's rises again.

    Args:
      init_value, end_value: finite numbers.
      decay_steps: steps on the way, >= 1.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.cosine_annealing_schedule(0.3, decay_steps=10, end_value=0.1)
      >>> [round(float(v), 3) for v in map(schedule, (0, 5, 10, 99))]
      [0.3, 0.2, 0.1, 0.1]

    Source: Loshchilov and Hutter 2016, arXiv:1608.03983, equation 5.
    """

    init_value: Number
    decay_steps: Natural
    end_value: Number = 0.0

    def __call__(self, count: ArrayLike) -> jax.Array:
        left, done = cosine(as_count(count), 0, self.decay_steps)
        return blend(self.init_value, self.end_value, left, done)
