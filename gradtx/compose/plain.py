"""The simplest transformations: nothing, zero, and a function of the updates."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from gradtx.core import domains
from gradtx.core.domains import Function
from gradtx.core.pairs import GradientTransformation, Inner, as_transformation
from gradtx.core.transformation import EmptyState, Transformation
from gradtx.core.types import ExtraArg, Params, Updates

if TYPE_CHECKING:
    import optax


class identity(Transformation, observes=True, keeps_zero=True, transparent=True, any_leaves=True):
    """Leaves updates as they are: `u`.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.identity()
      >>> tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
      (Array([1., 1.], dtype=float32), EmptyState())
    """

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        """The updates themselves."""
        return updates, state


class set_to_zero(Transformation, keeps_zero=True, any_leaves=True):
    """Sets updates to zero: the parameters stay where they are.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.set_to_zero()
      >>> tx.update(jnp.array([1.0, 2.0]), tx.init(jnp.zeros(2)))[0]
      Array([0., 0.], dtype=float32)
    """

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        """Zeros like the updates."""
        return jax.tree.map(jnp.zeros_like, updates), state


class stateless(Transformation, any_leaves=True):
    """A transformation from a function of whole trees: `f(updates, params)`.

    Args:
      f: function of the updates' tree and the parameters' tree (or None) that gives the new
        updates' tree.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax, gradtx
      >>> halve = gradtx.stateless(lambda updates, params: jax.tree.map(lambda u: u / 2, updates))
      >>> float(halve.update({"w": 3.0}, halve.init({"w": 1.0}))[0]["w"])
      1.5
    """

    f: Function

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        """The function of the trees."""
        return self.f(updates, params), state


class stateless_with_tree_map(Transformation, any_leaves=True):
    """A transformation from a function of single leaves: `f(update, param)`.

    Args:
      f: function of one update and its parameter (None where `update` was called without
        parameters) that gives the new update.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import gradtx
      >>> pull = gradtx.stateless_with_tree_map(lambda u, p: u + 0.5 * p)
      >>> float(pull.update({"w": 3.0}, pull.init({"w": 1.0}), {"w": 1.0})[0]["w"])
      3.5
    """

    f: Function

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        """The function of each leaf."""
        if params is None:
            return jax.tree.map(lambda u: self.f(u, None), updates), state
        return jax.tree.map(self.f, updates, params), state


def with_extra_args_support(tx: Inner) -> Transformation:
    """Makes any `(init, update)` pair, Optax's too, take extra arguments.

    It ignores those that it does not know.

    Args:
      tx: a gradient transformation, of gradtx or of another library.

    Returns:
      `tx` itself if it is a gradtx transformation, else one of its two functions.

    Raises:
      TypeError: `tx` is no transformation.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax, optax
      >>> tx = gradtx.optax.with_extra_args_support(optax.scale(-1.0))
      >>> tx.update(jnp.ones(1), tx.init(jnp.ones(1)), value=2.0)[0]
      Array([-1.], dtype=float32)
    """
    domains.check_argument("with_extra_args_support", "tx", tx, domains.TRANSFORMATION)
    return as_transformation(tx)


GradientTransformationExtraArgs = GradientTransformation
"""Another name for `GradientTransformation`: every update takes extra arguments."""


def to_optax(tx: Inner) -> "optax.GradientTransformationExtraArgs":
    """Wraps a transformation in Optax's class, so that Optax hands it extra arguments.

    Optax's combinators accept any pair but drop extra arguments unless the pair is Optax's own
    class.

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
