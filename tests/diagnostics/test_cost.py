"""What an update costs, from compiled programs."""

import json
import math
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx.diagnostics import step_cost

SHAPES = {"bias": jax.ShapeDtypeStruct((1024,), jnp.float32), "kernel": jax.ShapeDtypeStruct((512, 1024), jnp.float32)}
SIZE = 1024 + 512 * 1024


def test_bytes_and_arithmetic_of_sgd() -> None:
    """Two arrays are read and one is written; a product and a sum for each parameter."""
    cost = step_cost(gradtx.sgd(0.1), SHAPES)
    assert cost.parameters == cost.held == SIZE
    assert cost.devices == 1
    assert 8 * SIZE <= cost.arguments <= 8 * SIZE + 64
    assert 12 * SIZE <= cost.traffic <= 17 * SIZE
    assert SIZE <= cost.flops <= 3 * SIZE
    assert cost.collectives == {}


def test_a_moment_more_is_four_bytes_more_and_traffic_both_ways() -> None:
    adam, sgd = step_cost(gradtx.adam(0.1), SHAPES), step_cost(gradtx.sgd(0.1), SHAPES)
    assert adam.arguments - sgd.arguments == 8 * SIZE + 4  # two moments and a count
    assert adam.traffic - sgd.traffic >= 16 * SIZE


def test_the_table_and_the_dict() -> None:
    cost = step_cost(gradtx.sgd(0.1), SHAPES)
    title, *rows = str(cost).splitlines()
    assert title == "one update of 525,312 parameters: sgd(learning_rate=0.1)"
    assert [row.split("  ")[0] for row in rows] == [
        "arithmetic",
        "memory traffic",
        "parameters, state, gradients",
        "temporary memory",
    ]
    assert rows[2].split() == ["parameters,", "state,", "gradients", "4.2", "MB", "8", "a", "parameter"]
    assert repr(cost) == str(cost)
    assert json.loads(json.dumps(cost.as_dict()))["held"] == SIZE
    assert "nan a parameter" in str(cost._replace(held=0, flops=math.nan))


def test_arrays_and_extra_arguments() -> None:
    params = {"w": jnp.ones((4, 4))}
    tx = gradtx.sam_wrapper(gradtx.sgd(0.1), 0.1)
    assert step_cost(tx, params, grad_fn=lambda p: p).flops > step_cost(gradtx.sgd(0.1), params).flops
    with pytest.raises(TypeError, match="step_cost > sam_wrapper: missing extra argument `grad_fn`"):
        step_cost(tx, params)


def test_meshes_that_do_not_fit_are_refused() -> None:
    mesh = AbstractMesh((16, 16), ("data", "model"))
    text = r"step_cost: the mesh of shardings has 256 devices, but there are 1\. topology='v5e:16x16' compiles for TPUs that are not here"
    with pytest.raises(ValueError, match=text):
        step_cost(gradtx.sgd(0.1), SHAPES, NamedSharding(mesh, P("data")))
    with pytest.raises(TypeError, match="step_cost: shardings has an entry that is no NamedSharding, expected one"):
        step_cost(gradtx.sgd(0.1), SHAPES, P("data"))
    some = {"bias": NamedSharding(jax.make_mesh((1,), ("data",)), P()), "kernel": P()}
    with pytest.raises(TypeError, match="step_cost: shardings has an entry that is no NamedSharding, expected one"):
        step_cost(gradtx.sgd(0.1), SHAPES, some)


def test_a_topology_needs_libtpu() -> None:
    text = r"step_cost: topology is 'v0:2x4', for which nothing can be compiled here: .* It needs libtpu \(pip install 'gradtx\[tpu\]'\)"
    with pytest.raises(ValueError, match=text):
        step_cost(gradtx.sgd(0.1), SHAPES, topology="v0:2x4")


EIGHT = """
import json, jax, jax.numpy as jnp, gradtx
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec as P
shapes = {"bias": jax.ShapeDtypeStruct((1024,), jnp.float32), "kernel": jax.ShapeDtypeStruct((512, 1024), jnp.float32)}
mesh = %s
def cost(tx, spec):
    return gradtx.step_cost(tx, shapes, NamedSharding(mesh, spec), %s).as_dict()
clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1))
print(json.dumps([cost(clipped, P("data")), cost(gradtx.adamw(0.1), P("data")), cost(gradtx.zero1(gradtx.adamw(0.1), "data"), P())]))
"""


def on_eight(mesh: str, topology: str | None, **environment: str) -> Any:
    here = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")} | environment
    command = [sys.executable, "-c", EIGHT % (mesh, repr(topology))]
    done = subprocess.run(command, capture_output=True, text=True, env=here, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(clipped: Any, bare: Any, shared: Any) -> None:
    """A norm is one number for each parameter; ZeRO-1 gathers updates, and keeps an eighth of the moments."""
    assert clipped["devices"] == 8
    assert clipped["held"] == bare["held"] == SIZE // 8
    assert shared["held"] == SIZE
    assert bare["collectives"] == {}
    assert 0 < clipped["collectives"].pop("all-reduce")["nbytes"] <= 64
    assert clipped["collectives"] == {}
    assert abs(sum(one["nbytes"] for one in shared["collectives"].values()) - 4 * SIZE) < 0.01 * 4 * SIZE
    assert abs(bare["arguments"] - 2 * SIZE) < 0.02 * 2 * SIZE
    assert abs(shared["arguments"] - 9 * SIZE) < 0.02 * 9 * SIZE


@pytest.mark.parametrize("mesh", ["jax.make_mesh((8,), ('data',))", "AbstractMesh((8,), ('data',))"])
def test_collectives_on_eight_devices(mesh: str) -> None:
    check(*on_eight(mesh, None, XLA_FLAGS="--xla_force_host_platform_device_count=8"))


@pytest.mark.tpu
def test_collectives_on_eight_tpus_that_are_not_here() -> None:
    pytest.importorskip("libtpu", reason="compiles for TPUs with libtpu: pip install 'gradtx[tpu]'")
    here = {"JAX_PLATFORMS": "cpu", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-8"}
    clipped, bare, shared = on_eight("AbstractMesh((8,), ('data',))", "v5e:2x4", **here)
    assert clipped["held"] == SIZE // 8
    assert 28 * SIZE / 8 <= bare["traffic"] <= 30 * SIZE / 8
    assert set(clipped["collectives"]) == {"all-reduce"}
    assert set(shared["collectives"]) == {"all-gather"}
