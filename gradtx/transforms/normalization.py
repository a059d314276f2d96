"""Updates without their mean, or with a given norm."""

from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.domains import NonNegative, Positive
from gradtx.core.leaves import each_leaf
from gradtx.core.numerics import default_float, guarded_ratio
from gradtx.core.transformation import EmptyState, Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.transforms.scaling import scaled
from gradtx.tree.reductions import AxisNames, global_norm


class NormalizeByUpdateNormState(NamedTuple):
    """The last norm before normalization."""

    norm: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"update_norm": self.norm}


class centralize(Transformation, keeps_zero=True):
    """Subtracts from each leaf its mean over all axes but the first; vectors and scalars pass.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.centralize()
      >>> tx.update(jnp.array([[1.0, 3.0], [5.0, 5.0]]), tx.init(jnp.zeros((2, 2))))[0]
      Array([[-1.,  1.],
             [ 0.,  0.]], dtype=float32)

    Source: Yong et al. 2020, arXiv:2004.01461.
    """

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        @each_leaf
        def rule(u: jax.Array) -> jax.Array:
            if u.ndim < 2 or not u.size:
                return u
            return u - jnp.mean(u, axis=tuple(range(1, u.ndim)), keepdims=True)

        return rule(updates), state


class normalize_by_update_norm(Transformation, keeps_zero=True, rests=True):
    """Gives all updates together the norm `scale_factor`: `scale_factor * u / (|u| + eps)`, 0 at 0.

    Args:
      scale_factor: the norm that results, > 0.
      eps: added to the norm, >= 0; in units of the update.
      axis_name: inside `jax.shard_map`, the mesh axes along which devices hold the shards of
        updates; see `global_norm`.

    State: `NormalizeByUpdateNormState(norm float32)`, 4 bytes. `gradtx.metrics` reports
      `update_norm`, the last norm before.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.normalize_by_update_norm(5.0, eps=0.0)
      >>> tx.update(jnp.array([6.0, 8.0]), tx.init(jnp.zeros(2)))[0]
      Array([3., 4.], dtype=float32)

    **Differs:** Optax's state is empty.
    """

    scale_factor: Positive = 1.0
    eps: NonNegative = 1e-6
    _: KW_ONLY
    axis_name: AxisNames | None = None

    def init(self, params: Params) -> NormalizeByUpdateNormState:
        return NormalizeByUpdateNormState(jnp.zeros((), default_float()))

    def step(
        self, updates: Updates, state: NormalizeByUpdateNormState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, NormalizeByUpdateNormState]:
        norm = global_norm(updates, axis_name=self.axis_name)
        factor = guarded_ratio(jnp.asarray(self.scale_factor, norm.dtype), norm + self.eps)
        return scaled(factor, updates), NormalizeByUpdateNormState(norm.astype(state.norm.dtype))
