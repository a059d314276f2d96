"""Trains a small perceptron (Flax Linen and its TrainState) to read scikit-learn's handwritten digits.

python examples/train_digits.py
python examples/train_digits.py --epochs 60 --batch 128 --seed 1
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.training.train_state import TrainState
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_digits

import gradtx

TEST_FRACTION = 0.2
WIDTH, CLASSES = 128, 10
PEAK_RATE, WEIGHT_DECAY, CLIP_NORM = 5e-3, 0.1, 1.0
WARMUP_FRACTION = 0.1
KERNELS = gradtx.by_path({r".*/bias": False}, default=True)


def load_data(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images scaled to [0, 1] and labels: those to train on, then those to test on, parted at random."""
    digits: Any = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.data))
    images, labels = (digits.data[order] / 16).astype(np.float32), digits.target[order].astype(np.int32)
    cut = int(len(order) * (1 - TEST_FRACTION))
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


class Perceptron(nn.Module):
    """Two hidden layers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of the classes."""
        for _ in range(2):
            x = nn.relu(nn.Dense(WIDTH)(x))
        return nn.Dense(CLASSES)(x)


@jax.jit
def train_step(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, jax.Array, dict[str, jax.Array]]:
    def cross_entropy(params: Any) -> jax.Array:
        log_probabilities = jax.nn.log_softmax(state.apply_fn({"params": params}, images))
        return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1).mean()

    loss, grads = jax.value_and_grad(cross_entropy)(state.params)
    state = state.apply_gradients(grads=grads)
    return state, loss, gradtx.metrics(state.opt_state)


def accuracy(state: TrainState, images: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of the images that are read rightly."""
    logits = state.apply_fn({"params": state.params}, images)
    return float((logits.argmax(-1) == labels).mean())


def make_optimizer(steps: int) -> gradtx.Transformation:
    rate = gradtx.warmup_cosine_decay_schedule(0.0, PEAK_RATE, int(WARMUP_FRACTION * steps), steps)
    return gradtx.chain(gradtx.clip_by_global_norm(CLIP_NORM), gradtx.adamw(rate, weight_decay=WEIGHT_DECAY, mask=KERNELS))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64, help="images per step")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the batches")
    options = parser.parse_args(argv)

    train_images, train_labels, test_images, test_labels = load_data(options.seed)
    if options.epochs < 1 or not 1 <= options.batch <= len(train_images):
        parser.error(f"--epochs must be at least 1 and --batch between 1 and {len(train_images)}")
    steps_per_epoch = len(train_images) // options.batch
    tx = make_optimizer(options.epochs * steps_per_epoch)
    model = Perceptron()
    params = model.init(jax.random.key(options.seed), train_images[:1])["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
    rng = np.random.default_rng(options.seed)

    console, epoch_losses, values = Console(), [], {}
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[text]}")
    start = time.perf_counter()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("digits", total=options.epochs, text="compiling")
        for _ in range(options.epochs):
            losses, metrics = [], {}
            for batch in rng.permutation(len(train_images))[: steps_per_epoch * options.batch].reshape(steps_per_epoch, -1):
                state, loss, metrics = train_step(state, train_images[batch], train_labels[batch])
                losses.append(loss)
            epoch_losses.append(float(np.mean(losses)))
            values = {name: float(value) for name, value in metrics.items()}  # once an epoch: a reading waits for the device
            progress.update(task, advance=1, text=f"loss {epoch_losses[-1]:.4f}  rate {values['learning_rate']:.1e}")

    results = {
        "test_accuracy": accuracy(state, test_images, test_labels),
        "train_accuracy": accuracy(state, train_images, train_labels),
        "losses": epoch_losses,
        "seconds": time.perf_counter() - start,
        "state_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state)),
        "metrics": values,
    }
    table = Table("images", "number", "accuracy", title=f"{int(state.step)} steps in {results['seconds']:.1f} s")
    for name, labels in (("train", train_labels), ("test", test_labels)):
        table.add_row(name, f"{len(labels)}", f"{results[f'{name}_accuracy']:.1%}")
    console.print(table)
    return results


if __name__ == "__main__":
    main()
