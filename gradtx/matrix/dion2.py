"""Dion2: the matrix signs of a few rows or columns at a time, whose momentum then decays."""

import functools
import math
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.masking import select
from gradtx.compose.partition import partition
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Mask, Rate, interval
from gradtx.core.leaves import MaskedNode, zeros_like
from gradtx.core.transformation import Transformation
from gradtx.core.trees import raise_unlike
from gradtx.core.types import ExtraArg, Moment, Params, Updates
from gradtx.matrix.dimensions import MatrixRule, MuonDimensionNumbers, Numbers, fan, from_matrices, numbers_once, to_matrices
from gradtx.matrix.muon import scale_by_shape
from gradtx.matrix.on_mesh import on_automatic_axes
from gradtx.matrix.orthogonalize import orthogonalize
from gradtx.matrix.parts import all_joined, all_parts
from gradtx.matrix.routing import muon_labels
from gradtx.matrix.scion import Orthogonalize
from gradtx.optimizers.adam import adamw
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

SIGNS = orthogonalize("dion", normalization="frobenius", eps=1e-8)
"""The matrix signs of the authors' code."""

Part = Annotated[float, interval(0, 1, "(]")]


class ScaleByDion2State(NamedTuple):
    """For every matrix its momentum; else `MaskedNode`."""

    momentum: Moment


class scale_by_dion2(Transformation, keeps_zero=True):
    """Matrix signs of the slices of a momentum that are the largest, and zeros for all others.

    `M += g`. Of each matrix, `S` is the given fraction of the slices of `M` along its shorter axis:
    those of the largest sums of magnitudes. The update is the matrix sign of `S` in their places;
    there alone `M` then shrinks by `decay`. So the sum of what was not used waits in `M`, and a
    quarter of the slices costs a sixteenth of Muon's products.

    Args:
      fraction: how many of the slices take part in a step, in (0, 1]; rounded up.
      decay: what the momentum of slices is multiplied by after they took part, in [0, 1).
      signs: how matrix signs are made: an `orthogonalize` without dimension numbers.
      weight_dimension_numbers: as in `orthogonalize`; leaves that are no matrices pass unchanged.

    State: `ScaleByDion2State(momentum)`; 4 bytes a parameter of matrices.

    Raises:
      ValueError: a leaf of three or more axes without dimension numbers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_dion2(0.5)
      >>> grads = jnp.array([[3.0, 4.0], [0.1, 0.2], [0.0, -1.0], [0.1, 0.0]]).T
      >>> updates, state = tx.update(grads, tx.init(grads))
      >>> (updates[0] == 0).all(), state.momentum[1].round(2)
      (Array(True, dtype=bool), Array([ 3.8 ,  0.19, -0.95,  0.  ], dtype=float32))

    Source: Ahn et al. 2025, "Dion2", https://github.com/microsoft/dion, dion2.py.

    **Differs:** the authors' code selects by default among the slices of one device; here all
    slices compete, wherever they lie. It takes its signs in bfloat16.
    """

    fraction: Part = 0.25
    decay: Decay = 0.95
    _: KW_ONLY
    signs: Orthogonalize = SIGNS
    weight_dimension_numbers: MatrixRule | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.signs.weight_dimension_numbers is not None:
            raise ValueError(
                "scale_by_dion2: signs has weight_dimension_numbers, expected an orthogonalize(...) without: they are an "
                "argument of their own."
            )

    @functools.cached_property
    def numbers(self) -> Callable[[Params], Numbers]:
        """The dimension numbers of each leaf."""
        return numbers_once("weight_dimension_numbers", self.weight_dimension_numbers)

    def init(self, params: Params) -> ScaleByDion2State:
        leaves, treedef = jax.tree.flatten(zeros_like(params))
        numbers = self.numbers(params)
        momentum = [MaskedNode() if entry is None else leaf for leaf, entry in zip(leaves, numbers, strict=True)]
        return ScaleByDion2State(treedef.unflatten(momentum))

    def step(
        self, updates: Updates, state: ScaleByDion2State, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByDion2State]:
        return on_automatic_axes(self.on_slices, jax.tree.leaves(updates), (updates, state), updates, state)

    def on_slices(self, updates: Updates, state: ScaleByDion2State) -> tuple[Updates, ScaleByDion2State]:
        """The rule."""
        numbers = self.numbers(updates)
        leaves, treedef = jax.tree.flatten(updates)
        momenta, of_matrices = jax.tree.flatten(state.momentum)
        some = select(updates, [entry is not None for entry in numbers])
        if jax.tree.structure(some) != of_matrices:
            raise_unlike(some, state.momentum)
        matrices = {i: entry for i, entry in enumerate(numbers) if entry is not None}
        entries = list(matrices.values())
        gathered = [leaves[i] + m for i, m in zip(matrices, momenta, strict=True)]
        parts, counts = all_parts(gathered, entries)
        owners = [i for i, count in zip(matrices, counts, strict=True) for _ in range(count)]
        sums = [_wide(to_matrices(x, plain)) for x, plain in parts]
        chosen = [self.largest(m) for m in sums]
        slices = [jax.vmap(lambda m, where: m[where])(m, where) for m, where in zip(sums, chosen, strict=True)]
        signs = self.signs.signs(slices, [MuonDimensionNumbers(1, 2)] * len(slices), updates, owners)
        directions = map(_placed, map(jnp.zeros_like, sums), chosen, signs)
        left = map(_placed, sums, chosen, [self.decay * x for x in slices])
        for results, kept in ((directions, False), (left, True)):
            turned = [_as_part(x, *part) for x, part in zip(results, parts, strict=True)]
            for k, (i, x) in enumerate(zip(matrices, all_joined(turned, counts, entries, gathered), strict=True)):
                if kept:
                    momenta[k] = x.astype(momenta[k].dtype)
                else:
                    leaves[i] = x.astype(leaves[i].dtype)
        return treedef.unflatten(leaves), ScaleByDion2State(of_matrices.unflatten(momenta))

    def largest(self, matrices: jax.Array) -> jax.Array:
        """Where the slices of the largest sums are in each matrix, `(batch, some)`."""
        sizes = jnp.sum(jnp.abs(matrices), axis=2)
        return jax.lax.top_k(sizes, math.ceil(self.fraction * sizes.shape[1]))[1]


def _wide(matrices: jax.Array) -> jax.Array:
    """A stack with its shorter axis first; of square matrices (in, out) the outputs."""
    return matrices if matrices.shape[1] < matrices.shape[2] else matrices.swapaxes(1, 2)


def _as_part(wide: jax.Array, like: jax.Array, numbers: MuonDimensionNumbers) -> jax.Array:
    """The part whose matrices `_wide` has made this of."""
    inputs, outputs = fan(numbers, like.shape)
    return from_matrices(wide if inputs < outputs else wide.swapaxes(1, 2), numbers, like.shape)


@jax.vmap
def _placed(matrix: jax.Array, where: jax.Array, slices: jax.Array) -> jax.Array:
    """A matrix with some of its slices replaced."""
    return matrix.at[where].set(slices.astype(matrix.dtype))


class dion2(Preset):
    """Dion2 for the matrices inside a network, AdamW for all else.

    A matrix moves by `-learning_rate * (sqrt(out/in) * u + weight_decay * p)`, `u` the direction of
    `scale_by_dion2`: the matrix sign of some slices of its momentum, and zeros. Parameters are
    routed as in `muon`; `explain(tx, params)` shows it.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves the slices of each matrix by
        `sqrt(out/in)` in spectral norm. The authors' default is 0.01.
      fraction: how many of the slices take part in a step, in (0, 1]; rounded up.
      decay: what the momentum of slices is multiplied by after they took part, in [0, 1).
      weight_decay: number >= 0 or schedule, decoupled, for the matrices. AdamW's parameters do not
        decay.
      weight_decay_mask: which matrices decay, as in `add_decayed_weights`; None is all.
      adam_learning_rate: of AdamW; None is `learning_rate`.
      muon_weight_dimension_numbers: `matrix_axes({...})` with rules of your own, or a tree of
        `MuonDimensionNumbers` with None for AdamW, or a function from the parameters to one. None
        is `matrix_axes()`.
      signs: how matrix signs are made: an `orthogonalize` without dimension numbers.

    State: `PartitionState` with labels `muon` (4 bytes a parameter) and `adam` (8).

    Raises:
      ValueError: `params` was not passed to `update`, or a parameter of three or more axes that no
        rule names.

    Example:
      >>> import gradtx
      >>> tx = gradtx.dion2(0.01, adam_learning_rate=1e-3)

    Source: Ahn et al. 2025, "Dion2", https://github.com/microsoft/dion, dion2.py.
    """

    learning_rate: Rate
    fraction: Part = 0.25
    decay: Decay = 0.95
    weight_decay: Rate = 0.01
    weight_decay_mask: Mask | None = None
    _: KW_ONLY
    adam_learning_rate: Rate | None = None
    muon_weight_dimension_numbers: MatrixRule | None = None
    signs: Orthogonalize = SIGNS

    def chain(self) -> partition:
        labels = muon_labels(self.muon_weight_dimension_numbers)
        matrices = chain(
            scale_by_dion2(self.fraction, self.decay, signs=self.signs, weight_dimension_numbers=labels.axes),
            scale_by_shape("spectral", weight_dimension_numbers=labels.axes),
            add_decayed_weights(self.weight_decay, self.weight_decay_mask),
            scale_by_learning_rate(self.learning_rate),
        )
        rate = self.learning_rate if self.adam_learning_rate is None else self.adam_learning_rate
        return partition({"muon": matrices, "adam": adamw(rate, weight_decay=0.0)}, labels)
