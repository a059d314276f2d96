"""Values: frozen objects whose fields are the arguments of the call that makes them."""

import dataclasses
import functools
import inspect
import itertools
import pathlib
import sys
import typing
from collections.abc import Mapping

import jax
import numpy as np

from gradtx.core import checks, domains

TORCH_NAMES = {
    "alpha": "decay",
    "beta1": "b1",
    "beta2": "b2",
    "betas": "b1",
    "epsilon": "eps",
    "lr": "learning_rate",
    "rho": "decay",
    "wd": "weight_decay",
}
"""What PyTorch and its users call some arguments, for hints."""

registry: dict[str, "type[Value]"] = {}
"""Every class of values by its name: `adam` for gradtx's own, `module:name` for a user's."""

records: dict[str, type] = {}
"""Every type of named tuples that may be an argument, by its name, for configs."""


def record(cls: type) -> typing.Any:
    """Declares a named tuple whose instances are arguments of values."""
    records[cls.__name__] = cls
    return cls


class ValueType(type):
    """The class of the classes of values: errors of wrong calls show the right one."""

    if not typing.TYPE_CHECKING:  # type checkers read the fields instead

        def __call__(cls, *args, **kwargs):
            """Makes a value."""
            try:
                return super().__call__(*args, **kwargs)
            except TypeError:
                check_call(cls.__name__, cls.__signature__, args, kwargs)
                raise

    @property
    def __signature__(cls) -> inspect.Signature:
        if cls.__init__ is not Value.__init__:
            return plain(inspect.signature(functools.partial(cls.__init__, None)))
        parameters = []
        for field in _fields(cls):
            default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            kind = inspect.Parameter.KEYWORD_ONLY if field.kw_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
            parameters.append(inspect.Parameter(field.name, kind, default=default))
        return inspect.Signature(sorted(parameters, key=lambda p: p.kind))


def plain(signature: inspect.Signature) -> inspect.Signature:
    """The signature without annotations."""
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=signature.empty)


def check_call(name: str, signature: inspect.Signature, args: tuple[typing.Any, ...], kwargs: dict[str, typing.Any]) -> None:
    """Raises a `TypeError` that shows the right call, unless the arguments fit."""
    call = f"the call is {name}{plain(signature)}."
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for keyword in kwargs:
        if keyword not in signature.parameters and not takes_any:
            hint = checks.did_you_mean(TORCH_NAMES.get(keyword) or keyword, signature.parameters)
            raise TypeError(f"{name}: got an unexpected keyword argument {keyword!r}; {call}{hint}") from None
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}: {error}; {call}") from None


@typing.dataclass_transform(frozen_default=True)
class Value(metaclass=ValueType):
    """A frozen dataclass made by subclassing: its annotated fields are its arguments.

    From the fields come `repr` (the call that makes it), `==` and `hash` (equal calls give equal
    values, so that two equal optimizers share one compiled step), `pickle`, `dataclasses.replace`
    and the config. A field whose annotation has a domain (`b1: Decay`) is checked when a value is
    made. A field may hold an array or a tracer; such a value is equal to itself alone.

    Class keywords set traits: `class monitor(Transformation, observes=True)`.

    Example:
      >>> from gradtx.core.domains import Positive
      >>> from gradtx.core.value import Value
      >>> class circle(Value):
      ...     radius: Positive = 1.0
      >>> circle(2.0), circle(2.0) == circle(radius=2.0), circle()
      (circle(radius=2.0), True, circle())
    """

    _domains: typing.ClassVar[dict[str, domains.Domain]] = {}
    _positional: typing.ClassVar[tuple[str, ...]] = ()
    _defaults: typing.ClassVar[dict[str, typing.Any]] = {}
    _names: typing.ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **traits: object):
        super().__init_subclass__()
        for name, trait in traits.items():
            if not hasattr(cls, name):
                raise TypeError(f"{cls.__name__}: unknown trait {name}.{checks.did_you_mean(name, dir(cls))}")
            setattr(cls, name, trait)
        # One `__init__` for all classes: dataclasses would compile one for each, an eighth of the
        # time of `import gradtx`.
        fields = _fields(dataclasses.dataclass(init=False, repr=False, eq=False)(typing.cast(type, cls)))
        own = {name: domains.domain_of(hint) for name, hint in _own_hints(cls).items()}
        cls._domains = {name: domain for name, domain in {**cls._domains, **own}.items() if domain is not None}
        cls._defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
        cls._names = frozenset(field.name for field in fields)
        cls._positional = tuple(field.name for field in fields if not field.kw_only)
        for before, after in itertools.pairwise(cls._positional):
            if before in cls._defaults and after not in cls._defaults:
                raise TypeError(f"{cls.__name__}: the field {after} without a default comes after {before}, which has one.")
        registry[name_of(cls)] = cls

    if not typing.TYPE_CHECKING:  # type checkers read the fields instead

        def __init__(self, *args, **kwargs):
            arguments = {**self._defaults, **dict(zip(self._positional, args, strict=False)), **kwargs}
            misplaced = len(args) > len(self._positional) or not kwargs.keys().isdisjoint(self._positional[: len(args)])
            if misplaced or arguments.keys() != self._names:
                type(self).__signature__.bind(*args, **kwargs)  # raises
            self.__dict__.update(arguments)
            self.__post_init__()

    def __setattr__(self, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(
            f"{self.called} is frozen: {name} cannot be set; dataclasses.replace makes a changed copy."
        )

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"{self.called} is frozen: {name} cannot be deleted.")

    def __post_init__(self) -> None:
        for field in _fields(self):
            given = getattr(self, field.name)
            if given is field.default:
                continue
            value = _copied(given)
            domain = self._domains.get(field.name)
            if domain is not None:
                domains.check_argument(self.called, field.name, value, domain)
                value = domain.canonical(value)
            if value is not given:
                object.__setattr__(self, field.name, value)

    @property
    def called(self) -> str:
        """What errors call it."""
        return type(self).__name__

    @property
    def arguments(self) -> dict[str, typing.Any]:
        """The fields by name: what the value was made with."""
        return {field.name: getattr(self, field.name) for field in _fields(self)}

    @classmethod
    def made_with(cls, arguments: Mapping[str, typing.Any]) -> typing.Self:
        """The value with these arguments, as `arguments` gives them."""
        return cls(**arguments)

    def shown(self) -> list[str]:
        """The arguments in `repr`: those that are not their defaults."""
        fields = _fields(self)
        return [f"{f.name}={show(getattr(self, f.name))}" for f in fields if not same(getattr(self, f.name), f.default)]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.shown())})"

    @functools.cached_property
    def _key(self) -> typing.Any:
        """What is compared; None where an argument has no hash."""
        try:
            key = frozen(self.arguments)
            hash(key)
        except TypeError:
            return None
        return key

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return type(self) is type(other) and self._key is not None and self._key == typing.cast(Value, other)._key

    def __hash__(self) -> int:
        return id(self) if self._key is None else hash((type(self), self._key))

    def __reduce__(self) -> typing.Any:
        return _remade, (type(self), self.arguments)

    @functools.cached_property
    def is_data(self) -> bool:
        """Whether no argument, however nested, is an array, a tracer or a plain function."""
        return self._key is not None and all(map(_is_data, self.arguments.values()))


def _fields(value: typing.Any) -> tuple[dataclasses.Field[typing.Any], ...]:
    """The fields of a value or of its class."""
    return dataclasses.fields(value)


def _remade(cls: type[Value], arguments: dict[str, typing.Any]) -> Value:
    return cls.made_with(arguments)


def hints_of(maker: typing.Any) -> dict[str, typing.Any]:
    """The annotations of a class of values, or of a function, without those for type checkers."""
    classes = reversed(maker.__mro__) if isinstance(maker, type) else [maker]
    return {name: hint for owner in classes for name, hint in _own_hints(owner).items()}


def _own_hints(owner: typing.Any) -> dict[str, typing.Any]:
    module = vars(sys.modules.get(owner.__module__, typing))
    hints = {}
    for name, hint in inspect.get_annotations(owner).items():
        if isinstance(hint, str):
            try:
                hint = eval(hint, dict(module))
            except NameError:
                continue
        hints[name] = hint
    return hints


def call_with(maker: typing.Callable[..., typing.Any], arguments: Mapping[str, typing.Any]) -> typing.Any:
    """Calls a function or a class with arguments by name, `*args` and `**kwargs` unpacked."""
    if isinstance(maker, ValueType):
        return maker.made_with(arguments)  # type: ignore[attr-defined]
    signature = inspect.signature(maker)
    bound = inspect.BoundArguments(signature, typing.cast(typing.Any, dict(arguments)))
    unknown = {name: value for name, value in arguments.items() if name not in signature.parameters}
    return maker(*bound.args, **bound.kwargs, **unknown)


def name_of(cls: type) -> str:
    """The name under which a class is known: bare for gradtx's own, `module:name` for others.

    In a script run as `__main__` the module is the one that an import of its file would make.
    """
    module = cls.__module__
    if module.partition(".")[0] == "gradtx":
        return cls.__name__
    if module == "__main__" and getattr(sys.modules[module], "__file__", None):
        module = pathlib.Path(str(sys.modules[module].__file__)).stem
    return f"{module}:{cls.__qualname__}"


def show(value: typing.Any) -> str:
    """`repr`, with dtypes as their names and functions as theirs, without addresses."""
    if is_dtype(value):
        return repr(np.dtype(value).name)
    if isinstance(value, type) or inspect.isroutine(value):
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


def is_dtype(value: typing.Any) -> bool:
    """Whether `value` is a dtype object (`jnp.bfloat16`, `np.dtype('float32')`), not a name."""
    if isinstance(value, np.dtype):
        return True
    return (isinstance(getattr(value, "dtype", None), np.dtype) and not hasattr(value, "shape")) or (
        isinstance(value, type) and issubclass(value, np.generic)
    )


def _copied(value: typing.Any) -> typing.Any:
    """Plain containers anew, so that a value does not change with its caller's dict or list."""
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return type(value)(map(_copied, value)) if type(value) in (list, tuple, set) else value


def _is_data(value: typing.Any) -> bool:
    if isinstance(value, Value):
        return value.is_data
    if isinstance(value, Mapping):
        return all(map(_is_data, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_data, value))
    return not callable(value) or isinstance(value, type) or is_dtype(value)


def same(value: typing.Any, default: typing.Any) -> bool:
    """Whether an argument has its default value."""
    if value is default:
        return True
    try:
        return frozen(value) == frozen(default)
    except TypeError:
        return False


def frozen(value: typing.Any) -> typing.Any:
    """A hashable stand-in, equal for equal values of one type; `TypeError` without one."""
    if isinstance(value, Value):
        if value._key is None:
            raise TypeError("arrays have no hash")
        return value
    if is_dtype(value):
        return "dtype", np.dtype(value)
    if isinstance(value, np.generic):
        return value.dtype, value.item()
    if isinstance(value, (jax.Array, np.ndarray)):
        raise TypeError("arrays have no hash")
    if isinstance(value, Mapping):  # in order, which matters: the first pattern of `by_path` that matches decides
        return type(value), tuple((frozen(k), frozen(v)) for k, v in value.items())
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(map(frozen, value))
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(frozen, value))
    hash(value)
    return type(value), value


def arrays_in(value: typing.Any) -> typing.Iterator[jax.Array]:
    """The arrays that an argument holds, also in containers and in values."""
    if isinstance(value, jax.Array):
        yield value
    elif isinstance(value, Value):
        if value._key is None:
            yield from arrays_in(value.arguments)
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from arrays_in(item)
    elif not jax.tree_util.all_leaves([value]):
        yield from arrays_in(jax.tree.leaves(value))
