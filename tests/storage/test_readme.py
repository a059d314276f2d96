"""The README's sections on checkpoints and sharding, run as they stand."""

import functools
import pickle
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gradtx

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
PARAMS = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, "head": {"kernel": jnp.ones((2, 3))}}


def snippets(title: str) -> list[str]:
    section = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def names() -> dict[str, Any]:
    tx = gradtx.adamw(0.1)
    known: dict[str, Any] = {"gradtx": gradtx, "jax": jax, "jnp": jnp, "np": np, "pickle": pickle, "Path": Path}
    known |= {"functools": functools, "NamedSharding": NamedSharding, "PartitionSpec": PartitionSpec}
    return known | {"tx": tx, "params": PARAMS, "state": tx.update(PARAMS, tx.init(PARAMS), PARAMS)[1]}


@pytest.mark.filterwarnings("ignore")  # Orbax's own
def test_checkpoints(tmp_path: Path) -> None:
    known = names() | {"folder": tmp_path, "path": tmp_path / "orbax"}
    own, orbax = snippets("Checkpoints")
    exec(own, known)
    state = known["state"]
    assert int(state[1][0].count) == 1
    assert float(state[1][0].mu["dense"]["kernel"][0, 0]) > 0
    assert not state[1][0].mu["head"]["kernel"].any()
    assert pickle.loads((tmp_path / "train.pickle").read_bytes())["state"]["version"] == 1
    exec(orbax, known)
    assert float(known["state"][1][0].mu["head"]["kernel"][0, 0]) > 0


def test_sharding() -> None:
    known = names() | {"loss": lambda params, batch: sum(jnp.sum(jnp.square(p * batch)) for p in jax.tree.leaves(params))}
    known |= {"batch": jnp.float32(2.0), "params": jax.tree.map(jnp.copy, PARAMS)}
    (snippet,) = snippets("Sharding")
    exec(snippet, known)
    assert int(known["state"][0].count) == 1
    assert known["state"][0].mu["dense"]["kernel"].sharding.mesh == known["mesh"]
