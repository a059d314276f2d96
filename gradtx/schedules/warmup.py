"""Schedules that rise first: warm-ups, restarts, one cycle."""

import functools
import itertools
from collections.abc import Mapping, Sequence

import jax
from jax.typing import ArrayLike

from gradtx.core import checks, domains
from gradtx.core.domains import Flag, Number, Positive
from gradtx.core.value import Value
from gradtx.schedules.curves import (
    NATURAL,
    Natural,
    PresetSchedule,
    Share,
    Whole,
    as_count,
    bend,
    cosine,
    is_list,
    real,
    through,
    warm_up,
)
from gradtx.schedules.decay import exponential_decay
from gradtx.schedules.piecewise import join_schedules


class warmup_constant_schedule(Value):
    """Linear warm-up: `init_value + (peak_value - init_value) * min(t/warmup_steps, 1)`.

    It stays at `peak_value` from step `warmup_steps` on; without warm-up it begins there.

    Args:
      init_value, peak_value: finite numbers.
      warmup_steps: steps on the way, >= 0.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.warmup_constant_schedule(0.0, 1.0, warmup_steps=10)
      >>> [round(float(v), 3) for v in map(schedule, (0, 5, 10, 99))]
      [0.0, 0.5, 1.0, 1.0]

    **Differs:** with 0 `warmup_steps` Optax stays at `init_value`.
    """

    init_value: Number
    peak_value: Number
    warmup_steps: Whole

    def __call__(self, count: ArrayLike) -> jax.Array:
        return through(as_count(count), "linear", (0, self.warmup_steps), (self.init_value, self.peak_value))


class warmup_cosine_decay_schedule(Value):
    """Linear warm-up, then half a cosine (to a power) from `peak_value` to `end_value`.

    It stays at `end_value` from step `decay_steps` on; without warm-up it begins at `peak_value`.

    Args:
      init_value, peak_value: finite numbers.
      warmup_steps: steps from `init_value` to `peak_value`, >= 0.
      decay_steps: steps of the whole, warm-up *included*; > `warmup_steps`.
      end_value: finite number.
      exponent: > 0, as in `cosine_decay_schedule`.

    Raises:
      ValueError: `decay_steps <= warmup_steps`.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, decay_steps=30)
      >>> [round(float(v), 3) for v in map(schedule, (0, 5, 10, 20, 30))]
      [0.0, 0.5, 1.0, 0.5, 0.0]

    **Differs:** where `peak_value` is 0 Optax ignores `end_value`.
    """

    init_value: Number
    peak_value: Number
    warmup_steps: Whole
    decay_steps: Natural
    end_value: Number = 0.0
    exponent: Positive = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay_steps <= self.warmup_steps:
            raise ValueError(
                f"warmup_cosine_decay_schedule: decay_steps is {self.decay_steps}, "
                f"expected more than warmup_steps ({self.warmup_steps}). "
                "decay_steps is the length of the whole, warm-up included."
            )

    def __call__(self, count: ArrayLike) -> jax.Array:
        t = as_count(count)
        left, _ = cosine(t, self.warmup_steps, int(self.decay_steps) - int(self.warmup_steps))
        after = bend(self.peak_value, self.end_value, left, self.exponent)
        return warm_up(t, self.init_value, self.peak_value, self.warmup_steps, after)


class warmup_exponential_decay_schedule(PresetSchedule):
    """Linear warm-up, then `exponential_decay` from `peak_value`.

    Without warm-up it begins at `peak_value`. It ends at `end_value`; without one, at 0 if
    `decay_rate` < 1.

    Args:
      init_value, peak_value: finite numbers.
      warmup_steps: steps from `init_value` to `peak_value`, >= 0.
      transition_steps: steps for each factor, >= 1.
      decay_rate: the factor, > 0; above 1 the value grows.
      transition_begin: steps at `peak_value` between warm-up and decay, >= 0.
      staircase: whether the value falls in steps, by the whole factor.
      end_value: bound of the decay, from below for `decay_rate` < 1, else from above; None is no
        bound.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.warmup_exponential_decay_schedule(0.0, 1.0, 10, 20, 0.5)
      >>> [round(float(v), 3) for v in map(schedule, (0, 5, 10, 30, 50))]
      [0.0, 0.5, 1.0, 0.5, 0.25]
    """

    init_value: Number
    peak_value: Number
    warmup_steps: Whole
    transition_steps: Natural
    decay_rate: Positive
    transition_begin: Whole = 0
    staircase: Flag = False
    end_value: Number | None = None

    def schedule(self) -> join_schedules:
        warm = warmup_constant_schedule(self.init_value, self.peak_value, self.warmup_steps)
        decay = exponential_decay(
            self.peak_value, self.transition_steps, self.decay_rate, self.transition_begin, self.staircase, self.end_value
        )
        return join_schedules([warm, decay], [self.warmup_steps])


class warmup_stable_decay_schedule(Value):
    """Linear warm-up, a plateau, linear decay: a trapezoid.

    Its corners are `init_value`, `peak_value`, `peak_value` and `end_value`. It stays at
    `end_value` from the sum of the steps on; without warm-up it begins at `peak_value`.

    Args:
      init_value, peak_value, end_value: finite numbers.
      warmup_steps, stable_steps: steps from `init_value` to `peak_value` and steps at `peak_value`,
        >= 0.
      decay_steps: steps from `peak_value` to `end_value`, >= 1; the steps before are *not*
        included.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.warmup_stable_decay_schedule(0.0, 1.0, 10, 70, 20)
      >>> [round(float(v), 3) for v in map(schedule, (0, 5, 10, 80, 90, 100))]
      [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]

    Source: Hu et al. 2024, arXiv:2404.06395, section 4, whose decay is exponential.
    """

    init_value: Number
    peak_value: Number
    warmup_steps: Whole
    stable_steps: Whole
    decay_steps: Natural
    end_value: Number = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        domains.check_argument("warmup_stable_decay_schedule", "the sum of all steps", self.steps[-1], NATURAL)

    @functools.cached_property
    def steps(self) -> tuple[int, ...]:
        """The steps at the corners."""
        return tuple(itertools.accumulate(map(int, (0, self.warmup_steps, self.stable_steps, self.decay_steps))))

    def __call__(self, count: ArrayLike) -> jax.Array:
        return through(as_count(count), "linear", self.steps, (self.init_value, self.peak_value, self.peak_value, self.end_value))


class sgdr_schedule(PresetSchedule):
    """Cosine decay with warm restarts: one `warmup_cosine_decay_schedule` after another.

    It stays at the last `end_value` from the end of the last cycle on.

    Args:
      cosine_kwargs: for each cycle the arguments of `warmup_cosine_decay_schedule`; `decay_steps`
        is its length.

    Raises:
      ValueError, TypeError: there is no cycle, or an argument of one is wrong; the message names
        the cycle by its index.

    Example:
      >>> import gradtx
      >>> cycle = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 10}
      >>> schedule = gradtx.sgdr_schedule([cycle, cycle | {"peak_value": 0.5}])
      >>> [round(float(v), 3) for v in map(schedule, (0, 2, 6, 10, 12, 20))]
      [0.0, 1.0, 0.5, 0.0, 0.5, 0.0]

    Source: Loshchilov and Hutter 2016, arXiv:1608.03983.
    """

    cosine_kwargs: Sequence[Mapping[str, ArrayLike]]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_list(self.cosine_kwargs) or len(self.cosine_kwargs) == 0:
            error = ValueError if is_list(self.cosine_kwargs) else TypeError
            found = checks.kind(self.cosine_kwargs)
            raise error(f"sgdr_schedule: cosine_kwargs is {found}, expected a list of dicts, one for each cycle.")
        domains.check_argument("sgdr_schedule", "the sum of all decay_steps", self.ends[-1], NATURAL)

    @functools.cached_property
    def cycles(self) -> tuple[warmup_cosine_decay_schedule, ...]:
        """The schedule of each cycle."""
        return tuple(itertools.starmap(_cycle, enumerate(self.cosine_kwargs)))

    @functools.cached_property
    def ends(self) -> tuple[int, ...]:
        """The step at which each cycle ends."""
        return tuple(itertools.accumulate(int(cycle.decay_steps) for cycle in self.cycles))

    def schedule(self) -> join_schedules:
        return join_schedules(self.cycles, self.ends[:-1])


def _cycle(index: int, kwargs: object) -> warmup_cosine_decay_schedule:
    place = f"sgdr_schedule: cosine_kwargs[{index}]"
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"{place} is {checks.kind(kwargs)}, expected a dict of arguments.")
    try:
        return warmup_cosine_decay_schedule(**kwargs)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{place}: {error}") from None


class linear_onecycle_schedule(Value):
    """One cycle of three lines: `low` to `peak_value`, back to `low`, to `low/final_div_factor`.

    Here `low = peak_value/div_factor`.

    Args:
      transition_steps: steps of the whole, >= 1; after them it stays at `low/final_div_factor`.
      peak_value: finite number.
      pct_start, pct_final: parts of `transition_steps` after which it is at the peak and back at
        `low`, in [0, 1].
      div_factor, final_div_factor: > 0.

    Raises:
      ValueError: `pct_final < pct_start`.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.linear_onecycle_schedule(100, 1.0, div_factor=10)
      >>> [round(float(v), 3) for v in map(schedule, (0, 15, 30, 85, 100))]
      [0.1, 0.55, 1.0, 0.1, 0.0]

    Source: Smith and Topin 2017, arXiv:1708.07120.
    """

    transition_steps: Natural
    peak_value: Number
    pct_start: Share = 0.3
    pct_final: Share = 0.85
    div_factor: Positive = 25.0
    final_div_factor: Positive = 1e4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pct_final < self.pct_start:
            found = f"pct_final is {self.pct_final}, expected at least pct_start ({self.pct_start})"
            raise ValueError(f"linear_onecycle_schedule: {found}.")

    def __call__(self, count: ArrayLike) -> jax.Array:
        steps = (int(part * self.transition_steps) for part in (0, self.pct_start, self.pct_final, 1))
        low = real(self.peak_value) / real(self.div_factor)
        return through(as_count(count), "linear", tuple(steps), (low, self.peak_value, low, low / real(self.final_div_factor)))


class cosine_onecycle_schedule(Value):
    """One cycle of two half cosines: from `low` to `peak_value`, then to `low/final_div_factor`.

    Here `low = peak_value/div_factor`.

    Args:
      transition_steps: steps of the whole, >= 1; after them it stays at `low/final_div_factor`.
      peak_value: finite number.
      pct_start: part of `transition_steps` after which it is at the peak, in [0, 1].
      div_factor, final_div_factor: > 0.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.cosine_onecycle_schedule(100, 1.0, div_factor=10)
      >>> [round(float(v), 3) for v in map(schedule, (0, 15, 30, 65, 100))]
      [0.1, 0.55, 1.0, 0.5, 0.0]

    Source: Smith and Topin 2017, arXiv:1708.07120.
    """

    transition_steps: Natural
    peak_value: Number
    pct_start: Share = 0.3
    div_factor: Positive = 25.0
    final_div_factor: Positive = 1e4

    def __call__(self, count: ArrayLike) -> jax.Array:
        steps = (0, int(self.pct_start * self.transition_steps), self.transition_steps)
        low = real(self.peak_value) / real(self.div_factor)
        return through(as_count(count), "cosine", steps, (low, self.peak_value, low / real(self.final_div_factor)))
