"""Values that remember the call that made them: `repr`, `==`, `hash`, `pickle` and, with `config.py`, JSON."""

import functools
import inspect
import pathlib
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from gradtx.core import checks
from gradtx.core.traits import NO_TRAITS, Trait, Traits

P = ParamSpec("P")
R = TypeVar("R")

TORCH_NAMES = {"lr": "learning_rate", "betas": "b1", "wd": "weight_decay", "alpha": "decay", "rho": "decay"}
"""What PyTorch and its users call some arguments, for hints."""

factories: dict[str, Callable[..., Any]] = {}
"""Every declared factory by its name: `adam` for gradtx's own, `package.module:name` for a user's."""


records: dict[str, type] = {}
"""Every type of named tuples that may be an argument, by its name, for configs."""


def record(cls: type[R]) -> type[R]:
    """Declares a named tuple whose instances are arguments of factories."""
    records[cls.__name__] = cls
    return cls


class Call:
    """A factory and the arguments it was called with, defaults filled in."""

    __slots__ = ("_hash", "_key", "arguments", "factory", "show", "traits")

    def __init__(
        self,
        factory: Callable[..., Any],
        arguments: dict[str, Any],
        show: Callable[[dict[str, Any]], str] | None = None,
        traits: Traits = NO_TRAITS,
    ):
        self.factory = factory
        self.traits = traits
        self.arguments = arguments
        self.show = show
        try:
            self._key: Any = _freeze(arguments)
            self._hash = hash((factory, self._key))
        except TypeError:  # an argument without a hash (an array, a tracer): equal to itself alone
            self._key = None
            self._hash = id(self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Call) or self._key is None:
            return False
        return self.factory is other.factory and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        if self.show is not None:
            return self.show(self.arguments)
        parts = []
        for parameter in inspect.signature(self.factory).parameters.values():
            value = self.arguments[parameter.name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                parts += [show(item) for item in value]
            elif parameter.kind is parameter.VAR_KEYWORD:
                parts += [f"{key}={show(item)}" for key, item in value.items()]
            elif not same(value, parameter.default):
                parts.append(f"{parameter.name}={show(value)}")
        return f"{self.factory.__name__}({', '.join(parts)})"

    def make(self) -> Any:
        """Calls the factory again."""
        return call_with(self.factory, self.arguments)


class Declared:
    """Mixin: compares, hashes, prints and pickles by `self.call`."""

    call: Call

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.call == typing.cast(Declared, other).call

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.call))

    def __repr__(self) -> str:
        return repr(self.call)

    def __reduce__(self) -> Any:
        return call_with, (self.call.factory, self.call.arguments)


class Function(Declared):
    """A function made by a factory, such as a schedule: prints and compares as the call that made it."""

    def __init__(self, function: Callable[..., Any], call: Call):
        self.call = call
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function."""
        return self._function(*args, **kwargs)


@typing.overload
def factory(function: Callable[P, R], /) -> Callable[P, R]: ...
@typing.overload
def factory(
    *,
    composite: bool = False,
    show: Callable[[dict[str, Any]], str] | None = None,
    name: str | None = None,
    last: Trait = False,
    observes: Trait = False,
    keeps_zero: Trait = False,
    transparent: Trait = False,
    gathers: Trait = False,
    measures: Trait = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def factory(
    function: Any = None,
    /,
    *,
    composite: bool = False,
    show: Callable[[dict[str, Any]], str] | None = None,
    name: str | None = None,
    last: Trait = False,
    observes: Trait = False,
    keeps_zero: Trait = False,
    transparent: Trait = False,
    gathers: Trait = False,
    measures: Trait = False,
) -> Any:
    """Declares a function that makes a transformation, a schedule or another function as a *factory*.

    What it makes is then a value: it prints as the call that made it, equal calls give equal and equally
    hashed values (so that two equal optimizers share one compiled step), it pickles, and `to_config` turns it
    into a dict. Arguments annotated with a domain of `gradtx.core.checks` are checked: `Number`, `NonNegative`, `Positive`,
    `Decay` (in [0, 1)), `Fraction` (in [0, 1]), `Rate` (a number >= 0 or a schedule), `PositiveInt`, `Flag`, `FloatDType`,
    `SecondMomentDType`, `Mask`, `Transformation`, `Function`. Annotations that only type checkers can resolve have no domain. A
    transformation's `init` and `update` also get gradtx's checks of the trees that they are called with;
    keyword-only parameters of `update` are the extra arguments that it takes. Where an argument cannot be hashed
    (an array, a tracer), a value is equal to itself alone.

    Args:
      function: the factory, where the decorator is used without parentheses. It returns a pair `(init, update)`, such as a
        `GradientTransformation`, or a function.
      composite: for factories whose transformation only hands leaves on to others (`chain`, `masked`): its
        own leaves are not checked.
      name: what errors and configs call it, if not the function's name.
      last, observes, keeps_zero, transparent, gathers, measures: what its transformations are, as `gradtx.core.traits.Traits` says;
        each may be a function from the arguments to whether that is so.
      show: makes the text for `repr` from the arguments, if it is not `name(argument=value, ...)`.

    Returns:
      A decorator, or the declared factory.

    Raises:
      TypeError, ValueError: when the factory is called with wrong arguments, or returns something else.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> from gradtx.core.checks import Positive
      >>> @gradtx.factory
      ... def scale_by_best(target: Positive = 1.0):  # a state, and an extra argument
      ...     def init(params):
      ...         return {"best": jnp.asarray(jnp.inf)}
      ...     def update(updates, state, params=None, *, value, **extra_args):
      ...         best = jnp.minimum(state["best"], value)
      ...         return jax.tree.map(lambda u: u * best / target, updates), {"best": best}
      ...     return gradtx.GradientTransformation(init, update)
      >>> tx = gradtx.chain(scale_by_best(2.0), gradtx.scale(-1.0))
      >>> updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=4.0)
      >>> tx, updates
      (chain(scale_by_best(target=2.0), scale(step_size=-1.0)), Array([-2., -2.], dtype=float32))
    """

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        called = name or function.__name__
        signature = inspect.signature(function)
        domains = _domains(function)
        traits = Traits(last, observes, keeps_zero, transparent, gathers, measures)

        @functools.wraps(function)
        def make(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = _bind(called, signature, args, kwargs)
            arguments = {argument: _copied(value) for argument, value in bound.arguments.items()}
            for argument, domain in domains.items():
                if argument in arguments:
                    _check(called, signature.parameters[argument], arguments[argument], domain)
                    arguments[argument] = domain.canonical(arguments[argument])
            bound.arguments.update(arguments)
            value = function(*bound.args, **bound.kwargs)
            call = Call(make, arguments, show, traits.of(arguments))
            return typing.cast(R, _declared(called, value, call, composite))

        make.__name__ = called
        make.__signature__ = _plain(signature)  # type: ignore[attr-defined]
        make.init = make.update = _not_called(called)  # type: ignore[attr-defined]
        make.__gradtx_factory__ = True  # type: ignore[attr-defined]
        factories[factory_name(make)] = make
        return make

    return declare if function is None else declare(function)


def _declared(name: str, value: Any, call: Call, composite: bool) -> Any:
    """What a factory made, as a value."""
    if checks.is_transformation(value) or _is_pair(value):
        from gradtx.core.base import GradientTransformation  # base.py needs this module first

        return GradientTransformation(*value)._declared(call, composite)
    if not callable(value):
        hint = " Is a `return` missing?" if value is None else ""
        raise TypeError(f"{name}: the factory returned {checks.kind(value)}, expected a transformation or a function.{hint}")
    return Function(value, call)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(callable, value))


def _not_called(name: str) -> Callable[..., Any]:
    """Stands for `init` and `update` of a factory that somebody forgot to call."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{name} is a factory, not a transformation: call it first, {name}(...).")

    return refuse


def factory_name(made: Callable[..., Any]) -> str:
    """The name under which a factory is known: bare for gradtx's own, `module:name` for others.

    In a script run as `__main__` the module is the one that an import of its file would make.
    """
    module = made.__module__
    if module.partition(".")[0] == "gradtx":
        return made.__name__
    if module == "__main__" and getattr(sys.modules[module], "__file__", None):
        module = pathlib.Path(str(sys.modules[module].__file__)).stem
    return f"{module}:{made.__qualname__}"


def call_with(made: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Calls a factory with arguments by name, those of `*args` and `**kwargs` parameters unpacked."""
    signature = inspect.signature(made)
    bound = inspect.BoundArguments(signature, typing.cast(Any, dict(arguments)))
    unknown = {name: value for name, value in arguments.items() if name not in signature.parameters}
    return made(*bound.args, **bound.kwargs, **unknown)


def show(value: Any) -> str:
    """`repr`, with dtypes as their names and functions as theirs, without addresses."""
    if is_dtype(value):
        return repr(np.dtype(value).name)
    if checks.is_factory(value) or inspect.isroutine(value):
        return getattr(value, "__qualname__", repr(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{show(k)}: {show(v)}" for k, v in value.items()) + "}"
    if type(value) in (list, tuple):
        items = ", ".join(show(v) for v in value)
        return f"[{items}]" if type(value) is list else f"({items}{',' if len(value) == 1 else ''})"
    if type(value) in (set, frozenset) and value:  # in an order that does not hang on the process's seed of hashes
        items = "{" + ", ".join(sorted(map(show, value))) + "}"
        return items if type(value) is set else f"frozenset({items})"
    return repr(value)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A plain function that checks its arguments against the domains in their annotations, and is named in errors raised below."""
    name, signature = function.__name__, inspect.signature(function)
    domains = _domains(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = _bind(name, signature, args, kwargs)
        for argument, domain in domains.items():
            _check(name, signature.parameters[argument], bound.arguments[argument], domain)
        with checks.calling(name):
            return function(*args, **kwargs)

    call.__signature__ = _plain(signature)  # type: ignore[attr-defined]
    return call


def is_dtype(value: Any) -> bool:
    """Whether `value` is a dtype object (`jnp.bfloat16`, `np.float32`, `np.dtype('float32')`), not a name of one."""
    if isinstance(value, np.dtype):
        return True
    return (isinstance(getattr(value, "dtype", None), np.dtype) and not hasattr(value, "shape")) or (
        isinstance(value, type) and issubclass(value, np.generic)
    )


def _bind(name: str, signature: inspect.Signature, args: Any, kwargs: Any) -> inspect.BoundArguments:
    call = f"the call is {name}{_plain(signature)}."
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for keyword in kwargs:
        if keyword not in signature.parameters and not takes_any:
            hint = checks.did_you_mean(TORCH_NAMES.get(keyword) or keyword, signature.parameters)
            raise TypeError(f"{name}: got an unexpected keyword argument {keyword!r}; {call}{hint}")
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}: {error}; {call}") from None
    bound.apply_defaults()
    return bound


def _copied(value: Any) -> Any:
    """Plain containers anew, so that a value does not change when its caller's dict or list does."""
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return type(value)(map(_copied, value)) if type(value) in (list, tuple, set) else value


def _plain(signature: inspect.Signature) -> inspect.Signature:
    """The signature without annotations."""
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=signature.empty)


def _domains(function: Callable[..., Any]) -> dict[str, checks.Domain]:
    """The domains in a function's annotations, by argument."""
    names, found = getattr(inspect.unwrap(function), "__globals__", {}), {}
    for argument, annotation in inspect.get_annotations(function).items():
        alone = types.SimpleNamespace(__annotations__={argument: annotation})
        try:
            hint = typing.get_type_hints(alone, globalns=names, include_extras=True)[argument]
        except NameError:  # what stands under `if TYPE_CHECKING:` only, so that the type checker alone sees it
            continue
        if (domain := checks.domain_of(hint)) is not None:
            found[argument] = domain
    return found


def _check(name: str, parameter: inspect.Parameter, value: Any, domain: checks.Domain) -> None:
    if parameter.kind is parameter.VAR_POSITIONAL:
        for i, item in enumerate(value):
            checks.check_argument(name, f"argument {i}", item, domain)
    elif value is not parameter.default:
        checks.check_argument(name, parameter.name, value, domain)


def arrays_in(value: Any) -> Iterator[jax.Array]:
    """The arrays that an argument holds, also in containers and in the values that other factories made."""
    if isinstance(value, jax.Array):
        yield value
    elif isinstance(value, Declared):
        yield from arrays_in(value.call.arguments)
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from arrays_in(item)
    elif not jax.tree_util.all_leaves([value]):
        yield from arrays_in(jax.tree.leaves(value))


def same(value: Any, default: Any) -> bool:
    """Whether an argument has its default value."""
    if value is default:
        return True
    try:
        return _freeze(value) == _freeze(default)
    except TypeError:
        return False


def _freeze(value: Any) -> Any:
    """A hashable stand-in that is equal for equal values of one type; TypeError where there is none."""
    if is_dtype(value):
        return "dtype", np.dtype(value)
    if isinstance(value, np.generic):
        return value.dtype, value.item()
    if isinstance(value, (jax.Array, np.ndarray)):
        raise TypeError("arrays have no hash")
    if isinstance(value, Mapping):  # in order, which matters: the first pattern of `by_path` that matches decides
        return type(value), tuple((_freeze(k), _freeze(v)) for k, v in value.items())
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(map(_freeze, value))
    if isinstance(value, tuple) and (call := _common_call(value)) is not None:
        return type(value), call
    if isinstance(value, (list, tuple)):
        return type(value), tuple(_freeze(v) for v in value)
    hash(value)
    return type(value), value


def _common_call(parts: tuple[Any, ...]) -> Call | None:
    """The one call that made all parts, as it made a pair's; compared part by part, nested pairs would cost 2 to their depth."""
    calls = [part.call if isinstance(part, Declared) else None for part in parts]
    return calls[0] if calls and all(call is calls[0] for call in calls) else None
