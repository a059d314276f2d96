"""What is refused, and in which words."""

import contextlib
import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Self, TypeGuard


class Refusal(Exception):
    """A call that a transformation or function refuses.

    Its text gathers names on its way out: `adamw > scale_by_adam: ...`.
    """

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
        refusal.by(name)
        raise


def kind(value: object) -> str:
    """A short description of a wrong value: what it is, with shape and dtype or the first keys."""
    if isinstance(value, (bool, int, float, complex, str, type(None))):
        return f"{value!r}" if value is None else f"{value!r} ({type(value).__name__})"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"an array of shape {tuple(shape)} and dtype {dtype}"
    # A value: a transformation, a schedule, a rule by path.
    if hasattr(value, "made_with") and not isinstance(value, type):
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


def did_you_mean(word: str, known: Iterable[object]) -> str:
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
    """Whether `word` may be `name`, misspelt.

    It has a slip or two in the parts that they do not share, or one has all parts of the other.
    """
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


def misfit(function: Callable[..., object], *args: object, **kwargs: object) -> str:
    """Why a function cannot be called with these arguments; empty if it can, or nobody knows."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    except ValueError:  # a function in C
        return ""
    return ""


def is_factory(value: object) -> TypeGuard[type]:
    """Whether `value` is a class of values itself, not something made by it."""
    return isinstance(value, type) and hasattr(value, "made_with")


def is_schedule(value: object) -> bool:
    """Whether `value` can be called with a step count: a schedule, or a plain function of one."""
    return callable(value) and not is_factory(value) and not isinstance(value, type) and not is_transformation(value)


def is_transformation(value: object) -> bool:
    """Whether `value` has an `init` and an `update`, as gradtx's, Optax's or a user's own do."""
    if isinstance(value, type) or is_factory(value):
        return False
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))
