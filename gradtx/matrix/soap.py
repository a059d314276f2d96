"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from dataclasses import KW_ONLY
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Flag, Mask, NonNegative, PositiveInt, Rate
from gradtx.core.numerics import abs_sq, guarded_ratio, moments, one_minus_power, real_dtype
from gradtx.core.transformation import Transformation
from gradtx.core.types import Moment, Squares, Tree
from gradtx.linalg.eigenbasis import Basis, after, rotate, rotate_back, sorted_and_tracked
from gradtx.matrix.dimensions import MatrixRule
from gradtx.matrix.in_eigenbasis import Clock, InEigenbasis, gram_mean
from gradtx.matrix.routing import matrix_axes
from gradtx.matrix.stacks import Row
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate


class SoapMatrices(NamedTuple):
    """For each shape of matrices a stack of moments in the bases, of factors, and of the bases.

    The rows of a basis are eigenvectors.
    """

    mu: Moment
    nu: Squares
    left: Tree
    right: Tree
    left_basis: Tree
    right_basis: Tree


class ScaleBySoapState(NamedTuple):
    """Steps taken, the moments of leaves that are no matrices, and what is kept of matrices."""

    count: jax.Array
    mu: Moment
    nu: Squares
    matrices: SoapMatrices


class scale_by_soap(InEigenbasis, keeps_zero=True):
    """SOAP's direction: Adam in the eigenbases `Q_L`, `Q_R` of running means of `G G^T`, `G^T G`.

    With `g = Q_L^T G Q_R`, `m = b1*m + (1-b1)*g` and `v = b2*v + (1-b2)*g^2` it is
    `Q_L (m / (sqrt(v) + eps)) Q_R^T * sqrt(1-b2^t) / (1-b1^t)`. After it `L` and `R` take in `G`,
    and every `precondition_frequency` steps each basis takes one step of the orthogonal iteration,
    `Q = qr(L Q)`, its columns sorted by falling eigenvalues. The first step makes the bases and
    moves nothing.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      shampoo_beta: decay of `L` and `R`, in [0, 1); None is `b2`.
      eps: added to the root of the second moment, before its bias is corrected, >= 0; in units of
        the gradient.
      precondition_frequency: steps between two turns of the bases, >= 1. 1 turns them each step.
      max_precond_dim: the longest side with a basis, >= 1; a longer one has the identity.
      one_sided: whether only the shorter side of each matrix has a basis, which costs less memory
        and time where the other one is long. Of square matrices it is the left one.
      precondition_1d: whether vectors have a basis too, instead of Adam.
      normalize: whether each matrix of a direction is divided by its root mean square, before the
        bias correction. The authors advise it for frequencies of about 100.
      precision: of products, as in `jax.lax.dot`.
      weight_dimension_numbers: which axes make a matrix: a tree of `MuonDimensionNumbers` (None
        where a leaf is no matrix), or a function from the parameters to one, such as `matrix_axes`.
        None takes leaves of two axes as matrices and refuses those of more. Other leaves have Adam.

    State: `ScaleBySoapState(count int32, mu, nu, matrices)`: 8 bytes a parameter, and
    `8*(n^2 + m^2)` for an `n x m` matrix. Matrices of one shape are one stack, whose parts lie on
    different devices.

    Raises:
      ValueError: a leaf of three or more axes without dimension numbers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_soap()
      >>> grads = jnp.array([[3.0, 0.0], [0.0, -0.1]])
      >>> _, state = tx.update(grads, tx.init(grads))
      >>> tx.update(grads, state)[0].round(3) + 0.0
      Array([[ 1.,  0.],
             [ 0., -1.]], dtype=float32)

    Source: Vyas et al. 2024, arXiv:2409.11321, algorithm 3, as in
    https://github.com/nikhilvyas/SOAP.
    """

    b1: Decay = 0.95
    b2: Decay = 0.95
    shampoo_beta: Decay | None = None
    eps: NonNegative = 1e-8
    precondition_frequency: PositiveInt = 10
    max_precond_dim: PositiveInt = 10_000
    _: KW_ONLY
    one_sided: Flag = False
    precondition_1d: Flag = False
    normalize: Flag = False
    precision: PrecisionLike = None
    weight_dimension_numbers: MatrixRule | None = None

    row_type: ClassVar[type] = SoapMatrices
    state_type: ClassVar[type] = ScaleBySoapState
    turning: ClassVar[tuple[str, ...]] = ("mu", "nu", "left_basis", "right_basis")

    def of_matrix(self, clock: Clock, g: jax.Array, row: Row) -> tuple[jax.Array, Row]:
        bases = row.left_basis, row.right_basis
        m, v = moments(rotate(g, *bases, self.precision), row.mu, row.nu, self.b1, self.b2)
        u = rotate_back(self.direction(m, v), *bases, self.precision)
        return self.sized(clock, u), self.turned(clock, self.gathered(g, row._replace(mu=m, nu=v)))

    def of_leaf(self, clock: Clock, g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        m, v = moments(jnp.where(clock.first, 0, g), m, v, self.b1, self.b2)
        return self.sized(clock, self.direction(m, v)), m, v

    def direction(self, m: jax.Array, v: jax.Array) -> jax.Array:
        """Adam's, without bias correction; 0 before there are moments."""
        return guarded_ratio(m, jnp.sqrt(v) + self.eps, self.eps)

    def sized(self, clock: Clock, u: jax.Array) -> jax.Array:
        """A direction with the bias correction, after `normalize`."""
        t = jnp.maximum(clock.t, 1)
        correction = jnp.sqrt(one_minus_power(self.b2, t)) / one_minus_power(self.b1, t)
        size = 1e-30 + jnp.sqrt(jnp.mean(abs_sq(u))) if self.normalize and u.size else 1
        return u * (correction / size).astype(real_dtype(u.dtype))

    def gathered(self, g: jax.Array, row: Row) -> Row:
        """`L` and `R` with one more gradient."""
        beta = self.b2 if self.shampoo_beta is None else self.shampoo_beta
        return row._replace(
            left=gram_mean(row.left, g.conj().T, beta, self.precision), right=gram_mean(row.right, g, beta, self.precision)
        )

    def followed(self, row: Row) -> Row:
        """The first moment is turned into the new bases; of the second one, entries only move along
        with their eigenvectors.
        """
        m = rotate_back(row.mu, row.left_basis, row.right_basis, self.precision)
        left, right, v = sorted_bases(row, self.precision)
        return row._replace(mu=rotate(m, left, right, self.precision), nu=v, left_basis=left, right_basis=right)


def sorted_bases(row: Row, precision: PrecisionLike) -> tuple[Basis, Basis, jax.Array]:
    """The bases after one step of the iteration, and the second moment in their order."""
    left, right, v = row.left_basis, row.right_basis, row.nu
    if left is not None:
        left, order = sorted_and_tracked(row.left, left, precision)
        v = v[order]
    if right is not None:
        right, order = sorted_and_tracked(after(row.right, left), right, precision)
        v = v[:, order]
    return left, right, v


class soap(Preset):
    """SOAP with decoupled weight decay: `-learning_rate * (u + weight_decay * p)`.

    `u` is the direction of `scale_by_soap` for the matrices inside a network, which `matrix_axes`
    tells from other parameters; those have Adam's, with the same decays and rate. Its update needs
    `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. Often
        3e-3.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      shampoo_beta: decay of `L` and `R`, in [0, 1); None is `b2`.
      eps: added to the root of the second moment, before its bias is corrected, >= 0; in units of
        the gradient.
      precondition_frequency: steps between two turns of the bases, >= 1. 1 turns them each step.
      max_precond_dim: the longest side with a basis, >= 1; a longer one has the identity.
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.
      one_sided: whether only the shorter side of each matrix has a basis, which costs less memory
        and time where the other one is long. Of square matrices it is the left one.
      precondition_1d: whether vectors have a basis too, instead of Adam.
      weight_dimension_numbers: `matrix_axes({...})` with rules of your own, or a tree of
        `MuonDimensionNumbers` with None for Adam, or a function from the parameters to one. None is
        `matrix_axes()`.

    State: `(ScaleBySoapState, WeightDecayState, ScaleByLearningRateState)`: 8 bytes a parameter,
    and `8*(n^2 + m^2)` for an `n x m` matrix.

    Raises:
      ValueError: `params` was not passed to `update`, or a parameter of three or more axes that no
        rule names.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}
      >>> tx = gradtx.soap(3e-3, weight_decay=0.01, one_sided=True)
      >>> state = tx.init(params)[0].matrices
      >>> {name: basis.shape for name, basis in state.left_basis.items()}, state.right_basis
      ({'4x8': (1, 4, 4)}, {})

    Source: Vyas et al. 2024, arXiv:2409.11321.

    **Differs:** the authors decay parameters after the step, none at the first one, and give every
    axis of an array of three or more a basis; here such arrays are matrices. Embeddings and output
    heads are matrices there.
    """

    learning_rate: Rate
    b1: Decay = 0.95
    b2: Decay = 0.95
    shampoo_beta: Decay | None = None
    eps: NonNegative = 1e-8
    precondition_frequency: PositiveInt = 10
    max_precond_dim: PositiveInt = 10_000
    weight_decay: Rate = 0.01
    mask: Mask | None = None
    _: KW_ONLY
    one_sided: Flag = False
    precondition_1d: Flag = False
    weight_dimension_numbers: MatrixRule | None = None

    def chain(self) -> Transformation:
        axes = matrix_axes() if self.weight_dimension_numbers is None else self.weight_dimension_numbers
        direction = scale_by_soap(
            self.b1,
            self.b2,
            self.shampoo_beta,
            self.eps,
            self.precondition_frequency,
            self.max_precond_dim,
            one_sided=self.one_sided,
            precondition_1d=self.precondition_1d,
            weight_dimension_numbers=axes,
        )
        return chain(direction, add_decayed_weights(self.weight_decay, self.mask), scale_by_learning_rate(self.learning_rate))
