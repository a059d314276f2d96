"""What an argument may be: the domain that a class writes in a field's annotation (`b1: Decay`).

Python and NumPy numbers and concrete arrays are checked; tracers pass.
"""

import inspect
import re
import types
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeGuard, Union, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from gradtx.core.checks import WrongType, WrongValue, did_you_mean, is_factory, is_schedule, is_transformation, kind, misfit
from gradtx.core.numerics import is_tracer
from gradtx.core.paths import leaves_by_path
from gradtx.core.types import DType, Leaf, Scalar, Tree


class Domain(NamedTuple):
    """Allowed values of an argument: in words, as a test, with a hint, in one canonical form.

    For a value with parts, `blame` gives the first part that is wrong: where it is, the part, and
    what it may be.
    """

    text: str
    contains: Callable[[object], bool]
    hint: Callable[[object], str] = lambda value: ""
    numeric: bool = False
    canonical: Callable[[Any], Any] = lambda value: value
    blame: Callable[[object], "tuple[str, object, Domain] | None"] = lambda value: None


def _is_number(value: object) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return False
    if isinstance(value, (int, float, np.number)):
        return True
    return isinstance(value, (jax.Array, np.ndarray)) and value.shape == () and bool(jnp.issubdtype(value.dtype, jnp.number))


def is_real_scalar(value: object) -> TypeGuard[float | np.ndarray | jax.Array]:
    """Whether `value` is one real number, as a loss is; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)):
        return False
    dtype = jnp.result_type(value)
    return jnp.shape(value) == () and (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer))


INF = float("inf")


def interval(low: float, high: float, ends: str, hint: Callable[[object], str] | None = None) -> Domain:
    """The numbers between two ends, each in or out as its bracket says: `interval(0, 1, "[)")`.

    Example:
      >>> from typing import Annotated
      >>> from gradtx.core.domains import interval
      >>> interval(0, 1, "[)").text, interval(0, float("inf"), "()").text
      ('a number in [0, 1)', 'a finite number > 0')
    """

    def contains(value: object) -> bool:
        if not _is_number(value):
            return False
        if is_tracer(value):
            return True
        x = np.asarray(value)
        above = x >= low if ends[0] == "[" else x > low
        return bool(np.all(above & (x <= high if ends[1] == "]" else x < high)))

    text = f"a number in {ends[0]}{low}, {high}{ends[1]}"
    if high == INF:
        bound = "" if low == -INF else f" {'>=' if ends[0] == '[' else '>'} {low}"
        text = f"a number{bound}, or inf" if ends[1] == "]" else f"a finite number{bound}"
    return Domain(text, contains, hint or _hint, numeric=True)


def _number_or_schedule(number: Domain) -> Domain:
    return Domain(
        number.text + ", or a schedule (a function of the step count)",
        lambda value: is_schedule(value) or number.contains(value),
        _hint,
        numeric=True,
    )


def _hint(value: object) -> str:
    if is_factory(value):
        return f" This is the factory itself: call it, {value.__name__}(...)."
    if isinstance(value, str):
        return " A number is wanted, not text."
    return ""


def _transformation_hint(value: object) -> str:
    if is_factory(value):
        return f" This is the factory itself: call it, {value.__name__}(...)."
    if inspect.isroutine(value):
        return " Call it, if it makes a transformation; a schedule becomes one with scale_by_learning_rate(schedule)."
    if isinstance(value, (list, tuple)):
        return " Unpack a list of transformations with a star: chain(*transformations)."
    if isinstance(value, (int, float)):
        return " Were arguments swapped? A learning rate alone becomes a transformation with scale_by_learning_rate(rate)."
    if callable(value):
        return " A schedule becomes a transformation with scale_by_learning_rate(schedule)."
    return ""


def _is_integer(value: object, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def _is_float_dtype(value: DType) -> bool:
    try:
        return bool(jnp.issubdtype(np.dtype(value), jnp.floating))
    except TypeError:
        return False


def _holds_squares(value: DType) -> bool:
    """Whether a dtype can hold squares: the range of float32, and at least bfloat16's precision."""
    if not _is_float_dtype(value):
        return False
    info, least = jnp.finfo(np.dtype(value)), jnp.finfo(jnp.bfloat16)
    return info.nmant >= least.nmant and info.maxexp >= least.maxexp and info.minexp <= least.minexp


def _squares_hint(value: DType) -> str:
    return " Squares overflow or stall in fewer bits; quantize_state(...) stores them in 8 or 4." if _is_float_dtype(value) else ""


def _mask_hint(value: object) -> str:
    if isinstance(value, str) or any(isinstance(leaf, (str, re.Pattern)) for leaf in jax.tree.leaves(value)):
        return " Patterns of paths go through by_path({pattern: True}, default=False)."
    return _hint(value)


def _is_flag(value: object) -> bool:
    return isinstance(value, (bool, np.bool_))


def _is_mask(value: Tree) -> bool:
    leaves = jax.tree.leaves(value)
    if len(leaves) == 1 and leaves[0] is value and callable(value):
        return not is_factory(value) and not isinstance(value, type)
    return all(map(_is_flag, leaves))


def _wrong_leaf(mask: Tree) -> tuple[str, Leaf, Domain] | None:
    """The first leaf of a mask that is no boolean; None for a mask that is itself a leaf."""
    for parts, leaf in leaves_by_path(mask).items():
        if parts and not _is_flag(leaf):
            return f" leaf `{'/'.join(parts)}`", leaf, Domain("True or False", _is_flag, _mask_hint)
    return None


_non_negative, _decay = interval(0, INF, "[)"), interval(0, 1, "[)")


def one_of(*choices: str) -> Domain:
    """The domain of a choice among names."""
    text = "one of " + ", ".join(map(repr, choices))
    return Domain(text, lambda value: isinstance(value, str) and value in choices, lambda value: did_you_mean(str(value), choices))


def call_schedule(argument: str, schedule: "Schedule", count: Scalar) -> Scalar:
    """What a schedule gives at a step, or an error for a function of other arguments."""
    try:
        return schedule(count)
    except TypeError:
        if why := misfit(schedule, count):
            raise WrongType(f"the schedule {argument} cannot be called with a step count: {why}.") from None
        raise


def scheduled_value(argument: str, number: "ScalarOrSchedule | None", count: Scalar) -> Scalar:
    """A number, or the scalar that a schedule gives at a step; an error if it gives another."""
    if not callable(number):
        return number
    if count is None:
        raise WrongType(f"the state has no step count, which the schedule {argument} needs; does it belong to another optimizer?")
    value = call_schedule(argument, number, count)
    if not _is_number(value):
        raise WrongType(f"the schedule {argument} gave {kind(value)}, expected a scalar.")
    return value


Schedule = Callable[[Scalar], Scalar]
"""A function from the step count (int32 scalar or Python int) to a number."""
ScalarOrSchedule = ArrayLike | Schedule
"""A number or a schedule: the type of a learning rate."""

Number = Annotated[ArrayLike, interval(-INF, INF, "()")]
NonNegative = Annotated[ArrayLike, _non_negative]
Positive = Annotated[ArrayLike, interval(0, INF, "()")]
Decay = Annotated[ArrayLike, _decay]
Bound = Annotated[ArrayLike, interval(0, INF, "[]")]
Fraction = Annotated[ArrayLike, interval(0, 1, "[]")]
Rate = Annotated[ArrayLike | Schedule, _number_or_schedule(_non_negative)]
DecayOrSchedule = Annotated[ArrayLike | Schedule, _number_or_schedule(_decay)]
PositiveInt = Annotated[int, Domain("a whole number >= 1", lambda value: _is_integer(value, 1), _hint, numeric=True)]
NonNegativeInt = Annotated[int, Domain("a whole number >= 0", lambda value: _is_integer(value, 0), _hint, numeric=True)]
FLAG = Domain("True or False", _is_flag)
Flag = Annotated[bool, FLAG]
FloatDType = Annotated[
    DTypeLike, Domain("a floating dtype, such as 'float32' or jnp.bfloat16", _is_float_dtype, canonical=np.dtype)
]
SecondMomentDType = Annotated[
    DTypeLike,
    Domain(
        "a floating dtype with the range of float32: 'float32', 'float64' or 'bfloat16'",
        _holds_squares,
        _squares_hint,
        canonical=np.dtype,
    ),
]
"""The dtype of running means of squares."""
ScheduleArg = Annotated[Schedule, Domain("a schedule (a function of the step count)", is_schedule, _hint)]
TRANSFORMATION = Domain("a gradient transformation (a pair of init and update)", is_transformation, _transformation_hint)
Mask = Annotated[
    Tree,
    Domain(
        "a tree of booleans shaped like the parameters (or a prefix of it), or a function from parameters to one",
        _is_mask,
        _mask_hint,
        blame=_wrong_leaf,
    ),
]
Function = Annotated[Callable[..., Any], Domain("a function", lambda value: callable(value) and not is_factory(value), _hint)]


def domain_of(annotation: object) -> Domain | None:
    """The domain written in an annotation: `Annotated[..., Domain]`, or that `| None`."""
    if get_origin(annotation) is Annotated:
        return next((m for m in get_args(annotation)[1:] if isinstance(m, Domain)), None)
    if get_origin(annotation) in (Union, types.UnionType):
        parts = get_args(annotation)
        inner = next((d for d in map(domain_of, parts) if d is not None), None)
        if inner is not None and type(None) in parts:
            return Domain(
                f"{inner.text}, or None",
                lambda value: value is None or inner.contains(value),
                inner.hint,
                inner.numeric,
                lambda value: None if value is None else inner.canonical(value),
                inner.blame,
            )
        return inner
    return None


def check_argument(name: str, argument: str, value: object, domain: Domain) -> None:
    """Raises outside of `domain`: a `ValueError` for a number out of range, else a `TypeError`.

    Without a name the text gathers those of the functions that it passes.
    """
    if domain.contains(value):
        return
    if (part := domain.blame(value)) is not None:
        place, value, domain = part
        argument += place
    error = WrongValue if domain.numeric and _is_number(value) else WrongType
    found = repr(value) if _is_number(value) and hasattr(value, "dtype") and not is_tracer(value) else kind(value)
    refusal = error(f"{argument} is {found}, expected {domain.text}.{domain.hint(value)}")
    raise refusal.by(name) if name else refusal
