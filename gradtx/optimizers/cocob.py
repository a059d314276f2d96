"""COCOB: descent without a learning rate, as bets on the sign of each coordinate's gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Mask, NonNegative, Rate
from gradtx.core.leaves import copies, each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import guarded_ratio
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


class COCOBState(NamedTuple):
    """The start; sum, largest size and sum of sizes of the gradients; what the bets have won."""

    init_particles: Params
    cumulative_gradients: Updates
    scale: Updates
    subgradients: Updates
    reward: Updates


class scale_by_cocob(Transformation, keeps_zero=True, needs_params=True):
    """COCOB's step, in each coordinate: to `x0 + c * (L + R) / (L * max(G + L, alpha * L))`.

    `L` is the largest `|g|` so far, `G` the sum of `|g|`, `c` the sum of `-g`, and
    `R = max(R - g*(x - x0), 0)` what the bets have won, from the parameters `x0` at the start. It
    is the last link of a chain: what it gives is added to the parameters. Its update needs
    `params`.

    Args:
      alpha: bounds the first bets to the share `1/alpha` of what there is, >= 0.
      eps: the first `L`, >= 0; in units of the gradient.

    State: `COCOBState(init_particles, cumulative_gradients, scale, subgradients, reward)`; 20 bytes
      a parameter. It holds the start: make a new state for new parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.scale_by_cocob(alpha=10.0), jnp.zeros(2)
      >>> tx.update(jnp.array([3.0, -4.0]), tx.init(params), params)[0].round(3)
      Array([-0.1,  0.1], dtype=float32)

    Source: Orabona and Tommasi 2017, arXiv:1705.07795, algorithm 2.

    **Differs:** Optax keeps states of half-precision parameters in half precision.
    """

    alpha: NonNegative = 100.0
    eps: NonNegative = 1e-8

    def init(self, params: Params) -> COCOBState:
        nothing = (real_full_like(params, 0) for _ in range(2))
        return COCOBState(copies(params), zeros_like(params), real_full_like(params, self.eps), *nothing)

    def step(
        self, updates: Updates, state: COCOBState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, COCOBState]:
        @each_leaf
        def rule(g: jax.Array, x: jax.Array, x0: jax.Array, c: jax.Array, *sizes: jax.Array) -> tuple[jax.Array, ...]:
            largest, total, won = sizes
            largest, total = jnp.maximum(largest, jnp.abs(g)), total + jnp.abs(g)
            won, c = jnp.maximum(won - jnp.real(jnp.conj(g) * (x - x0)), 0), c - g
            bet = guarded_ratio(c, largest * jnp.maximum(total + largest, self.alpha * largest))
            return (x0 + bet * (largest + won)) - x, x, x0, c, largest, total, won

        updates, _, *after = rule(updates, params, *state)
        return updates, COCOBState(*after)


class cocob(Preset):
    """COCOB, descent without a learning rate to tune: the step of `scale_by_cocob`.

    Its gradient is `learning_rate * (g + weight_decay * p)`. Its update needs `params`.

    Args:
      learning_rate: factor of the gradients, a number >= 0 or a schedule. A constant changes
        little, since steps do not depend on the gradients' size; 1 is the method's own.
      alpha: bounds the first bets to the share `1/alpha` of what there is, >= 0.
      eps: the first `L`, >= 0; in units of the gradient.
      weight_decay: number >= 0 or schedule, of the L2 penalty.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `(WeightDecayState, ScaleByLearningRateState, COCOBState)`; 20 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.cocob(alpha=50.0)
      cocob(alpha=50.0)

    Source: Orabona and Tommasi 2017, arXiv:1705.07795.
    """

    learning_rate: Rate = 1.0
    alpha: NonNegative = 100.0
    eps: NonNegative = 1e-8
    weight_decay: Rate = 0.0
    mask: Mask | None = None

    def chain(self) -> Transformation:
        return chain(
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate, flip_sign=False),
            scale_by_cocob(self.alpha, self.eps),
        )
