"""Sharpness-aware minimization (SAM) and adaptive SAM: the gradient at the worst point nearby."""

import functools
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import NamedTuple

import jax

from gradtx.core.composites import Wrapper
from gradtx.core.domains import Flag, Mask, NonNegative, PositiveInt, Rate
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.pairs import Inner
from gradtx.core.types import ExtraArg, Params, State, Updates
from gradtx.linalg.ascent import Exponent
from gradtx.wrappers.ascent import Climb, check_one_gradient, each_kth, radius, weight_scale

ETA = 0.01
"""The usual `eta` of ASAM: Kwon et al. 2021."""


class SamWrapperState(NamedTuple):
    """Steps taken, radius of the last step (of the first before any), and inner state."""

    count: jax.Array
    rho: jax.Array
    inner_state: State

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"rho": self.rho}


class SharpnessAware(Wrapper, needs_params=True):
    """SAM in general: `inner(fed(g, s))`, with `g` the gradient here and `s` the one uphill.

    A subclass says how it climbs there (`climb`), and, if that is not `s` alone, what it feeds to
    the optimizer (`fed`).
    """

    rho: Rate = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_gradient(type(self).__name__, "inner", self.inner)

    @property
    def climb(self) -> Climb:
        """The way uphill."""
        raise NotImplementedError(f"{type(self).__name__}: climb is missing; it is the way to the worst point nearby.")

    def fed(self, g: Updates, uphill: Callable[[], Updates], count: jax.Array) -> Updates:
        """What the optimizer sees, made of the gradient here and of `uphill()`, which takes `s`."""
        return uphill()

    def init(self, params: Params) -> SamWrapperState:
        return SamWrapperState(zero_count(), radius(self.rho, zero_count()), self.inner.init(params))

    def step(
        self,
        updates: Updates,
        state: SamWrapperState,
        params: Params | None = None,
        *,
        grad_fn: Callable[[Params], Updates],
        **extra_args: ExtraArg,
    ) -> tuple[Updates, SamWrapperState]:
        rho = radius(self.rho, state.count)
        gradient = self.fed(updates, lambda: self.climb.gradient(grad_fn, params, updates, rho), state.count)
        updates, inner_state = self.inner.advance(gradient, state.inner_state, params, extra_args)
        return updates, SamWrapperState(safe_increment(state.count), rho, inner_state)


class sam_wrapper(SharpnessAware):
    """SAM: an optimizer fed the gradient at the worst point within `rho`: `inner(grad_fn(w + e))`.

    `e = rho * sign(g) * |g|^(q-1) / (sum |g|^q)^(1/p)`, with `1/p + 1/q = 1` and `g` the gradient
    at the parameters `w`, the one that is handed to `update`; all leaves are one vector. `e` is
    `rho * g / |g|` for `p` = 2, `rho * sign(g)` for inf, and all on the largest element for 1.

    Its update needs `params` and `grad_fn`, the function from parameters to the gradient on the
    minibatch of this step, under the same random key (`sam_value_and_grad` is a form without
    `grad_fn`). A step costs two gradients: `g`, and one call of `grad_fn`. For complex parameters
    both gradients point uphill, as every optimizer takes them: `jax.grad`'s, conjugated.

    Loss, auxiliary output and batch statistics are those of the first gradient, which SAM leaves to
    the caller. Under `masked` or `partition` the norm is that of the leaves at hand, and only they
    move uphill. Under `jit` with sharded data `e` is that of the global batch. Accumulate inside
    the gradients, not around SAM:
    `grad_fn = lambda w: microbatched(jax.value_and_grad(loss), 4)(w, batch)[1]`.

    Args:
      inner: the optimizer. Clipping and weight decay belong inside:
        `sam_wrapper(chain(clip_by_global_norm(1.0), adamw(1e-3)))`. What stands before SAM in a
        chain changes `g` only.
      rho: radius in the p-norm, >= 0, in units of the parameters, or a schedule of the steps taken
        so far. 0 is the plain optimizer, at twice its cost.
      p: which norm, in [1, inf].
      adaptive: True measures `e` in units of the weights, as `asam` does with its defaults; a usual
        `rho` is then 0.5.
      every_k: SAM at the first step and each k-th after it, the plain gradient between: `1 + 1/k`
        gradients a step.
      ascent_steps: how many steps of length `rho / ascent_steps` lead uphill, each along its own
        gradient; `1 + ascent_steps` gradients a step.
      eps: where no element of `g` is larger than this, `e` is 0; >= 0, in units of the gradient.

    State: `SamWrapperState(count int32, rho float32, inner_state)`; 8 bytes and the inner state. No
      copy of the parameters: a checkpoint holds `w`, never `w + e`. `gradtx.metrics` reports `rho`.

    Raises:
      ValueError: `inner` calls `grad_fn` itself, or `grad_fn` gives no gradient.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> loss = lambda w, x: jnp.sum((w * x) ** 2)
      >>> tx, w, x = gradtx.sam_wrapper(gradtx.sgd(0.1), rho=0.5), jnp.array([3.0, 4.0]), 1.0
      >>> gradient = lambda w: jax.grad(loss)(w, x)
      >>> updates, state = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> [round(float(u), 4) for u in updates]  # -0.1 times the gradient at (3.3, 4.4)
      [-0.66, -0.88]

    Source: Foret et al. 2020, arXiv:2010.01412, equation 2 and algorithm 1.

    **Differs:** several steps uphill are so short that together they stay in the ball, without a
    projection. Optax's `contrib.sam` is `gradtx.optax.contrib.sam`.
    """

    inner: Inner
    rho: Rate = 0.05
    p: Exponent = 2.0
    _: KW_ONLY
    adaptive: Flag = False
    every_k: PositiveInt = 1
    ascent_steps: PositiveInt = 1
    eps: NonNegative = 1e-12

    @property
    def climb(self) -> Climb:
        scale = functools.partial(weight_scale, eta=ETA) if self.adaptive else None
        return Climb(self.p, self.eps, self.ascent_steps, scale)

    def fed(self, g: Updates, uphill: Callable[[], Updates], count: jax.Array) -> Updates:
        return each_kth(self.every_k, count, uphill, lambda: g)


class asam(SharpnessAware):
    """Adaptive SAM, the worst point in units of the weights: `|e / T|_p <= rho`, `T = |w| + eta`.

    For `p` = 2, `e = rho * T^2 * g / |T * g|`. Rescaling the weights of successive layers so that
    the network stays the same leaves `e / w` the same, too (for `eta` = 0). Its update needs
    `params` and `grad_fn`, and a step costs two gradients, as with `sam_wrapper`.

    Args:
      inner: the optimizer; clipping and weight decay belong inside.
      rho: radius in units of the weights, >= 0, or a schedule of the steps taken so far; ten times
        SAM's is usual.
      eta: added to `|w|`, >= 0, in units of the parameters.
      p: which norm, in [1, inf].
      weights: where `T` is used, as in `masked`; elsewhere it is 1. None is all leaves of two or
        more
        axes: no biases, no gains.
      every_k: ASAM at the first step and each k-th after it, the plain gradient between.
      ascent_steps: how many steps of length `rho / ascent_steps` lead uphill, each along its own
        gradient, all with the `T` of the parameters.
      eps: where no element of `T * g` is larger than this, `e` is 0; >= 0.

    State: `SamWrapperState(count int32, rho float32, inner_state)`; 8 bytes and the inner state.

    Raises:
      ValueError: as `sam_wrapper`, or `weights` does not fit the parameters.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> w = jnp.array([1.0, 10.0])
      >>> tx = gradtx.asam(gradtx.sgd(1.0), rho=0.5, eta=0.0, weights=True)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(w), w, grad_fn=lambda w: w)
      >>> [round(float(-u), 3) for u in updates]  # w + e: the large weight moves most
      [1.05, 14.975]

    Source: Kwon et al. 2021, arXiv:2102.11600, algorithm 1; defaults from its experiments.

    **Differs:** implementations for torch take `T = |w|` for all leaves: `eta=0.0, weights=True`.
    """

    inner: Inner
    rho: Rate = 0.5
    eta: NonNegative = ETA
    p: Exponent = 2.0
    _: KW_ONLY
    weights: Mask | None = None
    every_k: PositiveInt = 1
    ascent_steps: PositiveInt = 1
    eps: NonNegative = 1e-12

    @property
    def climb(self) -> Climb:
        scale = functools.partial(weight_scale, eta=self.eta, weights=self.weights)
        return Climb(self.p, self.eps, self.ascent_steps, scale)

    def fed(self, g: Updates, uphill: Callable[[], Updates], count: jax.Array) -> Updates:
        return each_kth(self.every_k, count, uphill, lambda: g)
