"""When to stop training, and which parameters were best.

These are pure functions of a state, for use inside jit, scan and while_loop.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core import checks, domains
from gradtx.core.domains import Flag, NonNegative, PositiveInt
from gradtx.core.numerics import default_float, safe_increment, zero_count
from gradtx.core.paths import ROOT, leaves_by_path, structure_difference
from gradtx.core.types import Leaf, Params
from gradtx.core.value import Value


class EarlyStoppingState(NamedTuple):
    """What `early_stopping` has seen.

    Attributes:
      best_value: the best value, inf before any.
      best_step: which evaluation gave it, counted from 1; 0 before any.
      count: evaluations since then.
      steps: evaluations in all.
      should_stop: whether to stop, a boolean scalar; once True, it stays.
      best_params: the parameters of the best value, those of `init` before any; None without
        `keep_best`.
    """

    best_value: jax.Array
    best_step: jax.Array
    count: jax.Array
    steps: jax.Array
    should_stop: jax.Array
    best_params: Params | None


class early_stopping(Value):
    """Stops once `patience` evaluations in a row were no better.

    Better is `value < best_value - min_delta`. `init(params) -> state` and
    `update(state, value, params) -> state` are pure and keep the state's shapes and dtypes, so that
    they run inside `jit`, `lax.scan` and `lax.while_loop`. A loop ends on `state.should_stop`; in a
    scan, which cannot end, updates after that leave the state as it is. NaN is never better. This
    is no transformation: it stands beside the optimizer, not in a chain.

    Args:
      patience: evaluations that may be no better, >= 1.
      min_delta: by how much a value must fall below the best one, >= 0, in units of the value. One
        that is lower by less counts as no better: the best value and parameters stay.
      keep_best: whether the state keeps the best parameters; if not, `params` may be left out.

    State: `EarlyStoppingState(best_value float32, best_step int32, count int32, steps int32,
      should_stop bool, best_params)`; 17 bytes, and the parameters' size with `keep_best`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> stopper = gradtx.early_stopping(patience=2)
      >>> state = stopper.init(params=jnp.array(0.0))
      >>> for step, loss in enumerate([3.0, 1.0, 2.0, 1.5, 0.5]):  # for an accuracy, -accuracy
      ...     state = stopper.update(state, loss, params=jnp.array(10.0 * step))
      >>> bool(state.should_stop), int(state.best_step)
      (True, 2)
      >>> float(state.best_value), float(state.best_params)
      (1.0, 10.0)

    Source: Goodfellow, Bengio and Courville 2016, "Deep Learning", algorithm 7.1.
    """

    patience: PositiveInt
    min_delta: NonNegative = 0.0
    keep_best: Flag = True

    def init(self, params: Params | None = None) -> EarlyStoppingState:
        """The state before any evaluation; `params` are needed with `keep_best`."""
        best = jnp.asarray(jnp.inf, default_float())
        kept = jax.tree.map(_copy, self._kept(params, "init(params)"))
        return EarlyStoppingState(best, zero_count(), zero_count(), zero_count(), jnp.zeros((), bool), kept)

    def update(self, state: EarlyStoppingState, value: ArrayLike, params: Params | None = None) -> EarlyStoppingState:
        """The state after an evaluation that gave `value`, a real scalar, with `params`."""
        if not isinstance(state, EarlyStoppingState):
            raise TypeError(
                f"early_stopping: state is {checks.kind(state)}, expected an EarlyStoppingState. The call is "
                "stopper.update(state, value, params), beside the optimizer: it is no transformation for a chain."
            )
        if not domains.is_real_scalar(value):
            raise ValueError(f"early_stopping: value is {checks.kind(value)}, expected a real scalar, such as a mean loss.")
        params = jax.tree.map(jnp.asarray, self._kept(params, "update(state, value, params)"))
        _check_alike(params, state.best_params)
        value = jnp.asarray(value).astype(state.best_value.dtype)
        better = (state.best_value - value > self.min_delta) & ~state.should_stop
        steps = jnp.where(state.should_stop, state.steps, safe_increment(state.steps))
        count = jnp.where(better, 0, state.count + steps - state.steps)
        return EarlyStoppingState(
            jnp.where(better, value, state.best_value),
            jnp.where(better, steps, state.best_step),
            count,
            steps,
            count >= self.patience,
            jax.tree.map(lambda new, best: jnp.where(better, new, best), params, state.best_params),
        )

    def _kept(self, params: Params | None, call: str) -> Params | None:
        if self.keep_best and params is None:
            raise ValueError(
                f"early_stopping: params is None, expected the parameters, since keep_best is True; call stopper.{call}."
            )
        return params if self.keep_best else None


def _copy(x: Leaf) -> jax.Array:
    """A copy, strongly typed.

    A step may donate both the parameters and this state: no buffer is in both.
    """
    return jnp.array(x, jnp.result_type(x))


def _check_alike(params: Params | None, best: Params | None) -> None:
    """Raises unless parameters agree with the kept ones in structure, shapes and dtypes."""
    if jax.tree.structure(params) != jax.tree.structure(best):
        raise ValueError(f"early_stopping: {structure_difference('params', params, 'the best_params in the state', best)}.")
    before = leaves_by_path(best)
    for parts, leaf in leaves_by_path(params).items():
        old = before[parts]
        if (leaf.shape, leaf.dtype) != (old.shape, old.dtype):
            at = "/".join(parts) or ROOT
            raise ValueError(f"early_stopping: params leaf `{at}` is {checks.kind(leaf)}, expected {checks.kind(old)}, as at init.")
