"""Trains the language model of `train_lm.py` on many devices, saves, and goes on where it was, on as many devices as there are.

Parameters lie by rows and columns along two mesh axes: cut along `data` (FSDP) or copied with the state shared (ZeRO-1), and cut
along `model` (tensor parallelism). Muon's matrices are shared by all devices. Kill it and start it again, with fewer devices too:
the curve goes on.

python examples/train_distributed.py --devices 8
python examples/train_distributed.py --devices 4 --bits 8
python examples/train_distributed.py --devices 8 --processes 2 --optimizer adamw --zero1
"""

import argparse
import functools
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import gradtx

sys.path.insert(0, str(Path(__file__).parent))
import train_lm as lm  # type: ignore[import-not-found]

BLOCK = 16  # elements that share a scale: parts of rows that 8 and 4 devices cut alike


def layout(rows: str | None) -> Any:
    """How parameters lie: outputs of a layer's first matrix and inputs of its second along `model`, the other axis along `rows`."""
    first, second = P(rows, "model"), P("model", rows)
    rules = {r".*/(qkv|up)/kernel": first, r".*/(out|down)/kernel": second, r".*/(qkv|up)/bias": P("model")}
    return gradtx.by_path(rules | {"embed/embedding": P(None, rows), "head/kernel|positions": P(rows)}, default=P())


def optimizer(name: str, steps: int, bits: int | None, zero1: bool) -> gradtx.Transformation:
    peak, make = lm.OPTIMIZERS[name]
    tx = gradtx.chain(gradtx.clip_by_global_norm(lm.CLIP_NORM), make(lm.schedule(peak, steps)))
    if bits is not None:
        tx = gradtx.quantize_state(tx, bits, block_size=BLOCK)
    return gradtx.zero1(tx, "data", spec=layout(None)) if zero1 else tx


def bytes_table(trees: dict[str, tuple[Any, Any]], mesh: Any) -> Table:
    """Bytes of all devices together without copies, and of one."""
    sizes = ", ".join(f"{size} along {name}" for name, size in mesh.shape.items())
    table = Table(title=f"{mesh.size} devices: {sizes}")
    for header in ("bytes", "of the whole", "a device"):
        table.add_column(header, justify="left" if header == "bytes" else "right")
    for name, (shapes, shardings) in trees.items():
        pairs = list(zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True))
        own = sum(int(np.prod(sharding.shard_shape(x.shape))) * x.dtype.itemsize for x, sharding in pairs)
        table.add_row(name, f"{sum(x.size * x.dtype.itemsize for x, _ in pairs):,}", f"{own:,}")
    return table


class Checkpoint:
    """One file. It holds whole arrays, so that any number of devices can read it; only the first process writes."""

    def __init__(self, folder: Path, mesh: Any) -> None:
        self.path = folder / "train.pickle"
        self.gather = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))

    def read(self) -> Any:
        return pickle.loads(self.path.read_bytes()) if self.path.exists() else None

    def write(self, params: Any, saved: dict[str, Any], losses: list[float], starts: list[tuple[int, int]]) -> None:
        """In one stroke: a kill leaves the file of before, or the new one."""
        arrays = jax.device_get(self.gather((jax.tree.leaves(params), saved["leaves"])))
        if jax.process_index() == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            found = {"params": arrays[0], "state": saved | {"leaves": arrays[1]}, "losses": losses, "starts": starts}
            self.path.with_suffix(".new").write_bytes(pickle.dumps(found))
            self.path.with_suffix(".new").replace(self.path)


def plot(losses: list[float], starts: list[tuple[int, int]], path: Path) -> None:
    """The curve, with a line where it went on and on how many devices."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(losses) + 1), losses, color=lm.HUES[0], alpha=0.2, linewidth=0.8)
    axes.plot(range(1, len(losses) + 1), lm.smooth(np.array(losses)), color=lm.HUES[0], linewidth=1.8)
    for step, devices in starts:
        axes.axvline(step, color="gray", linewidth=0.8, linestyle="--")
        axes.text(step, 1.0, f" {devices} devices", transform=axes.get_xaxis_transform(), va="top", fontsize=8, color="gray")
    axes.set(xlabel="step", ylabel="loss (nats per character)", title="Character transformer on the source of the standard library")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Trains on all devices of all processes."""
    console = Console(quiet=jax.process_index() > 0)
    count, model = jax.device_count(), args.model if jax.device_count() % args.model == 0 else 1
    mesh = jax.make_mesh((count // model, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: lm.CharacterModel(nnx.Rngs(args.seed))), nnx.Param)
    shardings = jax.tree.map(lambda _, spec: NamedSharding(mesh, spec), shapes, layout(None if args.zero1 else "data")(shapes))
    tx, checkpoint = optimizer(args.optimizer, args.steps, args.bits, args.zero1), Checkpoint(args.folder, mesh)

    def loss(params: Any, windows: jax.Array) -> jax.Array:
        return lm.cross_entropy(nnx.merge(graphdef, params), windows)

    with jax.set_mesh(mesh):
        state_shardings = gradtx.state_sharding(tx, shapes, shardings)
        found = checkpoint.read()
        if found is None:
            make = jax.jit(lambda: nnx.split(lm.CharacterModel(nnx.Rngs(args.seed)), nnx.Param)[1], out_shardings=shardings)
            params, losses, starts = make(), [], []
            state = gradtx.init_sharded(tx, params)
        else:
            leaves = [jax.device_put(x, sharding) for x, sharding in zip(found["params"], jax.tree.leaves(shardings), strict=True)]
            params, losses, starts = jax.tree.structure(shapes).unflatten(leaves), found["losses"], found["starts"]
            state = gradtx.load_state(tx, params, found["state"]).state
            console.print(f"goes on at step {len(losses)}")
        starts.append((len(losses), count))
        console.print(bytes_table({"parameters": (params, shardings), "state": (state, state_shardings)}, mesh))

        @functools.partial(jax.jit, donate_argnums=(0, 1), out_shardings=(shardings, state_shardings, NamedSharding(mesh, P())))
        def step(params: Any, state: Any, windows: jax.Array) -> Any:
            value, grads = jax.value_and_grad(loss)(params, windows)
            updates, state = tx.update(grads, state, params)
            return gradtx.apply_updates(params, updates), state, value

        text, _ = lm.load_text()
        cut = NamedSharding(mesh, P("data"))
        columns = BarColumn(), TextColumn("step {task.completed} of {task.total}: {task.fields[text]}"), TimeElapsedColumn()
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=args.steps, completed=len(losses), text="compiling")
            for i in range(len(losses), min(args.stop or args.steps, args.steps)):
                chosen = np.random.default_rng(i).integers(0, len(text) - lm.CONTEXT, args.batch)  # of each step its own
                windows = np.asarray(text[chosen[:, None] + np.arange(lm.CONTEXT + 1)])
                params, state, value = step(params, state, jax.make_array_from_callback(windows.shape, cut, windows.__getitem__))
                losses.append(float(value))
                progress.update(task, completed=i + 1, text=f"loss {losses[-1]:.3f}")
                if (i + 1) % args.save_every == 0 or i + 1 == args.steps:
                    checkpoint.write(params, gradtx.state_dict(tx, state), losses, starts)
                    console.print(f"step {i + 1}: loss {losses[-1]:.3f}")
    if jax.process_index() == 0 and losses:
        args.folder.mkdir(parents=True, exist_ok=True)
        plot(losses, starts, args.folder / "curve.png")
    console.print(f"Training curve: {args.folder / 'curve.png'}", soft_wrap=True)
    return {"losses": losses, "starts": starts, "params": params, "state": state}


def start_processes(argv: list[str], count: int) -> None:
    """Starts itself as several processes, which find each other at a free port of this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    commands = [[sys.executable, __file__, *argv, "--process", f"{i}", "--port", f"{port}"] for i in range(count)]
    running = [subprocess.Popen(command) for command in commands]
    failed = [process.wait() for process in running]
    if any(failed):
        sys.exit("a process failed")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizer", default="muon", choices=("adamw", "muon"))
    parser.add_argument("--bits", type=int, choices=(8, 4), help="of the moments; else float32")
    parser.add_argument("--zero1", action="store_true", help="copy parameters along `data`, and share the state alone")
    parser.add_argument("--model", type=int, default=2, help="devices along `model`, where they divide all")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--stop", type=int, help="end after this step, as if it had been killed")
    parser.add_argument("--batch", type=int, default=16, help=f"windows of {lm.CONTEXT} characters a step, of all devices together")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights")
    parser.add_argument("--save-every", type=int, default=50)
    parser.add_argument("--folder", type=Path, default=Path("train_distributed"), help="of the checkpoint and the curve")
    parser.add_argument("--devices", type=int, help="make so many of this machine's CPU, of all processes together")
    parser.add_argument("--processes", type=int, default=1, help="on this machine, joined by jax.distributed")
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.processes > 1 and args.process is None:
        start_processes(sys.argv[1:] if argv is None else argv, args.processes)
        return {}
    if args.devices is not None:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", args.devices // args.processes)
    if args.processes > 1:
        jax.distributed.initialize(f"localhost:{args.port}", args.processes, args.process)
    return train(args)


if __name__ == "__main__":
    main()
