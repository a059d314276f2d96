"""A bar on the terminal for long loops."""

import contextlib
from collections.abc import Callable, Iterator

import jax

from gradtx.core.types import Tree

Tick = Callable[[Tree], Tree]
"""A function that gives back what it gets."""


@contextlib.contextmanager
def bar(name: str, total: int, shown: bool) -> Iterator[Tick]:
    """A function that gives back what it gets.

    With `shown` it waits until that is computed, and the bar grows by one.
    """
    if not shown:
        yield lambda x: x
        return
    try:
        from rich.progress import Progress
    except ImportError as error:
        raise ImportError(f"{name}: progress=True draws with rich, which is not installed: pip install rich.") from error
    with Progress() as progress:
        task = progress.add_task(name, total=total)

        def tick(x: Tree) -> Tree:
            jax.block_until_ready(x)
            progress.advance(task)
            return x

        yield tick
