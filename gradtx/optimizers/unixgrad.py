"""UniXGrad: the universal extra-gradient method, two gradients a step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.evaluation import gradient_at
from gradtx.core.domains import Function, Positive
from gradtx.core.leaves import copies, each_leaf
from gradtx.core.numerics import default_float, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.optimizers.accelegrad import mirror_step
from gradtx.tree.reductions import norm


class UnixgradState(NamedTuple):
    """Steps taken, the mirror point, the average of the `x`, the sum, the step size in use."""

    count: jax.Array
    y: Params
    average: Params
    sum_of_squares: jax.Array
    learning_rate: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"learning_rate": self.learning_rate}

    def eval_params(self, params: Params) -> Params:
        """What `gradtx.eval_params` gives."""
        return self.average


class unixgrad(Transformation, final=True, guards=True, needs_params=True):
    """UniXGrad: an extra-gradient step at weighted averages, under an adaptive step size.

    At step `t = 1, 2, ...`, with `M` the gradient at the parameters and `alpha = t`,
    `share = alpha / sum_{i<=t} i = 2/(t+1)`: `x = projection(y - alpha*eta*M)`,
    `average += share * (x - average)`, `g = grad_fn(average)`, `y = projection(y - alpha*eta*g)`,
    `eta = 2*diameter / sqrt(1 + sum_{i<t} alpha_i^2 |g_i - M_i|^2)`. The parameters then move to
    the next query point, `average + share * (y - average)` with the next `share`. The method's
    output is `average`: `gradtx.eval_params(state, params)`.

    Its update needs `params` and `grad_fn`, the function from parameters to the gradient on the
    minibatch of this step. The parameters are the point of the *first* gradient of a step (`M`),
    the one that is handed to `update`; the second one is taken inside, by `grad_fn`. So a step
    costs exactly two gradients. Transformations before it in a chain change the first gradient
    only, so put it first. All leaves together are one vector with one step size. There is no
    learning rate: one unit of `diameter` is one of the parameters.

    Args:
      diameter: size of the set that is searched, > 0, in units of the parameters: about twice the
        distance to a minimizer.
      projection: function from a tree to the nearest point of a convex set that holds a minimizer
        and the start, such as `gradtx.projections.l2_ball(1.0)`. Parameters and average stay in the
        set. None is the whole space, beyond the paper's theory: the first steps have a length of
        about `2*diameter*|g|` and overshoot far, until the sum has grown.

    State: `UnixgradState(count int32, y, average, sum_of_squares, learning_rate)`; 8 bytes a
      parameter. `gradtx.metrics` reports `eta` as `learning_rate`. The state holds the iterates:
      make a new state for new parameters, or they return to where the state has them.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx = gradtx.unixgrad(diameter=8.0, projection=gradtx.projections.box(-4.0, 4.0))
      >>> params, gradient = jnp.array([3.0, -1.0]), jax.grad(lambda x: (x**2).sum())
      >>> state = tx.init(params)
      >>> for _ in range(100):
      ...     updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(abs(gradtx.eval_params(state, params)).max() < 0.01)
      True

    Source: Kavis, Levy, Bach and Cevher 2019, arXiv:1910.13857, algorithm 1 with the Euclidean
    distance.
    """

    diameter: Positive
    projection: Function | None = None

    def eta_of(self, sum_of_squares: jax.Array) -> jax.Array:
        """The step size under a sum of squares."""
        return jnp.asarray(2 * self.diameter / jnp.sqrt(1 + sum_of_squares), default_float())

    def init(self, params: Params) -> UnixgradState:
        zero = jnp.zeros((), default_float())
        return UnixgradState(zero_count(), copies(params), copies(params), zero, self.eta_of(zero))

    def step(
        self,
        updates: Updates,
        state: UnixgradState,
        params: Params | None = None,
        *,
        grad_fn: Callable[[Params], Updates],
        **extra_args: ExtraArg,
    ) -> tuple[Updates, UnixgradState]:
        count = safe_increment(state.count)
        t = count.astype(default_float())
        eta = self.eta_of(state.sum_of_squares)

        @each_leaf
        def averaged(average: jax.Array, x: jax.Array) -> jax.Array:
            return average + 2 / (t + 1) * (x - average)

        @each_leaf
        def difference(m: jax.Array, g: jax.Array) -> jax.Array:
            return g - m

        @each_leaf
        def move(m: jax.Array, p: jax.Array, average: jax.Array, y: jax.Array) -> jax.Array:
            return average + 2 / (t + 2) * (y - average) - p

        average = averaged(state.average, mirror_step(self.projection, updates, state.y, t * eta))
        gradient = gradient_at(grad_fn, average, params, updates)
        y = mirror_step(self.projection, gradient, state.y, t * eta)
        squares = norm(difference(updates, gradient), squared=True).astype(t.dtype)
        updates = move(updates, params, average, y)
        sum_of_squares = state.sum_of_squares + t**2 * squares
        return updates, UnixgradState(count, y, average, sum_of_squares, eta)
