"""Hyperparameters in the state: read, scheduled and changed there without a recompile."""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.optax_names import StatefulSchedule
from gradtx.core import checks, domains, trees
from gradtx.core.domains import FloatDType, Schedule, ScheduleArg
from gradtx.core.numerics import default_float, safe_increment, zero_count
from gradtx.core.pairs import Inner, as_transformation
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import Argument, DType, ExtraArg, Params, Scalar, State, Updates
from gradtx.core.value import Value, call_with, hints_of, same, show
from gradtx.core.walk import rests


def _reported(hyperparams: dict[str, jax.Array], inner_state: State) -> dict[str, jax.Array]:
    """What `gradtx.metrics` reports: a rate that is in the inner state is reported there."""

    def has_rate(node: object) -> bool:
        return hasattr(node, "learning_rate")

    twice = any(map(has_rate, jax.tree.leaves(inner_state, is_leaf=has_rate)))
    return {name: value for name, value in hyperparams.items() if not (twice and name == "learning_rate")}


class InjectHyperparamsState(NamedTuple):
    """Steps taken, the hyperparameters in use, and the wrapped transformation's state."""

    count: jax.Array
    hyperparams: dict[str, jax.Array]
    inner_state: State

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return _reported(self.hyperparams, self.inner_state)


class InjectStatefulHyperparamsState(NamedTuple):
    """The same with the states of the schedules."""

    count: jax.Array
    hyperparams: dict[str, jax.Array]
    hyperparams_states: dict[str, State]
    inner_state: State

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return _reported(self.hyperparams, self.inner_state)


def inject_hyperparams(
    inner_factory: Callable[..., Inner], static_args: str | Iterable[str] = (), hyperparam_dtype: DType = None
) -> Callable[..., Transformation]:
    """Wraps a factory so that its numeric hyperparameters live in the state.

    They are in float32 whatever the parameters' dtype.

    `inject_hyperparams(adam)(learning_rate=1e-3)` is `adam(1e-3)` with
    `state.hyperparams["learning_rate"]` and the others to be read, or replaced between steps:
    `state = gradtx.tree.set(state, learning_rate=1e-4)`, in Flax NNX
    `optimizer.opt_state.hyperparams["learning_rate"][...] = 1e-4`. A compiled step goes on with the
    new value, without a recompile.

    Args:
      inner_factory: function that makes a transformation.
      static_args: names of arguments to leave as they are (those that choose shapes, dtypes or
        branches). Booleans, text, None, dtypes, other non-numbers, and whole numbers such as a seed
        are left as they are in any case.
      hyperparam_dtype: dtype of the hyperparameters; None is float32 (float64 under
        `jax_enable_x64`).

    Returns:
      A function with the arguments of `inner_factory`. Numbers and arrays given to it, or its
      defaults, are injected; schedules of the step count are evaluated at each step, their value at
      step 0 in the state from `init` on. State: `InjectHyperparamsState(count int32, hyperparams,
      inner_state)`, 4 bytes a hyperparameter. A schedule may have a state of its own: an object
      with `init()`, `update(state, **extra_args)` and `__call__(state, **extra_args)`; the state is
      then `InjectStatefulHyperparamsState`, which holds those too.

    Raises:
      TypeError: `inner_factory` is no function, or `static_args` names no argument of it.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=0.5)
      >>> state = tx.init(jnp.zeros(()))
      >>> state = gradtx.tree.set(state, learning_rate=0.25)
      >>> float(tx.update(jnp.array(1.0), state)[0])
      -0.25

    **Differs:** Optax casts hyperparameters to the parameters' dtype, so that in bfloat16
    `b2 = 0.999` becomes 1. A value set in the state of a scheduled hyperparameter is replaced by
    the schedule at the next step, as there.
    """
    return _maker(inner_factory, static_args, hyperparam_dtype, always_stateful=False)


def inject_stateful_hyperparams(
    inner_factory: Callable[..., Inner], static_args: str | Iterable[str] = (), hyperparam_dtype: DType = None
) -> Callable[..., Transformation]:
    """`inject_hyperparams` whose state always holds those of schedules; deprecated, as in Optax.

    Args:
      inner_factory: function that makes a transformation.
      static_args: names of arguments to leave as they are.
      hyperparam_dtype: dtype of the hyperparameters; None is float32.

    Example:
      >>> import warnings, jax.numpy as jnp, gradtx.optax as optax
      >>> warnings.simplefilter("ignore", DeprecationWarning)
      >>> rate = optax.linear_schedule(1.0, 0.0, 4)
      >>> tx = optax.inject_stateful_hyperparams(optax.sgd)(learning_rate=rate)
      >>> _, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
      >>> int(state.hyperparams_states["learning_rate"].count)
      1
    """
    text = "inject_stateful_hyperparams is deprecated, as in Optax; use inject_hyperparams."
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return _maker(inner_factory, static_args, hyperparam_dtype, always_stateful=True)


def _maker(
    inner_factory: Callable[..., Inner], static_args: str | Iterable[str], hyperparam_dtype: DType, *, always_stateful: bool
) -> Callable[..., Transformation]:
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

    def make(*args: Argument, **kwargs: Argument) -> Transformation:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"inject_hyperparams({show(inner_factory)}): {error}.") from None
        bound.apply_defaults()
        stateful = any(is_stateful(value) for name, value in bound.arguments.items() if name not in static)
        made = injected_stateful if always_stateful or stateful else injected
        return made(inner_factory, dict(bound.arguments), static, hyperparam_dtype)

    return make


class injected(Transformation, any_leaves=True):
    """What `inject_hyperparams(inner_factory, ...)(**arguments)` makes."""

    inner_factory: Callable[..., Inner]
    given: dict[str, Argument]
    static_args: tuple[str, ...]
    hyperparam_dtype: FloatDType | None

    @property
    def called(self) -> str:
        return "inject_hyperparams"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.example  # noqa: B018  # bad hyperparameters fail here, not at the first step

    def __repr__(self) -> str:
        defaults = {name: p.default for name, p in inspect.signature(self.inner_factory).parameters.items()}
        options = [f"{key}={show(getattr(self, key))}" for key in ("static_args", "hyperparam_dtype") if getattr(self, key)]
        changed = ", ".join(f"{key}={show(value)}" for key, value in self.given.items() if not same(value, defaults[key]))
        return f"inject_hyperparams({', '.join([show(self.inner_factory), *options])})({changed})"

    def as_array(self, value: Scalar) -> jax.Array:
        """A hyperparameter as it is in the state."""
        return jnp.asarray(value).astype(default_float() if self.hyperparam_dtype is None else self.hyperparam_dtype)

    @functools.cached_property
    def domains(self) -> dict[str, domains.Domain | None]:
        """What the factory's arguments may be, where it says so."""
        return {name: domains.domain_of(hint) for name, hint in hints_of(self.inner_factory).items()}

    @functools.cached_property
    def dynamic(self) -> dict[str, Argument]:
        """The arguments that may be injected."""
        return {name: value for name, value in self.given.items() if name not in self.static_args}

    @functools.cached_property
    def numbers(self) -> dict[str, Scalar]:
        """The numbers that live in the state."""
        return {k: v for k, v in self.dynamic.items() if _is_numeric(v) and _admits(self.domains.get(k), self.as_array(v))}

    @functools.cached_property
    def schedules(self) -> dict[str, Schedule]:
        """The schedules whose values live in the state."""
        return {k: v for k, v in self.dynamic.items() if _is_schedule(v, self.domains.get(k))}

    @functools.cached_property
    def example(self) -> Transformation:
        """The transformation at step 0."""
        with checks.calling("inject_hyperparams"):
            values = {name: domains.call_schedule(name, schedule, zero_count()) for name, schedule in self.schedules.items()}
        return self.made(values)

    def made(self, hyperparams: Mapping[str, Scalar]) -> Transformation:
        """The transformation with these hyperparameters."""
        made = call_with(self.inner_factory, {**self.given, **hyperparams})
        domains.check_argument("inject_hyperparams", f"what {show(self.inner_factory)} returns", made, domains.TRANSFORMATION)
        return as_transformation(made)

    def scheduled(self, count: jax.Array) -> dict[str, jax.Array]:
        """The values of the schedules at a step."""
        return {name: self.as_array(jnp.array(schedule(count))) for name, schedule in self.schedules.items()}

    def init(self, params: Params) -> InjectHyperparamsState:
        """The hyperparameters at step 0, and the state of the transformation with them."""
        count = zero_count()
        hyperparams = {name: self.as_array(value) for name, value in self.numbers.items()} | self.scheduled(count)
        return InjectHyperparamsState(count, hyperparams, self.made(hyperparams).init(params))

    def step(
        self, updates: Updates, state: InjectHyperparamsState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, InjectHyperparamsState]:
        """A step with the hyperparameters in the state, or what their schedules give."""
        if set(state.hyperparams) != {*self.numbers, *self.schedules}:
            names = ", ".join(map(repr, [*self.numbers, *self.schedules]))
            trees.raise_wrong_state(state, InjectHyperparamsState, f"an InjectHyperparamsState with hyperparams {names}")
        set_by_user = {name: self.as_array(value) for name, value in state.hyperparams.items()}
        hyperparams = set_by_user | self.scheduled(state.count)
        updates, inner_state = self.made(hyperparams).advance(updates, state.inner_state, params, extra_args)
        return updates, InjectHyperparamsState(safe_increment(state.count), hyperparams, inner_state)

    @property
    def measuring(self) -> bool:  # type: ignore[override]
        """As the transformation."""
        return self.example.measuring

    @property
    def rests(self) -> bool:  # type: ignore[override]
        """As the transformation, if no schedule counts the calls."""
        return not self.schedules and rests(self.example)

    @property
    def inside(self) -> tuple[Transformation, ...]:
        """The transformation at step 0: its extra arguments and traits are those of all steps."""
        return (self.example,)

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        """The transformation with its state."""
        return (Part(self.example, params, state.inner_state),)

    def undone(self, before: InjectHyperparamsState, after: InjectHyperparamsState) -> InjectHyperparamsState:
        """The state before, with what is left in the transformation."""
        return before._replace(inner_state=self.example.undone(before.inner_state, after.inner_state))


class WrappedScheduleState(NamedTuple):
    """Steps taken."""

    count: jax.Array


class WrappedSchedule(Value):
    """A schedule of the step count as one with a state, which is that count.

    Args:
      schedule_fn: function from the step count to a number.

    Example:
      >>> import gradtx.optax as optax
      >>> schedule = optax.WrappedSchedule(optax.linear_schedule(1.0, 0.0, 4))
      >>> state = schedule.update(schedule.init())
      >>> float(schedule(state))
      0.75
    """

    schedule_fn: ScheduleArg

    def init(self) -> WrappedScheduleState:
        """No step."""
        return WrappedScheduleState(zero_count())

    def update(self, state: WrappedScheduleState, **extra_args: ExtraArg) -> WrappedScheduleState:
        """One step more."""
        del extra_args
        return WrappedScheduleState(safe_increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra_args: ExtraArg) -> Scalar:
        del extra_args
        return self.schedule_fn(state.count)


def is_stateful(value: object) -> bool:
    """Whether an argument is a schedule with a state of its own, and no transformation."""
    made = not isinstance(value, (type, Transformation)) and callable(value)
    return made and callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


class injected_stateful(injected):
    """`injected` where schedules have states of their own."""

    @functools.cached_property
    def stateful(self) -> dict[str, StatefulSchedule]:
        """The schedules, each with a state."""
        return {
            name: value if is_stateful(value) else WrappedSchedule(value)
            for name, value in self.dynamic.items()
            if is_stateful(value) or _is_schedule(value, self.domains.get(name))
        }

    @property
    def schedules(self) -> dict[str, Schedule]:  # type: ignore[override]
        """None is a function of the count alone."""
        return {}

    @functools.cached_property
    def example(self) -> Transformation:  # type: ignore[override]
        """The transformation at the first states."""
        return self.made({name: schedule(schedule.init()) for name, schedule in self.stateful.items()})

    @property
    def rests(self) -> bool:  # type: ignore[override]
        """As the transformation, without schedules."""
        return not self.stateful and rests(self.example)

    def now(self, states: Mapping[str, State], **extra_args: ExtraArg) -> dict[str, jax.Array]:
        """The values of the schedules at their states."""
        return {name: self.as_array(jnp.array(f(states[name], **extra_args))) for name, f in self.stateful.items()}

    def init(self, params: Params) -> InjectStatefulHyperparamsState:
        """The hyperparameters at the first states, and the state of the transformation then."""
        states = {name: schedule.init() for name, schedule in self.stateful.items()}
        hyperparams = {name: self.as_array(value) for name, value in self.numbers.items()} | self.now(states)
        return InjectStatefulHyperparamsState(zero_count(), hyperparams, states, self.made(hyperparams).init(params))

    def step(
        self, updates: Updates, state: InjectStatefulHyperparamsState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, InjectStatefulHyperparamsState]:
        """A step with the hyperparameters in the state, or what their schedules give."""
        hyperparams = {name: self.as_array(value) for name, value in state.hyperparams.items()}
        hyperparams |= self.now(state.hyperparams_states, **extra_args)
        states = {name: f.update(state.hyperparams_states[name], **extra_args) for name, f in self.stateful.items()}
        updates, inner_state = self.made(hyperparams).advance(updates, state.inner_state, params, extra_args)
        return updates, InjectStatefulHyperparamsState(safe_increment(state.count), hyperparams, states, inner_state)


def _is_numeric(value: Argument) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return False
    if isinstance(value, (jax.Array, np.ndarray)):
        return jnp.issubdtype(value.dtype, jnp.floating)
    return isinstance(value, (int, float, np.floating))


def _admits(domain: domains.Domain | None, value: jax.Array) -> bool:
    """Whether an argument may be a floating array; a whole number of steps or a seed may not."""
    return domain is None or domain.contains(value)


def _is_schedule(value: Argument, domain: domains.Domain | None) -> bool:
    """Whether a function argument stands for a number at each step.

    By its annotation, if it has one, it may be a mask instead.
    """
    return checks.is_schedule(value) and (domain is None or domain.numeric)
