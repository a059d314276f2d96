"""STORM and STORM+: momentum that removes the gradient's variance, two gradients a step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.evaluation import gradient_at
from gradtx.core.domains import Positive
from gradtx.core.leaves import copies, each_leaf, zeros_like
from gradtx.core.numerics import default_float, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Leaf, Params, Tree, Updates
from gradtx.tree.reductions import norm


class StormState(NamedTuple):
    """Steps taken, the gradient's estimate, the last parameters, the sum, the step size in use."""

    count: jax.Array
    estimate: Updates
    previous: Params
    sum_of_squares: jax.Array
    learning_rate: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"learning_rate": self.learning_rate}


class StormPlusState(NamedTuple):
    """As `StormState`, with a second sum: it sets the step size, the first sets the momentum."""

    estimate: Updates
    previous: Params
    sum_of_squares: jax.Array
    scaled_sum: jax.Array
    learning_rate: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"learning_rate": self.learning_rate}


def recursive_momentum(g: jax.Array, d: jax.Array, g_previous: jax.Array, a: Leaf) -> jax.Array:
    """`d = g + (1-a) * (d - g_previous)`, with both gradients from one minibatch.

    Under additive noise of variance `s`, the estimate's error has variance `a*s/(2-a)` in the long
    run.
    """
    return g + (1 - a) * (d - g_previous)


def sum_with(total: jax.Array, tree: Tree) -> jax.Array:
    """`total + |tree|^2`."""
    return total + norm(tree, squared=True).astype(total.dtype)


class storm(Transformation, needs_params=True):
    """STORM: `-eta * d`, `d = g + (1-a) * (d - grad_fn(previous parameters))`.

    With the step size `eta = k / (w + sum |g|^2)^(1/3)` (the present term included) and
    `a = min(1, c*eta^2)` with the `eta` of the step before; the first step has `d = g`. On full
    batches `d` is the gradient. All leaves together are one vector with one step size.

    Its update needs `params` and `grad_fn`, the function from parameters to the gradient on the
    minibatch of this step: a step costs two gradients, the one handed in and one at the previous
    parameters. Transformations before it in a chain change the first of them only, so put it first.

    Args:
      k: scale of the step size, > 0; the first steps move the parameters by about `k * |g|^(1/3)`.
      w: added to the sum of squares, > 0, in units of the gradient squared; bounds the step size by
        `k / w^(1/3)`.
      c: how much of each new gradient enters the estimate, > 0; in units of the step size to the
        power -2.

    State: `StormState(count int32, estimate, previous, sum_of_squares, learning_rate)`; 8 bytes a
      parameter, 4 of them the previous parameters. `gradtx.metrics` reports `eta` as
      `learning_rate`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.storm(k=1.0), jnp.array([3.0, -1.0])
      >>> state = tx.init(params)
      >>> for batch in jax.random.normal(jax.random.key(0), (200, 8, 2)):
      ...     gradient = jax.grad(lambda x: ((x - batch) ** 2).sum(1).mean())
      ...     updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(abs(params).max() < 0.2)
      True

    Source: Cutkosky and Orabona 2019, arXiv:1905.10018, algorithm 1; defaults of `k` and `w` from
    its experiments.

    **Differs:** `a` is at most 1, which the paper's choice of `w` ensures.
    """

    k: Positive = 0.1
    w: Positive = 0.1
    c: Positive = 1.0

    def eta_of(self, sum_of_squares: jax.Array) -> jax.Array:
        """The step size under a sum of squares."""
        return jnp.asarray(self.k / jnp.cbrt(self.w + sum_of_squares), default_float())

    def init(self, params: Params) -> StormState:
        zero = jnp.zeros((), default_float())
        return StormState(zero_count(), zeros_like(params), copies(params), zero, self.eta_of(zero))

    def step(
        self,
        updates: Updates,
        state: StormState,
        params: Params | None = None,
        *,
        grad_fn: Callable[[Params], Updates],
        **extra_args: ExtraArg,
    ) -> tuple[Updates, StormState]:
        a = jnp.where(state.count > 0, jnp.minimum(self.c * state.learning_rate**2, 1), 1)
        gradient = gradient_at(grad_fn, state.previous, params, updates)
        sum_of_squares = sum_with(state.sum_of_squares, updates)
        eta = self.eta_of(sum_of_squares)

        @each_leaf
        def rule(g: jax.Array, d: jax.Array, g_previous: jax.Array) -> tuple[jax.Array, jax.Array]:
            d = recursive_momentum(g, d, g_previous, a)
            return -eta * d, d

        updates, estimate = rule(updates, state.estimate, gradient)
        return updates, StormState(safe_increment(state.count), estimate, copies(params), sum_of_squares, eta)


class storm_plus(Transformation, needs_params=True):
    """STORM+: `storm` without anything to tune.

    `d = g + (1-a) * (d - grad_fn(previous parameters))` with `a = 1 / (1 + sum |g|^2)^(2/3)` over
    the steps before, and `-eta * d` with `eta = 1 / (sum |d|^2 / a)^(1/3)`, where `a` counts the
    step's own gradient too, as the next step's does. While all gradients are zero, `eta` is 0.

    Its update needs `params` and `grad_fn`, the function from parameters to the gradient on the
    minibatch of this step, as that of `storm`. There is no learning rate: a first gradient `g`
    below 1 moves the parameters by about `|g|^(1/3)`, whatever their scale.

    State: `StormPlusState(estimate, previous, sum_of_squares, scaled_sum, learning_rate)`; 8 bytes
      a parameter, 4 of them the previous parameters. `gradtx.metrics` reports `eta` as
      `learning_rate`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.storm_plus(), jnp.array([3.0, -1.0])
      >>> state, gradient = tx.init(params), jax.grad(lambda x: (x**2).sum())
      >>> for _ in range(100):
      ...     updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(abs(params).max() < 0.01)
      True

    Source: Levy, Kavis and Cevher 2021, arXiv:2111.01040, algorithm 1.
    """

    def weight(self, sum_of_squares: jax.Array) -> jax.Array:
        """`a` under a sum of squares."""
        return 1 / jnp.cbrt(1 + sum_of_squares) ** 2

    def init(self, params: Params) -> StormPlusState:
        sums = [jnp.zeros((), default_float()) for _ in range(3)]
        return StormPlusState(zeros_like(params), copies(params), *sums)

    def step(
        self,
        updates: Updates,
        state: StormPlusState,
        params: Params | None = None,
        *,
        grad_fn: Callable[[Params], Updates],
        **extra_args: ExtraArg,
    ) -> tuple[Updates, StormPlusState]:
        gradient = gradient_at(grad_fn, state.previous, params, updates)
        a, sum_of_squares = self.weight(state.sum_of_squares), sum_with(state.sum_of_squares, updates)

        @each_leaf
        def estimated(g: jax.Array, d: jax.Array, g_previous: jax.Array) -> tuple[jax.Array, jax.Array]:
            return g, recursive_momentum(g, d, g_previous, a)

        _, estimate = estimated(updates, state.estimate, gradient)
        scaled_sum = state.scaled_sum + sum_with(jnp.zeros_like(a), estimate) / self.weight(sum_of_squares)
        zero = scaled_sum == 0  # where the cube root has no derivative
        eta = jnp.where(zero, 0, 1 / jnp.cbrt(jnp.where(zero, 1, scaled_sum)))

        @each_leaf
        def descent(g: jax.Array, d: jax.Array) -> jax.Array:
            return -eta * d

        updates = descent(updates, estimate)
        return updates, StormPlusState(estimate, copies(params), sum_of_squares, scaled_sum, eta)
