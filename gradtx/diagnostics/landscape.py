"""The loss along a line or on a plane through the parameters."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.core import checks
from gradtx.core.checked import checked
from gradtx.core.domains import Domain, Flag, Function, PositiveInt
from gradtx.core.numerics import common_dtype, guarded_ratio
from gradtx.core.types import Params, Tree
from gradtx.core.vectors import from_vector, to_vector
from gradtx.diagnostics.batches import Data, LossFn, gather, mean_over
from gradtx.diagnostics.inputs import Key, each, key_or_default, like_params, loss_at, real_params
from gradtx.diagnostics.progress import Tick, bar
from gradtx.tree.creation import random_like

EPS = 1e-10  # Li et al. 2018's code
MARGIN = 0.2


def _is_range(value: object) -> bool:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        return False
    return all(isinstance(x, (int, float, np.number)) and np.isfinite(x) for x in value) and value[0] < value[1]


RANGE = Domain("a pair (low, high) of numbers, low < high", _is_range, lambda x: f" It is {x!r}.")
Range = Annotated[tuple[float, float], RANGE]


Ranges = Annotated[
    Sequence,
    Domain(
        "a pair (low, high) of numbers, low < high, or two such pairs",
        lambda x: _is_range(x) or (isinstance(x, (tuple, list)) and len(x) == 2 and all(map(_is_range, x))),
        lambda x: f" It is {x!r}.",
    ),
]


class Landscape1D(NamedTuple):
    """The loss along a line.

    Attributes:
      x: `(points,)`, in units of the direction; 0 is at the parameters.
      loss: `(points,)`.
    """

    x: jax.Array
    loss: jax.Array


class Landscape2D(NamedTuple):
    """The loss on a plane.

    Attributes:
      x: `(points,)`, in units of the first direction; 0 is at the parameters.
      y: `(points,)`, in units of the second.
      loss: `(len(y), len(x))`, as matplotlib's `contour` wants it.
      path: `(steps, 2)`, a trajectory in the plane, or None.
    """

    x: jax.Array
    y: jax.Array
    loss: jax.Array
    path: jax.Array | None = None


class Plane(NamedTuple):
    """The plane that a trajectory nearly lies in.

    Attributes:
      directions: two trees like the parameters, orthonormal; the trajectory moves most along the
        first.
      path: `(steps, 2)`, the trajectory's coordinates; (0, 0) is its last point.
      explained: `(2,)`, each direction's share of the squared distances from the last point.
    """

    directions: tuple[Tree, Tree]
    path: jax.Array
    explained: jax.Array


@checked
def random_direction(key: jax.Array, params: Params, *, filter_axis: int = -1) -> Tree:
    """A random direction, each filter as long as the parameters': `d_f * |w_f| / (|d_f| + 1e-10)`.

    Rescaling the weights of a network from layer to layer leaves its function as it is; so does it
    leave the picture along such a direction. Leaves of no or one axis (biases, scales of
    normalization) stay where they are: 0.

    Args:
      key: of the random numbers.
      params: tree of real floating arrays.
      filter_axis: the axis that counts a leaf's filters: the last in Flax, 0 in Equinox and
        PyTorch.

    Returns:
      A tree like the parameters, in at least float32.

    Raises:
      TypeError: a leaf that is no real floating array.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gradtx.diagnostics import random_direction
      >>> params = {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]]), "bias": jnp.ones(2)}
      >>> direction = random_direction(jax.random.key(0), params)
      >>> jnp.linalg.norm(direction["kernel"], axis=0).round(4), direction["bias"]
      (Array([5., 2.], dtype=float32), Array([0., 0.], dtype=float32))

    Source: Li et al. 2018, arXiv:1712.09913, section 4.
    """
    params = real_params(params)

    def normalized(d: jax.Array, w: jax.Array) -> jax.Array:
        if w.ndim < 2:
            return jnp.zeros_like(w)
        others = tuple(i for i in range(w.ndim) if i != filter_axis % w.ndim)
        own, wanted = (jnp.sqrt(jnp.sum(x * x, axis=others, keepdims=True)) for x in (d, w))
        return d * (wanted / (own + EPS))

    return jax.tree.map(normalized, random_like(key, params), params)


@checked
def trajectory_plane(trajectory: Sequence[Params]) -> Plane:
    """The plane in which parameters move most: the first two principal directions.

    It goes through the last of them.

    Args:
      trajectory: at least three trees like the parameters, in the order of training.

    Returns:
      `Plane(directions, path, explained)`, for `landscape_2d(loss_fn, trajectory[-1], batches,
      plane.directions, path=plane.path)`. Memory: one vector for each tree.

    Raises:
      TypeError, ValueError: fewer than three trees, trees that differ, a leaf that is no real
        floating array.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.diagnostics import trajectory_plane
      >>> plane = trajectory_plane([jnp.array([3.0, 2.0]), jnp.array([1.0, 2.0]), jnp.ones(2)])
      >>> jnp.linalg.norm(plane.path, axis=1).round(4), plane.explained.sum().round(4)
      (Array([2.2361, 1.    , 0.    ], dtype=float32), Array(1., dtype=float32))

    Source: Li et al. 2018, arXiv:1712.09913, section 7.
    """
    if not isinstance(trajectory, (list, tuple)) or len(trajectory) < 3:
        raise checks.WrongValue(f"trajectory is {checks.kind(trajectory)}, expected a list of at least 3 trees.")
    last = real_params(trajectory[-1])
    dtype = jnp.result_type(*jax.tree.leaves(last))
    flat = to_vector(last, dtype)
    rows = [to_vector(like_params(f"trajectory[{i}]", tree, last), dtype) - flat for i, tree in enumerate(trajectory)]
    moves = jnp.stack(rows)
    left, sizes, right = jnp.linalg.svd(moves, full_matrices=False)
    first, second = (from_vector(vector, last) for vector in right[:2])
    return Plane((first, second), left[:, :2] * sizes[:2], guarded_ratio(sizes[:2] ** 2, jnp.sum(sizes**2)))


@checked
def landscape_1d(
    loss_fn: Function,
    params: Params,
    batches: Tree = (),
    direction: Tree = None,
    *,
    extent: Range = (-1.0, 1.0),
    points: PositiveInt = 51,
    key: Key = None,
    filter_axis: int = -1,
    batch_size: PositiveInt | None = None,
    progress: Flag = False,
) -> Landscape1D:
    """The loss along a line, `L(w + x d)`.

    Args:
      loss_fn: function of the parameters and a batch to the mean loss, a scalar.
      params: tree of real floating arrays, w.
      batches: one batch `(x, y)`, or an iterable of them; `()` if `loss_fn` takes none.
      direction: tree like the parameters, d; None is a `random_direction`. Between two solutions it
        is `gradtx.tree.sub(other, params)`, with an `extent` from below 0 to above 1.
      extent: the least and the largest x.
      points: how many, evenly.
      key: of the random direction; None is `jax.random.key(0)`.
      filter_axis: of the random direction.
      batch_size: cuts one batch into several of this size, to save memory.
      progress: whether to show a bar on the terminal (needs rich).

    Returns:
      `Landscape1D(x, loss)`.

    Raises:
      TypeError, ValueError: an argument outside its domain, unlike trees, a loss that is no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.diagnostics import landscape_1d
      >>> w, d = jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0])
      >>> landscape_1d(lambda w: jnp.sum(w**2), w, direction=d, points=3)
      Landscape1D(x=Array([-1.,  0.,  1.], dtype=float32), loss=Array([4., 5., 8.], dtype=float32))

    Source: Goodfellow, Vinyals and Saxe 2014, arXiv:1412.6544.
    """
    params = real_params(params)
    if direction is None:
        direction = random_direction(key_or_default(key), params, filter_axis=filter_axis)
    directions = (like_params("direction", direction, params),)
    x = _axis(extent, points, params)
    with bar("landscape_1d", points, progress) as tick:
        return Landscape1D(x, _losses(loss_fn, params, gather(loss_fn, batches, batch_size), directions, x[:, None], tick))


@checked
def landscape_2d(
    loss_fn: Function,
    params: Params,
    batches: Tree = (),
    directions: Sequence[Tree] | None = None,
    *,
    extent: Ranges | None = None,
    points: PositiveInt = 25,
    path: ArrayLike | None = None,
    key: Key = None,
    filter_axis: int = -1,
    batch_size: PositiveInt | None = None,
    progress: Flag = False,
) -> Landscape2D:
    """The loss on a plane, `L(w + x d_1 + y d_2)`.

    Args:
      loss_fn: function of the parameters and a batch to the mean loss, a scalar.
      params: tree of real floating arrays, w.
      batches: one batch `(x, y)`, or an iterable of them; `()` if `loss_fn` takes none.
      directions: a pair of trees like the parameters: `trajectory_plane(...).directions`; the ways
        to two other solutions; two eigenvectors, `[jax.tree.map(lambda v: v[i], pairs.vectors) for
        i in (0, 1)]` of `top_eigenvalues(..., k=2)`. None is a pair of `random_direction`s.
      extent: `(low, high)` for x and y alike, or two such pairs, `((-1, 1), (-2, 2))`. None is
        `(-1, 1)`, or what holds the path with 20 % around it.
      points: how many along each axis, evenly; each of `points**2` is a loss of the data.
      path: a trajectory's coordinates in the plane, `(steps, 2)`, for the picture.
      key: of the random directions; None is `jax.random.key(0)`.
      filter_axis: of the random directions.
      batch_size: cuts one batch into several of this size, to save memory.
      progress: whether to show a bar on the terminal (needs rich).

    Returns:
      `Landscape2D(x, y, loss, path)`.

    Raises:
      TypeError, ValueError: an argument outside its domain, unlike trees, a loss that is no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.diagnostics import landscape_2d
      >>> axes = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
      >>> landscape_2d(lambda w: w[0] + 10 * w[1], jnp.zeros(2), directions=axes, points=3).loss
      Array([[-11., -10.,  -9.],
             [ -1.,   0.,   1.],
             [  9.,  10.,  11.]], dtype=float32)

    Source: Li et al. 2018, arXiv:1712.09913.
    """
    params = real_params(params)
    if directions is None:
        keys = jax.random.split(key_or_default(key))
        directions = tuple(random_direction(k, params, filter_axis=filter_axis) for k in keys)
    if not isinstance(directions, (tuple, list)) or len(directions) != 2:
        raise checks.WrongType(
            f"directions is {checks.kind(directions)}, expected a pair of trees like the parameters, "
            "such as `.directions` of trajectory_plane(...)."
        )
    pair = tuple(like_params(f"directions[{i}]", direction, params) for i, direction in enumerate(directions))
    path = None if path is None else jnp.asarray(path)
    if path is not None and (path.ndim != 2 or path.shape[1] != 2 or not path.size):
        raise checks.WrongValue(f"path is {checks.kind(path)}, expected one of shape (steps, 2).")
    extents = [_around(path, i) for i in range(2)] if extent is None else [extent] * 2 if _is_range(extent) else extent
    x, y = (_axis(limits, points, params) for limits in extents)
    places = jnp.stack(jnp.meshgrid(x, y), axis=-1).reshape(-1, 2)
    with bar("landscape_2d", len(places), progress) as tick:
        losses = _losses(loss_fn, params, gather(loss_fn, batches, batch_size), pair, places, tick)
    return Landscape2D(x, y, losses.reshape(points, points), path)


def _axis(extent: Sequence[float], points: int, params: Params) -> jax.Array:
    # NumPy's linspace has an exact 0.
    return jnp.asarray(np.linspace(extent[0], extent[1], points), common_dtype(*jax.tree.leaves(params)))


def _around(path: jax.Array | None, axis: int) -> tuple[float, float]:
    if path is None:
        return -1.0, 1.0
    low, high = float(path[:, axis].min()), float(path[:, axis].max())
    margin = MARGIN * (high - low) or 1.0
    return low - margin, high + margin


def _losses(loss_fn: LossFn, params: Params, data: Data, directions: tuple[Tree, ...], places: jax.Array, tick: Tick) -> jax.Array:
    """The loss at `w + sum_i place_i d_i` for each place, one after another."""
    return each(lambda place: mean_over(data, partial(loss_at, loss_fn, params, directions, place)), places, tick)
