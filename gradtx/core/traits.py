"""What a transformation is, declared where its factory is: nothing else decides how others treat it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Trait = bool | Callable[[Mapping[str, Any]], bool]
"""Whether a factory's transformations have a trait: all or none of them, or as a function of its arguments says."""


class Traits(NamedTuple):
    """What the transformations of a factory are.

    Attributes:
      last: it counts on its updates being applied as they are, since its state holds points that follow from them (averages, slow
        weights). `chain` refuses what comes after it.
      observes: it changes no updates, so it may come after any other, and keeps zero too.
      keeps_zero: a parameter whose gradients have been zero from `init` on has zero updates, whatever the gradients of the others.
        (After other gradients it need not: momentum goes on.) Of a transformation with others inside it says: if all of those
        keep zero. `summary` counts as frozen what is set to zero and then meets such alone.
      transparent: it only hands parameters on to those inside it, which are shown in its place.
      gathers: it gathers updates over several calls and gives zeros between. What takes every call for a step (`ema_params`,
        `lookahead`) refuses to stand around it.
      measures: it returns a measurement, of any tree and shapes, in the place of updates.
    """

    last: Trait = False
    observes: Trait = False
    keeps_zero: Trait = False
    transparent: Trait = False
    gathers: Trait = False
    measures: Trait = False

    def of(self, arguments: Mapping[str, Any]) -> "Traits":
        """The traits of what a call with these arguments makes, as booleans."""
        if not any(map(callable, self)):
            return self
        return Traits(*(trait(arguments) if callable(trait) else trait for trait in self))


NO_TRAITS = Traits()
