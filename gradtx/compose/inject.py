"""Hyperparameters in the state, where they can be read, scheduled and changed without a recompile."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core import checks, leaves
from gradtx.core.base import GradientTransformation, member
from gradtx.core.checks import FloatDType
from gradtx.core.numerics import default_float, safe_increment, zero_count
from gradtx.core.values import call_with, factory, same, show


class InjectHyperparamsState(NamedTuple):
    """Steps taken, the hyperparameters in use, and the wrapped transformation's state."""

    count: jax.Array
    hyperparams: dict[str, jax.Array]
    inner_state: Any

    def metrics(self) -> dict[str, Any]:
        """What `gradtx.metrics` reports. The rate is left to the transformation that applies it, if that keeps it in its state."""

        def has_rate(node: Any) -> bool:
            return hasattr(node, "learning_rate")

        twice = any(map(has_rate, jax.tree.leaves(self.inner_state, is_leaf=has_rate)))
        return {name: value for name, value in self.hyperparams.items() if not (twice and name == "learning_rate")}


def inject_hyperparams(
    inner_factory: Callable[..., Any], static_args: str | Iterable[str] = (), hyperparam_dtype: Any = None
) -> Callable[..., GradientTransformation]:
    """Wraps a factory so that its numeric hyperparameters live in the state, in float32 whatever the parameters' dtype.

    `inject_hyperparams(adam)(learning_rate=1e-3)` is `adam(1e-3)` with `state.hyperparams["learning_rate"]` and the others to be
    read, or replaced between steps: `state = gradtx.tree.set(state, learning_rate=1e-4)`, in Flax NNX
    `optimizer.opt_state.hyperparams["learning_rate"][...] = 1e-4`. A compiled step goes on with the new value, without a recompile.

    Args:
      inner_factory: function that makes a transformation.
      static_args: names of arguments to leave as they are (those that choose shapes, dtypes or branches). Booleans, text,
        None, dtypes, other non-numbers, and whole numbers such as a seed are left as they are in any case.
      hyperparam_dtype: dtype of the hyperparameters; None is float32 (float64 under `jax_enable_x64`).

    Returns:
      A function with the arguments of `inner_factory`. Numbers and arrays given to it, or its defaults, are injected; schedules of
      the step count are evaluated at each step, their value at step 0 in the state from `init` on. State:
      `InjectHyperparamsState(count int32, hyperparams, inner_state)`, 4 bytes a hyperparameter.

    Raises:
      TypeError: `inner_factory` is no function, or `static_args` names no argument of it.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=0.5)
      >>> state = tx.init(jnp.zeros(()))
      >>> state = gradtx.tree.set(state, learning_rate=0.25)
      >>> float(tx.update(jnp.array(1.0), state)[0])
      -0.25

    **Differs:** Optax casts hyperparameters to the parameters' dtype, so that in bfloat16 `b2` = 0.999 becomes 1. A value set in
    the state of a scheduled hyperparameter is replaced by the schedule at the next step, as there.
    """
    if not callable(inner_factory) or checks.is_transformation(inner_factory):
        raise TypeError(
            f"inject_hyperparams: inner_factory is {checks.kind(inner_factory)}, expected a factory that was not called, "
            "as in inject_hyperparams(adam)(learning_rate=1e-3)."
        )
    signature = inspect.signature(inner_factory)
    static = (static_args,) if isinstance(static_args, str) else tuple(sorted(set(static_args), key=str))
    for name in static:
        if name not in signature.parameters:
            raise TypeError(
                f"inject_hyperparams: static_args has {name!r}, expected an argument of {show(inner_factory)}."
                f"{checks.did_you_mean(name, signature.parameters)}"
            )

    def make(*args: Any, **kwargs: Any) -> GradientTransformation:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"inject_hyperparams({show(inner_factory)}): {error}.") from None
        bound.apply_defaults()
        return injected(inner_factory, dict(bound.arguments), static, hyperparam_dtype)

    return make


def _show(arguments: dict[str, Any]) -> str:
    inner, given = arguments["inner_factory"], arguments["arguments"]
    defaults = {name: p.default for name, p in inspect.signature(inner).parameters.items()}
    options = [f"{key}={show(arguments[key])}" for key in ("static_args", "hyperparam_dtype") if arguments[key]]
    changed = ", ".join(f"{key}={show(value)}" for key, value in given.items() if not same(value, defaults[key]))
    return f"inject_hyperparams({', '.join([show(inner), *options])})({changed})"


@factory(composite=True, show=_show, name="inject_hyperparams")
def injected(
    inner_factory: Callable[..., Any], arguments: dict[str, Any], static_args: tuple[str, ...], hyperparam_dtype: FloatDType | None
) -> GradientTransformation:
    """What `inject_hyperparams(inner_factory, ...)(**arguments)` makes."""

    def as_array(value: Any) -> jax.Array:
        return jnp.asarray(value).astype(default_float() if hyperparam_dtype is None else hyperparam_dtype)

    domains = {name: checks.domain_of(hint) for name, hint in inspect.get_annotations(inner_factory).items()}
    dynamic = {name: value for name, value in arguments.items() if name not in static_args}
    numbers = {name: value for name, value in dynamic.items() if _is_numeric(value) and _admits(domains.get(name), as_array(value))}
    schedules = {name: value for name, value in dynamic.items() if _is_schedule(value, domains.get(name))}
    others = {name: value for name, value in arguments.items() if name not in numbers and name not in schedules}

    def scheduled(count: jax.Array) -> dict[str, jax.Array]:
        return {name: as_array(jnp.array(schedule(count))) for name, schedule in schedules.items()}  # copies: they are kept

    def inner(hyperparams: dict[str, Any]) -> GradientTransformation:
        return member(call_with(inner_factory, {**others, **hyperparams}))

    first = {name: schedule(zero_count()) for name, schedule in schedules.items()}
    # Bad hyperparameters fail here, not at the first step.
    example = member(call_with(inner_factory, {**arguments, **first}))

    def init(params: Any) -> InjectHyperparamsState:
        count = zero_count()
        hyperparams = {name: as_array(value) for name, value in numbers.items()} | scheduled(count)
        return InjectHyperparamsState(count, hyperparams, inner(hyperparams).init(params))

    def update(
        updates: Any, state: InjectHyperparamsState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, InjectHyperparamsState]:
        if set(state.hyperparams) != {*numbers, *schedules}:
            names = ", ".join(map(repr, [*numbers, *schedules]))
            leaves.raise_wrong_state(state, InjectHyperparamsState, f"an InjectHyperparamsState with hyperparams {names}")
        set_by_user = {name: as_array(value) for name, value in state.hyperparams.items()}
        hyperparams = set_by_user | scheduled(state.count)
        updates, inner_state = inner(hyperparams).update(updates, state.inner_state, params, **extra_args)
        return updates, InjectHyperparamsState(safe_increment(state.count), hyperparams, inner_state)

    update.inside = example  # type: ignore[attr-defined]  # whose extra arguments it takes, and which may have to stand last
    return GradientTransformation(init, update)


def _is_numeric(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return False
    if isinstance(value, (jax.Array, np.ndarray)):
        return jnp.issubdtype(value.dtype, jnp.floating)
    return isinstance(value, (int, float, np.floating))


def _admits(domain: checks.Domain | None, value: jax.Array) -> bool:
    """Whether an argument may be a floating array; a whole number of steps or a seed may not."""
    return domain is None or domain.contains(value)


def _is_schedule(value: Any, domain: checks.Domain | None) -> bool:
    """Whether a function argument stands for a number at each step; by its annotation, if any, it may be a mask instead."""
    return checks.is_schedule(value) and (domain is None or domain.numeric)
