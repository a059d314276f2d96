"""AdaDelta: steps in the units of the parameters, by two running means of squares."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Mask, NonNegative, Rate
from gradtx.core.leaves import each_leaf, real_full_like
from gradtx.core.numerics import abs_sq, guarded_ratio, running_mean
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


class ScaleByAdaDeltaState(NamedTuple):
    """The running means of squared gradients and of squared updates."""

    e_g: Updates
    e_x: Updates


class scale_by_adadelta(Transformation, keeps_zero=True):
    """AdaDelta's direction: `u = sqrt(e_x + eps) / sqrt(e_g + eps) * g`.

    With `e_g = rho*e_g + (1-rho)*|g|^2` before it, and `e_x = rho*e_x + (1-rho)*|u|^2` after it.
    Its first steps are of about `sqrt(eps)`.

    Args:
      rho: decay of both means, in [0, 1).
      eps: added inside the roots, >= 0; in units of the gradient squared. Zero moves nothing, since
        the means of updates start at 0.

    State: `ScaleByAdaDeltaState(e_g, e_x)`; 8 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_adadelta()
      >>> updates, state = tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))
      >>> updates.round(4)
      Array([ 0.0032, -0.0032], dtype=float32)

    Source: Zeiler 2012, arXiv:1212.5701, algorithm 1.

    **Differs:** Optax keeps half-precision parameters' means in half precision.
    """

    rho: Decay = 0.9
    eps: NonNegative = 1e-6

    def init(self, params: Params) -> ScaleByAdaDeltaState:
        return ScaleByAdaDeltaState(real_full_like(params, 0), real_full_like(params, 0))

    def step(
        self, updates: Updates, state: ScaleByAdaDeltaState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByAdaDeltaState]:
        @each_leaf
        def rule(g: jax.Array, e_g: jax.Array, e_x: jax.Array) -> tuple[jax.Array, ...]:
            e_g = running_mean(e_g, abs_sq(g), self.rho)
            u = guarded_ratio(jnp.sqrt(e_x + self.eps), jnp.sqrt(e_g + self.eps), self.eps) * g
            return u, e_g, running_mean(e_x, abs_sq(u), self.rho)

        updates, e_g, e_x = rule(updates, state.e_g, state.e_x)
        return updates, ScaleByAdaDeltaState(e_g, e_x)


class adadelta(Preset):
    """AdaDelta: `-learning_rate * u`, with an L2 penalty before it; see `scale_by_adadelta`.

    Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; the paper's is 1. None leaves the direction without
        its minus sign.
      rho: decay of both means, in [0, 1).
      eps: added inside the roots, >= 0; in units of the gradient squared. Zero moves nothing, since
        the means of updates start at 0.
      weight_decay: number >= 0 or schedule, of the L2 penalty.
      weight_decay_mask: which parameters decay: a tree of booleans (or a prefix of one), or a
        function from the parameters to one, such as `by_path({...: False}, default=True)`. None is
        all.

    State: `(WeightDecayState, ScaleByAdaDeltaState, ScaleByLearningRateState)`; 8 bytes a
    parameter.

    Example:
      >>> import gradtx
      >>> gradtx.adadelta(1.0)
      adadelta(learning_rate=1.0)

    Source: Zeiler 2012, arXiv:1212.5701.
    """

    learning_rate: Rate | None = None
    rho: Decay = 0.9
    eps: NonNegative = 1e-6
    weight_decay: Rate = 0.0
    weight_decay_mask: Mask | None = None

    def chain(self) -> Transformation:
        return chain(
            add_decayed_weights(self.weight_decay, self.weight_decay_mask),
            scale_by_adadelta(self.rho, self.eps),
            scale_by_learning_rate(self.learning_rate),
        )
