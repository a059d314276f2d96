"""Transformations one after another."""

from typing import Any

import jax

from gradtx.core import checks, leaves
from gradtx.core.base import GradientTransformation, with_extra_args_support
from gradtx.core.checks import Transformation
from gradtx.core.values import factory


@factory(composite=True)
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

    Example:
      >>> import gradtx
      >>> gradtx.chain(gradtx.clip(1.0), gradtx.scale(-0.1))
      chain(clip(max_delta=1.0), scale(step_size=-0.1))
    """
    members = [with_extra_args_support(tx) for tx in args]

    def init(params: Any) -> tuple[Any, ...]:
        return tuple(tx.init(params) for tx in members)

    def update(updates: Any, state: tuple, params: Any = None, **extra_args: Any) -> tuple[Any, tuple[Any, ...]]:
        if len(state) != len(members) or hasattr(state, "_fields"):
            leaves.raise_wrong_state(state, tuple, f"a tuple of {len(members)} states, one for each member")
        new, wide = [], leaves.widen(updates)
        for tx, inner in zip(members, state, strict=True):
            wide, inner = tx.update(wide, inner, params, **extra_args)
            new.append(inner)
        return _narrowed(wide, updates), tuple(new)

    return GradientTransformation(init, update)


@factory(composite=True)
def named_chain(*args: tuple[str, Any]) -> GradientTransformation:
    """`chain` with a name for each member, under which its state is found.

    Args:
      *args: pairs `(name, transformation)`, in order of application; names are distinct strings.

    State: a dict from names to states.

    Returns:
      The transformation.

    Raises:
      TypeError: an argument is no such pair.
      ValueError: a name occurs twice.

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
    members = {name: with_extra_args_support(tx) for name, tx in args}

    def init(params: Any) -> dict[str, Any]:
        return {name: tx.init(params) for name, tx in members.items()}

    def update(updates: Any, state: dict, params: Any = None, **extra_args: Any) -> tuple[Any, dict[str, Any]]:
        if state.keys() != members.keys():
            leaves.raise_wrong_state(state, dict, f"a dict with keys {', '.join(map(repr, members))}")
        new, wide = {}, leaves.widen(updates)
        for name, tx in members.items():
            wide, new[name] = tx.update(wide, state[name], params, **extra_args)
        return _narrowed(wide, updates), new

    return GradientTransformation(init, update)


def _narrowed(wide: Any, updates: Any) -> Any:
    """The dtypes of `updates` again; a chain that changes the tree (as `flatten` does) keeps what it made."""
    if jax.tree.structure(wide) != jax.tree.structure(updates):
        return wide
    return leaves.cast_like(wide, updates)
