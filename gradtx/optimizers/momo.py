"""MoMo: momentum whose step size comes from a model of the loss, which has a lower bound."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks, domains
from gradtx.core.domains import Decay, Flag, NonNegative, Number, Rate, scheduled_value
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import (
    default_float,
    guarded_ratio,
    moments,
    one_minus_power,
    running_mean,
    safe_increment,
    zero_count,
)
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Moment, Params, Scalar, Squares, Updates
from gradtx.transforms.decay import is_zero
from gradtx.tree.reductions import norm, vdot


class MomoState(NamedTuple):
    """Averages of gradients, of losses and of `<g, x>`; the lower bound, steps taken, the rate."""

    exp_avg: Moment
    barf: jax.Array
    gamma: jax.Array
    lb: jax.Array
    count: jax.Array
    learning_rate: jax.Array


class MomoAdamState(NamedTuple):
    """The same with the second moment."""

    exp_avg: Moment
    exp_avg_sq: Squares
    barf: jax.Array
    gamma: jax.Array
    lb: jax.Array
    count: jax.Array
    learning_rate: jax.Array


class _Model(NamedTuple):
    """What both methods share: the step size at which the model of the loss meets its bound."""

    alpha: Scalar
    weight_decay: Scalar
    lower_bound: Scalar
    adapt: bool

    def step_size(
        self, lb: jax.Array, f: jax.Array, inner: jax.Array, size: jax.Array, c: Scalar = 1
    ) -> tuple[jax.Array, jax.Array]:
        """The step size and the new lower bound.

        `f` is the average loss less that of `<g, x>`, `inner` is `<m, x>`, `size` the squared
        length of `m`, and `c` what makes up for the bias of all of them.
        """
        shrink, before = 1 + self.alpha * self.weight_decay, lb
        if self.adapt:
            top = shrink * f + inner
            lb = jnp.where(top < shrink * c * lb, jnp.maximum(top / (2 * c * shrink), self.lower_bound), lb)
        gap = jnp.maximum(shrink * (f - c * lb) + inner, 0)
        tau = jnp.minimum(self.alpha / c, guarded_ratio(gap, size))
        if self.adapt:
            lb = jnp.maximum((f + inner - tau * size / 2) / c, self.lower_bound)
        return tau.astype(before.dtype), lb.astype(before.dtype)

    def move(self, tau: jax.Array, direction: Updates, params: Params | None) -> Updates:
        """A step along the direction, and the decay."""
        decay = self.alpha * self.weight_decay / (1 + self.alpha * self.weight_decay)

        @each_leaf
        def rule(d: jax.Array, p: jax.Array) -> jax.Array:
            return -(decay * p + tau * d)

        return rule(direction, params)


def _numbers(lower_bound: Scalar) -> tuple[jax.Array, ...]:
    """The first loss, inner product and lower bound, the count, the rate."""
    zeros = [jnp.zeros((), default_float()) for _ in range(3)]
    return zeros[0], zeros[1], jnp.array(lower_bound, default_float()), zero_count(), zeros[2]


def _loss(value: Scalar, like: jax.Array) -> jax.Array:
    if not domains.is_real_scalar(value):
        raise checks.WrongType(f"value is {checks.kind(value)}, expected a real scalar, such as the loss.")
    return jnp.asarray(value).astype(like.dtype)


def _inner(x: Updates, y: Params, like: jax.Array) -> jax.Array:
    return jnp.real(vdot(x, y)).astype(like.dtype)


class momo(Transformation, needs_params=True):
    """MoMo: `p = p / (1 + a*weight_decay) - t * m`, where `t = min(a, gap / |m|^2)`.

    `m = beta*m + (1-beta)*g`, from `g` at the first step on, `a` is the learning rate, and `gap`
    how far the model `f + <m, p> - q` of the loss lies above its lower bound, with the same
    averages `f` of losses and `q` of `<g, p>`. All leaves are one vector. Its update needs `params`
    and `value`, the loss.

    Args:
      learning_rate: largest step size, a number >= 0 or a schedule; better large than small.
      beta: decay of the averages, in [0, 1).
      lower_bound: bound of the loss from below, any finite number: 0 where a model can fit all
        data.
      weight_decay: each step shrinks parameters by the factor `1 / (1 + a*weight_decay)`, >= 0.
      adapt_lower_bound: whether the bound rises to what the losses seem to tend to.

    State: `MomoState(exp_avg, barf, gamma, lb, count int32, learning_rate)`; 4 bytes a parameter.
      `gradtx.metrics` reports `t` as `learning_rate`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.momo(), jnp.array([3.0, -1.0])
      >>> loss, state = lambda x: jnp.sum(x**2), tx.init(params)
      >>> for _ in range(200):
      ...     value, grads = jax.value_and_grad(loss)(params)
      ...     updates, state = tx.update(grads, state, params, value=value)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(loss(params) < 1e-3)
      True

    Source: Schaipp et al. 2023, arXiv:2305.07583, algorithms 1 and 3, and the authors' code.

    **Differs:** Optax takes no step where `|m|^2` is below 2e-16, and keeps states of
    half-precision parameters in half precision.
    """

    learning_rate: Rate = 1.0
    beta: Decay = 0.9
    lower_bound: Number = 0.0
    weight_decay: NonNegative = 0.0
    adapt_lower_bound: Flag = False

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        """Without a weight decay."""
        return is_zero(self.weight_decay)

    def init(self, params: Params) -> MomoState:
        return MomoState(zeros_like(params), *_numbers(self.lower_bound))

    def step(
        self, updates: Updates, state: MomoState, params: Params | None = None, *, value: Scalar, **extra_args: ExtraArg
    ) -> tuple[Updates, MomoState]:
        beta = jnp.where(state.count == 0, 0, self.beta).astype(state.barf.dtype)
        f = running_mean(state.barf, _loss(value, state.barf), beta)
        gamma = running_mean(state.gamma, _inner(updates, params, f), beta)

        @each_leaf
        def rule(g: jax.Array, m: jax.Array) -> jax.Array:
            return running_mean(m, g, beta)

        m = rule(updates, state.exp_avg)
        alpha = scheduled_value("learning_rate", self.learning_rate, state.count)
        model = _Model(alpha, self.weight_decay, self.lower_bound, self.adapt_lower_bound)
        size = norm(m, squared=True).astype(f.dtype)
        tau, lb = model.step_size(state.lb, f - gamma, _inner(m, params, f), size)
        return model.move(tau, m, params), MomoState(m, f, gamma, lb, safe_increment(state.count), tau)


class momo_adam(Transformation, needs_params=True):
    """MoMo-Adam: `p = p / (1 + a*weight_decay) - t * m / s`, where `s = sqrt(v_hat) + eps`.

    `t = min(a / (1-b1^k), gap / <m, m/s>)` at step `k`, with Adam's `m` and `v_hat`; `a` is the
    learning rate, and `gap` how far the model `f + <m, p> - q` of the loss lies above its lower
    bound, with the averages `f` of losses and `q` of `<g, p>` like `m`. All leaves are one vector.
    Its update needs `params` and `value`, the loss.

    Args:
      learning_rate: largest step size, a number >= 0 or a schedule; one unit moves each parameter
        by about 1 a step.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      lower_bound: bound of the loss from below, any finite number: 0 where a model can fit all
        data.
      weight_decay: each step shrinks parameters by the factor `1 / (1 + a*weight_decay)`, >= 0.
      adapt_lower_bound: whether the bound rises to what the losses seem to tend to.

    State: `MomoAdamState(exp_avg, exp_avg_sq, barf, gamma, lb, count int32, learning_rate)`; 8
      bytes a parameter. `gradtx.metrics` reports `t` as `learning_rate`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.momo_adam(0.5), jnp.array([3.0, -1.0])
      >>> loss, state = lambda x: jnp.sum(x**2), tx.init(params)
      >>> for _ in range(100):
      ...     value, grads = jax.value_and_grad(loss)(params)
      ...     updates, state = tx.update(grads, state, params, value=value)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(loss(params) < 1e-2)
      True

    Source: Schaipp et al. 2023, arXiv:2305.07583, algorithms 2 and 3, and the authors' code.

    **Differs:** Optax takes no step where `<m, m/s>` is below 2e-16, and keeps states of
    half-precision parameters in half precision.
    """

    learning_rate: Rate = 1e-2
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8
    lower_bound: Number = 0.0
    weight_decay: NonNegative = 0.0
    adapt_lower_bound: Flag = False

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        """Without a weight decay."""
        return is_zero(self.weight_decay)

    def init(self, params: Params) -> MomoAdamState:
        return MomoAdamState(zeros_like(params), real_full_like(params, 0), *_numbers(self.lower_bound))

    def step(
        self, updates: Updates, state: MomoAdamState, params: Params | None = None, *, value: Scalar, **extra_args: ExtraArg
    ) -> tuple[Updates, MomoAdamState]:
        t = safe_increment(state.count)
        f = running_mean(state.barf, _loss(value, state.barf), self.b1).astype(state.barf.dtype)
        gamma = running_mean(state.gamma, _inner(updates, params, f), self.b1).astype(f.dtype)
        c1, c2 = one_minus_power(self.b1, t), one_minus_power(self.b2, t)

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m, v = moments(g, m, v, self.b1, self.b2)
            return guarded_ratio(m, jnp.sqrt(v / c2) + self.eps, self.eps), m, v

        direction, m, v = rule(updates, state.exp_avg, state.exp_avg_sq)
        alpha = scheduled_value("learning_rate", self.learning_rate, state.count)
        model = _Model(alpha, self.weight_decay, self.lower_bound, self.adapt_lower_bound)
        tau, lb = model.step_size(state.lb, f - gamma, _inner(m, params, f), _inner(m, direction, f), c1)
        return model.move(tau, direction, params), MomoAdamState(m, v, f, gamma, lb, t, tau)
