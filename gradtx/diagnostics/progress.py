"""A bar on the terminal for loops that run inside compiled programs."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

_advance: list[Callable[[], None]] = []


@contextlib.contextmanager
def bar(name: str, total: int, shown: bool) -> Iterator[None]:
    """Shows a bar while the block runs, if wanted; it grows by one each time that compiled code passes a `tick`."""
    if not shown:
        yield
        return
    try:
        from rich.progress import Progress
    except ImportError as error:
        raise ImportError(f"{name}: progress=True draws with rich, which is not installed: pip install rich.") from error
    with Progress() as progress:
        task = progress.add_task(name, total=total)
        _advance.append(lambda: progress.advance(task))
        try:
            yield
            jax.effects_barrier()
        finally:
            _advance.pop()


def tick(shown: bool) -> None:
    """Lets the bar grow by one, inside compiled code, if one is shown."""
    if shown:
        jax.debug.callback(_grow)


def _grow(*_: Any) -> None:
    if _advance:
        _advance[-1]()
