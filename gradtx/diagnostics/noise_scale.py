"""The gradient noise scale: how large a batch pays, from the microbatches of one step."""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks
from gradtx.core.checked import checked
from gradtx.core.domains import Domain, Function
from gradtx.core.numerics import abs_sq, default_float, is_key, promote
from gradtx.core.types import Params, Tree, Updates
from gradtx.wrappers.accumulate import microbatched

TINY = 1e-8
"""Least signal and noise in the ratio, as in nanoGNS: both estimates may be negative."""


def _is_several(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 1


Several = Annotated[int, Domain("a whole number >= 2", _is_several, numeric=True)]


class GradientNoise(NamedTuple):
    """Unbiased estimates of the squared norm of the true gradient, and of the noise's variance.

    Attributes:
      signal: of `|G|^2`.
      noise: of the trace of the covariance of one example's gradient.
    """

    signal: jax.Array
    noise: jax.Array

    @property
    def scale(self) -> jax.Array:
        """The noise scale, in examples: at a batch of this size noise and signal are equal."""
        return jnp.maximum(self.noise, TINY) / jnp.maximum(self.signal, TINY)


@checked
def gradient_noise(small: jax.Array, large: jax.Array, small_batch: int, large_batch: int) -> GradientNoise:
    """Signal and noise from squared gradient norms at two batch sizes.

    `signal = (B*large - b*small) / (B - b)`, `noise = (small - large) / (1/b - 1/B)`.

    Args:
      small: mean squared norm of gradients of batches of `b` examples.
      large: squared norm of the gradient of a batch of `B` examples.
      small_batch: `b`, >= 1.
      large_batch: `B`, > `b`.

    Raises:
      ValueError: `large_batch` is not larger than `small_batch`.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx import diagnostics
      >>> found = diagnostics.gradient_noise(jnp.array(5.0), jnp.array(2.0), 1, 4)
      >>> float(found.signal), float(found.noise), float(found.scale)
      (1.0, 4.0, 4.0)

    Source: McCandlish et al. 2018, arXiv:1812.06162, appendix A.1.
    """
    if not 0 < small_batch < large_batch:
        raise checks.WrongValue(
            f"small_batch is {small_batch} and large_batch {large_batch}, expected 1 <= small_batch < large_batch."
        )
    signal = (large_batch * large - small_batch * small) / (large_batch - small_batch)
    return GradientNoise(jnp.asarray(signal), jnp.asarray((small - large) / (1 / small_batch - 1 / large_batch)))


@checked
def with_noise_scale(value_and_grad_fn: Function, microbatches: Several) -> Callable[..., tuple[Tree, Updates, GradientNoise]]:
    """`microbatched` that also estimates signal and noise of the gradient, at no further gradient.

    One step's estimates are rough. Average signal and noise over steps, each by itself, and then
    divide: a mean of ratios is biased.

    Args:
      value_and_grad_fn: as `jax.value_and_grad(loss)` makes it, of `loss(params, *batch)`, a mean
        over its examples.
      microbatches: >= 2; into how many equal parts the leading axis of each array of the batch is
        cut.

    Returns:
      A function of `(params, *batch, **kwargs)` that gives `(value, gradient, GradientNoise)`.

    Raises:
      ValueError: `microbatches` does not divide a leading axis.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> from gradtx import diagnostics
      >>> loss = lambda w, x: jnp.mean((w - x) ** 2) / 2  # gradient w - x: signal 1, noise 4
      >>> step = jax.jit(diagnostics.with_noise_scale(jax.value_and_grad(loss), 8))
      >>> average = diagnostics.GradientNoise(jnp.zeros(()), jnp.zeros(()))
      >>> for key in jax.random.split(jax.random.key(0), 200):
      ...     x = 2 * jax.random.normal(key, (64,))
      ...     value, grad, found = step(jnp.array(1.0), x)
      ...     average = gradtx.incremental_update(found, average, 0.02)
      >>> bool(3 < average.scale < 5)
      True

    Source: McCandlish et al. 2018, arXiv:1812.06162, appendix A.1.
    """

    def measured(params: Params, *batch: Tree, **kwargs: Tree) -> tuple[tuple[Tree, jax.Array], Updates]:
        value, grad = value_and_grad_fn(params, *batch, **kwargs)
        return (value, _square(grad)), grad

    run = microbatched(measured, microbatches, has_aux=True)

    def noise(params: Params, *batch: Tree, **kwargs: Tree) -> tuple[Tree, Updates, GradientNoise]:
        (value, squares), grad = run(params, *batch, **kwargs)
        examples = next(jnp.shape(x)[0] for x in jax.tree.leaves(batch) if jnp.ndim(x) and not is_key(x))
        found = gradient_noise(jnp.mean(squares), _square(grad), examples // microbatches, examples)
        return value, grad, found

    return noise


def _square(grad: Updates) -> jax.Array:
    parts = [jnp.sum(abs_sq(promote(g))).astype(default_float()) for g in jax.tree.leaves(grad)]
    return jnp.sum(jnp.stack(parts)) if parts else jnp.zeros((), default_float())
