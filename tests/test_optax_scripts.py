"""Training scripts as Optax's documentation has them: under either import they give the same parameters.

Each is a function of the library, `import gradtx.optax as optax` or `import optax`, and gives what it trained and its losses.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import gradtx.optax as ours

PIXELS, LABELS = load_digits(return_X_y=True)
X, Y = jnp.asarray(PIXELS[:512] / 16, jnp.float32), jnp.asarray(LABELS[:512])
Result = tuple[Any, list[Any]]


def network(hidden: int = 16) -> Any:
    """Weights of two layers."""
    rng = np.random.default_rng(0)

    def dense(n: int, m: int) -> Any:
        return {"kernel": jnp.asarray(rng.normal(size=(n, m)) / n**0.5, jnp.float32), "bias": jnp.zeros(m)}

    return {"hidden": dense(64, hidden), "out": dense(hidden, 10)}


def logits(params: Any, x: Any) -> Any:
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


def loss_of(lib: Any) -> Callable[..., Any]:
    def loss(params: Any, x: Any, y: Any) -> Any:
        return lib.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()

    return loss


def batches(count: int, size: int = 64) -> Iterator[tuple[Any, Any]]:
    for i in range(count):
        start = i * size % len(X)
        yield X[start : start + size], Y[start : start + size]


def train(lib: Any, tx: Any, steps: int = 24, size: int = 64) -> tuple[Any, Any, list[Any]]:
    """The loop of most scripts: parameters, state, losses."""
    loss, params = loss_of(lib), network()
    state, losses = tx.init(params), []

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, x, y)
        updates, state = tx.update(grads, state, params)
        return lib.apply_updates(params, updates), state, value

    for x, y in batches(steps, size):
        params, state, value = step(params, state, x, y)
        losses.append(value)
    return params, state, losses


def mlp(lib: Any) -> Result:
    """A schedule, clipping, decay of the weights alone; accuracy at the end."""
    rate = lib.schedules.warmup_cosine_decay_schedule(0.0, 0.03, 5, 40)
    mask = {"hidden": {"kernel": True, "bias": False}, "out": {"kernel": True, "bias": False}}
    tx = lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(rate, b2=0.95, weight_decay=1e-2, mask=mask))
    params, _, losses = train(lib, tx, 40)
    accuracy = jnp.mean(jnp.argmax(logits(params, X), axis=-1) == Y)
    assert accuracy > 0.8
    return (params, accuracy), losses


def meta_learning(lib: Any) -> Result:
    """A learning rate learned by gradients through the steps that it makes."""
    loss, outer = loss_of(lib), lib.adam(0.3)
    start = network(8)

    def after_inner_steps(log_rate: Any) -> Any:
        inner, params = lib.chain(lib.trace(0.5), lib.scale_by_learning_rate(jnp.exp(log_rate))), start
        state = inner.init(params)
        for x, y in batches(4):
            updates, state = inner.update(jax.grad(loss)(params, x, y), state, params)
            params = lib.apply_updates(params, updates)
        return loss(params, X[256:], Y[256:])

    log_rate, value_and_grad = jnp.log(0.02), jax.jit(jax.value_and_grad(after_inner_steps))
    state, losses = outer.init(log_rate), []
    for _ in range(10):
        value, grad = value_and_grad(log_rate)
        updates, state = outer.update(grad, state, log_rate)
        log_rate = lib.apply_updates(log_rate, updates)
        losses.append(value)
    return log_rate, losses


def adversarial_training(lib: Any) -> Result:
    """Pixels moved within a box by a few steps uphill, and weights trained on what comes out."""
    loss, tx, params = loss_of(lib), lib.sgd(0.3, momentum=0.9), network()
    attack = lib.chain(lib.scale_by_sign(), lib.scale(0.02))

    def attacked(params: Any, x: Any, y: Any) -> Any:
        delta = jnp.zeros_like(x)
        state = attack.init(delta)
        for _ in range(3):
            updates, state = attack.update(jax.grad(lambda d: loss(params, x + d, y))(delta), state)
            delta = lib.projections.projection_linf_ball(lib.apply_updates(delta, updates), 0.05)
        return jnp.clip(x + delta, 0, 1)

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, attacked(params, x, y), y)
        updates, state = tx.update(grads, state, params)
        return lib.apply_updates(params, updates), state, value

    state, losses = tx.init(params), []
    for x, y in batches(16):
        params, state, value = step(params, state, x, y)
        losses.append(value)
    return params, losses


def freezing(lib: Any) -> Result:
    """One layer trains, the other stays: by labels, and by a mask."""
    by_label = lib.partition({"train": lib.adam(0.02), "stay": lib.set_to_zero()}, {"hidden": "stay", "out": "train"})
    by_mask = lib.transforms.selective_transform(lib.adam(0.02), freeze_mask={"hidden": True, "out": False})
    (first, _, losses), (second, _, _) = train(lib, by_label), train(lib, by_mask)
    jax.tree.map(np.testing.assert_array_equal, first["hidden"], network()["hidden"])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), first, second)
    return first, losses


def accumulation(lib: Any) -> Result:
    """Four small batches make one step, which is that of a large one."""
    params, _, losses = train(lib, lib.MultiSteps(lib.sgd(0.5), 4), 24, 32)
    whole, _, _ = train(lib, lib.sgd(0.5), 6, 128)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), params, whole)
    return params, losses


def lbfgs(lib: Any) -> Result:
    """Logistic regression on all data, with the line search's own value and gradient."""
    tx, params = lib.lbfgs(memory_size=5), {"kernel": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}

    def fun(p: Any) -> Any:
        scores = X @ p["kernel"] + p["bias"]
        penalty = 1e-2 * lib.tree.norm(p, squared=True)
        return lib.losses.softmax_cross_entropy_with_integer_labels(scores, Y).mean() + penalty

    value_and_grad = lib.value_and_grad_from_state(fun)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        value, grad = value_and_grad(params, state=state)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=fun)
        return lib.apply_updates(params, updates), state, value

    state, losses = tx.init(params), []
    for _ in range(8):
        params, state, value = step(params, state)
        losses.append(value)
    return params, losses


def lookahead(lib: Any) -> Result:
    """Pairs of fast and slow weights."""
    loss, tx = loss_of(lib), lib.lookahead(lib.sgd(0.3), sync_period=4, slow_step_size=0.5)
    params = lib.LookaheadParams.init_synced(network())
    state, losses = tx.init(params), []

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params.fast, x, y)
        updates, state = tx.update(grads, state, params)
        return lib.apply_updates(params, updates), state, value

    for x, y in batches(24):
        params, state, value = step(params, state, x, y)
        losses.append(value)
    return (params.fast, params.slow), losses


def sam(lib: Any) -> Result:
    """Sharpness-aware steps: every second call steps uphill; opaque, all in one."""
    adversary = lib.chain(lib.contrib.normalize(), lib.sgd(0.05))
    params, _, losses = train(lib, lib.contrib.sam(lib.sgd(0.3), adversary, sync_period=2), 32)
    opaque, loss, whole = lib.contrib.sam(lib.sgd(0.3), adversary, opaque_mode=True), loss_of(lib), network()
    state = opaque.init(whole)
    for x, y in batches(4):
        grad_fn = jax.grad(lambda p, _, x=x, y=y: loss(p, x, y))
        updates, state = opaque.update(grad_fn(whole, 0), state, whole, grad_fn=grad_fn)
        whole = lib.apply_updates(whole, updates)
    return (params, whole), losses[::2]


def muon(lib: Any) -> Result:
    """Matrices by Muon, biases by AdamW."""
    params, _, losses = train(lib, lib.contrib.muon(0.02, adam_learning_rate=0.01, adam_b2=0.95))
    return params, losses


def schedule_free(lib: Any) -> Result:
    """No schedule; the average is what counts. A warm-up would part the two: Optax's weights read it one step ahead."""
    tx = lib.contrib.schedule_free_adamw(0.03, b2=0.95)
    params, state, losses = train(lib, tx)
    return (params, lib.contrib.schedule_free_eval_params(state, params)), losses


def dp_sgd(lib: Any) -> Result:
    """Gradients of single examples, clipped, summed, with noise of one key."""
    loss, params = loss_of(lib), network()
    tx = lib.contrib.dpsgd(1.0, l2_norm_clip=1.0, noise_multiplier=0.3, seed=1337)
    state, losses = tx.init(params), []

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        grads = jax.vmap(jax.grad(loss), (None, 0, 0))(params, x, y)
        updates, state = tx.update(grads, state, params)
        return lib.apply_updates(params, updates), state, loss(params, x, y)

    for x, y in batches(24):
        params, state, value = step(params, state, x, y)
        losses.append(value)
    return params, losses


def plateau(lib: Any) -> Result:
    """A rate that falls where the loss does, and that scripts read from the state."""
    loss, params = loss_of(lib), network()
    tx = lib.chain(lib.adam(0.05, b2=0.9), lib.contrib.reduce_on_plateau(0.5, patience=2, accumulation_size=2))
    state, losses = tx.init(params), []

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, x, y)
        updates, state = tx.update(grads, state, params, value=value)
        return lib.apply_updates(params, updates), state, value

    for x, y in batches(24):
        params, state, value = step(params, state, x, y)
        losses.append(value)
    return (params, lib.tree_utils.tree_get(state, "scale")), losses


def low_memory(lib: Any) -> Result:
    """Adafactor, as for large models; rates injected into the state, and changed there."""
    tx = lib.inject_hyperparams(lib.adafactor, static_args=("min_dim_size_to_factor",))(
        learning_rate=0.05, min_dim_size_to_factor=8
    )
    loss, params = loss_of(lib), network()
    state, losses = tx.init(params), []

    @jax.jit
    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, x, y)
        updates, state = tx.update(grads, state, params)
        return lib.apply_updates(params, updates), state, value

    for i, (x, y) in enumerate(batches(24)):
        if i == 12:
            state.hyperparams["learning_rate"] = jnp.asarray(0.02)
        params, state, value = step(params, state, x, y)
        losses.append(value)
    return params, losses


SCRIPTS = [
    mlp,
    meta_learning,
    adversarial_training,
    freezing,
    accumulation,
    lbfgs,
    lookahead,
    sam,
    muon,
    schedule_free,
    dp_sgd,
    plateau,
    low_memory,
]


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_the_same_script_under_either_import(script: Callable[[Any], Result]) -> None:
    (trained, losses), (theirs, other) = script(ours), script(optax)
    np.testing.assert_allclose(losses, other, rtol=1e-4, atol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-4), trained, theirs)
    assert np.mean(losses[-3:]) < 0.92 * losses[0]  # it learns
