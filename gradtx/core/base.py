"""The bridge's names of what moved to `transformation`; it goes with the last factory that is a function."""

from typing import Any

from gradtx.core import transformation
from gradtx.core.transformation import (
    EmptyState,
    GradientTransformation,
    OptState,
    Params,
    Updates,
    as_transformation,
    final_in,
    wants,
)

__all__ = [
    "EmptyState",
    "GradientTransformation",
    "OptState",
    "Params",
    "Updates",
    "check_not_last",
    "check_steps",
    "init_empty_state",
    "last_of",
    "member",
    "wants_of",
]

member = as_transformation


def init_empty_state(params: Any) -> EmptyState:
    """No state."""
    return EmptyState()


def wants_of(tx: Any) -> frozenset[str]:
    """Extra arguments."""
    if isinstance(tx, dict):
        return frozenset().union(*map(wants_of, tx.values()))
    return wants(as_transformation(tx))


def last_of(tx: Any) -> Any:
    """The final one inside."""
    return final_in(as_transformation(tx))


def check_not_last(name: str, argument: str, inner: Any) -> None:
    """As `check_not_final`."""
    transformation.check_not_final(name, argument, as_transformation(inner))


def check_steps(name: str, argument: str, inner: Any) -> None:
    """As that of `transformation`."""
    transformation.check_steps(name, argument, as_transformation(inner))
