"""AdaMuon: a running mean square of every entry of Muon's matrix signs, at one size of update."""

import functools
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.masking import select
from gradtx.compose.partition import partition
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Mask, NonNegative, PositiveInt, Rate
from gradtx.core.leaves import MaskedNode
from gradtx.core.numerics import abs_sq, compute_dtype, guarded_ratio, real_dtype, root_plus_eps, running_mean
from gradtx.core.transformation import Transformation
from gradtx.core.trees import raise_unlike
from gradtx.core.types import ExtraArg, Params, Squares, Updates
from gradtx.linalg.coefficients import Coefficients
from gradtx.matrix.dimensions import MatrixRule, MuonDimensionNumbers, Numbers, axes_of, from_matrices, numbers_once, to_matrices
from gradtx.matrix.distribute import Sharing
from gradtx.matrix.muon import with_optax_names
from gradtx.matrix.orthogonalize import orthogonalize
from gradtx.matrix.parts import each_part
from gradtx.matrix.routing import muon_labels
from gradtx.optimizers.adam import adamw
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import ema
from gradtx.transforms.scaling import scale_by_learning_rate, scale_by_sign


class ScaleByAdamuonState(NamedTuple):
    """For every matrix the running mean of its squares; else `MaskedNode`."""

    nu: Squares


class scale_by_adamuon(Transformation, keeps_zero=True):
    """Matrix signs over their running sizes, entry by entry: `O / (sqrt(v) + eps)`, of a fixed RMS.

    `v = beta2*v + (1-beta2)*O^2`, without bias correction. Each matrix then gets the root mean
    square `rms`. It stands after `orthogonalize`.

    Args:
      beta2: decay of the running mean squares, in [0, 1).
      eps: added to their roots, and to the norm of a matrix, >= 0.
      rms: the root mean square of updates in every shape, >= 0; 0.2 makes them as large as Adam's.
      weight_dimension_numbers: as in `orthogonalize`; leaves that are no matrices pass unchanged.

    State: `ScaleByAdamuonState(nu)`; 4 bytes a parameter of matrices.

    Raises:
      ValueError: a leaf of three or more axes without dimension numbers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_adamuon()
      >>> updates, _ = tx.update(jnp.array([[0.8, -0.6]]), tx.init(jnp.zeros((1, 2))))
      >>> [round(float(u), 3) for u in updates[0]]
      [0.2, -0.2]

    Source: Si et al. 2025, "AdaMuon", arXiv:2507.11005, algorithm 1.
    """

    beta2: Decay = 0.95
    eps: NonNegative = 1e-8
    rms: NonNegative = 0.2
    _: KW_ONLY
    weight_dimension_numbers: MatrixRule | None = None

    @functools.cached_property
    def numbers(self) -> Callable[[Params], Numbers]:
        """The dimension numbers of each leaf."""
        return numbers_once("weight_dimension_numbers", self.weight_dimension_numbers)

    def init(self, params: Params) -> ScaleByAdamuonState:
        leaves, treedef = jax.tree.flatten(params)
        nu = [
            MaskedNode() if entry is None else jnp.zeros_like(leaf, real_dtype(compute_dtype(leaf.dtype)))
            for leaf, entry in zip(map(jnp.asarray, leaves), self.numbers(params), strict=True)
        ]
        return ScaleByAdamuonState(treedef.unflatten(nu))

    def step(
        self, updates: Updates, state: ScaleByAdamuonState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByAdamuonState]:
        numbers = self.numbers(updates)
        leaves, treedef = jax.tree.flatten(updates)
        squares, of_matrices = jax.tree.flatten(state.nu)
        some = select(updates, [entry is not None for entry in numbers])
        if jax.tree.structure(some) != of_matrices:
            raise_unlike(some, state.nu)
        matrices = ((i, entry) for i, entry in enumerate(numbers) if entry is not None)
        for k, (i, entry) in enumerate(matrices):
            leaves[i], squares[k] = self.of_leaf(leaves[i], squares[k], entry)
        return treedef.unflatten(leaves), ScaleByAdamuonState(of_matrices.unflatten(squares))

    def of_leaf(self, o: jax.Array, nu: jax.Array, entry: MuonDimensionNumbers) -> tuple[jax.Array, jax.Array]:
        """The rule for the matrices of one leaf."""
        v = jnp.asarray(running_mean(nu, abs_sq(o), self.beta2)).astype(nu.dtype)
        scaled = guarded_ratio(o, root_plus_eps(v, self.eps), self.eps)
        return each_part(self.resized, scaled, entry).astype(o.dtype), v

    def resized(self, x: jax.Array, entry: MuonDimensionNumbers) -> jax.Array:
        """The matrices at the root mean square `rms`."""
        if entry.output_blocks != 1:
            plain = MuonDimensionNumbers(1, 2)
            return from_matrices(self.resized(to_matrices(x, entry), plain), entry, x.shape)
        _, inputs, outputs = axes_of(entry, x.ndim)
        norms = jnp.sqrt(jnp.sum(abs_sq(x), axis=inputs + outputs, keepdims=True))
        count = x.size / norms.size
        return x * guarded_ratio(jnp.asarray(self.rms * count**0.5, norms.dtype), norms + self.eps, self.eps)


class adamuon(Preset):
    """AdaMuon for the matrices inside a network, AdamW for all else.

    A matrix moves by `-learning_rate * (u + weight_decay * p)`. With `m = beta*m + (1-beta)*g` one
    Nesterov step ahead, without bias correction, `O` is the matrix sign of `sign(m)`, and `u` is
    `O` over the running root mean square of each entry, scaled to the root mean square `rms`. So
    updates are as large as Adam's in every shape, and both halves can share a learning rate.
    Parameters are routed as in `muon`; `explain(tx, params)` shows it.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each matrix by `rms` in root mean
        square.
      beta: decay of the momentum and of the running mean squares, in [0, 1).
      eps: added to the norms of matrices and to roots of mean squares, of AdamW too; >= 0.
      weight_decay: number >= 0 or schedule, decoupled, for the matrices. AdamW's parameters do not
        decay.
      weight_decay_mask: which matrices decay, as in `add_decayed_weights`; None is all.
      ns_coeffs: one row of coefficients, run `ns_steps` times; a table of rows, which then are the
        steps; or a name: 'jordan' (the default), 'dion', 'quintic', 'polar_express'.
      ns_steps: number of steps, >= 1, where `ns_coeffs` is no table.
      rms: the root mean square of updates in every shape, >= 0; 0.2 makes them as large as Adam's.
      adam_learning_rate: of AdamW; None is `learning_rate`.
      muon_weight_dimension_numbers: `matrix_axes({...})` with rules of your own, or a tree of
        `MuonDimensionNumbers` with None for AdamW, or a function from the parameters to one. None
        is `matrix_axes()`.
      distribute: None, or the mesh axes along which devices share the matrices: a name, several, or
        a `Distribution`. None is all axes of the mesh on which matrices lie.

    State: `PartitionState` with labels `muon` (8 bytes a parameter) and `adam` (8).

    Raises:
      ValueError: `params` was not passed to `update`, or a parameter of three or more axes that no
        rule names.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.adamuon(1e-3, weight_decay=0.1)
      >>> print(gradtx.explain(tx, {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}))
      parameter  shape   to    why
      bias       (8,)    adam  a vector
      kernel     (4, 8)  muon  a matrix: inputs (0,), outputs (1,)

    Source: Si et al. 2025, "AdaMuon", arXiv:2507.11005, algorithm 1;
    https://github.com/Chongjie-Si/AdaMuon.

    **Differs:** the authors' code takes its matrix signs in bfloat16.
    """

    learning_rate: Rate
    beta: Decay = 0.95
    eps: NonNegative = 1e-8
    weight_decay: Rate = 0.01
    weight_decay_mask: Mask | None = None
    _: KW_ONLY
    ns_coeffs: Coefficients = (3.4445, -4.7750, 2.0315)
    ns_steps: PositiveInt = 5
    rms: NonNegative = 0.2
    adam_learning_rate: Rate | None = None
    muon_weight_dimension_numbers: MatrixRule | None = None
    distribute: Sharing | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.direction  # noqa: B018  # wrong coefficients fail here, not at the first step

    @functools.cached_property
    def labels(self) -> muon_labels:
        """What goes to AdaMuon, and what to AdamW."""
        return muon_labels(self.muon_weight_dimension_numbers)

    @functools.cached_property
    def direction(self) -> orthogonalize:
        """The matrix signs."""
        links = {"eps": self.eps, "weight_dimension_numbers": self.labels.axes, "distribute": self.distribute}
        return with_optax_names("adamuon", self.ns_coeffs, self.ns_steps, "frobenius", **links)

    def chain(self) -> partition:
        matrices = chain(
            ema(self.beta, debias=False, nesterov=True),
            scale_by_sign(),
            self.direction,
            scale_by_adamuon(self.beta, self.eps, self.rms, weight_dimension_numbers=self.labels.axes),
            add_decayed_weights(self.weight_decay, self.weight_decay_mask),
            scale_by_learning_rate(self.learning_rate),
        )
        rate = self.learning_rate if self.adam_learning_rate is None else self.adam_learning_rate
        return partition({"muon": matrices, "adam": adamw(rate, eps=self.eps, weight_decay=0.0)}, self.labels)
