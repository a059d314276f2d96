"""The rows of `compiled.py`: an optimizer or wrapper in gradtx, and in Optax where that has it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import gradtx
import gradtx.optax


class Row(NamedTuple):
    """How to make it in each library, and the extra arguments of its update."""

    gradtx: Callable[[], Any]
    optax: Callable[[], Any] | None = None
    extra: Callable[[Any], dict[str, Any]] = lambda params: {}


def alike(make: Callable[[Any], Any], extra: Callable[[Any], dict[str, Any]] = lambda params: {}) -> Row:
    """A row whose two sides are written alike, as for Optax."""
    return Row(lambda: make(gradtx.optax), lambda: make(optax), extra)


def around(name: str, extra: Callable[[Any], dict[str, Any]] = lambda params: {}) -> Row:
    """AdamW in a wrapper that gradtx alone has, beside Optax's bare AdamW: the least that it can cost."""
    return Row(lambda: getattr(gradtx, name)(gradtx.adamw(1e-3)), lambda: optax.adamw(1e-3), extra)


def loss(params: Any, *args: Any) -> jax.Array:
    """A loss whose gradient costs one pass over the parameters."""
    return sum((jnp.sum(jnp.square(p.astype(jnp.float32))) for p in jax.tree.leaves(params)), start=jnp.zeros(()))


def second_gradient(params: Any) -> dict[str, Any]:
    """`grad_fn` of half the sum of squares, which costs nothing."""
    return {"grad_fn": lambda params, *_: params}


def is_odd(step: Any) -> Any:
    return step % 2 == 1


def of_matrices(params: Any) -> Any:
    return jax.tree.map(lambda x: x.ndim == 2, params)


def opaque_sam(o: Any) -> Any:
    return o.contrib.sam(o.adamw(1e-3), o.chain(o.contrib.normalize(), o.sgd(0.05)), sync_period=2, opaque_mode=True)


def before_adamw(make: Callable[[Any], Any]) -> Row:
    """A link before AdamW."""
    return alike(lambda o: o.chain(make(o), o.adamw(1e-3)))


ROWS: dict[str, Row] = {
    "sgd": alike(lambda o: o.sgd(0.1)),
    "momentum": alike(lambda o: o.sgd(0.1, momentum=0.9)),
    "adamw": alike(lambda o: o.adamw(1e-3)),
    "clipped": alike(lambda o: o.chain(o.clip_by_global_norm(1.0), o.adamw(1e-3))),
    "lion": alike(lambda o: o.lion(1e-4)),
    "adagrad": alike(lambda o: o.adagrad(0.1)),
    "rmsprop": alike(lambda o: o.rmsprop(1e-3)),
    "radam": alike(lambda o: o.radam(1e-3)),
    "amsgrad": alike(lambda o: o.amsgrad(1e-3)),
    "novograd": alike(lambda o: o.novograd(1e-3)),
    "trust_ratio": alike(lambda o: o.chain(o.scale_by_adam(), o.scale_by_trust_ratio(), o.scale(-1e-3))),
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
    # Optimizers
    "adam": alike(lambda o: o.adam(1e-3)),
    "adamax": alike(lambda o: o.adamax(1e-3)),
    "lbfgs": alike(lambda o: o.lbfgs(1e-3, memory_size=4, linesearch=None)),
    "nadamw": alike(lambda o: o.nadamw(1e-3)),
    "noisy_sgd": alike(lambda o: o.noisy_sgd(1e-3, key=1)),
    "rmsprop_momentum": alike(lambda o: o.rmsprop(1e-3, centered=True, momentum=0.9)),
    "sign_sgd": alike(lambda o: o.sign_sgd(1e-3)),
    "signum": alike(lambda o: o.signum(1e-3)),
    "adafactor": alike(lambda o: o.adafactor(1e-2)),
    "cocob": alike(lambda o: o.contrib.cocob()),
    "dadapt_adamw": alike(lambda o: o.contrib.dadapt_adamw()),
    "mechanize": alike(lambda o: o.contrib.mechanize(o.adam(1.0))),
    "momo_adam": alike(lambda o: o.contrib.momo_adam(), lambda params: {"value": jnp.zeros(())}),
    "sm3": alike(lambda o: o.sm3(0.1)),
    "sophia": alike(lambda o: o.contrib.sophia(1e-3), lambda params: {"obj_fn": loss}),
    "schedule_free_sgd": alike(lambda o: o.contrib.schedule_free_sgd(1e-3)),
    # Links
    "adaptive_clip": before_adamw(lambda o: o.adaptive_grad_clip(0.01)),
    "add_noise": before_adamw(lambda o: o.add_noise(0.1, 0.55, key=0)),
    "block_clip": before_adamw(lambda o: o.clip_by_block_rms(1.0)),
    "centralize": before_adamw(lambda o: o.centralize()),
    "normalize": before_adamw(lambda o: o.contrib.normalize()),
    "update_norm": before_adamw(lambda o: o.normalize_by_update_norm()),
    "zero_nans": before_adamw(lambda o: o.zero_nans()),
    "ema": alike(lambda o: o.chain(o.ema(0.9), o.sgd(1e-3))),
    "param_rms": alike(lambda o: o.chain(o.scale_by_adam(), o.scale_by_param_block_rms(), o.scale(-1e-3))),
    "nonnegative": alike(lambda o: o.chain(o.adamw(1e-3), o.keep_params_nonnegative())),
    "apply_every": alike(lambda o: o.chain(o.adamw(1e-3), o.apply_every(4))),
    "plateau": alike(lambda o: o.chain(o.adamw(1e-3), o.contrib.reduce_on_plateau()), lambda params: {"value": jnp.zeros(())}),
    # Wrappers
    "MultiSteps": alike(lambda o: o.MultiSteps(o.adamw(1e-3), 4).gradient_transformation()),
    "apply_if_finite": alike(lambda o: o.apply_if_finite(o.adamw(1e-3), 2)),
    "conditionally_mask": alike(lambda o: o.conditionally_mask(o.adamw(1e-3), is_odd)),
    "conditionally_transform": alike(lambda o: o.conditionally_transform(o.adamw(1e-3), is_odd)),
    "inject_hyperparams": alike(lambda o: o.inject_hyperparams(o.adamw)(learning_rate=1e-3)),
    "masked": alike(lambda o: o.masked(o.adamw(1e-3), of_matrices)),
    "opaque_sam": alike(opaque_sam, second_gradient),
    "asam": around("asam", second_gradient),
    "cautious": around("cautious"),
    "looksam": around("looksam", second_gradient),
    "skip_spikes": around("skip_spikes"),
    # Storage
    "quantize_state": around("quantize_state"),
    "quantize_state_4": Row(lambda: gradtx.quantize_state(gradtx.adamw(1e-3), 4)),
    "quantize_state_muon": Row(lambda: gradtx.quantize_state(gradtx.muon(0.02))),
    "master_weights": around("master_weights"),
    "master_weights_int8": Row(lambda: gradtx.master_weights(gradtx.adamw(1e-3), "int8")),
    "kahan": around("kahan"),
    "cast_state": around("cast_state"),
    "swa": Row(lambda: gradtx.swa(gradtx.adamw(1e-3), start=10), lambda: optax.adamw(1e-3)),
}
