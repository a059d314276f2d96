"""The one walk over what is inside a transformation, and what it finds."""

from collections.abc import Iterator

from gradtx.core.transformation import Transformation


def everything(tx: Transformation) -> Iterator[Transformation]:
    """A transformation and all that are inside it, however deep, from the outside in."""
    yield tx
    for inner in tx.inside:
        yield from everything(inner)


def changes_nothing(tx: Transformation) -> bool:
    """Whether a transformation changes no update: it observes, or hands updates on to such."""
    return tx.observes or (tx.transparent and bool(tx.inside) and all(map(changes_nothing, tx.inside)))


def rests(tx: Transformation) -> bool:
    """Whether updates of zero move nothing, and change nothing of the updates that come later."""
    if tx.transparent:
        return all(map(rests, tx.inside))
    keeps_state = type(tx).unchecked_init is not Transformation.unchecked_init
    return tx.rests or tx.observes or (tx.keeps_zero and not keeps_state)


def final_in(tx: Transformation) -> Transformation | None:
    """The outermost transformation inside `tx` whose updates must be applied as they are."""
    return next((one for one in everything(tx) if one.final), None)


def check_not_final(name: str, argument: str, inner: Transformation) -> None:
    """Raises for an inner transformation whose updates must be applied as they are."""
    if (found := final_in(inner)) is not None:
        raise ValueError(
            f"{name}: {argument} holds {found!r}, whose updates must be applied as they are, but {name} changes them. "
            f"Put {name} inside it."
        )


def check_steps(name: str, argument: str, inner: Transformation) -> None:
    """Raises for an accumulation inside a transformation that takes every call for a step."""
    found = next((one for one in everything(inner) if one.gathers), None)
    if found is not None:
        raise ValueError(
            f"{name}: {argument} holds {found!r}, whose updates are zero between its steps, but {name} takes every call for a "
            f"step. Put it inside: accumulate({name}({argument}), every_k)."
        )
