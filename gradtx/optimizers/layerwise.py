"""Steps in proportion to each layer's norm: LARS, LAMB, Fromage."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.masking import masked
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Flag, Mask, NonNegative, Number, Rate, scheduled_value
from gradtx.core.leaves import each_leaf
from gradtx.core.numerics import default_float, safe_increment, zero_count
from gradtx.core.transformation import EmptyState, Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate, scale_by_trust_ratio


class lars(Preset):
    """LARS: momentum SGD whose steps are in proportion to each leaf's norm, for large batches.

    `m = momentum*m - learning_rate * trust_coefficient * |p|/(|d| + eps) * d`, with
    `d = g + weight_decay*p`. Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each leaf by `trust_coefficient` of its
        norm a step, before momentum.
      weight_decay: number >= 0 or schedule, of the L2 penalty inside the norm.
      weight_decay_mask: which parameters decay: a tree of booleans (or a prefix of one), or a
        function from the parameters to one, such as `by_path({...: False}, default=True)`.
      trust_coefficient: the factor, any finite number.
      eps: added to the update's norm, >= 0.
      trust_ratio_mask: which leaves' steps are in proportion to their norms, in the same form.
      momentum: decay of the momentum, in [0, 1).
      nesterov: whether to look one step ahead.

    State: `(WeightDecayState, MaskedState, ScaleByLearningRateState, TraceState)`; 4 bytes a
    parameter.

    Example:
      >>> import gradtx
      >>> gradtx.lars(1.0, weight_decay=1e-4)
      lars(learning_rate=1.0, weight_decay=0.0001)

    Source: You et al. 2017, arXiv:1708.03888.
    """

    learning_rate: Rate
    weight_decay: Rate = 0.0
    weight_decay_mask: Mask = True
    trust_coefficient: Number = 0.001
    eps: NonNegative = 0.0
    trust_ratio_mask: Mask = True
    momentum: Decay = 0.9
    nesterov: Flag = False

    def chain(self) -> Transformation:
        return chain(
            add_decayed_weights(self.weight_decay, self.weight_decay_mask),
            masked(scale_by_trust_ratio(trust_coefficient=self.trust_coefficient, eps=self.eps), self.trust_ratio_mask),
            scale_by_learning_rate(self.learning_rate),
            trace(self.momentum, self.nesterov),
        )


class lamb(Preset):
    """LAMB: Adam's direction with decay, in proportion to each leaf's norm, for large batches.

    `-learning_rate * |p|/|d| * d`, with `d = adam(g) + weight_decay*p`. Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each leaf by its norm a step.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared. Above zero where
        derivatives through the update are wanted.
      weight_decay: number >= 0 or schedule, before the norm is taken.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `(ScaleByAdamState, WeightDecayState, EmptyState, ScaleByLearningRateState)`; 8 bytes a
    parameter.

    Example:
      >>> import gradtx
      >>> gradtx.lamb(0.01, weight_decay=0.01)
      lamb(learning_rate=0.01, weight_decay=0.01)

    Source: You et al. 2019, arXiv:1904.00962, algorithm 2, with `phi` the identity.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-6
    eps_root: NonNegative = 0.0
    weight_decay: Rate = 0.0
    mask: Mask | None = None

    def chain(self) -> Transformation:
        return chain(
            scale_by_adam(self.b1, self.b2, self.eps, self.eps_root),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_trust_ratio(),
            scale_by_learning_rate(self.learning_rate),
        )


class FromageState(NamedTuple):
    """The rate in use, and, for a schedule, the steps taken."""

    learning_rate: jax.Array
    count: jax.Array | None


class fromage(Transformation, needs_params=True):
    """Fromage: a relative step in each leaf, then a shrink that keeps norms from growing.

    `p = (p - learning_rate * |p|/|g| * g) / sqrt(1 + learning_rate^2)`, leaf by leaf. Its update
    needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; the length of a step relative to each leaf's norm.
        Often 0.01.
      min_norm: floor of both norms, >= 0.

    State: `FromageState(learning_rate float32, count int32)`: 4 bytes, 8 with a schedule.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.fromage(0.75), jnp.array([3.0, 4.0])
      >>> tx.update(jnp.array([0.0, 0.1]), tx.init(params), params)[0].round(1)
      Array([-0.6, -3.8], dtype=float32)

    Source: Bernstein et al. 2020, arXiv:2002.03432, algorithm 1.

    **Differs:** Optax's state is that of its links.
    """

    learning_rate: Rate
    min_norm: NonNegative = 1e-6

    def rate(self, count: jax.Array | None) -> jax.Array:
        """The rate at a step, as it is in the state."""
        return jnp.array(scheduled_value("learning_rate", self.learning_rate, count), default_float())

    def init(self, params: Params) -> FromageState:
        count = zero_count() if callable(self.learning_rate) else None
        return FromageState(self.rate(count), count)

    def step(
        self, updates: Updates, state: FromageState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, FromageState]:
        rate = self.rate(state.count)
        root = jnp.sqrt(1 + rate * rate)
        lost = rate * rate / (root * (1 + root))  # 1 - 1/root, without its cancellation
        relative, _ = scale_by_trust_ratio(self.min_norm).step(updates, EmptyState(), params)

        @each_leaf
        def rule(u: jax.Array, p: jax.Array) -> jax.Array:
            return -lost * p - (1 - lost) * rate * u

        return rule(relative, params), FromageState(rate, None if state.count is None else safe_increment(state.count))
