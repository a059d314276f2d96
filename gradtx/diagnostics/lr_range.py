"""Finding a learning rate: let it grow until the loss explodes, or try a few."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.core import checks, domains, trees
from gradtx.core.apply import apply_updates
from gradtx.core.checked import checked
from gradtx.core.domains import Decay, Domain, Function, Positive, PositiveInt
from gradtx.core.numerics import common_dtype, one_minus_power
from gradtx.core.pairs import Inner, as_transformation
from gradtx.core.transformation import Transformation, wants
from gradtx.core.types import Params, Scalar, State, Tree
from gradtx.diagnostics.batches import Batch, LossFn, gather
from gradtx.diagnostics.inputs import Samples, scalar_loss
from gradtx.tree.arithmetic import conj

MIN_LR, MAX_LR = 1e-6, 10.0
DEFAULT_STEPS = 100
"""The fewest steps that are taken unless `steps` says otherwise: the range has seven decades."""


TxFactory = Annotated[
    Callable[..., Inner],
    Domain(
        "a function from a learning rate to a transformation, such as gradtx.adam",
        lambda value: callable(value) and not checks.is_transformation(value),
        lambda value: " Write lambda rate: chain(..., adam(rate))." if checks.is_transformation(value) else "",
    ),
]
Rates = ArrayLike | Sequence[float]
Run = tuple[Params, State, jax.Array]
"""Parameters, the state of the optimizer, and whether all losses have been finite."""
Divergence = Annotated[float, Domain("a number > 1", lambda x: isinstance(x, (int, float)) and x > 1, numeric=True)]


class LearningRates(NamedTuple):
    """Losses under learning rates: R rates of T steps each, or one run whose rate grows.

    Attributes:
      learning_rates: of the steps, (T,), in the range test; else those that were tried, (R,).
      losses: before each step, (T,) or (R, T); NaN after the first that is not finite.
      smoothed: their bias-corrected running means, of the same shape.
      suggestion: the rate to take, a scalar; NaN where there is none.
      diverged_at: the step where the loss exploded, int32, () or (R,); T where it did not.
    """

    learning_rates: jax.Array
    losses: jax.Array
    smoothed: jax.Array
    suggestion: jax.Array
    diverged_at: jax.Array


@checked
def lr_range_test(
    loss_fn: Function,
    params: Params,
    tx_factory: TxFactory,
    batches: Tree = (),
    *,
    min_lr: Positive = MIN_LR,
    max_lr: Positive = MAX_LR,
    learning_rates: Rates | None = None,
    steps: Samples | None = None,
    smoothing: Decay = 0.9,
    divergence: Divergence = 4.0,
    batch_size: PositiveInt | None = None,
) -> LearningRates:
    """Tests learning rates in one compiled program: one that grows at each step, or fixed ones.

    The range test trains once, at the rate `min_lr * (max_lr / min_lr)**(t / (T - 1))` in step
    `t = 0 ... T - 1` of a `lax.scan`. It suggests the rate where the smoothed loss falls steepest
    against the logarithm of the rate, before it explodes. With `learning_rates` it trains once from
    `params` at each of them, by `vmap`, and suggests the rate with the smallest mean loss in the
    last tenth of the steps.

    Args:
      loss_fn: function of the parameters and a batch to the mean loss, a scalar.
      params: tree of arrays to start from, the same for every rate.
      tx_factory: function from a learning rate to an optimizer, such as `gradtx.adam`. It gets a
        schedule in the range test, and a traced number with `learning_rates`.
      batches: a list (or other iterable) of equally large batches, one for each step, such as
        `[(x, y), ...]`, again from the first after the last; or one tuple `(x, y)` for all steps,
        unless `batch_size` cuts it; `()` for a `loss_fn` of the parameters alone.
      min_lr, max_lr: the first and the last rate of the range test, > 0.
      learning_rates: rates to try, each >= 0, in place of the range test.
      steps: how many, at least 2; None is one for each batch, and at least 100.
      smoothing: decay of the running mean `s`, in [0, 1):
        `s = smoothing * s + (1 - smoothing) * loss`, divided by `1 - smoothing**t`.
      divergence: the loss exploded where it is not finite, or where its running mean rose above its
        least by more than `divergence - 1` times that; > 1.
      batch_size: cuts one batch into batches of this size; a smaller rest is left out.

    Returns:
      `LearningRates(learning_rates, losses, smoothed, suggestion, diverged_at)`. Nothing is
      suggested (NaN) where the loss never fell or always exploded. The first `1 / (1 - smoothing)`
      steps, a quarter at most, are not suggested: the mean has to settle.

    Raises:
      TypeError: `tx_factory` makes no transformation, the loss is no scalar, or a leaf of `params`
        is no floating array.
      ValueError: `min_lr >= max_lr`, or batches of different shapes.

    Example:
      >>> import functools, jax, jax.numpy as jnp, gradtx
      >>> x = jax.random.normal(jax.random.key(0), (1600,))
      >>> loss = lambda w, x: 5 * jnp.mean((w - x) ** 2)  # explodes above 2 / curvature = 0.2
      >>> test = functools.partial(gradtx.lr_range_test, loss, jnp.array(3.0), gradtx.sgd, (x,))
      >>> found = test(min_lr=1e-5, batch_size=16)
      >>> bool(0.01 < found.suggestion < 0.1)
      True
      >>> bool(0.2 < found.learning_rates[found.diverged_at] < 0.5)
      True
      >>> tried = test(learning_rates=[0.001, 0.05, 0.3], batch_size=16)
      >>> tried.suggestion, tried.losses.shape, tried.diverged_at
      (Array(0.05, dtype=float32), (3, 100), Array([100, 100,   2], dtype=int32))

    On CPUs XLA runs convolutions slowly inside compiled loops.

    Source: Smith 2015, arXiv:1506.01186, section 3.3; the growth by a factor, the smoothing and
    `divergence` are those of fast.ai (Howard and Gugger 2020, arXiv:2002.04688).
    """
    trees.check_no_module(params)
    trees.check_leaves("params", params)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), params)
    batches, steps = _stacked(loss_fn, batches, batch_size, steps)
    if learning_rates is None:
        if not np.all(np.asarray(min_lr) < np.asarray(max_lr)):
            raise checks.WrongValue(f"min_lr is {min_lr!r} and max_lr is {max_lr!r}, expected min_lr < max_lr.")
        rates, losses = _growing(loss_fn, tx_factory, steps, params, batches, min_lr, max_lr)
    else:
        if (min_lr, max_lr) != (MIN_LR, MAX_LR):
            raise checks.WrongValue("learning_rates and min_lr or max_lr are given, expected one or the other.")
        rates = _rates(learning_rates)
        losses = _fixed(loss_fn, tx_factory, steps, params, batches, rates)
    skip = min(round(1 / (1 - float(np.asarray(smoothing)))), steps // 4)
    return _read(rates, losses, smoothing, divergence, skip)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _growing(
    loss_fn: LossFn, tx_factory: TxFactory, steps: int, params: Params, batches: Tree, low: Scalar, high: Scalar
) -> tuple[jax.Array, jax.Array]:
    low, high = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)

    def schedule(count: Scalar) -> jax.Array:
        return low * (high / low) ** (count / (steps - 1))

    losses = _train(loss_fn, _made(tx_factory, schedule), steps, params, batches)
    return schedule(jnp.arange(steps)), losses


@partial(jax.jit, static_argnums=(0, 1, 2))
def _fixed(loss_fn: LossFn, tx_factory: TxFactory, steps: int, params: Params, batches: Tree, rates: jax.Array) -> jax.Array:
    return jax.vmap(lambda rate: _train(loss_fn, _made(tx_factory, rate), steps, params, batches))(rates)


def _train(loss_fn: LossFn, tx: Transformation, steps: int, params: Params, batches: Tree) -> jax.Array:
    """The losses of a run, NaN after the first that is not finite."""
    loss_fn, wanted = scalar_loss(loss_fn), wants(tx)

    counts = [leaf.shape[0] for leaf in jax.tree.leaves(batches)]

    def step(carry: Run, i: jax.Array) -> tuple[Run, jax.Array]:
        params, state, finite = carry
        batch = jax.tree.map(lambda x: x[i % counts[0]], batches)

        def loss(params: Params) -> jax.Array:
            return loss_fn(params, *batch)

        value, grad = jax.value_and_grad(loss)(params)
        grad = conj(grad)
        extra = {"value": value, "grad": grad, "value_fn": loss, "grad_fn": lambda params: conj(jax.grad(loss)(params))}
        extra = {name: argument for name, argument in extra.items() if name in wanted}
        updates, state = tx.update(grad, state, params, **extra)
        return (apply_updates(params, updates), state, finite & jnp.isfinite(value)), jnp.where(finite, value, jnp.nan)

    start = (params, tx.init(params), jnp.asarray(True))
    return jax.lax.scan(step, start, jnp.arange(steps))[1]


def _made(tx_factory: TxFactory, rate: Scalar) -> Transformation:
    tx = tx_factory(rate)
    domains.check_argument("", "tx_factory(learning_rate)", tx, domains.TRANSFORMATION)
    return as_transformation(tx)


@jax.jit
def _read(rates: jax.Array, losses: jax.Array, smoothing: Scalar, divergence: Scalar, skip: Scalar) -> LearningRates:
    """What the losses say."""
    losses = losses.astype(common_dtype(losses.dtype, jnp.float32))
    smoothed = _smooth(losses, smoothing)
    least = jax.lax.cummin(smoothed, axis=losses.ndim - 1)
    rounding = jnp.finfo(losses.dtype).eps * jnp.abs(losses[..., :1])
    exploded = ~(jnp.isfinite(losses) & (smoothed - least <= (divergence - 1) * jnp.abs(least) + rounding))
    first = jnp.where(jnp.any(exploded, -1), jnp.argmax(exploded, -1), losses.shape[-1]).astype(jnp.int32)
    suggestion = _least(rates, losses, first) if losses.ndim == 2 else _steepest(rates, smoothed, first, skip)
    return LearningRates(rates, losses, smoothed, suggestion, first)


def _smooth(losses: jax.Array, smoothing: Scalar) -> jax.Array:
    """Bias-corrected running means along the last axis."""

    def step(mean: jax.Array, loss: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = smoothing * mean + (1 - smoothing) * loss
        return mean, mean

    means = jax.lax.scan(step, jnp.zeros_like(losses[..., 0]), jnp.moveaxis(losses, -1, 0))[1]
    count = jnp.arange(1, losses.shape[-1] + 1)
    return jnp.moveaxis(means, 0, -1) / one_minus_power(smoothing, count).astype(losses.dtype)


def _steepest(rates: jax.Array, smoothed: jax.Array, exploded: jax.Array, skip: Scalar) -> jax.Array:
    """Where the smoothed loss falls steepest.

    The logarithms of the rates are equally spaced, so that differences are slopes.
    """
    slopes = jnp.pad((smoothed[2:] - smoothed[:-2]) / 2, 1, constant_values=jnp.inf)
    step = jnp.arange(len(rates))
    slopes = jnp.where((step >= skip) & (step + 1 < exploded), slopes, jnp.inf)
    best = jnp.argmin(slopes)
    return jnp.where(slopes[best] < 0, rates[best], jnp.nan)


def _least(rates: jax.Array, losses: jax.Array, exploded: jax.Array) -> jax.Array:
    """The rate with the smallest mean loss in the last tenth, among those that did not explode."""
    steps = losses.shape[1]
    last = jnp.mean(losses[:, -math.ceil(steps / 10) :], 1)
    last = jnp.where(exploded == steps, last, jnp.inf)
    best = jnp.argmin(last)
    return jnp.where(jnp.isfinite(last[best]), rates[best], jnp.nan)


def _rates(learning_rates: Rates) -> jax.Array:
    rates = np.asarray(learning_rates)
    if rates.ndim != 1 or not rates.size or rates.dtype.kind not in "iuf" or not np.all(np.isfinite(rates) & (rates >= 0)):
        raise checks.WrongValue(f"learning_rates is {learning_rates!r}, expected a list or array of finite numbers >= 0.")
    return jnp.asarray(rates, jnp.float32)


def _stacked(loss_fn: LossFn, batches: Tree, batch_size: int | None, steps: int | None) -> tuple[Batch, int]:
    """Batches along a new leading axis, and how many steps to take with them."""
    listed = [batch for batch, _ in gather(loss_fn, batches, batch_size)]
    shapes = [(jax.tree.structure(batch), *map(np.shape, jax.tree.leaves(batch))) for batch in listed]
    # The smaller rest of a batch that was cut.
    if batch_size is not None and shapes[-1] != shapes[0]:
        listed, shapes = listed[:-1], shapes[:-1]
    if len(set(shapes)) != 1:
        raise checks.WrongValue(
            f"batches has {len(set(shapes))} kinds of batches, expected equal trees of equal shapes: one program takes all steps."
        )
    if steps is None:
        steps = max(DEFAULT_STEPS, len(listed))
    return jax.tree.map(lambda *xs: jnp.stack(xs), *listed), steps
