"""From gradients of single examples to steps, in the form of Optax's `experimental.aggregating`."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.plain import identity
from gradtx.core import checks
from gradtx.core.checked import checked
from gradtx.core.domains import Decay, PositiveInt
from gradtx.core.leaves import each_leaf, real_full_like, select_tree, zeros_like
from gradtx.core.numerics import (
    abs_sq,
    cond,
    default_float,
    guarded_ratio,
    one_minus_power,
    running_mean,
    safe_increment,
    zero_count,
)
from gradtx.core.pairs import GradientTransformation, Inner, as_transformation
from gradtx.core.transformation import EmptyState, Part, Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, State, Tree, Updates
from gradtx.tree import get

Axes = int | Sequence[int]


class Aggregator(GradientTransformation, measuring=True):
    """A pair of functions whose `update` takes gradients of examples and gives one of them all.

    Args:
      init: makes the state from the parameters.
      update: gives `(updates, state)` from `(gradients of examples, state, params)`.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> mean = optax.experimental.aggregating.average_per_element_updates()
      >>> params, grads = jnp.zeros(2), jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> mean.update(grads, mean.init(params), params)[0]
      Array([2., 3.], dtype=float32)
    """


class _process(Transformation, measuring=True):
    """What `process` makes."""

    preprocessor: Inner
    aggregator: Inner
    postprocessor: Inner
    aggregator_has_aux: bool

    @property
    def inside(self) -> tuple[Transformation, ...]:
        return (self.preprocessor, self.aggregator, self.postprocessor)

    @property
    def takes(self) -> dict[str, bool]:  # type: ignore[override]
        """What the aggregator hands to the last one, no caller has to."""
        return {}

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        return tuple(Part(tx, params, own) for tx, own in zip(self.inside, state, strict=True))

    def init(self, params: Params) -> tuple[State, ...]:
        return tuple(tx.init(params) for tx in self.inside)

    def step(self, updates: Updates, state: tuple, params: Params | None = None, **extra_args: ExtraArg) -> tuple[Updates, State]:
        updates, before = self.preprocessor.advance(updates, state[0], params, extra_args)
        aggregated, gathered = self.aggregator.advance(updates, state[1], params, extra_args)
        mean, extra_args = (aggregated[0], {**extra_args, **aggregated[1]}) if self.aggregator_has_aux else (aggregated, extra_args)

        def stepped() -> tuple[Updates, State]:
            return self.postprocessor.advance(mean, state[2], params, extra_args)

        ready = get(gathered, "ready", None)
        zeros = jax.tree.map(jnp.zeros_like, mean)
        moves, after = stepped() if ready is None else cond(ready, stepped, lambda: (zeros, state[2]))
        return moves, (before, gathered, after)


def process(preprocessor: Inner, aggregator: Inner, postprocessor: Inner, aggregator_has_aux: bool = False) -> Transformation:
    """An optimizer of gradients of examples: each is changed, all are gathered, then comes a step.

    Args:
      preprocessor: transformation of the gradients of examples.
      aggregator: an `Aggregator`, or an accumulation whose state says whether it is `ready`;
        between, updates are zero, and the state of `postprocessor` rests.
      postprocessor: transformation of what was gathered: an optimizer.
      aggregator_has_aux: whether the aggregator gives a pair `(updates, extra arguments)`, the
        second for `postprocessor`.

    State: a tuple of the three states.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> aggregating = optax.experimental.aggregating
      >>> mean = aggregating.average_per_element_updates()
      >>> tx = aggregating.process(optax.clip(1.0), mean, optax.sgd(0.5))
      >>> params, grads = jnp.zeros(2), jnp.array([[1.0, 3.0], [0.0, 1.0]])
      >>> tx.update(grads, tx.init(params), params)[0]
      Array([-0.25, -0.5 ], dtype=float32)
    """
    return _process(
        as_transformation(preprocessor), as_transformation(aggregator), as_transformation(postprocessor), aggregator_has_aux
    )


def average_per_element_updates(per_elt_axis: Axes = 0) -> Aggregator:
    """The mean over examples.

    Args:
      per_elt_axis: the axis, or axes, of the examples.
    """

    def update(updates: Updates, state: EmptyState, params: Params | None = None) -> tuple[Updates, EmptyState]:
        del params
        return jax.tree.map(lambda x: jnp.mean(x, axis=_axes(per_elt_axis)), updates), state

    return Aggregator(_no_state, update)


def _no_state(params: Params) -> EmptyState:
    del params
    return EmptyState()


def _axes(axis: Axes) -> int | tuple[int, ...]:
    return axis if isinstance(axis, int) else tuple(axis)


class AccumulateAvgUpdatesState(NamedTuple):
    """Microbatches gathered, whether the mean went out in the last call, and the mean so far."""

    micro_step: jax.Array
    ready: jax.Array
    avg_grad: Updates


@checked
def accumulate_avg_updates(accumulation_steps: PositiveInt) -> Transformation:
    """The mean over calls: zeros until each `accumulation_steps`-th, which gives it.

    `gradtx.accumulate` is a wrapper for the same, with fewer parts.

    Args:
      accumulation_steps: calls for one mean, >= 1.
    """
    if accumulation_steps == 1:
        return identity()

    def init(params: Params) -> AccumulateAvgUpdatesState:
        return AccumulateAvgUpdatesState(zero_count(), jnp.asarray(False), zeros_like(params))

    def update(
        updates: Updates, state: AccumulateAvgUpdatesState, params: Params | None = None
    ) -> tuple[Updates, AccumulateAvgUpdatesState]:
        del params
        step = safe_increment(state.micro_step)
        mean = each_leaf(lambda u, a: a + (u - a) / step)(updates, state.avg_grad)
        zeros, ready = jax.tree.map(jnp.zeros_like, mean), step == accumulation_steps
        after = AccumulateAvgUpdatesState(jnp.where(ready, 0, step), ready, select_tree(ready, zeros, mean))
        return select_tree(ready, mean, zeros), after

    return GradientTransformation(init, update)


def average_incrementally_updates(per_elt_axis: Axes | None, accumulation_steps: int) -> Transformation:
    """The mean over examples, and over calls.

    Args:
      per_elt_axis: the axis, or axes, of the examples; None where the gradients are means already.
      accumulation_steps: calls for one mean, >= 1.
    """
    if per_elt_axis is None:
        return accumulate_avg_updates(accumulation_steps)
    both = chain(average_per_element_updates(per_elt_axis), accumulate_avg_updates(accumulation_steps))
    return Aggregator(both.init, lambda updates, state, params=None: both.advance(updates, state, params, {}))


def get_batch_size_from_per_elt_updates(per_elt_updates: Updates, per_elt_axis: Axes) -> int:
    """How many examples there are.

    Args:
      per_elt_updates: gradients of examples.
      per_elt_axis: the axis, or axes, of the examples.

    Raises:
      ValueError: leaves have different numbers of them.
    """
    axes = (per_elt_axis,) if isinstance(per_elt_axis, int) else tuple(per_elt_axis)
    sizes = [math.prod(x.shape[axis] for axis in axes) for x in jax.tree.leaves(per_elt_updates)]
    if len(set(sizes)) != 1:
        raise checks.WrongValue(f"the leaves have {sizes} examples, expected one number.")
    return sizes[0]


class PerElementMeanAndSumSqDiffGradsState(NamedTuple):
    """Microbatches gathered, whether a result went out, the mean and the squared deviations."""

    micro_step: jax.Array
    ready: jax.Array
    mean_grads: Updates
    sum_sq_diff_grads: Updates


@checked
def get_per_element_mean_and_sum_sq_diff_grads(per_elt_axis: Axes = 0, accumulation_steps: PositiveInt = 1) -> Aggregator:
    """The mean over examples, and, as extra arguments, what their variance is made of.

    These are `sum_sq_diff_grads`, the sum of squared deviations from the mean, and `sample_size`.

    Args:
      per_elt_axis: the axis, or axes, of the examples.
      accumulation_steps: calls for one result, >= 1.
    """
    axes = _axes(per_elt_axis)

    def of_batch(updates: Updates) -> tuple[Updates, Updates, int]:
        size = get_batch_size_from_per_elt_updates(updates, per_elt_axis)
        means = jax.tree.map(lambda x: jnp.mean(x, axis=axes), updates)
        squares = jax.tree.map(lambda x: jnp.sum(abs_sq(x - jnp.mean(x, axis=axes, keepdims=True)), axis=axes), updates)
        return means, squares, size

    def at_once(updates: Updates, state: EmptyState, params: Params | None = None) -> tuple[Tree, EmptyState]:
        del params
        means, squares, size = of_batch(updates)
        return (means, {"sum_sq_diff_grads": squares, "sample_size": size}), state

    def init(params: Params) -> PerElementMeanAndSumSqDiffGradsState:
        return PerElementMeanAndSumSqDiffGradsState(zero_count(), jnp.asarray(False), zeros_like(params), real_full_like(params, 0))

    def gathered(
        updates: Updates, state: PerElementMeanAndSumSqDiffGradsState, params: Params | None = None
    ) -> tuple[Tree, PerElementMeanAndSumSqDiffGradsState]:
        del params
        means, squares, size = of_batch(updates)
        step = safe_increment(state.micro_step)
        weight = state.micro_step * size / step

        def joined(a: jax.Array, total: jax.Array, m: jax.Array, s: jax.Array) -> tuple[jax.Array, ...]:
            delta = m - a
            return a + delta / step, total + s + abs_sq(delta) * weight

        mean, total = each_leaf(joined)(state.mean_grads, state.sum_sq_diff_grads, means, squares)
        ready = step == accumulation_steps
        result = (mean, {"sum_sq_diff_grads": total, "sample_size": size * step})
        zeros = jax.tree.map(jnp.zeros_like, (mean, total))
        kept = select_tree(ready, zeros, (mean, total))
        after = PerElementMeanAndSumSqDiffGradsState(jnp.where(ready, 0, step), ready, *kept)
        return select_tree(ready, result, jax.tree.map(jnp.zeros_like, result)), after

    return Aggregator(_no_state, at_once) if accumulation_steps == 1 else Aggregator(init, gathered)


class PerElementMeanAndVarianceEMAState(NamedTuple):
    """Steps taken, the decay, running means of gradients and of their variances."""

    count: jax.Array
    ema_decay: jax.Array
    mean_grads_ema: Updates
    variance_grads_ema: Updates


class track_per_element_mean_and_variance_with_ema(Transformation, observes=True):
    """Running means of the gradient and of the variance over examples; it changes no update.

    Its update needs `sum_sq_diff_grads` and `sample_size`, which
    `get_per_element_mean_and_sum_sq_diff_grads` gives.

    Args:
      ema_decay: decay of the means, in [0, 1).
    """

    ema_decay: Decay = 0.9

    def init(self, params: Params) -> PerElementMeanAndVarianceEMAState:
        decay = jnp.array(self.ema_decay, default_float())
        return PerElementMeanAndVarianceEMAState(zero_count(), decay, zeros_like(params), real_full_like(params, 0))

    def step(
        self,
        updates: Updates,
        state: PerElementMeanAndVarianceEMAState,
        params: Params | None = None,
        *,
        sum_sq_diff_grads: Updates,
        sample_size: Scalar,
        **extra_args: ExtraArg,
    ) -> tuple[Updates, PerElementMeanAndVarianceEMAState]:
        decay, freedom = self.ema_decay, sample_size - 1

        @each_leaf
        def rule(m: jax.Array, v: jax.Array, g: jax.Array, s: jax.Array) -> tuple[jax.Array, ...]:
            return running_mean(m, g, decay), running_mean(v, s / freedom, decay)

        means, variances = rule(state.mean_grads_ema, state.variance_grads_ema, updates, sum_sq_diff_grads)
        return updates, PerElementMeanAndVarianceEMAState(safe_increment(state.count), state.ema_decay, means, variances)


def get_unbiased_mean_and_variance_ema(state: State) -> tuple[Updates, Updates]:
    """The running means without the bias of their start.

    Args:
      state: the state of an optimizer of `add_mean_variance_to_opt`.

    Raises:
      ValueError: it holds no such means.
    """
    found = get(state, "PerElementMeanAndVarianceEMAState", None)
    if found is None:
        raise checks.WrongValue(
            "the state holds no PerElementMeanAndVarianceEMAState; make the optimizer with add_mean_variance_to_opt."
        )
    left = one_minus_power(found.ema_decay, found.count)
    means, variances = (jax.tree.map(lambda x: guarded_ratio(x, left), tree) for tree in found[2:])
    return means, variances


def add_mean_variance_to_opt(
    opt: Inner, ema_decay: Scalar = 0.9, per_elt_axis: Axes = 0, accumulation_steps: int = 1
) -> Transformation:
    """An optimizer of gradients of examples that keeps running means of them and of their variance.

    Args:
      opt: the optimizer, which gets means over examples.
      ema_decay: decay of the running means, in [0, 1).
      per_elt_axis: the axis, or axes, of the examples.
      accumulation_steps: calls for one step, >= 1.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> aggregating = optax.experimental.aggregating
      >>> tx = aggregating.add_mean_variance_to_opt(optax.sgd(0.1))
      >>> params, grads = jnp.zeros(1), jnp.array([[1.0], [3.0]])
      >>> _, state = tx.update(grads, tx.init(params), params)
      >>> found = aggregating.get_unbiased_mean_and_variance_ema(state)
      >>> [round(float(x[0]), 4) for x in found]
      [2.0, 2.0]
    """
    aggregator = get_per_element_mean_and_sum_sq_diff_grads(per_elt_axis, accumulation_steps)
    tracked = chain(track_per_element_mean_and_variance_with_ema(ema_decay), opt)
    return process(identity(), aggregator, tracked, aggregator_has_aux=True)
