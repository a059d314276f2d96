"""Descent along signs: `sign_sgd`, `signum`."""

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, FloatDType, Rate
from gradtx.core.transformation import Transformation
from gradtx.transforms.momentum import ema
from gradtx.transforms.scaling import scale_by_learning_rate, scale_by_sign


class sign_sgd(Preset):
    """Descent along the gradient's sign: `-learning_rate * sign(g)`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by 1 a step.

    State: `(EmptyState, ScaleByLearningRateState)`; 0 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.sign_sgd(0.5)
      >>> tx.update(jnp.array([9.0, -0.1]), tx.init(jnp.zeros(2)))[0]
      Array([-0.5,  0.5], dtype=float32)

    Source: Bernstein et al. 2018, arXiv:1802.04434, algorithm 1.
    """

    learning_rate: Rate

    def chain(self) -> Transformation:
        return chain(scale_by_sign(), scale_by_learning_rate(self.learning_rate))


class signum(Preset):
    """Descent along the averaged gradient's sign: `-learning_rate * sign(m)`.

    With `m = beta * m + (1 - beta) * g`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by 1 a step.
      beta: decay of the average, in [0, 1).
      accumulator_dtype: dtype in which `m` is stored; None is float32, or wider for wider
        parameters.

    State: `(EmaState, EmptyState, ScaleByLearningRateState)`; 4 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.signum(0.5)
      >>> tx.update(jnp.array([9.0, -0.1]), tx.init(jnp.zeros(2)))[0]
      Array([-0.5,  0.5], dtype=float32)

    Source: Bernstein et al. 2018, arXiv:1802.04434, algorithm 2.
    """

    learning_rate: Rate
    beta: Decay = 0.9
    accumulator_dtype: FloatDType | None = None

    def chain(self) -> Transformation:
        return chain(ema(self.beta, False, self.accumulator_dtype), scale_by_sign(), scale_by_learning_rate(self.learning_rate))
