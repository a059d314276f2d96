"""D-Adaptation: AdamW that finds its rate from a lower bound of the distance to the solution."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.domains import NonNegative, Positive, Rate, scheduled_value
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import abs_sq, default_float, guarded_ratio, one_minus_power, running_mean, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Moment, Params, Squares, Updates
from gradtx.optimizers.prodigy import Decays
from gradtx.transforms.decay import is_zero
from gradtx.tree.reductions import norm, vdot


class DAdaptAdamWState(NamedTuple):
    """Moments, the sum of gradients, the estimate and its numerator, steps taken, the rate."""

    exp_avg: Moment
    exp_avg_sq: Squares
    grad_sum: Updates
    estim_lr: jax.Array
    numerator_weighted: jax.Array
    count: jax.Array
    learning_rate: jax.Array


class dadapt_adamw(Transformation, needs_params=True):
    """AdamW by D-Adaptation: `p -= m / (sqrt(v) + eps) + h * weight_decay * p`.

    `m = b1*m + (1-b1)*h*g`, `v = b2*v + (1-b2)*|g|^2`, and
    `h = d * learning_rate * sqrt(1-b2^t)/(1-b1^t)`. The estimate grows as
    `d = max(d, r / ((1-sqrt(b2)) * |s|_1))`, with the sum `s = sqrt(b2)*s + (1-sqrt(b2))*h*g` and
    `r = sqrt(b2)*r + (1-sqrt(b2))*h*<g, s_last/(sqrt(v_last) + eps)>`. All leaves are one vector.
    Its update needs `params`.

    Args:
      learning_rate: factor of the rate that is found, a number >= 0 or a schedule; 1 is the
        method's own. A warm-up and a decay to 0 are advised.
      betas: decays of the first and second moment, each in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      estim_lr0: the first estimate, > 0; far below the distance.
      weight_decay: each step shrinks parameters by the factor `1 - h * weight_decay`, >= 0.

    State: `DAdaptAdamWState(exp_avg, exp_avg_sq, grad_sum, estim_lr, numerator_weighted, count
      int32, learning_rate)`; 12 bytes a parameter. `gradtx.metrics` reports `h` as
      `learning_rate`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.dadapt_adamw(estim_lr0=1e-3), jnp.array([3.0, -1.0])
      >>> state = tx.init(params)
      >>> for _ in range(200):
      ...     updates, state = tx.update(jax.grad(lambda x: (x**2).sum())(params), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(jnp.abs(params).max() < 0.1)
      True

    Source: Defazio and Mishchenko 2023, arXiv:2301.07733, algorithm 5, and the authors' code.

    **Differs:** Optax keeps states of half-precision parameters in half precision, and divides by
    zero where all gradients are zero.
    """

    learning_rate: Rate = 1.0
    betas: Decays = (0.9, 0.999)
    eps: NonNegative = 1e-8
    estim_lr0: Positive = 1e-6
    weight_decay: NonNegative = 0.0

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        """Without a weight decay."""
        return is_zero(self.weight_decay)

    def init(self, params: Params) -> DAdaptAdamWState:
        m, v, s = zeros_like(params), real_full_like(params, 0), zeros_like(params)
        zero, rate = jnp.zeros((), default_float()), jnp.zeros((), default_float())
        return DAdaptAdamWState(m, v, s, jnp.array(self.estim_lr0, default_float()), zero, zero_count(), rate)

    def step(
        self, updates: Updates, state: DAdaptAdamWState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, DAdaptAdamWState]:
        (b1, b2), d, t = self.betas, state.estim_lr, safe_increment(state.count)
        root = b2**0.5
        scheduled = scheduled_value("learning_rate", self.learning_rate, state.count)
        h = (d * scheduled * jnp.sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)).astype(d.dtype)

        @each_leaf
        def gathered(g: jax.Array, m: jax.Array, v: jax.Array, s: jax.Array) -> tuple[jax.Array, ...]:
            along = guarded_ratio(s, jnp.sqrt(v) + self.eps, self.eps)
            return along, running_mean(m, h * g, b1), running_mean(v, abs_sq(g), b2), running_mean(s, h * g, root)

        along, m, v, s = gathered(updates, state.exp_avg, state.exp_avg_sq, state.grad_sum)
        r = running_mean(state.numerator_weighted, h * jnp.real(vdot(updates, along)).astype(d.dtype), root).astype(d.dtype)
        new = jnp.maximum(d, guarded_ratio(r, (1 - root) * norm(s, 1).astype(d.dtype)))

        @each_leaf
        def rule(m: jax.Array, v: jax.Array, p: jax.Array) -> jax.Array:
            return -(guarded_ratio(m, jnp.sqrt(v) + self.eps, self.eps) + h * self.weight_decay * p)

        return rule(m, v, params), DAdaptAdamWState(m, v, s, new, r, t, h)
