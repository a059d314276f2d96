"""What a field may be: annotations for your own transformations, checked when a value is made.

`interval(0, 1, "[)")` and `one_of("sum", "mean")` make others: `Annotated[float, interval(...)]`.

Example:
  >>> from gradtx import Transformation
  >>> from gradtx.domains import Decay
  >>> class halve(Transformation):
  ...     decay: Decay = 0.5
  >>> halve(0.9)
  halve(decay=0.9)
"""

from gradtx.core.domains import (
    Bound,
    Decay,
    DecayOrSchedule,
    Flag,
    FloatDType,
    Fraction,
    Function,
    Mask,
    NonNegative,
    NonNegativeInt,
    Number,
    Positive,
    PositiveInt,
    Rate,
    ScheduleArg,
    SecondMomentDType,
    interval,
    one_of,
)

__all__ = [
    "Bound",
    "Decay",
    "DecayOrSchedule",
    "Flag",
    "FloatDType",
    "Fraction",
    "Function",
    "Mask",
    "NonNegative",
    "NonNegativeInt",
    "Number",
    "Positive",
    "PositiveInt",
    "Rate",
    "ScheduleArg",
    "SecondMomentDType",
    "interval",
    "one_of",
]
