"""What Optax's annotations are called, and the `init` of a pair that keeps no state."""

from collections.abc import Callable
from typing import Any, Protocol

from gradtx.core.transformation import EmptyState
from gradtx.core.types import ExtraArg, Params, Scalar, State, Tree, Updates

MaskOrFn = Tree | Callable[[Params], Tree] | None
"""A mask, or a function from parameters to one."""
TransformInitFn = Callable[[Params], State]
"""The first function of a pair."""
TransformUpdateFn = Callable[..., tuple[Updates, State]]
"""The second function of a pair."""
TransformUpdateExtraArgsFn = TransformUpdateFn
"""The same where it takes extra arguments."""
ConditionFn = Callable[..., Any]
"""Whether to transform, from the step and the extra arguments."""
ShouldSkipUpdateFunction = Callable[[Updates, Scalar, Params | None], tuple[Any, Any]]
"""Whether `MultiSteps` leaves out a microbatch, and what to remember of it."""


class StatefulSchedule(Protocol):
    """A schedule with a state of its own: what `inject_stateful_hyperparams` takes."""

    def init(self) -> State:
        """Makes the first state."""

    def update(self, state: State, **extra_args: ExtraArg) -> State:
        """The state after a step."""

    def __call__(self, state: State, **extra_args: ExtraArg) -> Scalar:
        """The number at a state."""


def init_empty_state(params: Params) -> EmptyState:
    """The `init` of a pair that keeps no state.

    Example:
      >>> import gradtx.optax as optax
      >>> optax.init_empty_state({"w": 1.0})
      EmptyState()
    """
    del params
    return EmptyState()
