"""Weight decay."""

from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.labels import spread_mask
from gradtx.compose.masking import merge, select
from gradtx.core.domains import Mask, Positive, Rate, scheduled_value
from gradtx.core.leaves import each_leaf
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, Updates


class WeightDecayState(NamedTuple):
    """Steps taken, for a schedule of the decay."""

    count: jax.Array | None = None


class add_decayed_weights(Transformation, needs_params=True):
    """Adds a multiple of the parameters to the updates: `u + weight_decay * p`.

    Before an optimizer this is an L2 penalty `weight_decay/2 * |p|^2`; after it, and before the
    learning rate, it is decoupled weight decay. The two agree for plain SGD only. Its update needs
    `params`.

    Args:
      weight_decay: number >= 0, or a schedule of the steps taken so far.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `WeightDecayState(count int32)`, 4 bytes with a schedule, else 0.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> l2_sgd = gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.sgd(1.0))
      >>> params = jnp.array([10.0])
      >>> l2_sgd.update(jnp.array([0.5]), l2_sgd.init(params), params)[0]
      Array([-1.5], dtype=float32)

    Source: Loshchilov and Hutter 2017, arXiv:1711.05101.
    """

    weight_decay: Rate = 0.0
    mask: Mask | None = None

    def init(self, params: Params) -> WeightDecayState:
        self.touches(params)  # a mask of another tree fails here, not at the first step
        return WeightDecayState(zero_count() if callable(self.weight_decay) else None)

    def step(
        self, updates: Updates, state: WeightDecayState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, WeightDecayState]:
        amount = self.weight_decay
        if callable(amount):
            amount = scheduled_value("weight_decay", amount, state.count)
        if not is_zero(amount):
            updates = self.decayed(updates, params, amount)
        return updates, WeightDecayState(None if state.count is None else safe_increment(state.count))

    def decayed(self, updates: Updates, params: Params, amount: Scalar) -> Updates:
        """The updates of the parameters that decay, with the multiple of them added."""

        @each_leaf
        def rule(u: jax.Array, p: jax.Array) -> jax.Array:
            return u + amount * self.pulled(u, p)

        if self.mask is None:
            return rule(updates, params)
        keep = spread_mask("mask", self.mask, params)
        return merge(updates, keep, jax.tree.leaves(rule(select(updates, keep), select(params, keep))))

    def pulled(self, u: jax.Array, p: jax.Array) -> jax.Array:
        """The parameters that decay under an update; the others as 0."""
        return p

    def touches(self, params: Params) -> list[bool]:
        """The parameters that decay."""
        if is_zero(self.weight_decay):
            return [False] * len(jax.tree.leaves(params))
        return super().touches(params) if self.mask is None else spread_mask("mask", self.mask, params)


class add_cautious_decayed_weights(add_decayed_weights):
    """Decay only where it agrees with the update: `u + weight_decay * p * (u*p >= 0)`.

    Goes after an optimizer's direction and before the learning rate, which turns its sign. Of
    complex numbers the sign is that of `real(u * conj(p))`. Its update needs `params`.

    Args:
      weight_decay: number >= 0, or a schedule of the steps taken so far.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `WeightDecayState(count int32)`, 4 bytes with a schedule, else 0.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.add_cautious_decayed_weights(0.5)
      >>> params = jnp.array([2.0, -2.0])
      >>> tx.update(jnp.array([1.0, 1.0]), tx.init(params), params)[0]
      Array([2., 1.], dtype=float32)

    Source: Chen et al. 2025, "Cautious Weight Decay", arXiv:2510.12402.
    """

    def pulled(self, u: jax.Array, p: jax.Array) -> jax.Array:
        """The parameters that have the update's sign."""
        return jnp.where((u * p.conj()).real >= 0, p, 0)


class add_independent_decayed_weights(add_decayed_weights):
    """Decay that no learning rate scales: `u - weight_decay * p`.

    Goes last in a chain, after the learning rate: each step shrinks parameters by the factor
    `1 - weight_decay`. To follow a schedule's form without its height, give
    `lambda step: weight_decay * rate(step) / highest`. Its update needs `params`.

    Args:
      weight_decay: number >= 0, or a schedule of the steps taken so far.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `WeightDecayState(count int32)`, 4 bytes with a schedule, else 0.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.adam(1e-3), gradtx.add_independent_decayed_weights(0.1))
      >>> params = jnp.array([2.0])
      >>> tx.update(jnp.zeros(1), tx.init(params), params)[0]
      Array([-0.2], dtype=float32)

    Source: Loshchilov and Hutter 2017, arXiv:1711.05101, algorithm 2; its use across widths:
    Wortsman et al. 2023, arXiv:2309.14322.
    """

    def pulled(self, u: jax.Array, p: jax.Array) -> jax.Array:
        """The parameters, backwards."""
        return -p


class add_corrected_decayed_weights(add_decayed_weights):
    """AdamC's decay: `u + weight_decay * learning_rate/max_learning_rate * p`.

    For weights that a normalization follows, before the learning rate: under a falling rate the
    norms of their gradients then stay where they are, and do not rise at the end of training. The
    other weights, such as those of the output head, get `add_decayed_weights`. Its update needs
    `params`.

    Args:
      weight_decay: number >= 0, or a schedule of the steps taken so far.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.
      learning_rate: number >= 0 or schedule: that of the chain.
      max_learning_rate: the highest value of `learning_rate`, > 0.

    State: `WeightDecayState(count int32)`, 4 bytes with a schedule, else 0.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> rate = gradtx.cosine_decay_schedule(1e-3, 10_000)
      >>> inside = gradtx.by_path({"head/kernel": False, ".*bias": False}, default=True)
      >>> head = gradtx.by_path({"head/kernel": True}, default=False)
      >>> decays = dict(learning_rate=rate, max_learning_rate=1e-3)
      >>> adamc = gradtx.chain(
      ...     gradtx.scale_by_adam(),
      ...     gradtx.add_corrected_decayed_weights(0.05, inside, **decays),
      ...     gradtx.add_decayed_weights(0.05, head),
      ...     gradtx.scale_by_learning_rate(rate),
      ... )

    Source: Defazio 2025, "Why Gradients Rapidly Increase Near the End of Training",
    arXiv:2506.02285, algorithm 1.
    """

    _: KW_ONLY
    learning_rate: Rate
    max_learning_rate: Positive

    def init(self, params: Params) -> WeightDecayState:
        self.touches(params)
        return WeightDecayState(zero_count() if callable(self.weight_decay) or callable(self.learning_rate) else None)

    def step(
        self, updates: Updates, state: WeightDecayState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, WeightDecayState]:
        decay = scheduled_value("weight_decay", self.weight_decay, state.count)
        rate = scheduled_value("learning_rate", self.learning_rate, state.count)
        updates = self.decayed(updates, params, decay * rate / self.max_learning_rate)
        return updates, WeightDecayState(None if state.count is None else safe_increment(state.count))


def is_zero(weight_decay: object) -> bool:
    """Whether a decay is known to be 0 when the optimizer is made."""
    return isinstance(weight_decay, (int, float)) and weight_decay == 0
