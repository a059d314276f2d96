"""What an argument may be, and the errors that say so.

A factory writes the domain of an argument in its annotation (`b1: Decay`), and the `factory` decorator
checks it at construction. Python and NumPy numbers and concrete arrays are checked; tracers pass.
"""

import contextlib
import difflib
import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Self, Union, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from gradtx.core.numerics import is_tracer
from gradtx.core.paths import leaves_by_path


class Domain(NamedTuple):
    """Allowed values of an argument: in words, as a test, with the likely cause of a miss, and in one canonical form.

    For a value with parts, `blame` gives the first part that is wrong: where it is, the part, and what it may be.
    """

    text: str
    contains: Callable[[Any], bool]
    hint: Callable[[Any], str] = lambda value: ""
    numeric: bool = False
    canonical: Callable[[Any], Any] = lambda value: value
    blame: Callable[[Any], "tuple[str, Any, Domain] | None"] = lambda value: None


class Refusal(Exception):
    """A call that a transformation or function refuses. On its way out the text gathers their names: `adamw > scale_by_adam: ...`."""

    __module__ = "gradtx"
    named = False

    def by(self, name: str) -> Self:
        """The same, with the name of what it passes on its way out."""
        self.args = (f"{name}{' > ' if self.named else ': '}{self.args[0]}",)
        self.named = True
        return self


class WrongValue(Refusal, ValueError):
    """A value, shape or structure that is not allowed."""

    __module__ = "gradtx"


class WrongType(Refusal, TypeError):
    """Something of another kind than what is allowed."""

    __module__ = "gradtx"


class NotInstalled(Refusal, ImportError):
    """A package that an extra brings is not there."""

    __module__ = "gradtx"

    def __str__(self) -> str:
        return self.args[0]


@contextlib.contextmanager
def calling(name: str) -> Iterator[None]:
    """Names the function at work in the refusals that are raised below."""
    try:
        yield
    except Refusal as refusal:
        raise refusal.by(name)


def kind(value: Any) -> str:
    """A short description of a wrong value: what it is, with shape and dtype or the first keys."""
    if isinstance(value, (bool, int, float, complex, str, type(None))):
        return f"{value!r}" if value is None else f"{value!r} ({type(value).__name__})"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    if hasattr(value, "made_with") and not isinstance(value, type):  # a value: a transformation, a schedule, a rule by path
        return repr(value)
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__qualname__', repr(value))}"
    if isinstance(value, Mapping):
        keys = ", ".join(repr(k) for k in list(value)[:4]) + (", ..." if len(value) > 4 else "")
        return f"{_a(type(value).__name__)} with keys {keys}" if value else f"an empty {type(value).__name__}"
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return _a(type(value).__name__)


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def did_you_mean(word: str, known: Any) -> str:
    """` Did you mean 'x'?` where a known word is close, else nothing."""
    names = [str(k) for k in known]
    alike = [name for name in names if name.lower() == word.lower()]
    close = (
        alike
        or [name for name in difflib.get_close_matches(word, names, n=5, cutoff=0.7) if _may_stand_for(word, name)]
        or [name for name in names if word and name.startswith(word)]
    )
    return f" Did you mean {close[0]!r}?" if close else ""


def _may_stand_for(word: str, name: str) -> bool:
    """Whether `word` is `name` with a slip or two in the parts that they do not share, or one has all parts of the other."""
    parts, others = word.split("_"), name.split("_")
    own, its = ["_".join(part for part in these if part not in those) for these, those in ((parts, others), (others, parts))]
    return not own or not its or _slips(own, its) <= (1 if len(own) < 6 else 2)


def _slips(word: str, other: str) -> int:
    """How many letters were left out, added, changed or swapped with their neighbour, at least."""
    rows = [list(range(len(other) + 1))]
    for i, x in enumerate(word, 1):
        row = [i]
        for j, y in enumerate(other, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (x != y)))
            if i > 1 and j > 1 and (x, word[i - 2]) == (other[j - 2], y):
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]


# Domains of arguments -------------------------------------------------------------------------------------


def is_factory(value: Any) -> bool:
    """Whether `value` is a declared factory itself, not something made by it."""
    return isinstance(value, type) and hasattr(value, "made_with")


def is_schedule(value: Any) -> bool:
    """Whether `value` can be called with a step count: a schedule, or a plain function of one."""
    return callable(value) and not is_factory(value) and not isinstance(value, type) and not is_transformation(value)


def is_transformation(value: Any) -> bool:
    """Whether `value` has an `init` and an `update`, as gradtx's, Optax's or a user's own do."""
    if isinstance(value, type) or is_factory(value):
        return False
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


def _is_number(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return False
    if isinstance(value, (int, float, np.number)):
        return True
    return isinstance(value, (jax.Array, np.ndarray)) and value.shape == () and bool(jnp.issubdtype(value.dtype, jnp.number))


def is_real_scalar(value: Any) -> bool:
    """Whether `value` is one real number, as a loss is; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)):
        return False
    dtype = jnp.result_type(value)
    return jnp.shape(value) == () and (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer))


def _number(text: str, test: Callable[[Any], Any]) -> Domain:
    def contains(value: Any) -> bool:
        if not _is_number(value):
            return False
        return is_tracer(value) or bool(np.all(test(np.asarray(value))))

    return Domain(text, contains, _hint, numeric=True)


def _number_or_schedule(number: Domain) -> Domain:
    return Domain(
        number.text + ", or a schedule (a function of the step count)",
        lambda value: is_schedule(value) or number.contains(value),
        _hint,
        numeric=True,
    )


def _hint(value: Any) -> str:
    if is_factory(value):
        return f" This is the factory itself: call it, {value.__name__}(...)."
    if isinstance(value, str):
        return " A number is wanted, not text."
    return ""


def _transformation_hint(value: Any) -> str:
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


def _is_integer(value: Any, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def _is_float_dtype(value: Any) -> bool:
    try:
        return bool(jnp.issubdtype(np.dtype(value), jnp.floating))
    except TypeError:
        return False


def _holds_squares(value: Any) -> bool:
    """Whether a dtype has the range of float32, so that squares neither overflow nor vanish, and bfloat16's precision at least."""
    if not _is_float_dtype(value):
        return False
    info, least = jnp.finfo(np.dtype(value)), jnp.finfo(jnp.bfloat16)
    return info.nmant >= least.nmant and info.maxexp >= least.maxexp and info.minexp <= least.minexp


def _squares_hint(value: Any) -> str:
    return " Squares overflow or vanish in fewer bits, and averages of them stall." if _is_float_dtype(value) else ""


def _mask_hint(value: Any) -> str:
    if isinstance(value, str) or any(isinstance(leaf, (str, re.Pattern)) for leaf in jax.tree.leaves(value)):
        return " Patterns of paths go through by_path({pattern: True}, default=False)."
    return _hint(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def _is_mask(value: Any) -> bool:
    leaves = jax.tree.leaves(value)
    if len(leaves) == 1 and leaves[0] is value and callable(value):
        return not is_factory(value) and not isinstance(value, type)
    return all(map(_is_flag, leaves))


def _wrong_leaf(mask: Any) -> tuple[str, Any, Domain] | None:
    """The first leaf of a mask that is no boolean; of a mask that is a leaf itself there is no more to say."""
    for parts, leaf in leaves_by_path(mask).items():
        if parts and not _is_flag(leaf):
            return f" leaf `{'/'.join(parts)}`", leaf, Domain("True or False", _is_flag, _mask_hint)
    return None


_finite = _number("a finite number", np.isfinite)
_non_negative = _number("a finite number >= 0", lambda x: (x >= 0) & np.isfinite(x))
_positive = _number("a finite number > 0", lambda x: (x > 0) & np.isfinite(x))
_decay = _number("a number in [0, 1)", lambda x: (x >= 0) & (x < 1))


def one_of(*choices: str) -> Domain:
    """The domain of a choice among names."""
    text = "one of " + ", ".join(map(repr, choices))
    return Domain(text, lambda value: isinstance(value, str) and value in choices, lambda value: did_you_mean(str(value), choices))


def scheduled_value(argument: str, number: Any, count: Any) -> Any:
    """A number, or what a schedule gives at a step: a scalar, or an error that says what it gave."""
    if not callable(number):
        return number
    value = number(count)
    if not _is_number(value):
        raise WrongType(f"the schedule {argument} gave {kind(value)}, expected a scalar.")
    return value


Schedule = Callable[[Any], Any]
"""A function from the step count (int32 scalar or Python int) to a number."""
ScalarOrSchedule = ArrayLike | Schedule
"""A number or a schedule: the type of a learning rate."""

Number = Annotated[ArrayLike, _finite]
NonNegative = Annotated[ArrayLike, _non_negative]
Positive = Annotated[ArrayLike, _positive]
Decay = Annotated[ArrayLike, _decay]
Bound = Annotated[ArrayLike, _number("a number >= 0, or inf", lambda x: x >= 0)]
Fraction = Annotated[ArrayLike, _number("a number in [0, 1]", lambda x: (x >= 0) & (x <= 1))]
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
    Any,
    Domain(
        "a tree of booleans shaped like the parameters (or a prefix of it), or a function from parameters to one",
        _is_mask,
        _mask_hint,
        blame=_wrong_leaf,
    ),
]
Function = Annotated[Callable[..., Any], Domain("a function", lambda value: callable(value) and not is_factory(value), _hint)]


def domain_of(annotation: Any) -> Domain | None:
    """The domain written in an annotation: `Annotated[..., Domain]`, or that `| None`."""
    if get_origin(annotation) is Annotated:
        return next((m for m in annotation.__metadata__ if isinstance(m, Domain)), None)
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


def check_argument(name: str, argument: str, value: Any, domain: Domain) -> None:
    """Raises if `value` is outside `domain`: a `ValueError` for a number out of range, else a `TypeError`.

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
