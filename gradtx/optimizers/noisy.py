"""Gradient descent with noise, to leave saddles or to sample: perturbed SGD and GD, Langevin."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.apply import apply_updates
from gradtx.core.composites import Preset
from gradtx.core.domains import NonNegative, NonNegativeInt, Positive, Rate
from gradtx.core.leaves import cast_like, each_leaf, zeros_like
from gradtx.core.numerics import cond, root_sum_squares, safe_increment
from gradtx.core.transformation import Transformation
from gradtx.core.trees import check_same_shapes, require_params
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.transforms.noise import Key, add_langevin_noise, add_sphere_noise, as_key, sphere_like
from gradtx.transforms.scaling import ScaleByLearningRateState, scale_by_learning_rate


class perturbed_sgd(Preset):
    """Noisy gradient descent: `-learning_rate * (g + xi)`, with `|xi| = radius`.

    `xi` is uniform on the sphere, and new at every step. All parameters are one vector.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves parameters by the gradient and the
        noise.
      radius: length of the noise, > 0, in units of the update.
      key: random key, or a whole number to seed one.

    State: `(AddSphereNoiseState, ScaleByLearningRateState)`; one key.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.perturbed_sgd(0.5, radius=2.0, key=7)
      >>> updates, state = tx.update(jnp.zeros(3), tx.init(jnp.zeros(3)))
      >>> round(float(gradtx.global_norm(updates)), 4)
      1.0

    Source: Ge et al. 2015, arXiv:1503.02101, algorithm 1, where the radius is 1.
    """

    learning_rate: Rate
    radius: Positive = 1.0
    key: Key = 0

    def chain(self) -> Transformation:
        return chain(add_sphere_noise(self.radius, self.key), scale_by_learning_rate(self.learning_rate))


class PerturbedGdState(NamedTuple):
    """Steps since the last perturbation, the key for the next, and the learning rate's state."""

    steps_since: jax.Array
    rng_key: jax.Array
    rate_state: ScaleByLearningRateState


class perturbed_gd(Transformation):
    """Gradient descent, with a push where the gradient is small: `xi - learning_rate * g` there.

    `xi` is uniform on the sphere `|xi| = radius`. It is drawn where `|g| <= gradient_threshold` and
    the last push, if any, was more than `interval` steps ago; else it is 0. Descent alone leaves a
    saddle late, or never.

    With the extra argument `grad_fn`, a function from parameters to gradients, a perturbed step
    descends along the gradient of the perturbed parameters, as in the paper, and needs `params`;
    without it, along the gradient given.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves parameters by the gradient. It does not
        scale the noise.
      radius: length of the perturbation, > 0, in units of the parameters; all parameters are one
        vector.
      gradient_threshold: norm of the whole gradient, >= 0, up to which it counts as small.
      interval: steps after a perturbation without another, >= 0.
      key: random key, or a whole number to seed one.

    State: `PerturbedGdState(steps_since int32, rng_key, rate_state)`; one key.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.perturbed_gd(0.1, radius=0.01, gradient_threshold=1e-3, interval=50)
      >>> updates, state = tx.update(jnp.zeros(3), tx.init(jnp.zeros(3)))
      >>> round(float(gradtx.global_norm(updates)), 4)
      0.01

    Source: Jin et al. 2017, arXiv:1703.00887, algorithm 2.

    **Differs:** the paper draws from the ball of that radius, and ends where the loss has not
    fallen enough `interval` steps after a perturbation; here the noise is on the sphere, and the
    end of the loop is the caller's.
    """

    learning_rate: Rate
    radius: Positive
    gradient_threshold: NonNegative
    interval: NonNegativeInt
    key: Key = 0

    @functools.cached_property
    def scaling(self) -> scale_by_learning_rate:
        """The descent."""
        return scale_by_learning_rate(self.learning_rate)

    def init(self, params: Params) -> PerturbedGdState:
        never = jnp.asarray(self.interval + 1, jnp.int32)
        return PerturbedGdState(never, as_key(self.key), self.scaling.init(params))

    def step(
        self,
        updates: Updates,
        state: PerturbedGdState,
        params: Params | None = None,
        *,
        grad_fn: Callable[[Params], Updates] | None = None,
        **extra_args: ExtraArg,
    ) -> tuple[Updates, PerturbedGdState]:
        grad_norm = root_sum_squares(jax.tree.leaves(updates))
        due = (grad_norm <= self.gradient_threshold) & (state.steps_since > self.interval)

        def draw() -> tuple[Updates, jax.Array]:
            next_key, now = jax.random.split(state.rng_key)
            return sphere_like(now, updates, self.radius), next_key

        def at_perturbed(grad_fn: Callable[[Params], Updates]) -> Updates:
            grads = grad_fn(apply_updates(require_params(params), xi))
            check_same_shapes(grads, updates)
            return cast_like(grads, updates)

        @each_leaf
        def add(step: jax.Array, xi: jax.Array) -> jax.Array:
            return xi + step

        xi, rng_key = cond(due, draw, lambda: (zeros_like(updates), state.rng_key))
        grads = updates if grad_fn is None else cond(due, lambda: at_perturbed(grad_fn), lambda: updates)
        steps, rate_state = self.scaling.advance(grads, state.rate_state, params, extra_args)
        steps_since = jnp.where(due, 1, safe_increment(state.steps_since))
        return add(steps, xi), PerturbedGdState(steps_since, rng_key, rate_state)


class sgld(Preset):
    """Langevin dynamics (SGLD): `-learning_rate * g + sqrt(2 * learning_rate * temperature) * xi`.

    `xi` is standard normal. For small rates the parameters become samples of the density
    proportional to `exp(-loss / temperature)`, where the loss is the whole data's sum, not its
    mean. On `lam * x**2 / 2` their variance is
    `temperature / (lam * (1 - learning_rate * lam / 2))`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves parameters by the gradient, and the
        noise's variance by twice the temperature.
      temperature: >= 0; 1 samples from `exp(-loss)`, 0 adds nothing.
      key: random key, or a whole number to seed one.

    State: `(ScaleByLearningRateState, AddLangevinNoiseState)`; one key.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.sgld(0.02, temperature=0.25, key=7)
      >>> updates, state = tx.update(jnp.ones(10_000), tx.init(jnp.zeros(10_000)))
      >>> round(float(updates.mean()), 2), round(float(updates.std()), 2)
      (-0.02, 0.1)

    Source: Welling and Teh 2011, "Bayesian learning via stochastic gradient Langevin dynamics",
    equation 4, whose step size is `2 * learning_rate`.
    """

    learning_rate: Rate
    temperature: NonNegative = 1.0
    key: Key = 0

    def chain(self) -> Transformation:
        noise = add_langevin_noise(self.learning_rate, self.temperature, key=self.key)
        return chain(scale_by_learning_rate(self.learning_rate), noise)
