"""Optax's iterations of linear algebra: the largest eigenvalue, inverse roots, least squares."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradtx.core import checks
from gradtx.core.checked import checked
from gradtx.core.domains import NonNegative, NonNegativeInt, PositiveInt
from gradtx.core.numerics import promote
from gradtx.core.types import Scalar, Tree
from gradtx.core.varying import while_loop
from gradtx.tree.reductions import norm, vdot


def _unit(tree: Tree, otherwise: Tree) -> Tree:
    """A tree over its norm; where that is 0, the other one."""
    length = norm(tree)
    zero = length == 0
    by = jnp.where(zero, 1, length)
    return jax.tree.map(lambda x, y: jnp.where(zero, y, x / by.astype(x.real.dtype)), tree, otherwise)


@checked
def power_iteration(
    matrix: jax.Array | Callable[[Tree], Tree],
    *,
    v0: Tree | None = None,
    num_iters: NonNegativeInt = 100,
    error_tolerance: NonNegative = 1e-6,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
    key: jax.Array | None = None,
) -> tuple[jax.Array, Tree]:
    """The eigenvalue of largest magnitude, and a unit eigenvector: `v <- A v / |A v|`.

    `gradtx.diagnostics.top_eigenvalues` finds several, in fewer products.

    Args:
      matrix: a symmetric matrix, or a function from a tree to the product with it.
      v0: where to start; needed for a function. None draws uniform numbers.
      num_iters: most products, >= 0.
      error_tolerance: it stops where `|A v - w v| < error_tolerance * |w|`.
      precision: of the products with a matrix, as in `jax.lax.dot`.
      key: random key for the start; None is that of seed 0.

    Returns:
      The eigenvalue, and its eigenvector, in the form of `v0`.

    Raises:
      ValueError: a function without `v0`.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> value, vector = optax.power_iteration(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
      >>> round(float(value), 4), jnp.abs(vector).round(3)
      (3.0, Array([0.707, 0.707], dtype=float32))

    **Differs:** in Optax a matrix of zeros gives NaN; here it gives 0.
    """
    product = matrix if callable(matrix) else lambda v: jnp.matmul(matrix, v, precision=precision)
    if v0 is None:
        if callable(matrix):
            raise checks.WrongValue("v0 is missing: a function does not say what it takes.")
        key = jax.random.key(0) if key is None else key
        v0 = jax.random.uniform(key, matrix.shape[-1:], matrix.dtype, minval=-1.0, maxval=1.0)
    start = _unit(v0, v0)

    def goes_on(carry: tuple) -> jax.Array:
        v, product_v, value, i = carry
        residual = norm(jax.tree.map(lambda w, x: w - value.astype(x.dtype) * x, product_v, v))
        return ~(jnp.abs(residual / value) < error_tolerance) & (i < num_iters)

    def turn(carry: tuple) -> tuple:
        v, product_v, _, i = carry
        v = _unit(product_v, v)
        product_v = product(v)
        return v, product_v, jnp.real(vdot(v, product_v)), i + 1

    first = product(start)
    v, product_v, value, _ = while_loop(goes_on, turn, (start, first, jnp.zeros_like(jnp.real(vdot(start, first))), 0))
    return value, _unit(product_v, v)


def _power(m: jax.Array, p: int, precision: jax.lax.PrecisionLike) -> jax.Array:
    """`m^p` of a matrix by squaring, `p >= 1`."""
    if p == 1:
        return m
    half = _power(m, p // 2, precision)
    square = jnp.matmul(half, half, precision=precision)
    return jnp.matmul(square, m, precision=precision) if p % 2 else square


@checked
def matrix_inverse_pth_root(
    matrix: jax.Array,
    p: PositiveInt,
    num_iters: NonNegativeInt = 100,
    ridge_epsilon: NonNegative = 1e-6,
    error_tolerance: NonNegative = 1e-6,
    precision: jax.lax.PrecisionLike = jax.lax.Precision.HIGHEST,
) -> tuple[jax.Array, jax.Array]:
    """`(A + r I)^(-1/p)` of a positive semidefinite matrix, by coupled Newton steps.

    `M <- N^p M` and `H <- H N`, where `N = (1 + 1/p) I - M/p`: as `M` goes to the identity, `H`
    goes to the root. `r` is `ridge_epsilon` times the largest eigenvalue.

    Args:
      matrix: symmetric, positive semidefinite.
      p: a whole number >= 1.
      num_iters: most steps, >= 0.
      ridge_epsilon: share of the largest eigenvalue that is added to all, >= 0.
      error_tolerance: it stops where no element of `M` is further than this from the identity's, or
        where that error grows by a fifth in a step.
      precision: of products, as in `jax.lax.dot`.

    Returns:
      The root, and the last error.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> root, error = optax.matrix_inverse_pth_root(jnp.diag(jnp.array([16.0, 81.0])), 4)
      >>> root.round(3)
      Array([[0.5  , 0.   ],
             [0.   , 0.333]], dtype=float32)

    Source: Higham 2008, "Functions of Matrices", equation 7.18.

    **Differs:** Optax computes in float32 always, and takes `p` for the nearest power of two up to
    8 inside the loop, so that other roots are wrong.
    """
    wide = promote(matrix)
    eye = jnp.eye(wide.shape[0], dtype=wide.dtype)
    largest, _ = power_iteration(wide, precision=precision)
    ridge = ridge_epsilon * jnp.maximum(largest, 1e-16)
    if wide.shape[0] == 1:
        return ((wide + ridge) ** (-1 / p)).astype(matrix.dtype), jnp.zeros((), wide.dtype)
    damped = wide + ridge * eye

    def goes_on(carry: tuple) -> jax.Array:
        i, _, _, _, error, falls = carry
        return (i < num_iters) & (error > error_tolerance) & falls

    def turn(carry: tuple) -> tuple:
        i, m, h, _, error, _ = carry
        n = (1 + 1 / p) * eye - m / p
        m, new = jnp.matmul(_power(n, p, precision), m, precision=precision), jnp.matmul(h, n, precision=precision)
        after = jnp.max(jnp.abs(m - eye))
        return i + 1, m, new, h, after, after < error * 1.2

    z = (1 + p) / (2 * jnp.linalg.norm(damped))
    m, h = damped * z, eye * z ** (1 / p)
    start = (0, m, h, h, jnp.max(jnp.abs(m - eye)), jnp.asarray(True))
    _, _, new, old, error, falls = while_loop(goes_on, turn, start)
    return jnp.where(falls, new, old).astype(matrix.dtype), error


@checked
def nnls(
    A: jax.Array,  # Optax's names
    b: jax.Array,
    iters: NonNegativeInt,
    unroll: int | bool = 1,
    L: Scalar | None = None,
) -> jax.Array:
    """Least squares without negative numbers: the `x >= 0` with the least `|A x - b|`.

    By projected gradients with Nesterov's momentum: `x = max(p - (A^T A p - A^T b)/L, 0)`.

    Args:
      A: matrix of shape `(m, n)`.
      b: `(m,)`, or `(m, k)` for `k` problems.
      iters: how many steps, >= 0.
      unroll: how many steps one turn of the loop has, as in `jax.lax.scan`.
      L: a bound of the largest eigenvalue of `A^T A`; None takes the smaller of two of its norms.

    Returns:
      `x`, of shape `(n,)` or `(n, k)`.

    Raises:
      ValueError: the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> A, b = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([5.0, 6.0])
      >>> [round(float(x), 2) for x in optax.nnls(A, b, 1000)]
      [0.0, 1.7]

    Source: Polyak 2015, "Projected gradient method for non-negative least square".
    """
    if A.ndim != 2 or b.ndim not in (1, 2) or b.shape[0] != A.shape[0]:
        raise checks.WrongValue(f"A has shape {A.shape} and b {b.shape}, expected (m, n), and (m,) or (m, k).")
    square, target = jnp.matmul(A.mT, A, precision="highest"), jnp.matmul(A.mT, b, precision="highest")
    bound = jnp.asarray(_spectral_bound(square) if L is None else L, square.dtype)
    bound = jnp.where(bound == 0, 1, bound)

    def turn(carry: tuple, _: None) -> tuple[tuple, None]:
        x, p, c = carry
        after = (1 + jnp.sqrt(1 + 4 * c**2)) / 2
        new = jnp.maximum(p - (jnp.matmul(square, p, precision="highest") - target) / bound, 0)
        return (new, new + (c - 1) / after * (new - x), after), None

    zeros = jnp.zeros_like(target)
    (x, _, _), _ = jax.lax.scan(turn, (zeros, zeros, jnp.zeros((), target.dtype)), length=iters, unroll=unroll)
    return x


def _spectral_bound(square: jax.Array) -> jax.Array:
    """The smaller of the Frobenius norm and the largest sum of a column's magnitudes."""
    sums = jnp.max(jnp.sum(jnp.abs(square), axis=0), initial=0)
    return jnp.minimum(jnp.linalg.norm(square), sums)
