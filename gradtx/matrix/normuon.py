"""NorMuon: a running size of every output neuron's update, on top of the matrix sign."""

import functools
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.masking import select
from gradtx.core.domains import Decay, NonNegative
from gradtx.core.leaves import MaskedNode
from gradtx.core.numerics import abs_sq, guarded_ratio, promote
from gradtx.core.transformation import Transformation
from gradtx.core.trees import raise_unlike
from gradtx.core.types import ExtraArg, Params, Squares, Updates
from gradtx.matrix.dimensions import MatrixRule, MuonDimensionNumbers, Numbers, fan, from_matrices, numbers_once, to_matrices
from gradtx.matrix.parts import are_plain, joined, parts_of


class ScaleByNormuonState(NamedTuple):
    """For every matrix the running mean square of each output's update; else `MaskedNode`."""

    nu: Squares


class scale_by_normuon(Transformation, keeps_zero=True):
    """Updates of one size for all output neurons: `O / (sqrt(v) + eps)`, scaled to the norm of `O`.

    `v = beta2*v + (1-beta2) * mean_in(O^2)`, a number for each output. It stands after
    `orthogonalize`: where a matrix has more outputs than inputs, the columns of its sign differ in
    norm. The result has the Frobenius norm of `O`, so that `scale_by_shape` and learning rates keep
    their meaning.

    Args:
      beta2: decay of the running mean squares, in [0, 1).
      eps: added to their roots, >= 0.
      weight_dimension_numbers: as in `orthogonalize`; leaves that are no matrices pass unchanged.

    State: `ScaleByNormuonState(nu)`; 4 bytes an output neuron.

    Raises:
      ValueError: a leaf of three or more axes without dimension numbers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_normuon()
      >>> updates, _ = tx.update(jnp.array([[3.0, 0.3]]), tx.init(jnp.zeros((1, 2))))
      >>> [round(float(u), 3) for u in updates[0]]
      [2.132, 2.132]

    Source: Li et al. 2025, "NorMuon", arXiv:2510.05491, algorithm 1, which fixes the norm at
    `0.2 sqrt(in*out)`; that is `scale_by_shape("rms")` before it.
    """

    beta2: Decay = 0.95
    eps: NonNegative = 1e-8
    weight_dimension_numbers: MatrixRule | None = None

    @functools.cached_property
    def numbers(self) -> Callable[[Params], Numbers]:
        """The dimension numbers of each leaf."""
        return numbers_once("weight_dimension_numbers", self.weight_dimension_numbers)

    def init(self, params: Params) -> ScaleByNormuonState:
        leaves, treedef = jax.tree.flatten(params)
        nu = [
            MaskedNode() if entry is None else self.zeros_of(promote(leaf), entry)
            for leaf, entry in zip(leaves, self.numbers(params), strict=True)
        ]
        return ScaleByNormuonState(treedef.unflatten(nu))

    def zeros_of(self, leaf: jax.Array, entry: MuonDimensionNumbers) -> jax.Array:
        """The mean squares of a leaf before any step, those of its parts side by side."""
        means = [jnp.zeros_like(_mean_square(to_matrices(part, plain))) for part, plain in parts_of(leaf, entry)]
        return means[0] if len(means) == 1 else jnp.concatenate(means, axis=2)

    def step(
        self, updates: Updates, state: ScaleByNormuonState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByNormuonState]:
        numbers = self.numbers(updates)
        leaves, treedef = jax.tree.flatten(updates)
        means, of_matrices = jax.tree.flatten(state.nu)
        matrices = [i for i, entry in enumerate(numbers) if entry is not None]
        some = select(updates, [entry is not None for entry in numbers])
        if jax.tree.structure(some) != of_matrices:
            raise_unlike(some, state.nu)
        for k, i in enumerate(matrices):
            leaves[i], means[k] = self.of_leaf(leaves[i], means[k], numbers[i])
        return treedef.unflatten(leaves), ScaleByNormuonState(of_matrices.unflatten(means))

    def of_leaf(self, leaf: jax.Array, nu: jax.Array, entry: MuonDimensionNumbers) -> tuple[jax.Array, jax.Array]:
        """The rule for the matrices of one leaf."""
        if not are_plain(entry):
            parts = parts_of(leaf, entry)
            ends = np.cumsum([fan(plain, part.shape)[1] * cast(int, plain.output_blocks) for part, plain in parts])
            means = jnp.split(nu, ends[:-1], axis=2) if len(parts) > 1 else [nu]
            pairs = [self.of_leaf(part, mean, plain) for (part, plain), mean in zip(parts, means, strict=True)]
            updates, means = ([pair[k] for pair in pairs] for k in range(2))
            return joined(updates, entry, leaf), means[0] if len(means) == 1 else jnp.concatenate(means, axis=2)
        o = to_matrices(leaf, entry)
        v = jnp.asarray(self.beta2 * nu + (1 - self.beta2) * _mean_square(o)).astype(nu.dtype)
        scaled = guarded_ratio(o, jnp.sqrt(v) + self.eps, self.eps)
        norms = [jnp.sqrt(jnp.sum(abs_sq(x), axis=(1, 2), keepdims=True)) for x in (o, scaled)]
        return from_matrices(scaled * guarded_ratio(*norms), entry, leaf.shape).astype(leaf.dtype), v


def _mean_square(o: jax.Array) -> jax.Array:
    """Of each output, over the inputs; 0 without inputs."""
    return jnp.sum(abs_sq(o), axis=1, keepdims=True) / max(o.shape[1], 1)
