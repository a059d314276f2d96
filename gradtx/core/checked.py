"""Plain functions whose arguments are checked against the domains in their annotations."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from gradtx.core import checks
from gradtx.core.domains import check_argument, domain_of
from gradtx.core.value import check_call, hints_of, plain

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A plain function that checks its arguments against the domains in their annotations.

    Refusals raised below name it.
    """
    name, signature = function.__name__, plain(inspect.signature(function))
    domains = {key: domain for key, hint in hints_of(function).items() if (domain := domain_of(hint)) is not None}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        check_call(name, signature, args, kwargs)
        bound = signature.bind(*args, **kwargs)
        for argument, value in bound.arguments.items():
            if argument in domains and value is not signature.parameters[argument].default:
                check_argument(name, argument, value, domains[argument])
        with checks.calling(name):
            return function(*args, **kwargs)

    call.__signature__ = signature  # type: ignore[attr-defined]
    return call
