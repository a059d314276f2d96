"""What claims about networks share: handwritten digits, a perceptron, training of many seeds in one program."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import gradtx

CLASSES, TEST = 10, 397


def data(rows: int = 1400, noise: float = 0.0, seed: int = 0) -> dict[str, jax.Array]:
    """Images in [0, 1] and labels to train on, a share of them wrong (1: all drawn anew), and right ones to test on."""
    digits: Any = load_digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits.data))
    x, y = (digits.data[order] / 16).astype(np.float32), digits.target[order].astype(np.int32)
    train_y = y[TEST : TEST + rows].copy()
    wrong = rng.permutation(rows)[: int(noise * rows)]
    train_y[wrong] = rng.integers(0, CLASSES, len(wrong)) if noise == 1 else (train_y[wrong] + rng.integers(1, 10, len(wrong))) % 10
    parts = {"x": x[TEST : TEST + rows], "y": train_y, "test_x": x[:TEST], "test_y": y[:TEST]}
    return jax.tree.map(jnp.asarray, parts)


def initial(key: jax.Array, width: int) -> dict[str, jax.Array]:
    """Weights of a hidden layer and an output layer, after He et al. 2015."""
    sizes, keys = (64, width, CLASSES), jax.random.split(key)
    return {
        f"w{i}": jax.random.normal(keys[i], sizes[i : i + 2], jnp.float32) * jnp.float32((2 / sizes[i]) ** 0.5) for i in range(2)
    } | {"b0": jnp.zeros(width, jnp.float32), "b1": jnp.zeros(CLASSES, jnp.float32)}


def logits(params: Any, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ params["w0"] + params["b0"]) @ params["w1"] + params["b1"]


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits(params, x)), y[:, None], axis=-1).mean()


def accuracy(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return (logits(params, x).argmax(-1) == y).mean()


def train(tx: Any, start: Any, rows: dict[str, jax.Array], key: jax.Array, steps: int, batch: int = 64, see: Any = None) -> Any:
    """The parameters to evaluate after `steps` minibatches, and what `see(params, grads)` gives at each."""

    def step(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        chosen = jax.random.randint(key, (batch,), 0, len(rows["x"]))
        gradient = partial(jax.grad(loss), x=rows["x"][chosen], y=rows["y"][chosen])
        grads = gradient(params)
        updates, state = tx.update(grads, state, params, grad_fn=gradient)
        return (gradtx.apply_updates(params, updates), state), None if see is None else see(params, grads)

    (params, state), seen = jax.lax.scan(step, (start, tx.init(start)), jax.random.split(key, steps))
    return gradtx.eval_params(state, params), seen


def train_many(tx: Any, rows: dict[str, jax.Array], seeds: int, steps: int, width: int, batch: int = 64) -> Any:
    """The trained parameters of several seeds, of weights and of batches, with a leading axis."""

    def one(key: jax.Array) -> Any:
        return train(tx, initial(key, width), rows, jax.random.fold_in(key, 1), steps, batch)[0]

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), seeds))


def each(params: Any) -> list[Any]:
    """The parameters of each seed."""
    count = len(jax.tree.leaves(params)[0])
    return [jax.tree.map(lambda x, i=i: x[i], params) for i in range(count)]
