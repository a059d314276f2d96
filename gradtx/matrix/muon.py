"""Muon: momentum, the matrix sign of every matrix, a scale for its shape; AdamW for all else."""

import functools
import math
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated, Any

import jax

from gradtx.compose.chain import chain
from gradtx.compose.partition import partition
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Mask, NonNegative, PositiveInt, Rate, one_of
from gradtx.core.transformation import EmptyState, Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, Updates
from gradtx.linalg.coefficients import Coefficients, newton_schulz_table
from gradtx.linalg.newton_schulz import NORMALIZATIONS
from gradtx.matrix.dimensions import MatrixRule, Numbers, fan, numbers_once
from gradtx.matrix.distribute import Sharing
from gradtx.matrix.orthogonalize import orthogonalize
from gradtx.matrix.parts import joined, parts_of
from gradtx.matrix.routing import muon_labels
from gradtx.optimizers.adam import adamw
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import ema
from gradtx.transforms.scaling import scale_by_learning_rate

SCALES: dict[str, Callable[[int, int, Scalar], Scalar]] = {
    "jordan": lambda inputs, outputs, rms: math.sqrt(max(1, outputs / inputs)),
    "spectral": lambda inputs, outputs, rms: math.sqrt(outputs / inputs),
    "rms": lambda inputs, outputs, rms: rms * math.sqrt(max(inputs, outputs)),
}
PRECONDITIONINGS = {"schatten": "schatten4", **{name: name for name in NORMALIZATIONS}}
"""Optax's names for normalizations, and gradtx's."""

UpdateScale = Annotated[str, one_of(*SCALES)]
Preconditioning = Annotated[str, one_of(*PRECONDITIONINGS)]


class scale_by_shape(Transformation, keeps_zero=True):
    """Multiplies each matrix by a factor of its shape, so that one learning rate fits all shapes.

    After `orthogonalize`: the factor is what one unit of a learning rate moves each matrix by in
    spectral norm.

    Args:
      scale: 'jordan' `sqrt(max(1, out/in))`, 'spectral' `sqrt(out/in)`, or 'rms'
        `rms * sqrt(max(in, out))`.
      rms: of 'rms', the root mean square of updates in every shape, >= 0; 0.2 makes them as large
        as Adam's.
      weight_dimension_numbers: as in `orthogonalize`; vectors and numbers pass unchanged.

    State: `EmptyState()`, 0 bytes.

    Raises:
      ValueError: a leaf of three or more axes without dimension numbers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_shape()
      >>> float(tx.update(jnp.ones((2, 8)), tx.init(jnp.ones((2, 8))))[0][0, 0])
      2.0

    Source: Jordan 2024, https://github.com/KellerJordan/Muon; 'rms': Liu et al. 2025,
    arXiv:2502.16982; 'spectral': Pethick et al. 2025, arXiv:2502.07529.
    """

    scale: UpdateScale = "jordan"
    rms: NonNegative = 0.2
    _: KW_ONLY
    weight_dimension_numbers: MatrixRule | None = None

    @functools.cached_property
    def numbers(self) -> Callable[[Params], Numbers]:
        """The dimension numbers of each leaf."""
        return numbers_once("weight_dimension_numbers", self.weight_dimension_numbers)

    def init(self, params: Params) -> EmptyState:
        self.numbers(params)  # a leaf without dimension numbers fails here, not at the first step
        return EmptyState()

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        leaves, treedef = jax.tree.flatten(updates)
        for i, entry in enumerate(self.numbers(updates)):
            if entry is not None:
                scaled = []
                for x, one in [(leaves[i], entry)] if isinstance(entry.output_blocks, int) else parts_of(leaves[i], entry):
                    factor = SCALES[self.scale](*fan(one, x.shape), self.rms)
                    scaled.append((x * factor).astype(x.dtype))
                leaves[i] = scaled[0] if len(scaled) == 1 else joined(scaled, entry, leaves[i])
        return treedef.unflatten(leaves), state


def with_optax_names(name: str, ns_coeffs: Coefficients, ns_steps: int, preconditioning: str, **links: Any) -> orthogonalize:
    """`orthogonalize` by Optax's names: one row runs `ns_steps` times, a table of rows once."""
    named = isinstance(ns_coeffs, str)
    one_row = isinstance(ns_coeffs, (list, tuple)) and not any(isinstance(row, (list, tuple)) for row in ns_coeffs)
    steps = ns_steps if named or one_row or getattr(ns_coeffs, "ndim", 2) == 1 else None
    coefficients = "jordan" if named and ns_coeffs == "standard" else ns_coeffs
    newton_schulz_table(name, coefficients, steps, "ns_coeffs")  # errors say `ns_coeffs`
    return orthogonalize(coefficients, steps, normalization=PRECONDITIONINGS[preconditioning], **links)


class muon(Preset, keeps_zero=True):
    """Muon for the matrices inside a network, AdamW for all else.

    A matrix moves by `-learning_rate * (shape * msign(m) + weight_decay * p)`. Parameters are
    routed by path and shape as `matrix_axes` says; `explain(tx, params)` shows where each one goes,
    and why. `m` is the average of gradients `beta*m + (1-beta)*g`, bias-corrected, one Nesterov
    step ahead; AdamW has Nesterov momentum too (`nadamw`).

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each matrix by `sqrt(max(1, out/in))`
        in spectral norm. Often 0.02, or, with `consistent_rms=0.2`, what AdamW would have.
      ns_coeffs: one row of coefficients, run `ns_steps` times; a table of rows, which then are the
        steps; or a name: 'jordan' (the default; Optax's 'standard'), 'dion', 'quintic',
        'polar_express' (made for `ns_steps`). `ns_coeffs="polar_express", ns_steps=4,
        preconditioning="schatten8"` is more exact and faster than the default.
      ns_steps: number of steps, >= 1, where `ns_coeffs` is no table.
      beta: decay of the momentum, in [0, 1).
      eps: added to the norms of matrices, where their largest entry is about 1, and outside the
        root of AdamW; >= 0.
      weight_decay: number >= 0 or schedule, decoupled, for the matrices. AdamW's parameters do not
        decay.
      weight_decay_mask: which matrices decay, as in `add_decayed_weights`; None is all.
      preconditioning: what matrices are divided by first: 'frobenius', 'spectral', 'schatten' (4),
        'schatten8', or 'aol'.
      adam_learning_rate: of AdamW; None is `learning_rate`.
      muon_weight_dimension_numbers: `matrix_axes({...})` with rules of your own, or a tree of
        `MuonDimensionNumbers` with None for AdamW, or a function from the parameters to one. None
        is `matrix_axes()`.
      consistent_rms: None, or the root mean square that updates shall have in every shape, in place
        of `sqrt(max(1, out/in))`.
      distribute: None, or the mesh axes along which devices share the matrices: a name, several, or
        a `Distribution`. None is all axes of the mesh on which matrices lie.

    State: `PartitionState` with labels `muon` (4 bytes a parameter) and `adam` (8).

    Raises:
      ValueError: `params` was not passed to `update`, or a parameter of three or more axes that no
        rule names.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> dense = {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}
      >>> params = {"dense": dense, "head": {"kernel": jnp.ones((8, 10))}}
      >>> tx = gradtx.muon(0.02, weight_decay=0.1)
      >>> print(gradtx.explain(tx, params))
      parameter     shape    to    why
      dense/bias    (8,)     adam  a vector
      dense/kernel  (4, 8)   muon  a matrix: inputs (0,), outputs (1,)
      head/kernel   (8, 10)  adam  an output head, by the name 'head'

      All else you write with links: here NorMuon with cautious decay, the momentum in bfloat16, and
      an AdamW of your own:

      >>> axes = {"weight_dimension_numbers": gradtx.matrix_axes()}
      >>> matrices = gradtx.chain(
      ...     gradtx.ema(0.95, accumulator_dtype="bfloat16", nesterov=True),  # or trace(0.95)
      ...     gradtx.orthogonalize("polar_express", 5, dtype="bfloat16", **axes),
      ...     gradtx.scale_by_normuon(0.95, **axes),
      ...     gradtx.scale_by_shape("rms", 0.2, **axes),
      ...     gradtx.add_cautious_decayed_weights(0.1),
      ...     gradtx.scale_by_learning_rate(1e-3),
      ... )
      >>> rest, labels = gradtx.adamw(1e-3, b2=0.95), gradtx.muon_labels()
      >>> tx = gradtx.partition({"muon": matrices, "adam": rest}, labels)
      >>> print(gradtx.explain(tx, params).splitlines()[2])
      dense/kernel  (4, 8)   muon  a matrix: inputs (0,), outputs (1,)

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; consistent_rms: Liu et
    al. 2025, arXiv:2502.16982.

    **Differs:** Optax sends every leaf of two axes to Muon, embeddings and heads too, and silently
    every other to Adam. Here matrices are free of scale, and those with orthogonal rows are exact.
    Optax's other arguments are those of links here; `gradtx.optax.contrib.muon` takes them all.
    """

    learning_rate: Rate
    ns_coeffs: Coefficients = (3.4445, -4.7750, 2.0315)
    ns_steps: PositiveInt = 5
    beta: Decay = 0.95
    eps: NonNegative = 1e-8
    weight_decay: Rate = 0.0
    weight_decay_mask: Mask | None = None
    _: KW_ONLY
    preconditioning: Preconditioning = "frobenius"
    adam_learning_rate: Rate | None = None
    muon_weight_dimension_numbers: MatrixRule | None = None
    consistent_rms: NonNegative | None = None
    distribute: Sharing | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.direction  # noqa: B018  # wrong coefficients fail here, not at the first step

    @functools.cached_property
    def labels(self) -> muon_labels:
        """What goes to Muon, and what to AdamW."""
        return muon_labels(self.muon_weight_dimension_numbers)

    @functools.cached_property
    def direction(self) -> orthogonalize:
        """The matrix signs."""
        links = {"weight_dimension_numbers": self.labels.axes, "distribute": self.distribute}
        return with_optax_names("muon", self.ns_coeffs, self.ns_steps, self.preconditioning, eps=self.eps, **links)

    def chain(self) -> partition:
        axes, rms = self.labels.axes, self.consistent_rms
        matrices = chain(
            ema(self.beta, nesterov=True),
            self.direction,
            scale_by_shape(weight_dimension_numbers=axes)
            if rms is None
            else scale_by_shape("rms", rms, weight_dimension_numbers=axes),
            add_decayed_weights(self.weight_decay, self.weight_decay_mask),
            scale_by_learning_rate(self.learning_rate),
        )
        rate = self.learning_rate if self.adam_learning_rate is None else self.adam_learning_rate
        return partition({"muon": matrices, "adam": adamw(rate, eps=self.eps, weight_decay=0.0, nesterov=True)}, self.labels)
