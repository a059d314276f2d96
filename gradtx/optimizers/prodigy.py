"""Prodigy: Adam that estimates the distance to the solution, and its rate from it."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.domains import Decay, Domain, Flag, NonNegative, Positive, Rate, scheduled_value
from gradtx.core.leaves import copies, each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import abs_sq, default_float, guarded_ratio, one_minus_power, running_mean, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Moment, Params, Squares, Tree, Updates
from gradtx.transforms.decay import is_zero
from gradtx.tree.reductions import norm, vdot


def _are_decays(value: Tree) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(b, (int, float)) and 0 <= b < 1 for b in value)


Decays = Annotated[tuple[float, float], Domain("two numbers in [0, 1)", _are_decays, canonical=lambda value: tuple(value))]


class ProdigyState(NamedTuple):
    """Moments, the sum of gradients, the start, the estimate and what it is made of, the rate."""

    exp_avg: Moment
    exp_avg_sq: Squares
    grad_sum: Updates
    params0: Params
    estim_lr: jax.Array
    numerator_weighted: jax.Array
    count: jax.Array
    learning_rate: jax.Array


class prodigy(Transformation, needs_params=True):
    """Prodigy: Adam with a rate of its own, `d`, a lower bound of the distance to the solution.

    `p -= h * (m / (sqrt(v) + d*eps) + weight_decay*p)`, where `m` and `v` are Adam's moments of
    `d*g`, without bias correction, and `h = d * learning_rate * sqrt(1-b2^t)/(1-b1^t)`. The
    estimate grows as `d = max(d, estim_lr_coef * r / |s|_1)`, with
    `r = beta3*r + (d/d0)*h*<g, x0-p>` and `s = beta3*s + (d/d0)*h*g`, from the parameters `x0` at
    the start. All leaves are one vector. Its update needs `params`.

    Args:
      learning_rate: factor of the rate that is found, a number >= 0 or a schedule; 1 is the
        method's own. Cosine decay is advised.
      betas: decays of the first and second moment, each in [0, 1).
      beta3: decay of the sums, in [0, 1); None is the root of the second of `betas`.
      eps: added outside the root, >= 0; in units of the gradient.
      estim_lr0: the first estimate, > 0; far below the distance.
      estim_lr_coef: factor of the estimate, > 0.
      weight_decay: each step shrinks parameters by the factor `1 - h * weight_decay`, >= 0.
      safeguard_warmup: whether a warm-up of the rate is left out of the sum of gradients.

    State: `ProdigyState(exp_avg, exp_avg_sq, grad_sum, params0, estim_lr, numerator_weighted, count
      int32, learning_rate)`; 16 bytes a parameter. `gradtx.metrics` reports `h` as `learning_rate`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.prodigy(estim_lr0=1e-3), jnp.array([3.0, -1.0])
      >>> state = tx.init(params)
      >>> for _ in range(200):
      ...     updates, state = tx.update(jax.grad(lambda x: (x**2).sum())(params), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(jnp.abs(params).max() < 0.1)
      True

    Source: Mishchenko and Defazio 2023, arXiv:2306.06101, algorithm 4, and the authors' code.

    **Differs:** Optax keeps states of half-precision parameters in half precision, and divides by
    zero where all gradients are zero.
    """

    learning_rate: Rate = 1.0
    betas: Decays = (0.9, 0.999)
    beta3: Decay | None = None
    eps: NonNegative = 1e-8
    estim_lr0: Positive = 1e-6
    estim_lr_coef: Positive = 1.0
    weight_decay: NonNegative = 0.0
    safeguard_warmup: Flag = False

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        """Without a weight decay."""
        return is_zero(self.weight_decay)

    def init(self, params: Params) -> ProdigyState:
        m, v, s = zeros_like(params), real_full_like(params, 0), zeros_like(params)
        zero, rate = jnp.zeros((), default_float()), jnp.zeros((), default_float())
        return ProdigyState(m, v, s, copies(params), jnp.array(self.estim_lr0, default_float()), zero, zero_count(), rate)

    def step(
        self, updates: Updates, state: ProdigyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ProdigyState]:
        (b1, b2), d, t = self.betas, state.estim_lr, safe_increment(state.count)
        beta3 = b2**0.5 if self.beta3 is None else self.beta3
        scheduled = scheduled_value("learning_rate", self.learning_rate, state.count)
        h = (d * scheduled * jnp.sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)).astype(d.dtype)
        share = d / self.estim_lr0
        weight = share * (d if self.safeguard_warmup else h)

        @each_leaf
        def gathered(g: jax.Array, m: jax.Array, v: jax.Array, s: jax.Array, x0: jax.Array, p: jax.Array) -> tuple[jax.Array, ...]:
            return x0 - p, running_mean(m, d * g, b1), running_mean(v, abs_sq(d * g), b2), s * beta3 + weight * g

        left, m, v, s = gathered(updates, state.exp_avg, state.exp_avg_sq, state.grad_sum, state.params0, params)
        r = beta3 * state.numerator_weighted + share * h * jnp.real(vdot(updates, left)).astype(d.dtype)
        new = jnp.maximum(d, self.estim_lr_coef * guarded_ratio(r, norm(s, 1).astype(d.dtype))).astype(d.dtype)

        @each_leaf
        def rule(m: jax.Array, v: jax.Array, p: jax.Array) -> jax.Array:
            return -h * (guarded_ratio(m, jnp.sqrt(v) + new * self.eps) + self.weight_decay * p)

        return rule(m, v, params), ProdigyState(m, v, s, state.params0, new, r.astype(d.dtype), t, h)
