"""A transformation for each group of parameters."""

from collections.abc import Hashable, Mapping
from dataclasses import KW_ONLY
from typing import NamedTuple

import jax

from gradtx.compose.labels import spread, spread_mask
from gradtx.compose.masking import MaskedState, select, update_selected
from gradtx.compose.plain import set_to_zero
from gradtx.core import checks, domains, trees
from gradtx.core.composites import Preset
from gradtx.core.domains import Flag, Mask
from gradtx.core.pairs import Inner, as_transformation
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import ExtraArg, Leaf, Params, State, Tree, Updates


class PartitionState(NamedTuple):
    """Each group's state, by label."""

    inner_states: Mapping[Hashable, State]


class partition(Transformation, transparent=True, any_leaves=True, narrows=True):
    """Applies to each parameter the transformation of its label.

    Args:
      transforms: transformations by label.
      param_labels: tree of labels with the parameters' paths (a label stands for all below it), or
        a function from the parameters to one, such as `by_path`.
      mask_compatible_extra_args: whether extra arguments that are trees like the updates are masked
        too.

    State: `PartitionState(inner_states)`, a dict from labels to `MaskedState`, each with state for
      its own leaves alone.

    Raises:
      TypeError: `transforms` is no mapping to transformations.
      ValueError: a label has no transformation, a parameter has no label, or a label belongs to no
        parameter's path.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> speeds = {"slow": gradtx.sgd(0.1), "fast": gradtx.sgd(1.0)}
      >>> tx = gradtx.partition(speeds, {"w": "slow", "b": "fast"})
      >>> params = {"w": jnp.ones(()), "b": jnp.ones(())}
      >>> {k: round(float(u), 2) for k, u in tx.update(params, tx.init(params))[0].items()}
      {'b': -1.0, 'w': -0.1}
    """

    transforms: Mapping[Hashable, Inner]
    param_labels: Tree
    _: KW_ONLY
    mask_compatible_extra_args: Flag = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.transforms, Mapping):
            found = checks.kind(self.transforms)
            raise TypeError(f"partition: transforms is {found}, expected a dict from labels to transformations.")
        for label, tx in self.transforms.items():
            domains.check_argument("partition", f"transforms[{label!r}]", tx, domains.TRANSFORMATION)
        object.__setattr__(self, "transforms", {label: as_transformation(tx) for label, tx in self.transforms.items()})

    def labels_of(self, params: Params) -> list[Leaf]:
        """The label of each leaf."""
        labels = spread("param_labels", self.param_labels, params)
        for label in labels:
            if label not in self.transforms:
                known = ", ".join(map(repr, self.transforms))
                raise checks.WrongValue(
                    f"param_labels has the label {label!r}, which has no transformation; "
                    f"transforms has {known}.{checks.did_you_mean(str(label), self.transforms)}"
                )
        return labels

    def init(self, params: Params) -> PartitionState:
        """Each group's state, for its own leaves alone."""
        labels = self.labels_of(params)
        return PartitionState(
            {
                name: MaskedState(tx.init(select(params, [label == name for label in labels])))
                for name, tx in self.transforms.items()
            }
        )

    def step(
        self, updates: Updates, state: PartitionState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, PartitionState]:
        """A step for each group."""
        if set(state.inner_states) != set(self.transforms):
            labels = ", ".join(map(repr, self.transforms))
            trees.raise_wrong_state(state, PartitionState, f"a PartitionState with labels {labels}")
        labels, states, out = self.labels_of(updates), {}, updates
        for name, tx in self.transforms.items():
            keep = [label == name for label in labels]
            inner = state.inner_states[name]
            out, states[name] = update_selected(tx, keep, out, inner, params, extra_args, self.mask_compatible_extra_args)
        return out, PartitionState(states)

    @property
    def inside(self) -> tuple[Transformation, ...]:
        """Each group's transformation."""
        return tuple(self.transforms.values())

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        """Each group's transformation, with the leaves that it sees."""
        labels = [] if params is None else self.labels_of(params)
        return tuple(
            Part(tx, select(params, [label == name for label in labels]), state.inner_states[name].inner_state)
            for name, tx in self.transforms.items()
        )

    def undone(self, before: PartitionState, after: PartitionState) -> PartitionState:
        """What is left in each group."""
        old, new = before.inner_states, after.inner_states
        return PartitionState(
            {name: MaskedState(tx.undone(old[name].inner_state, new[name].inner_state)) for name, tx in self.transforms.items()}
        )


multi_transform = partition
"""Another name for `partition`."""


class selective_transform(Preset, transparent=True):
    """Optimizes parameters where `freeze_mask` is False; the others stay, without any state.

    Args:
      optimizer: transformation for the trained parameters.
      freeze_mask: True for the parameters to freeze; a tree of booleans, or a function from the
        parameters to one.

    State: as `partition` with labels `train` and `freeze`.

    Raises:
      ValueError, TypeError: as `masked`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.selective_transform(gradtx.adam(0.1), freeze_mask={"w": True, "b": False})
      >>> params = {"w": jnp.ones(1000), "b": jnp.ones(2)}
      >>> sum(x.size for x in __import__("jax").tree.leaves(tx.init(params)))
      6
    """

    optimizer: Inner
    _: KW_ONLY
    freeze_mask: Mask

    def chain(self) -> partition:
        """The optimizer where the mask is False, zero elsewhere."""
        return partition({"train": self.optimizer, "freeze": set_to_zero()}, self._labels)

    def _labels(self, params: Params) -> Tree:
        frozen = spread_mask("freeze_mask", self.freeze_mask, params)
        return jax.tree.structure(params).unflatten(["freeze" if f else "train" for f in frozen])
