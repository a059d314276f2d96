"""States in the memory of the host."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 8), "b": jnp.float32(0.5)}
TX = gradtx.offload(gradtx.adamw(0.1), "(mu|nu)/.*")


def kinds(state: Any) -> dict[str, Any]:
    return {name: x.sharding.memory_kind for name, x in gradtx.state_dict(TX, state)["leaves"].items()}


EXPECTED = {
    "count": "device",
    "learning_rate": "device",
    "mu/b": "device",
    "nu/b": "device",
    "mu/w": "pinned_host",
    "nu/w": "pinned_host",
}


def trained(tx: Any, state: Any, params: Any, **how: Any) -> Any:
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(jax.tree.map(jnp.sin, params), state, params)
        return gradtx.apply_updates(params, updates), state

    compiled = jax.jit(step, **how)
    for _ in range(3):
        params, state = compiled(params, state)
    return params, state


def test_moments_are_on_the_host_and_updates_the_same() -> None:
    params, state = trained(TX, TX.init(PARAMS), PARAMS)
    expected, _ = trained(TX.inner, TX.inner.init(PARAMS), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert kinds(state) == EXPECTED
    assert kinds(TX.update(PARAMS, state, PARAMS)[1]) == EXPECTED


def test_on_a_mesh_they_lie_as_the_parameters_on_the_host() -> None:
    sharding = NamedSharding(jax.make_mesh((1,), ("data",)), P())
    params = jax.device_put(PARAMS, sharding)
    lies, state = gradtx.state_sharding(TX, params), gradtx.init_sharded(TX, params)
    assert kinds(state) == EXPECTED
    assert jax.tree.map(lambda x: x.sharding.memory_kind, state) == jax.tree.map(lambda x: x.memory_kind, lies)
    loaded = gradtx.load_state(TX, params, gradtx.state_dict(TX, state))
    assert kinds(loaded.state) == EXPECTED
    how = {"donate_argnums": (0, 1), "out_shardings": (sharding, lies)}
    assert kinds(trained(TX, loaded.state, params, **how)[1]) == EXPECTED


def test_a_checkpoint_fits_with_and_without() -> None:
    saved = gradtx.state_dict(TX.inner, TX.inner.init(PARAMS))
    loaded = gradtx.load_state(TX, PARAMS, saved)
    assert kinds(loaded.state) == EXPECTED
    anew = gradtx.load_state(TX, PARAMS, saved, missing="init", rename={"mu/.*": None})
    assert kinds(anew.state) == EXPECTED


def test_a_path_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"offload: path is 'my/\.\*', which matches no name of the state: `count`, `mu/b`, "):
        gradtx.offload(gradtx.adam(0.1), "my/.*").init(PARAMS)
