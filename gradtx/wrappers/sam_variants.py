"""LookSAM, which reuses SAM's second gradient, and GSAM, which also closes the surrogate gap."""

from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.domains import NonNegative, PositiveInt, Rate
from gradtx.core.leaves import cast_like, each_leaf, zeros_like
from gradtx.core.numerics import guarded_ratio, safe_increment, zero_count
from gradtx.core.pairs import Inner
from gradtx.core.types import ExtraArg, Params, State, Updates
from gradtx.linalg.ascent import Exponent
from gradtx.tree.reductions import norm, vdot
from gradtx.wrappers.ascent import Climb, each_kth, radius
from gradtx.wrappers.sam import SharpnessAware

NOISE = 16
"""What is shorter than so many units of rounding has no direction of its own."""


class LooksamState(NamedTuple):
    """Steps taken, radius in use, where the last second gradient turned to, and inner state."""

    count: jax.Array
    rho: jax.Array
    direction: Updates
    inner_state: State

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"rho": self.rho}


def along(x: Updates, y: Updates, length: jax.Array) -> jax.Array:
    """How far `x` goes along `y`, which has this length."""

    @each_leaf
    def unit(y: jax.Array) -> jax.Array:
        return guarded_ratio(y, length)

    return jnp.real(vdot(unit(y), x)).astype(length.dtype)


def across(x: Updates, y: Updates, length: jax.Array, share: jax.Array) -> Updates:
    """The part of `x` orthogonal to `y`: `x - <x, y> / |y|^2 * y`; `x` where `y` is 0."""

    @each_leaf
    def rule(x: jax.Array, y: jax.Array) -> jax.Array:
        return x - share * guarded_ratio(y, length)

    return rule(x, y)


class looksam(SharpnessAware, needs_params=True):
    """LookSAM: SAM at each k-th step, its turn between: `inner(g + alpha * |g| * v / |v|)`.

    At the first step and each k-th after it, `s = grad_fn(w + rho * g / |g|)` is the gradient for
    `inner`, and `v` the part of `s` that is orthogonal to `g`. Its update needs `params` and
    `grad_fn`, as that of `sam_wrapper`. A step costs `1 + 1/k` gradients.

    Args:
      inner: the optimizer; clipping and weight decay belong inside.
      rho: radius, >= 0, in units of the parameters, or a schedule of the steps taken so far.
      every_k: how often the second gradient is taken, >= 1; 1 is SAM.
      alpha: length of the turn, >= 0, in units of the gradient's.
      eps: where no element of `g` is larger than this, `s` is taken at `w`; >= 0, in units of the
        gradient.

    State: `LooksamState(count int32, rho float32, direction, inner_state)`; 4 bytes a parameter for
      `v / |v|`, and the inner state. `gradtx.metrics` reports `rho`.

    Raises:
      ValueError: `inner` calls `grad_fn` itself, or `grad_fn` gives no gradient.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> gradient = jax.grad(lambda w: (w @ jnp.diag(jnp.array([1.0, 9.0])) @ w) / 2)
      >>> tx, w = gradtx.looksam(gradtx.sgd(0.05), rho=0.1, every_k=2), jnp.ones(2)
      >>> state = tx.init(w)
      >>> for _ in range(2):
      ...     updates, state = tx.update(gradient(w), state, w, grad_fn=gradient)
      >>> turn = updates / -0.05 - gradient(w)  # the second step: 0.7 * |g| long, across g = (1, 9)
      >>> [round(float(x), 2) for x in turn]
      [-6.3, 0.7]

    Source: Liu et al. 2022, arXiv:2203.02714, algorithm 1, without its layer-wise scaling; the
    default `alpha` as in rollovd/looksam and pytorch_optimizer.

    **Differs:** where `v` is as short as rounding errors (one parameter, or gradients that are
    parallel), it is taken as 0; the paper divides noise by its length.
    """

    inner: Inner
    rho: Rate = 0.05
    every_k: PositiveInt = 5
    alpha: NonNegative = 0.7
    eps: NonNegative = 1e-12

    @property
    def climb(self) -> Climb:
        return Climb(2.0, self.eps)

    def init(self, params: Params) -> LooksamState:
        return LooksamState(zero_count(), radius(self.rho, zero_count()), zeros_like(params), self.inner.init(params))

    def step(
        self,
        updates: Updates,
        state: LooksamState,
        params: Params | None = None,
        *,
        grad_fn: Callable[[Params], Updates],
        **extra_args: ExtraArg,
    ) -> tuple[Updates, LooksamState]:
        rho = radius(self.rho, state.count)
        due, length = state.count % self.every_k == 0, norm(updates)

        def uphill() -> Updates:
            return cast_like(self.climb.gradient(grad_fn, params, updates, rho), state.direction)

        # In the memory of the direction: the gradient uphill, or the direction as it was. All else
        # is numbers.
        kept = each_kth(self.every_k, state.count, uphill, lambda: state.direction)
        nothing = jnp.zeros_like(length), jnp.ones_like(length)
        share, size = each_kth(self.every_k, state.count, lambda: self.turn(kept, updates, length), lambda: nothing)

        @each_leaf
        def rule(g: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            turned = guarded_ratio(across(x, g, length, share), size)
            return jnp.where(due, x, g + self.alpha * length * x), jnp.where(due, turned, x)

        gradient, direction = rule(updates, kept)
        updates, inner_state = self.inner.advance(gradient, state.inner_state, params, extra_args)
        return updates, LooksamState(safe_increment(state.count), rho, direction, inner_state)

    def turn(self, s: Updates, g: Updates, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        """How far `s` goes along `g`, and how long the rest is; inf if it may be rounding."""
        share = along(s, g, length)
        size = norm(across(s, g, length, share))
        noise = NOISE * jnp.finfo(size.dtype).eps * norm(s)
        return share, jnp.where(size <= noise, jnp.inf, size).astype(length.dtype)


class gsam(SharpnessAware):
    """GSAM, SAM that closes the gap to the worst point: `inner(s - alpha*(g - <g, s>/|s|^2 * s))`.

    `g` is the gradient at the parameters and `s = grad_fn(w + e)` SAM's. To first order the second
    term leaves the loss at the worst point as it is and raises the loss at `w`, so that the gap
    between them, the sharpness, closes. Its update needs `params` and `grad_fn`, as that of
    `sam_wrapper`. A step costs two gradients.

    Args:
      inner: the optimizer; clipping and weight decay belong inside.
      rho: radius in the p-norm, >= 0, in units of the parameters, or a schedule of the steps taken
        so far. In the paper it follows the learning rate, between limits of its own:
        `lambda t: rho_min + (rho_max - rho_min) * (lr(t) - lr_min) / (lr_max - lr_min)`.
      alpha: weight of the second term, >= 0, a pure number; 0 is SAM.
      p: which norm, in [1, inf].
      eps: where no element of `g` is larger than this, `e` is 0; >= 0, in units of the gradient.

    State: `SamWrapperState(count int32, rho float32, inner_state)`; 8 bytes and the inner state.

    Raises:
      ValueError: `inner` calls `grad_fn` itself, or `grad_fn` gives no gradient.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> gradient = jax.grad(lambda w: (w @ jnp.diag(jnp.array([1.0, 9.0])) @ w) / 2)
      >>> w = jnp.ones(2)
      >>> def first_updates(tx):
      ...     return tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)[0]
      >>> gsam = first_updates(gradtx.gsam(gradtx.sgd(1.0), rho=0.1, alpha=0.5))
      >>> sam = first_updates(gradtx.sam_wrapper(gradtx.sgd(1.0), rho=0.1))
      >>> bool(abs((gsam - sam) @ sam) < 1e-4)  # what GSAM adds is orthogonal to SAM's gradient
      True

    Source: Zhuang et al. 2022, arXiv:2203.08065, algorithm 1. The best `alpha` differs from task to
    task: their code has 0.6, with `rho` from 0.6 to 0.1, for a ViT-B/32 on ImageNet
    (google-research/big_vision, configs/proj/gsam), and 0.2 with an adaptive `rho` of 2 for a wide
    residual network on CIFAR-10 (juntang-zhuang/GSAM); the default here is pytorch_optimizer's.
    """

    inner: Inner
    rho: Rate = 0.05
    alpha: NonNegative = 0.4
    p: Exponent = 2.0
    _: KW_ONLY
    eps: NonNegative = 1e-12

    @property
    def climb(self) -> Climb:
        return Climb(self.p, self.eps)

    def fed(self, g: Updates, uphill: Callable[[], Updates], count: jax.Array) -> Updates:
        s = uphill()
        length = norm(s)
        share = along(g, s, length)

        @each_leaf
        def rule(s: jax.Array, g: jax.Array) -> jax.Array:
            return s - self.alpha * across(g, s, length, share)

        return rule(s, g)
