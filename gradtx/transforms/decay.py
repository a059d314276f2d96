"""Weight decay."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.masking import masked
from gradtx.compose.plain import identity
from gradtx.core.base import EmptyState, GradientTransformation, init_empty_state
from gradtx.core.checks import Mask, Rate, scheduled_value
from gradtx.core.leaves import map_leaves
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.trees import require_params
from gradtx.core.values import factory


class WeightDecayScheduleState(NamedTuple):
    """Steps taken, for the decay schedule."""

    count: jax.Array


def _add_decay(u: jax.Array, p: jax.Array, *, weight_decay: Any) -> jax.Array:
    return u + weight_decay * p


@factory()
def add_decayed_weights(weight_decay: Rate = 0.0, mask: Mask | None = None) -> GradientTransformation:
    """Adds a multiple of the parameters to the updates: `u + weight_decay * p`.

    Before an optimizer this is an L2 penalty `weight_decay/2 * |p|^2`; after it, and before the learning rate, it is
    decoupled weight decay. The two agree for plain SGD only.

    Args:
      weight_decay: number >= 0, or a schedule of the steps taken so far.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the parameters to one, such as
        `by_path({...: False}, default=True)`. None is all.

    State: `EmptyState()`; 4 bytes with a schedule; `MaskedState` with a mask.

    Returns:
      The transformation; its update needs `params`.

    Raises:
      ValueError: `weight_decay` is negative, or `params` was not passed to `update`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> l2_sgd = gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.sgd(1.0))
      >>> params = jnp.array([10.0])
      >>> l2_sgd.update(jnp.array([0.5]), l2_sgd.init(params), params)[0]
      Array([-1.5], dtype=float32)

    Source: Loshchilov and Hutter 2017, arXiv:1711.05101.
    """
    return _decaying(weight_decay, mask, _add_decay)


def _add_cautious_decay(u: jax.Array, p: jax.Array, *, weight_decay: Any) -> jax.Array:
    return u + jnp.where((u * p.conj()).real >= 0, weight_decay * p, 0)


@factory()
def add_cautious_decayed_weights(weight_decay: Rate = 0.0, mask: Mask | None = None) -> GradientTransformation:
    """Decay only where it agrees with the update: `u + weight_decay * p * (u*p >= 0)`.

    Goes where `add_decayed_weights` goes: after an optimizer's direction, before the learning rate that turns its sign.

    Args:
      weight_decay, mask: as in `add_decayed_weights`.

    State: as `add_decayed_weights`.

    Returns:
      The transformation; its update needs `params`.

    Raises:
      ValueError, TypeError: as `add_decayed_weights`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.add_cautious_decayed_weights(0.5)
      >>> params = jnp.array([2.0, -2.0])
      >>> tx.update(jnp.array([1.0, 1.0]), tx.init(params), params)[0]
      Array([2., 1.], dtype=float32)

    Source: Chen et al. 2025, "Cautious Weight Decay", arXiv:2510.12402.
    """
    return _decaying(weight_decay, mask, _add_cautious_decay)


def _is_zero(weight_decay: Any) -> bool:
    """Whether a decay is known to be 0 when the optimizer is made."""
    return isinstance(weight_decay, (int, float)) and weight_decay == 0


def _init_nothing(params: Any) -> Any:
    """The state of `identity`, which a decay of 0 is: so `summary` knows that it touches no parameter."""
    return identity().init(params)


def _decaying(weight_decay: Any, mask: Any, rule: Callable[..., jax.Array]) -> GradientTransformation:
    def decayed(updates: Any, params: Any, amount: Any) -> Any:
        require_params(params)
        if _is_zero(amount):
            return updates
        return map_leaves(rule, updates, params, weight_decay=amount)

    def update(updates: Any, state: EmptyState, params: Any = None, **extra_args: Any) -> tuple[Any, EmptyState]:
        return decayed(updates, params, weight_decay), state

    def init(params: Any) -> WeightDecayScheduleState:
        return WeightDecayScheduleState(zero_count())

    def scheduled(
        updates: Any, state: WeightDecayScheduleState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, WeightDecayScheduleState]:
        updates = decayed(updates, params, scheduled_value("weight_decay", weight_decay, state.count))
        return updates, WeightDecayScheduleState(safe_increment(state.count))

    if callable(weight_decay):
        tx = GradientTransformation(init, scheduled)
    else:
        tx = GradientTransformation(_init_nothing if _is_zero(weight_decay) else init_empty_state, update)
    return tx if mask is None else masked(tx, mask)
