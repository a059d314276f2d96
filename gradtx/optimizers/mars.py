"""MARS: gradients corrected by their change, then Adam; the correction alone for any method."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Bound, Decay, Mask, NonNegative, Rate
from gradtx.core.leaves import each_leaf, zeros_like
from gradtx.core.numerics import root_sum_squares
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


class GradientCorrectionState(NamedTuple):
    """The last gradient."""

    last: Updates


class add_gradient_correction(Transformation, keeps_zero=True):
    """Adds the change of the gradient, to reduce its variance: `c * min(1, max_norm / |c|)`.

    `c = g + gamma * b1/(1-b1) * (g - g_last)`, with `g_last = 0` at the first step; norms are those
    of leaves. It stands first in a chain. A momentum of decay `b1` over `c` follows the gradient of
    the newest point as STORM's does, whose second gradient a step it replaces by the last one.
    After it any method may stand: MARS-Lion is `ema(b1, debias=False), scale_by_sign()`,
    MARS-Shampoo `ema(b1, debias=False), orthogonalize(), scale_by_shape()`.

    Args:
      b1: decay of the first moment, in [0, 1).
      gamma: weight of the correction, >= 0; at 1 it is STORM's.
      max_norm: largest norm of a leaf's `c`, >= 0; inf for none.

    State: `GradientCorrectionState(last)`; 4 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.add_gradient_correction(b1=0.5, gamma=0.5)
      >>> _, state = tx.update(jnp.array([0.2]), tx.init(jnp.zeros(1)))
      >>> tx.update(jnp.array([0.4]), state)[0]  # 0.4 + 0.5 * (0.4 - 0.2)
      Array([0.5], dtype=float32)

    Source: Yuan et al. 2024, "MARS", arXiv:2411.10438, equation for `c_t` of the approximate form,
    as in https://github.com/AGI-Arena/MARS.
    """

    b1: Decay = 0.95
    gamma: NonNegative = 0.025
    max_norm: Bound = 1.0

    def init(self, params: Params) -> GradientCorrectionState:
        return GradientCorrectionState(zeros_like(params))

    def step(
        self, updates: Updates, state: GradientCorrectionState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, GradientCorrectionState]:
        weight = self.gamma * self.b1 / (1 - self.b1)
        bounded = not (isinstance(self.max_norm, (int, float)) and math.isinf(self.max_norm))

        @each_leaf
        def rule(g: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
            c = g + weight * (g - last)
            return _within(c, self.max_norm) if bounded else c, g

        updates, last = rule(updates, state.last)
        return updates, GradientCorrectionState(last)


def _within(c: jax.Array, max_norm: Bound) -> jax.Array:
    norm = root_sum_squares([c])
    large = norm > max_norm
    return c * jnp.where(large, max_norm / jnp.where(large, norm, 1), 1)


class mars(Preset):
    """MARS-AdamW: AdamW on corrected gradients: `-learning_rate * (u + weight_decay * p)`.

    `u` is the direction of `scale_by_adam` for what `add_gradient_correction` gives. Its update
    needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. Often
        3e-3.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      gamma: weight of the correction, >= 0; at 1 it is STORM's.
      max_norm: largest norm of a leaf's `c`, >= 0; inf for none.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `(GradientCorrectionState, ScaleByAdamState, WeightDecayState,
      ScaleByLearningRateState)`; 12 bytes a parameter.

    Example:
      >>> import gradtx
      >>> tx = gradtx.mars(3e-3)

      Vectors with AdamW, as in the authors' code by default:

      >>> labels = gradtx.by_path({r".*kernel": "mars"}, default="adamw")
      >>> vectors = gradtx.adamw(3e-3, 0.9, 0.95, weight_decay=0.1)
      >>> tx = gradtx.partition({"mars": gradtx.mars(3e-3), "adamw": vectors}, labels)

    Source: Yuan et al. 2024, arXiv:2411.10438, algorithm 2; constants as in
    https://github.com/AGI-Arena/MARS.
    """

    learning_rate: Rate
    b1: Decay = 0.95
    b2: Decay = 0.99
    eps: NonNegative = 1e-8
    gamma: NonNegative = 0.025
    max_norm: Bound = 1.0
    weight_decay: Rate = 0.0
    mask: Mask | None = None

    def chain(self) -> Transformation:
        return chain(
            add_gradient_correction(self.b1, self.gamma, self.max_norm),
            scale_by_adam(self.b1, self.b2, self.eps),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )
