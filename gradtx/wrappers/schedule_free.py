"""Schedule-free learning: interpolation and averaging replace momentum and a falling rate."""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.compose.chain import chain
from gradtx.core import checks
from gradtx.core.composites import Preset
from gradtx.core.domains import (
    Decay,
    FloatDType,
    NonNegative,
    PositiveInt,
    Rate,
    ScalarOrSchedule,
    interval,
    scheduled_value,
)
from gradtx.core.leaves import cast_like, copies, each_leaf
from gradtx.core.numerics import compute_dtype, default_float, guarded_ratio, promote, safe_increment, zero_count
from gradtx.core.pairs import Inner
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import DType, ExtraArg, Leaf, Params, State, Updates
from gradtx.core.walk import check_not_final, check_steps
from gradtx.optimizers.rmsprop import scale_by_rms
from gradtx.optimizers.sgd import sgd
from gradtx.schedules import warmup_constant_schedule
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.wrappers.ascent import beside, per_lane

Interpolation = Annotated[ArrayLike, interval(0, 1, "(]", lambda _: " At 0 the average could not be recovered.")]


class ScheduleFreeState(NamedTuple):
    """What schedule-free learning keeps.

    Attributes:
      b1: the one in use.
      weight_sum: sum of the weights so far.
      step_count: steps taken.
      max_lr: the largest rate so far.
      base_optimizer_state: the wrapped transformation's state.
      z: the sequence that it moves.
      x: the average where it cannot be recovered from the parameters, which is where those are of
        half precision: rounding errors would add up in it. A scalar 0 for every other leaf.
    """

    b1: jax.Array
    weight_sum: jax.Array
    step_count: jax.Array
    max_lr: jax.Array
    base_optimizer_state: State
    z: Params
    x: Params

    def eval_params(self, params: Params) -> Params:
        """What `gradtx.eval_params` gives: `x`, stored or `z + (y - z) / b1`."""
        b1 = jnp.asarray(self.b1)

        def average(z: Leaf, y: Leaf, x: Leaf) -> jax.Array:
            y, z, x = promote(y), promote(z), jnp.asarray(x)
            return _average(y, z, x, per_lane(b1.astype(y.real.dtype), y))

        return beside(average, self.z, params, self.x)


def _average(y: jax.Array, z: jax.Array, x: jax.Array, b1: jax.Array) -> jax.Array:
    """`x` as it is stored, or recovered."""
    return x if x.shape == y.shape else z + (y - z) / b1


def schedule_free_eval_params(state: ScheduleFreeState, params: Params) -> Params:
    """The average of `schedule_free`, to evaluate with: `x = (y - (1 - b1)*z) / b1`.

    `y` are the parameters.

    Args:
      state: the `ScheduleFreeState`, not a container of it; `gradtx.eval_params` finds it anywhere.
      params: the parameters that the state belongs to.

    Returns:
      A tree like `params`, in its dtypes.

    Raises:
      TypeError: `state` is no `ScheduleFreeState`.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax
      >>> tx, params = gradtx.schedule_free_sgd(0.5), jnp.array(4.0)
      >>> gradtx.optax.contrib.schedule_free_eval_params(tx.init(params), params)
      Array(4., dtype=float32)
    """
    if not isinstance(state, ScheduleFreeState):
        raise TypeError(
            f"schedule_free_eval_params: state is {checks.kind(state)}, expected a ScheduleFreeState; "
            "gradtx.eval_params(state, params) finds one inside other states."
        )
    return cast_like(state.eval_params(params), params)


def _stored(p: Leaf) -> jax.Array:
    """The `x` to keep for a parameter. A scalar keeps its own: the placeholder looks the same."""
    dtype = jnp.result_type(p)
    wide = compute_dtype(dtype)
    return jnp.array(p, wide) if dtype != wide or jnp.ndim(p) == 0 else jnp.zeros((), wide)


def _rounded(z: jax.Array, dtype: DType) -> jax.Array:
    """`z` with the bits that a state of `dtype` keeps. XLA may leave out a cast there and back."""
    if dtype is None or jnp.iscomplexobj(z):
        return z
    kept = jnp.finfo(dtype)
    return jax.lax.reduce_precision(z, kept.nexp, kept.nmant)


class schedule_free(Transformation, final=True, guards=True, needs_params=True):
    """Schedule-free learning around an optimizer without momentum.

    With `y` the parameters, `u` the wrapped optimizer's update there: `z += u`,
    `x = (1-c)*x + c*z`, `y = (1-b1)*z + b1*x`, where `c = w / sum w` and
    `w = (largest rate so far)^weight_lr_power`. So `x` is an average of `z`, weighted towards steps
    after the warm-up; evaluate with it: `gradtx.eval_params(state, params)`. It needs neither a
    falling rate nor the number of steps. Nothing may change the updates before they are applied:
    put it around the whole chain. An accumulation stands around it too. `update` needs `params`.

    Args:
      base_optimizer: the transformation to wrap: a whole optimizer, with the learning rate below,
        and momentum off (`b1=0`).
      learning_rate: the wrapped optimizer's rate, a number >= 0 or a schedule (a warm-up, then
        constant); used for the weights.
      b1: in (0, 1]: how near the parameters are to the average; takes the place of momentum.
      weight_lr_power: >= 0; 0 gives all steps one weight.
      state_dtype: dtype of `z`; None is float32, or wider for wider parameters.

    State: `ScheduleFreeState(b1, weight_sum, step_count int32, max_lr, base_optimizer_state, z,
      x)`; 4 bytes a parameter more than the wrapped one's, for half-precision parameters 8. `x` of
      wider parameters is not stored but recovered from `y` and `z`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> rate = gradtx.warmup_constant_schedule(0.0, 0.5, warmup_steps=10)
      >>> tx = gradtx.schedule_free(gradtx.sgd(rate), rate, b1=0.9)
      >>> params = jnp.array(4.0)
      >>> state = tx.init(params)
      >>> for _ in range(100):
      ...     updates, state = tx.update(params, state, params)  # the gradient of x^2 / 2
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(abs(gradtx.eval_params(state, params)) < 0.02)
      True

    Source: Defazio et al. 2024, "The Road Less Scheduled", arXiv:2405.15682, equations 3 to 5 and
    section 4 for the weights.

    **Differs:** Optax reads a schedule at one more than the steps taken, so that its value at step
    0 gets no weight; here weights and steps have one rate. Optax keeps `b1`, the weights and `z` in
    the parameters' dtype: in bfloat16 its sum of weights stalls, `b1` is 0.8984 in one place and
    0.9 in another, and `x` gathers rounding errors.
    """

    base_optimizer: Inner
    learning_rate: Rate
    b1: Interpolation = 0.9
    weight_lr_power: NonNegative = 2.0
    state_dtype: FloatDType | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_final("schedule_free", "base_optimizer", self.base_optimizer)
        check_steps("schedule_free", "base_optimizer", self.base_optimizer)

    @property
    def inside(self) -> tuple[Transformation, ...]:
        return (self.base_optimizer,)

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        return (Part(self.base_optimizer, params, state.base_optimizer_state),)

    def init(self, params: Params) -> ScheduleFreeState:
        b1, zero = jnp.asarray(self.b1, default_float()), jnp.zeros((), default_float())
        z = copies(params)
        if self.state_dtype is not None:
            z = jax.tree.map(lambda x: x if jnp.iscomplexobj(x) else x.astype(self.state_dtype), z)
        x = jax.tree.map(_stored, params)
        return ScheduleFreeState(b1, zero, zero_count(), zero, self.base_optimizer.init(params), z, x)

    def step(
        self, updates: Updates, state: ScheduleFreeState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScheduleFreeState]:
        rate = scheduled_value("learning_rate", self.learning_rate, state.step_count)
        max_lr = jnp.maximum(state.max_lr, rate).astype(state.max_lr.dtype)
        weight = max_lr**self.weight_lr_power
        weight_sum = state.weight_sum + weight
        c = guarded_ratio(weight, weight_sum)
        b1_before, b1 = state.b1, jnp.asarray(self.b1, default_float())
        updates, base_state = self.base_optimizer.advance(updates, state.base_optimizer_state, params, extra_args)

        @each_leaf
        def rule(u: jax.Array, z: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
            average = _average(y, z, x, b1_before)
            z = _rounded(z + u, self.state_dtype)  # as stored, or the average would drift
            average = (1 - c) * average + c * z
            return z + b1 * (average - z) - y, z, average if x.shape == y.shape else x

        updates, z, x = rule(updates, state.z, state.x, params)
        return updates, ScheduleFreeState(b1, weight_sum, safe_increment(state.step_count), max_lr, base_state, z, x)


def _with_warmup(name: str, learning_rate: ScalarOrSchedule, warmup_steps: int | None) -> ScalarOrSchedule:
    if warmup_steps is None:
        return learning_rate
    if callable(learning_rate):
        raise ValueError(
            f"{name}: warmup_steps is {warmup_steps}, but learning_rate is a schedule; "
            "expected a number beside warmup_steps, or a schedule that warms up by itself."
        )
    return warmup_constant_schedule(init_value=0.0, peak_value=learning_rate, warmup_steps=warmup_steps)


class schedule_free_sgd(Preset, final=True, guards=True):
    """Schedule-free gradient descent: `z -= learning_rate * (g + weight_decay * y)`.

    See `schedule_free`. Evaluate with `gradtx.eval_params(state, params)`. `update` needs `params`.

    Args:
      learning_rate: number >= 0, or a schedule that warms up; one unit moves `z` by the gradient.
      warmup_steps: steps of a linear warm-up from 0, >= 1; None for none. Only beside a number.
      b1: in (0, 1]: how near the parameters are to the average; takes the place of momentum.
      weight_decay: number >= 0 or schedule, multiplied by the rate; taken at the parameters `y`.
        None for none.
      weight_lr_power: >= 0; each step's weight in the average is the largest rate so far to this
        power; 0 gives all steps one.
      state_dtype: dtype of `z`; None is float32, or wider for wider parameters.

    State: `ScheduleFreeState`; 4 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.schedule_free_sgd(0.5, warmup_steps=100)
      schedule_free_sgd(learning_rate=0.5, warmup_steps=100)

    Source: Defazio et al. 2024, arXiv:2405.15682, equations 3 to 5.
    """

    learning_rate: Rate = 1.0
    warmup_steps: PositiveInt | None = None
    b1: Interpolation = 0.9
    weight_decay: Rate | None = None
    weight_lr_power: NonNegative = 2.0
    state_dtype: FloatDType | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stands_for  # noqa: B018  # refuses a warm-up beside a schedule

    def chain(self) -> schedule_free:
        rate = _with_warmup("schedule_free_sgd", self.learning_rate, self.warmup_steps)
        base = sgd(rate) if self.weight_decay is None else chain(add_decayed_weights(self.weight_decay), sgd(rate))
        return schedule_free(base, rate, self.b1, self.weight_lr_power, self.state_dtype)


class schedule_free_adamw(Preset, final=True, guards=True):
    """Schedule-free AdamW: `z -= learning_rate * (g / (sqrt(v_hat) + eps) + weight_decay * y)`.

    `v_hat` is Adam's second moment with its bias corrected; there is no first moment. See
    `schedule_free`. Evaluate with `gradtx.eval_params(state, params)`. `update` needs `params`.

    Args:
      learning_rate: number >= 0, or a schedule that warms up; one unit moves each parameter of `z`
        by about 1 a step.
      warmup_steps: steps of a linear warm-up from 0, >= 1; None for none. Only beside a number.
      b1: in (0, 1]: how near the parameters are to the average; takes the place of momentum.
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0; in units of the gradient.
      weight_decay: number >= 0 or schedule, multiplied by the rate; taken at the parameters `y`.
      weight_lr_power: >= 0; each step's weight in the average is the largest rate so far to this
        power; 0 gives all steps one.
      state_dtype: dtype of `z`; None is float32, or wider for wider parameters.

    State: `ScheduleFreeState`; 8 bytes a parameter.

    Example:
      >>> import gradtx
      >>> gradtx.schedule_free_adamw(0.0025, warmup_steps=100, weight_decay=0.1)
      schedule_free_adamw(warmup_steps=100, weight_decay=0.1)

    Source: Defazio et al. 2024, arXiv:2405.15682, algorithm 1.
    """

    learning_rate: Rate = 0.0025
    warmup_steps: PositiveInt | None = None
    b1: Interpolation = 0.9
    b2: Decay = 0.999
    eps: NonNegative = 1e-8
    weight_decay: Rate = 0.0
    weight_lr_power: NonNegative = 2.0
    state_dtype: FloatDType | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stands_for  # noqa: B018  # refuses a warm-up beside a schedule

    def chain(self) -> schedule_free:
        rate = _with_warmup("schedule_free_adamw", self.learning_rate, self.warmup_steps)
        rms = scale_by_rms(self.b2, self.eps, eps_in_sqrt=False, bias_correction=True)
        base = chain(rms, add_decayed_weights(self.weight_decay), scale_by_learning_rate(rate))
        return schedule_free(base, rate, self.b1, self.weight_lr_power, self.state_dtype)
