"""Stochastic gradient descent: plain, with momentum, with decoupled decay, with noise."""

from typing import Any

from gradtx.compose.chain import chain
from gradtx.compose.plain import identity
from gradtx.core.checks import DecayOrSchedule, Flag, FloatDType, Mask, NonNegative, Rate
from gradtx.core.transformation import GradientTransformation, Preset
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import trace
from gradtx.transforms.noise import Key, add_noise
from gradtx.transforms.scaling import scale_by_learning_rate


class sgd(Preset):
    """Stochastic gradient descent: `-learning_rate * m`, with `m = g + momentum * m` (see `trace`), or `m = g`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves parameters by the gradient.
      momentum: number in [0, 1) or schedule; None is plain descent.
      nesterov: whether momentum looks one step ahead.
      accumulator_dtype: dtype of the momentum; None is float32, or wider for wider parameters.

    State: `(TraceState or EmptyState, ScaleByLearningRateState)`; 4 bytes a parameter with momentum, else 0.

    Raises:
      ValueError, TypeError: an argument outside its domain.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.sgd(0.5)
      >>> tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))[0]
      Array([-1.], dtype=float32)

    Source: Robbins and Monro 1951; Sutskever et al. 2013.
    """

    learning_rate: Rate
    momentum: DecayOrSchedule | None = None
    nesterov: Flag = False
    accumulator_dtype: FloatDType | None = None

    def chain(self) -> Any:
        return chain(_momentum(self.momentum, self.nesterov, self.accumulator_dtype), scale_by_learning_rate(self.learning_rate))


class sgdw(Preset):
    """SGD with decoupled weight decay: `-learning_rate * (m + weight_decay * p)`, the decay outside the momentum.

    An L2 penalty, which passes through the momentum, is `chain(add_decayed_weights(l2), sgd(...))`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves parameters by the gradient.
      momentum, nesterov, accumulator_dtype: as in `sgd`.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor `1 - learning_rate * weight_decay`.
      mask: which parameters decay, as in `add_decayed_weights`; None is all.

    State: as `sgd`, and the decay's; 4 bytes a parameter with momentum, else 0.

    Returns:
      The transformation; its update needs `params`.

    Raises:
      ValueError, TypeError: an argument outside its domain, or `params` was not passed to `update`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.sgdw(0.5, weight_decay=0.5), jnp.array([2.0])
      >>> tx.update(jnp.array([1.0]), tx.init(params), params)[0]
      Array([-1.], dtype=float32)

    Source: Loshchilov and Hutter 2017, arXiv:1711.05101, algorithm 1, with the decay multiplied by the learning rate.
    """

    learning_rate: Rate
    momentum: DecayOrSchedule | None = None
    nesterov: Flag = False
    accumulator_dtype: FloatDType | None = None
    weight_decay: Rate = 1e-4
    mask: Mask | None = None

    def chain(self) -> Any:
        return chain(
            _momentum(self.momentum, self.nesterov, self.accumulator_dtype),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )


class noisy_sgd(Preset):
    """SGD with Gaussian noise on the gradient: `-learning_rate * (g + sqrt(eta / t^gamma) * xi)`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves parameters by the noisy gradient.
      eta, gamma, key: variance, its fall, and random key or seed, as in `add_noise`.

    State: `(AddNoiseState, ScaleByLearningRateState)`; one key.

    Raises:
      ValueError, TypeError: an argument outside its domain.

    Example:
      >>> import gradtx
      >>> gradtx.noisy_sgd(0.1, key=7)
      noisy_sgd(learning_rate=0.1, key=7)

    Source: Neelakantan et al. 2015, arXiv:1511.06807.
    """

    learning_rate: Rate
    eta: NonNegative = 0.01
    gamma: NonNegative = 0.55
    key: Key = 0

    def chain(self) -> Any:
        return chain(add_noise(self.eta, self.gamma, self.key), scale_by_learning_rate(self.learning_rate))


def _momentum(momentum: Any, nesterov: bool, accumulator_dtype: Any) -> GradientTransformation:
    return identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype)
