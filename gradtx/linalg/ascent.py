"""The steepest step uphill in a p-norm: SAM's, and that of sharpness."""

import math
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.core.domains import Domain
from gradtx.core.leaves import each_leaf
from gradtx.core.numerics import default_float
from gradtx.core.types import Tree
from gradtx.tree import reductions


def _is_exponent(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and bool(value >= 1)


Exponent = Annotated[float, Domain("a number in [1, inf], not an array: it selects the formula", _is_exponent, numeric=True)]
"""The `p` of a norm."""


def _below(h: jax.Array, largest: jax.Array) -> jax.Array:
    """Whether `|h|` is below the largest, by more than rounding.

    XLA may compute `h` twice, once for the largest, and round the two unlike.
    False for NaN, which must not become a silent 0.
    """
    return jnp.abs(h) < largest * (1 - 4 * jnp.finfo(h.dtype).eps)


def ascent(gradient: Tree, rho: ArrayLike, p: float = 2.0, eps: ArrayLike = 0.0) -> Tree:
    """`argmax <g, e>` over `|e|_p <= rho`.

    It is `rho * sign(g) * |g|^(q-1) / (sum |g|^q)^(1/p)`, with `1/p + 1/q = 1`.
    At `p` = inf it is `rho * sign(g)`, at 1 all of `rho` on the largest element (shared among
    equals). `|e|_p = rho` and `<g, e> = rho * |g|_q`. Magnitudes are divided by the largest before
    any power, so that nothing over- or underflows. 0 where the largest is at most `eps`; a NaN
    stays a NaN.

    Args:
      gradient: tree of arrays; all leaves are one vector.
      rho: length of the result in the p-norm.
      p: in [1, inf], a Python number.
      eps: largest magnitude that counts as no gradient at all.

    Returns:
      The tree, in at least float32.
    """
    p = float(p)
    largest = reductions.norm(gradient, math.inf)
    nothing = largest <= eps
    largest = jnp.where(nothing, 1, largest)

    @each_leaf
    def power(h: jax.Array) -> jax.Array:
        size = jnp.abs(h)
        return jnp.where(_below(h, largest), 0, jnp.ones_like(size)) if p == 1 else (size / largest) ** (p / (p - 1))

    total = jnp.ones(()) if p == math.inf else reductions.sum(power(gradient))
    root = total if p == 1 else jnp.sqrt(total) if p == 2 else total ** (1 / p)
    factor = jnp.where(nothing, 0, jnp.asarray(rho, default_float()) / jnp.where(nothing, 1, root))

    @each_leaf
    def uphill(h: jax.Array) -> jax.Array:
        if p == 1:
            return jnp.where(_below(h, largest), 0, factor * jnp.sign(h))
        if p == 2:
            return factor * (h / largest)
        if p == math.inf:
            return factor * jnp.sign(h)
        return factor * jnp.sign(h) * (jnp.abs(h) / largest) ** (1 / (p - 1))

    return uphill(gradient)
