"""AdaGrad: gradients over the root of the sum of their squares, by element or by norm."""

from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Flag, NonNegative, Rate
from gradtx.core.leaves import each_leaf, real_full_like
from gradtx.core.numerics import abs_sq, default_float, guarded_ratio, root_sum_squares
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.optimizers.rmsprop import over_root
from gradtx.transforms.scaling import scale_by_learning_rate


class ScaleByRssState(NamedTuple):
    """The sum of squared gradients."""

    sum_of_squares: Updates


class scale_by_rss(Transformation, keeps_zero=True):
    """Divides by the root of the sum of squares: `g / sqrt(s + eps)`, `s = s + |g|^2`.

    It gives 0 while `s` is 0. At constant gradients its output falls as `1/sqrt(t)`.

    Args:
      initial_accumulator_value: `s` at the start, >= 0; in units of the gradient squared.
      eps: added inside the root, >= 0; in units of the gradient squared.
      eps_in_sqrt: whether `eps` is added inside the root; False adds it outside.

    State: `ScaleByRssState(sum_of_squares)`; 4 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_rss(initial_accumulator_value=0.0)
      >>> tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 1., -1.], dtype=float32)

    Source: Duchi et al. 2011, "Adaptive Subgradient Methods", the diagonal form.
    """

    initial_accumulator_value: NonNegative = 0.1
    eps: NonNegative = 1e-7
    _: KW_ONLY
    eps_in_sqrt: Flag = True

    def init(self, params: Params) -> ScaleByRssState:
        return ScaleByRssState(real_full_like(params, self.initial_accumulator_value))

    def step(
        self, updates: Updates, state: ScaleByRssState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByRssState]:
        @each_leaf
        def rule(g: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
            s = s + abs_sq(g)
            return jnp.where(s == 0, 0, over_root(g, s, self.eps, self.eps_in_sqrt)), s

        updates, sum_of_squares = rule(updates, state.sum_of_squares)
        return updates, ScaleByRssState(sum_of_squares)


class adagrad(Preset):
    """AdaGrad, diagonal: `-learning_rate * g / sqrt(s + eps)`, `s = s + |g|^2`; see `scale_by_rss`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about `1/sqrt(t)` at
        step `t`.
      initial_accumulator_value: `s` at the start, >= 0; in units of the gradient squared.
      eps: added inside the root, >= 0; in units of the gradient squared.
      eps_in_sqrt: whether `eps` is added inside the root; False adds it outside.

    State: `(ScaleByRssState, ScaleByLearningRateState)`; 4 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.adagrad(0.1)
      adagrad(learning_rate=0.1)

    Source: Duchi et al. 2011, "Adaptive Subgradient Methods".
    """

    learning_rate: Rate
    initial_accumulator_value: NonNegative = 0.1
    eps: NonNegative = 1e-7
    _: KW_ONLY
    eps_in_sqrt: Flag = True

    def chain(self) -> Transformation:
        rss = scale_by_rss(self.initial_accumulator_value, self.eps, eps_in_sqrt=self.eps_in_sqrt)
        return chain(rss, scale_by_learning_rate(self.learning_rate))


class ScaleByAdagradNormState(NamedTuple):
    """The root of the sum of squared norms, `b`."""

    b: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"adagrad_norm": self.b}


class scale_by_adagrad_norm(Transformation, keeps_zero=True):
    """Divides all by one number: `g / sqrt(b^2 + eps)`, `b^2 = b^2 + |g|^2`; 0 while `b` is 0.

    The norm is that of the whole tree. This is the full-matrix form with `H = b * I`: rotating the
    parameters rotates the updates. At constant gradients its output falls as `1/sqrt(t)`.

    Args:
      initial_accumulator_value: `b^2` at the start, >= 0; in units of the gradient squared.
      eps: added inside the root, >= 0; in units of the gradient squared.

    State: `ScaleByAdagradNormState(b float32)`, 4 bytes; not the square, which would overflow at
      gradients of 1e19.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_adagrad_norm(initial_accumulator_value=0.0)
      >>> updates, state = tx.update(jnp.array([3.0, -4.0]), tx.init(jnp.zeros(2)))
      >>> [round(float(u), 4) for u in updates], float(state.b)
      ([0.6, -0.8], 5.0)

    Source: Ward, Wu and Bottou 2019, "AdaGrad Stepsizes", arXiv:1806.01811, algorithm 1.
    """

    initial_accumulator_value: NonNegative = 0.1
    eps: NonNegative = 1e-7

    def init(self, params: Params) -> ScaleByAdagradNormState:
        return ScaleByAdagradNormState(jnp.sqrt(jnp.asarray(self.initial_accumulator_value, default_float())))

    def step(
        self, updates: Updates, state: ScaleByAdagradNormState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByAdagradNormState]:
        b = jnp.hypot(state.b, root_sum_squares(jax.tree.leaves(updates)).astype(state.b.dtype))
        norm = jnp.where(b == 0, 0, jnp.hypot(b, jnp.sqrt(jnp.asarray(self.eps, b.dtype))))

        @each_leaf
        def rule(g: jax.Array) -> jax.Array:
            return guarded_ratio(g, norm)

        return rule(updates), ScaleByAdagradNormState(b)


class adagrad_norm(Preset):
    """AdaGrad-Norm: `-learning_rate * g / sqrt(b^2 + eps)`, `b^2 = b^2 + |g|^2`.

    See `scale_by_adagrad_norm`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves the whole tree by about `1/sqrt(t)`, in
        Euclidean norm, at step `t`.
      initial_accumulator_value: `b^2` at the start, >= 0; in units of the gradient squared.
      eps: added inside the root, >= 0; in units of the gradient squared.

    State: `(ScaleByAdagradNormState, ScaleByLearningRateState)`; 4 bytes in all for `b`.

    Example:
      >>> import gradtx
      >>> gradtx.adagrad_norm(0.5)
      adagrad_norm(learning_rate=0.5)

    Source: Ward, Wu and Bottou 2019, "AdaGrad Stepsizes", arXiv:1806.01811.
    """

    learning_rate: Rate
    initial_accumulator_value: NonNegative = 0.1
    eps: NonNegative = 1e-7

    def chain(self) -> Transformation:
        return chain(scale_by_adagrad_norm(self.initial_accumulator_value, self.eps), scale_by_learning_rate(self.learning_rate))
