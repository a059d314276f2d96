"""Trains a perceptron on digits on all devices, parameters and state cut along them (FSDP), saves, and goes on where it was.

On a machine with one CPU, 8 devices can be made of it. Kill it and start it again: it ends where it would have ended.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python examples/train_distributed.py
python examples/train_distributed.py --steps 500 --folder runs/digits
"""

import argparse
import functools
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

import gradtx

SIZES = (64, 256, 256, 10)
BATCH, SAVE_EVERY = 64, 50


def load_data() -> tuple[np.ndarray, np.ndarray]:
    """Images scaled to [0, 1], and their labels."""
    digits: Any = load_digits()
    return (digits.data / 16).astype(np.float32), digits.target.astype(np.int32)


def init(key: jax.Array) -> Any:
    """Weights of layers, He 2015: variance 2 / inputs."""
    shapes = zip(jax.random.split(key, len(SIZES) - 1), SIZES[:-1], SIZES[1:], strict=True)
    return [{"kernel": jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, "bias": jnp.zeros(n)} for k, m, n in shapes]


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    log_probabilities = jax.nn.log_softmax(x @ params[-1]["kernel"] + params[-1]["bias"])
    return -jnp.take_along_axis(log_probabilities, y[:, None], axis=-1).mean()


def optimizer(steps: int) -> gradtx.Transformation:
    rate = gradtx.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 10, steps)
    return gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(rate, weight_decay=0.01))


def save(path: Path, step: int, params: Any, tx: Any, state: Any) -> None:
    """In one stroke: a kill leaves the file of before, or the new one."""
    tree = {"step": step, "params": params, "state": gradtx.state_dict(tx, state)}
    path.with_suffix(".new").write_bytes(pickle.dumps(jax.device_get(tree)))
    path.with_suffix(".new").replace(path)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--stop", type=int, help="end after this step, as if it had been killed")
    parser.add_argument("--folder", type=Path, default=Path("train_distributed"))
    args = parser.parse_args(argv)

    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, P("data"))
    shapes = jax.eval_shape(init, jax.random.key(0))
    shardings = jax.tree.map(lambda x: rows if x.shape[0] % mesh.size == 0 else NamedSharding(mesh, P()), shapes)
    tx = optimizer(args.steps)
    state_shardings = gradtx.state_sharding(tx, shapes, shardings)
    print(gradtx.step_cost(tx, shapes, shardings))

    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / "train.pickle"
    if path.exists():
        found = pickle.loads(path.read_bytes())
        params = jax.device_put(found["params"], shardings)
        state, first = gradtx.load_state(tx, params, found["state"]).state, found["step"]
        print(f"goes on at step {first}")
    else:
        params = jax.jit(init, out_shardings=shardings)(jax.random.key(0))
        state, first = gradtx.init_sharded(tx, params), 0

    @functools.partial(jax.jit, donate_argnums=(0, 1), out_shardings=(shardings, state_shardings, NamedSharding(mesh, P())))
    def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        value, grads = jax.value_and_grad(loss)(params, x, y)
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state, value

    images, labels = load_data()
    value = jnp.nan
    for i in range(first, args.stop or args.steps):
        chosen = np.random.default_rng(i).integers(0, len(images), BATCH)  # of each step its own, so that none is lost in a kill
        params, state, value = step(params, state, *jax.device_put((images[chosen], labels[chosen]), rows))
        if (i + 1) % SAVE_EVERY == 0 or i + 1 == args.steps:
            save(path, i + 1, params, tx, state)
            print(f"step {i + 1}: loss {float(value):.3f}")
    return {"params": jax.device_get(params), "state": state, "loss": float(value)}


if __name__ == "__main__":
    main()
