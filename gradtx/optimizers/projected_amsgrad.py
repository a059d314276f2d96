"""AMSGrad on a convex set: each step ends in the set, nearest in the second moment's norm."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks, domains
from gradtx.core.domains import Decay, DecayOrSchedule, Domain, Positive, Rate
from gradtx.core.leaves import each_leaf, widen
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, Tree, Updates
from gradtx.optimizers.amsgrad import ScaleByAmsgradState, scale_by_amsgrad
from gradtx.projections import check_projection
from gradtx.transforms.scaling import ScaleByLearningRateState, scale_by_learning_rate


class ProjectedAmsgradState(NamedTuple):
    """The moments, and the learning rate's state."""

    amsgrad: ScaleByAmsgradState
    rate: ScaleByLearningRateState


def _takes_weights(value: object) -> bool:
    if not callable(value) or checks.is_factory(value):
        return False
    parameters = inspect.signature(value).parameters.values()
    return any(p.name == "weights" or p.kind is p.VAR_KEYWORD for p in parameters)


def _hint(value: Tree) -> str:
    if checks.is_factory(value):
        return f" This is the factory itself: call it, {value.__name__}(...)."
    return " It projects in a weighted norm: minimize sum(weights * (x - tree)^2) over the set."


WeightedProjection = Annotated[Callable[..., Tree], Domain("a function project(tree, weights=None)", _takes_weights, _hint)]


class projected_amsgrad(Transformation, needs_params=True):
    """AMSGrad with projection: `x = argmin over K of sum(w * (x - y)^2)`.

    With `y = p - learning_rate * m / w`, `w = sqrt(v_max) + eps`, `m = b1*m + (1-b1)*g`,
    `v = b2*v + (1-b2)*|g|^2`, `v_max = max(v_max, v)`, and no bias correction. The update is
    `x - p`: parameters that start anywhere are in `K` after one step, up to the rounding of
    `p + (x - p)`. It must be the last of a chain. Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; the theory has `c/sqrt(k)` (`inverse_sqrt_schedule`).
        One unit moves each parameter by about 1 a step, before the projection.
      projection: function `project(tree, weights=None)` to the nearest point of a convex set `K`,
        in the norm with these positive weights: `gradtx.projections.box(-1.0, 1.0)`, say.
      b1: decay of the first moment, in [0, 1), or a schedule.
      b2: decay of the second moment, in [0, 1).
      eps: added to the root, > 0, so that weights are positive; in units of the gradient.

    State: `ProjectedAmsgradState(amsgrad, rate)`; 12 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> box = gradtx.projections.box(-1.0, 1.0)
      >>> tx, params = gradtx.projected_amsgrad(0.5, box, b1=0.0, b2=0.0), jnp.array([0.75, 0.0])
      >>> updates, state = tx.update(jnp.array([-4.0, -4.0]), tx.init(params), params)
      >>> gradtx.apply_updates(params, updates)
      Array([1. , 0.5], dtype=float32)

    Source: Reddi et al. 2018, "On the Convergence of Adam and Beyond", algorithm 2; `eps` is not in
    the paper.
    """

    learning_rate: Rate
    projection: WeightedProjection
    b1: DecayOrSchedule = 0.9
    b2: Decay = 0.999
    eps: Positive = 1e-8

    @functools.cached_property
    def rate(self) -> scale_by_learning_rate:
        """The step size."""
        return scale_by_learning_rate(self.learning_rate)

    def amsgrad(self, b1: Scalar) -> scale_by_amsgrad:
        """The method of the paper before its projection."""
        return scale_by_amsgrad(b1, self.b2, self.eps, bias_correction_mu=False, bias_correction_nu=False)

    def init(self, params: Params) -> ProjectedAmsgradState:
        return ProjectedAmsgradState(self.amsgrad(0.0).init(params), self.rate.init(params))

    def step(
        self, updates: Updates, state: ProjectedAmsgradState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ProjectedAmsgradState]:
        params = widen(params)
        b1 = domains.scheduled_value("b1", self.b1, state.amsgrad.count)
        step, amsgrad = self.amsgrad(b1).advance(updates, state.amsgrad, params, extra_args)
        step, rate = self.rate.advance(step, state.rate, params, extra_args)

        @each_leaf
        def free(p: jax.Array, u: jax.Array, v_max: jax.Array) -> tuple[jax.Array, jax.Array]:
            return p + u, jnp.sqrt(v_max) + self.eps

        @each_leaf
        def change(x: jax.Array, p: jax.Array) -> jax.Array:
            return x - p

        y, w = free(params, step, amsgrad.nu_max)
        x = self.projection(y, weights=w)
        check_projection(y, x)
        return change(x, params), ProjectedAmsgradState(amsgrad, rate)
