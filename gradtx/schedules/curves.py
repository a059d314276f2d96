"""What schedules are made of: counts, curves between two values, domains of arguments."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Annotated, TypeGuard, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.core import domains
from gradtx.core.domains import Domain, NonNegative, Schedule, ScheduleArg
from gradtx.core.numerics import default_float
from gradtx.core.types import Leaf, Scalar
from gradtx.core.value import Value

LAST = 2**31 - 1
"""The last step that is told from the one before."""


class PresetSchedule(Value):
    """A schedule that stands for another one: subclasses make that in `schedule()`."""

    def schedule(self) -> Schedule:
        """What it stands for."""
        raise NotImplementedError(f"{type(self).__name__}: schedule is missing; it makes what the preset stands for.")

    @functools.cached_property
    def stands_for(self) -> Schedule:
        """What `schedule()` makes, once."""
        return self.schedule()

    def __call__(self, count: ArrayLike) -> jax.Array:
        """The value of what it stands for."""
        return self.stands_for(count)


def _whole(least: int) -> Domain:
    def contains(value: object) -> bool:
        return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(least <= value <= LAST)

    def hint(value: object) -> str:
        if isinstance(value, float):
            return f" Steps are whole: int({value!r})."
        return " For no steps at all use constant_schedule(value)." if isinstance(value, int) and value == 0 else ""

    return Domain(f"a whole number >= {least} (and < 2**31)", contains, hint, numeric=True)


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and bool(0 <= value <= 1)


def is_list(value: object) -> TypeGuard[Sequence]:
    """Whether `value` is a list, a tuple or an array."""
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))


NATURAL, WHOLE = _whole(1), _whole(0)
SCALE, SCHEDULE = (cast(Domain, domains.domain_of(annotation)) for annotation in (NonNegative, ScheduleArg))

Natural = Annotated[int, NATURAL]
Whole = Annotated[int, WHOLE]
Share = Annotated[float, Domain("a number in [0, 1], not traced", _is_share, numeric=True)]


def real(value: Leaf) -> jax.Array:
    """`value` in the dtype of schedules."""
    return jnp.asarray(value, default_float())


def as_count(count: ArrayLike) -> jax.Array:
    """`count` as int32 from 0 to `LAST`; a floating one as a float from 0 on."""
    # NumPy's integers are the wider ones.
    xp = np if isinstance(count, (int, float, np.generic, np.ndarray)) else jnp
    count = xp.asarray(count)
    if not jnp.issubdtype(count.dtype, jnp.integer):
        return jnp.maximum(real(count), 0)
    return jnp.asarray(xp.clip(count, 0, min(LAST, jnp.iinfo(count.dtype).max)).astype(np.int32))


def since(t: jax.Array, begin: int) -> jax.Array:
    """Steps since `begin`, 0 before it."""
    return jnp.maximum(t - int(begin), 0)


def linear(t: jax.Array, begin: int, steps: int) -> tuple[jax.Array, jax.Array]:
    """The parts of the `steps` after `begin` that are left and done; the small one is exact."""
    done = jnp.minimum(since(t, begin), int(steps))
    return real(int(steps) - done) / steps, real(done) / steps


def cosine(t: jax.Array, begin: int, steps: int) -> tuple[jax.Array, jax.Array]:
    """`(1 + cos(pi * done)) / 2` and one minus it, as squares of sines: exact near 0, too."""
    left, done = linear(t, begin, steps)
    return jnp.sin(math.pi / 2 * left) ** 2, jnp.sin(math.pi / 2 * done) ** 2


CURVES = {"linear": linear, "cosine": cosine}


def blend(a: Leaf, b: Leaf, left: jax.Array, done: jax.Array) -> jax.Array:
    """`left * a + done * b` for `left + done = 1`, exact at both ends and for `a = b`."""
    a, b = real(a), real(b)
    return jnp.where(left > done, a + done * (b - a), b + left * (a - b))


def bend(a: Leaf, b: Leaf, left: jax.Array, power: Scalar) -> jax.Array:
    """From `a` to `b` as `left**power` falls from 1 to 0."""
    left = left**power
    return blend(a, b, left, 1 - left)


def hold(t: jax.Array, value: Leaf) -> jax.Array:
    """`value` for every count of `t`."""
    value = real(value)
    return jnp.broadcast_to(value, jnp.broadcast_shapes(value.shape, t.shape))


def through(t: jax.Array, curve: str, steps: Sequence[int], values: Sequence[Leaf]) -> jax.Array:
    """From value to value, to be there at the given steps (the first is 0); stays at the last."""
    value = hold(t, values[0])
    for (begin, end), (a, b) in zip(itertools.pairwise(steps), itertools.pairwise(values), strict=True):
        piece = real(b) if begin == end else blend(a, b, *CURVES[curve](t, begin, end - begin))
        value = jnp.where(t < int(begin), value, piece)
    return value


def warm_up(t: jax.Array, init_value: Leaf, peak_value: Leaf, steps: int, after: jax.Array) -> jax.Array:
    """Linear up to `steps`, then `after`."""
    return jnp.where(t < int(steps), through(t, "linear", (0, steps), (init_value, peak_value)), after)


def join(t: jax.Array, schedules: Sequence[Schedule], boundaries: Sequence[int]) -> jax.Array:
    """One schedule after another, each counting from its boundary."""
    value = hold(t, schedules[0](t))
    for boundary, schedule in zip(boundaries, schedules[1:], strict=True):
        value = jnp.where(t < int(boundary), value, real(schedule(since(t, boundary))))
    return value


def log(rate: Scalar) -> jax.Array:
    """`log(rate)`, from float64 unless `rate` is a JAX array.

    That of 0.99999 rounded to float32 is wrong by thousandths.
    """
    return jnp.log(real(rate)) if isinstance(rate, jax.Array) else real(np.log(np.asarray(rate, np.float64)))
