"""The step of SAM and its kin: uphill to the worst point nearby, to take the gradient there."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.compose.evaluation import gradient_at
from gradtx.compose.labels import spread_mask
from gradtx.core import domains
from gradtx.core.leaves import MaskedNode, cast_like, each_leaf, is_masked_or_none
from gradtx.core.numerics import cond, default_float, promote
from gradtx.core.paths import leaves_by_path
from gradtx.core.transformation import Transformation, wants
from gradtx.core.types import Leaf, Params, Tree, Updates
from gradtx.linalg.ascent import ascent


@each_leaf
def scaled(h: jax.Array, t: jax.Array) -> jax.Array:
    """`t * h`, in at least float32."""
    return t * h


@each_leaf
def moved(e: jax.Array, x: jax.Array) -> jax.Array:
    """`e + x`, in at least float32."""
    return e + x


def weight_scale(params: Params, eta: ArrayLike, weights: Tree = None) -> Params:
    """ASAM's `T`: `|w| + eta` where `weights` is True, else 1; None: leaves of two or more axes."""
    leaves, treedef = jax.tree.flatten(params)
    keep = [np.ndim(p) > 1 for p in leaves] if weights is None else spread_mask("weights", weights, params)

    def scale(p: jax.Array, chosen: bool) -> jax.Array:
        size = jnp.abs(promote(p))
        return size + eta if chosen else jnp.ones((), size.dtype)

    return treedef.unflatten(map(scale, leaves, keep))


class Climb(NamedTuple):
    """From the gradient at the parameters to the gradient uphill.

    It takes `steps` steps of length `rho / steps`. Each step goes along the gradient where it
    begins. `scale` is a function from the parameters to ASAM's `T`, or None.
    """

    p: float
    eps: ArrayLike
    steps: int = 1
    scale: Callable[[Params], Params] | None = None

    def step(self, gradient: Updates, rho: ArrayLike, t: Params | None) -> Updates:
        """`ascent(g)`, or `T * ascent(T * g)`: the worst point of the ball of `e / T`."""
        if t is None:
            return ascent(gradient, rho, self.p, self.eps)
        return scaled(ascent(scaled(gradient, t), rho, self.p, self.eps), t)

    def gradient(self, grad_fn: Callable[[Params], Updates], params: Params, updates: Updates, rho: jax.Array) -> Updates:
        """The gradient at the top, in the dtypes of `updates`, the gradient at the foot."""
        t = None if self.scale is None else self.scale(params)
        gradient, climbed = updates, None
        for _ in range(self.steps):
            e = self.step(gradient, rho / self.steps, t)
            climbed = e if climbed is None else moved(climbed, e)
            gradient = gradient_at(grad_fn, moved(climbed, params), params, updates)
        return cast_like(gradient, updates)


def per_lane(number: jax.Array, leaf: jax.Array) -> jax.Array:
    """A number of the state, shaped to meet a leaf: under `vmap` each stacked state has its own."""
    return number.reshape(number.shape + (1,) * (leaf.ndim - number.ndim))


def check_one_gradient(name: str, argument: str, inner: Transformation) -> None:
    """Raises for an optimizer that calls `grad_fn` itself: its gradients are of another point."""
    if "grad_fn" in wants(inner):
        raise ValueError(
            f"{name}: {argument} is {inner!r}, which calls grad_fn itself, expected an optimizer that does not: "
            "methods of two gradients do not nest."
        )


def each_kth(k: int, count: jax.Array, due: Callable[[], Tree], between: Callable[[], Tree]) -> Tree:
    """`due()` at the first step and each k-th after it, else `between()`."""
    return due() if k == 1 else cond(count % k == 0, due, between)


def beside(rule: Callable[..., jax.Array], kept: Tree, params: Params, *others: Tree) -> Tree:
    """`rule(leaf, param, *leaves of others)` for each leaf of a tree in the state.

    Where the state has none it gives `MaskedNode`. Parameters are matched by path: the state may
    know only some of them, and in other containers. A leaf without a parameter stays as it is, for
    the caller to name.

    Args:
      rule: function of arrays.
      kept: tree in the state.
      params: the parameters.
      *others: trees in the state, of the structure of `kept`.
    """
    own = leaves_by_path(params, is_leaf=is_masked_or_none)
    columns = [jax.tree.leaves(tree, is_leaf=is_masked_or_none) for tree in others]
    named, treedef = leaves_by_path(kept, is_leaf=is_masked_or_none), jax.tree.structure(kept, is_leaf=is_masked_or_none)

    def at(path: tuple[str, ...], leaf: Leaf, *leaves: Leaf) -> Leaf:
        if is_masked_or_none(leaf):
            return MaskedNode()
        return rule(leaf, own[path], *leaves) if path in own else leaf

    return treedef.unflatten([at(path, leaf, *leaves) for (path, leaf), *leaves in zip(named.items(), *columns, strict=True)])


def radius(rho: domains.ScalarOrSchedule, count: jax.Array) -> jax.Array:
    """`rho`, or what its schedule gives, as a scalar for the state."""
    return jnp.asarray(domains.scheduled_value("rho", rho, count)).astype(default_float())
