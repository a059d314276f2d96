"""AcceleGrad: acceleration with AdaGrad's step size, without knowledge of the smoothness."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.domains import Function, Positive
from gradtx.core.leaves import cast_like, copies, each_leaf
from gradtx.core.numerics import default_float, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.projections import check_projection
from gradtx.tree.reductions import norm


class AccelegradState(NamedTuple):
    """Steps taken, both sequences, the average of `y`, the two sums, and the step size in use."""

    count: jax.Array
    z: Params
    y: Params
    average: Params
    weight_sum: jax.Array
    sum_of_squares: jax.Array
    learning_rate: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"learning_rate": self.learning_rate}

    def eval_params(self, params: Params) -> Params:
        """What `gradtx.eval_params` gives."""
        return self.average


def mirror_step(projection: Callable[[Params], Params] | None, gradient: Updates, z: Params, step: jax.Array) -> Params:
    """`projection(z - step * gradient)` in the dtypes of `z`; without a projection the step."""

    @each_leaf
    def rule(g: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        return g, z - step * g

    _, moved = rule(gradient, z)
    if projection is None:
        return moved
    nearest = projection(moved)
    check_projection(moved, nearest)
    return cast_like(nearest, moved)


def _weight(count: jax.Array) -> jax.Array:
    """The paper's `alpha` at step `k = 0, 1, ...`."""
    return jnp.maximum((count.astype(default_float()) + 1) / 4, 1)


class accelegrad(Transformation, final=True, guards=True, needs_params=True):
    """AcceleGrad: two sequences, coupled with growing weights, under one adaptive step size.

    At step `k = 0, 1, ...`, with `g` the gradient at the parameters `x`: `alpha = max(1, (k+1)/4)`,
    `tau = 1/alpha`, `eta = 2*diameter / sqrt(gradient_bound^2 + sum_i alpha_i^2 |g_i|^2)` (the
    present term included), `z = projection(z - alpha*eta*g)`, `y = x - eta*g`. The parameters move
    to the next query point `x = tau*z + (1-tau)*y` (with the next `tau`). The method's output is
    the average `sum alpha*y / sum alpha`: `gradtx.eval_params(state, params)`.

    Its update needs `params`. All leaves together are one vector with one step size. There is no
    learning rate: one unit of `diameter` lets the parameters move by about 1 in the first steps.

    Args:
      diameter: size of the set that is searched, > 0, in units of the parameters: about twice the
        distance to a minimizer.
      gradient_bound: guess of the gradient's norm, > 0; bounds the first step by
        `2*diameter*|g|/gradient_bound`.
      projection: function from a tree to the nearest point of a convex set that holds a minimizer
        and the start, such as `gradtx.projections.l2_ball(1.0)`; None is the whole space. It keeps
        `z` in the set. By the method's design `y`, and so the parameters and their average, may
        leave it by a gradient step.

    State: `AccelegradState(count int32, z, y, average, weight_sum, sum_of_squares, learning_rate)`;
      12 bytes a parameter. `gradtx.metrics` reports `eta` as `learning_rate`. The state holds the
      iterates: make a new state for new parameters, or they return to where the state has them.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.accelegrad(diameter=4.0), jnp.array([3.0, -1.0])
      >>> state = tx.init(params)
      >>> for _ in range(100):
      ...     updates, state = tx.update(jax.grad(lambda x: (x**2).sum())(params), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(abs(gradtx.eval_params(state, params)).max() < 0.01)
      True

    Source: Levy, Yurtsever and Cevher 2018, arXiv:1809.02864, algorithm 1.
    """

    diameter: Positive
    gradient_bound: Positive = 1.0
    projection: Function | None = None

    def eta_of(self, sum_of_squares: jax.Array) -> jax.Array:
        """The step size under a sum of squares."""
        return jnp.asarray(2 * self.diameter / jnp.sqrt(self.gradient_bound**2 + sum_of_squares), default_float())

    def init(self, params: Params) -> AccelegradState:
        weight_sum, sum_of_squares = jnp.zeros((), default_float()), jnp.zeros((), default_float())
        sequences = copies(params), copies(params), copies(params)
        return AccelegradState(zero_count(), *sequences, weight_sum, sum_of_squares, self.eta_of(sum_of_squares))

    def step(
        self, updates: Updates, state: AccelegradState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, AccelegradState]:
        count = safe_increment(state.count)
        alpha, alpha_next = _weight(state.count), _weight(count)
        weight_sum = state.weight_sum + alpha
        sum_of_squares = state.sum_of_squares + alpha**2 * norm(updates, squared=True).astype(alpha.dtype)
        eta = self.eta_of(sum_of_squares)
        z = mirror_step(self.projection, updates, state.z, alpha * eta)

        @each_leaf
        def rule(
            g: jax.Array, y: jax.Array, average: jax.Array, z: jax.Array, z_new: jax.Array, p: jax.Array
        ) -> tuple[jax.Array, ...]:
            x = y + 1 / alpha * (z - y)
            y = x - eta * g
            average = average + alpha / weight_sum * (y - average)
            return y + 1 / alpha_next * (z_new - y) - p, y, average

        updates, y, average = rule(updates, state.y, state.average, state.z, z, params)
        return updates, AccelegradState(count, z, y, average, weight_sum, sum_of_squares, eta)
