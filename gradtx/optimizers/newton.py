"""Newton's method with the dense Hessian: `scale_by_newton`, `newton`."""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.chain import chain
from gradtx.core import checks
from gradtx.core.composites import Preset
from gradtx.core.domains import Flag, NonNegative, PositiveInt, Rate
from gradtx.core.transformation import EmptyState, Transformation
from gradtx.core.trees import require_params
from gradtx.core.types import DType, ExtraArg, Params, Scalar, Tree, Updates
from gradtx.core.vectors import from_vector, to_vector
from gradtx.transforms.linesearch import bind_value_fn, line_dtype
from gradtx.transforms.scaling import scale_by_learning_rate


def check_size(params: Params, max_size: int, dtype: DType, instead: str) -> None:
    """Raises unless a dense matrix of the parameters' size is allowed."""
    size = sum(math.prod(np.shape(p)) * (2 if jnp.iscomplexobj(p) else 1) for p in jax.tree.leaves(params))
    if size > max_size:
        memory = size**2 * np.dtype(dtype).itemsize / 2**20
        raise checks.WrongValue(
            f"params have {size:,} elements, so that their matrix takes {memory:,.0f} MiB; expected at most "
            f"max_size={max_size:,} elements. {instead}, or raise max_size."
        )


class scale_by_newton(Transformation):
    """Multiplies gradients by the inverse Hessian: `solve(H + damping*I, g)`.

    `H` is the Hessian of `value_fn` at `params`. The whole tree is one vector; complex elements
    count as two. Where the system is singular, updates stay as they are. Time grows with the cube
    of the number of elements, memory with the square. The update needs `params` and the extra
    argument `value_fn`; other extra arguments go to `value_fn` where it takes them.

    Args:
      damping: added to the diagonal, >= 0, in units of the Hessian. Above the largest negative
        curvature, steps descend.
      max_size: largest number of elements, >= 1; `init` refuses more.
      has_aux: whether `value_fn` gives `(value, aux)`; `aux` is dropped.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> fn = lambda x: x[0] ** 2 + 5 * (x[1] - x[0]) ** 2
      >>> tx, params = gradtx.scale_by_newton(), jnp.array([3.0, -2.0])
      >>> step, _ = tx.update(jax.grad(fn)(params), tx.init(params), params, value_fn=fn)
      >>> step.round(4)
      Array([ 3., -2.], dtype=float32)

    Source: Nocedal and Wright 2006, "Numerical Optimization", equation 3.30; damping after
    Levenberg 1944.
    """

    damping: NonNegative = 0.0
    _: KW_ONLY
    max_size: PositiveInt = 1024
    has_aux: Flag = False

    def init(self, params: Params) -> EmptyState:
        check_size(params, self.max_size, line_dtype(params), "Use gradtx.lbfgs for many parameters")
        return EmptyState()

    def step(
        self,
        updates: Updates,
        state: EmptyState,
        params: Params | None = None,
        *,
        value: Scalar = None,  # not used: a call as for line searches may pass it
        value_fn: Callable[..., Tree],
        **extra_args: ExtraArg,
    ) -> tuple[Updates, EmptyState]:
        dtype = line_dtype(require_params(params))
        check_size(params, self.max_size, dtype, "Use gradtx.lbfgs for many parameters")
        fn = bind_value_fn(value_fn, extra_args, self.has_aux)
        g = to_vector(updates, dtype)
        if not g.size:
            return updates, state
        hessian = jax.hessian(lambda x: fn(from_vector(x, params)).astype(dtype))(to_vector(params, dtype))
        step = jnp.linalg.solve(hessian + self.damping * jnp.eye(g.size, dtype=dtype), g)
        return from_vector(jnp.where(jnp.all(jnp.isfinite(step)), step, g), updates), state


class newton(Preset):
    """Newton's method: `-learning_rate * solve(H + damping*I, g)`; see `scale_by_newton`.

    It finds any stationary point, saddles and maxima too. Put a line search behind it where the
    start is far. The update needs `params` and the extra argument `value_fn`; `minimize` passes it.

    Args:
      learning_rate: number >= 0 or schedule; 1 jumps to where the quadratic model is stationary.
      damping, max_size, has_aux: as in `scale_by_newton`.

    State: `(EmptyState, state of the rate)`; 0 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> fn = lambda x: jnp.sum(jnp.cosh(x - 1.0))
      >>> params, result = gradtx.minimize(fn, jnp.array([0.0, 2.0]), gradtx.newton(), max_steps=10)
      >>> params.round(4), int(result.steps)
      (Array([1., 1.], dtype=float32), 3)

    Source: Nocedal and Wright 2006, "Numerical Optimization", equation 3.30.
    """

    learning_rate: Rate = 1.0
    damping: NonNegative = 0.0
    _: KW_ONLY
    max_size: PositiveInt = 1024
    has_aux: Flag = False

    def chain(self) -> Transformation:
        return chain(
            scale_by_newton(self.damping, max_size=self.max_size, has_aux=self.has_aux), scale_by_learning_rate(self.learning_rate)
        )
