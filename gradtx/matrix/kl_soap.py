"""KL-SOAP: SOAP whose factors each see gradients whitened by the other one."""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Flag, Mask, NonNegative, PositiveInt, Rate
from gradtx.core.numerics import abs_sq, guarded_ratio, moments, real_dtype, running_mean
from gradtx.core.transformation import Transformation
from gradtx.core.types import Moment, Scalar, Squares, Tree
from gradtx.linalg.eigenbasis import Basis, after, rotate, rotate_back, tracked
from gradtx.matrix.dimensions import MatrixRule
from gradtx.matrix.in_eigenbasis import Clock, InEigenbasis, gram_mean
from gradtx.matrix.routing import matrix_axes
from gradtx.matrix.stacks import Group, Row
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

FIRST_VALUE = 0.1
"""What eigenvalues start at: `init_factor` of the authors' code."""


class KlSoapMatrices(NamedTuple):
    """For each shape of matrices a stack of moments in the bases, of factors, and of the bases;
    and the eigenvalue of each row of a basis, which is an eigenvector.
    """

    mu: Moment
    nu: Squares
    left: Tree
    right: Tree
    left_basis: Tree
    right_basis: Tree
    left_values: Tree = None
    right_values: Tree = None


class ScaleByKlSoapState(NamedTuple):
    """Steps taken, the moments of leaves that are no matrices, and what is kept of matrices."""

    count: jax.Array
    mu: Moment
    nu: Squares
    matrices: KlSoapMatrices


class scale_by_kl_soap(InEigenbasis, keeps_zero=True):
    """KL-SOAP's direction: SOAP's with the factors that are nearest to the gradients' covariance.

    With bases `Q_L`, `Q_R` and eigenvalues `d_L`, `d_R` of an `n x k` matrix, a factor takes in
    gradients whitened by the other one: `L = beta*L + (1-beta) * A A^T / k` for
    `A = G Q_R / sqrt(d_R)`, and `R` alike. The two are then nearest to the covariance in
    Kullback-Leibler divergence. Each step follows the eigenvalues, `d_L` by row means of
    `(Q_L^T G Q_R)^2 / d_R`; every
    `precondition_frequency` steps the bases turn, `Q = qr(L Q)`. The direction is
    `Q_L (m / (sqrt(v) + eps)) Q_R^T`, with moments in the bases and without bias correction. The
    first step makes the bases and moves nothing.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      shampoo_beta: decay of the factors and their eigenvalues, in [0, 1); None is `b2`.
      eps: added to the root of the second moment, >= 0; in units of the gradient.
      precondition_frequency: steps between two turns of the bases, >= 1. 1 turns them each step.
      max_precond_dim: the longest side with a basis, >= 1; a longer one has the identity.
      one_sided: whether only the shorter side of each matrix has a basis, which costs less memory
        and time where the other one is long. Of square matrices it is the left one.
      precondition_1d: whether vectors have a basis too, instead of Adam.
      precision: of products, as in `jax.lax.dot`.
      weight_dimension_numbers: which axes make a matrix: a tree of `MuonDimensionNumbers` (None
        where a leaf is no matrix), or a function from the parameters to one, such as `matrix_axes`.
        None takes leaves of two axes as matrices and refuses those of more. Other leaves have Adam
        without bias correction.

    State: `ScaleByKlSoapState(count int32, mu, nu, matrices)`: 8 bytes a parameter, and
    `8*(n^2 + k^2) + 4*(n + k)` for an `n x k` matrix. Matrices of one shape are one stack, whose
    parts lie on different devices.

    Raises:
      ValueError: a leaf of three or more axes without dimension numbers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_kl_soap(b1=0.0, b2=0.0)
      >>> grads = jnp.array([[3.0, 0.0], [0.0, -0.1]])
      >>> _, state = tx.update(grads, tx.init(grads))
      >>> tx.update(grads, state)[0].round(3) + 0.0
      Array([[ 1.,  0.],
             [ 0., -1.]], dtype=float32)

    Source: Lin et al. 2025, arXiv:2509.03378, as in https://github.com/yorkerlin/KL-Methods.

    **Differs:** the authors compute in bfloat16, and take leaves of two and three axes only, with a
    basis for every axis. Their roots of eigenvalues have a bound, `max(10, min(n, 4000))` for
    `1/sqrt(d)`, which is kept, and here holds for eigenvalues of exactly 0 too.
    """

    b1: Decay = 0.9
    b2: Decay = 0.98
    shampoo_beta: Decay | None = None
    eps: NonNegative = 1e-8
    precondition_frequency: PositiveInt = 10
    max_precond_dim: PositiveInt = 10_000
    _: KW_ONLY
    one_sided: Flag = False
    precondition_1d: Flag = False
    precision: PrecisionLike = None
    weight_dimension_numbers: MatrixRule | None = None

    row_type: ClassVar[type] = KlSoapMatrices
    state_type: ClassVar[type] = ScaleByKlSoapState
    turning: ClassVar[tuple[str, ...]] = ("mu", "left_basis", "right_basis")

    def zero_row(self, group: Group, zeros: Callable[..., jax.Array]) -> Row:
        row = super().zero_row(group, zeros)

        def values(factor: Basis, size: int) -> Basis:
            return None if factor is None else zeros(size, dtype=real_dtype(group.dtype)) + FIRST_VALUE

        n, m = group.shape
        return row._replace(left_values=values(row.left, n), right_values=values(row.right, m))

    def of_matrix(self, clock: Clock, g: jax.Array, row: Row) -> tuple[jax.Array, Row]:
        halves = rotate(g, row.left_basis, None, self.precision), rotate(g, None, row.right_basis, self.precision)
        inside = rotate(halves[0], None, row.right_basis, self.precision)
        m, v = moments(inside, row.mu, row.nu, self.b1, self.b2)
        u = rotate_back(self.direction(m, v), row.left_basis, row.right_basis, self.precision)
        row = self.gathered(clock, g, halves, row._replace(mu=m, nu=v))
        return u, self.turned(clock, self.with_values(clock, inside, row))

    def of_leaf(self, clock: Clock, g: jax.Array, m: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        m, v = moments(jnp.where(clock.first, 0, g), m, v, self.b1, self.b2)
        return self.direction(m, v), m, v

    def direction(self, m: jax.Array, v: jax.Array) -> jax.Array:
        """Adam's without bias correction; 0 before there are moments."""
        return guarded_ratio(m, jnp.sqrt(v) + self.eps, self.eps)

    @property
    def beta(self) -> Scalar:
        """The decay of factors and eigenvalues."""
        return self.b2 if self.shampoo_beta is None else self.shampoo_beta

    def gathered(self, clock: Clock, g: jax.Array, halves: tuple[jax.Array, jax.Array], row: Row) -> Row:
        """The factors with one more gradient, whitened on the other side, but for the first one."""
        n, k = g.shape
        on_left = jnp.where(clock.first, g, _whitened(halves[0], row.left_values, 0))
        on_right = jnp.where(clock.first, g, _whitened(halves[1], row.right_values, 1))
        return row._replace(
            left=gram_mean(row.left, on_right.conj().T / math.sqrt(k), self.beta, self.precision),
            right=gram_mean(row.right, on_left / math.sqrt(n), self.beta, self.precision),
        )

    def with_values(self, clock: Clock, inside: jax.Array, row: Row) -> Row:
        """The eigenvalues, which take in the gradient in the bases, whitened on the other side."""

        def followed(values: Basis, whitened: jax.Array, other: int) -> Basis:
            if values is None:
                return None
            bound = max(10, min(values.shape[0], 4000))  # of 1 / sqrt(value), by the authors
            after = jnp.maximum(running_mean(values, jnp.mean(abs_sq(whitened), axis=other), self.beta), bound**-2)
            return jnp.where(clock.first, values, after)

        left = followed(row.left_values, _whitened(inside, row.right_values, 1), 1)
        right = followed(row.right_values, _whitened(inside, row.left_values, 0), 0)
        return row._replace(left_values=left, right_values=right)

    def followed(self, row: Row) -> Row:
        """The order stays, so that eigenvalues and the second moment stay as they are."""
        m = rotate_back(row.mu, row.left_basis, row.right_basis, self.precision)
        left = None if row.left is None else tracked(row.left, row.left_basis, self.precision)
        right = None if row.right is None else tracked(after(row.right, left), row.right_basis, self.precision)
        return row._replace(mu=rotate(m, left, right, self.precision), left_basis=left, right_basis=right)


def _whitened(x: jax.Array, values: Basis, axis: int) -> jax.Array:
    """`x` over the roots of eigenvalues along an axis."""
    return x if values is None else x / jnp.sqrt(jnp.expand_dims(values, 1 - axis))


class kl_soap(Preset):
    """KL-SOAP with decoupled weight decay: `-learning_rate * (u + weight_decay * p)`.

    `u` is the direction of `scale_by_kl_soap` for the matrices inside a network, which
    `matrix_axes` tells from other parameters; those have Adam's, with the same decays and rate. Its
    update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 a step. Often
        1e-3.
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      shampoo_beta: decay of the factors and their eigenvalues, in [0, 1); None is `b2`.
      eps: added to the root of the second moment, >= 0; in units of the gradient.
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

    State: `(ScaleByKlSoapState, WeightDecayState, ScaleByLearningRateState)`: 8 bytes a parameter,
    and `8*(n^2 + k^2) + 4*(n + k)` for an `n x k` matrix.

    Raises:
      ValueError: `params` was not passed to `update`, or a parameter of three or more axes that no
        rule names.

    Example:
      >>> import gradtx
      >>> tx = gradtx.kl_soap(1e-3, max_precond_dim=4096)

    Source: Lin et al. 2025, arXiv:2509.03378.

    **Differs:** the authors decay parameters after the step, none at the first one.
    """

    learning_rate: Rate
    b1: Decay = 0.9
    b2: Decay = 0.98
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
        direction = scale_by_kl_soap(
            self.b1,
            self.b2,
            self.shampoo_beta,
            self.eps,
            self.precondition_frequency,
            self.max_precond_dim,
            one_sided=self.one_sided,
            precondition_1d=self.precondition_1d,
            weight_dimension_numbers=matrix_axes() if self.weight_dimension_numbers is None else self.weight_dimension_numbers,
        )
        return chain(direction, add_decayed_weights(self.weight_decay, self.mask), scale_by_learning_rate(self.learning_rate))
