"""Mechanic: the scale of any optimizer's updates, learned while it trains."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.domains import NonNegative, Positive, PositiveInt
from gradtx.core.leaves import copies, each_leaf
from gradtx.core.numerics import default_float, safe_increment, zero_count
from gradtx.core.pairs import Inner
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import ExtraArg, Params, State, Updates
from gradtx.core.walk import check_not_final, check_steps
from gradtx.tree.reductions import norm, vdot


class MechanicState(NamedTuple):
    """The wrapped state, steps taken; rewards, largest products, sums of squares and scales; `x0`.

    Each of the four has a number for each decay.
    """

    base_optimizer_state: State
    count: jax.Array
    r: jax.Array
    m: jax.Array
    v: jax.Array
    s: jax.Array
    x0: Params

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"scale": jnp.sum(self.s)}


class mechanize(Transformation, final=True, needs_params=True):
    """Mechanic, around an optimizer: parameters `x0 + s * D`, where `D` is the sum of its updates.

    The scale `s` is a sum over decays `b` of `(s_init/n * m + max(r, 0)) / (sqrt(v) + eps)`, with
    `m = max(b*m, |h| + eps)`, `v = b^2*v + h^2` and `r = b*r + clip(h, -m, m) * s`, where `h` is
    the product `-<g + weight_decay * s * |g|/|p| * p, D>`: positive where going further helps. The
    decays are 0.9, 0.99, ... All leaves are one vector. Nothing may change the updates before they
    are applied. Its update needs `params`.

    Args:
      base_optimizer: the transformation to wrap: a whole optimizer, with a learning rate of about
        1, or a schedule up to it.
      weight_decay: pulls the scale, not the parameters, towards 0; >= 0.
      eps: added to products and roots, > 0.
      s_init: the first scale, > 0.
      num_betas: how many decays, >= 1.

    State: `MechanicState(base_optimizer_state, count int32, r, m, v, s, x0)`; 4 bytes a parameter
      more than the wrapped one's. It holds the start: make a new state for new parameters.
      `gradtx.metrics` reports the `scale`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.mechanize(gradtx.sgd(1.0)), jnp.array([3.0, -1.0])
      >>> state = tx.init(params)
      >>> for _ in range(100):
      ...     updates, state = tx.update(jax.grad(lambda x: (x**2).sum())(params), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      >>> bool(jnp.abs(params).max() < 0.1)
      True

    Source: Cutkosky et al. 2023, arXiv:2306.00144, algorithm 1, with the authors' clipped products.

    **Differs:** Optax keeps states of half-precision parameters in half precision.
    """

    base_optimizer: Inner
    weight_decay: NonNegative = 1e-2
    eps: Positive = 1e-8
    s_init: Positive = 1e-6
    num_betas: PositiveInt = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_final("mechanize", "base_optimizer", self.base_optimizer)
        check_steps("mechanize", "base_optimizer", self.base_optimizer)

    @property
    def inside(self) -> tuple[Transformation, ...]:
        return (self.base_optimizer,)

    def parts(self, params: Params, state: MechanicState) -> tuple[Part, ...]:
        return (Part(self.base_optimizer, params, state.base_optimizer_state),)

    def init(self, params: Params) -> MechanicState:
        r, m, v = (jnp.zeros(self.num_betas, default_float()) for _ in range(3))
        s = jnp.full(self.num_betas, self.s_init, default_float())
        return MechanicState(self.base_optimizer.init(params), zero_count(), r, m, v, s, copies(params))

    def step(
        self, updates: Updates, state: MechanicState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, MechanicState]:
        moves, base_state = self.base_optimizer.advance(updates, state.base_optimizer_state, params, extra_args)
        first, scale = state.count == 0, jnp.sum(state.s)
        pull = self.weight_decay * scale * norm(updates).astype(scale.dtype) / (norm(params).astype(scale.dtype) + self.eps)

        @each_leaf
        def gathered(g: jax.Array, x0: jax.Array, p: jax.Array) -> tuple[jax.Array, ...]:
            x0 = jnp.where(first, p, x0)  # parameters may be restored between `init` and the first step
            return g + pull * p, x0, (x0 - p) / (scale + self.eps)

        pulled, x0, delta = gathered(updates, state.x0, params)
        h = jnp.real(vdot(pulled, delta)).astype(scale.dtype)
        r, m, v, s = self.scales(h, state)
        new = jnp.sum(s)

        @each_leaf
        def rule(u: jax.Array, x0: jax.Array, d: jax.Array, p: jax.Array) -> jax.Array:
            return x0 - new * (d - u) - p

        count = safe_increment(state.count)
        return rule(moves, x0, delta, params), MechanicState(base_state, count, r, m, v, s, x0)

    def scales(self, h: jax.Array, state: MechanicState) -> tuple[jax.Array, ...]:
        """New rewards, largest products, sums of squares and scales."""
        betas = jnp.asarray(1 - 0.1 ** np.arange(1, self.num_betas + 1), h.dtype)
        m = jnp.maximum(betas * state.m, jnp.abs(h) + self.eps)
        v = betas**2 * state.v + h**2
        r = betas * state.r + jnp.clip(h, -state.m, state.m) * state.s
        wealth = self.s_init / self.num_betas * m + jnp.maximum(r, 0)
        return r, m, v, jnp.asarray(wealth / (jnp.sqrt(v) + self.eps))
