"""AcceleGrad: acceleration with AdaGrad's step size, without knowledge of the smoothness."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.checks import Function, Positive
from gradtx.core.leaves import cast_like, copies, map_leaves
from gradtx.core.numerics import default_float, safe_increment, zero_count
from gradtx.core.transformation import Params, Transformation, Updates
from gradtx.core.trees import require_params
from gradtx.projections import check_projection
from gradtx.tree.reductions import norm


class AccelegradState(NamedTuple):
    """Steps taken, both sequences, the weighted average of `y`, the two sums, and the step size in use."""

    count: jax.Array
    z: Any
    y: Any
    average: Any
    weight_sum: jax.Array
    sum_of_squares: jax.Array
    learning_rate: jax.Array

    def metrics(self) -> dict[str, Any]:
        """What `gradtx.metrics` reports."""
        return {"learning_rate": self.learning_rate}

    def eval_params(self, params: Any) -> Any:
        """What `gradtx.eval_params` gives."""
        return self.average


def projected(projection: Callable[[Any], Any] | None, tree: Any) -> Any:
    """`projection(tree)`, in the dtypes of `tree`; the tree itself without a projection."""
    if projection is None:
        return tree
    after = projection(tree)
    check_projection(tree, after)
    return cast_like(after, tree)


def _weight(count: jax.Array) -> jax.Array:
    """The paper's `alpha` at step `k = 0, 1, ...`."""
    return jnp.maximum((count.astype(default_float()) + 1) / 4, 1)


def mirror(g: jax.Array, z: jax.Array, *, step: Any) -> tuple[jax.Array, jax.Array]:
    """A step from `z`; the gradient comes out too, so that the second result has the dtype of `z`."""
    return g, z - step * g


def _descend(
    g: jax.Array,
    y: jax.Array,
    average: jax.Array,
    z: jax.Array,
    z_new: jax.Array,
    p: jax.Array,
    *,
    eta: Any,
    tau: Any,
    tau_new: Any,
    share: Any,
) -> tuple[jax.Array, ...]:
    x = y + tau * (z - y)
    y = x - eta * g
    return y + tau_new * (z_new - y) - p, y, average + share * (y - average)


class accelegrad(Transformation, final=True):
    """AcceleGrad: two sequences, coupled with growing weights, under one adaptive step size.

    At step `k = 0, 1, ...`, with `g` the gradient at the parameters `x`: `alpha = max(1, (k+1)/4)`, `tau = 1/alpha`,
    `eta = 2*diameter / sqrt(gradient_bound^2 + sum_i alpha_i^2 |g_i|^2)` (the present term included),
    `z = projection(z - alpha*eta*g)`, `y = x - eta*g`. The parameters move to the next query point `x = tau*z + (1-tau)*y`
    (with the next `tau`). The method's output is the average `sum alpha*y / sum alpha`: `gradtx.eval_params(state, params)`.

    Args:
      diameter: size of the set that is searched, > 0, in units of the parameters: about twice the distance to a minimizer.
      gradient_bound: guess of the gradient's norm, > 0; bounds the first step by `2*diameter*|g|/gradient_bound`.
      projection: function from a tree to the nearest point of a convex set that holds a minimizer and the start, as
        `gradtx.projections.l2_ball(1.0)` is one; None is the whole space. It keeps `z` in the set. By the method's design
        `y`, and so the parameters and their average, may leave it by a gradient step.

    State: `AccelegradState(count int32, z, y, average, weight_sum, sum_of_squares, learning_rate)`; 12 bytes a parameter.
      `gradtx.metrics` reports `eta` as `learning_rate`. The state holds the iterates: parameters that were replaced from
      outside return to where the state has them, so make a new state for new parameters.

    Returns:
      The transformation; its update needs `params`. All leaves together are one vector with one step size. There is no learning
      rate: one unit of `diameter` lets the parameters move by about 1 in the first steps.

    Raises:
      ValueError, TypeError: an argument outside its domain, or a projection that changes the tree's structure.

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
        return jnp.asarray(2 * self.diameter / jnp.sqrt(self.gradient_bound**2 + sum_of_squares), default_float())

    def init(self, params: Params) -> AccelegradState:
        weight_sum, sum_of_squares = jnp.zeros((), default_float()), jnp.zeros((), default_float())
        sequences = copies(params), copies(params), copies(params)
        return AccelegradState(zero_count(), *sequences, weight_sum, sum_of_squares, self.eta_of(sum_of_squares))

    def step(
        self, updates: Updates, state: AccelegradState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, AccelegradState]:
        count = safe_increment(state.count)
        alpha = _weight(state.count)
        weight_sum = state.weight_sum + alpha
        sum_of_squares = state.sum_of_squares + alpha**2 * norm(updates, squared=True).astype(alpha.dtype)
        eta = self.eta_of(sum_of_squares)
        _, z = map_leaves(mirror, updates, state.z, step=alpha * eta)
        z = projected(self.projection, z)
        hypers = {"eta": eta, "tau": 1 / alpha, "tau_new": 1 / _weight(count), "share": alpha / weight_sum}
        updates, y, average = map_leaves(_descend, updates, state.y, state.average, state.z, z, require_params(params), **hypers)
        return updates, AccelegradState(count, z, y, average, weight_sum, sum_of_squares, eta)
