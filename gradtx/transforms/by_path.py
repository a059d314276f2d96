"""Updates times a number for each parameter."""

from typing import Annotated

import jax
import jax.numpy as jnp

from gradtx.compose.labels import spread
from gradtx.core import checks
from gradtx.core.domains import Domain, interval
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.transformation import EmptyState, Transformation
from gradtx.core.types import ExtraArg, Params, Tree, Updates

_NUMBER = interval(float("-inf"), float("inf"), "()")


def _are_numbers(value: Tree) -> bool:
    leaves = jax.tree.leaves(value)
    if len(leaves) == 1 and leaves[0] is value:
        return callable(value) and not isinstance(value, type)
    return all(map(_NUMBER.contains, leaves))


Multipliers = Annotated[Tree, Domain("a tree of numbers, or a function from parameters to one", _are_numbers)]


class scale_by_path(Transformation, keeps_zero=True):
    """Multiplies each parameter's update by a number of its own: `multiplier * u`.

    After an optimizer's direction it gives parameters rates of their own, all under one schedule.
    What comes after it, such as a weight decay, is not multiplied.

    Args:
      multipliers: a tree of numbers like the parameters (or a prefix of it), or a function from the
        parameters to one, such as `by_path({".*embed.*": 0.5}, default=1.0)`.

    State: `EmptyState()`, 0 bytes.

    Raises:
      ValueError: a parameter has no number, or a number stands where no parameter is.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> slower = gradtx.by_path({"embed": 0.1}, default=1.0)
      >>> tx = gradtx.chain(gradtx.scale_by_path(slower), gradtx.sgd(1.0))
      >>> params = {"embed": jnp.ones(()), "kernel": jnp.ones(())}
      >>> {k: round(float(u), 3) for k, u in tx.update(params, tx.init(params))[0].items()}
      {'embed': -0.1, 'kernel': -1.0}

    Source: rates by layer as in Yang et al. 2022, arXiv:2203.03466.
    """

    multipliers: Multipliers

    def numbers(self, params: Params) -> list[float]:
        """The number of each leaf."""
        found = spread("multipliers", self.multipliers, params)
        for parts, number in zip(leaves_by_path(params), found, strict=True):
            if not _NUMBER.contains(number):
                path = "/".join(parts) or ROOT
                raise checks.WrongType(f"multipliers gives {checks.kind(number)} for `{path}`, expected {_NUMBER.text}.")
        return found

    def init(self, params: Params) -> EmptyState:
        self.numbers(params)  # a tree of other parameters fails here, not at the first step
        return EmptyState()

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        leaves, treedef = jax.tree.flatten(updates)
        scaled = [
            (number * jnp.asarray(u)).astype(jnp.result_type(u)) for number, u in zip(self.numbers(updates), leaves, strict=True)
        ]
        return treedef.unflatten(scaled), state
