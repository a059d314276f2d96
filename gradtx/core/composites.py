"""Transformations made of others: presets stand for a chain, wrappers hold one inside."""

import functools

from gradtx.core import checks
from gradtx.core.domains import TRANSFORMATION
from gradtx.core.pairs import Inner, as_transformation
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import Extra, ExtraArg, Params, State, Updates
from gradtx.core.walk import rests


class Preset(Transformation, any_leaves=True):
    """A transformation that stands for others, which its `chain()` makes from its fields.

    Example:
      >>> import gradtx
      >>> class clipped_sgd(gradtx.Preset):
      ...     learning_rate: gradtx.domains.Rate
      ...     max_norm: gradtx.domains.Positive = 1.0
      ...     def chain(self):
      ...         clip = gradtx.clip_by_global_norm(self.max_norm)
      ...         return gradtx.chain(clip, gradtx.sgd(self.learning_rate))
      >>> clipped_sgd(0.1)
      clipped_sgd(learning_rate=0.1)
    """

    def chain(self) -> Inner:
        """What the preset stands for."""
        raise NotImplementedError(f"{type(self).__name__}: chain is missing; it makes what the preset stands for.")

    @functools.cached_property
    def stands_for(self) -> Transformation:
        """What `chain()` makes, once."""
        made = self.chain()
        if not checks.is_transformation(made):
            missing = " Is a `return` missing?" if made is None else ""
            raise TypeError(f"{self.called}: chain returned {checks.kind(made)}, expected {TRANSFORMATION.text}.{missing}")
        return as_transformation(made)

    def init(self, params: Params) -> State:
        """The state of what it stands for."""
        return self.stands_for.unchecked_init(params)

    def step(self, updates: Updates, state: State, params: Params | None = None, **extra_args: ExtraArg) -> tuple[Updates, State]:
        """A step of what it stands for."""
        return self.stands_for.step(updates, state, params, **extra_args)

    @property
    def state_type(self) -> type:  # type: ignore[override]
        """That of what it stands for."""
        return self.stands_for.state_type

    def checked_step(self, updates: Updates, state: State, params: Params | None, extra_args: Extra) -> tuple[Updates, State]:
        """That of what it stands for, so that errors name the preset alone.

        The members of a chain check for themselves.
        """
        made = self.stands_for
        if made.transparent:
            return made.step(updates, state, params, **extra_args)
        return made.checked_step(updates, state, params, extra_args)

    @property
    def rests(self) -> bool:  # type: ignore[override]
        """As what it stands for."""
        return rests(self.stands_for)

    @property
    def inside(self) -> tuple[Transformation, ...]:
        """What it stands for."""
        return (self.stands_for,)

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        """A chain that it stands for; of anything else, what is inside that."""
        made = self.stands_for
        return (Part(made, params, state),) if made.transparent and not self.transparent else made.parts(params, state)

    def undone(self, before: State, after: State) -> State:
        """What is left in what it stands for."""
        return self.stands_for.undone(before, after)

    def touches(self, params: Params) -> list[bool]:
        """What it stands for decides."""
        return self.stands_for.touches(params)


class Wrapper(Transformation, any_leaves=True):
    """A transformation around one other, `inner`, which sees all parameters.

    The state has it as `inner_state`.
    """

    inner: Inner

    @property
    def inside(self) -> tuple[Transformation, ...]:
        """The wrapped transformation."""
        return (self.inner,)

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        """The wrapped transformation, with its state."""
        return (Part(self.inner, params, state.inner_state),)

    def undone(self, before: State, after: State) -> State:
        """The state before, with what is left in the wrapped transformation."""
        return before._replace(inner_state=self.inner.undone(before.inner_state, after.inner_state))
