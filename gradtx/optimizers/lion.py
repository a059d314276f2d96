"""Lion: the sign of an interpolated momentum."""

from dataclasses import KW_ONLY
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.checks import Decay, FloatDType, Mask, Positive, Rate, one_of
from gradtx.core.leaves import map_leaves, zeros_like
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.transformation import Params, Preset, Transformation, Updates
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

Mode = Annotated[Literal["hard", "smooth", "refined"], one_of("hard", "smooth", "refined")]


class ScaleByLionState(NamedTuple):
    """Steps taken, and the momentum."""

    count: jax.Array
    mu: Any


def _lion(g: jax.Array, m: jax.Array, *, b1: Any, b2: Any, mode: str, smooth_beta: Any) -> tuple[jax.Array, jax.Array]:
    c = b1 * m + (1 - b1) * g
    m = b2 * m + (1 - b2) * g
    if mode == "smooth":
        return jnp.tanh(smooth_beta * c), m
    if mode == "refined":
        return jnp.where(jnp.abs(c) < 1, c, jnp.sign(c)), m
    return jnp.sign(c), m


class scale_by_lion(Transformation, keeps_zero=True):
    """Lion's direction: `sign(c)`, with `c = b1*m + (1-b1)*g`, then `m = b2*m + (1-b2)*g`.

    Args:
      b1: weight of the momentum in the direction, in [0, 1).
      b2: decay of the momentum, in [0, 1).
      mu_dtype: dtype of the momentum; None is float32, or wider for wider parameters.
      mode: 'hard' is `sign(c)`; 'smooth' is `tanh(smooth_beta * c)`; 'refined' is `c` where `|c| < 1`, else `sign(c)`.
      smooth_beta: steepness of 'smooth', > 0.

    State: `ScaleByLionState(count int32, mu)`; 4 bytes a parameter.

    Returns:
      The transformation. One unit of a learning rate after it moves each parameter by 1 a step.

    Raises:
      ValueError, TypeError: an argument outside its domain.

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
        self, updates: Updates, state: ScaleByLionState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, ScaleByLionState]:
        hypers = {"b1": self.b1, "b2": self.b2, "mode": self.mode, "smooth_beta": self.smooth_beta}
        updates, mu = map_leaves(_lion, updates, state.mu, **hypers)
        return updates, ScaleByLionState(safe_increment(state.count), mu)


class lion(Preset):
    """Lion: `-learning_rate * (sign(b1*m + (1-b1)*g) + weight_decay * p)`; see `scale_by_lion`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by 1 a step. A third to a tenth of Adam's.
      b1, b2, mu_dtype: as in `scale_by_lion`.
      weight_decay: number >= 0 or schedule; decoupled.
      mask: which parameters decay, as in `add_decayed_weights`; None is all.

    State: `(ScaleByLionState, decay state, ScaleByLearningRateState)`; 4 bytes a parameter.

    Returns:
      The transformation; its update needs `params`.

    Raises:
      ValueError, TypeError: an argument outside its domain, or `params` was not passed to `update`.

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

    def chain(self) -> Any:
        return chain(
            scale_by_lion(self.b1, self.b2, self.mu_dtype),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )
