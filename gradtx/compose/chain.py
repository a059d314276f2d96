"""Transformations one after another."""

from collections.abc import Sequence
from typing import Any

import jax

from gradtx.core import checks, leaves
from gradtx.core.base import GradientTransformation, Update, last_of, member, observes
from gradtx.core.checks import Transformation
from gradtx.core.values import factory


@factory(composite=True, transparent=True)
def chain(*args: Transformation) -> GradientTransformation:
    """Applies transformations in turn: `tx_n(... tx_2(tx_1(g)))`.

    Half-precision updates pass from one to the next in float32 and are rounded once, at the end.

    Args:
      *args: transformations, in order of application.

    State: a tuple of the transformations' states.

    Returns:
      The transformation; extra arguments reach every member.

    Raises:
      TypeError: a member is no transformation (a factory that was not called, a schedule, a list).
      ValueError: a member's updates must be applied as they are (`ema_params`, `lookahead_wrapper`, `schedule_free`), but another
        comes after it.

    Example:
      >>> import gradtx
      >>> gradtx.chain(gradtx.clip(1.0), gradtx.scale(-0.1))
      chain(clip(max_delta=1.0), scale(step_size=-0.1))
    """
    _check_order("chain", args)
    members = [member(tx) for tx in args]

    def init(params: Any) -> tuple[Any, ...]:
        return tuple(tx.init(params) for tx in members)

    def update(updates: Any, state: tuple, params: Any = None, **extra_args: Any) -> tuple[Any, tuple[Any, ...]]:
        if len(state) != len(members) or hasattr(state, "_fields"):
            leaves.raise_wrong_state(state, tuple, f"a tuple of {len(members)} states, one for each member")
        new, wide = [], leaves.widen(updates)
        for i, (tx, inner) in enumerate(zip(members, state, strict=True)):
            wide, inner = _updated(i, tx, wide, inner, params, extra_args)
            new.append(inner)
        return _narrowed(wide, updates), tuple(new)

    return GradientTransformation(init, update)


@factory(composite=True, transparent=True)
def named_chain(*args: tuple[str, Any]) -> GradientTransformation:
    """`chain` with a name for each member, under which its state is found.

    Args:
      *args: pairs `(name, transformation)`, in order of application; names are distinct strings.

    State: a dict from names to states.

    Returns:
      The transformation.

    Raises:
      TypeError: an argument is no such pair.
      ValueError: a name occurs twice, or as `chain`.

    Example:
      >>> import gradtx
      >>> tx = gradtx.named_chain(("clip", gradtx.clip_by_global_norm(1.0)), ("opt", gradtx.adam(1e-3)))
      >>> sorted(tx.init({"w": 1.0}))
      ['clip', 'opt']
    """
    names = []
    for i, pair in enumerate(args):
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise TypeError(f"named_chain: argument {i} is {checks.kind(pair)}, expected a pair (name, transformation).")
        checks.check_argument("named_chain", f"argument {i} ({pair[0]!r})", pair[1], checks.TRANSFORMATION)
        if pair[0] in names:
            raise ValueError(f"named_chain: the name {pair[0]!r} occurs twice, expected distinct names.")
        names.append(pair[0])
    _check_order("named_chain", [tx for _, tx in args])
    members = {name: member(tx) for name, tx in args}

    def init(params: Any) -> dict[str, Any]:
        return {name: tx.init(params) for name, tx in members.items()}

    def update(updates: Any, state: dict, params: Any = None, **extra_args: Any) -> tuple[Any, dict[str, Any]]:
        if state.keys() != members.keys():
            leaves.raise_wrong_state(state, dict, f"a dict with keys {', '.join(map(repr, members))}")
        new, wide = {}, leaves.widen(updates)
        for name, tx in members.items():
            wide, new[name] = _updated(name, tx, wide, state[name], params, extra_args)
        return _narrowed(wide, updates), new

    return GradientTransformation(init, update)


def _check_order(name: str, members: Sequence[Any]) -> None:
    changing = [i for i, tx in enumerate(members) if not observes(tx)]
    for i, tx in enumerate(members):
        if (found := last_of(tx)) is not None and any(j > i for j in changing):
            after = next(members[j] for j in changing if j > i)
            raise ValueError(
                f"{name}: argument {i} is {tx!r}, before {after!r}, but the updates of {_name(found)} must be applied as they are. "
                "Expected it last, with what changes updates inside it."
            )


def _name(tx: Any) -> str:
    return tx.update.call.factory.__name__ if isinstance(tx.update, Update) else type(tx).__name__


def _updated(place: int | str, tx: Any, updates: Any, state: Any, params: Any, extra_args: dict[str, Any]) -> tuple[Any, Any]:
    """A member's update; of one that no factory declared, what it returns is checked here."""
    changed, state = tx.update(updates, state, params, **extra_args)
    if not isinstance(tx.update, Update):
        with checks.calling(f"argument {place!r}"):
            leaves.check_returned(changed, updates, params)
    return changed, state


def _narrowed(wide: Any, updates: Any) -> Any:
    """The dtypes of `updates` again; those of `LookaheadParams`, two for each update, stay as they are."""
    if jax.tree.structure(wide) != jax.tree.structure(updates):
        return wide
    return leaves.cast_like(wide, updates)
