"""Where states lie on a mesh: every row by its types, some on 8 devices; `sharded_rows.py` runs those."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, Case, rows
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx

GRID = AbstractMesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
EIGHT = AbstractMesh((8,), ("data",), axis_types=(AxisType.Auto,))
SHAPES = {"bias": (16,), "fan": (4, 16), "kernel": (8, 4), "scalar": ()}
PARAMS = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}
SPECS = {"bias": P("data"), "fan": P(None, "data"), "kernel": P("data", "model"), "scalar": P()}
WHERE = {name: NamedSharding(GRID, spec) for name, spec in SPECS.items()}
ROWS = rows()


def entries(spec: P, ndim: int) -> tuple[Any, ...]:
    return (*spec, *[None] * (ndim - len(spec)))


@ROWS
def test_moments_lie_as_their_parameters(case: Case) -> None:
    tx = case.make()
    shapes, lies = jax.eval_shape(tx.init, PARAMS), gradtx.state_sharding(tx, PARAMS, WHERE)
    assert jax.tree.structure(lies) == jax.tree.structure(shapes)
    for (path, x), sharding in zip(jax.tree.leaves_with_path(shapes), jax.tree.leaves(lies), strict=True):
        assert sharding.mesh == GRID
        name = next((key.key for key in reversed(path) if getattr(key, "key", None) in SHAPES), None)
        if name is not None and x.shape == SHAPES[name]:
            assert entries(sharding.spec, x.ndim) == entries(SPECS[name], x.ndim), path
        elif "sharding" not in case.exceptions:
            assert x.size < 16 or any(sharding.spec), path


BIG = {"bias": jax.ShapeDtypeStruct((128,), jnp.float32), "kernel": jax.ShapeDtypeStruct((8, 64), jnp.float32)}


@ROWS
def test_zero1_shares_the_state_of_every_row(case: Case) -> None:
    """An eighth and 1 % for each device, and the arrays that are small for good."""
    if case.exceptions.keys() & {"sharding", "zero1"}:
        return
    tx = gradtx.zero1(case.make(), "data")
    shapes = jax.tree.leaves(jax.eval_shape(case.make().init, BIG))
    lies = jax.tree.leaves(gradtx.state_sharding(tx, BIG, NamedSharding(EIGHT, P())))
    sizes = [(x.size, int(np.prod(sharding.shard_shape(x.shape)))) for x, sharding in zip(shapes, lies, strict=True) if x.size > 64]
    assert sum(own for _, own in sizes) <= 1.01 / 8 * sum(size for size, _ in sizes)


def test_one_sharding_for_all_and_shardings_of_the_parameters_themselves() -> None:
    tx = gradtx.adam(0.1)
    shown = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), PARAMS, WHERE)
    assert gradtx.state_sharding(tx, shown) == gradtx.state_sharding(tx, PARAMS, WHERE)
    everywhere = gradtx.state_sharding(tx, {"a": PARAMS["bias"], "b": PARAMS["fan"]}, NamedSharding(GRID, P()))
    assert {tuple(x.spec) for x in jax.tree.leaves(everywhere)} == {()}


def test_optax_states_lie_as_their_parameters() -> None:
    lies = gradtx.state_sharding(optax.chain(optax.clip(1.0), optax.adamw(0.1)), PARAMS, WHERE)
    assert lies[1][0].mu["kernel"].spec == SPECS["kernel"]


def test_rows_and_columns_of_factors_lie_as_those_of_the_parameter() -> None:
    """A transformation declares what it makes by making it."""

    class factored(gradtx.Transformation):
        def init(self, params: Any) -> Any:
            return [(jnp.sum(p, axis=0), jnp.sum(p, axis=1), jnp.zeros((2, *p.shape)) + p) for p in jax.tree.leaves(params)]

    lies = gradtx.state_sharding(factored(), {"w": PARAMS["kernel"]}, WHERE["kernel"])
    assert [tuple(x.spec) for x in jax.tree.leaves(lies)] == [("model",), ("data",), (None, "data", "model")]


def test_an_init_that_does_not_run_on_explicit_axes_says_so() -> None:
    class sliced(gradtx.Transformation):
        def init(self, params: Any) -> Any:
            return [p[:1] for p in jax.tree.leaves(params)]

    text = r"state_sharding: sliced\.init does not run on parameters whose types say how they lie .*, so how its state lies is not known: "
    with pytest.raises(ValueError, match=text):
        gradtx.state_sharding(sliced(), {"w": PARAMS["kernel"]}, WHERE["kernel"])


def test_what_is_on_no_mesh_is_refused() -> None:
    with pytest.raises(TypeError, match="state_sharding: the parameter `bias` has no sharding, expected a NamedSharding"):
        gradtx.state_sharding(gradtx.adam(0.1), PARAMS)
    with pytest.raises(TypeError, match=r"init_sharded: the parameter `w` has a SingleDeviceSharding, expected a NamedSharding"):
        gradtx.init_sharded(gradtx.adam(0.1), {"w": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"state_sharding: `bias` is on the mesh .*, but `fan` on .*; expected one mesh"):
        gradtx.state_sharding(gradtx.adam(0.1), PARAMS, {**WHERE, "fan": NamedSharding(EIGHT, P())})
    with pytest.raises(ValueError, match="params_sharding has nothing for the parameter `fan`"):
        gradtx.state_sharding(gradtx.adam(0.1), PARAMS, {"bias": WHERE["bias"]})
    with pytest.raises(ValueError, match="there are no parameters, so no mesh to put a state on"):
        gradtx.state_sharding(gradtx.adam(0.1), {}, {})


def test_zero1_wants_a_mesh_with_its_axis() -> None:
    tx, params = gradtx.zero1(gradtx.adam(0.1), "data"), jnp.ones(8)
    with pytest.raises(ValueError, match=r"zero1: axis is \('data',\), but there is no mesh. Call it under jax.set_mesh\(mesh\)."):
        tx.init(params)
    with (
        jax.set_mesh(jax.make_mesh((1,), ("model",))),
        pytest.raises(ValueError, match=r"zero1: axis has 'data', expected one of the mesh's axes: \('model',\)"),
    ):
        tx.init(params)


def test_zero1_keeps_what_lies_along_other_axes() -> None:
    specs = gradtx.by_path({"kernel": P("model"), "fan": P(("model", "data"))}, default=P())
    tx = gradtx.zero1(gradtx.sgd(0.1, 0.9), ["data"], spec=specs)
    shardings = {"kernel": NamedSharding(GRID, P("model")), "bias": NamedSharding(GRID, P()), "odd": NamedSharding(GRID, P())}
    shapes = {"kernel": PARAMS["kernel"], "bias": PARAMS["bias"], "odd": jax.ShapeDtypeStruct((3, 5), jnp.float32)}
    lies = gradtx.state_sharding(tx, shapes, shardings)[0].trace
    assert {name: entries(x.spec, len(shapes[name].shape)) for name, x in lies.items()} == {
        "kernel": ("model", "data"),
        "bias": ("data",),
        "odd": (None, None),
    }
    assert eval(repr(gradtx.zero1(gradtx.sgd(0.1), ("a", "b"))), vars(gradtx)).axes == ("a", "b")


def on_eight_devices(*arguments: str, script: str = "sharded_rows.py", **variables: str) -> Any:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment | variables, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_some_rows_on_eight_devices() -> None:
    found = on_eight_devices("grid,zero1", "auto,explicit", "adamw,muon", STEPS="5")
    assert len(found) == 8
    assert {key: faults for key, faults in found.items() if faults} == {}


@pytest.mark.slow
def test_every_row_on_eight_devices() -> None:
    found = on_eight_devices("fsdp,tensor,grid,zero1", "auto,explicit")
    assert len(found) == 8 * len(CASES)
    assert {key: faults for key, faults in found.items() if faults} == {}


def test_checkpoints_on_other_device_counts() -> None:
    found = on_eight_devices(script="resharded.py")
    assert found == {"8": [], "4": [], "2": [], "1": [], "one device": []}


def test_norms_inside_shard_map() -> None:
    found = on_eight_devices(script="shard_map_norms.py")
    assert len(found) == 12
    assert max(found.values()) < 1e-6, found


def test_axes_of_norms_are_names() -> None:
    with pytest.raises(TypeError, match=r"axis_name is 3 \(int\), expected the name of a mesh axis, or several, or None"):
        gradtx.clip_by_global_norm(1.0, axis_name=3)  # type: ignore[arg-type]
