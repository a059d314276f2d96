"""Momentum-SAM: sharpness-aware minimization at the cost of one gradient a step."""

from typing import NamedTuple

import jax

from gradtx.core.composites import Wrapper
from gradtx.core.domains import Decay, Rate
from gradtx.core.leaves import cast_like, each_leaf, zeros_like
from gradtx.core.numerics import guarded_ratio, promote, safe_increment, zero_count
from gradtx.core.pairs import Inner
from gradtx.core.types import ExtraArg, Params, State, Updates
from gradtx.core.walk import check_steps
from gradtx.tree.reductions import norm
from gradtx.wrappers.ascent import beside, check_one_gradient, per_lane, radius


class MomentumSamState(NamedTuple):
    """Steps taken, the radius of the present perturbation, the momentum, and the inner state."""

    count: jax.Array
    rho: jax.Array
    momentum: Updates
    inner_state: State

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"rho": self.rho}

    def eval_params(self, params: Params) -> Params:
        """What `gradtx.eval_params` gives: the parameters without the perturbation."""
        pull_of = _pull
        for _ in self.count.shape:  # states of many runs, stacked by `vmap`
            pull_of = jax.vmap(pull_of)
        pull = pull_of(self.rho, self.momentum)
        return beside(lambda v, p: promote(p) + per_lane(pull.astype(v.real.dtype), v) * v, self.momentum, params)


def _pull(rho: jax.Array, momentum: Updates) -> jax.Array:
    """How much of the momentum the perturbation is."""
    return guarded_ratio(rho, norm(momentum))


class momentum_sam(Wrapper, final=True, needs_params=True):
    """Momentum-SAM: one gradient a step, at `w - rho * v / |v|`; the momentum is `v = beta*v + g`.

    The parameters that `update` moves are the perturbed ones, `w - rho * v / |v|`. An ordinary
    training step, without `grad_fn`, takes the next gradient there. To evaluate, and at the end,
    use `gradtx.eval_params(state, params)`, which gives `w`. `inner` sees the gradient at the
    perturbed parameters and, for weight decay, the parameters `w`.

    Its update needs `params`; those that are replaced from outside are taken as perturbed ones. All
    leaves together are one vector; under `masked` or `partition` those at hand are.

    Args:
      inner: the optimizer, usually with a momentum of the same `beta`:
        `momentum_sam(sgd(0.1, momentum=0.9), rho=0.3)`.
      rho: radius, >= 0, in units of the parameters, or a schedule of the steps taken so far. Larger
        than SAM's is usual.
      beta: decay of the momentum, in [0, 1).

    State: `MomentumSamState(count int32, rho float32, momentum, inner_state)`; 4 bytes a parameter,
      and the inner state. `gradtx.metrics` reports `rho`.

    Raises:
      ValueError: `inner` needs `grad_fn`, or accumulates.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = jnp.array([3.0, 4.0])
      >>> tx = gradtx.momentum_sam(gradtx.sgd(0.1, momentum=0.9), rho=0.5)
      >>> state = tx.init(params)
      >>> updates, state = tx.update(params, state, params)  # the gradient of |w|^2 / 2
      >>> params = gradtx.apply_updates(params, updates)
      >>> [round(float(x), 3) for x in params]
      [2.4, 3.2]
      >>> [round(float(x), 3) for x in gradtx.eval_params(state, params)]
      [2.7, 3.6]

    Source: Becker, Altrock and Risse 2024, arXiv:2401.12033, algorithm 1. With
    `inner=sgd(lr, momentum=beta)` it is that algorithm; the momentum is kept a second time here, so
    that any optimizer can stand inside.
    """

    inner: Inner
    rho: Rate
    beta: Decay = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("momentum_sam", "inner", self.inner)
        check_one_gradient("momentum_sam", "inner", self.inner)

    def init(self, params: Params) -> MomentumSamState:
        return MomentumSamState(zero_count(), radius(self.rho, zero_count()), zeros_like(params), self.inner.init(params))

    def step(
        self, updates: Updates, state: MomentumSamState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, MomentumSamState]:
        beta = self.beta

        @each_leaf
        def accumulated(v: jax.Array, g: jax.Array) -> jax.Array:
            return g + beta * v

        before, after = state.momentum, accumulated(state.momentum, updates)
        rho = radius(self.rho, state.count)
        back, out = _pull(state.rho, before), _pull(rho, after)

        @each_leaf
        def unperturbed(p: jax.Array, v: jax.Array) -> jax.Array:
            return p + back * v

        @each_leaf
        def perturbed(u: jax.Array, before: jax.Array, after: jax.Array) -> jax.Array:
            return u + back * before - out * after

        w = cast_like(unperturbed(params, before), params)
        moved, inner_state = self.inner.advance(updates, state.inner_state, w, extra_args)
        return perturbed(moved, before, after), MomentumSamState(safe_increment(state.count), rho, after, inner_state)
