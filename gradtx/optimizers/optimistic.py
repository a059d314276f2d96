"""Optimistic steps: the last gradient is taken back, for games and saddle points."""

from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Flag, FloatDType, NonNegative, Number, Rate
from gradtx.core.leaves import each_leaf, zeros_like
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.scaling import scale_by_learning_rate


class ScaleByOptimisticGradientState(NamedTuple):
    """Whether the first step is to come, and the last updates that came in."""

    is_initial_step: jax.Array
    previous_gradient: Updates


class scale_by_optimistic_gradient(Transformation):
    """`(alpha + beta) * g - beta * g_last`; at the first step `alpha * g`.

    In games, where gradients turn, plain descent circles or diverges; this form converges in
    bilinear ones.

    Args:
      alpha: weight of the gradient, any finite number.
      beta: how much of its change is added, any finite number.

    State: `ScaleByOptimisticGradientState(is_initial_step bool, previous_gradient)`; 4 bytes a
    parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_optimistic_gradient()
      >>> _, state = tx.update(jnp.array([1.0]), tx.init(jnp.zeros(1)))
      >>> tx.update(jnp.array([3.0]), state)[0]
      Array([5.], dtype=float32)

    Source: Daskalakis et al. 2017, arXiv:1711.00141; `alpha` and `beta`: Mokhtari et al. 2019,
    arXiv:1901.08511.

    **Differs:** Optax keeps half-precision parameters' last gradients in half precision.
    """

    alpha: Number = 1.0
    beta: Number = 1.0

    def init(self, params: Params) -> ScaleByOptimisticGradientState:
        return ScaleByOptimisticGradientState(jnp.asarray(True), zeros_like(params))

    def step(
        self, updates: Updates, state: ScaleByOptimisticGradientState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByOptimisticGradientState]:
        @each_leaf
        def rule(g: jax.Array, last: jax.Array) -> tuple[jax.Array, ...]:
            last = jnp.where(state.is_initial_step, g, last)
            return g * (self.alpha + self.beta) - last * self.beta, g

        updates, last = rule(updates, state.previous_gradient)
        return updates, ScaleByOptimisticGradientState(jnp.asarray(False), last)


class optimistic_gradient_descent(Preset):
    """Optimistic descent: `-learning_rate * ((alpha + beta) * g - beta * g_last)`.

    See `scale_by_optimistic_gradient`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves by `alpha` times the gradient.
      alpha: weight of the gradient, any finite number.
      beta: how much of its change is added, any finite number.

    State: `(ScaleByOptimisticGradientState, ScaleByLearningRateState)`; 4 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, xy = gradtx.optimistic_gradient_descent(0.3), jnp.array([1.0, 1.0])
      >>> state = tx.init(xy)
      >>> for _ in range(200):  # x minimizes x*y, y maximizes it
      ...     updates, state = tx.update(jnp.array([xy[1], -xy[0]]), state)
      ...     xy = gradtx.apply_updates(xy, updates)
      >>> bool(jnp.abs(xy).max() < 1e-3)
      True

    Source: Daskalakis et al. 2017, arXiv:1711.00141.

    **Differs:** Optax's annotations allow schedules for `alpha` and `beta`, its code does not.
    """

    learning_rate: Rate
    alpha: Number = 1.0
    beta: Number = 1.0

    def chain(self) -> Transformation:
        return chain(scale_by_optimistic_gradient(self.alpha, self.beta), scale_by_learning_rate(self.learning_rate))


class optimistic_adam_v2(Preset):
    """Optimistic Adam: Adam's direction, of which the last one is taken back.

    `-learning_rate * ((alpha + beta) * u - beta * u_last)`, with `u` of `scale_by_adam`; see
    `scale_by_optimistic_gradient`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about `alpha` a step.
      alpha: weight of the gradient, any finite number.
      beta: how much of its change is added, any finite number.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared. Above zero where
        derivatives through the update are wanted.
      mu_dtype: dtype in which the first moment is stored; None is float32, or wider for wider
        parameters.
      nesterov: whether to look one step of momentum ahead (Nadam).

    State: `(ScaleByAdamState, ScaleByOptimisticGradientState, ScaleByLearningRateState)`; 12 bytes
    a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.optimistic_adam_v2(1e-3, beta=0.5)
      optimistic_adam_v2(learning_rate=0.001, beta=0.5)

    Source: Daskalakis et al. 2017, arXiv:1711.00141, algorithm 1.
    """

    learning_rate: Rate
    _: KW_ONLY
    alpha: Number = 1.0
    beta: Number = 1.0
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: FloatDType | None = None
    nesterov: Flag = True

    def chain(self) -> Transformation:
        return chain(
            scale_by_adam(self.b1, self.b2, self.eps, self.eps_root, self.mu_dtype, nesterov=self.nesterov),
            scale_by_optimistic_gradient(self.alpha, self.beta),
            scale_by_learning_rate(self.learning_rate),
        )
