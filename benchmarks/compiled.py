"""What does one update cost on accelerators that are not here?

    JAX_PLATFORMS=cpu TPU_WORKER_HOSTNAMES=localhost TPU_ACCELERATOR_TYPE=v5litepod-8 \
        python benchmarks/compiled.py [--only adamw,sgd] [--case a,b] [--dtype float32] [--write] [--resume] \
        [--library gradtx] [--layers 2]

Compiles the update and `apply_updates` of each row for TPUs, parameters and state donated, and prints what XLA says of the program;
nothing runs. It needs libtpu (`pip install "jax[tpu]"`, 213 MB). `--write` puts each line into results/tpu_compiled.md as soon as
it is there, in place of the one before, and leaves the others; lines of other versions of jax, libtpu or Optax go. `--resume`
compiles what that file lacks. `--layers` takes another model, for a quick look.

Columns, a device: HBM MB, bytes read and written in main memory; of a conditional the branch that moves most, and in the next
column the one that moves least; temporary MB; Gflop; collectives and their MB; millions of cycles as the compiler estimates them;
seconds to compile. Loops by `lax.map` are over-counted.

Cases: a, one v5e; b, 8 of them, each parameter split over all (FSDP); c, 8, tensor parallel; d, 2 x 4, both; e, 256, FSDP, and f,
16 x 16, both, with 1.3 billion parameters instead of 124 million.
"""

import argparse
import functools
import importlib.metadata
import itertools
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from compiled_rows import ROWS, Row
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx.diagnostics.hlo import cost

RESULTS = Path(__file__).parent / "results" / "tpu_compiled.md"


class Case(NamedTuple):
    """Devices, their mesh over data and model, and the model."""

    topology: str
    mesh: tuple[int, int]
    layers: int = 12
    width: int = 768
    says: str = ""


CASES = {
    "a": Case("v5e:2x4", (1, 1), says="124M on one v5e"),
    "b": Case("v5e:2x4", (8, 1), says="124M on 8 v5e, FSDP"),
    "c": Case("v5e:2x4", (1, 8), says="124M on 8 v5e, tensor parallel"),
    "d": Case("v5e:2x4", (2, 4), says="124M on 2 x 4 v5e, FSDP and tensor parallel"),
    "e": Case("v5e:16x16", (256, 1), 24, 2048, "1.3B on 256 v5e, FSDP"),
    "f": Case("v5e:16x16", (16, 16), 24, 2048, "1.3B on 16 x 16 v5e, FSDP and tensor parallel"),
}
DTYPES = ("float32", "bfloat16")
LIBRARIES = ("Optax", "gradtx")
FAILED = "failed: "
HEAD = "| row | HBM MB | least | temp MB | Gflop | collectives | MB | Mcycles | compile s |\n|---|---|---|---|---|---|---|---|---|"


def gpt(layers: int, width: int, dtype: Any) -> dict[str, Any]:
    """Shapes of a GPT's parameters: 124 million with 12 layers of width 768."""
    block = dict.fromkeys(("query", "key", "value", "out"), (width, width)) | {"up": (width, 4 * width), "down": (4 * width, width)}
    block |= {"norm1": (width,), "norm2": (width,)}
    shapes: dict[str, Any] = {"tokens": (50304, width), "positions": (1024, width), "norm": (width,)}
    shapes |= {f"layer{i}": block for i in range(layers)}
    return jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape, dtype), shapes, is_leaf=lambda x: isinstance(x, tuple))


@functools.cache
def mesh_of(case: Case) -> Mesh:
    devices = topologies.get_topology_desc(platform="tpu", topology_name=case.topology).devices
    count = case.mesh[0] * case.mesh[1]
    return Mesh(np.array(devices[:count]).reshape(case.mesh), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def placed(params: Any, mesh: Mesh) -> Any:
    """Shapes with shardings.

    Tensor parallel over `model` (outputs of up, query, key, value; inputs of down, out), the rest over `data`.
    """

    def place(path: Any, x: Any) -> Any:
        axes: list[Any] = [None] * x.ndim
        if x.ndim == 2:
            split = 0 if path[-1].key in ("down", "out", "tokens") else 1
            axes[split], axes[1 - split] = "model", "data"
        elif x.size % mesh.shape["data"] == 0:
            axes[0] = "data"
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, P(*axes)))

    return jax.tree_util.tree_map_with_path(place, params)


def placed_state(state: Any, params: Any, mesh: Mesh) -> Any:
    """A state's shapes: what belongs to a parameter, by the end of its path and its shape, lies as that does.

    All else is on every device.
    """
    known = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}

    def place(path: Any, x: Any) -> Any:
        ends = (known.get(jax.tree_util.keystr(path[i:])) for i in range(len(path)))
        like = next((p for p in ends if p is not None and p.shape == x.shape), None)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=like.sharding if like else NamedSharding(mesh, P()))

    return jax.tree_util.tree_map_with_path(place, state)


def compiled(tx: Any, library: Any, row: Row, case: Case, dtype: Any) -> Any:
    """The program of one update, as a training step donates to it."""
    mesh = mesh_of(case)
    params = placed(gpt(case.layers, case.width, dtype), mesh)
    tx = optax.with_extra_args_support(tx) if library is optax else tx
    state = placed_state(jax.eval_shape(tx.init, params), params, mesh)

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params, **row.extra(params))
        return library.apply_updates(params, updates), state

    shardings = jax.tree.map(lambda x: x.sharding, (params, state))
    return jax.jit(step, donate_argnums=(0, 1), out_shardings=shardings).lower(params, state, params).compile()


def line(name: str, tx: Any, library: Any, row: Row, case: Case, dtype: Any) -> str:
    """A line of the table."""
    start = time.perf_counter()
    program = compiled(tx, library, row, case, dtype)
    seconds = time.perf_counter() - start
    text = program.as_text()
    most, least = cost(text), cost(text, cheapest=True)
    flops = (program.cost_analysis() or {}).get("flops", 0)
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(most.number.items()))
    cells = (
        f"{most.hbm / 1e6:.0f}",
        f"{least.hbm / 1e6:.0f}",
        f"{program.memory_analysis().temp_size_in_bytes / 1e6:.0f}",
        f"{flops / 1e9:.2f}",
        kinds or "0",
        f"{sum(most.moved.values()) / 1e6:.1f}",
        f"{most.cycles / 1e6:.2f}",
        f"{seconds:.1f}",
    )
    return f"| {name} | {' | '.join(cells)} |"


class Key(NamedTuple):
    """Which line of which table."""

    section: str
    title: str


def lines(
    cases: list[Case], dtypes: list[str], names: list[str], libraries: list[str], skip: Iterable[Key] = ()
) -> Iterator[tuple[Key, str]]:
    """The lines asked for, as they get ready, but for those to skip."""
    for case, dtype, name, title in itertools.product(cases, dtypes, names, libraries):
        row = ROWS[name]
        library, make = {"Optax": (optax, row.optax), "gradtx": (gradtx, row.gradtx)}[title]
        key = Key(section(case, dtype), f"{name}, {title}")
        if make is not None and key not in skip:
            try:
                yield key, line(key.title, make(), library, row, case, jnp.dtype(dtype))
            except Exception as error:  # the table goes on, with the reason in place of numbers
                yield key, f"| {key.title} | {FAILED}{str(error).splitlines()[0][:150]} | | | | | | | |"


def section(case: Case, dtype: str) -> str:
    return f"{case.says}, {dtype}"


def heading() -> str:
    """The first line of the file: what was compiled with."""
    versions = f"jax {jax.__version__}, libtpu {importlib.metadata.version('libtpu')}, Optax {optax.__version__}"
    return f"# Compiled for TPUs: {versions}; `python benchmarks/compiled.py` says what counts"


def read(path: Path) -> dict[Key, str]:
    """The lines of a file that was written with the versions of today, but for those that failed."""
    text = path.read_text() if path.exists() else ""
    found, current = {}, ""
    for one in text.splitlines() if text.startswith(heading()) else ():
        current = one.removeprefix("## ") if one.startswith("## ") else current
        if (match := re.match(r"\| (\w+, (?:Optax|gradtx)) \|", one)) and FAILED not in one:
            found[Key(current, match.group(1))] = one
    return found


def write(path: Path, found: dict[Key, str]) -> None:
    """All lines, in the order of the cases and rows."""
    text = [heading()]
    for case, dtype in itertools.product(CASES.values(), DTYPES):
        titles = [f"{name}, {library}" for name in ROWS for library in LIBRARIES]
        here = [found[key] for title in titles if (key := Key(section(case, dtype), title)) in found]
        text += [f"\n## {section(case, dtype)}\n", HEAD, *here] if here else []
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text("\n".join(text) + "\n")
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(ROWS), help="rows, separated by commas")
    parser.add_argument("--case", default=",".join(CASES))
    parser.add_argument("--dtype", default=",".join(DTYPES))
    parser.add_argument("--library", default=",".join(LIBRARIES))
    parser.add_argument("--layers", type=int, help="of the model, in place of the case's; nothing is written")
    parser.add_argument("--write", action="store_true", help=f"put the lines into {RESULTS.name}")
    parser.add_argument("--resume", action="store_true", help=f"skip what {RESULTS.name} has")
    args = parser.parse_args()
    skip = read(RESULTS) if args.resume else {}
    cases = [CASES[case]._replace(**{"layers": args.layers} if args.layers is not None else {}) for case in args.case.split(",")]
    asked = lines(cases, args.dtype.split(","), args.only.split(","), args.library.split(","), skip)
    failed, current = 0, ""
    for key, text in asked:
        if key.section != current:
            print(f"\n## {key.section}\n\n{HEAD}")
            current = key.section
        print(text, flush=True)
        failed += FAILED in text
        if args.write and args.layers is None:
            write(RESULTS, read(RESULTS) | {key: text})
    if failed:
        sys.exit(f"{failed} rows failed; libtpu lets one process compile at a time")


if __name__ == "__main__":
    main()
