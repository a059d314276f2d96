"""Newton's method by conjugate gradients on products with the Hessian, which is never formed."""

from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Flag, NonNegative, PositiveInt, Rate
from gradtx.core.leaves import cast_like, each_leaf, widen
from gradtx.core.numerics import zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.trees import require_params
from gradtx.core.types import ExtraArg, Params, Scalar, Tree, Updates
from gradtx.core.varying import while_loop
from gradtx.transforms.linesearch import bind_value_fn, line_dtype
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.tree.arithmetic import conj
from gradtx.tree.reductions import vdot


class ScaleByNewtonCGState(NamedTuple):
    """Iterations of conjugate gradients at the last step."""

    iterations: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"cg_iterations": self.iterations}


class _Search(NamedTuple):
    """Where conjugate gradients stand.

    Attributes:
      x: the solution so far.
      r: what is left of the right side.
      d: the next direction.
      rr: the square of `r`.
      k: iterations.
      convex: whether curvature has been positive along all directions.
    """

    x: Updates
    r: Updates
    d: Updates
    rr: jax.Array
    k: jax.Array
    convex: jax.Array


class scale_by_newton_cg(Transformation):
    """Multiplies gradients by the inverse Hessian: `x` with `(H + damping*I) x = g`, nearly.

    `H` is the Hessian of `value_fn` at `params`; conjugate gradients need its products with vectors
    alone, each at about the cost of two gradients. They stop where what is left of `g` has fallen
    to the part `tolerance` of it, after `max_iterations`, or at a direction of negative curvature:
    what they have then is a direction of descent, at first `g` itself. The update needs `params`
    and the extra argument `value_fn`; other extra arguments go to `value_fn` where it takes them.

    Args:
      damping: added to the diagonal, >= 0, in units of the Hessian.
      max_iterations: >= 1.
      tolerance: >= 0; None is `min(0.5, sqrt(|g|))`: rough at first, and quadratic convergence in
        the end.
      has_aux: whether `value_fn` gives `(value, aux)`; `aux` is dropped.

    State: `ScaleByNewtonCGState(iterations int32)`, 4 bytes. `gradtx.metrics` reports
      `cg_iterations`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> fn = lambda x: x[0] ** 2 + 5 * (x[1] - x[0]) ** 2
      >>> tx, params = gradtx.scale_by_newton_cg(tolerance=1e-6), jnp.array([3.0, -2.0])
      >>> step, state = tx.update(jax.grad(fn)(params), tx.init(params), params, value_fn=fn)
      >>> [round(float(x), 3) for x in step], int(state.iterations)
      ([3.0, -2.0], 2)

    Source: Nocedal and Wright 2006, "Numerical Optimization", algorithm 7.1; the tolerance:
    equation 7.3.
    """

    damping: NonNegative = 0.0
    _: KW_ONLY
    max_iterations: PositiveInt = 50
    tolerance: NonNegative | None = None
    has_aux: Flag = False

    def init(self, params: Params) -> ScaleByNewtonCGState:
        return ScaleByNewtonCGState(zero_count())

    def step(
        self,
        updates: Updates,
        state: ScaleByNewtonCGState,
        params: Params | None = None,
        *,
        value: Scalar = None,  # not used: a call as for line searches may pass it
        value_fn: Callable[..., Tree],
        **extra_args: ExtraArg,
    ) -> tuple[Updates, ScaleByNewtonCGState]:
        dtype, wide = line_dtype(require_params(params)), widen(params)
        fn = bind_value_fn(value_fn, extra_args, self.has_aux)

        def gradient(point: Params) -> Updates:
            return conj(jax.grad(lambda x: fn(cast_like(x, params)).astype(dtype))(point))

        def product(d: Updates) -> Updates:
            curved = jax.jvp(gradient, (wide,), (d,))[1]
            return each_leaf(lambda h, x: h + self.damping * x)(curved, d)

        g = each_leaf(lambda u, p: u.astype(p.dtype))(updates, wide)
        x, iterations = self.solved(product, g, lambda a, b: jnp.real(vdot(a, b)).astype(dtype))
        return x, ScaleByNewtonCGState(iterations)

    def solved(
        self, product: Callable[[Updates], Updates], g: Updates, dot: Callable[[Updates, Updates], jax.Array]
    ) -> tuple[Updates, jax.Array]:
        """The solution for a right side, and how many iterations it took."""
        gg = dot(g, g)
        size = jnp.sqrt(gg)
        tolerance = jnp.minimum(0.5, jnp.sqrt(size)) if self.tolerance is None else self.tolerance
        least = (tolerance * size) ** 2

        def goes_on(s: _Search) -> jax.Array:
            return s.convex & (s.rr > least) & (s.k < self.max_iterations)

        def iterate(s: _Search) -> _Search:
            h = product(s.d)
            curvature = dot(s.d, h)
            convex = curvature > 0
            alpha = jnp.where(convex, s.rr / jnp.where(convex, curvature, 1), 0)

            @each_leaf
            def advance(x: jax.Array, r: jax.Array, d: jax.Array, h: jax.Array) -> tuple[jax.Array, jax.Array]:
                return x + alpha.astype(x.real.dtype) * d, r - alpha.astype(x.real.dtype) * h

            x, r = advance(s.x, s.r, s.d, h)
            rr = dot(r, r)
            beta = rr / s.rr
            d = each_leaf(lambda r, d: r + beta.astype(r.real.dtype) * d)(r, s.d)
            return _Search(x, r, d, rr, s.k + 1, convex)

        start = _Search(jax.tree.map(jnp.zeros_like, g), g, g, gg, zero_count(), jnp.asarray(True))
        end = while_loop(goes_on, iterate, start)
        unsolved = (~end.convex & (end.k == 1)) | ~jnp.isfinite(gg)  # a NaN must not become a silent 0
        return jax.tree.map(lambda x, u: jnp.where(unsolved, u, x), end.x, g), end.k


class newton_cg(Preset):
    """Newton's method by conjugate gradients: `-learning_rate * x`; see `scale_by_newton_cg`.

    Put a line search behind it where the start is far. The update needs `params` and the extra
    argument `value_fn`; `minimize` passes it.

    Args:
      learning_rate: number >= 0 or schedule; 1 jumps to the minimum of the quadratic model.
      damping: added to the diagonal, >= 0, in units of the Hessian.
      max_iterations: >= 1.
      tolerance: >= 0; None is `min(0.5, sqrt(|g|))`: rough at first, and quadratic convergence in
        the end.
      has_aux: whether `value_fn` gives `(value, aux)`; `aux` is dropped.

    State: `(ScaleByNewtonCGState, state of the rate)`; 0 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> fn, start = lambda x: jnp.sum(jnp.cosh(x - 1.0)), jnp.array([0.0, 2.0])
      >>> params, result = gradtx.minimize(fn, start, gradtx.newton_cg(), max_steps=20)
      >>> params.round(3)
      Array([1., 1.], dtype=float32)

    Source: Nocedal and Wright 2006, "Numerical Optimization", algorithm 7.1.
    """

    learning_rate: Rate = 1.0
    damping: NonNegative = 0.0
    _: KW_ONLY
    max_iterations: PositiveInt = 50
    tolerance: NonNegative | None = None
    has_aux: Flag = False

    def chain(self) -> Transformation:
        return chain(
            scale_by_newton_cg(self.damping, max_iterations=self.max_iterations, tolerance=self.tolerance, has_aux=self.has_aux),
            scale_by_learning_rate(self.learning_rate),
        )
