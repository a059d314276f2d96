"""Watching which transformations make state for which parameters."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gradtx.core.values import Call


class Seen(NamedTuple):
    """One call of a declared transformation's `init`: the parameters it got, its state, and the calls made inside it, in order."""

    call: Call
    params: Any
    state: Any
    inside: "list[Seen]"


class _Watching(threading.local):
    seen: list[Seen] | None = None


_watching = _Watching()


@contextlib.contextmanager
def watching() -> Iterator[list[Seen]]:
    """Collects the outermost calls of `init` made in its block."""
    before, seen = _watching.seen, []
    _watching.seen = seen
    try:
        yield seen
    finally:
        _watching.seen = before


def initialized(call: Call, function: Callable[[Any], Any], params: Any) -> Any:
    """`function(params)`, told to whoever watches."""
    outer = _watching.seen
    if outer is None:
        return function(params)
    with watching() as inside:
        state = function(params)
    outer.append(Seen(call, params, state, inside))
    return state
