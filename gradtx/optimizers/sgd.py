"""Stochastic gradient descent: plain, with momentum, with decoupled decay, with noise."""

from gradtx.compose.chain import chain
from gradtx.compose.plain import identity
from gradtx.core.composites import Preset
from gradtx.core.domains import DecayOrSchedule, Flag, FloatDType, Mask, NonNegative, Rate
from gradtx.core.transformation import Transformation
from gradtx.core.types import DType, Tree
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import trace
from gradtx.transforms.noise import Key, add_noise
from gradtx.transforms.scaling import scale_by_learning_rate


def momentum_of(momentum: Tree, nesterov: bool, accumulator_dtype: DType) -> Transformation:
    """A trace of the gradients, or nothing."""
    return identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype)


class sgd(Preset):
    """Stochastic gradient descent: `-learning_rate * m`, with `m = g + momentum * m`, or `m = g`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves parameters by the gradient.
      momentum: number in [0, 1) or schedule, the `decay` of a `trace`; None is plain descent.
      nesterov: whether to look one step ahead.
      accumulator_dtype: dtype in which `m` is stored; None is float32, or wider for wider
        parameters.

    State: `(TraceState or EmptyState, ScaleByLearningRateState)`; 4 bytes a parameter with
      momentum, else 0.

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

    def chain(self) -> Transformation:
        return chain(
            momentum_of(self.momentum, self.nesterov, self.accumulator_dtype),
            scale_by_learning_rate(self.learning_rate),
        )


class sgdw(Preset):
    """SGD with decoupled weight decay: `-learning_rate * (m + weight_decay * p)`.

    The decay is outside the momentum, `m = g + momentum * m`. An L2 penalty, which passes through
    it, is `chain(add_decayed_weights(l2), sgd(...))`. Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves parameters by the gradient.
      momentum: number in [0, 1) or schedule, the `decay` of a `trace`; None is plain descent.
      nesterov: whether to look one step ahead.
      accumulator_dtype: dtype in which `m` is stored; None is float32, or wider for wider
        parameters.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `(TraceState or EmptyState, WeightDecayState, ScaleByLearningRateState)`; 4 bytes a
      parameter with momentum, else 0.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.sgdw(0.5, weight_decay=0.5), jnp.array([2.0])
      >>> tx.update(jnp.array([1.0]), tx.init(params), params)[0]
      Array([-1.], dtype=float32)

    Source: Loshchilov and Hutter 2017, arXiv:1711.05101, algorithm 1, with the decay multiplied by
    the learning rate.
    """

    learning_rate: Rate
    momentum: DecayOrSchedule | None = None
    nesterov: Flag = False
    accumulator_dtype: FloatDType | None = None
    weight_decay: Rate = 1e-4
    mask: Mask | None = None

    def chain(self) -> Transformation:
        return chain(
            momentum_of(self.momentum, self.nesterov, self.accumulator_dtype),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )


class noisy_sgd(Preset):
    """SGD with Gaussian noise on the gradient: `-learning_rate * (g + sqrt(eta / t^gamma) * xi)`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves parameters by the noisy gradient.
      eta: variance at the first step, >= 0, in units of the update squared.
      gamma: how fast it falls, >= 0; 0 keeps it.
      key: random key, or a whole number to seed one.

    State: `(AddNoiseState, ScaleByLearningRateState)`; one key.

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

    def chain(self) -> Transformation:
        return chain(add_noise(self.eta, self.gamma, self.key), scale_by_learning_rate(self.learning_rate))
