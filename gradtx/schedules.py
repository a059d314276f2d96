"""Schedules: functions of the step count `t` that give a learning rate, or any other number, to use at that step.

`t` is the number of steps taken before, 0 at the first: integers or floats, one or an array, traced or not. The value has
its shape and is float32 (float64 where `jax_enable_x64` is set). Steps are counted exactly, up to `2**31 - 1`; a count
outside 0 to that is taken as the nearest. Everything is per step: what is planned in epochs is multiplied by the steps
per epoch (`decay_steps=90 * steps_per_epoch`).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import checks
from gradtx.core.checks import Domain, Flag, NonNegative, Number, Positive, Schedule, ScheduleArg
from gradtx.core.numerics import default_float
from gradtx.core.values import factory

LAST = 2**31 - 1


def _whole(least: int) -> Domain:
    def contains(value: Any) -> bool:
        return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(least <= value <= LAST)

    def hint(value: Any) -> str:
        if isinstance(value, float):
            return f" Steps are whole: int({value!r})."
        return " For no steps at all use constant_schedule(value)." if isinstance(value, int) and value == 0 else ""

    return Domain(f"a whole number >= {least} (and < 2**31)", contains, hint, numeric=True)


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and bool(0 <= value <= 1)


def _is_list(value: Any) -> bool:
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))


NATURAL, WHOLE = _whole(1), _whole(0)
SCALE, SCHEDULE = (cast(Domain, checks.domain_of(annotation)) for annotation in (NonNegative, ScheduleArg))
Natural = Annotated[int, NATURAL]
Whole = Annotated[int, WHOLE]
Share = Annotated[float, Domain("a number in [0, 1], not traced", _is_share, numeric=True)]


def _real(value: Any) -> jax.Array:
    return jnp.asarray(value, default_float())


def _count(count: Any) -> jax.Array:
    """`count` as int32 from 0 to `LAST`; a floating one as a float from 0 on."""
    xp = np if isinstance(count, (int, float, np.generic, np.ndarray)) else jnp  # NumPy's integers are the wider ones
    count = xp.asarray(count)
    if not jnp.issubdtype(count.dtype, jnp.integer):
        return jnp.maximum(_real(count), 0)
    return jnp.asarray(xp.clip(count, 0, min(LAST, jnp.iinfo(count.dtype).max)).astype(np.int32))


def _since(t: jax.Array, begin: int) -> jax.Array:
    """Steps since `begin`, 0 before it."""
    return jnp.maximum(t - begin, 0)


def _linear(t: jax.Array, begin: int, steps: int) -> tuple[jax.Array, jax.Array]:
    """The parts of the `steps` after `begin` that are left and done; the small one of the two is right to the last digits."""
    done = jnp.minimum(_since(t, begin), steps)
    return _real(steps - done) / steps, _real(done) / steps


def _cosine(t: jax.Array, begin: int, steps: int) -> tuple[jax.Array, jax.Array]:
    """`(1 + cos(pi * done)) / 2` and one minus it, as squares of sines, which keep the digits near 0."""
    left, done = _linear(t, begin, steps)
    return jnp.sin(math.pi / 2 * left) ** 2, jnp.sin(math.pi / 2 * done) ** 2


CURVES = {"linear": _linear, "cosine": _cosine}


def _blend(a: Any, b: Any, left: jax.Array, done: jax.Array) -> jax.Array:
    """`left * a + done * b` for `left + done = 1`, exact at both ends and for `a = b`."""
    a, b = _real(a), _real(b)
    return jnp.where(left > done, a + done * (b - a), b + left * (a - b))


def _bend(a: Any, b: Any, left: jax.Array, power: Any) -> jax.Array:
    """From `a` to `b` as `left**power` falls from 1 to 0."""
    left = left**power
    return _blend(a, b, left, 1 - left)


def _hold(t: jax.Array, value: Any) -> jax.Array:
    """`value` for every count of `t`."""
    value = _real(value)
    return jnp.broadcast_to(value, jnp.broadcast_shapes(value.shape, t.shape))


def _through(t: jax.Array, curve: str, steps: Sequence[int], values: Sequence[Any]) -> jax.Array:
    """From value to value, to be there at the given steps (the first is 0); stays at the last."""
    value = _hold(t, values[0])
    for (begin, end), (a, b) in zip(itertools.pairwise(steps), itertools.pairwise(values), strict=True):
        piece = _real(b) if begin == end else _blend(a, b, *CURVES[curve](t, begin, end - begin))
        value = jnp.where(t < begin, value, piece)
    return value


def _join(t: jax.Array, schedules: Sequence[Schedule], boundaries: Sequence[int]) -> jax.Array:
    value = _hold(t, schedules[0](t))
    for boundary, schedule in zip(boundaries, schedules[1:], strict=True):
        value = jnp.where(t < boundary, value, _real(schedule(_since(t, boundary))))
    return value


def _log(rate: Any) -> jax.Array:
    """`log(rate)`, from float64 unless `rate` is a JAX array: that of 0.99999 rounded to float32 is off by thousandths."""
    return jnp.log(_real(rate)) if isinstance(rate, jax.Array) else _real(np.log(np.asarray(rate, np.float64)))


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
    return lambda count: _hold(_count(count), value)


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
    return lambda count: _blend(init_value, end_value, *_linear(_count(count), transition_begin, transition_steps))


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
    return lambda count: _bend(init_value, end_value, _linear(_count(count), transition_begin, transition_steps)[0], power)


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
        t, log = _since(_count(count), transition_begin), _log(decay_rate)
        value = _real(init_value) * jnp.exp(log * (_real(t // transition_steps) if staircase else _real(t) / transition_steps))
        if end_value is None:
            return value
        return jnp.where(log < 0, jnp.maximum(value, _real(end_value)), jnp.minimum(value, _real(end_value)))

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
    return lambda count: _real(init_value) * jnp.exp(-_real(decay_rate) * _real(_count(count)))


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
    return lambda count: _real(init_value) * jnp.exp(_log(decay_rate) * _real(_count(count) // step_size))


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
        t = _count(count)
        warm = _through(t, "linear", (0, warmup_steps), (init_value, peak_value))
        return jnp.where(t < warmup_steps, warm, _real(peak_value) * jnp.sqrt((warmup_steps + 1.0) / (_real(t) + 1)))

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
    return lambda count: _bend(init_value, alpha * _real(init_value), _cosine(_count(count), 0, decay_steps)[0], exponent)


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
    return lambda count: _through(_count(count), "cosine", (0, decay_steps), (init_value, end_value))


@factory()
def warmup_constant_schedule(init_value: Number, peak_value: Number, warmup_steps: Whole) -> Schedule:
    """Linear warm-up: `init_value + (peak_value - init_value) * min(t/warmup_steps, 1)`.

    Args:
      init_value, peak_value: finite numbers.
      warmup_steps: steps on the way, >= 0.

    Returns: the schedule; `init_value` at step 0 (`peak_value` without warm-up), `peak_value` from step `warmup_steps` on.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.warmup_constant_schedule(0.0, 1.0, warmup_steps=10), (0, 5, 10, 99))]
      [0.0, 0.5, 1.0, 1.0]

    **Differs:** with 0 `warmup_steps` Optax stays at `init_value`.
    """
    return lambda count: _through(_count(count), "linear", (0, warmup_steps), (init_value, peak_value))


@factory()
def warmup_cosine_decay_schedule(
    init_value: Number,
    peak_value: Number,
    warmup_steps: Whole,
    decay_steps: Natural,
    end_value: Number = 0.0,
    exponent: Positive = 1.0,
) -> Schedule:
    """Linear warm-up, then half a cosine to the power of `exponent`, from `peak_value` to `end_value`.

    Args:
      init_value, peak_value, warmup_steps: as in `warmup_constant_schedule`.
      decay_steps: steps of the whole, warm-up *included*; > `warmup_steps`.
      end_value: finite number.
      exponent: > 0, as in `cosine_decay_schedule`.

    Returns: the schedule; `init_value` at step 0 (`peak_value` without warm-up), `end_value` from step `decay_steps` on.
    Raises: ValueError or TypeError for an argument outside its domain, or `decay_steps <= warmup_steps`.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, decay_steps=30), (0, 5, 10, 20, 30))]
      [0.0, 0.5, 1.0, 0.5, 0.0]

    **Differs:** where `peak_value` is 0 Optax ignores `end_value`.
    """
    if decay_steps <= warmup_steps:
        raise ValueError(
            f"warmup_cosine_decay_schedule: decay_steps is {decay_steps}, expected more than warmup_steps ({warmup_steps}). "
            "decay_steps is the length of the whole, warm-up included."
        )

    def schedule(count: Any) -> jax.Array:
        t = _count(count)
        left, _ = _cosine(t, warmup_steps, decay_steps - warmup_steps)
        warm = _through(t, "linear", (0, warmup_steps), (init_value, peak_value))
        return jnp.where(t < warmup_steps, warm, _bend(peak_value, end_value, left, exponent))

    return schedule


@factory()
def warmup_exponential_decay_schedule(
    init_value: Number,
    peak_value: Number,
    warmup_steps: Whole,
    transition_steps: Natural,
    decay_rate: Positive,
    transition_begin: Whole = 0,
    staircase: Flag = False,
    end_value: Number | None = None,
) -> Schedule:
    """Linear warm-up, then `exponential_decay` from `peak_value`.

    Args:
      init_value, peak_value, warmup_steps: as in `warmup_constant_schedule`.
      transition_steps, decay_rate, staircase, end_value: as in `exponential_decay`.
      transition_begin: steps at `peak_value` between warm-up and decay, >= 0.

    Returns: the schedule; `init_value` at step 0 (`peak_value` without warm-up), in the end as `exponential_decay`.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.warmup_exponential_decay_schedule(0.0, 1.0, 10, 20, 0.5), (0, 5, 10, 30, 50))]
      [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    warm = warmup_constant_schedule(init_value, peak_value, warmup_steps)
    decay = exponential_decay(peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value)
    return lambda count: _join(_count(count), (warm, decay), (warmup_steps,))


@factory()
def warmup_stable_decay_schedule(
    init_value: Number, peak_value: Number, warmup_steps: Whole, stable_steps: Whole, decay_steps: Natural, end_value: Number = 0.0
) -> Schedule:
    """Linear warm-up, a plateau, linear decay: a trapezoid through `init_value, peak_value, peak_value, end_value`.

    Args:
      init_value, peak_value, end_value: finite numbers.
      warmup_steps, stable_steps: steps from `init_value` to `peak_value` and steps at `peak_value`, >= 0.
      decay_steps: steps from `peak_value` to `end_value`, >= 1; the steps before are *not* included.

    Returns: the schedule; `init_value` at step 0 (`peak_value` without warm-up), `end_value` from the sum of the steps on.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.warmup_stable_decay_schedule(0.0, 1.0, 10, 70, 20), (0, 5, 10, 80, 90, 100))]
      [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]

    Source: Hu et al. 2024, arXiv:2404.06395, section 4, whose decay is exponential.
    """
    steps = tuple(itertools.accumulate((0, warmup_steps, stable_steps, decay_steps)))
    checks.check_argument("warmup_stable_decay_schedule", "the sum of all steps", steps[-1], NATURAL)
    return lambda count: _through(_count(count), "linear", steps, (init_value, peak_value, peak_value, end_value))


@factory()
def sgdr_schedule(cosine_kwargs: Sequence[Mapping[str, Any]]) -> Schedule:
    """Cosine decay with warm restarts: one `warmup_cosine_decay_schedule` after another.

    Args:
      cosine_kwargs: for each cycle the arguments of `warmup_cosine_decay_schedule`; `decay_steps` is its length.

    Returns: the schedule; the first `init_value` at step 0, the last `end_value` from the end of the last cycle on.
    Raises: ValueError or TypeError without a cycle or for a cycle's arguments, named by the cycle's index.

    Example:
      >>> import gradtx
      >>> cycle = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 10}
      >>> [round(float(v), 3) for v in map(gradtx.sgdr_schedule([cycle, cycle | {"peak_value": 0.5}]), (0, 2, 6, 10, 12, 20))]
      [0.0, 1.0, 0.5, 0.0, 0.5, 0.0]

    Source: Loshchilov and Hutter 2016, arXiv:1608.03983.
    """
    name = "sgdr_schedule"
    if not _is_list(cosine_kwargs) or len(cosine_kwargs) == 0:
        error = ValueError if _is_list(cosine_kwargs) else TypeError
        raise error(f"{name}: cosine_kwargs is {checks.kind(cosine_kwargs)}, expected a list of dicts, one for each cycle.")
    cycles = []
    for i, kwargs in enumerate(cosine_kwargs):
        if not isinstance(kwargs, Mapping):
            raise TypeError(f"{name}: cosine_kwargs[{i}] is {checks.kind(kwargs)}, expected a dict of arguments.")
        try:
            cycles.append(warmup_cosine_decay_schedule(**kwargs))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: cosine_kwargs[{i}]: {error}") from None
    ends = tuple(itertools.accumulate(int(kwargs["decay_steps"]) for kwargs in cosine_kwargs))
    checks.check_argument(name, "the sum of all decay_steps", ends[-1], NATURAL)
    return lambda count: _join(_count(count), cycles, ends[:-1])


@factory()
def linear_onecycle_schedule(
    transition_steps: Natural,
    peak_value: Number,
    pct_start: Share = 0.3,
    pct_final: Share = 0.85,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> Schedule:
    """One cycle of three lines: from `low = peak_value/div_factor` up to `peak_value`, to `low` and to `low/final_div_factor`.

    Args:
      transition_steps: steps of the whole, >= 1.
      peak_value: finite number.
      pct_start, pct_final: parts of `transition_steps` after which it is at the peak and back at `low`, in [0, 1].
      div_factor, final_div_factor: > 0.

    Returns: the schedule; `low` at step 0, `low/final_div_factor` from step `transition_steps` on.
    Raises: ValueError or TypeError for an argument outside its domain, or `pct_final < pct_start`.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.linear_onecycle_schedule(100, 1.0, div_factor=10), (0, 15, 30, 85, 100))]
      [0.1, 0.55, 1.0, 0.1, 0.0]

    Source: Smith and Topin 2017, arXiv:1708.07120.
    """
    if pct_final < pct_start:
        raise ValueError(f"linear_onecycle_schedule: pct_final is {pct_final}, expected at least pct_start ({pct_start}).")
    steps = (0, int(pct_start * transition_steps), int(pct_final * transition_steps), transition_steps)

    def schedule(count: Any) -> jax.Array:
        low = _real(peak_value) / _real(div_factor)
        return _through(_count(count), "linear", steps, (low, peak_value, low, low / _real(final_div_factor)))

    return schedule


@factory()
def cosine_onecycle_schedule(
    transition_steps: Natural,
    peak_value: Number,
    pct_start: Share = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> Schedule:
    """One cycle of two half cosines: from `low = peak_value/div_factor` up to `peak_value` and to `low/final_div_factor`.

    Args:
      transition_steps, peak_value, pct_start, div_factor, final_div_factor: as in `linear_onecycle_schedule`.

    Returns: the schedule; `low` at step 0, `low/final_div_factor` from step `transition_steps` on.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.cosine_onecycle_schedule(100, 1.0, div_factor=10), (0, 15, 30, 65, 100))]
      [0.1, 0.55, 1.0, 0.5, 0.0]

    Source: Smith and Topin 2017, arXiv:1708.07120.
    """
    steps = (0, int(pct_start * transition_steps), transition_steps)

    def schedule(count: Any) -> jax.Array:
        low = _real(peak_value) / _real(div_factor)
        return _through(_count(count), "cosine", steps, (low, peak_value, low / _real(final_div_factor)))

    return schedule


def _scales(name: str, boundaries_and_scales: Any) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Boundaries in order, and their scales."""
    items = {} if boundaries_and_scales is None else boundaries_and_scales
    if not isinstance(items, Mapping):
        raise TypeError(f"{name}: boundaries_and_scales is {checks.kind(items)}, expected a dict from steps to factors, or None.")
    for boundary, scale in items.items():
        checks.check_argument(name, "a key of boundaries_and_scales", boundary, WHOLE)
        checks.check_argument(name, f"boundaries_and_scales[{boundary}]", scale, SCALE)
    boundaries = tuple(sorted(items))
    return boundaries, tuple(items[boundary] for boundary in boundaries)


def _levels(init_value: Any, scales: Sequence[Any]) -> list[jax.Array]:
    return list(itertools.accumulate(scales, lambda level, scale: level * _real(scale), initial=_real(init_value)))


@factory()
def piecewise_constant_schedule(init_value: Number, boundaries_and_scales: Mapping[int, Any] | None = None) -> Schedule:
    """A factor from each of the listed steps on: `init_value * prod(scale for boundary, scale in items if t >= boundary)`.

    Args:
      init_value: finite number.
      boundaries_and_scales: steps >= 0 and the factors >= 0 that join the product there; None is none.

    Returns: the schedule; `init_value` at step 0 (times the scale at 0, if any), times all scales from the last boundary on.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> steps_per_epoch = 100  # ResNet: a tenth at epochs 30, 60 and 90 (He et al. 2015, arXiv:1512.03385)
      >>> schedule = gradtx.piecewise_constant_schedule(1.0, {epoch * steps_per_epoch: 0.1 for epoch in (30, 60, 90)})
      >>> [round(float(v), 3) for v in map(schedule, (0, 2999, 3000, 6000, 9000))]
      [1.0, 1.0, 0.1, 0.01, 0.001]
    """
    boundaries, scales = _scales("piecewise_constant_schedule", boundaries_and_scales)
    return lambda count: _join(_count(count), [lambda t, v=v: v for v in _levels(init_value, scales)], boundaries)


@factory()
def piecewise_interpolate_schedule(
    interpolate_type: str, init_value: Number, boundaries_and_scales: Mapping[int, Any] | None = None
) -> Schedule:
    """Lines or half cosines between the levels of `piecewise_constant_schedule`, each level reached at its boundary.

    Args:
      interpolate_type: "linear" or "cosine".
      init_value, boundaries_and_scales: as in `piecewise_constant_schedule`.

    Returns: the schedule; `init_value` at step 0 (times the scale at 0, if any), times all scales from the last boundary on.
    Raises: ValueError or TypeError for an argument outside its domain.

    Example:
      >>> import gradtx
      >>> [round(float(v), 3) for v in map(gradtx.piecewise_interpolate_schedule("linear", 1.0, {4: 0.5, 8: 0.1}), (0, 2, 4, 8))]
      [1.0, 0.75, 0.5, 0.05]
    """
    name = "piecewise_interpolate_schedule"
    if not isinstance(interpolate_type, str) or interpolate_type not in CURVES:
        hint = checks.did_you_mean(str(interpolate_type), CURVES)
        raise ValueError(f"{name}: interpolate_type is {checks.kind(interpolate_type)}, expected 'linear' or 'cosine'.{hint}")
    boundaries, scales = _scales(name, boundaries_and_scales)
    return lambda count: _through(_count(count), interpolate_type, (0, *boundaries), _levels(init_value, scales))


@factory()
def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """One schedule after another, each counting from its own beginning: `schedules[i](t - boundaries[i - 1])`.

    Args:
      schedules: functions of a step count.
      boundaries: the steps >= 0, in increasing order, at which the second and later schedules begin.

    Returns: the schedule; at step 0 the first one's value there (for a boundary 0 the second's), in the end the last one's.
    Raises: ValueError or TypeError where `schedules` has something else, or `boundaries` do not fit.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.join_schedules([gradtx.linear_schedule(0.0, 1.0, 10), gradtx.constant_schedule(0.5)], [10])
      >>> [round(float(v), 3) for v in map(schedule, (0, 5, 9, 10))]
      [0.0, 0.5, 0.9, 0.5]
    """
    name = "join_schedules"
    if not _is_list(schedules) or len(schedules) == 0:
        raise TypeError(f"{name}: schedules is {checks.kind(schedules)}, expected a list of schedules.")
    for i, schedule in enumerate(schedules):
        checks.check_argument(name, f"schedules[{i}]", schedule, SCHEDULE)
    wholes = _is_list(boundaries) and all(map(WHOLE.contains, boundaries))
    if not wholes or any(a >= b for a, b in itertools.pairwise(boundaries)):
        raise ValueError(f"{name}: boundaries is {boundaries!r}, expected whole numbers >= 0 (and < 2**31) that increase.")
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"{name}: boundaries is {boundaries!r}, expected {len(schedules) - 1} of them, one fewer than the schedules. "
            "The first schedule begins at step 0, without a boundary."
        )
    parts, starts = tuple(schedules), tuple(boundaries)
    return lambda count: _join(_count(count), parts, starts)
