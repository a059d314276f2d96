"""Transformations of other libraries, which are pairs of functions."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Self

from gradtx.core import leaves
from gradtx.core.domains import TRANSFORMATION
from gradtx.core.transformation import Transformation, declared
from gradtx.core.types import Argument, ExtraArg, Params, State, Updates


class GradientTransformation(Transformation):
    """A transformation from a pair of functions, as Optax's and a user's own are.

    Args:
      init: makes the state from the parameters.
      update: gives `(updates, state)` from `(updates, state, params)`; takes extra arguments by
        name if it declares them.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> def update(updates, state, params=None):
      ...     return updates, state
      >>> tx = gradtx.GradientTransformation(lambda params: (), update)
      >>> tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=2.0)
      (Array([1., 1.], dtype=float32), ())
    """

    keeps_form: ClassVar[bool] = False
    init_fn: Callable[[Params], State]
    update_fn: Callable[..., tuple[Updates, State]]

    def __init__(self, init: Callable[[Params], State], update: Callable[..., tuple[Updates, State]]):
        object.__setattr__(self, "init_fn", init)
        object.__setattr__(self, "update_fn", update)
        takes, state_type = declared(update)
        object.__setattr__(self, "takes", takes)
        object.__setattr__(self, "state_type", state_type)

    @classmethod
    def made_with(cls, arguments: Mapping[str, Argument]) -> Self:
        """The transformation of these two functions."""
        return cls(arguments["init_fn"], arguments["update_fn"])

    def shown(self) -> list[str]:
        """Both functions."""
        return [repr(self.init_fn), repr(self.update_fn)]

    @property
    def called(self) -> str:
        """The function that made the pair, where its name tells."""
        return getattr(self.update_fn, "__qualname__", type(self.update_fn).__name__).partition(".")[0]

    def init(self, params: Params) -> State:
        """Calls the first function."""
        return self.init_fn(params)

    def step(self, updates: Updates, state: State, params: Params | None = None, **extra_args: ExtraArg) -> tuple[Updates, State]:
        """Calls the second function, with the extra arguments that it takes."""
        parameters = inspect.signature(self.update_fn).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            extra_args = {name: value for name, value in extra_args.items() if name in parameters}
        result = self.update_fn(updates, state, params, **extra_args)
        if type(result) is not tuple or len(result) != 2:
            return result
        return result[0], leaves.in_dtypes_of(result[1], state)


def as_transformation(tx: "Inner") -> Transformation:
    """`tx` itself if it is a transformation, else the one of its `init` and `update`."""
    return tx if isinstance(tx, Transformation) else GradientTransformation(tx.init, tx.update)


Inner = Annotated[Any, TRANSFORMATION._replace(canonical=as_transformation)]
"""A transformation to wrap: gradtx's own, or anyone's pair of `init` and `update`."""
