"""The Hessian of a loss and its Gauss-Newton matrix: eigenvalues, trace, spectral density.

Nothing here forms a matrix. A product costs about two gradients of the data. Parameters are any
tree of real floating arrays (Flax, Equinox, a dict); those in half precision are taken in float32.
`batches` is explained in `gradtx.diagnostics.batches`.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks, domains
from gradtx.core.checked import checked
from gradtx.core.domains import Flag, Function, PositiveInt
from gradtx.core.numerics import common_dtype
from gradtx.core.types import Params, Scalar, Tree
from gradtx.core.vectors import from_vector, to_vector
from gradtx.diagnostics.batches import Data, LossFn, gather, mean_over
from gradtx.diagnostics.inputs import Key, Samples, each, key_or_default, like_params, real_params, scalar_loss
from gradtx.diagnostics.progress import Tick, bar
from gradtx.linalg.eigen import Tridiagonal, lanczos, power_of_two, ritz

Which = Annotated[str, domains.one_of("algebraic", "magnitude")]
BANDWIDTH = 0.01
POINTS = 512
PredictFn = Callable[..., Tree]
"""A function of the parameters and a batch to the outputs."""


class Estimate(NamedTuple):
    """A mean over random draws, and its standard error; scalars."""

    value: jax.Array
    standard_error: jax.Array


class Eigenpairs(NamedTuple):
    """Eigenvalues, the largest first.

    Attributes:
      values: `(k,)`.
      vectors: a tree like the parameters whose leaves have a leading axis of k: unit eigenvectors.
      residuals: `(k,)`, `|H v - value v|` with the rounding of the products: within it of each
        value lies an eigenvalue of H.
    """

    values: jax.Array
    vectors: Tree
    residuals: jax.Array


class SpectralDensity(NamedTuple):
    """How the eigenvalues are distributed.

    Attributes:
      nodes: `(samples, steps)`, eigenvalues of the tridiagonal matrices.
      weights: `(samples, steps)`, the share of the spectrum at each node; 1 in all for each sample.
        The mean over samples of `sum weights * nodes**p` estimates `trace(H**p) / n`, for p up to
        `2 steps - 1`.
      grid: `(points,)`, where the curve is taken.
      density: `(points,)`, nodes blurred by Gaussians of width `bandwidth`; its integral is 1.
    """

    nodes: jax.Array
    weights: jax.Array
    grid: jax.Array
    density: jax.Array


@checked
def hvp(loss_fn: Function, params: Params, vector: Tree, batches: Tree = (), *, batch_size: PositiveInt | None = None) -> Tree:
    """`H v`, the Hessian of the loss times a vector: the gradient's derivative along it.

    Args:
      loss_fn: function of the parameters and a batch to the mean loss, a scalar.
      params: tree of real floating arrays.
      vector: tree like the parameters.
      batches: one batch `(x, y)`, or an iterable of them; `()` if `loss_fn` takes none.
      batch_size: cuts one batch into several of this size, to save memory.

    Returns:
      A tree like the parameters, in at least float32.

    Raises:
      TypeError, ValueError: an argument outside its domain, unlike trees, a loss that is no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.diagnostics import hvp
      >>> loss, x = lambda w, x: jnp.mean((x @ w) ** 2), jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> hvp(loss, jnp.ones(2), jnp.array([1.0, 0.0]), (x,))
      Array([10., 14.], dtype=float32)

    Source: Pearlmutter 1994, "Fast exact multiplication by the Hessian".
    """
    params = real_params(params)
    vector = like_params("vector", vector, params)
    return mean_over(gather(loss_fn, batches, batch_size), partial(_product, loss_fn, None, params, vector))


@checked
def gauss_newton_vp(
    predict_fn: Function,
    loss_fn: Function,
    params: Params,
    vector: Tree,
    batches: Tree = (),
    *,
    batch_size: PositiveInt | None = None,
) -> Tree:
    """`J' H_out J v`: the Hessian without the curvature of the network.

    The matrix is semidefinite where the loss is convex in the outputs.

    Args:
      predict_fn: function of the parameters and a batch to the outputs, any tree, with Jacobian J.
      loss_fn: function of the outputs and a batch to the mean loss, a scalar, with Hessian `H_out`.
      params: tree of real floating arrays.
      vector: tree like the parameters.
      batches: as in `hvp`; both functions get the whole batch.
      batch_size: as in `hvp`.

    Returns:
      A tree like the parameters, in at least float32.

    Raises:
      TypeError, ValueError: as `hvp`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.diagnostics import gauss_newton_vp
      >>> predict, loss = lambda w, x: x * w**2, lambda z, x: jnp.mean(z**2) / 2
      >>> x = jnp.array([1.0, 2.0])  # J = 2 w x = 6, 12
      >>> float(gauss_newton_vp(predict, loss, jnp.array(3.0), jnp.array(1.0), (x,)))
      90.0

    Source: Schraudolph 2002, "Fast curvature matrix-vector products for second-order gradient
    descent".
    """
    params = real_params(params)
    vector = like_params("vector", vector, params)
    return mean_over(gather(loss_fn, batches, batch_size), partial(_product, loss_fn, predict_fn, params, vector))


@checked
def top_eigenvalues(
    loss_fn: Function,
    params: Params,
    batches: Tree = (),
    k: PositiveInt = 1,
    *,
    which: Which = "algebraic",
    steps: PositiveInt | None = None,
    predict_fn: Function | None = None,
    key: Key = None,
    batch_size: PositiveInt | None = None,
    progress: Flag = False,
) -> Eigenpairs:
    """The k largest eigenvalues of the Hessian and their eigenvectors; `values[0]` is λ_max.

    They come from `lanczos`, from a random start.

    Args:
      loss_fn: function of the parameters and a batch to the mean loss, a scalar.
      params: tree of n real elements in all.
      batches: one batch `(x, y)`, or an iterable of them; `()` if `loss_fn` takes none.
      k: how many, at most n.
      which: "algebraic" takes the most positive ones, "magnitude" those farthest from 0.
      steps: of Lanczos, each a product with the data: the more, the smaller the residuals. At least
        k; None is `60 + 10 k`; n is the most that is made.
      predict_fn: if given, the matrix is that of `gauss_newton_vp`, with its kind of `loss_fn`.
      key: of the start; None is `jax.random.key(0)`.
      batch_size: cuts one batch into several of this size, to save memory.
      progress: whether to show a bar on the terminal (needs rich).

    Returns:
      `Eigenpairs(values (k,), vectors, residuals (k,))`. Errors of values are at most their
      residuals, and of the order of their squares where eigenvalues are well apart. Memory: about
      `steps + k + 8` vectors, whole on every device if the parameters are sharded explicitly, and
      what a gradient takes. Compiled once for each `loss_fn` and shape of batches.

    Raises:
      TypeError, ValueError: an argument outside its domain, a leaf that is no real floating array,
        a loss that is no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.diagnostics import top_eigenvalues
      >>> loss = lambda w: jnp.sum(jnp.array([3.0, 2.0, -4.0]) * w**2) / 2
      >>> pairs = top_eigenvalues(loss, jnp.ones(3), k=2)
      >>> pairs.values.round(4), bool((pairs.residuals < 1e-4).all())
      (Array([3., 2.], dtype=float32), True)

    Source: Lanczos 1950; residuals: Parlett 1998, "The Symmetric Eigenvalue Problem", section 13.2.
    """
    params = real_params(params)
    n = _count(params)
    taken = min(60 + 10 * k if steps is None else steps, n)
    if k > taken:
        raise checks.WrongValue(
            f"k is {k}, expected at most {taken}, {'the number of parameters' if taken == n else 'the number of steps'}."
        )
    start, restart = jax.random.split(key_or_default(key))
    dtype = jnp.result_type(*jax.tree.leaves(params))
    with bar("top_eigenvalues", taken, progress) as tick:
        matvec = _matvec(loss_fn, predict_fn, params, gather(loss_fn, batches, batch_size), tick)
        t = lanczos(matvec, jax.random.normal(start, (n,), dtype), taken, key=restart)
    values, vectors, residuals = _best(t, k, which)
    return Eigenpairs(values, jax.vmap(lambda vector: from_vector(vector, params))(vectors), residuals)


@checked
def hessian_trace(
    loss_fn: Function,
    params: Params,
    batches: Tree = (),
    *,
    samples: Samples = 100,
    predict_fn: Function | None = None,
    key: Key = None,
    batch_size: PositiveInt | None = None,
    progress: Flag = False,
) -> Estimate:
    """The trace of the Hessian: the mean of `z' H z` over vectors z of random signs (Hutchinson).

    Args:
      loss_fn: function of the parameters and a batch to the mean loss, a scalar.
      params: tree of real floating arrays.
      batches: as in `top_eigenvalues`.
      samples: how many vectors, each a product with the data; at least 2.
      predict_fn: as in `top_eigenvalues`.
      key: of the signs; None is `jax.random.key(0)`.
      batch_size: as in `top_eigenvalues`.
      progress: whether to show a bar on the terminal (needs rich).

    Returns:
      `Estimate(value, standard_error)`. The variance of one sample is `2 (|H|_F**2 - sum h_ii**2)`:
      0 for a diagonal H.

    Raises:
      TypeError, ValueError: as `top_eigenvalues`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.diagnostics import hessian_trace
      >>> loss = lambda w: jnp.sum(jnp.array([3.0, 2.0, -4.0]) * w**2) / 2
      >>> hessian_trace(loss, jnp.ones(3), samples=2)
      Estimate(value=Array(1., dtype=float32), standard_error=Array(0., dtype=float32))

    Source: Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix".
    """
    params = real_params(params)
    matvec = _matvec(loss_fn, predict_fn, params, gather(loss_fn, batches, batch_size))

    def one(key: jax.Array) -> jax.Array:
        z = _signs(key, params)
        return jnp.sum(z * matvec(z))

    with bar("hessian_trace", samples, progress) as tick:
        return estimate(each(one, jax.random.split(key_or_default(key), samples), tick))


@checked
def spectral_density(
    loss_fn: Function,
    params: Params,
    batches: Tree = (),
    *,
    steps: PositiveInt = 80,
    samples: PositiveInt = 10,
    bandwidth: domains.Positive | None = None,
    points: PositiveInt = POINTS,
    predict_fn: Function | None = None,
    key: Key = None,
    batch_size: PositiveInt | None = None,
    progress: Flag = False,
) -> SpectralDensity:
    """How the eigenvalues of the Hessian are distributed, by stochastic Lanczos quadrature.

    For each start, the eigenvalues of its tridiagonal matrix are the nodes and the squared first
    components of their eigenvectors the weights of a Gaussian quadrature of the spectrum.

    Args:
      loss_fn: function of the parameters and a batch to the mean loss, a scalar.
      params: tree of n real elements in all.
      batches: as in `top_eigenvalues`.
      steps: of Lanczos from each start, each a product with the data; n at most.
      samples: how many starts.
      bandwidth: standard deviation of the Gaussians that blur the nodes to a curve, in units of the
        eigenvalues; None is 1 % of the range of the nodes.
      points: of the curve, evenly from 6 bandwidths below the nodes to 6 above.
      predict_fn: as in `top_eigenvalues`.
      key: of the starts; None is `jax.random.key(0)`.
      batch_size: as in `top_eigenvalues`.
      progress: whether to show a bar on the terminal (needs rich).

    Returns:
      `SpectralDensity(nodes, weights, grid, density)`. Memory: about `steps + 8` vectors, whole on
      every device if the parameters are sharded explicitly, and what a gradient takes.

    Raises:
      TypeError, ValueError: as `top_eigenvalues`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.diagnostics import spectral_density
      >>> loss = lambda w: jnp.sum(jnp.array([3.0, 2.0, -4.0]) * w**2) / 2
      >>> density = spectral_density(loss, jnp.ones(3), samples=1)
      >>> [round(float(node), 4) for node in density.nodes[0]], density.weights.round(3)
      ([-4.0, 2.0, 3.0], Array([[0.333, 0.333, 0.333]], dtype=float32))

    Source: Ghorbani, Krishnan and Xiao 2019, arXiv:1901.10159; Ubaru, Chen and Saad 2017.
    """
    params = real_params(params)
    with bar("spectral_density", samples * min(steps, _count(params)), progress) as tick:
        matvec = _matvec(loss_fn, predict_fn, params, gather(loss_fn, batches, batch_size), tick)

        def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            start, restart = jax.random.split(key)
            return _quadrature(lanczos(matvec, _signs(start, params), steps, key=restart))

        nodes, weights = each(one, jax.random.split(key_or_default(key), samples), lambda x: x)
    return SpectralDensity(nodes, weights, *blurred(nodes, weights, bandwidth, points))


@partial(jax.jit, static_argnums=(0, 1))
def _product(loss_fn: LossFn, predict_fn: PredictFn | None, params: Params, vector: Tree, *batch: Tree) -> Tree:
    """The matrix of one batch times a tree."""
    loss = scalar_loss(loss_fn)
    if predict_fn is None:
        return jax.jvp(jax.grad(lambda p: loss(p, *batch)), (params,), (vector,))[1]

    def predict(p: Params) -> Tree:
        return predict_fn(p, *batch)

    outputs, pull = jax.vjp(predict, params)
    along = jax.jvp(predict, (params,), (vector,))[1]
    return pull(jax.jvp(jax.grad(lambda z: loss(z, *batch)), (outputs,), (along,))[1])[0]


@partial(jax.jit, static_argnums=(0, 1))
def _flat_product(loss_fn: LossFn, predict_fn: PredictFn | None, params: Params, vector: jax.Array, *batch: Tree) -> jax.Array:
    """The matrix of one batch times a flat vector."""
    return to_vector(_product(loss_fn, predict_fn, params, from_vector(vector, params), *batch), vector.dtype)


def _matvec(
    loss_fn: LossFn, predict_fn: PredictFn | None, params: Params, data: Data, tick: Tick = lambda x: x
) -> Callable[[jax.Array], jax.Array]:
    """The product of the matrix of all data with a flat vector."""
    return lambda vector: tick(mean_over(data, partial(_flat_product, loss_fn, predict_fn, params, vector)))


@jax.jit
def _signs(key: jax.Array, params: Params) -> jax.Array:
    """A flat vector of random signs."""
    return jax.random.rademacher(key, (_count(params),), common_dtype(*jax.tree.leaves(params)))


@partial(jax.jit, static_argnums=(1, 2))
def _best(t: Tridiagonal, k: int, which: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    values, coefficients, residuals = ritz(t)
    best = jnp.argsort(jnp.abs(values) if which == "magnitude" else values, descending=True)[:k]
    vectors = jnp.matmul(coefficients[:, best].T, t.basis, precision=jax.lax.Precision.HIGHEST)
    return values[best], vectors, residuals[best]


@jax.jit
def _quadrature(t: Tridiagonal) -> tuple[jax.Array, jax.Array]:
    values, coefficients, _ = ritz(t)
    return values, coefficients[0] ** 2


@partial(jax.jit, static_argnums=3)
def blurred(nodes: jax.Array, weights: jax.Array, bandwidth: Scalar, points: int) -> tuple[jax.Array, jax.Array]:
    """A grid, and the density on it of nodes blurred by Gaussians."""
    low, high = jnp.min(nodes), jnp.max(nodes)
    if bandwidth is None:  # a range of 0 needs a width, too
        largest = jnp.maximum(jnp.abs(low), jnp.abs(high))
        bandwidth = BANDWIDTH * jnp.where(high - low > 1e-5 * largest, high - low, jnp.where(largest > 0, largest, 1))
    grid = jnp.linspace(low - 6 * bandwidth, high + 6 * bandwidth, points, dtype=nodes.dtype)

    def at(t: jax.Array) -> jax.Array:
        bells = jnp.exp(-(((t - nodes) / bandwidth) ** 2) / 2) / (bandwidth * (2 * jnp.pi) ** 0.5)
        return jnp.sum(weights * bells) / nodes.shape[0]

    return grid, jax.lax.map(at, grid)


def estimate(values: jax.Array) -> Estimate:
    """Mean and standard error of independent values."""
    size = power_of_two(values)  # squares of tiny or huge deviations have no room in the dtype
    return Estimate(jnp.mean(values), jnp.std(values / size, ddof=1) * size / values.shape[0] ** 0.5)


def _count(params: Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
