"""NovoGrad: gradients over a running norm of their layer, then momentum."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, FloatDType, NonNegative, Rate, scheduled_value
from gradtx.core.leaves import each_leaf, zeros_like
from gradtx.core.numerics import abs_sq, compute_dtype, guarded_ratio, real_dtype, root_plus_eps, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.trees import require_params
from gradtx.core.types import ExtraArg, Leaf, Moment, Params, Squares, Updates
from gradtx.transforms.scaling import scale_by_learning_rate


class ScaleByNovogradState(NamedTuple):
    """Steps taken, first moment, and for each leaf the running squared norm."""

    count: jax.Array
    mu: Moment
    nu: Squares


class scale_by_novograd(Transformation):
    """NovoGrad's direction: `m = b1*m + (g / (sqrt(v + eps_root) + eps) + weight_decay * p)`.

    With `v = b2*v + (1-b2)*|g|^2` by leaf: each leaf is a layer with one number `v`, which is
    `|g|^2` at the first step. No bias is corrected; `m` is a sum, no average. One unit of a
    learning rate after it moves each leaf by about `1/(1-b1)` in Euclidean norm at steady
    gradients. With a weight decay its update needs `params`.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the squared norm, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient's norm.
      eps_root: added inside the root, >= 0; in units of the norm squared.
      weight_decay: number >= 0 or schedule; added before the momentum.
      mu_dtype: dtype in which the first moment is stored; None is float32, or wider for wider
        parameters.

    State: `ScaleByNovogradState(count int32, mu, nu)`; 4 bytes a parameter, and one float32 a leaf.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_novograd()
      >>> updates, state = tx.update(jnp.array([3.0, -4.0]), tx.init(jnp.zeros(2)))
      >>> [round(float(u), 4) for u in updates], float(state.nu)
      ([0.6, -0.8], 25.0)

    Source: Ginsburg et al. 2019, arXiv:1905.11286, algorithm 1; there the first step has no `eps`,
    and decays are 0.95, 0.98.

    **Differs:** Optax needs `params` without a weight decay too, takes no schedule for it, and
    divides float16 zeros by zero.
    """

    b1: Decay = 0.9
    b2: Decay = 0.25
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    weight_decay: Rate = 0.0
    mu_dtype: FloatDType | None = None

    @functools.cached_property
    def decays(self) -> bool:
        """Whether the parameters enter: unless the decay is known to be 0."""
        return not isinstance(self.weight_decay, (int, float)) or self.weight_decay > 0

    @property
    def keeps_zero(self) -> bool:  # type: ignore[override]
        """Whether zero gradients alone give zero updates: without a decay."""
        return not self.decays

    def init(self, params: Params) -> ScaleByNovogradState:
        nu = jax.tree.map(lambda p: jnp.zeros((), real_dtype(compute_dtype(jnp.result_type(p)))), params)
        return ScaleByNovogradState(zero_count(), zeros_like(params, self.mu_dtype), nu)

    def step(
        self, updates: Updates, state: ScaleByNovogradState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByNovogradState]:
        b1, b2, eps, first = self.b1, self.b2, self.eps, state.count == 0
        decay = scheduled_value("weight_decay", self.weight_decay, state.count)

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, v: jax.Array, p: Leaf = 0.0) -> tuple[jax.Array, ...]:
            norm_sq = jnp.sum(abs_sq(g))
            v = jnp.where(first, norm_sq, b2 * v + (1 - b2) * norm_sq)
            m = b1 * m + (guarded_ratio(g, root_plus_eps(v, eps, self.eps_root), eps) + decay * p)
            return m, m, v

        decayed = [require_params(params)] if self.decays else []
        updates, mu, nu = rule(updates, state.mu, state.nu, *decayed)
        return updates, ScaleByNovogradState(safe_increment(state.count), mu, nu)


class novograd(Preset):
    """NovoGrad: `-learning_rate * m`; see `scale_by_novograd`.

    With `m = b1*m + (g / (sqrt(v + eps_root) + eps) + weight_decay * p)`. With a weight decay its
    update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each leaf by about `1/(1-b1)` a step in
        Euclidean norm.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the squared norm, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient's norm.
      eps_root: added inside the root, >= 0; in units of the norm squared.
      weight_decay: number >= 0 or schedule; added before the momentum.

    State: `(ScaleByNovogradState, ScaleByLearningRateState)`; 4 bytes a parameter, and one float32
      a leaf.

    Example:
      >>> import gradtx
      >>> gradtx.novograd(0.01, b1=0.95, b2=0.98, weight_decay=1e-3)
      novograd(learning_rate=0.01, b1=0.95, b2=0.98, weight_decay=0.001)

    Source: Ginsburg et al. 2019, arXiv:1905.11286, algorithm 1.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.25
    eps: NonNegative = 1e-6
    eps_root: NonNegative = 0.0
    weight_decay: Rate = 0.0

    def chain(self) -> Transformation:
        return chain(
            scale_by_novograd(self.b1, self.b2, self.eps, self.eps_root, self.weight_decay),
            scale_by_learning_rate(self.learning_rate),
        )
