"""ADOPT: Adam whose gradient is divided by the second moment before it."""

from dataclasses import KW_ONLY

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Flag, FloatDType, Function, NonNegative, Rate
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import abs_sq, default_float, guarded_ratio, running_mean, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, Updates
from gradtx.core.value import Value
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.transforms.scaling import scale_by_learning_rate


class _quarter_root(Value):
    """The paper's bound on normalized gradients: `count^(1/4)`, 0 at the first step."""

    def __call__(self, count: Scalar) -> jax.Array:
        return jnp.asarray(count).astype(default_float()) ** 0.25


class scale_by_adopt(Transformation, keeps_zero=True):
    """ADOPT's direction: `m = b1*m + (1-b1)*u`, with `u = clip(g / max(sqrt(v_last), eps))`.

    `v = b2*v + (1-b2)*|g|^2` follows after, so that a gradient is not divided by a moment that
    holds it: it converges with any `b2`. The first step is 0, and only makes `v = |g|^2`. One unit
    of a learning rate after it moves each parameter by about 1 a step.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: least root of the second moment, >= 0; in units of the gradient.
      mu_dtype: dtype in which the momentum is stored; None is float32, or wider for wider
        parameters.
      nesterov: whether to look one step of momentum ahead.
      use_clipping: whether `u` is clipped.
      clip_value_fn: the bound as a function of the steps taken so far; `t^(1/4)` by default.

    State: `ScaleByAdamState(count int32, mu, nu)`; 8 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, grads = gradtx.scale_by_adopt(), jnp.array([0.5, -2.0])
      >>> updates, state = tx.update(grads, tx.init(jnp.zeros(2)))
      >>> updates, state = tx.update(grads, state)
      >>> updates.round(3)
      Array([ 0.1, -0.1], dtype=float32)

    Source: Taniguchi et al. 2024, arXiv:2411.02853, algorithms 1 and 2.

    **Differs:** Optax keeps half-precision parameters' moments in half precision.
    """

    b1: Decay = 0.9
    b2: Decay = 0.9999
    eps: NonNegative = 1e-6
    mu_dtype: FloatDType | None = None
    _: KW_ONLY
    nesterov: Flag = False
    use_clipping: Flag = True
    clip_value_fn: Function = _quarter_root()

    def init(self, params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(zero_count(), zeros_like(params, self.mu_dtype), real_full_like(params, 0))

    def step(
        self, updates: Updates, state: ScaleByAdamState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByAdamState]:
        first, bound = state.count == 0, self.clip_value_fn(state.count) if self.use_clipping else None

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            u = guarded_ratio(g, jnp.maximum(jnp.sqrt(v), self.eps), self.eps)
            if bound is not None:
                u = jnp.where(jnp.abs(u) > bound, bound * jnp.sign(u), u)
            m = jnp.where(first, m, running_mean(m, u, self.b1))
            direction = jnp.where(first, m, running_mean(m, u, self.b1)) if self.nesterov else m
            return direction, m, jnp.where(first, abs_sq(g), running_mean(v, abs_sq(g), self.b2))

        updates, mu, nu = rule(updates, state.mu, state.nu)
        return updates, ScaleByAdamState(safe_increment(state.count), mu, nu)


class adopt(Preset):
    """ADOPT: `-learning_rate * m`; see `scale_by_adopt`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. Often
        1e-3.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: least root of the second moment, >= 0; in units of the gradient.
      mu_dtype: dtype in which the momentum is stored; None is float32, or wider for wider
        parameters.
      nesterov: whether to look one step of momentum ahead.
      use_clipping: whether `u` is clipped.
      clip_value_fn: the bound as a function of the steps taken so far; `t^(1/4)` by default.

    State: `(ScaleByAdamState, ScaleByLearningRateState)`; 8 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.adopt(1e-3, b2=0.999)
      adopt(learning_rate=0.001, b2=0.999)

    Source: Taniguchi et al. 2024, arXiv:2411.02853.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.9999
    eps: NonNegative = 1e-6
    mu_dtype: FloatDType | None = None
    _: KW_ONLY
    nesterov: Flag = False
    use_clipping: Flag = True
    clip_value_fn: Function = _quarter_root()

    def chain(self) -> Transformation:
        options = {"nesterov": self.nesterov, "use_clipping": self.use_clipping, "clip_value_fn": self.clip_value_fn}
        return chain(
            scale_by_adopt(self.b1, self.b2, self.eps, self.mu_dtype, **options),
            scale_by_learning_rate(self.learning_rate),
        )
