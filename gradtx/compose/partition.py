"""A transformation for each group of parameters."""

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import jax

from gradtx.compose.labels import spread, spread_mask
from gradtx.compose.masking import MaskedState, select, update_selected
from gradtx.core import checks, leaves
from gradtx.core.base import GradientTransformation, member, set_to_zero
from gradtx.core.checks import Flag, Mask, Transformation
from gradtx.core.values import factory


class PartitionState(NamedTuple):
    """Each group's state, by label."""

    inner_states: Mapping[Hashable, Any]


@factory(composite=True, transparent=True)
def partition(
    transforms: Mapping[Hashable, Any], param_labels: Any, *, mask_compatible_extra_args: Flag = False
) -> GradientTransformation:
    """Applies to each parameter the transformation of its label.

    Args:
      transforms: transformations by label.
      param_labels: tree of labels with the parameters' paths (a label stands for all below it), or a function from the
        parameters to one, such as `by_path`.
      mask_compatible_extra_args: whether extra arguments that are trees like the updates are masked too.

    State: `PartitionState(inner_states)`, a dict from labels to `MaskedState`, each with state for its own leaves alone.

    Returns:
      The transformation. `multi_transform` is another name for it.

    Raises:
      TypeError: `transforms` is no mapping to transformations.
      ValueError: a label has no transformation, a parameter has no label, or a label belongs to no parameter's path.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.partition({"slow": gradtx.sgd(0.1), "fast": gradtx.sgd(1.0)}, {"w": "slow", "b": "fast"})
      >>> params = {"w": jnp.ones(()), "b": jnp.ones(())}
      >>> {k: round(float(u), 2) for k, u in tx.update(params, tx.init(params))[0].items()}
      {'b': -1.0, 'w': -0.1}
    """
    if not isinstance(transforms, Mapping):
        raise TypeError(f"partition: transforms is {checks.kind(transforms)}, expected a dict from labels to transformations.")
    for label, tx in transforms.items():
        checks.check_argument("partition", f"transforms[{label!r}]", tx, checks.TRANSFORMATION)
    members = {label: member(tx) for label, tx in transforms.items()}

    def labels_of(params: Any) -> list[Any]:
        labels = spread("param_labels", param_labels, params)
        for label in labels:
            if label not in members:
                known = ", ".join(map(repr, members))
                raise ValueError(
                    f"{checks.where()}: param_labels has the label {label!r}, which has no transformation; "
                    f"transforms has {known}.{checks.did_you_mean(str(label), members)}"
                )
        return labels

    def init(params: Any) -> PartitionState:
        labels = labels_of(params)
        return PartitionState(
            {name: MaskedState(tx.init(select(params, [label == name for label in labels]))) for name, tx in members.items()}
        )

    def update(updates: Any, state: PartitionState, params: Any = None, **extra_args: Any) -> tuple[Any, PartitionState]:
        if set(state.inner_states) != set(members):
            leaves.raise_wrong_state(state, PartitionState, f"a PartitionState with labels {', '.join(map(repr, members))}")
        labels, states, out = labels_of(updates), {}, updates
        for name, tx in members.items():
            keep = [label == name for label in labels]
            inner = state.inner_states[name]
            out, states[name] = update_selected(tx, keep, out, inner, params, extra_args, mask_compatible_extra_args)
        return out, PartitionState(states)

    return GradientTransformation(init, update)


multi_transform = partition
"""Another name for `partition`."""


@factory(composite=True, transparent=True)
def selective_transform(optimizer: Transformation, *, freeze_mask: Mask) -> GradientTransformation:
    """Optimizes the parameters where `freeze_mask` is False; the others stay, without optimizer state.

    Args:
      optimizer: transformation for the trained parameters.
      freeze_mask: True for the parameters to freeze; a tree of booleans, or a function from the parameters to one.

    State: as `partition` with labels `train` and `freeze`.

    Returns:
      The transformation.

    Raises:
      ValueError, TypeError: as `masked`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.selective_transform(gradtx.adam(0.1), freeze_mask={"w": True, "b": False})
      >>> params = {"w": jnp.ones(1000), "b": jnp.ones(2)}
      >>> sum(x.size for x in __import__("jax").tree.leaves(tx.init(params)))
      6
    """

    def labels(params: Any) -> Any:
        frozen = spread_mask("freeze_mask", freeze_mask, params)
        return jax.tree.structure(params).unflatten(["freeze" if f else "train" for f in frozen])

    return partition({"train": optimizer, "freeze": set_to_zero()}, labels)
