"""A cool-down at the end of any schedule."""

import jax
from jax.typing import ArrayLike

from gradtx.core.domains import Fraction, Positive, Rate, call_schedule
from gradtx.core.value import Value
from gradtx.schedules.curves import Natural, Whole, as_count, linear, real


class cooldown_schedule(Value):
    """Any schedule, with a fall at its end: `schedule(t) * (1 - (1 - end_scale) * s^power)`.

    Here `s` goes from 0 at step `begin` to 1 at step `begin + steps`, and stays there. With the
    default power it is the "1-sqrt" form, which falls fast at first; 1 is a line. Training may go
    on at a constant rate, and a cool-down branch off wherever a result is wanted.

    Args:
      schedule: a number >= 0, or a schedule.
      begin: the step at which the cool-down begins, >= 0.
      steps: its length, >= 1; a fifth of the training is usual.
      power: > 0.
      end_scale: what is left at the end, in [0, 1].

    Example:
      >>> import gradtx
      >>> schedule = gradtx.cooldown_schedule(1.0, begin=100, steps=100)
      >>> [round(float(v), 3) for v in map(schedule, (0, 100, 125, 200))]
      [1.0, 1.0, 0.5, 0.0]

    Source: Haegele et al. 2024, arXiv:2405.18392, equation 1.
    """

    schedule: Rate
    begin: Whole
    steps: Natural
    power: Positive = 0.5
    end_scale: Fraction = 0.0

    def __call__(self, count: ArrayLike) -> jax.Array:
        _, done = linear(as_count(count), self.begin, self.steps)
        value = call_schedule("schedule", self.schedule, count) if callable(self.schedule) else self.schedule
        return real(value) * (1 - (1 - real(self.end_scale)) * done ** real(self.power))
