"""Schedules made of pieces."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core import checks, domains
from gradtx.core.domains import Domain, Number, Schedule
from gradtx.core.types import Scalar
from gradtx.core.value import Value
from gradtx.schedules.curves import CURVES, SCALE, SCHEDULE, WHOLE, as_count, hold, is_list, join, real, through


def _scales(name: str, boundaries_and_scales: object) -> tuple[tuple[int, Scalar], ...]:
    """Boundaries in order, each with its scale, or an error that names the first wrong one."""
    scales = {} if boundaries_and_scales is None else boundaries_and_scales
    if not isinstance(scales, Mapping):
        raise TypeError(f"{name}: boundaries_and_scales is {checks.kind(scales)}, expected a dict from steps to factors, or None.")
    for boundary, scale in scales.items():
        domains.check_argument(name, "a key of boundaries_and_scales", boundary, WHOLE)
        domains.check_argument(name, f"boundaries_and_scales[{boundary}]", scale, SCALE)
    return tuple((int(boundary), scales[boundary]) for boundary in sorted(scales))


class piecewise_constant_schedule(Value):
    """A factor from each listed step on: `init_value` times each scale whose boundary is <= `t`.

    Args:
      init_value: finite number.
      boundaries_and_scales: steps >= 0 and the factors >= 0 that join the product there; None is
        none.

    Example:
      >>> import gradtx
      >>> steps_per_epoch = 100
      >>> scales = {epoch * steps_per_epoch: 0.1 for epoch in (30, 60, 90)}
      >>> schedule = gradtx.piecewise_constant_schedule(1.0, scales)
      >>> [round(float(v), 3) for v in map(schedule, (0, 2999, 3000, 6000, 9000))]
      [1.0, 1.0, 0.1, 0.01, 0.001]

    Source: the example is that of ResNet, He et al. 2015, arXiv:1512.03385: a tenth at epochs 30,
    60 and 90.
    """

    init_value: Number
    boundaries_and_scales: Mapping[int, ArrayLike] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.scales  # noqa: B018  # wrong ones fail here, not at the first step

    @functools.cached_property
    def scales(self) -> tuple[tuple[int, Scalar], ...]:
        """Boundaries in order, each with its scale."""
        return _scales("piecewise_constant_schedule", self.boundaries_and_scales)

    def __call__(self, count: ArrayLike) -> jax.Array:
        t = as_count(count)
        value = hold(t, self.init_value)
        for boundary, scale in self.scales:
            value = jnp.where(t < boundary, value, value * real(scale))
        return value


class piecewise_interpolate_schedule(Value):
    """Lines or half cosines between levels, each reached at its boundary.

    The levels are those of `piecewise_constant_schedule`.

    Args:
      interpolate_type: "linear" or "cosine".
      init_value: finite number.
      boundaries_and_scales: steps >= 0 and, for each, the level there as a factor >= 0 of the level
        before; None is none.

    Example:
      >>> import gradtx
      >>> schedule = gradtx.piecewise_interpolate_schedule("linear", 1.0, {4: 0.5, 8: 0.1})
      >>> [round(float(v), 3) for v in map(schedule, (0, 2, 4, 8))]
      [1.0, 0.75, 0.5, 0.05]
    """

    interpolate_type: str
    init_value: Number
    boundaries_and_scales: Mapping[int, ArrayLike] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.interpolate_type, str) or self.interpolate_type not in CURVES:
            found, hint = checks.kind(self.interpolate_type), checks.did_you_mean(str(self.interpolate_type), CURVES)
            text = f"interpolate_type is {found}, expected 'linear' or 'cosine'.{hint}"
            raise ValueError(f"piecewise_interpolate_schedule: {text}")
        self.scales  # noqa: B018  # wrong ones fail here, not at the first step

    @functools.cached_property
    def scales(self) -> tuple[tuple[int, Scalar], ...]:
        """Boundaries in order, each with its scale."""
        return _scales("piecewise_interpolate_schedule", self.boundaries_and_scales)

    def __call__(self, count: ArrayLike) -> jax.Array:
        steps, levels = [0], [real(self.init_value)]
        for boundary, scale in self.scales:
            steps.append(boundary)
            levels.append(levels[-1] * real(scale))
        return through(as_count(count), self.interpolate_type, steps, levels)


def _wrong_schedule(schedules: object) -> tuple[str, object, Domain] | None:
    """The first of a list that is no schedule."""
    each = enumerate(schedules) if is_list(schedules) else ()
    return next(((f"[{i}]", schedule, SCHEDULE) for i, schedule in each if not SCHEDULE.contains(schedule)), None)


def _is_schedules(value: object) -> bool:
    return is_list(value) and len(value) > 0 and all(map(SCHEDULE.contains, value))


Schedules = Annotated[Sequence[Schedule], Domain("a list of schedules", _is_schedules, blame=_wrong_schedule)]


class join_schedules(Value):
    """One schedule after another, each from its own step 0: `schedules[i](t - boundaries[i - 1])`.

    Args:
      schedules: functions of a step count.
      boundaries: the steps >= 0, in increasing order, at which the second and later schedules
        begin.

    Example:
      >>> import gradtx
      >>> first, second = gradtx.linear_schedule(0.0, 1.0, 10), gradtx.constant_schedule(0.5)
      >>> schedule = gradtx.join_schedules([first, second], [10])
      >>> [round(float(v), 3) for v in map(schedule, (0, 5, 9, 10))]
      [0.0, 0.5, 0.9, 0.5]
    """

    schedules: Schedules
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        found, joints = f"join_schedules: boundaries is {self.boundaries!r}", len(self.schedules) - 1
        wholes = is_list(self.boundaries) and all(map(WHOLE.contains, self.boundaries))
        if not wholes or any(a >= b for a, b in itertools.pairwise(self.boundaries)):
            raise ValueError(f"{found}, expected whole numbers >= 0 (and < 2**31) that increase.")
        if len(self.boundaries) != joints:
            raise ValueError(
                f"{found}, expected {joints} of them, one fewer than the schedules. "
                "The first schedule begins at step 0, without a boundary."
            )

    def __call__(self, count: ArrayLike) -> jax.Array:
        return join(as_count(count), self.schedules, self.boundaries)
