"""Adam and its presets: `scale_by_adam`, `adam`, `adamw`, `nadam`, `nadamw`."""

from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import NamedTuple

import jax

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Flag, FloatDType, Mask, NonNegative, Rate, SecondMomentDType
from gradtx.core.leaves import each_leaf, real_full_like, zeros_like
from gradtx.core.numerics import (
    first_moment,
    guarded_ratio,
    moments,
    one_minus_power,
    root_plus_eps,
    running_mean,
    safe_increment,
    zero_count,
)
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Moment, Params, Scalar, Squares, Updates
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


class ScaleByAdamState(NamedTuple):
    """Steps taken, first moment, second moment."""

    count: jax.Array
    mu: Moment
    nu: Squares


class scale_by_adam(Transformation, keeps_zero=True):
    """Adam's direction: `m_hat / (sqrt(v_hat + eps_root) + eps)`.

    With `m = b1*m + (1-b1)*g`, `v = b2*v + (1-b2)*|g|^2`, `m_hat = m/(1-b1^t)`,
    `v_hat = v/(1-b2^t)`, `t = 1, 2, ...`; with `nesterov`,
    `m_hat = b1*m/(1-b1^(t+1)) + (1-b1)*g/(1-b1^t)`. One unit of a learning rate after it moves each
    parameter by about 1 a step.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared. Above zero where
        derivatives through the update are wanted.
      mu_dtype: dtype in which the first moment is stored; None is float32, or wider for wider
        parameters.
      nu_dtype: dtype in which the second moment is stored: float32, float64 or bfloat16, since
        narrower ranges cannot hold squares; None is float32, or wider for wider parameters. In
        bfloat16 a second moment stalls: at `b2` = 0.999 it stops growing early.
      nesterov: whether to look one step of momentum ahead (Nadam).
      bias_correction: whether to divide the moments by `1 - b^t`; False takes `m` and `v` as they
        are, and early steps are larger or smaller by `(1-b1)/sqrt(1-b2)`.

    State: `ScaleByAdamState(count int32, mu, nu)`; 8 bytes a parameter by default.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_adam()
      >>> updates, state = tx.update(jnp.array([0.5, -2.0]), tx.init(jnp.zeros(2)))
      >>> updates.round(4), int(state.count)
      (Array([ 1., -1.], dtype=float32), 1)

    Source: Kingma and Ba 2014, arXiv:1412.6980, algorithm 1; Dozat 2016, "Incorporating Nesterov
    Momentum into Adam".

    **Differs:** Optax has no `nu_dtype` and keeps half-precision parameters' moments in half
    precision; for complex parameters its second moment is complex.
    """

    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: FloatDType | None = None
    _: KW_ONLY
    nu_dtype: SecondMomentDType | None = None
    nesterov: Flag = False
    bias_correction: Flag = True

    def init(self, params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(zero_count(), zeros_like(params, self.mu_dtype), real_full_like(params, 0, self.nu_dtype))

    def step(
        self, updates: Updates, state: ScaleByAdamState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByAdamState]:
        b1, b2, eps, t = self.b1, self.b2, self.eps, safe_increment(state.count)
        if self.bias_correction:
            m_hat, c2 = first_moment(b1, t, self.nesterov), one_minus_power(b2, t)
        else:
            m_hat, c2 = _uncorrected(b1, self.nesterov), 1

        @each_leaf
        def rule(g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
            m, v = moments(g, m, v, b1, b2)
            return guarded_ratio(m_hat(g, m), root_plus_eps(v / c2, eps, self.eps_root), eps), m, v

        updates, mu, nu = rule(updates, state.mu, state.nu)
        return updates, ScaleByAdamState(t, mu, nu)


def _uncorrected(b1: Scalar, nesterov: bool) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The first moment of `g` and `m` as it is, or one step ahead."""
    return lambda g, m: running_mean(m, g, b1) if nesterov else m


class adam(Preset):
    """Adam: `-learning_rate * m_hat / (sqrt(v_hat + eps_root) + eps)`; see `scale_by_adam`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. Often
        1e-3.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared. Above zero where
        derivatives through the update are wanted.
      mu_dtype: dtype in which the first moment is stored; None is float32, or wider for wider
        parameters.
      nu_dtype: dtype in which the second moment is stored: float32, float64 or bfloat16, since
        narrower ranges cannot hold squares; None is float32, or wider for wider parameters. In
        bfloat16 a second moment stalls: at `b2` = 0.999 it stops growing early.
      nesterov: whether to look one step of momentum ahead (Nadam).
      bias_correction: whether to divide the moments by `1 - b^t`; False takes `m` and `v` as they
        are, and early steps are larger or smaller by `(1-b1)/sqrt(1-b2)`.

    State: `(ScaleByAdamState, ScaleByLearningRateState)`; 8 bytes a parameter.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.adam(0.1), jnp.array([3.0])
      >>> state = tx.init(params)
      >>> for _ in range(100):
      ...     updates, state = tx.update(jax.grad(lambda x: (x**2).sum())(params), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(abs(params[0]) < 0.1)
      True

    Source: Kingma and Ba 2014, arXiv:1412.6980.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: FloatDType | None = None
    _: KW_ONLY
    nu_dtype: SecondMomentDType | None = None
    nesterov: Flag = False
    bias_correction: Flag = True

    def chain(self) -> Transformation:
        return chain(
            scale_by_adam(
                self.b1,
                self.b2,
                self.eps,
                self.eps_root,
                self.mu_dtype,
                nu_dtype=self.nu_dtype,
                nesterov=self.nesterov,
                bias_correction=self.bias_correction,
            ),
            scale_by_learning_rate(self.learning_rate),
        )


class adamw(Preset):
    """Adam with decoupled weight decay: `-learning_rate * (adam(g) + weight_decay * p)`.

    Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. Often
        1e-3.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared. Above zero where
        derivatives through the update are wanted.
      mu_dtype: dtype in which the first moment is stored; None is float32, or wider for wider
        parameters.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.
      nu_dtype: dtype in which the second moment is stored: float32, float64 or bfloat16, since
        narrower ranges cannot hold squares; None is float32, or wider for wider parameters. In
        bfloat16 a second moment stalls: at `b2` = 0.999 it stops growing early.
      nesterov: whether to look one step of momentum ahead (Nadam).
      bias_correction: whether to divide the moments by `1 - b^t`; False takes `m` and `v` as they
        are, and early steps are larger or smaller by `(1-b1)/sqrt(1-b2)`.

    State: `(ScaleByAdamState, WeightDecayState, ScaleByLearningRateState)`; 8 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> mask = gradtx.by_path({r".*bias": False}, default=True)
      >>> tx = gradtx.adamw(1e-2, weight_decay=0.1, mask=mask)
      >>> params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
      >>> grads = {"kernel": jnp.zeros(2), "bias": jnp.zeros(2)}
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> updates["kernel"].round(4), updates["bias"].round(4)
      (Array([-0.001, -0.001], dtype=float32), Array([-0., -0.], dtype=float32))

    Source: Loshchilov and Hutter 2017, arXiv:1711.05101, algorithm 2.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: FloatDType | None = None
    weight_decay: Rate = 1e-4
    mask: Mask | None = None
    _: KW_ONLY
    nu_dtype: SecondMomentDType | None = None
    nesterov: Flag = False
    bias_correction: Flag = True

    def chain(self) -> Transformation:
        return chain(
            scale_by_adam(
                self.b1,
                self.b2,
                self.eps,
                self.eps_root,
                self.mu_dtype,
                nu_dtype=self.nu_dtype,
                nesterov=self.nesterov,
                bias_correction=self.bias_correction,
            ),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )


class nadam(adam):
    """Adam with Nesterov momentum: `adam(..., nesterov=True)`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. Often
        1e-3.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared. Above zero where
        derivatives through the update are wanted.
      mu_dtype: dtype in which the first moment is stored; None is float32, or wider for wider
        parameters.
      nu_dtype: dtype in which the second moment is stored: float32, float64 or bfloat16, since
        narrower ranges cannot hold squares; None is float32, or wider for wider parameters. In
        bfloat16 a second moment stalls: at `b2` = 0.999 it stops growing early.
      nesterov: whether to look one step of momentum ahead (Nadam).
      bias_correction: whether to divide the moments by `1 - b^t`; False takes `m` and `v` as they
        are, and early steps are larger or smaller by `(1-b1)/sqrt(1-b2)`.

    State: `(ScaleByAdamState, ScaleByLearningRateState)`; 8 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.nadam(1e-3)
      nadam(learning_rate=0.001)

    Source: Dozat 2016, "Incorporating Nesterov Momentum into Adam", without the paper's momentum
    schedule.
    """

    _: KW_ONLY
    nesterov: Flag = True


class nadamw(adamw):
    """Nadam with decoupled weight decay: `adamw(..., nesterov=True)`.

    Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. Often
        1e-3.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      eps_root: added inside the root, >= 0; in units of the gradient squared. Above zero where
        derivatives through the update are wanted.
      mu_dtype: dtype in which the first moment is stored; None is float32, or wider for wider
        parameters.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.
      nu_dtype: dtype in which the second moment is stored: float32, float64 or bfloat16, since
        narrower ranges cannot hold squares; None is float32, or wider for wider parameters. In
        bfloat16 a second moment stalls: at `b2` = 0.999 it stops growing early.
      nesterov: whether to look one step of momentum ahead (Nadam).
      bias_correction: whether to divide the moments by `1 - b^t`; False takes `m` and `v` as they
        are, and early steps are larger or smaller by `(1-b1)/sqrt(1-b2)`.

    State: `(ScaleByAdamState, WeightDecayState, ScaleByLearningRateState)`; 8 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.nadamw(1e-3, weight_decay=0.1)
      nadamw(learning_rate=0.001, weight_decay=0.1)

    Source: Dozat 2016; Loshchilov and Hutter 2017, arXiv:1711.05101.
    """

    _: KW_ONLY
    nesterov: Flag = True
