"""DP-SGD: gradients of single examples, clipped, summed and blurred, so that none can be told."""

from typing import NamedTuple

import jax

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import DecayOrSchedule, Flag, NonNegative, Positive, Rate
from gradtx.core.transformation import Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.optimizers.sgd import momentum_of
from gradtx.transforms.clipping import per_example_global_norm_clip
from gradtx.transforms.noise import Key, as_key
from gradtx.transforms.scaling import scale_by_learning_rate


class DifferentiallyPrivateAggregateState(NamedTuple):
    """The key for the next step's noise."""

    rng_key: jax.Array


class differentially_private_aggregate(Transformation, measuring=True):
    """From gradients of `n` examples to one: `(sum_i clip(g_i) + s * xi) / n`.

    `clip(g) = g * min(1, l2_norm_clip / |g|)` over the whole tree, `s = noise_multiplier *
    l2_norm_clip`, and `xi` is standard normal. The examples lie on axis 0 of each leaf, as
    `jax.vmap(jax.grad(loss), (None, 0))` gives them. It comes first in a chain. Wrappers that take
    gradients shaped like the parameters, such as `accumulate`, refuse those of examples.

    Args:
      l2_norm_clip: largest norm of one example's gradient, > 0.
      noise_multiplier: standard deviation of the noise on the sum, in units of `l2_norm_clip`,
        >= 0. An accountant, which gradtx has not, tells what privacy it buys.
      key: random key, or a whole number to seed one.

    State: `DifferentiallyPrivateAggregateState(rng_key)`, one key.

    Raises:
      ValueError: leaves have different numbers of examples.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.differentially_private_aggregate(2.5, 0.0, key=0)
      >>> grads, params = jnp.array([[3.0, 4.0], [0.0, 0.5]]), jnp.zeros(2)
      >>> tx.update(grads, tx.init(params), params)[0]
      Array([0.75, 1.25], dtype=float32)

    Source: Abadi et al. 2016, arXiv:1607.00133, algorithm 1.

    **Differs:** `key` is required, and Optax's deprecated `seed` is gone. Optax draws the noise of
    half-precision gradients in half precision, whose normal numbers have but 128 values in
    bfloat16.
    """

    l2_norm_clip: Positive
    noise_multiplier: NonNegative
    key: Key

    def init(self, params: Params) -> DifferentiallyPrivateAggregateState:
        return DifferentiallyPrivateAggregateState(as_key(self.key))

    def step(
        self, updates: Updates, state: DifferentiallyPrivateAggregateState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, DifferentiallyPrivateAggregateState]:
        clipped, _ = per_example_global_norm_clip(updates, self.l2_norm_clip)
        leaves, treedef = jax.tree.flatten(clipped)
        after, *keys = jax.random.split(state.rng_key, len(leaves) + 1)
        examples = max([g.shape[0] for g in jax.tree.leaves(updates)], default=1)
        deviation = self.l2_norm_clip * self.noise_multiplier

        def blurred(g: jax.Array, key: jax.Array) -> jax.Array:
            xi = jax.random.normal(key, g.shape, g.dtype, out_sharding=jax.typeof(g).sharding)
            return ((g + deviation * xi) / max(examples, 1)).astype(g.dtype)

        updates = treedef.unflatten(map(blurred, leaves, keys))
        return updates, DifferentiallyPrivateAggregateState(after)


class dpsgd(Preset, measuring=True):
    """Private descent: `-learning_rate * m`, with `m = g + momentum * m`, or `m = g`.

    `g = (sum_i clip(g_i) + s * xi) / n` comes from the gradients of `n` examples, which lie on axis
    0 of each leaf; see `differentially_private_aggregate`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves parameters by at most `l2_norm_clip` in
        Euclidean norm, and by the noise.
      l2_norm_clip: largest norm of one example's gradient, > 0.
      noise_multiplier: standard deviation of the noise on the sum, in units of `l2_norm_clip`,
        >= 0. An accountant, which gradtx has not, tells what privacy it buys.
      seed: random key, or a whole number to seed one.
      momentum: number in [0, 1) or schedule, the `decay` of a `trace`; None is plain descent.
      nesterov: whether to look one step ahead.

    State: `(DifferentiallyPrivateAggregateState, TraceState or EmptyState,
      ScaleByLearningRateState)`; 4 bytes a parameter with momentum, else 0.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, w = gradtx.dpsgd(0.1, 1.0, 0.5, seed=0), jnp.zeros(2)
      >>> loss = lambda w, x: jnp.sum((w - x) ** 2)
      >>> grads = jax.vmap(jax.grad(loss), (None, 0))(w, jnp.ones((64, 2)))
      >>> updates, state = tx.update(grads, tx.init(w), w)
      >>> updates.shape
      (2,)

    Source: Abadi et al. 2016, arXiv:1607.00133, algorithm 1.
    """

    learning_rate: Rate
    l2_norm_clip: Positive
    noise_multiplier: NonNegative
    seed: Key
    momentum: DecayOrSchedule | None = None
    nesterov: Flag = False

    def chain(self) -> Transformation:
        return chain(
            differentially_private_aggregate(self.l2_norm_clip, self.noise_multiplier, self.seed),
            momentum_of(self.momentum, self.nesterov, None),
            scale_by_learning_rate(self.learning_rate),
        )
