"""Schedules made of pieces."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from gradtx.core import checks
from gradtx.core.checks import Number, Schedule
from gradtx.core.values import factory
from gradtx.schedules.curves import (
    CURVES,
    SCALE,
    SCHEDULE,
    WHOLE,
    as_count,
    is_list,
    join,
    real,
    through,
)


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
    return list(itertools.accumulate(scales, lambda level, scale: level * real(scale), initial=real(init_value)))


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
    return lambda count: join(as_count(count), [lambda t, v=v: v for v in _levels(init_value, scales)], boundaries)


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
    return lambda count: through(as_count(count), interpolate_type, (0, *boundaries), _levels(init_value, scales))


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
    if not is_list(schedules) or len(schedules) == 0:
        raise TypeError(f"{name}: schedules is {checks.kind(schedules)}, expected a list of schedules.")
    for i, schedule in enumerate(schedules):
        checks.check_argument(name, f"schedules[{i}]", schedule, SCHEDULE)
    wholes = is_list(boundaries) and all(map(WHOLE.contains, boundaries))
    if not wholes or any(a >= b for a, b in itertools.pairwise(boundaries)):
        raise ValueError(f"{name}: boundaries is {boundaries!r}, expected whole numbers >= 0 (and < 2**31) that increase.")
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"{name}: boundaries is {boundaries!r}, expected {len(schedules) - 1} of them, one fewer than the schedules. "
            "The first schedule begins at step 0, without a boundary."
        )
    parts, starts = tuple(schedules), tuple(boundaries)
    return lambda count: join(as_count(count), parts, starts)
