"""Evaluating elsewhere than at the parameters: at an average, or at a second point of a step."""

from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import checks
from gradtx.core.leaves import cast_like, is_masked, is_masked_or_none
from gradtx.core.paths import ROOT, beginning, leaves_by_path, path_str, structure_difference
from gradtx.core.transformation import state_types
from gradtx.core.trees import check_leaves, check_no_module, raise_other_shape
from gradtx.core.types import Params, State, Tree, Updates


def eval_params(state: State, params: Params) -> Tree:
    """The parameters to evaluate with: an average where the optimizer keeps one, else `params`.

    AcceleGrad and UniXGrad, for example, prove their rates for an average, not for the point where
    gradients are taken. Works inside `jit`. Under `masked` or `partition` only the leaves that an
    average covers change.

    Args:
      state: state of any transformation, or a container of such states: a TrainState,
        `optimizer.opt_state` of an `nnx.Optimizer`.
      params: the parameters that the state belongs to.

    Returns:
      A tree like `params`, in its dtypes. A transformation takes part if its state is a NamedTuple
      with a method `eval_params(self, params)` that gives such a tree, with `MaskedNode` where it
      has nothing to say. States inside such a state are its own affair: the outermost one speaks.

    Raises:
      TypeError: `state` is a transformation, or `params` is a state or a module.
      ValueError: an average has another structure or shape than `params`, or two averages cover one
        leaf (a chain with two averaging optimizers): pass the one state that is meant.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.accelegrad(diameter=2.0), {"w": jnp.array([1.0])}
      >>> state = tx.init(params)
      >>> for _ in range(3):
      ...     updates, state = tx.update(params, state, params)
      ...     params = gradtx.apply_updates(params, updates)
      >>> no_average = gradtx.sgd(0.1).init(params)
      >>> gradtx.eval_params(state, params)["w"].round(4)
      Array([-0.3861], dtype=float32)
      >>> gradtx.eval_params(no_average, params) is params
      True
    """
    if checks.is_transformation(state):
        raise TypeError(f"eval_params: state is {checks.kind(state)}, expected the state that tx.init or tx.update returned.")
    _check_params(params)
    own = leaves_by_path(params, is_leaf=is_masked_or_none)
    chosen, sources = dict(own), {}
    for place, node in _outermost(state, lambda node: hasattr(node, "eval_params")):
        source = f"{type(node).__name__} at {place or 'the top of the state'}"
        average = node.eval_params(params)
        found = leaves_by_path(average, is_leaf=is_masked_or_none)
        masked = {path for path, leaf in found.items() if is_masked(leaf)}  # for all below, perhaps
        visible = {beginning(path, masked) or path for path in own}
        if visible != found.keys():
            shown, known = ({"/".join(path) or ROOT: 0 for path in paths} for paths in (visible, found))
            difference = structure_difference("params", shown, f"the average of {source}", known)
            raise ValueError(f"eval_params: {difference}. Does the state belong to these parameters?")
        for path, leaf in found.items():
            if is_masked_or_none(leaf) or is_masked_or_none(own[path]):
                continue
            name = "/".join(path) or ROOT
            if path in sources:
                raise ValueError(
                    f"eval_params: two averages, {sources[path]} and {source}, cover the leaf `{name}`; "
                    "pass the one state that is meant instead of the whole."
                )
            if np.shape(leaf) != np.shape(own[path]):
                raise ValueError(
                    f"eval_params: params leaf `{name}` has shape {np.shape(own[path])}, but the average of {source} has "
                    f"{np.shape(leaf)} there. Does the state belong to these parameters?"
                )
            sources[path] = source
            chosen[path] = jnp.asarray(leaf).astype(jnp.result_type(own[path]))
    if not sources:
        return params
    return jax.tree.structure(params).unflatten([leaf for leaf in chosen.values() if not is_masked_or_none(leaf)])


def gradient_at(grad_fn: Callable[[Params], Updates], point: Tree, params: Params, updates: Updates) -> Tree:
    """`grad_fn` at a point of the state, in the parameters' dtypes: the second gradient of a step.

    Args:
      grad_fn: function from the parameters to the gradient on the minibatch that also gave
        `updates`.
      point: tree like the parameters, of any dtypes.
      params: the parameters.
      updates: the gradient that was handed in, whose structure and shapes the second one must have.

    Raises:
      TypeError, ValueError: `grad_fn` is no function, or gives something else than a gradient.
    """
    if not callable(grad_fn) or checks.is_factory(grad_fn):
        raise checks.WrongType(
            f"grad_fn is {checks.kind(grad_fn)}, expected a function from the parameters to their gradient, "
            "as jax.grad(loss) makes one."
        )
    gradient = grad_fn(cast_like(point, params))
    if jax.tree.structure(gradient) != jax.tree.structure(updates):
        pair = ""
        if type(gradient) is tuple:
            first = bool(gradient) and jax.tree.structure(gradient[0]) == jax.tree.structure(updates)
            pair = " jax.value_and_grad gives a pair, of which the gradient is the second."
            pair = " jax.grad with has_aux gives a pair, of which the gradient is the first." if first else pair
        raise checks.WrongValue(
            f"{structure_difference('updates', updates, 'what grad_fn returns', gradient)}. "
            f"It must be a gradient with respect to the parameters, as `updates` are.{pair}"
        )
    check_leaves("what grad_fn returns,", gradient)
    raise_other_shape(gradient, updates, "updates", scalars=False, own="what grad_fn returns,")
    return gradient


def _check_params(params: Params) -> None:
    """Raises a `TypeError` for a module, and for what holds a state."""
    with checks.calling("eval_params"):
        check_no_module(params)
    declared = state_types()
    for place, node in _outermost(params, lambda node: isinstance(node, declared) or hasattr(node, "eval_params")):
        where = f" at {place}" if place else ""
        raise TypeError(
            f"eval_params: params is {checks.kind(params)}, which holds the state of an optimizer, {checks.kind(node)}{where}; "
            "were state and params swapped? The call is eval_params(state, params)."
        )


def _outermost(node: Tree, wanted: Callable[[Tree], bool], place: str = "") -> Iterator[tuple[str, Tree]]:
    """The outermost named tuples of a kind, each with its place."""
    fields = getattr(node, "_fields", None)
    if fields is not None and wanted(node):
        yield place, node
    elif fields is not None or isinstance(node, (Mapping, list, tuple)):
        items = zip(fields, node, strict=True) if fields else node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, child in items:
            yield from _outermost(child, wanted, f"{place}/{key}" if place else str(key))
    else:  # another container, such as a TrainState
        for key, child in jax.tree_util.tree_leaves_with_path(node, is_leaf=lambda x: x is not node):
            if key:
                yield from _outermost(child, wanted, f"{place}/{path_str(key)}" if place else path_str(key))
