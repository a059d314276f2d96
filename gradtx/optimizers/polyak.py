"""Polyak's step size: the gap to the least loss over the squared norm of the gradient."""

from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core import checks, domains
from gradtx.core.composites import Preset
from gradtx.core.domains import NonNegative, Number, Rate, one_of
from gradtx.core.numerics import default_float, guarded_ratio
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, Updates
from gradtx.optimizers.sgd import sgd
from gradtx.transforms.scaling import scaled
from gradtx.tree.reductions import norm

Variant = Annotated[Literal["sps", "sps+"], one_of("sps", "sps+")]


class ScaleByPolyakState(NamedTuple):
    """The last factor."""

    learning_rate: jax.Array


class scale_by_polyak(Transformation, keeps_zero=True, rests=True):
    """Scales by `min((value - f_min) / (|u|^2 + eps), max_learning_rate)`; 0 where `u` is 0.

    Its update needs `value`, the loss.

    Args:
      f_min: the least loss, any finite number: 0 where a model can fit all data.
      max_learning_rate: largest factor, >= 0.
      eps: added to the squared norm, >= 0.
      variant: 'sps', or 'sps+', for which a loss below `f_min` makes no step.

    State: `ScaleByPolyakState(learning_rate float32)`, 4 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.scale_by_polyak(), jnp.array([3.0, 4.0])
      >>> updates, state = tx.update(params, tx.init(params), params, value=12.5)
      >>> float(state.learning_rate)
      0.5

    Source: Loizou et al. 2020, arXiv:2002.10542; 'sps+': Garrigos et al. 2023, arXiv:2307.14528.

    **Differs:** Optax keeps no state, and takes no step where the squared norm is below 1e-7.
    """

    f_min: Number = 0.0
    max_learning_rate: NonNegative = 1.0
    eps: NonNegative = 0.0
    variant: Variant = "sps"

    def init(self, params: Params) -> ScaleByPolyakState:
        return ScaleByPolyakState(jnp.zeros((), default_float()))

    def step(
        self, updates: Updates, state: ScaleByPolyakState, params: Params | None = None, *, value: Scalar, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByPolyakState]:
        if not domains.is_real_scalar(value):
            raise checks.WrongType(f"value is {checks.kind(value)}, expected a real scalar, such as the loss.")
        gap = jnp.asarray(value).astype(default_float()) - self.f_min
        if self.variant == "sps+":
            gap = jnp.maximum(gap, 0)
        length = norm(updates).astype(gap.dtype)
        # gap / (length^2 + eps) without the square, which may leave the range of float32.
        ratio = guarded_ratio(guarded_ratio(gap, length), length + guarded_ratio(jnp.asarray(self.eps, gap.dtype), length))
        rate = jnp.minimum(ratio, self.max_learning_rate).astype(state.learning_rate.dtype)
        return scaled(rate, updates), ScaleByPolyakState(rate)


class polyak_sgd(Preset):
    """Descent by Polyak's step size: `-scaling * min((value - f_min)/(|u|^2 + eps), max) * g`.

    `u = scaling * g`; see `scale_by_polyak`. Its update needs `value`, the loss.

    Args:
      max_learning_rate: largest factor, >= 0.
      scaling: factor of the gradient before, a number >= 0 or a schedule.
      f_min: the least loss, any finite number: 0 where a model can fit all data.
      eps: added to the squared norm, >= 0.
      variant: 'sps', or 'sps+', for which a loss below `f_min` makes no step.

    State: that of `sgd(scaling)` and `ScaleByPolyakState`; 8 bytes in all.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.polyak_sgd(), jnp.array([3.0, -1.0])
      >>> loss, state = lambda x: jnp.sum(x**2), tx.init(params)
      >>> for _ in range(20):
      ...     value, grads = jax.value_and_grad(loss)(params)
      ...     updates, state = tx.update(grads, state, params, value=value)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(loss(params) < 1e-9)
      True

    Source: Polyak 1987, "Introduction to Optimization"; Loizou et al. 2020, arXiv:2002.10542.
    """

    max_learning_rate: NonNegative = 1.0
    scaling: Rate = 1.0
    f_min: Number = 0.0
    eps: NonNegative = 0.0
    variant: Variant = "sps"

    def chain(self) -> Transformation:
        return chain(sgd(self.scaling), scale_by_polyak(self.f_min, self.max_learning_rate, self.eps, self.variant))
