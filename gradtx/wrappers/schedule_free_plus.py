"""Schedule-Free+: averages in place of a schedule, and a step size that the loss itself gives."""

import math
from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks, domains
from gradtx.core.domains import Decay, DecayOrSchedule, NonNegative, NonNegativeInt, Rate, scheduled_value
from gradtx.core.leaves import copies, each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import (
    default_float,
    guarded_ratio,
    moments,
    one_minus_power,
    promote,
    root_plus_eps,
    running_mean,
    safe_increment,
    zero_count,
)
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Moment, Params, Scalar, Squares, Updates
from gradtx.tree.reductions import vdot


class ScheduleFreePlusState(NamedTuple):
    """What Schedule-Free+ keeps.

    Attributes:
      count: steps taken.
      norm: running mean of the gradient's scaled 1-norm, before bias correction.
      rate: step size in use at the last step.
      max_rate: the largest so far.
      weight_sum: sum of the weights of the average.
      x: the average, to evaluate with.
      z: the sequence that Adam's steps move.
      mu: first moment.
      nu: second moment.
    """

    count: jax.Array
    norm: jax.Array
    rate: jax.Array
    max_rate: jax.Array
    weight_sum: jax.Array
    x: Params
    z: Params
    mu: Moment
    nu: Squares

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"learning_rate": self.rate}

    def eval_params(self, params: Params) -> Params:
        """What `gradtx.eval_params` gives: the average."""
        return self.x


class schedule_free_plus(Transformation, final=True, needs_params=True):
    """Schedule-free AdamC with Polyak's step size: neither a schedule nor a rate is to be found.

    With `y` the parameters, `f` the loss there and `b` the interpolation:
    `h = learning_rate * max(0, f + b*<g, z - x>) / n`, `n = sqrt(pi/2) * |g|_1` over all leaves;
    `z -= h^2 * weight_decay * y + h * m_hat / (sqrt(v_hat) + eps)`, with Adam's moments;
    `x = (1-c)*x + c*z`, `c = w / sum w`, `w = t^r * (largest h so far)^weight_lr_power`;
    `y = b*x + (1-b)*z`. Evaluate with `x`: `gradtx.eval_params(state, params)`. The loss has to
    fall towards 0 or more. Nothing may change the updates before they are applied, and clipping
    before it would change the step size. An accumulation stands around it. Its update needs
    `params` and the extra argument `value`, the loss.

    Args:
      learning_rate: factor of the step size, a number >= 0 or a schedule (a warm-up, then 1).
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      weight_decay: >= 0; of order 20 to 50, since it is multiplied by the square of the step size.
      interpolation: `b`, a number in [0, 1) or a schedule: how near the parameters are to the
        average. The paper raises it to 0.965 over the training.
      r: power of the step in the weights of the average, >= 0.
      weight_lr_power: power of the largest step size in these weights, >= 0.
      norm_decay: decay of a running mean of `n`, in [0, 1); 0 takes the newest.
      average_from: steps in which the average is `z` itself, >= 0; one or two warm-ups.

    State: `ScheduleFreePlusState`; 16 bytes a parameter. `gradtx.metrics` reports `h` as
      `learning_rate`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.schedule_free_plus(), jnp.array([3.0, -1.0])
      >>> state = tx.init(params)
      >>> for _ in range(300):
      ...     value, grads = jax.value_and_grad(lambda x: jnp.sum(x**2))(params)
      ...     updates, state = tx.update(grads, state, params, value=value)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(jnp.sum(gradtx.eval_params(state, params) ** 2) < 0.1)
      True

    Source: the authors' reference code, https://github.com/facebookresearch/schedule_free,
    `adamc_schedulefree_plus_paper.py`; Defazio et al. 2024, arXiv:2405.15682; Defazio 2025,
    arXiv:2506.02285.

    **Differs:** that code stores the bias-corrected norm, so that with `norm_decay` above 0 it
    corrects it again at each step; and it divides by a norm of 0.
    """

    learning_rate: Rate = 1.0
    b1: Decay = 0.9
    b2: Decay = 0.95
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
    _: KW_ONLY
    interpolation: DecayOrSchedule = 0.9
    r: NonNegative = 0.0
    weight_lr_power: NonNegative = 2.0
    norm_decay: Decay = 0.0
    average_from: NonNegativeInt = 0

    def init(self, params: Params) -> ScheduleFreePlusState:
        zero = jnp.zeros((), default_float())
        x, z = copies(params), copies(params)
        return ScheduleFreePlusState(zero_count(), zero, zero, zero, zero, x, z, zeros_like(params), real_full_like(params, 0))

    def step(
        self, updates: Updates, state: ScheduleFreePlusState, params: Params | None = None, *, value: Scalar, **extra_args: ExtraArg
    ) -> tuple[Updates, ScheduleFreePlusState]:
        if not domains.is_real_scalar(value):
            raise checks.WrongType(f"value is {checks.kind(value)}, expected a real scalar, such as the loss.")
        t, dtype = safe_increment(state.count), state.norm.dtype
        b = scheduled_value("interpolation", self.interpolation, state.count)
        factor = scheduled_value("learning_rate", self.learning_rate, state.count)
        behind = each_leaf(lambda z, x: z - x)(state.z, state.x)
        gap = jnp.maximum(jnp.asarray(value).astype(dtype) + b * jnp.real(vdot(updates, behind)).astype(dtype), 0)
        norm = running_mean(state.norm, math.sqrt(math.pi / 2) * _one_norm(updates).astype(dtype), self.norm_decay).astype(dtype)
        h = (factor * guarded_ratio(gap, norm / one_minus_power(self.norm_decay, t))).astype(dtype)
        max_rate = jnp.maximum(state.max_rate, h)
        begun = state.count >= self.average_from
        weight = jnp.where(begun, t.astype(dtype) ** self.r * max_rate**self.weight_lr_power, 0).astype(dtype)
        weight_sum = state.weight_sum + weight
        c = jnp.where(begun, guarded_ratio(weight, weight_sum), 1)
        c1, c2 = one_minus_power(self.b1, t), one_minus_power(self.b2, t)

        @each_leaf
        def rule(g: jax.Array, x: jax.Array, z: jax.Array, m: jax.Array, v: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
            m, v = moments(g, m, v, self.b1, self.b2)
            z = z - h**2 * self.weight_decay * y - h * guarded_ratio(m / c1, root_plus_eps(v / c2, self.eps), self.eps)
            x = x + c * (z - x)
            return z + b * (x - z) - y, x, z, m, v

        updates, x, z, mu, nu = rule(updates, state.x, state.z, state.mu, state.nu, params)
        return updates, ScheduleFreePlusState(t, norm, h, max_rate, weight_sum, x, z, mu, nu)


def _one_norm(tree: Updates) -> jax.Array:
    parts = [jnp.sum(jnp.abs(promote(g))) for g in jax.tree.leaves(tree)]
    return jnp.sum(jnp.stack([p.astype(default_float()) for p in parts])) if parts else jnp.zeros((), default_float())
