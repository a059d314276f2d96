"""NorMuon: a running size of every output neuron's update, on top of the matrix sign."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.masking import merge, select
from gradtx.compose.matrices import MuonDimensionNumbers, from_matrices, numbers_for, to_matrices
from gradtx.core.checks import Decay, NonNegative
from gradtx.core.leaves import MaskedNode
from gradtx.core.numerics import abs_sq, guarded_ratio, promote
from gradtx.core.transformation import Params, Transformation, Updates
from gradtx.core.trees import raise_unlike


class ScaleByNormuonState(NamedTuple):
    """For every matrix the running mean square of each output neuron's update `(matrices, 1, outputs)`; else `MaskedNode`."""

    nu: Any


class scale_by_normuon(Transformation, keeps_zero=True):
    """Updates of one size for all output neurons: `O / (sqrt(v) + eps)`, `v = beta2*v + (1-beta2) * mean_in(O^2)`, as long as `O`.

    After `scale_by_msign` or `scale_by_muon`: of a matrix of more outputs than inputs, signs still have columns of unlike norm. The
    result is scaled back to the Frobenius norm of `O`, so that a `scale` before it and rates keep their meaning.

    Args:
      beta2: decay of the running mean squares, in [0, 1).
      eps: added to their roots, >= 0.
      weight_dimension_numbers: as in `scale_by_msign`; leaves that are no matrices pass unchanged.

    State: `ScaleByNormuonState(nu)`; 4 bytes an output neuron.

    Raises:
      ValueError, TypeError: an argument outside its domain, or a leaf of three or more axes without dimension numbers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_normuon()
      >>> updates, _ = tx.update(jnp.array([[3.0, 0.3]]), tx.init(jnp.zeros((1, 2))))
      >>> [round(float(u), 3) for u in updates[0]]
      [2.132, 2.132]

    Source: Li et al. 2025, "NorMuon", arXiv:2510.05491, algorithm 1, which fixes the norm at `0.2 sqrt(in*out)`; that is
    `scale_by_msign(scale="rms")` before it.
    """

    beta2: Decay = 0.95
    eps: NonNegative = 1e-8
    weight_dimension_numbers: Any = None

    def init(self, params: Params) -> ScaleByNormuonState:
        leaves, treedef = jax.tree.flatten(params)
        numbers = numbers_for("weight_dimension_numbers", self.weight_dimension_numbers, params)
        nu = [
            MaskedNode() if entry is None else jnp.zeros_like(_mean_square(to_matrices(promote(leaf), entry)))
            for leaf, entry in zip(leaves, numbers, strict=True)
        ]
        return ScaleByNormuonState(treedef.unflatten(nu))

    def step(
        self, updates: Updates, state: ScaleByNormuonState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, ScaleByNormuonState]:
        numbers = numbers_for("weight_dimension_numbers", self.weight_dimension_numbers, updates)
        matrices = select(updates, [entry is not None for entry in numbers])
        if jax.tree.structure(matrices) != jax.tree.structure(state.nu):
            raise_unlike(matrices, state.nu)
        kept, treedef = jax.tree.flatten(matrices)
        rows = zip(kept, jax.tree.leaves(state.nu), [entry for entry in numbers if entry is not None], strict=True)
        results = [_of_leaf(leaf, nu, entry, self.beta2, self.eps) for leaf, nu, entry in rows]
        scaled = merge(updates, [entry is not None for entry in numbers], [x for x, _ in results])
        return scaled, ScaleByNormuonState(treedef.unflatten([nu for _, nu in results]))


def _mean_square(o: jax.Array) -> jax.Array:
    """Of each output, over the inputs; 0 without inputs."""
    return jnp.sum(abs_sq(o), axis=1, keepdims=True) / max(o.shape[1], 1)


def _of_leaf(leaf: jax.Array, nu: jax.Array, entry: MuonDimensionNumbers, beta2: Any, eps: Any) -> tuple[jax.Array, jax.Array]:
    o = to_matrices(promote(leaf), entry)
    nu = (beta2 * nu + (1 - beta2) * _mean_square(o)).astype(nu.dtype)
    scaled = guarded_ratio(o, jnp.sqrt(nu) + eps, eps)
    norms = [jnp.sqrt(jnp.sum(abs_sq(x), axis=(1, 2), keepdims=True)) for x in (o, scaled)]
    return from_matrices(scaled * guarded_ratio(*norms), entry, leaf.shape).astype(leaf.dtype), nu
