"""Cautious updates: no step where it would go against the gradient."""

from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.composites import Wrapper
from gradtx.core.domains import Flag
from gradtx.core.leaves import each_leaf
from gradtx.core.pairs import Inner
from gradtx.core.types import ExtraArg, Params, State, Updates
from gradtx.core.walk import check_not_final, check_steps

LEAST_SHARE = 1e-3
"""From the authors' code; it bounds the factor by 1,000."""


class CautiousState(NamedTuple):
    """The wrapped transformation's state."""

    inner_state: State


class cautious(Wrapper, keeps_zero=True):
    """Leaves out updates that would climb: `u * mask / max(mean(mask), 0.001)`, leaf by leaf.

    `mask` is 1 where `u` and the gradient have opposite signs, else 0. Momentum can point uphill by
    the newest gradient; with the mask each step lowers the loss to first order, and the method's
    fixed points stay. The division by the mask's mean keeps the usual size of a leaf's steps.

    It compares with the gradients that reach it: put clipping before it. The paper's C-AdamW is
    `adamw` with its Adam wrapped: `chain(cautious(scale_by_adam(), flip_sign=False),
    add_decayed_weights(0.1), scale_by_learning_rate(rate))`.

    Args:
      inner: the transformation to wrap: an optimizer with momentum. A weight decay inside it is
        masked as well; the paper's is not, see above.
      flip_sign: False for a kernel without a learning rate, such as `scale_by_adam`, whose updates
        go along the gradient.

    State: `CautiousState(inner_state)`, 0 bytes more than the wrapped one's.

    Raises:
      ValueError: `inner` keeps averages of the parameters (`ema_params`, `lookahead_wrapper`, ...)
        or accumulates: put `cautious` inside it.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.cautious(gradtx.sgd(1.0, momentum=0.5)), jnp.zeros(2)
      >>> updates, state = tx.update(jnp.array([1.0, 4.0]), tx.init(params))
      >>> updates, state = tx.update(jnp.array([1.0, -1.0]), state)  # momentum: 1.5 and 1
      >>> updates
      Array([-3.,  0.], dtype=float32)

    Source: Liang et al. 2024, "Cautious Optimizers: Improving Training with One Line of Code",
    arXiv:2411.16085, algorithm 1, with the normalization of the authors' code (the paper divides by
    the number of ones plus 1).
    """

    inner: Inner
    _: KW_ONLY
    flip_sign: Flag = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_final("cautious", "inner", self.inner)
        check_steps("cautious", "inner", self.inner)

    def init(self, params: Params) -> CautiousState:
        return CautiousState(self.inner.init(params))

    def step(
        self, updates: Updates, state: CautiousState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, CautiousState]:
        sign = -1 if self.flip_sign else 1

        @each_leaf
        def rule(u: jax.Array, g: jax.Array) -> jax.Array:
            # Of signs: a product of the numbers could underflow.
            agreement = sign * jnp.real(jnp.sign(u) * jnp.conj(jnp.sign(g)))
            against = agreement <= 0  # False for NaN, which must not become a silent 0
            share = jnp.sum(~against) / max(u.size, 1)
            return jnp.where(against, 0, u / jnp.maximum(share, LEAST_SHARE).astype(u.real.dtype))

        steps, inner_state = self.inner.advance(updates, state.inner_state, params, extra_args)
        return rule(steps, updates), CautiousState(inner_state)
