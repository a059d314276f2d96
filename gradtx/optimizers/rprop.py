"""Rprop: step sizes that grow while signs agree and shrink where they turn."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Fraction, NonNegative, Positive
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.transforms.scaling import scale


class ScaleByRpropState(NamedTuple):
    """The step size of each element, and the last updates."""

    step_sizes: Updates
    prev_updates: Updates


class scale_by_rprop(Transformation, keeps_zero=True):
    """Rprop's direction: `step_size * sign(g)`, with a step size for each element.

    The step size grows by `eta_plus` where `g` has the sign of the last update, and shrinks by
    `eta_minus` where it has the other; there the update is 0 once. For full batches: the sign of a
    noisy gradient says little. Of complex numbers the signs are `g/|g|`, and agree where
    `real(g * conj(u)) > 0`.

    Args:
      learning_rate: the first step size, >= 0; in units of the parameters.
      eta_minus: factor where the sign turns, in [0, 1].
      eta_plus: factor where the sign stays, > 0.
      min_step_size: least step size, >= 0.
      max_step_size: largest step size, > 0.

    State: `ScaleByRpropState(step_sizes, prev_updates)`; 8 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, grads = gradtx.scale_by_rprop(0.1), jnp.array([0.5, -2.0])
      >>> _, state = tx.update(grads, tx.init(jnp.zeros(2)))
      >>> tx.update(grads * jnp.array([1.0, -1.0]), state)[0].round(3)
      Array([0.12, 0.  ], dtype=float32)

    Source: Riedmiller and Braun 1993; the form without weight backtracking, Igel and Huesken 2000
    (iRprop-).

    **Differs:** Optax (0.2.8) gives each update one call late, and first 0. It multiplies gradient
    and update, which underflows where both are tiny.
    """

    learning_rate: NonNegative
    eta_minus: Fraction = 0.5
    eta_plus: Positive = 1.2
    min_step_size: NonNegative = 1e-6
    max_step_size: Positive = 50.0

    def init(self, params: Params) -> ScaleByRpropState:
        return ScaleByRpropState(real_full_like(params, self.learning_rate), zeros_like(params))

    def step(
        self, updates: Updates, state: ScaleByRpropState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByRpropState]:
        @each_leaf
        def rule(g: jax.Array, size: jax.Array, last: jax.Array) -> tuple[jax.Array, ...]:
            agrees = (jnp.sign(g) * jnp.sign(last).conj()).real
            factor = jnp.where(agrees > 0, self.eta_plus, self.eta_minus)
            size = jnp.where(agrees == 0, size, jnp.clip(size * factor, self.min_step_size, self.max_step_size))
            u = jnp.where(agrees < 0, 0, size * jnp.sign(g))
            return u, size, u

        updates, sizes, last = rule(updates, state.step_sizes, state.prev_updates)
        return updates, ScaleByRpropState(sizes, last)


class rprop(Preset):
    """Rprop: `-step_size * sign(g)`, with a step size for each element; see `scale_by_rprop`.

    Args:
      learning_rate: the first step size, >= 0; in units of the parameters.
      eta_minus: factor where the sign turns, in [0, 1].
      eta_plus: factor where the sign stays, > 0.
      min_step_size: least step size, >= 0.
      max_step_size: largest step size, > 0.

    State: `(ScaleByRpropState, EmptyState)`; 8 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.rprop(0.01)
      rprop(learning_rate=0.01)

    Source: Riedmiller and Braun 1993; Igel and Huesken 2000.
    """

    learning_rate: NonNegative
    eta_minus: Fraction = 0.5
    eta_plus: Positive = 1.2
    min_step_size: NonNegative = 1e-6
    max_step_size: Positive = 50.0

    def chain(self) -> Transformation:
        return chain(
            scale_by_rprop(self.learning_rate, self.eta_minus, self.eta_plus, self.min_step_size, self.max_step_size),
            scale(-1.0),
        )
