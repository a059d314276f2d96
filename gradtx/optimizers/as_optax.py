"""Optimizers of which only Optax's form has these arguments: `gradtx.optax` has them."""

import warnings

import jax

from gradtx.compose.chain import chain
from gradtx.core.checked import checked
from gradtx.core.domains import Decay, Flag, FloatDType, Mask, NonNegative, NonNegativeInt, Number, Positive, PositiveInt, Rate
from gradtx.core.pairs import Inner
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.optimizers.adam import scale_by_adam
from gradtx.optimizers.optimistic import scale_by_optimistic_gradient
from gradtx.optimizers.sophia import HUTCHINSON, SophiaState, scale_by_sophia
from gradtx.optimizers.sophia import sophia as quiet_sophia
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


@checked
def optimistic_adam(
    learning_rate: NonNegative,
    optimism: Number | None = None,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: FloatDType | None = None,
    *,
    nesterov: Flag = True,
) -> Transformation:
    """Optimistic Adam with the arguments that Optax deprecates: `optimistic_adam_v2` has schedules.

    The step is `-(learning_rate + optimism) * u + optimism * u_last`, with `u` of `scale_by_adam`.

    Args:
      learning_rate: number >= 0; one unit moves each parameter by about 1 a step.
      optimism: how much of the change of `u` is added, any finite number; None is `learning_rate`.
      b1, b2, eps, eps_root, mu_dtype, nesterov: as in `scale_by_adam`.

    Example:
      >>> import warnings, gradtx.optax as optax
      >>> warnings.simplefilter("ignore", DeprecationWarning)
      >>> len(optax.optimistic_adam(1e-3).inside)
      3
    """
    warnings.warn("optimistic_adam is deprecated, as in Optax; use optimistic_adam_v2.", DeprecationWarning, stacklevel=2)
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(learning_rate, learning_rate if optimism is None else optimism),
        scale_by_learning_rate(1.0),
    )


class _telling_sophia(scale_by_sophia):
    """Sophia that prints its win rate."""

    every_n: PositiveInt = 1

    def step(
        self, updates: Updates, state: SophiaState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, SophiaState]:
        updates, state = super().step(updates, state, params, **extra_args)

        def tell() -> None:
            jax.debug.print("Sophia optimizer win rate: {}", state.win_rate)

        jax.lax.cond(state.count % self.every_n == 0, tell, lambda: None)
        return updates, state


@checked
def sophia(
    learning_rate: Rate,
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    weight_decay: Rate = 1e-4,
    weight_decay_mask: Mask | None = None,
    gamma: Positive = 0.01,
    clip_threshold: Positive | None = 1.0,
    update_interval: PositiveInt = 10,
    hessian_diagonal_fn: Inner = HUTCHINSON,
    mu_dtype: FloatDType | None = None,
    verbose: Flag = False,
    print_win_rate_every_n_steps: NonNegativeInt = 0,
) -> Transformation:
    """Sophia with all of Optax's arguments: `gradtx.sophia`, and prints of the win rate.

    Args:
      learning_rate, b1, b2, eps, weight_decay, weight_decay_mask, gamma, clip_threshold: as in
        `gradtx.sophia`.
      update_interval, hessian_diagonal_fn, mu_dtype: as there.
      verbose: whether to print the share of coordinates that were not clipped at the last step with
        an estimate, which `gradtx.metrics` reports in any case.
      print_win_rate_every_n_steps: after how many steps; 0 prints nothing.

    Example:
      >>> import gradtx.optax as optax
      >>> optax.contrib.sophia(1e-3)
      sophia(learning_rate=0.001)
    """
    diagonal = (gamma, clip_threshold, update_interval, hessian_diagonal_fn, mu_dtype)
    if not (verbose and print_win_rate_every_n_steps and clip_threshold is not None):
        return quiet_sophia(learning_rate, b1, b2, eps, weight_decay, weight_decay_mask, *diagonal)
    return chain(
        _telling_sophia(b1, b2, eps, *diagonal, every_n=print_win_rate_every_n_steps),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
