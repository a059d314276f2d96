"""The rows of `compiled.py`: an optimizer or wrapper in gradtx, and in Optax where that has it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import gradtx


class Row(NamedTuple):
    """How to make it in each library, and the extra arguments of its update."""

    gradtx: Callable[[], Any]
    optax: Callable[[], Any] | None = None
    extra: Callable[[Any], dict[str, Any]] = lambda params: {}


def alike(make: Callable[[Any], Any]) -> Row:
    """A row whose two sides are written alike."""
    return Row(lambda: make(gradtx), lambda: make(optax))


def loss(params: Any, *args: Any) -> jax.Array:
    """A loss whose gradient costs one pass over the parameters."""
    return sum((jnp.sum(jnp.square(p.astype(jnp.float32))) for p in jax.tree.leaves(params)), start=jnp.zeros(()))


ROWS = {
    "sgd": alike(lambda library: library.sgd(0.1)),
    "momentum": alike(lambda library: library.sgd(0.1, momentum=0.9)),
    "adamw": alike(lambda library: library.adamw(1e-3)),
    "clipped": alike(lambda library: library.chain(library.clip_by_global_norm(1.0), library.adamw(1e-3))),
    "lion": alike(lambda library: library.lion(1e-4)),
    "adagrad": alike(lambda library: library.adagrad(0.1)),
    "rmsprop": alike(lambda library: library.rmsprop(1e-3)),
    "radam": alike(lambda library: library.radam(1e-3)),
    "amsgrad": alike(lambda library: library.amsgrad(1e-3)),
    "novograd": alike(lambda library: library.novograd(1e-3)),
    "trust_ratio": alike(
        lambda library: library.chain(library.scale_by_adam(), library.scale_by_trust_ratio(), library.scale(-1e-3))
    ),
    "accumulate": Row(
        lambda: gradtx.accumulate(gradtx.adamw(1e-3), 4),
        lambda: optax.MultiSteps(optax.adamw(1e-3), 4).gradient_transformation(),
    ),
    "skip_nonfinite": Row(
        lambda: gradtx.skip_nonfinite(gradtx.adamw(1e-3), 5), lambda: optax.apply_if_finite(optax.adamw(1e-3), 5)
    ),
    "schedule_free": Row(
        lambda: gradtx.schedule_free_adamw(1e-3),
        lambda: optax.contrib.schedule_free_adamw(1e-3),
    ),
    "sam": Row(lambda: gradtx.sam_wrapper(gradtx.sgd(0.1), 0.05), None, lambda params: {"grad_fn": jax.grad(loss)}),
    "lookahead": Row(lambda: gradtx.lookahead_wrapper(gradtx.adamw(1e-3), 5, 0.5)),
    "ema_params": Row(lambda: gradtx.ema_params(gradtx.adamw(1e-3), 0.999)),
    "muon": Row(lambda: gradtx.muon(0.02), lambda: optax.contrib.muon(0.02)),
    "muon_polar_express": Row(lambda: gradtx.muon(0.02, ns_coeffs="polar_express", ns_steps=4)),
}
