"""AMSGrad: Adam with a second moment that never falls."""

from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Flag, FloatDType, NonNegative, Rate, SecondMomentDType
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import guarded_ratio, moments, one_minus_power, root_plus_eps, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Moment, Params, Squares, Updates
from gradtx.transforms.scaling import scale_by_learning_rate


class ScaleByAmsgradState(NamedTuple):
    """Steps taken, first moment, second moment, and the largest second moment so far."""

    count: jax.Array
    mu: Moment
    nu: Squares
    nu_max: Updates


class scale_by_amsgrad(Transformation, keeps_zero=True):
    """AMSGrad's direction: `m_hat / (sqrt(v_max + eps_root) + eps)`.

    With `m = b1*m + (1-b1)*g`, `v = b2*v + (1-b2)*|g|^2`, `v_max = max(v_max, v_hat)`;
    `m_hat = m/(1-b1^t)` or `m`, `v_hat = v/(1-b2^t)` or `v`, as the flags say. The paper corrects
    neither. One unit of a learning rate after it moves each parameter by about 1 a step.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared.
      mu_dtype: dtype in which the first moment is stored; None is float32, or wider for wider
        parameters.
      bias_correction_mu: whether `m` is corrected.
      bias_correction_nu: whether `v` is corrected, before the maximum.
      nu_dtype: dtype in which the second moment and its maximum are stored: float32, float64 or
        bfloat16, since narrower ranges cannot hold squares; None is float32, or wider for wider
        parameters.

    State: `ScaleByAmsgradState(count int32, mu, nu, nu_max)`; 12 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_amsgrad()
      >>> tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 1., -1.], dtype=float32)

    Source: Reddi et al. 2018, "On the Convergence of Adam and Beyond", algorithm 2.

    **Differs:** Optax has no `nu_dtype`. PyTorch takes the maximum before the bias correction,
    Optax and this after it.
    """

    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: FloatDType | None = None
    bias_correction_mu: Flag = True
    bias_correction_nu: Flag = True
    _: KW_ONLY
    nu_dtype: SecondMomentDType | None = None

    def init(self, params: Params) -> ScaleByAmsgradState:
        nu, nu_max = (real_full_like(params, 0, self.nu_dtype) for _ in range(2))
        return ScaleByAmsgradState(zero_count(), zeros_like(params, self.mu_dtype), nu, nu_max)

    def step(
        self, updates: Updates, state: ScaleByAmsgradState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByAmsgradState]:
        b1, b2, eps, t = self.b1, self.b2, self.eps, safe_increment(state.count)
        c1 = one_minus_power(b1, t) if self.bias_correction_mu else 1.0
        c2 = one_minus_power(b2, t) if self.bias_correction_nu else 1.0

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, v: jax.Array, v_max: jax.Array) -> tuple[jax.Array, ...]:
            m, v = moments(g, m, v, b1, b2)
            v_max = jnp.maximum(v_max, v / c2)
            return guarded_ratio(m / c1, root_plus_eps(v_max, eps, self.eps_root), eps), m, v, v_max

        updates, mu, nu, nu_max = rule(updates, state.mu, state.nu, state.nu_max)
        return updates, ScaleByAmsgradState(t, mu, nu, nu_max)


class amsgrad(Preset):
    """AMSGrad: `-learning_rate * m_hat / (sqrt(v_max + eps_root) + eps)`; see `scale_by_amsgrad`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared.
      mu_dtype: dtype in which the first moment is stored; None is float32, or wider for wider
        parameters.
      bias_correction_mu: whether `m` is corrected.
      bias_correction_nu: whether `v` is corrected, before the maximum.
      nu_dtype: dtype in which the second moment and its maximum are stored: float32, float64 or
        bfloat16, since narrower ranges cannot hold squares; None is float32, or wider for wider
        parameters.
      bias_correction: False corrects neither moment, whatever the two flags say: the method of the
        paper.

    State: `(ScaleByAmsgradState, ScaleByLearningRateState)`; 12 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.amsgrad(1e-3)
      amsgrad(learning_rate=0.001)

    Source: Reddi et al. 2018, "On the Convergence of Adam and Beyond", algorithm 2.

    **Differs:** Optax has no `nu_dtype` and no `bias_correction`, the two flags in one.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: FloatDType | None = None
    bias_correction_mu: Flag = True
    bias_correction_nu: Flag = True
    _: KW_ONLY
    nu_dtype: SecondMomentDType | None = None
    bias_correction: Flag = True

    def chain(self) -> Transformation:
        correct = (self.bias_correction and self.bias_correction_mu, self.bias_correction and self.bias_correction_nu)
        kernel = scale_by_amsgrad(self.b1, self.b2, self.eps, self.eps_root, self.mu_dtype, *correct, nu_dtype=self.nu_dtype)
        return chain(kernel, scale_by_learning_rate(self.learning_rate))
