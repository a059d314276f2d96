"""Sophia: momentum over an estimate of the Hessian's diagonal, each coordinate clipped."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, FloatDType, Mask, NonNegative, Positive, PositiveInt, Rate
from gradtx.core.leaves import cast_like, each_leaf, zeros_like
from gradtx.core.numerics import cond, default_float, guarded_ratio, one_minus_power, running_mean, safe_increment, zero_count
from gradtx.core.pairs import Inner
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import DType, ExtraArg, Moment, Params, Scalar, State, Updates
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.noise import Key, as_key
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.creation import random_like
from gradtx.tree.reductions import size, sum


class HutchinsonState(NamedTuple):
    """The key for the next estimate."""

    key: jax.Array


def _signs(key: jax.Array, shape: Sequence[int], dtype: DType, *, out_sharding: NamedSharding | None = None) -> jax.Array:
    """1 and -1 with equal chances, as `jax.random.rademacher` draws them."""
    drawn = jax.random.bernoulli(key, 0.5, tuple(shape), out_sharding=out_sharding)
    return 2 * drawn.astype(dtype) - 1


class hutchinson_estimator_diag_hessian(Transformation, needs_params=True):
    """An estimate of the Hessian's diagonal in the place of updates: `s * (H s)`.

    `s` has random signs, so the mean of the estimate is the diagonal; where the Hessian is
    diagonal, each estimate is exact. One Hessian-vector product a call. Its update needs `params`
    and `obj_fn`, a function of the parameters alone that gives the loss.

    Args:
      random_seed: random key, or a whole number to seed one; None is 0.

    State: `HutchinsonState(key)`, one key.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.hutchinson_estimator_diag_hessian(), jnp.array([1.0, 2.0])
      >>> loss = lambda x: x[0] ** 2 + x[1] ** 3
      >>> tx.update(params, tx.init(params), params, obj_fn=loss)[0]
      Array([ 2., 12.], dtype=float32)

    Source: Hutchinson 1989; for diagonals Bekas et al. 2007, "An estimator for the diagonal of a
    matrix".

    **Differs:** Optax draws the signs of all leaves in the lowest dtype among them.
    """

    random_seed: Key | None = None

    def init(self, params: Params) -> HutchinsonState:
        return HutchinsonState(as_key(0 if self.random_seed is None else self.random_seed))

    def step(
        self,
        updates: Updates,
        state: HutchinsonState,
        params: Params | None = None,
        *,
        obj_fn: Callable[[Params], jax.Array],
        **extra_args: ExtraArg,
    ) -> tuple[Updates, HutchinsonState]:
        if not jax.tree.leaves(params):
            return updates, state
        after, now = jax.random.split(state.key)
        signs = random_like(now, params, _signs)
        _, product = jax.jvp(jax.grad(obj_fn), (params,), (signs,))

        @each_leaf
        def rule(h: jax.Array, s: jax.Array) -> jax.Array:
            return h * s

        return cast_like(rule(product, signs), updates), HutchinsonState(after)


HUTCHINSON = hutchinson_estimator_diag_hessian()


class SophiaState(NamedTuple):
    """Steps taken, momentum, diagonal, the estimator's state, the last share not clipped."""

    count: jax.Array
    mu: Moment
    nu: Updates
    hessian_fn_state: State
    win_rate: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"win_rate": self.win_rate}


class scale_by_sophia(Transformation, keeps_zero=True):
    """Sophia's direction: `clip(m_hat / max(gamma * h, eps))`, within `clip_threshold` either way.

    `m_hat` is Adam's, and `h = b2*h + (1-b2)*d` has a new estimate `d` of the Hessian's diagonal
    after each `update_interval`-th step, the first included. Where `h` is small or negative, a step
    is one of `clip_threshold` along the sign of the momentum. By default its update needs `params`
    and `obj_fn`, a function of the parameters alone that gives the loss.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the diagonal, in [0, 1), from one estimate to the next.
      eps: least divisor, >= 0; in units of the gradient.
      gamma: factor of the diagonal, > 0: the larger, the fewer coordinates are clipped. The share
        that is not, `win_rate`, should stay between 0.1 and 0.5.
      clip_threshold: largest magnitude of a coordinate, > 0; None does not clip.
      update_interval: steps from one estimate to the next, >= 1.
      hessian_diagonal_fn: transformation that gives estimates of the diagonal in the place of
        updates; it gets all extra arguments.
      mu_dtype: dtype in which the momentum is stored; None is float32, or wider for wider
        parameters.

    State: `SophiaState(count int32, mu, nu, hessian_fn_state, win_rate)`; 8 bytes a parameter.
      `gradtx.metrics` reports `win_rate`, that of the last step with an estimate.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.scale_by_sophia(gamma=1.0, b2=0.0), jnp.array([0.5, 8.0])
      >>> loss = lambda x: (x[0] ** 2 + 4 * x[1] ** 2) / 2
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(jax.grad(loss)(params), state, params, obj_fn=loss)
      >>> updates.round(3)  # Newton's steps are 0.5 and 8
      Array([0.5, 1. ], dtype=float32)

    Source: Liu et al. 2023, arXiv:2305.14342, algorithm 3, with Adam's bias correction, and random
    signs, as in Levanter, in the place of normal numbers.

    **Differs:** Optax prints the win rate, has no count of it in the state, and keeps states of
    half-precision parameters in half precision.
    """

    b1: Decay = 0.965
    b2: Decay = 0.99
    eps: NonNegative = 1e-8
    gamma: Positive = 0.01
    clip_threshold: Positive | None = 1.0
    update_interval: PositiveInt = 10
    hessian_diagonal_fn: Inner = HUTCHINSON
    mu_dtype: FloatDType | None = None

    @property
    def inside(self) -> tuple[Transformation, ...]:
        return (self.hessian_diagonal_fn,)

    def parts(self, params: Params, state: SophiaState) -> tuple[Part, ...]:
        return (Part(self.hessian_diagonal_fn, params, state.hessian_fn_state),)

    def init(self, params: Params) -> SophiaState:
        mu, nu = zeros_like(params, self.mu_dtype), zeros_like(params)
        return SophiaState(zero_count(), mu, nu, self.hessian_diagonal_fn.init(params), jnp.zeros((), default_float()))

    def step(
        self, updates: Updates, state: SophiaState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, SophiaState]:
        t = safe_increment(state.count)
        c1 = one_minus_power(self.b1, t)
        bound: Scalar = jnp.inf if self.clip_threshold is None else self.clip_threshold

        def unclipped(m: jax.Array, h: jax.Array) -> jax.Array:
            return guarded_ratio(m / c1, jnp.maximum(self.gamma * h, self.eps))

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, h: jax.Array) -> tuple[jax.Array, ...]:
            m = running_mean(m, g, self.b1)
            return jnp.clip(unclipped(m, h), -bound, bound), m

        direction, mu = rule(updates, state.mu, state.nu)

        def estimated() -> tuple[Updates, State, jax.Array]:
            d, after = self.hessian_diagonal_fn.advance(updates, state.hessian_fn_state, params, extra_args)
            # In this branch alone, since it is a pass over the moments.
            won = sum(each_leaf(lambda m, h: jnp.abs(unclipped(m, h)) < bound)(mu, state.nu)) / max(size(mu), 1)
            nu = each_leaf(lambda h, d: running_mean(h, d, self.b2))(state.nu, d)
            return nu, after, jnp.asarray(won, state.win_rate.dtype)

        due = state.count % self.update_interval == 0
        rest = cond(due, estimated, lambda: (state.nu, state.hessian_fn_state, state.win_rate))
        return direction, SophiaState(t, mu, *rest)


class sophia(Preset):
    """Sophia with decoupled weight decay: `-learning_rate * (u + weight_decay * p)`.

    `u` is the direction of `scale_by_sophia`. By default its update needs `params` and `obj_fn`, a
    function of the parameters alone that gives the loss.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by at most
        `clip_threshold` a step.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the diagonal, in [0, 1), from one estimate to the next.
      eps: least divisor, >= 0; in units of the gradient.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      weight_decay_mask: which parameters decay: a tree of booleans (or a prefix of one), or a
        function from the parameters to one, such as `by_path({...: False}, default=True)`. None is
        all.
      gamma: factor of the diagonal, > 0: the larger, the fewer coordinates are clipped. The share
        that is not, `win_rate`, should stay between 0.1 and 0.5.
      clip_threshold: largest magnitude of a coordinate, > 0; None does not clip.
      update_interval: steps from one estimate to the next, >= 1.
      hessian_diagonal_fn: transformation that gives estimates of the diagonal in the place of
        updates; it gets all extra arguments.
      mu_dtype: dtype in which the momentum is stored; None is float32, or wider for wider
        parameters.

    State: `(SophiaState, WeightDecayState, ScaleByLearningRateState)`; 8 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.sophia(1e-3, gamma=0.05)
      sophia(learning_rate=0.001, gamma=0.05)

    Source: Liu et al. 2023, arXiv:2305.14342.

    **Differs:** Optax's `verbose` and `print_win_rate_every_n_steps` are those of
    `gradtx.optax.contrib.sophia`; here `gradtx.metrics` reports the rate.
    """

    learning_rate: Rate
    b1: Decay = 0.965
    b2: Decay = 0.99
    eps: NonNegative = 1e-8
    weight_decay: Rate = 1e-4
    weight_decay_mask: Mask | None = None
    gamma: Positive = 0.01
    clip_threshold: Positive | None = 1.0
    update_interval: PositiveInt = 10
    hessian_diagonal_fn: Inner = HUTCHINSON
    mu_dtype: FloatDType | None = None

    def chain(self) -> Transformation:
        kernel = scale_by_sophia(
            self.b1,
            self.b2,
            self.eps,
            self.gamma,
            self.clip_threshold,
            self.update_interval,
            self.hessian_diagonal_fn,
            self.mu_dtype,
        )
        return chain(
            kernel,
            add_decayed_weights(self.weight_decay, self.weight_decay_mask),
            scale_by_learning_rate(self.learning_rate),
        )
