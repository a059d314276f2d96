"""Lion: the sign of an interpolated momentum."""

from dataclasses import KW_ONLY
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, FloatDType, Mask, Positive, Rate, one_of
from gradtx.core.leaves import each_leaf, zeros_like
from gradtx.core.numerics import running_mean, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Moment, Params, Updates
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

Mode = Annotated[Literal["hard", "smooth", "refined"], one_of("hard", "smooth", "refined")]


class ScaleByLionState(NamedTuple):
    """Steps taken, and the momentum."""

    count: jax.Array
    mu: Moment


class scale_by_lion(Transformation, keeps_zero=True):
    """Lion's direction: `sign(c)`, with `c = b1*m + (1-b1)*g`, then `m = b2*m + (1-b2)*g`.

    One unit of a learning rate after it moves each parameter by 1 a step.

    Args:
      b1: weight of the momentum in the direction, in [0, 1).
      b2: decay of the momentum, in [0, 1).
      mu_dtype: dtype in which the momentum is stored; None is float32, or wider for wider
        parameters.
      mode: 'hard' is `sign(c)`; 'smooth' is `tanh(smooth_beta * c)`; 'refined' is `c` where
        `|c| < 1`, else `sign(c)`.
      smooth_beta: steepness of 'smooth', > 0; per unit of the gradient.

    State: `ScaleByLionState(count int32, mu)`; 4 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_lion()
      >>> tx.update(jnp.array([0.3, -2.0]), tx.init(jnp.zeros(2)))[0]
      Array([ 1., -1.], dtype=float32)

    Source: Chen et al. 2023, arXiv:2302.06675, algorithm 2.
    """

    b1: Decay = 0.9
    b2: Decay = 0.99
    mu_dtype: FloatDType | None = None
    _: KW_ONLY
    mode: Mode = "hard"
    smooth_beta: Positive = 1.0

    def init(self, params: Params) -> ScaleByLionState:
        return ScaleByLionState(zero_count(), zeros_like(params, self.mu_dtype))

    def step(
        self, updates: Updates, state: ScaleByLionState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByLionState]:
        @each_leaf
        def rule(g: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
            c = running_mean(m, g, self.b1)
            return self.sign(c), running_mean(m, g, self.b2)

        updates, mu = rule(updates, state.mu)
        return updates, ScaleByLionState(safe_increment(state.count), mu)

    def sign(self, c: jax.Array) -> jax.Array:
        """The sign of a leaf, as `mode` has it."""
        if self.mode == "smooth":
            return jnp.tanh(self.smooth_beta * c)
        return jnp.where(jnp.abs(c) < 1, c, jnp.sign(c)) if self.mode == "refined" else jnp.sign(c)


class lion(Preset):
    """Lion: `-learning_rate * (sign(b1*m + (1-b1)*g) + weight_decay * p)`; see `scale_by_lion`.

    Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by 1 a step. A third to
        a tenth of Adam's.
      b1: weight of the momentum in the direction, in [0, 1).
      b2: decay of the momentum, in [0, 1).
      mu_dtype: dtype in which the momentum is stored; None is float32, or wider for wider
        parameters.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `(ScaleByLionState, WeightDecayState, ScaleByLearningRateState)`; 4 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.lion(1e-4, weight_decay=0.1)
      lion(learning_rate=0.0001, weight_decay=0.1)

    Source: Chen et al. 2023, arXiv:2302.06675, algorithm 2.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.99
    mu_dtype: FloatDType | None = None
    weight_decay: Rate = 1e-3
    mask: Mask | None = None

    def chain(self) -> Transformation:
        return chain(
            scale_by_lion(self.b1, self.b2, self.mu_dtype),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )
