"""SOAP-Muon: the matrix sign of a momentum that is whitened in Shampoo's eigenbasis."""

from dataclasses import KW_ONLY
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike

from gradtx.compose.chain import chain
from gradtx.compose.partition import partition
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Flag, Mask, NonNegative, PositiveInt, Rate
from gradtx.core.numerics import abs_sq, guarded_ratio, running_mean
from gradtx.core.types import Moment, Squares
from gradtx.linalg.eigenbasis import rotate, rotate_back
from gradtx.matrix.dimensions import MatrixRule
from gradtx.matrix.in_eigenbasis import Clock, InEigenbasis, gram_mean
from gradtx.matrix.muon import scale_by_shape
from gradtx.matrix.orthogonalize import orthogonalize
from gradtx.matrix.routing import muon_labels
from gradtx.matrix.soap import SoapMatrices, sorted_bases
from gradtx.matrix.stacks import Row
from gradtx.optimizers.adam import adamw
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

CUBIC = (2.0, -1.5, 0.5)
"""The coefficients of the record, of which 12 steps make a matrix sign."""


class ScaleBySoapMuonState(NamedTuple):
    """Steps taken, the moments of leaves that are no matrices, and what is kept of matrices."""

    count: jax.Array
    mu: Moment
    nu: Squares
    matrices: SoapMatrices


class scale_by_soap_muon(InEigenbasis, keeps_zero=True):
    """A Nesterov momentum, whitened in the eigenbases `Q_L`, `Q_R` of means of `G G^T`, `G^T G`.

    With `m = beta*m + (1-beta)*G` and `u = beta*m + (1-beta)*G`, in the bases `p = Q_L^T u Q_R`,
    and `v = b2*v + (1-b2)*p^2`, it is `Q_L (p / sqrt(max(v, eps^2))) Q_R^T`. It stands before
    `orthogonalize`, which is free of scale. After it `L` and `R` take in `G`, and the bases turn as
    SOAP's. The first step has no bases yet, and gives `u`.

    Args:
      beta: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      shampoo_beta: decay of `L` and `R`, in [0, 1); None is `b2`.
      eps: the least root of the second moment, >= 0; in units of the gradient.
      precondition_frequency: steps between two turns of the bases, >= 1. 1 turns them each step.
      max_precond_dim: the longest side with a basis, >= 1; a longer one has the identity.
      one_sided: whether only the shorter side of each matrix has a basis, which costs less memory
        and time where the other one is long. Of square matrices it is the left one.
      precondition_1d: whether vectors have a basis too.
      precision: of products, as in `jax.lax.dot`.
      weight_dimension_numbers: which axes make a matrix: a tree of `MuonDimensionNumbers` (None
        where a leaf is no matrix), or a function from the parameters to one, such as `matrix_axes`.
        None takes leaves of two axes as matrices and refuses those of more. Other leaves are
        whitened as they are, without bases.

    State: `ScaleBySoapMuonState(count int32, mu, nu, matrices)`: 8 bytes a parameter, and
    `8*(n^2 + m^2)` for an `n x m` matrix. Matrices of one shape are one stack, whose parts lie on
    different devices.

    Raises:
      ValueError: a leaf of three or more axes without dimension numbers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.scale_by_soap_muon(), gradtx.orthogonalize())
      >>> grads = jnp.array([[3.0, 0.0], [0.0, -0.1]])
      >>> tx.update(grads, tx.init(grads))[0].round(3) + 0.0
      Array([[ 1.,  0.],
             [ 0., -1.]], dtype=float32)

    Source: https://github.com/KellerJordan/modded-nanogpt, track 3, record 44, which no paper
    describes. Its core is here. Left out are what would need links of their own: the blend of
    whitened and plain momentum for projections out of attention, which a gate of that network
    weighs, and all that follows the matrix sign there, since it holds the norms of weights.
    """

    beta: Decay = 0.95
    b2: Decay = 0.9
    shampoo_beta: Decay | None = None
    eps: NonNegative = 1e-8
    precondition_frequency: PositiveInt = 1
    max_precond_dim: PositiveInt = 10_000
    _: KW_ONLY
    one_sided: Flag = False
    precondition_1d: Flag = False
    precision: PrecisionLike = None
    weight_dimension_numbers: MatrixRule | None = None

    row_type: ClassVar[type] = SoapMatrices
    state_type: ClassVar[type] = ScaleBySoapMuonState
    turning: ClassVar[tuple[str, ...]] = ("nu", "left_basis", "right_basis")

    def of_matrix(self, clock: Clock, g: jax.Array, row: Row) -> tuple[jax.Array, Row]:
        bases = row.left_basis, row.right_basis
        m = running_mean(row.mu, g, self.beta)
        u = running_mean(m, g, self.beta)
        inside, v = self.whitened(rotate(u, *bases, self.precision), row.nu)
        whitened = jnp.where(clock.first, u, rotate_back(inside, *bases, self.precision))
        decay = self.b2 if self.shampoo_beta is None else self.shampoo_beta
        left = gram_mean(row.left, g.conj().T, decay, self.precision)
        right = gram_mean(row.right, g, decay, self.precision)
        return whitened, self.turned(clock, row._replace(mu=m, nu=v, left=left, right=right))

    def of_leaf(self, clock: Clock, g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        m = running_mean(m, g, self.beta)
        u = running_mean(m, g, self.beta)
        whitened, v = self.whitened(u, v)
        return whitened, m, v

    def whitened(self, p: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`p` over the root of its mean square; and that mean."""
        v = running_mean(v, abs_sq(p), self.b2)
        return guarded_ratio(p, jnp.maximum(jnp.sqrt(v), self.eps), self.eps), v

    def followed(self, row: Row) -> Row:
        """The momentum stands outside of the bases."""
        left, right, v = sorted_bases(row, self.precision)
        return row._replace(left_basis=left, right_basis=right, nu=v)


class soap_muon(Preset):
    """SOAP-Muon for the matrices inside a network, AdamW for all else.

    A matrix moves by `-learning_rate * (shape * msign(s) + weight_decay * p)`, where `s` is the
    momentum that `scale_by_soap_muon` whitens, and `shape` is `sqrt(max(1, out/in))`. Parameters
    are routed as in `muon`; `explain(tx, params)` shows where each one goes.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each matrix by `sqrt(max(1, out/in))`
        in spectral norm. Often 0.02.
      beta: decay of the momentum, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      shampoo_beta: decay of `L` and `R`, in [0, 1); None is `b2`.
      eps: the least root of the second moment, >= 0; in units of the gradient.
      precondition_frequency: steps between two turns of the bases, >= 1. 1 turns them each step.
      max_precond_dim: the longest side with a basis, >= 1; a longer one has the identity.
      weight_decay: number >= 0 or schedule, decoupled, for the matrices. AdamW's parameters do not
        decay.
      weight_decay_mask: which matrices decay, as in `add_decayed_weights`; None is all.
      adam_learning_rate: of AdamW; None is `learning_rate`.
      one_sided: whether only the shorter side of each matrix has a basis, which costs less memory
        and time where the other one is long. Of square matrices it is the left one.
      muon_weight_dimension_numbers: `matrix_axes({...})` with rules of your own, or a tree of
        `MuonDimensionNumbers` with None for AdamW, or a function from the parameters to one. None
        is `matrix_axes()`.

    State: `PartitionState` with labels `muon` (8 bytes a parameter, and `8*(n^2 + m^2)` for an
    `n x m` matrix) and `adam` (8).

    Raises:
      ValueError: `params` was not passed to `update`, or a parameter of three or more axes that no
        rule names.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}
      >>> tx = gradtx.soap_muon(0.02, precondition_frequency=10)
      >>> print(gradtx.explain(tx, params))
      parameter  shape   to    why
      bias       (8,)    adam  a vector
      kernel     (4, 8)  muon  a matrix: inputs (0,), outputs (1,)

    Source: https://github.com/KellerJordan/modded-nanogpt, track 3, record 44.

    **Differs:** the record keeps each weight at a norm of its own, halves the part of an update
    that would lengthen a weight, and lifts short updates to a floor; AdamW has no bias correction
    there. It multiplies in bfloat16.
    """

    learning_rate: Rate
    beta: Decay = 0.95
    b2: Decay = 0.9
    shampoo_beta: Decay | None = None
    eps: NonNegative = 1e-8
    precondition_frequency: PositiveInt = 1
    max_precond_dim: PositiveInt = 10_000
    weight_decay: Rate = 0.0
    weight_decay_mask: Mask | None = None
    _: KW_ONLY
    adam_learning_rate: Rate | None = None
    one_sided: Flag = False
    muon_weight_dimension_numbers: MatrixRule | None = None

    def chain(self) -> partition:
        labels = muon_labels(self.muon_weight_dimension_numbers)
        axes = labels.axes
        whitened = scale_by_soap_muon(
            self.beta,
            self.b2,
            self.shampoo_beta,
            self.eps,
            self.precondition_frequency,
            self.max_precond_dim,
            one_sided=self.one_sided,
            weight_dimension_numbers=axes,
        )
        matrices = chain(
            whitened,
            orthogonalize(CUBIC, 12, normalization="schatten4", weight_dimension_numbers=axes),
            scale_by_shape(weight_dimension_numbers=axes),
            add_decayed_weights(self.weight_decay, self.weight_decay_mask),
            scale_by_learning_rate(self.learning_rate),
        )
        rate = self.learning_rate if self.adam_learning_rate is None else self.adam_learning_rate
        return partition({"muon": matrices, "adam": adamw(rate, weight_decay=0.0)}, labels)
