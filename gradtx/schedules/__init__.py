"""Schedules: functions of the step count `t` that give a learning rate, or another number.

`t` is the number of steps taken before, 0 at the first: integers or floats, one or an array, traced
or not. The value has its shape and is float32 (float64 where `jax_enable_x64` is set). Steps are
counted exactly, up to `2**31 - 1`; a count outside 0 to that is taken as the nearest. Everything is
per step: what is planned in epochs is multiplied by the steps per epoch
(`decay_steps=90 * steps_per_epoch`).
"""

from gradtx.schedules.cooldown import cooldown_schedule
from gradtx.schedules.decay import (
    constant_schedule,
    cosine_annealing_schedule,
    cosine_decay_schedule,
    exponential_decay,
    inverse_power_schedule,
    inverse_sqrt_schedule,
    linear_schedule,
    natural_exponential_decay,
    polynomial_schedule,
    step_decay_schedule,
)
from gradtx.schedules.piecewise import join_schedules, piecewise_constant_schedule, piecewise_interpolate_schedule
from gradtx.schedules.warmup import (
    cosine_onecycle_schedule,
    linear_onecycle_schedule,
    sgdr_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
    warmup_stable_decay_schedule,
)

__all__ = [
    "constant_schedule",
    "cooldown_schedule",
    "cosine_annealing_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "exponential_decay",
    "inverse_power_schedule",
    "inverse_sqrt_schedule",
    "join_schedules",
    "linear_onecycle_schedule",
    "linear_schedule",
    "natural_exponential_decay",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "sgdr_schedule",
    "step_decay_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "warmup_stable_decay_schedule",
]
