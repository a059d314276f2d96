"""What a case row is made of: its class, and what many rows share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Case(NamedTuple):
    """A factory's row.

    Attributes:
      make: makes a typical transformation.
      bad: (keyword arguments, text of the error) pairs, each outside the factory's domain.
      extra: extra arguments that its update needs, or a function from the parameters to them.
      exceptions: promises that it does not keep, with the reason.
    """

    make: Callable[[], Any]
    bad: tuple[tuple[dict[str, Any], str], ...] = ()
    extra: dict[str, Any] | Callable[[Any], dict[str, Any]] = {}  # noqa: RUF012
    exceptions: dict[str, str] = {}  # noqa: RUF012

    @property
    def rounding(self) -> float:
        """By how much two ways to compute the same may differ."""
        return 1e-5 if "rounding" in self.exceptions else 1e-7

    def extra_for(self, params: Any) -> dict[str, Any]:
        """The extra arguments at these parameters."""
        return self.extra(params) if callable(self.extra) else self.extra


RATE = ({"learning_rate": -1.0}, r"learning_rate is -1.0 \(float\), expected a finite number >= 0, or a schedule")
B1 = ({"b1": 1.5}, r"b1 is 1.5 \(float\), expected a number in \[0, 1\)")
B2 = ({"b2": 1.0}, r"b2 is 1.0 \(float\), expected a number in \[0, 1\)")
B3 = ({"b3": 1.5}, r"b3 is 1.5 \(float\), expected a number in \[0, 1\)")
RHO = ({"rho": 1.0}, r"rho is 1.0 \(float\), expected a number in \[0, 1\)")
ALPHA = ({"alpha": -1.0}, r"alpha is -1.0 \(float\), expected a finite number >= 0, or a schedule")
DOG = (
    {"init_step": ("distanse", 1.0)},
    r"init_step\[0\] is 'distanse' \(str\), expected one of 'distance', 'learning_rate', 'heuristic'\. Did you mean 'distance'\?",
)
VARIANT = ({"variant": "sp"}, r"variant is 'sp' \(str\), expected one of 'sps', 'sps\+'")
EPS_ROOT = ({"eps_root": -1.0}, r"eps_root is -1.0 \(float\), expected a finite number >= 0")
EPS = ({"eps": -1e-8}, r"eps is -1e-08 \(float\), expected a finite number >= 0")
INITIAL = ({"initial_accumulator_value": -1}, r"initial_accumulator_value is -1 \(int\), expected a finite number >= 0")
MU = ({"mu_dtype": "int32"}, r"mu_dtype is 'int32' \(str\), expected a floating dtype")
NU = (
    {"nu_dtype": "float8_e4m3fn"},
    r"nu_dtype is 'float8_e4m3fn' \(str\), expected a floating dtype with the range of float32: 'float32', 'float64' or 'bfloat16', or None",
)
THRESHOLD = ({"threshold": 3.0}, r"threshold is 3.0 \(float\), expected a finite number >= 4")
DECAY = ({"weight_decay": -0.1}, r"weight_decay is -0.1 \(float\), expected a finite number >= 0, or a schedule")
MASK = ({"mask": "kernel"}, r"mask is 'kernel' \(str\), expected a tree of booleans")


def with_rate(*bad: tuple[dict[str, Any], str]) -> tuple[tuple[dict[str, Any], str], ...]:
    """The rate's row, and others with a valid rate beside them."""
    return (RATE, *(({"learning_rate": 0.1, **arguments}, text) for arguments, text in bad))


def even(step: Any) -> Any:
    return step % 2 == 0


def same(updates: Any, params: Any) -> Any:
    return updates


def same_updates(updates: Any) -> Any:
    return updates


GRAD_FN = {"grad_fn": lambda params: params}  # the gradient of half the sum of squares


def half_squares(params: Any) -> Any:
    return sum((jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(params)), start=jnp.zeros(())) / 2


def objective(params: Any) -> dict[str, Any]:
    """Half the sum of squares for a line search: its gradient is `params`."""
    return {"value": half_squares(params), "grad": params, "value_fn": half_squares}


BETA = ({"beta": 1.0}, r"beta is 1.0 \(float\), expected a number in \[0, 1\)")
STEPS = ({"ns_steps": 0}, r"ns_steps is 0 \(int\), expected a whole number >= 1")
PRECONDITIONING = (
    {"preconditioning": "aoll"},
    r"preconditioning is 'aoll' \(str\), expected one of 'schatten', .* Did you mean 'aol'\?",
)
SLOPES = {"rounding": "Newton-Schulz multiplies rounding errors by the slopes of its steps, about 500 in all"}
SEARCHES = {"compilations": "an eager search loops over the caller's `value_fn`, of which each call may bring another"}
MEMORY = ({"memory_size": 0}, r"memory_size is 0 \(int\), expected a whole number >= 1")
WHOLE = {"sharding": "its matrix belongs to all elements of a vector together, and lies whole on every device"}
SIZE = ({"max_size": 0}, r"max_size is 0 \(int\), expected a whole number >= 1")
