"""Trains a small perceptron on digits with 16 learning rates and 2 weight decays, all at once in one compiled program.

Hyperparameters of gradtx may be traced arrays, so that `jax.vmap` runs over them as over any other argument.

python examples/sweep.py
python examples/sweep.py --epochs 30 --width 128
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import gradtx

RATES = np.geomspace(1e-4, 1.0, 16).astype(np.float32)
DECAYS = np.array([0.0, 0.1], np.float32)
BATCH, CLASSES = 64, 10
TEST_FRACTION = 0.2
KERNELS = gradtx.by_path({r".*/bias": False}, default=True)

Data = dict[str, jax.Array]


def load_data(seed: int) -> tuple[Data, Data]:
    """Images scaled to [0, 1] with labels: those to train on, and those to test on, parted at random."""
    digits: Any = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.data))
    x, y = jnp.asarray(digits.data[order] / 16, jnp.float32), jnp.asarray(digits.target[order], jnp.int32)
    cut = int(len(order) * (1 - TEST_FRACTION))
    return {"x": x[:cut], "y": y[:cut]}, {"x": x[cut:], "y": y[cut:]}


def init(key: jax.Array, sizes: list[int]) -> Any:
    """Weights of layers, He 2015: variance 2 / inputs."""
    shapes = zip(jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True)
    return [{"kernel": jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, "bias": jnp.zeros(n)} for k, m, n in shapes]


def logits(params: Any, x: jax.Array) -> jax.Array:
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ params[-1]["kernel"] + params[-1]["bias"]


def cross_entropy(params: Any, batch: Data) -> jax.Array:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits(params, batch["x"])), batch["y"][:, None], axis=-1).mean()


def train(rate: jax.Array, decay: jax.Array, params: Any, data: Data, rows: jax.Array) -> Any:
    """The parameters after a step for each of the rows, which are numbers of images."""
    tx = gradtx.adamw(rate, weight_decay=decay, mask=KERNELS)

    def step(carry: Any, row: jax.Array) -> Any:
        params, state = carry
        grads = jax.grad(cross_entropy)(params, jax.tree.map(lambda a: a[row], data))
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), rows)[0][0]


@jax.jit
def sweep(rates: jax.Array, decays: jax.Array, params: Any, data: Data, test: Data, rows: jax.Array) -> jax.Array:
    """Accuracies on the test images, of shape (rates, decays)."""

    def accuracy(rate: jax.Array, decay: jax.Array) -> jax.Array:
        return jnp.mean(logits(train(rate, decay, params, data, rows), test["x"]).argmax(-1) == test["y"])

    return jax.vmap(jax.vmap(accuracy, (None, 0)), (0, None))(rates, decays)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--width", type=int, default=64, help="of the hidden layer")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the batches")
    options = parser.parse_args(argv)
    if options.epochs < 1 or options.width < 1:
        parser.error("--epochs and --width must be at least 1")

    data, test = load_data(options.seed)
    params = init(jax.random.key(options.seed), [data["x"].shape[1], options.width, CLASSES])
    rng, steps = np.random.default_rng(options.seed), len(data["x"]) // BATCH
    rows = np.concatenate([rng.permutation(len(data["x"]))[: steps * BATCH].reshape(steps, BATCH) for _ in range(options.epochs)])
    start = time.perf_counter()
    accuracies = np.asarray(sweep(RATES, DECAYS, params, data, test, rows))
    seconds = time.perf_counter() - start

    best = np.unravel_index(accuracies.argmax(), accuracies.shape)
    table = Table("learning rate", *(f"decay {decay:g}" for decay in DECAYS))
    for i, rate in enumerate(RATES):
        table.add_row(f"{rate:.2g}", *(f"[b]{a:.1%}[/b]" if (i, j) == best else f"{a:.1%}" for j, a in enumerate(accuracies[i])))
    console = Console()
    console.print(table)
    rate, decay = float(RATES[best[0]]), float(DECAYS[best[1]])
    console.print(f"{accuracies.size} runs of {len(rows)} steps in {seconds:.1f} s; best: rate {rate:.2g}, decay {decay:g}")
    return {"accuracies": accuracies, "best": (rate, decay), "seconds": seconds}


if __name__ == "__main__":
    main()
