"""Multiplying updates: by a constant, a schedule, the learning rate, a norm."""

import math
from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.domains import Flag, NonNegative, Number, Positive, Rate, ScheduleArg, scheduled_value
from gradtx.core.leaves import each_leaf
from gradtx.core.numerics import default_float, root_sum_squares, safe_increment, zero_count
from gradtx.core.transformation import EmptyState, Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, Tree, Updates
from gradtx.tree.reductions import AxisNames, global_norm


class ScaleByScheduleState(NamedTuple):
    """Steps taken, and the factor that the last of them used (the first step's before any)."""

    count: jax.Array
    step_size: jax.Array


class ScaleByLearningRateState(NamedTuple):
    """The rate of the last step (of the first before any), and, for a schedule, the steps taken."""

    learning_rate: jax.Array | None
    count: jax.Array | None = None

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {} if self.learning_rate is None else {"learning_rate": self.learning_rate}


def multiply(u: jax.Array, *, factor: Scalar) -> jax.Array:
    """The rule `factor * u`."""
    return factor * u


def scaled(factor: Scalar, updates: Updates) -> Updates:
    """`factor * u`, leaf by leaf."""
    return each_leaf(lambda u: factor * u)(updates)


class scale(Transformation, keeps_zero=True):
    """Multiplies updates by a constant: `step_size * u`.

    Args:
      step_size: the factor, any finite number; negative to descend.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale(-0.5)
      >>> tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))[0]
      Array([-1.], dtype=float32)
    """

    step_size: Number

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        return scaled(self.step_size, updates), state


class scale_by_schedule(Transformation, keeps_zero=True):
    """Multiplies updates by a schedule of the steps taken so far: `s(t) * u`, at first `t = 0`.

    Args:
      step_size_fn: function from the step count (int32) to a factor.

    State: `ScaleByScheduleState(count int32, step_size float32)`, 8 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_schedule(gradtx.linear_schedule(1.0, 0.0, 4))
      >>> state = tx.init(jnp.zeros(()))
      >>> for _ in range(3):
      ...     u, state = tx.update(jnp.array(1.0), state)
      >>> float(u)
      0.5
    """

    step_size_fn: ScheduleArg

    def step_size(self, count: jax.Array) -> jax.Array:
        """The factor at a step, as it is in the state."""
        return jnp.array(scheduled_value("step_size_fn", self.step_size_fn, count), default_float())

    def init(self, params: Params) -> ScaleByScheduleState:
        return ScaleByScheduleState(zero_count(), self.step_size(zero_count()))

    def step(
        self, updates: Updates, state: ScaleByScheduleState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByScheduleState]:
        s = self.step_size(state.count)
        return scaled(s, updates), ScaleByScheduleState(safe_increment(state.count), s)


class scale_by_learning_rate(Transformation, keeps_zero=True):
    """The last link of most chains: `-learning_rate * u`.

    The state holds the rate for you to read. To change a rate in the middle of training, use
    `inject_hyperparams` or a schedule.

    Args:
      learning_rate: a number >= 0 or a schedule of the steps taken so far; None leaves updates as
        they are.
      flip_sign: False multiplies by `+learning_rate`.

    State: `ScaleByLearningRateState(learning_rate float32, count int32)`: 4 bytes, 8 with a
      schedule, none for None.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_learning_rate(0.5)
      >>> updates, state = tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))
      >>> updates, float(state.learning_rate)
      (Array([-1.], dtype=float32), 0.5)

    **Differs:** Optax keeps no state for a constant rate.
    """

    learning_rate: Rate | None = None
    _: KW_ONLY
    flip_sign: Flag = True

    @property
    def rests(self) -> bool:  # type: ignore[override]
        """Unless a schedule counts the calls."""
        return not callable(self.learning_rate)

    def rate(self, count: jax.Array | None) -> jax.Array:
        """The rate at a step, as it is in the state."""
        return jnp.array(scheduled_value("learning_rate", self.learning_rate, count), default_float())

    def init(self, params: Params) -> ScaleByLearningRateState:
        if self.learning_rate is None:
            return ScaleByLearningRateState(None)
        count = zero_count() if callable(self.learning_rate) else None
        return ScaleByLearningRateState(self.rate(count), count)

    def step(
        self, updates: Updates, state: ScaleByLearningRateState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByLearningRateState]:
        if self.learning_rate is None:
            return updates, state
        rate = self.rate(state.count)
        count = None if state.count is None else safe_increment(state.count)
        factor = self.learning_rate if isinstance(self.learning_rate, (int, float)) else rate
        return scaled(-factor if self.flip_sign else factor, updates), ScaleByLearningRateState(rate, count)


class scale_by_sign(Transformation, keeps_zero=True):
    """Keeps the sign of each element: `sign(u)`, 0 at 0 (`u/|u|` for complex numbers).

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_sign()
      >>> tx.update(jnp.array([-3.0, 0.0, 2.0]), tx.init(jnp.zeros(3)))[0]
      Array([-1.,  0.,  1.], dtype=float32)

    Source: signSGD, Bernstein et al. 2018, arXiv:1802.04434.
    """

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        return each_leaf(jnp.sign)(updates), state


class scale_by_trust_ratio(Transformation, keeps_zero=True, needs_params=True):
    """Gives each leaf's update its parameters' norm: `u * trust_coefficient * |p| / (|u| + eps)`.

    Where one of the norms is zero the update stays as it is. Its update needs `params`.

    Args:
      min_norm: floor of both norms, >= 0.
      trust_coefficient: the factor, any finite number.
      eps: added to the update's norm, >= 0.
      axis_name: inside `jax.shard_map`, the mesh axes along which devices hold the shards of
        parameters; see `global_norm`.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_trust_ratio()
      >>> params, grads = jnp.array([3.0, 4.0]), jnp.array([0.0, 0.1])
      >>> tx.update(grads, tx.init(params), params)[0].round(4)
      Array([0., 5.], dtype=float32)

    Source: LARS, You et al. 2017, arXiv:1708.03888; LAMB, You et al. 2019, arXiv:1904.00962.
    """

    min_norm: NonNegative = 0.0
    trust_coefficient: Number = 1.0
    eps: NonNegative = 0.0
    _: KW_ONLY
    axis_name: AxisNames | None = None

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        @each_leaf
        def rule(u: jax.Array, p: jax.Array) -> jax.Array:
            p_norm, u_norm = (jnp.maximum(global_norm(x, axis_name=self.axis_name), self.min_norm) for x in (p, u))
            either_zero = (p_norm == 0) | (u_norm == 0)
            ratio = self.trust_coefficient * p_norm / jnp.where(either_zero, 1, u_norm + self.eps)
            return u * jnp.where(either_zero, 1, ratio)

        return rule(updates, params), state


class scale_by_param_block_norm(Transformation, keeps_zero=True, needs_params=True):
    """Multiplies each leaf's update by the norm of its parameters: `u * max(|p|, min_scale)`.

    Its update needs `params`.

    Args:
      min_scale: smallest factor, > 0.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.scale_by_param_block_norm(), jnp.array([3.0, 4.0])
      >>> tx.update(jnp.array([1.0, 0.0]), tx.init(params), params)[0]
      Array([5., 0.], dtype=float32)

    Source: Optax, `scale_by_param_block_norm`.
    """

    min_scale: Positive = 1e-3

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        @each_leaf
        def rule(u: jax.Array, p: jax.Array) -> jax.Array:
            return u * jnp.maximum(_norm(p), self.min_scale)

        return rule(updates, params), state


class scale_by_param_block_rms(Transformation, keeps_zero=True, needs_params=True):
    """Multiplies a leaf's update by its parameters' root mean square: `u * max(rms(p), min_scale)`.

    Its update needs `params`.

    Args:
      min_scale: smallest factor, > 0.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.scale_by_param_block_rms(), jnp.array([2.0, -2.0, 2.0, 2.0])
      >>> tx.update(jnp.array([1.0, 0.0, 0.0, 0.5]), tx.init(params), params)[0]
      Array([2., 0., 0., 1.], dtype=float32)

    Source: Adafactor, Shazeer and Stern 2018, arXiv:1804.04235, section 8.
    """

    min_scale: Positive = 1e-3

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        @each_leaf
        def rule(u: jax.Array, p: jax.Array) -> jax.Array:
            rms = _norm(p) / math.sqrt(max(p.size, 1))
            return u * jnp.maximum(rms, self.min_scale)

        return rule(updates, params), state


def _norm(x: jax.Array) -> jax.Array:
    return root_sum_squares([x])


@jax.custom_jvp
def _with_scaled_derivative(x: jax.Array, scale: Scalar) -> jax.Array:
    del scale
    return x


@_with_scaled_derivative.defjvp
def _derivative(primals: tuple[jax.Array, Scalar], tangents: tuple[jax.Array, Scalar]) -> tuple[jax.Array, jax.Array]:
    (x, factor), (dx, _) = primals, tangents
    return x, jnp.asarray(factor * dx).astype(dx.dtype)


def scale_gradient(inputs: Tree, scale: Scalar) -> Tree:
    """`inputs` as they are, with derivatives `scale` times theirs.

    Args:
      inputs: tree of arrays.
      scale: the factor; 0 stops derivatives, -1 turns them around, as adversarial training has it.

    Example:
      >>> import jax, gradtx.optax as optax
      >>> float(jax.grad(lambda x: optax.scale_gradient(x, 0.5) ** 2)(3.0))
      3.0

    **Differs:** forward derivatives are scaled too; Optax has none.
    """
    if isinstance(scale, (int, float)) and scale in (0, 1):
        return inputs if scale else jax.tree.map(jax.lax.stop_gradient, inputs)
    return jax.tree.map(lambda x: _with_scaled_derivative(jnp.asarray(x), scale), inputs)
