"""DoG and DoWG: step sizes from the distance covered and the gradients met."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Domain, Mask, NonNegative, Rate, is_real_scalar, one_of
from gradtx.core.leaves import copies, each_leaf
from gradtx.core.numerics import default_float, guarded_ratio
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Tree, Updates
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate, scaled
from gradtx.tree.reductions import norm

STARTS = ("distance", "learning_rate", "heuristic")


def _is_start(value: Tree) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and value[0] in STARTS and is_real_scalar(value[1])


def _wrong_kind(value: Tree) -> tuple[str, Tree, Domain] | None:
    """The first part of a pair, where that is what is wrong."""
    return ("[0]", value[0], KIND) if isinstance(value, (tuple, list)) and value and value[0] not in STARTS else None


KIND = one_of(*STARTS)
Start = Annotated[
    tuple[str, float],
    Domain(f"a pair: {KIND.text}, and a number", _is_start, canonical=lambda value: tuple(value), blame=_wrong_kind),
]


def _distance(params: Params, start: Params) -> jax.Array:
    """How far the parameters are from where they began."""

    @each_leaf
    def rule(p: jax.Array, x0: jax.Array) -> jax.Array:
        return p - x0

    return norm(rule(params, start)).astype(default_float())


class DoGState(NamedTuple):
    """Whether the first step is to come, the start, the largest distance from it, and sums."""

    is_init_step: jax.Array
    init_params: Params
    max_dist: jax.Array
    sum_sq_norm_grads: jax.Array
    learning_rate: jax.Array


class scale_by_dog(Transformation, keeps_zero=True, needs_params=True):
    """DoG's step size: `eta * g`, with `eta = r / sqrt(sum |g_i|^2 + eps)`.

    `r` is the largest distance of the parameters from their start so far, and the sum runs over all
    steps, the present one included. All leaves are one vector. Its update needs `params`.

    Args:
      init_step: what makes the first step: `("distance", r)`, `("heuristic", share)` for
        `r = share * (1 + |p|)`, or `("learning_rate", eta)`.
      eps: added inside the root, >= 0; in units of the gradient squared.

    State: `DoGState(is_init_step bool, init_params, max_dist, sum_sq_norm_grads, learning_rate)`; 4
      bytes a parameter. It holds the start: make a new state for new parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.scale_by_dog(("distance", 0.5)), jnp.zeros(2)
      >>> updates, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [0.3, 0.4]

    Source: Ivgi et al. 2023, arXiv:2302.12022, equations 2 and 3.

    **Differs:** Optax keeps the numbers in the parameters' lowest dtype.
    """

    init_step: Start
    eps: NonNegative = 1e-8

    def init(self, params: Params) -> DoGState:
        kind, value = self.init_step
        value = jnp.asarray(value, default_float())
        zero = jnp.zeros_like(value)
        start = {"distance": value, "heuristic": value * (1 + norm(params).astype(value.dtype)), "learning_rate": zero}[kind]
        return DoGState(jnp.asarray(True), copies(params), start, zero, jnp.zeros_like(value))

    def step(
        self, updates: Updates, state: DoGState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, DoGState]:
        kind, value = self.init_step
        farthest = jnp.maximum(state.max_dist, _distance(params, state.init_params))
        total = state.sum_sq_norm_grads + norm(updates, squared=True).astype(farthest.dtype)
        rate = guarded_ratio(farthest, jnp.sqrt(total + self.eps))
        if kind == "learning_rate":
            rate = jnp.where(state.is_init_step, value, rate)
        rate = rate.astype(farthest.dtype)
        return scaled(rate, updates), DoGState(jnp.asarray(False), state.init_params, farthest, total, rate)


class dog(Preset):
    """DoG, descent without a learning rate to tune: `-learning_rate * eta * g`; see `scale_by_dog`.

    Its update needs `params`. Evaluate an average of parameters, such as that of
    `ema_params(dog(), 0.999)`: the last one alone is often worse.

    Args:
      learning_rate: factor of the step size, a number >= 0 or a schedule; 1 is the method's own.
      init_step: what makes the first step: `("distance", r)`, `("heuristic", share)` for
        `r = share * (1 + |p|)`, or `("learning_rate", eta)`.
      eps: added inside the root, >= 0; in units of the gradient squared.
      weight_decay: number >= 0 or schedule, of the L2 penalty; None is 0.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `(WeightDecayState, DoGState, ScaleByLearningRateState)`; 4 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.dog(init_step=("distance", 0.1))
      dog(init_step=('distance', 0.1))

    Source: Ivgi et al. 2023, arXiv:2302.12022.
    """

    learning_rate: Rate = 1.0
    init_step: Start = ("heuristic", 1e-6)
    eps: NonNegative = 1e-8
    weight_decay: Rate | None = None
    mask: Mask | None = None

    def chain(self) -> Transformation:
        return chain(
            add_decayed_weights(0.0 if self.weight_decay is None else self.weight_decay, self.mask),
            scale_by_dog(self.init_step, self.eps),
            scale_by_learning_rate(self.learning_rate),
        )


class DoWGState(NamedTuple):
    """The start, the weighted sum of squared gradients, the largest squared distance, the rate."""

    init_params: Params
    weighted_sq_norm_grads: jax.Array
    estim_sq_dist: jax.Array
    learning_rate: jax.Array


class scale_by_dowg(Transformation, keeps_zero=True, needs_params=True):
    """DoWG's step size: `eta * g`, with `eta = r^2 / (sqrt(sum r_i^2 |g_i|^2) + eps)`.

    `r` is the largest distance of the parameters from their start so far; the sum runs over all
    steps, the present one included. All leaves are one vector. Its update needs `params`.

    Args:
      init_estim_sq_dist: first `r^2`, > 0; None is `eps`.
      eps: added to the root, >= 0.

    State: `DoWGState(init_params, weighted_sq_norm_grads, estim_sq_dist, learning_rate)`; 4 bytes a
      parameter. It holds the start: make a new state for new parameters.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.scale_by_dowg(0.25, eps=0.0), jnp.zeros(2)
      >>> updates, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)
      >>> [round(float(u), 3) for u in updates]
      [0.3, 0.4]

    Source: Khaled et al. 2023, arXiv:2305.16284, algorithm 1; `eps` as in Optax.

    **Differs:** Optax keeps the numbers in the parameters' lowest dtype.
    """

    init_estim_sq_dist: NonNegative | None = None
    eps: NonNegative = 1e-4

    def init(self, params: Params) -> DoWGState:
        start = self.eps if self.init_estim_sq_dist is None else self.init_estim_sq_dist
        zero, rate = jnp.zeros((), default_float()), jnp.zeros((), default_float())
        return DoWGState(copies(params), zero, jnp.array(start, default_float()), rate)

    def step(
        self, updates: Updates, state: DoWGState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, DoWGState]:
        square = jnp.maximum(state.estim_sq_dist, jnp.square(_distance(params, state.init_params)))
        total = state.weighted_sq_norm_grads + square * norm(updates, squared=True).astype(square.dtype)
        rate = guarded_ratio(square, jnp.sqrt(total) + self.eps).astype(square.dtype)
        return scaled(rate, updates), DoWGState(state.init_params, total, square, rate)


class dowg(Preset):
    """DoWG, descent without a learning rate to tune: `-learning_rate * eta * g`.

    See `scale_by_dowg`. Its update needs `params`.

    Args:
      learning_rate: factor of the step size, a number >= 0 or a schedule; 1 is the method's own.
      init_estim_sq_dist: first `r^2`, > 0; None is `eps`.
      eps: added to the root, >= 0.
      weight_decay: number >= 0 or schedule, of the L2 penalty; None is 0.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.

    State: `(WeightDecayState, DoWGState, ScaleByLearningRateState)`; 4 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.dowg()
      dowg()

    Source: Khaled et al. 2023, arXiv:2305.16284.
    """

    learning_rate: Rate = 1.0
    init_estim_sq_dist: NonNegative | None = None
    eps: NonNegative = 1e-4
    weight_decay: Rate | None = None
    mask: Mask | None = None

    def chain(self) -> Transformation:
        return chain(
            add_decayed_weights(0.0 if self.weight_decay is None else self.weight_decay, self.mask),
            scale_by_dowg(self.init_estim_sq_dist, self.eps),
            scale_by_learning_rate(self.learning_rate),
        )
