"""How far each parameter moves, in units of its own size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.numerics import default_float, root_sum_squares
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates


class UpdateRatiosState(NamedTuple):
    """The last ratio of each parameter, by its path."""

    ratios: dict[str, jax.Array]

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {f"update_ratio/{path}": ratio for path, ratio in self.ratios.items()}


class update_ratios(Transformation, observes=True, needs_params=True):
    """Records by path how far each parameter moves: `|u| / |p|`, Frobenius norms; 0 where `|p|` is.

    The updates stay as they are. At the end of a chain these are the relative steps, for which
    about 1e-3 is usual with Adam; far smaller ones hardly learn, and far larger ones are unstable.
    Its update needs `params`.

    State: `UpdateRatiosState(ratios)`, 4 bytes a leaf: zeros until the first update.
      `gradtx.metrics` reports each as `update_ratio/` and the path.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.chain(gradtx.sgd(0.1), gradtx.update_ratios()), {"w": jnp.ones(4)}
      >>> _, state = tx.update(params, tx.init(params), params)
      >>> round(float(gradtx.metrics(state)["update_ratio/w"]), 3)
      0.1

    Source: the ratio as a sign of a good learning rate: Karpathy, CS231n notes, "Ratio of
    weights:updates".
    """

    def init(self, params: Params) -> UpdateRatiosState:
        return UpdateRatiosState({path: jnp.zeros((), default_float()) for path in _named(params)})

    def step(
        self, updates: Updates, state: UpdateRatiosState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, UpdateRatiosState]:
        ratios, own = {}, _named(params)
        for path, u in _named(updates).items():
            moved, size = root_sum_squares([u]), root_sum_squares([own[path]])
            ratios[path] = jnp.where(size > 0, moved / jnp.where(size > 0, size, 1), 0).astype(default_float())
        return updates, UpdateRatiosState(ratios)


def _named(tree: Params) -> dict[str, jax.Array]:
    return {"/".join(parts) or ROOT: leaf for parts, leaf in leaves_by_path(tree).items()}
