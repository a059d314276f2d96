"""Trains, saves after each step, goes on from what is there: `test_killed.py` kills it. Prints each step, then a digest of all bits."""

import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

STEPS = 40
PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 32).reshape(4, 8), "bias": jnp.linspace(0.5, -0.5, 8)}


def tx() -> Any:
    inner = gradtx.chain(gradtx.add_noise(0.1, 0.5, key=3), gradtx.muon(gradtx.linear_schedule(0.1, 0.0, STEPS)))
    return gradtx.accumulate(gradtx.ema_params(inner, 0.9), 2)


@jax.jit
def step(params: Any, state: Any, i: Any) -> Any:
    grads = jax.tree.map(lambda p: jnp.sin(p + i), params)
    updates, state = tx().update(grads, state, params)
    return gradtx.apply_updates(params, updates), state


def pickled(folder: Path) -> tuple[Callable[[], Any], Callable[[int, Any], None]]:
    """One file, replaced in one stroke."""
    file = folder / "state.pickle"

    def read() -> Any:
        return pickle.loads(file.read_bytes()) if file.exists() else None

    def write(i: int, tree: Any) -> None:
        (folder / "new").write_bytes(pickle.dumps({"step": i, **jax.device_get(tree)}))
        (folder / "new").replace(file)

    return read, write


def orbax(folder: Path) -> tuple[Callable[[], Any], Callable[[int, Any], None]]:
    """Orbax writes in the background, and knows which steps are whole."""
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True)
    manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def read() -> Any:
        latest = manager.latest_step()
        return None if latest is None else {"step": latest, **manager.restore(latest, args=ocp.args.PyTreeRestore())}

    def write(i: int, tree: Any) -> None:
        manager.save(i, args=ocp.args.PyTreeSave(tree))
        if i == STEPS:
            manager.wait_until_finished()

    return read, write


def main(folder: Path, store: str) -> None:
    read, write = {"pickle": pickled, "orbax": orbax}[store](folder)
    params, state, first = PARAMS, tx().init(PARAMS), 0
    if (found := read()) is not None:
        params, first = jax.tree.map(jnp.asarray, found["params"]), found["step"]
        state = gradtx.load_state(tx(), params, found["state"]).state
    for i in range(first, STEPS):
        params, state = step(params, state, i)
        write(i + 1, {"params": params, "state": gradtx.state_dict(tx(), state)})
        print(i + 1, flush=True)
    leaves = gradtx.state_dict(tx(), state)["leaves"] | params
    digest = hashlib.sha256(b"".join(np.asarray(leaves[name]).tobytes() for name in sorted(leaves)))
    print(digest.hexdigest(), flush=True)
    os._exit(0)  # Orbax's threads need no farewell


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
