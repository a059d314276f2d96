"""How flat are the minima that plain training, SAM and Lookahead find, with and without skip connections?

A small residual network learns handwritten digits from the same weights and batches by each method; then its curvature is measured
on training images: the largest eigenvalue of the Hessian, its trace, and the mean loss under Gaussian noise on the weights (average
flatness, Chen et al. 2021). The picture shows the loss around the weights of plain training, with and without skip connections, on
a random plane with filters as long as the network's (Li et al. 2018), and the densities of the Hessians' eigenvalues.

python examples/sam_flatness.py                 # two to three minutes on 2 cores
python examples/sam_flatness.py --epochs 5 --plot sharpness.png
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from flax import linen as nn
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx
from gradtx import diagnostics
from gradtx.diagnostics import plots

mpl.use("Agg")
WIDTH, BLOCKS, CLASSES = 12, 4, 10
EPOCHS, BATCH, RATE, MOMENTUM, RHO = 40, 128, 0.1, 0.9, 0.05
MEASURED = 384  # training images for the measurements
NOISE = 0.05  # standard deviation for average flatness
METHODS = ("plain", "SAM", "Lookahead")
TITLES = {True: "with skip connections", False: "without skip connections"}


class Block(nn.Module):
    """Two convolutions, each after a normalization and a ReLU, beside the skip connection."""

    skip: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for _ in range(2):
            y = nn.Conv(WIDTH, (3, 3))(nn.relu(nn.GroupNorm(4)(y)))
        return x + y if self.skip else y


class Net(nn.Module):
    """Blocks at 8 x 8, 4 x 4 and 2 x 2 pixels, then the mean over these and a linear layer."""

    skip: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(WIDTH, (3, 3))(x[..., None])
        for i in range(BLOCKS):
            x = Block(self.skip)(x)
            x = nn.avg_pool(x, (2, 2), (2, 2)) if i in (0, 1) else x
        return nn.Dense(CLASSES)(nn.relu(nn.GroupNorm(4)(x)).mean((1, 2)))


def load_data() -> Any:
    digits: Any = load_digits()
    images, labels = (digits.images / 16).astype(np.float32), digits.target.astype(np.int32)
    return train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)


def logits(skip: bool, params: Any, x: Any) -> Any:
    return Net(skip).apply(params, x)


def losses(skip: bool) -> Any:
    """The mean loss of a network as a function of its parameters and a batch."""

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return -jnp.take_along_axis(jax.nn.log_softmax(logits(skip, params, x)), y[:, None], axis=-1).mean()

    return loss


def optimizer(method: str, steps: int) -> Any:
    sgd = gradtx.sgd(gradtx.cosine_decay_schedule(RATE, steps), MOMENTUM, nesterov=True)
    return {"plain": sgd, "SAM": gradtx.sam_wrapper(sgd, RHO), "Lookahead": gradtx.lookahead_wrapper(sgd)}[method]


def train(loss: Any, skip: bool, method: str, epochs: int, x: np.ndarray, y: np.ndarray) -> Any:
    steps = epochs * (len(x) // BATCH)
    tx = optimizer(method, steps)
    params = Net(skip).init(jax.random.key(0), x[:1])
    state, rng = tx.init(params), np.random.default_rng(0)

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        gradient = partial(jax.grad(loss), x=x, y=y)
        updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
        return gradtx.apply_updates(params, updates), state

    for _ in range(epochs):
        order = rng.permutation(len(x))
        for i in range(len(x) // BATCH):
            rows = order[i * BATCH : (i + 1) * BATCH]
            params, state = step(params, state, x[rows], y[rows])
    return gradtx.eval_params(state, params)


def measure(loss: Any, params: Any, batch: Any) -> dict[str, Any]:
    return {
        "largest": float(diagnostics.top_eigenvalues(loss, params, batch, steps=20).values[0]),
        "trace": diagnostics.hessian_trace(loss, params, batch, samples=40),
        "flatness": diagnostics.average_flatness(loss, params, batch, radius=NOISE, samples=40),
        "density": diagnostics.spectral_density(loss, params, batch, steps=40, samples=1),
    }


def draw(results: dict[str, dict[str, Any]], planes: dict[str, Any], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(12, 8.5), layout="constrained")
    for i, (title, plane) in enumerate(planes.items()):
        axes = figure.add_subplot(2, 2, i + 1, projection="3d")
        plots.landscape_2d(plane, ax=axes, surface=True).set_title(f"plain training, {title}")
    for i, title in enumerate(planes):
        axes = figure.add_subplot(2, 2, i + 3)
        densities = {name: results[f"{name}, {title}"]["density"] for name in METHODS}
        plots.spectrum(densities, ax=axes).set_title(f"eigenvalues of the Hessian, {title}")
    figure.savefig(path, dpi=150)


def main(argv: list[str] | None = None) -> dict[str, dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--plot", type=Path, default=Path("sam_flatness.png"))
    options = parser.parse_args(argv)
    if options.epochs < 1:
        parser.error("--epochs must be at least 1")

    x, test_x, y, test_y = load_data()
    batch = (x[:MEASURED], y[:MEASURED])
    results, planes = {}, {}
    table = Table(title=f"On {MEASURED} training images; average flatness under noise of {NOISE:g}")
    for header in ("skips", "method", "λ_max", "trace", "average flatness", "test", "seconds"):
        table.add_column(header, justify="left" if header in ("skips", "method") else "right")
    for skip, title in TITLES.items():
        loss = losses(skip)
        for method in METHODS:
            start = time.perf_counter()
            params = train(loss, skip, method, options.epochs, x, y)
            row = measure(loss, params, batch)
            row["accuracy"] = float((logits(skip, params, test_x).argmax(-1) == test_y).mean())
            if method == "plain":
                planes[title] = diagnostics.landscape_2d(loss, params, batch, points=21)
            results[f"{method}, {title}"] = row
            table.add_row(
                "yes" if skip else "no",
                method,
                f"{row['largest']:.2f}",
                "{:.1f} ± {:.1f}".format(*row["trace"]),
                f"{row['flatness'].loss:.3f} ± {row['flatness'].standard_error:.3f}",
                f"{row['accuracy']:.1%}",
                f"{time.perf_counter() - start:.0f}",
            )
    Console().print(table)
    draw(results, planes, options.plot)
    print(f"wrote {options.plot}")
    return results


if __name__ == "__main__":
    main()
