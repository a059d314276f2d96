"""BFGS, the quasi-Newton method with a dense matrix: `scale_by_bfgs`, `bfgs`."""

from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.plain import identity
from gradtx.core import checks
from gradtx.core.composites import Preset
from gradtx.core.domains import PositiveInt, Rate
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.pairs import Inner
from gradtx.core.transformation import Transformation
from gradtx.core.trees import check_same_shapes
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.core.vectors import from_vector, to_vector
from gradtx.optimizers.lbfgs import FROM_ONE, curvature_weight, first_scale
from gradtx.optimizers.newton import check_size
from gradtx.transforms.linesearch import line_dtype
from gradtx.transforms.scaling import scale, scale_by_learning_rate


class ScaleByBFGSState(NamedTuple):
    """Steps taken, pairs used, last parameters and gradient as vectors, the inverse Hessian."""

    count: jax.Array
    pairs: jax.Array
    params: jax.Array
    updates: jax.Array
    inverse_hessian: jax.Array


class scale_by_bfgs(Transformation, needs_params=True):
    """Multiplies gradients by a dense estimate `P` of the inverse Hessian: `P @ g`.

    With `s = x_{t+1} - x_t`, `y = g_{t+1} - g_t`, `rho = 1/<s, y>`:
    `P <- (I - rho*s*y') P (I - rho*y*s') + rho*s*s'`. `P` is `min(1, 1/||g||) * I` for the first
    step, and `<s, y>/<y, y> * I` before its first pair. A pair without positive curvature is left
    out. If the parameters did not move since the last step, `P` starts anew.

    The whole tree is one vector; complex elements count as two, with conjugates of `jax.grad` as
    gradients. A step costs a few products of the matrix with a vector. The update needs `params`.

    Args:
      max_size: largest number of elements `d`, >= 1; `init` refuses more.

    State: `ScaleByBFGSState(count int32, pairs int32, params, updates, inverse_hessian)`;
      `4 * d + 8` bytes a parameter. The whole tree is one vector, whole on every device also where
      parameters are sharded explicitly.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.scale_by_bfgs(), gradtx.scale(-1.0))
      >>> params = jnp.array([3.0, -2.0])
      >>> state, update = tx.init(params), jax.jit(tx.update)
      >>> for _ in range(20):
      ...     updates, state = update(jnp.array([1.0, 4.0]) * params, state, params)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(jnp.max(jnp.abs(params)) < 1e-4)
      True

    Source: Nocedal and Wright 2006, "Numerical Optimization", equations 6.17 and 6.20.
    """

    _: KW_ONLY
    max_size: PositiveInt = 1024

    def init(self, params: Params) -> ScaleByBFGSState:
        dtype = line_dtype(params)
        check_size(params, self.max_size, dtype, "Use gradtx.lbfgs for many parameters")
        x = to_vector(params, dtype)
        return ScaleByBFGSState(zero_count(), zero_count(), jnp.zeros_like(x), jnp.zeros_like(x), jnp.eye(x.size, dtype=dtype))

    def step(
        self, updates: Updates, state: ScaleByBFGSState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByBFGSState]:
        check_same_shapes(updates, params)
        dtype = state.inverse_hessian.dtype
        x, g = to_vector(params, dtype), to_vector(updates, dtype)
        if x.shape != state.params.shape:
            raise checks.WrongValue(
                f"params have {x.size} elements, but the state has {state.params.size}; was the state made from other parameters?"
            )
        moved = jnp.any(x != state.params) & (state.count > 0)
        s, y = (jnp.where(moved, new - old, 0) for new, old in ((x, state.params), (g, state.updates)))
        rho = curvature_weight(s, y, dtype)
        usable = rho > 0
        pairs = jnp.where(moved, state.pairs, 0)
        eye = jnp.eye(x.size, dtype=dtype)
        square = jnp.where(usable, rho * jnp.sum(y * y), 1)
        before = jnp.where(pairs > 0, state.inverse_hessian, eye / square)
        after = jnp.where(usable, _with_pair(before, s, y, rho), before)
        pairs = jnp.where(usable, safe_increment(pairs), pairs)
        after = jnp.where(pairs > 0, after, first_scale(g, dtype) * eye)
        return from_vector(after @ g, updates), ScaleByBFGSState(safe_increment(state.count), pairs, x, g, after)


def _with_pair(p: jax.Array, s: jax.Array, y: jax.Array, rho: jax.Array) -> jax.Array:
    """`(I - rho*s*y') P (I - rho*y*s') + rho*s*s'`, multiplied out for a symmetric `P`."""
    py = p @ y
    return p - rho * (jnp.outer(s, py) + jnp.outer(py, s)) + rho * (1 + rho * (y @ py)) * jnp.outer(s, s)


class bfgs(Preset):
    """BFGS with a line search: `-s * P @ g`, for the full batch; see `scale_by_bfgs`.

    The update needs `params` and, with a line search, the extra arguments `value`, `grad` and
    `value_fn`; `minimize` passes them.

    Args:
      learning_rate: number >= 0 or schedule, multiplies the direction before the line search; None
        is 1.
      linesearch: transformation that finds the step `s`, as in `lbfgs`; None takes `s = 1`.
      max_size: as in `scale_by_bfgs`.

    State: `(ScaleByBFGSState, state of the rate, state of the line search)`; `4 * d + 12` bytes a
      parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> fn = lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
      >>> start = jnp.array([-1.2, 1.0])
      >>> params, result = gradtx.minimize(fn, start, gradtx.bfgs(), max_steps=100, tol=1e-3)
      >>> params.round(2), result.message()
      (Array([1., 1.], dtype=float32), 'converged: no component of the gradient is above tol')

    Source: Nocedal and Wright 2006, "Numerical Optimization", algorithm 6.1.
    """

    learning_rate: Rate | None = None
    linesearch: Inner | None = FROM_ONE
    _: KW_ONLY
    max_size: PositiveInt = 1024

    def chain(self) -> Transformation:
        rate = scale(-1.0) if self.learning_rate is None else scale_by_learning_rate(self.learning_rate)
        return chain(scale_by_bfgs(max_size=self.max_size), rate, identity() if self.linesearch is None else self.linesearch)
