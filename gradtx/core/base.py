"""The transformation: a pair of pure functions, and the smallest members of its family."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks, leaves
from gradtx.core.checks import Function
from gradtx.core.values import Call, Declared, arrays_in, call_with, factory
from gradtx.core.watch import initialized

if TYPE_CHECKING:  # so that type checkers accept gradtx where flax.nnx asks for Optax's class
    from optax import GradientTransformationExtraArgs as _Pair
else:

    class _Pair(NamedTuple):
        init: Callable[[Any], Any]
        update: Callable[..., tuple[Any, Any]]


class GradientTransformation(_Pair):
    """A gradient transformation: the pair of pure functions `(init, update)`.

    `init(params) -> state` and `update(updates, state, params=None, **extra_args) -> (updates, state)`.
    `updates` are the gradients at the head of a chain and the additive change of the parameters at its end.
    A plain 2-tuple in all respects, so that Flax, Equinox and Optax accept it. Made by a factory, it prints as the
    call that made it; equal calls give equal transformations, and it pickles.

    Args:
      init: makes the state from the parameters.
      update: transforms updates; takes `**extra_args` and ignores what it does not use.

    Example:
      >>> import gradtx
      >>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1))
      >>> tx
      chain(clip_by_global_norm(max_norm=1.0), sgd(learning_rate=0.1))
      >>> init, update = tx
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def __new__(cls, init: Callable[[Any], Any], update: Callable[..., tuple[Any, Any]]) -> "GradientTransformation":  # noqa: D102
            ...

    def __repr__(self) -> str:
        update = self.update
        return repr(update) if isinstance(update, Update) else f"GradientTransformation({self.init!r}, {update!r})"

    def __reduce__(self) -> Any:
        update = self.update
        if isinstance(update, Update):
            return call_with, (update.call.factory, update.call.arguments)
        return GradientTransformation, tuple(self)

    def _declared(self, call: Call, composite: bool) -> "GradientTransformation":
        """The pair as the value that `call` made. A preset shows as itself, not as the chain that it stands for."""
        inner_init, inner_update = self.init, self.update
        if isinstance(inner_init, Init) and isinstance(inner_update, Update):
            init = Init(call, inner_init.function, inner_init.composite)
            update = Update(call, inner_update.function, inner_update.composite, inner_update.wants)
        else:
            wants = frozenset(_keyword_only(inner_update)) | wants_of((call.arguments, getattr(inner_update, "inside", ())))
            inner_update = with_extra_args_support(self).update
            init, update = Init(call, inner_init, composite), Update(call, inner_update, composite, wants)
        return GradientTransformation(init, update)


Params = Any
"""The type of a tree of parameters, as Optax names it: any tree."""
Updates = Any
"""The type of a tree of updates."""
OptState = Any
"""The type of an optimizer's state."""
GradientTransformationExtraArgs = GradientTransformation
"""Another name for `GradientTransformation`: every update takes extra arguments."""


class Init(Declared):
    """The `init` of a declared transformation."""

    def __init__(self, call: Call, function: Callable[[Any], Any], composite: bool):
        self.call, self.function, self.composite = call, function, composite

    def __call__(self, params: Any) -> Any:
        """Makes the state, in arrays of its own, after checking the parameters' leaves."""
        with checks.calling(self.call.factory.__name__):
            leaves.check_no_module(params)
            if not self.composite:
                leaves.check_leaves("params", params)
            return initialized(self.call, self._state, params)

    def _state(self, params: Any) -> Any:
        return leaves.own(self.function(params), [*jax.tree.leaves(params), *arrays_in(self.call.arguments)])

    def __reduce__(self) -> Any:
        return _field, (self.call.factory, self.call.arguments, "init")


class Update(Declared):
    """The `update` of a declared transformation; `wants` are the extra arguments used anywhere inside it."""

    def __init__(self, call: Call, function: Callable[..., Any], composite: bool, wants: frozenset[str]):
        self.call, self.function, self.composite, self.wants = call, function, composite, wants
        self._required = [name for name, required in _keyword_only(function).items() if required]
        state = inspect.signature(function).parameters.get("state")
        annotated = state is not None and isinstance(state.annotation, type) and state.annotation not in (Any, state.empty)
        self._state_type = state.annotation if state is not None and annotated else object

    def __call__(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        """Transforms `updates`, after checking trees, state and extra arguments."""
        outermost = checks.depth() == 0
        with checks.calling(self.call.factory.__name__):
            if outermost and extra_args:
                _check_spelling(self.wants, extra_args)
            for name in self._required:
                if name not in extra_args:
                    raise TypeError(
                        f"{checks.where()}: missing extra argument `{name}`; call tx.update(updates, state, params, {name}=...)."
                    )
            if not isinstance(state, self._state_type):
                leaves.raise_wrong_state(state, self._state_type)
            if params is not None:
                point = getattr(type(params), "gradient_point", None)  # of parameters in two versions, as LookaheadParams
                leaves.check_same_shapes(updates, params if point is None else point(params))
            if not self.composite:
                leaves.check_leaves("updates", updates)
            changed, after = _keeping_dtypes(self.function(updates, state, params, **extra_args), state)
            if not self.call.traits.measures:
                leaves.check_returned(changed, updates, params)
            return changed, after

    def __reduce__(self) -> Any:
        return _field, (self.call.factory, self.call.arguments, "update")


def _field(made: Callable[..., Any], arguments: Mapping[str, Any], name: str) -> Any:
    return getattr(call_with(made, arguments), name)


def _keyword_only(update: Callable[..., Any]) -> dict[str, bool]:
    """The extra arguments that an update declares, and whether it cannot do without."""
    parameters = inspect.signature(update).parameters.values()
    return {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}


def wants_of(arguments: Any) -> frozenset[str]:
    """The extra arguments used by the transformations among `arguments`, however nested."""
    if checks.is_transformation(arguments):
        update = arguments.update
        return update.wants if isinstance(update, Update) else frozenset(_keyword_only(update))
    if isinstance(arguments, Mapping):
        arguments = arguments.values()
    elif not isinstance(arguments, (list, tuple)):
        return frozenset()
    return frozenset().union(*map(wants_of, arguments))


def last_of(arguments: Any) -> Any:
    """The first transformation among `arguments`, however nested, whose updates must be applied as they are; None for none."""
    return _first("last", arguments)


def _first(trait: str, arguments: Any) -> Any:
    """The first transformation among `arguments`, however nested, that has a trait; None for none."""
    if checks.is_transformation(arguments):
        call = getattr(arguments.update, "call", None)
        if call is None:
            owner = getattr(arguments.update, "__self__", None)  # an object, such as MultiSteps, or its bound methods
            return owner if getattr(owner, trait, False) else _first(trait, getattr(owner, "inside", None))
        inside = getattr(arguments.update.function, "inside", ())
        return arguments if getattr(call.traits, trait) else _first(trait, (call.arguments, inside))
    if isinstance(arguments, Mapping):
        arguments = arguments.values()
    elif not isinstance(arguments, (list, tuple)):
        return None
    return next((found for one in arguments if (found := _first(trait, one)) is not None), None)


def observes(tx: Any) -> bool:
    """Whether a transformation changes no updates: so its factory says, or it only holds such."""
    if not isinstance(tx.update, Update):
        return False
    call = tx.update.call
    inside = list(transformations_in(call.arguments)) if call.traits.transparent else []
    return bool(call.traits.observes) or (bool(inside) and all(map(observes, inside)))


def transformations_in(value: Any) -> Iterator[Any]:
    """Those in a container of arguments."""
    if checks.is_transformation(value):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from transformations_in(item)


def check_not_last(name: str, argument: str, inner: Any) -> None:
    """Raises for a transformation inside one that changes its updates, if they must be applied as they are."""
    if (found := last_of(inner)) is not None:
        raise ValueError(
            f"{name}: {argument} holds {found!r}, whose updates must be applied as they are, but {name} changes them. "
            f"Put {name} inside it."
        )


def check_steps(name: str, argument: str, inner: Any) -> None:
    """Raises for an accumulation inside a transformation that takes every call for a step."""
    if (found := _first("gathers", inner)) is not None:
        raise ValueError(
            f"{name}: {argument} holds {found!r}, whose updates are zero between its steps, but {name} takes every call for a "
            f"step. Put it inside: accumulate({name}({argument}), every_k)."
        )


def _check_spelling(wants: frozenset[str], extra_args: Mapping[str, Any]) -> None:
    for name in extra_args:
        if name not in wants and (hint := checks.did_you_mean(name, wants - extra_args.keys())):
            raise TypeError(f"{checks.where()}: unknown extra argument `{name}`.{hint}")


class EmptyState(NamedTuple):
    """The state of a transformation that keeps none."""


def init_empty_state(params: Any) -> EmptyState:
    """An `init` for transformations without a state."""
    del params
    return EmptyState()


@factory(composite=True, observes=True, transparent=True)
def identity() -> GradientTransformation:
    """Leaves updates as they are: `u`.

    State: `EmptyState()`, 0 bytes.

    Returns:
      The transformation.

    Example:
      >>> import gradtx
      >>> tx = gradtx.identity()
      >>> tx.update(3.0, tx.init(1.0))
      (3.0, EmptyState())
    """

    def update(updates: Any, state: EmptyState, params: Any = None, **extra_args: Any) -> tuple[Any, EmptyState]:
        return updates, state

    return GradientTransformation(init_empty_state, update)


@factory(composite=True, keeps_zero=True)
def set_to_zero() -> GradientTransformation:
    """Sets updates to zero, of any dtype: the parameters stay where they are.

    State: `EmptyState()`, 0 bytes.

    Returns:
      The transformation.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.set_to_zero()
      >>> tx.update(jnp.array([1.0, 2.0]), tx.init(jnp.zeros(2)))[0]
      Array([0., 0.], dtype=float32)
    """

    def update(updates: Any, state: EmptyState, params: Any = None, **extra_args: Any) -> tuple[Any, EmptyState]:
        return jax.tree.map(jnp.zeros_like, updates), state

    return GradientTransformation(init_empty_state, update)


@factory(composite=True)
def stateless(f: Function) -> GradientTransformation:
    """A transformation from a function of whole trees: `f(updates, params)`.

    Args:
      f: function of the updates' tree and the parameters' tree (or None) that gives the new updates' tree.

    State: `EmptyState()`, 0 bytes.

    Returns:
      The transformation.

    Example:
      >>> import jax, gradtx
      >>> halve = gradtx.stateless(lambda updates, params: jax.tree.map(lambda u: u / 2, updates))
      >>> halve.update({"w": 3.0}, halve.init({"w": 1.0}))[0]
      {'w': 1.5}
    """

    def update(updates: Any, state: EmptyState, params: Any = None, **extra_args: Any) -> tuple[Any, EmptyState]:
        return f(updates, params), state

    return GradientTransformation(init_empty_state, update)


@factory(composite=True)
def stateless_with_tree_map(f: Function) -> GradientTransformation:
    """A transformation from a function of single leaves: `f(update, param)`.

    Args:
      f: function of one update and its parameter (None where `update` was called without parameters) that gives the new update.

    State: `EmptyState()`, 0 bytes.

    Returns:
      The transformation.

    Example:
      >>> import gradtx
      >>> pull = gradtx.stateless_with_tree_map(lambda u, p: u + 0.5 * p)
      >>> pull.update({"w": 3.0}, pull.init({"w": 1.0}), {"w": 1.0})[0]
      {'w': 3.5}
    """

    def update(updates: Any, state: EmptyState, params: Any = None, **extra_args: Any) -> tuple[Any, EmptyState]:
        if params is None:
            return jax.tree.map(lambda u: f(u, None), updates), state
        return jax.tree.map(f, updates, params), state

    return GradientTransformation(init_empty_state, update)


def with_extra_args_support(tx: Any) -> GradientTransformation:
    """Makes any `(init, update)` pair, Optax's too, take and ignore extra arguments.

    Args:
      tx: a gradient transformation, of gradtx or of another library.

    Returns:
      `tx` itself if its update takes `**extra_args`, else a pair that drops them.

    Raises:
      TypeError: `tx` is no transformation.

    Example:
      >>> import gradtx
      >>> plain = (lambda params: (), lambda updates, state, params=None: (updates, state))
      >>> tx = gradtx.with_extra_args_support(gradtx.GradientTransformation(*plain))
      >>> tx.update(1.0, (), None, value=2.0)
      (1.0, ())
    """
    checks.check_argument("with_extra_args_support", "tx", tx, checks.TRANSFORMATION)
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(tx.update).parameters.values()):
        return tx if isinstance(tx, GradientTransformation) else GradientTransformation(tx.init, tx.update)
    takes = inspect.signature(tx.update).parameters

    @functools.wraps(tx.update)
    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        return tx.update(updates, state, params, **{k: v for k, v in extra_args.items() if k in takes})

    return GradientTransformation(tx.init, update)


def member(tx: Any) -> GradientTransformation:
    """A transformation as those that hold it run it: its update takes any extra arguments and keeps the dtypes of its state.

    Optax's moments in half precision would become float32 from the float32 updates inside a chain.
    """
    tx = with_extra_args_support(tx)
    if isinstance(tx.update, Update):
        return tx

    @functools.wraps(tx.update)
    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        return _keeping_dtypes(tx.update(updates, state, params, **extra_args), state)

    return GradientTransformation(tx.init, update)


def _keeping_dtypes(result: Any, state: Any) -> Any:
    """What an update returned, with its state's leaves in the dtypes of those in `state`."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"{checks.where()}: update returned {checks.kind(result)}, expected a pair (updates, state).")
    return result[0], leaves.in_dtypes_of(result[1], state)


def to_optax(tx: Any) -> Any:
    """Wraps a transformation in Optax's class, so that `optax.chain`, `optax.masked`, ... hand it extra arguments.

    Optax's combinators accept any pair but drop extra arguments unless the pair is Optax's own class.

    Args:
      tx: a gradient transformation.

    Returns:
      `optax.GradientTransformationExtraArgs(tx.init, tx.update)`.

    Raises:
      ImportError: Optax is not installed.

    Example:
      >>> import gradtx, optax
      >>> tx = optax.chain(optax.clip(1.0), gradtx.to_optax(gradtx.adam(1e-3)))
    """
    import optax

    tx = with_extra_args_support(tx)
    return optax.GradientTransformationExtraArgs(tx.init, tx.update)
