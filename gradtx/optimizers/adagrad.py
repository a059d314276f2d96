"""AdaGrad: gradients over the root of the sum of their squares."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.base import GradientTransformation
from gradtx.core.checks import NonNegative, Rate
from gradtx.core.leaves import map_leaves, real_full_like
from gradtx.core.numerics import abs_sq, guarded_ratio
from gradtx.core.values import factory
from gradtx.transforms.scaling import scale_by_learning_rate


class ScaleByRssState(NamedTuple):
    """The sum of squared gradients."""

    sum_of_squares: Any


def _rss(g: jax.Array, s: jax.Array, *, eps: Any) -> tuple[jax.Array, jax.Array]:
    s = s + abs_sq(g)
    return jnp.where(s > 0, guarded_ratio(g, jnp.sqrt(s + eps)), 0), s


@factory()
def scale_by_rss(initial_accumulator_value: NonNegative = 0.1, eps: NonNegative = 1e-7) -> GradientTransformation:
    """Divides by the root of the sum of squares: `g / sqrt(s + eps)`, `s = s + |g|^2`; 0 while `s` is 0.

    Args:
      initial_accumulator_value: `s` at the start, >= 0.
      eps: added inside the root, >= 0; in units of the gradient squared.

    State: `ScaleByRssState(sum_of_squares)`; 4 bytes a parameter.

    Returns:
      The transformation. At constant gradients its output falls as `1/sqrt(t)`.

    Raises:
      ValueError: an argument outside its domain.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_rss(initial_accumulator_value=0.0)
      >>> tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 1., -1.], dtype=float32)

    Source: Duchi et al. 2011, "Adaptive Subgradient Methods", the diagonal form.
    """

    def init(params: Any) -> ScaleByRssState:
        return ScaleByRssState(real_full_like(params, initial_accumulator_value))

    def update(updates: Any, state: ScaleByRssState, params: Any = None, **extra_args: Any) -> tuple[Any, ScaleByRssState]:
        updates, sums = map_leaves(_rss, updates, state.sum_of_squares, eps=eps)
        return updates, ScaleByRssState(sums)

    return GradientTransformation(init, update)


@factory()
def adagrad(learning_rate: Rate, initial_accumulator_value: NonNegative = 0.1, eps: NonNegative = 1e-7) -> GradientTransformation:
    """AdaGrad, diagonal: `-learning_rate * g / sqrt(s + eps)`, `s = s + |g|^2`; see `scale_by_rss`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about `1/sqrt(t)` at step `t`.
      initial_accumulator_value, eps: as in `scale_by_rss`.

    State: `(ScaleByRssState, ScaleByLearningRateState)`; 4 bytes a parameter.

    Returns:
      The transformation.

    Raises:
      ValueError, TypeError: an argument outside its domain.

    Example:
      >>> import gradtx
      >>> gradtx.adagrad(0.1)
      adagrad(learning_rate=0.1)

    Source: Duchi et al. 2011, "Adaptive Subgradient Methods".
    """
    return chain(scale_by_rss(initial_accumulator_value, eps), scale_by_learning_rate(learning_rate))
