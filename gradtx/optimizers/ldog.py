"""Layer-wise DoG: for each leaf a step size from the distance that it covered."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.domains import FloatDType, NonNegative, Number
from gradtx.core.leaves import each_leaf, zeros_like
from gradtx.core.numerics import abs_sq, guarded_ratio, promote, real_dtype, root_sum_squares
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Leaf, Params, Tree, Updates


class ScaleByDistanceOverGradientsState(NamedTuple):
    """For each leaf the largest distance, the sum of squared norms of gradients, and the start."""

    max_dist: Tree
    grad_sum_of_squares: Tree
    init_params: Params


class scale_by_distance_over_gradients(Transformation, keeps_zero=True, needs_params=True):
    """Layer-wise DoG: `eta * g`, with `eta = global_scale * r / sqrt(sum |g_i|^2 + eps)` by leaf.

    `r` is the largest distance of a leaf from its start so far, at first `reps_rel * (1 + |p|)`.
    Its update needs `params`. The authors advise to evaluate an average of the parameters.

    Args:
      reps_rel: the first distance relative to the leaf's norm, >= 0: 1e-4 with batch normalization,
        else 1e-6.
      eps: added inside the root, >= 0; in units of the gradient squared.
      param_dtype: dtype in which the start is stored.
      global_scale: factor of all steps, any finite number: -1 to descend, without another link.

    State: `ScaleByDistanceOverGradientsState(max_dist, grad_sum_of_squares, init_params)`; 4 bytes
      a parameter, and 8 a leaf. It holds the start: make a new state for new parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.scale_by_distance_over_gradients(0.5, 0.0), jnp.zeros(2)
      >>> updates, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [0.3, 0.4]

    Source: Ivgi et al. 2023, arXiv:2302.12022, section 3.3 (L-DoG).

    **Differs:** Optax gives scalars one axis.
    """

    reps_rel: NonNegative = 1e-6
    eps: NonNegative = 1e-8
    param_dtype: FloatDType = np.dtype("float32")
    global_scale: Number = 1.0

    def init(self, params: Params) -> ScaleByDistanceOverGradientsState:
        def first(p: Leaf) -> jax.Array:
            wide = promote(p)
            return jnp.asarray(self.reps_rel * (1 + root_sum_squares([wide]))).astype(real_dtype(wide.dtype))

        start = zeros_like(params, self.param_dtype)
        start = jax.tree.map(lambda x, p: jnp.array(p, x.dtype), start, params)
        sums = jax.tree.map(lambda p: jnp.zeros((), real_dtype(promote(p).dtype)), params)
        return ScaleByDistanceOverGradientsState(jax.tree.map(first, params), sums, start)

    def step(
        self, updates: Updates, state: ScaleByDistanceOverGradientsState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByDistanceOverGradientsState]:
        @each_leaf
        def rule(g: jax.Array, r: jax.Array, total: jax.Array, x0: jax.Array, p: jax.Array) -> tuple[jax.Array, ...]:
            r = jnp.maximum(r, root_sum_squares([p - x0])).astype(r.dtype)
            total = total + jnp.sum(abs_sq(g))
            return g * (self.global_scale * guarded_ratio(r, jnp.sqrt(total + self.eps))), r, total

        updates, r, total = rule(updates, *state, params)
        return updates, ScaleByDistanceOverGradientsState(r, total, state.init_params)
