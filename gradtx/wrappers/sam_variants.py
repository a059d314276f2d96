"""What came after SAM: LookSAM, which reuses its second gradient, and GSAM, which also closes the gap to the worst point."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.checks import NonNegative, PositiveInt, Rate
from gradtx.core.leaves import cast_like, map_leaves, widen, zeros_like
from gradtx.core.numerics import cond, guarded_ratio, safe_increment, zero_count
from gradtx.core.transformation import GradientTransformation, Inner
from gradtx.core.trees import require_params
from gradtx.core.values import factory
from gradtx.linalg.ascent import Exponent
from gradtx.tree.reductions import norm, vdot
from gradtx.wrappers.ascent import Climb, inner_of, radius
from gradtx.wrappers.sam import SamWrapperState

NOISE = 16
"""What is shorter than so many units of rounding has no direction of its own."""


class LooksamState(NamedTuple):
    """Steps taken, the radius in use, the direction in which the last second gradient left the first, and the inner state."""

    count: jax.Array
    rho: jax.Array
    direction: Any
    inner_state: Any

    def metrics(self) -> dict[str, Any]:
        """What `gradtx.metrics` reports."""
        return {"rho": self.rho}


def _over(x: jax.Array, *, length: Any) -> jax.Array:
    return guarded_ratio(x, length)


def _minus(x: jax.Array, y: jax.Array, *, share: Any) -> jax.Array:
    return x - share * y


def unit(tree: Any, length: Any) -> Any:
    """The tree over its length, in at least float32; 0 where that is 0."""
    return map_leaves(_over, widen(tree), length=length)


def across(x: Any, y: Any) -> Any:
    """The part of `x` that is orthogonal to `y`, all leaves as one vector: `x - <x, y> / |y|^2 * y`; `x` where `y` is 0."""
    along = unit(y, norm(y))
    return map_leaves(_minus, widen(x), along, share=jnp.real(vdot(along, x)))


@factory()
def looksam(
    inner: Inner, rho: Rate = 0.05, every_k: PositiveInt = 5, alpha: NonNegative = 0.7, eps: NonNegative = 1e-12
) -> GradientTransformation:
    """LookSAM: SAM each k-th step; between, its turn away from the gradient is used again: `inner(g + alpha * |g| * v / |v|)`.

    At the first step and each k-th after it, `s = grad_fn(w + rho * g / |g|)` is the gradient for `inner`, and `v` the part of `s`
    orthogonal to `g`.

    Args:
      inner: the optimizer; clipping and weight decay belong inside.
      rho: radius, >= 0, in units of the parameters, or a schedule of the steps taken so far.
      every_k: how often the second gradient is taken, >= 1; 1 is SAM.
      alpha: length of the turn, >= 0, in units of the gradient's.
      eps: as in `sam_wrapper`.

    State: `LooksamState(count int32, rho float32, direction, inner_state)`; 4 bytes a parameter for `v / |v|`, and the inner state.

    Returns:
      The transformation; its update needs `params` and `grad_fn`, as that of `sam_wrapper`. A step costs `1 + 1/k` gradients.

    Raises:
      ValueError, TypeError: as `sam_wrapper`.

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

    Source: Liu et al. 2022, arXiv:2203.02714, algorithm 1, without its layer-wise scaling; the default `alpha` as in
    rollovd/looksam and pytorch_optimizer.

    **Differs:** where `v` is as short as rounding errors (one parameter, or gradients that are parallel), it is taken as 0, whose
    direction the paper divides out of noise.
    """
    inner, climb = inner_of("looksam", inner), Climb(2.0, eps)

    def init(params: Any) -> LooksamState:
        return LooksamState(zero_count(), radius(rho, zero_count()), zeros_like(params), inner.init(params))

    def update(
        updates: Any, state: LooksamState, params: Any = None, *, grad_fn: Callable[[Any], Any], **extra_args: Any
    ) -> tuple[Any, LooksamState]:
        params, r = require_params(params), radius(rho, state.count)

        def anew() -> tuple[Any, Any]:
            uphill = climb.gradient(grad_fn, params, updates, r)
            v = across(uphill, updates)
            length = norm(v)
            noise = NOISE * jnp.finfo(length.dtype).eps * norm(uphill)
            return uphill, cast_like(unit(v, jnp.where(length <= noise, jnp.inf, length)), state.direction)

        def again() -> tuple[Any, Any]:
            return map_leaves(_minus, updates, state.direction, share=-norm(updates) * alpha), state.direction

        gradient, direction = anew() if every_k == 1 else cond(state.count % every_k == 0, anew, again)
        updates, inner_state = inner.advance(gradient, state.inner_state, params, extra_args)
        return updates, LooksamState(safe_increment(state.count), r, direction, inner_state)

    return GradientTransformation(init, update)


@factory()
def gsam(
    inner: Inner,
    rho: Rate = 0.05,
    alpha: NonNegative = 0.4,
    p: Exponent = 2.0,
    *,
    eps: NonNegative = 1e-12,
) -> GradientTransformation:
    """GSAM: SAM, less what of the plain gradient is orthogonal to it: `inner(s - alpha * (g - <g, s> / |s|^2 * s))`.

    `g` is the gradient at the parameters and `s = grad_fn(w + e)` SAM's. To first order the second term leaves the loss at the
    worst point as it is and raises the loss at `w`, so that the gap between them, the sharpness, closes.

    Args:
      inner: the optimizer; clipping and weight decay belong inside.
      rho: radius in the p-norm, >= 0, in units of the parameters, or a schedule. In the paper it follows the learning rate,
        between limits of its own: `lambda t: rho_min + (rho_max - rho_min) * (lr(t) - lr_min) / (lr_max - lr_min)`.
      alpha: weight of the second term, >= 0, a pure number; 0 is SAM.
      p, eps: as in `sam_wrapper`.

    State: `SamWrapperState(count int32, rho float32, inner_state)`; 8 bytes and the inner state.

    Returns:
      The transformation; its update needs `params` and `grad_fn`, as that of `sam_wrapper`. A step costs two gradients.

    Raises:
      ValueError, TypeError: as `sam_wrapper`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> gradient = jax.grad(lambda w: (w @ jnp.diag(jnp.array([1.0, 9.0])) @ w) / 2)
      >>> tx, w = gradtx.gsam(gradtx.sgd(1.0), rho=0.1, alpha=0.5), jnp.ones(2)
      >>> updates, _ = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> sam, _ = gradtx.sam_wrapper(gradtx.sgd(1.0), rho=0.1).update(gradient(w), tx.init(w), w, grad_fn=gradient)
      >>> bool(abs((updates - sam) @ sam) < 1e-4)  # what GSAM adds is orthogonal to SAM's gradient
      True

    Source: Zhuang et al. 2022, arXiv:2203.08065, algorithm 1. The best `alpha` differs from task to task: their code has 0.6, with
    `rho` from 0.6 to 0.1, for a ViT-B/32 on ImageNet (google-research/big_vision, configs/proj/gsam), and 0.2 with an adaptive
    `rho` of 2 for a wide residual network on CIFAR-10 (juntang-zhuang/GSAM); the default here is pytorch_optimizer's.
    """
    inner, climb = inner_of("gsam", inner), Climb(p, eps)

    def init(params: Any) -> SamWrapperState:
        return SamWrapperState(zero_count(), radius(rho, zero_count()), inner.init(params))

    def update(
        updates: Any, state: SamWrapperState, params: Any = None, *, grad_fn: Callable[[Any], Any], **extra_args: Any
    ) -> tuple[Any, SamWrapperState]:
        params, r = require_params(params), radius(rho, state.count)
        uphill = climb.gradient(grad_fn, params, updates, r)
        gradient = map_leaves(_minus, uphill, across(updates, uphill), share=alpha)
        updates, inner_state = inner.advance(gradient, state.inner_state, params, extra_args)
        return updates, SamWrapperState(safe_increment(state.count), r, inner_state)

    return GradientTransformation(init, update)
