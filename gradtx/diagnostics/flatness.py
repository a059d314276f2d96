"""How much a loss rises around the parameters: on average, and at worst."""

from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import domains
from gradtx.core.checked import checked
from gradtx.core.domains import Flag, Function, Positive, PositiveInt
from gradtx.core.leaves import map_leaves
from gradtx.core.types import Params, Scalar, Tree
from gradtx.diagnostics.batches import LossFn, gather, mean_over
from gradtx.diagnostics.curvature import estimate
from gradtx.diagnostics.inputs import Key, Samples, each, key_or_default, loss_at, real_params, scalar_loss
from gradtx.diagnostics.progress import bar
from gradtx.linalg.ascent import Exponent, ascent
from gradtx.tree.creation import random_like
from gradtx.tree.reductions import norm, size

Distribution = Annotated[str, domains.one_of("gaussian", "ball", "sphere")]


class Flatness(NamedTuple):
    """The loss around the parameters; scalars.

    Attributes:
      loss: its mean over the noise.
      excess: by how much that is above the loss at the parameters.
      standard_error: of both.
    """

    loss: jax.Array
    excess: jax.Array
    standard_error: jax.Array


@checked
def average_flatness(
    loss_fn: Function,
    params: Params,
    batches: Tree = (),
    *,
    radius: Positive = 0.05,
    distribution: Distribution = "gaussian",
    samples: Samples = 100,
    key: Key = None,
    batch_size: PositiveInt | None = None,
    progress: Flag = False,
) -> Flatness:
    """The mean loss under random noise on the parameters, `E L(w + e)`.

    It is low where a minimum is flat on average. Each draw goes both ways,
    `(L(w + e) + L(w - e)) / 2`, which cancels the slope of the loss and leaves its curvature. At a
    minimum, to second order, the excess is `radius**2 * trace(H)`
    times `1 / 2` (gaussian), `1 / (2 (n + 2))` (ball), `1 / (2 n)` (sphere).

    Args:
      loss_fn: function of the parameters and a batch to the mean loss, a scalar.
      params: tree of n real elements in all.
      batches: one batch `(x, y)`, or an iterable of them; `()` if `loss_fn` takes none.
      radius: in units of the parameters, > 0: the standard deviation of each element for
        "gaussian", else the radius of the ball.
      distribution: of e: "gaussian", or uniform in the "ball", or uniform on the "sphere".
      samples: how many draws, each two losses of the data; at least 2.
      key: of the draws; None is `jax.random.key(0)`. The same key compares two solutions under the
        same noise.
      batch_size: cuts one batch into several of this size, to save memory.
      progress: whether to show a bar on the terminal (needs rich).

    Returns:
      `Flatness(loss, excess, standard_error)`. Rounding of the loss in float32 limits the excess to
      about 1e-7 of the loss.

    Raises:
      TypeError, ValueError: an argument outside its domain, a leaf that is no real floating array,
        a loss that is no scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.diagnostics import average_flatness
      >>> loss = lambda w: 2.0 + jnp.sum(w**2)
      >>> flatness = average_flatness(loss, jnp.zeros(3), radius=0.5, distribution="sphere")
      >>> flatness.loss.round(4), flatness.excess.round(4)
      (Array(2.25, dtype=float32), Array(0.25, dtype=float32))

    Source: Chen, Hsieh and Gong 2021, arXiv:2106.01548, table 2 ("average flatness", gaussian).
    """
    params = real_params(params)
    data = gather(loss_fn, batches, batch_size)

    def loss(e: Tree, sign: float) -> jax.Array:
        return mean_over(data, partial(loss_at, loss_fn, params, (e,), (sign,)))

    def both_ways(key: jax.Array) -> jax.Array:
        e = _noise(distribution, key, params, radius)
        return (loss(e, 1.0) + loss(e, -1.0)) / 2

    with bar("average_flatness", samples, progress) as tick:
        mean, error = estimate(each(both_ways, jax.random.split(key_or_default(key), samples), tick))
    return Flatness(mean, mean - loss(params, 0.0), error)


@checked
def sam_sharpness(
    loss_fn: Function,
    params: Params,
    batches: Tree = (),
    *,
    rho: Positive = 0.05,
    p: Exponent = 2.0,
    steps: PositiveInt = 1,
    key: Key = None,
    batch_size: PositiveInt | None = None,
) -> jax.Array:
    """`max L(w + e) - L(w)` over `|e|_p <= rho`, as SAM climbs to it.

    Each step goes to the end of the ball along the gradient. From `e = 0`, each step is
    `e = argmax <∇L(w + e), e>`. One step is SAM's; more are, near a minimum, power iterations, that
    end at `rho**2 λ_max / 2` for p = 2. The largest rise on the way is returned, so that the result
    is a lower bound of the maximum. Where the gradient is exactly 0, the step goes in a random
    direction.

    Args:
      loss_fn: function of the parameters and a batch to the mean loss, a scalar.
      params: tree of real floating arrays.
      batches: as in `average_flatness`.
      rho: radius of the ball, > 0, in units of the parameters.
      p: the norm of the ball, in [1, inf].
      steps: how many, each a gradient of the data.
      key: of the random direction; None is `jax.random.key(0)`.
      batch_size: as in `average_flatness`.

    Returns:
      The rise, a scalar in at least float32.

    Raises:
      TypeError, ValueError: as `average_flatness`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.diagnostics import sam_sharpness
      >>> loss = lambda w: jnp.sum(jnp.array([3.0, 2.0, 1.0]) * w**2) / 2
      >>> sam_sharpness(loss, jnp.zeros(3), rho=0.1, steps=50).round(4)  # 0.1**2 * 3 / 2
      Array(0.015, dtype=float32)

    Source: Foret et al. 2020, arXiv:2010.01412, equation 1.
    """
    params, data = real_params(params), gather(loss_fn, batches, batch_size)
    random = random_like(key_or_default(key), params)
    e, values = jax.tree.map(jnp.zeros_like, params), []
    for _ in range(steps):
        value, gradient = mean_over(data, partial(_value_and_grad, loss_fn, params, e))
        values.append(value)
        e = _climbed(gradient, random, rho, float(p))
    values.append(mean_over(data, partial(loss_at, loss_fn, params, (e,), (1.0,))))
    return jnp.max(jnp.stack(values[1:])) - values[0]


@partial(jax.jit, static_argnums=0)
def _noise(distribution: str, key: jax.Array, params: Params, radius: Scalar) -> Tree:
    """`radius` times independent normal numbers, or a random point in or on the unit ball."""
    direction, length = jax.random.split(key)
    e = random_like(direction, params)
    if distribution == "sphere":
        radius = radius / norm(e)
    elif distribution == "ball":
        radius = radius / norm(e) * jax.random.uniform(length) ** (1 / size(params))
    return jax.tree.map(lambda x: radius * x, e)


@partial(jax.jit, static_argnums=0)
def _value_and_grad(loss_fn: LossFn, params: Params, e: Tree, *batch: Tree) -> Tree:
    return jax.value_and_grad(scalar_loss(loss_fn))(map_leaves(_add, params, e), *batch)


@partial(jax.jit, static_argnums=3)
def _climbed(gradient: Tree, random: Tree, rho: Scalar, p: float) -> Tree:
    still = norm(gradient) == 0
    return ascent(jax.tree.map(lambda g, r: jnp.where(still, r, g), gradient, random), rho, p)


def _add(p: jax.Array, e: jax.Array) -> jax.Array:
    return p + e
