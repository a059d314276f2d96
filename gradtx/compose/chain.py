"""Transformations one after another."""

from collections.abc import Mapping, Sequence
from typing import Self

from gradtx.core import checks, domains, trees
from gradtx.core.pairs import Inner, as_transformation
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import Argument, ExtraArg, Params, State, Updates
from gradtx.core.value import show
from gradtx.core.walk import changes_nothing, everything, final_in, rests


class chain(Transformation, transparent=True, any_leaves=True):
    """Applies transformations in turn: `tx_n(... tx_2(tx_1(g)))`.

    Extra arguments reach every member. Half-precision updates pass from one to the next in float32
    and are rounded once, at the end.

    Args:
      *args: transformations, in order of application.

    State: a tuple of the transformations' states.

    Raises:
      TypeError: a member is no transformation (a factory that was not called, a schedule, a list).
      ValueError: a member's updates must be applied as they are (`ema_params`, `lookahead_wrapper`,
        `schedule_free`), but another comes after it; or a member accumulates, and another after it
        takes every call for a step (momentum, weight decay).

    Example:
      >>> import gradtx
      >>> gradtx.chain(gradtx.clip(1.0), gradtx.scale(-0.1))
      chain(clip(max_delta=1.0), scale(step_size=-0.1))
    """

    members: tuple[Transformation, ...]

    def __init__(self, *args: Inner):
        for i, tx in enumerate(args):
            domains.check_argument("chain", f"argument {i}", tx, domains.TRANSFORMATION)
        object.__setattr__(self, "members", tuple(map(as_transformation, args)))
        check_order("chain", self.members)

    @property
    def arguments(self) -> dict[str, Argument]:
        return {"args": list(self.members)}

    @classmethod
    def made_with(cls, arguments: Mapping[str, Argument]) -> Self:
        return cls(*_listed(cls, arguments))

    def shown(self) -> list[str]:
        """The members, without a name."""
        return [show(tx) for tx in self.members]

    @property
    def measuring(self) -> bool:  # type: ignore[override]
        """Whether the first member takes, or gives, another tree than that of the parameters."""
        return bool(self.members) and self.members[0].measuring

    def init(self, params: Params) -> tuple[State, ...]:
        """A state for each member."""
        return tuple(tx.init(params) for tx in self.members)

    def step(self, updates: Updates, state: tuple, params: Params | None = None, **extra_args: ExtraArg) -> tuple[Updates, State]:
        """Each member's step, in turn."""
        if not isinstance(state, tuple):
            trees.raise_wrong_state(state, tuple)
        if len(state) != len(self.members) or hasattr(state, "_fields"):
            trees.raise_wrong_state(state, tuple, f"a tuple of {len(self.members)} states, one for each member")
        after = []
        for tx, own in zip(self.members, state, strict=True):
            updates, own = tx.advance(updates, own, params, extra_args)
            after.append(own)
        return updates, tuple(after)

    @property
    def inside(self) -> tuple[Transformation, ...]:
        """The members."""
        return self.members

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        """Each member with its state."""
        return tuple(Part(tx, params, own) for tx, own in zip(self.members, state, strict=True))

    def undone(self, before: State, after: State) -> State:
        """What is left in each member."""
        return tuple(tx.undone(*states) for tx, *states in zip(self.members, before, after, strict=True))


class named_chain(Transformation, transparent=True, any_leaves=True):
    """`chain` with a name for each member, under which its state is found.

    Args:
      *args: pairs `(name, transformation)`, in order of application; names are distinct strings.

    State: a dict from names to states.

    Raises:
      TypeError: an argument is no such pair.
      ValueError: a name occurs twice, or as `chain`.

    Example:
      >>> import gradtx
      >>> clip = gradtx.clip_by_global_norm(1.0)
      >>> tx = gradtx.named_chain(("clip", clip), ("opt", gradtx.adam(1e-3)))
      >>> sorted(tx.init({"w": 1.0}))
      ['clip', 'opt']
    """

    members: dict[str, Transformation]

    def __init__(self, *args: tuple[str, Inner]):
        members: dict[str, Transformation] = {}
        for i, pair in enumerate(args):
            if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
                raise TypeError(f"named_chain: argument {i} is {checks.kind(pair)}, expected a pair (name, transformation).")
            name, tx = pair
            domains.check_argument("named_chain", f"argument {i} ({name!r})", tx, domains.TRANSFORMATION)
            if name in members:
                raise ValueError(f"named_chain: the name {name!r} occurs twice, expected distinct names.")
            members[name] = as_transformation(tx)
        object.__setattr__(self, "members", members)
        check_order("named_chain", tuple(members.values()))

    @property
    def arguments(self) -> dict[str, Argument]:
        return {"args": list(self.members.items())}

    @classmethod
    def made_with(cls, arguments: Mapping[str, Argument]) -> Self:
        return cls(*_listed(cls, arguments))

    def shown(self) -> list[str]:
        """The members as pairs."""
        return [f"({name!r}, {show(tx)})" for name, tx in self.members.items()]

    @property
    def measuring(self) -> bool:  # type: ignore[override]
        """Whether the first member takes, or gives, another tree than that of the parameters."""
        return bool(self.members) and next(iter(self.members.values())).measuring

    def init(self, params: Params) -> dict[str, State]:
        """A state for each member, by name."""
        return {name: tx.init(params) for name, tx in self.members.items()}

    def step(self, updates: Updates, state: dict, params: Params | None = None, **extra_args: ExtraArg) -> tuple[Updates, State]:
        """Each member's step, in turn."""
        if state.keys() != self.members.keys():
            trees.raise_wrong_state(state, dict, f"a dict with keys {', '.join(map(repr, self.members))}")
        after = {}
        for name, tx in self.members.items():
            updates, after[name] = tx.advance(updates, state[name], params, extra_args)
        return updates, after

    @property
    def inside(self) -> tuple[Transformation, ...]:
        """The members."""
        return tuple(self.members.values())

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        """Each member with its state."""
        return tuple(Part(tx, params, state[name]) for name, tx in self.members.items())

    def undone(self, before: State, after: State) -> State:
        """What is left in each member."""
        return {name: tx.undone(before[name], after[name]) for name, tx in self.members.items()}


def _listed(cls: type, arguments: Mapping[str, Argument]) -> Sequence:
    """The members in arguments by name, as a config has them."""
    members = arguments.get("args", ())
    if set(arguments) - {"args"} or not isinstance(members, (list, tuple)):
        raise TypeError(f"{cls.__name__}: its arguments are {checks.kind(arguments)}, expected a list with the key 'args'.")
    return members


def check_order(name: str, members: Sequence[Transformation]) -> None:
    """Raises where a member spoils what the one before it gives.

    It changes updates that must be applied as they are, or takes every call for a step after an
    accumulation.
    """
    for i, tx in enumerate(members):
        found = final_in(tx)
        after = next((later for later in members[i + 1 :] if not changes_nothing(later)), None)
        if found is not None and after is not None:
            raise ValueError(
                f"{name}: argument {i} is {tx!r}, before {after!r}, but the updates of {type(found).__name__} must be applied "
                "as they are. Expected it last, with what changes updates inside it."
            )
        _check_steps(name, i, tx, members[i + 1 :])


def _check_steps(name: str, i: int, tx: Transformation, later: Sequence[Transformation]) -> None:
    """Raises for an accumulation before what takes every call for a step.

    Masks may keep the two apart; then nothing is raised.
    """
    found = next((one for one in everything(tx) if one.gathers), None)
    if found is None:
        return
    for after in later:
        apart = all(any(one.narrows for one in everything(both)) for both in (tx, after))
        if not (apart or rests(after)):
            raise ValueError(
                f"{name}: argument {i} {'is' if found is tx else 'holds'} {found!r}, whose updates are zero between its steps, but "
                f"{after!r} after it takes every call for a step. Put it inside: accumulate(chain(...), every_k)."
            )
