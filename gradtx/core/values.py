"""The bridge from factories written as functions to classes of values; it goes when the last of them is a class."""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

import jax

from gradtx.core import checks
from gradtx.core.transformation import GradientTransformation, Part, Preset, Transformation, as_transformation
from gradtx.core.value import Value, check_call, hints_of, plain

P = ParamSpec("P")
R = TypeVar("R")


class FunctionMade(Preset):
    """A transformation whose class was made from a function."""

    _made: typing.ClassVar[Any] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stands_for  # noqa: B018

    def chain(self) -> Any:
        """What the function makes."""
        made = self._made(**self.arguments)
        if checks.is_transformation(made):
            return made
        if not (isinstance(made, tuple) and len(made) == 2 and all(map(callable, made))):
            hint = " Is a `return` missing?" if made is None else ""
            raise TypeError(f"{type(self).__name__}: the factory returned {checks.kind(made)}, expected a transformation.{hint}")
        return GradientTransformation(*made)

    @property
    def _pair(self) -> bool:
        return isinstance(self.stands_for, GradientTransformation)

    def init(self, params: Any) -> Any:
        made = self.stands_for
        return made.init_fn(params) if isinstance(made, GradientTransformation) else made.unchecked_init(params)

    @property
    def inside(self) -> tuple[Transformation, ...]:
        if not self._pair:
            return (self.stands_for,)
        return tuple(map(as_transformation, _transformations_in(self.arguments)))

    def parts(self, params: Any, state: Any) -> tuple[Part, ...]:
        if not self._pair:
            return super().parts(params, state)
        return tuple(Part(tx, params, tx.init(params)) for tx in self.inside)

    def touches(self, params: Any) -> list[bool]:
        from gradtx.compose.labels import spread_mask

        mask = self.arguments.get("mask")
        if not self._pair:
            return super().touches(params)
        if mask is None or self.inside:
            return [not self.inside] * len(jax.tree.leaves(params))
        return spread_mask("mask", mask, params)


def _transformations_in(value: Any) -> Iterator[Any]:
    if checks.is_transformation(value):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _transformations_in(item)


class FunctionValue(Value):
    """A function made by a function, such as a schedule."""

    _made: typing.ClassVar[Any] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.function):
            raise TypeError(f"{type(self).__name__}: the factory returned {checks.kind(self.function)}, expected a function.")

    @functools.cached_property
    def function(self) -> Callable[..., Any]:
        return self._made(**self.arguments)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


@typing.overload
def factory(function: Callable[P, R], /) -> Callable[P, R]: ...
@typing.overload
def factory(*, composite: bool = False, name: str | None = None, **traits: Any) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def factory(function: Any = None, /, *, composite: bool = False, name: str | None = None, **traits: Any) -> Any:
    """Makes a class of values of a function that makes a transformation or a function."""

    def declare(function: Any) -> Any:
        base = FunctionMade if "Transformation" in str(inspect.signature(function).return_annotation) else FunctionValue
        names: dict[str, Any] = {
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "__qualname__": function.__qualname__,
        }
        names["__annotations__"] = {}
        for p in inspect.signature(function).parameters.values():
            names["__annotations__"][p.name] = p.annotation
            names[p.name] = dataclasses.field(
                default=dataclasses.MISSING if p.default is p.empty else p.default, kw_only=p.kind is p.KEYWORD_ONLY
            )
        names["_made"] = staticmethod(function)
        if composite:
            names["any_leaves"] = True
        for trait, value in traits.items():
            trait = "final" if trait == "last" else trait
            names[trait] = property(lambda self, value=value: value(self.arguments)) if callable(value) else value
        cls = types.new_class(name or function.__name__, (base,), {}, lambda namespace: namespace.update(names))
        return cls

    return declare if function is None else declare(function)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A plain function that checks its arguments against the domains in their annotations, and is named in the refusals below."""
    name, signature = function.__name__, inspect.signature(function)
    domains = {key: domain for key, hint in hints_of(function).items() if (domain := checks.domain_of(hint)) is not None}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        check_call(name, signature, args, kwargs)
        bound = signature.bind(*args, **kwargs)
        for argument, value in bound.arguments.items():
            if argument in domains and value is not signature.parameters[argument].default:
                checks.check_argument(name, argument, value, domains[argument])
        with checks.calling(name):
            return function(*args, **kwargs)

    call.__signature__ = plain(signature)  # type: ignore[attr-defined]
    return call
