"""Transformations for some of the parameters."""

import functools
from dataclasses import KW_ONLY
from typing import NamedTuple

import jax

from gradtx.compose.labels import spread_mask
from gradtx.compose.plain import set_to_zero
from gradtx.core.composites import Preset
from gradtx.core.domains import Flag, Mask
from gradtx.core.leaves import MaskedNode
from gradtx.core.pairs import Inner
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import Extra, ExtraArg, Leaf, Params, Scalar, State, Tree, Updates


class MaskedState(NamedTuple):
    """The wrapped transformation's state, with `MaskedNode` for the leaves that it does not see."""

    inner_state: State


class masked(Transformation, transparent=True, any_leaves=True, narrows=True):
    """Applies a transformation where the mask is True; other updates pass and have no state.

    The extra arguments `value_fn`, `grad_fn` and `grad` reach the inner one as those of its own
    leaves, the others held where they are, so that line searches and SAM work on some of the
    parameters.

    Args:
      inner: the transformation.
      mask: tree of booleans with the parameters' paths (a boolean stands for all below it), or a
        function from parameters to one.
      mask_compatible_extra_args: whether extra arguments that are trees like the updates are masked
        too.

    State: `MaskedState(inner_state)`, with nothing for masked leaves.

    Raises:
      TypeError: `mask` holds something else than booleans (text, say).
      ValueError: a parameter has no entry in `mask`, or the mask has one that is not in the
        parameters; the message names the path.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.masked(gradtx.scale(10.0), {"w": True, "b": False})
      >>> params = {"w": jnp.zeros(()), "b": jnp.zeros(())}
      >>> updates, _ = tx.update({"w": jnp.ones(()), "b": jnp.ones(())}, tx.init(params))
      >>> float(updates["w"]), float(updates["b"])
      (10.0, 1.0)
    """

    inner: Inner
    mask: Mask
    _: KW_ONLY
    mask_compatible_extra_args: Flag = False

    def init(self, params: Params) -> MaskedState:
        """The state of the wrapped transformation for the leaves that it sees."""
        return MaskedState(self.inner.init(select(params, spread_mask("mask", self.mask, params))))

    def step(
        self, updates: Updates, state: MaskedState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, MaskedState]:
        """A step for the leaves where the mask is True."""
        keep = spread_mask("mask", self.mask, updates)
        return update_selected(self.inner, keep, updates, state, params, extra_args, self.mask_compatible_extra_args)

    @property
    def inside(self) -> tuple[Transformation, ...]:
        """The wrapped transformation."""
        return (self.inner,)

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        """The wrapped transformation, with the leaves that it sees."""
        some = None if params is None else select(params, spread_mask("mask", self.mask, params))
        return (Part(self.inner, some, state.inner_state),)

    def undone(self, before: MaskedState, after: MaskedState) -> MaskedState:
        """What is left in the wrapped transformation."""
        return MaskedState(self.inner.undone(before.inner_state, after.inner_state))


def update_selected(
    inner: Transformation,
    keep: list[bool],
    updates: Updates,
    state: MaskedState,
    params: Params,
    extra_args: Extra,
    mask_extra_args: bool,
) -> tuple[Tree, MaskedState]:
    """Updates the leaves that are kept, and leaves the others as they are."""
    if mask_extra_args:
        like = jax.tree.structure(updates)
        extra_args = {k: select(v, keep) if jax.tree.structure(v) == like else v for k, v in extra_args.items()}
    if params is not None:
        extra_args = {**extra_args, **_narrowed(extra_args, params, keep)}
    some_params = None if params is None else select(params, keep)
    changed, inner_state = inner.advance(select(updates, keep), state.inner_state, some_params, extra_args)
    return merge(updates, keep, jax.tree.leaves(changed)), MaskedState(inner_state)


def _narrowed(extra_args: Extra, params: Params, keep: list[bool]) -> dict[str, ExtraArg]:
    """`value_fn`, `grad_fn` and `grad` of the kept leaves, with the others held at `params`."""

    def whole(some: Params) -> Params:
        return merge(params, keep, jax.tree.leaves(some))

    narrowed: dict[str, ExtraArg] = {}
    if callable(value_fn := extra_args.get("value_fn")):
        call = value_fn

        @functools.wraps(call)  # line searches read which arguments it takes by name
        def value_of_some(some: Params, *args: ExtraArg, **kwargs: ExtraArg) -> Scalar:
            return call(whole(some), *args, **kwargs)

        narrowed["value_fn"] = value_of_some
        if len(jax.tree.leaves(grad := extra_args.get("grad"))) == len(keep):
            narrowed["grad"] = select(grad, keep)
    if callable(grad_fn := extra_args.get("grad_fn")):
        narrowed["grad_fn"] = lambda some: select(grad_fn(whole(some)), keep)
    return narrowed


def select(tree: Tree, keep: list[bool]) -> Tree:
    """`tree` with `MaskedNode()` for the leaves that are not kept."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten([leaf if kept else MaskedNode() for leaf, kept in zip(leaves, keep, strict=True)])


def merge(tree: Tree, keep: list[bool], kept: list[Leaf]) -> Tree:
    """`tree` with `kept` for the leaves that are kept."""
    leaves, treedef = jax.tree.flatten(tree)
    new = iter(kept)
    return treedef.unflatten([next(new) if own else leaf for leaf, own in zip(leaves, keep, strict=True)])


class freeze(Preset, transparent=True):
    """Sets updates to zero where the mask is True: those parameters stay. Put it last in a chain.

    To keep frozen parameters without any optimizer state, use `selective_transform`.

    Args:
      mask: True for the parameters to freeze; as in `masked`.

    State: `MaskedState(EmptyState())`, 0 bytes.

    Raises:
      ValueError, TypeError: as `masked`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> frozen = gradtx.by_path({"w": True}, default=False)
      >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.freeze(frozen))
      >>> params = {"w": jnp.ones(()), "b": jnp.ones(())}
      >>> {k: float(u) for k, u in tx.update(params, tx.init(params))[0].items()}
      {'b': -1.0, 'w': 0.0}
    """

    mask: Mask

    def chain(self) -> masked:
        """Zero where the mask is True."""
        return masked(set_to_zero(), self.mask)
