"""Moments in 8 and 4 bits: the codes against float64, what is coded, and that training, layout and bytes stay what they are."""

import os
import pickle
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx.storage.codes import LONGEST, decode, decode_pair, encode, encode_pair, largest, scales_shape

RNG = np.random.default_rng(2)
KINDS = ("moment", "squares")


def sample(shape: tuple[int, ...], kind: str = "moment") -> jax.Array:
    x = RNG.normal(size=shape) * 10.0 ** RNG.uniform(-2, 2, (*shape[:-1], 1))
    return jnp.asarray(x if kind == "moment" else x * x, jnp.float32)


def coded(x: jax.Array, kind: str, shape: tuple[int, ...], seed: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    scales = largest(x, shape)
    return encode(x, scales, kind, seed), scales


def coded_pair(m: jax.Array, v: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
    scales = largest(m, shape), largest(v, shape)
    return encode_pair(m, v, *scales, (None, None)), *scales


def expected(x: Any, shape: tuple[int, ...], kind: str, bits: int) -> np.ndarray:
    """The codes of the docstring in float64."""
    x = np.asarray(x, np.float64)
    blocks = x.reshape(*shape, -1)
    scale = np.max(np.abs(blocks), axis=-1, keepdims=True)
    n = blocks / np.where(scale == 0, 1, scale)
    most = 2 ** (bits - 1) - 1 if kind == "moment" else 2**bits - 1
    level = np.round(most * np.sign(n) * np.sqrt(np.abs(n)))
    if kind == "squares":
        level = np.where(n > 0, np.maximum(level, 1), level)
    return (scale * np.sign(level) * (level / most) ** 2).reshape(x.shape)


SHAPES = [
    ((8, 256), None, (8, 1)),
    ((8, 256), 64, (8, 4)),
    ((3, 3, 4, 8), None, (3, 1)),
    ((1000,), None, (4,)),
    ((7, 13), None, (1,)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "size", "scales"), SHAPES)
def test_codes_are_those_of_float64(shape: tuple[int, ...], size: int | None, scales: tuple[int, ...], kind: str) -> None:
    x = sample(shape, kind)
    assert scales_shape(x, size) == scales
    codes, own = coded(x, kind, scales)
    assert (codes.shape, codes.dtype, own.shape) == (shape, jnp.int8 if kind == "moment" else jnp.uint8, scales)
    found, right = np.asarray(decode(codes, own, kind), np.float64), expected(x, scales, kind, 8)
    step = np.max(np.abs(x)) / 60  # float32 may round a tie otherwise
    assert np.mean(np.isclose(found, right, rtol=1e-5)) > 0.99
    assert np.max(np.abs(found - right)) < step


def test_two_moments_share_a_byte_in_four_bits() -> None:
    m, v = sample((8, 256)), sample((8, 256), "squares")
    codes, *scales = coded_pair(m, v, (8, 1))
    assert (codes.shape, codes.dtype) == ((8, 256), jnp.uint8)
    for found, x, kind in zip(decode_pair(codes, *scales), (m, v), KINDS, strict=True):
        assert np.mean(np.isclose(found, expected(x, (8, 1), kind, 4), rtol=1e-5)) > 0.99


@pytest.mark.parametrize(("kind", "most"), [("moment", 0.008), ("squares", 0.006)])
def test_the_error_of_8_bits_is_below_a_hundredth(kind: str, most: float) -> None:
    x = jnp.asarray(RNG.normal(size=(16, 768)), jnp.float32)
    x = x if kind == "moment" else x * x
    off = decode(*coded(x, kind, (16, 1)), kind) - x
    assert float(jnp.sqrt(jnp.mean(off**2) / jnp.mean(x**2))) < most


def test_no_positive_square_becomes_0() -> None:
    """A step is divided by it: linear int8 makes 0 of what is below 1/510 of the largest, and diverges."""
    v = jnp.asarray([[1.0, 1e-3, 1e-12, 1e-30, 0.0, 0.0]])
    for found in (decode(*coded(v, "squares", (1, 1)), "squares"), decode_pair(*coded_pair(v, v, (1, 1)))[1]):
        np.testing.assert_array_equal(found[0] > 0, [True] * 4 + [False] * 2)
        assert np.all(found >= v * 0.9)


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_infinities_and_nan(kind: str) -> None:
    x = jnp.asarray([[0.0] * 4, [1.0, 2.0, jnp.nan, 0.5], [1.0, jnp.inf, 0.0, 2.0], [4.0, 0.0, 1.0, 0.25]])
    found = decode(*coded(x, kind, (4, 1)), kind)
    np.testing.assert_array_equal(found[0], np.zeros(4))
    assert not np.any(np.isfinite(found[1]))
    assert not np.all(np.isfinite(found[2]))
    np.testing.assert_allclose(found[3], x[3], rtol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_decoded_is_coded_the_same(kind: str) -> None:
    """So that a moment which does not change does not drift."""
    codes, scales = coded(sample((8, 256), kind), kind, (8, 1))
    again, same = coded(decode(codes, scales, kind), kind, (8, 1))
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_allclose(same, scales, rtol=1e-6)


def test_random_rounding_has_the_mean_of_the_level() -> None:
    x = jnp.concatenate([jnp.full((1, 20_000), 0.3), jnp.ones((1, 1))], axis=1)
    found = decode(*coded(x, "moment", (1, 1), jnp.uint32(7)), "moment")[0, :-1]
    roots = np.sqrt(np.unique(found)) * 127
    np.testing.assert_allclose(roots, [69, 70], rtol=1e-5)
    assert abs(float(jnp.mean(jnp.sqrt(found))) - np.sqrt(0.3)) < 1e-4


def test_long_rows_and_vectors_are_cut_in_equal_parts() -> None:
    assert scales_shape(np.zeros((2, 3 * LONGEST), np.int8), None) == (2, 3)
    assert scales_shape(np.zeros((2, LONGEST + 2), np.int8), None) == (2, 2)
    assert scales_shape(np.zeros(50_257, np.int8), None) == (1,)  # a prime
    assert scales_shape(np.zeros((4, 768), np.int8), 256) == (4, 3)
    assert scales_shape(np.zeros((4, 768), np.int8), 100) == (4, 8)


# The wrapper


def run(tx: Any, params: Any, steps: int, seed: int = 0) -> tuple[Any, Any]:
    """Gradients of a quadratic around another point, with noise."""
    state, target = tx.init(params), jax.tree.map(jnp.sin, params)

    def step(carry: Any, key: Any) -> Any:
        params, state = carry
        keys = dict(zip(sorted(params), jax.random.split(key, len(params)), strict=True))
        grads = {k: p - target[k] + 0.1 * jax.random.normal(keys[k], p.shape) for k, p in params.items()}
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    return jax.jit(lambda p, s: jax.lax.scan(step, (p, s), jax.random.split(jax.random.key(seed), steps))[0])(params, state)


def some() -> dict[str, jax.Array]:
    return {"a": jnp.asarray(RNG.normal(size=(64, 96)), jnp.float32), "b": jnp.asarray(RNG.normal(size=96), jnp.float32)}


OPTIMIZERS = {
    "adamw": lambda: gradtx.adamw(gradtx.cosine_decay_schedule(1e-2, 200)),
    "adamax": lambda: gradtx.adamax(1e-2),
    "lion": lambda: gradtx.lion(1e-3),
    "sgd": lambda: gradtx.sgd(1e-2, 0.9),
    "amsgrad": lambda: gradtx.amsgrad(1e-2),
    "rmsprop": lambda: gradtx.rmsprop(1e-3),
    "muon": lambda: gradtx.muon(1e-2),
    "schedule_free": lambda: gradtx.schedule_free_adamw(1e-2),
    "lookahead": lambda: gradtx.lookahead_wrapper(gradtx.adam(1e-2)),
    "ema": lambda: gradtx.ema_params(gradtx.adam(1e-2), 0.9),
    "cautious": lambda: gradtx.cautious(gradtx.adam(1e-2)),
}
OFTEN = ("adamw", "lion", "muon", "schedule_free")
"""The rest is for the slow tests."""


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", [x if x in OFTEN else pytest.param(x, marks=pytest.mark.slow) for x in OPTIMIZERS])
def test_any_optimizer_arrives_where_it_does_without(name: str, bits: int) -> None:
    params = some()
    end, _ = run(OPTIMIZERS[name](), params, 200)
    coded, state = run(gradtx.quantize_state(OPTIMIZERS[name](), bits, min_size=1), params, 200)
    target = jax.tree.map(jnp.sin, params)
    moved = gradtx.global_norm(gradtx.tree.sub(params, end))
    apart = gradtx.global_norm(gradtx.tree.sub(coded, end))
    assert jax.tree.leaves(state.scales)
    assert float(apart) < {8: 0.07, 4: 0.25}[bits] * float(moved), float(apart / moved)
    assert gradtx.global_norm(gradtx.tree.sub(coded, target)) < gradtx.global_norm(gradtx.tree.sub(params, target))


def test_a_gradient_that_vanishes_and_one_that_grows() -> None:
    """Steps stay bounded where the squares of a row lie ten decades apart, and come and go."""
    params = {"w": jnp.zeros((4, 128))}
    sizes = jnp.logspace(-5, 5, 128)
    for bits in (8, 4):
        tx = gradtx.quantize_state(gradtx.scale_by_adam(), bits, min_size=1)

        def step(state: Any, t: jax.Array, tx: Any = tx) -> Any:
            row = jnp.where(t % 10 < 5, sizes, jnp.where(t % 20 < 10, 0, sizes[::-1]))
            updates, state = tx.update({"w": jnp.broadcast_to(row, (4, 128))}, state)
            return state, jnp.max(jnp.abs(updates["w"]))

        largest = jax.jit(lambda state, step=step: jax.lax.scan(step, state, jnp.arange(50))[1])(tx.init(params))
        assert float(jnp.max(largest)) < 12, bits


def coded_paths(tx: Any, params: Any) -> set[str]:
    scales = gradtx.quantize_state(tx, min_size=1).init(params).scales
    return {gradtx.path_str(path) for path, _ in jax.tree.leaves_with_path(scales)}


def test_what_is_coded() -> None:
    params = {"w": jnp.ones((8, 8)), "z": jnp.ones((8, 8), jnp.complex64), "s": jnp.ones(())}
    assert coded_paths(gradtx.adamw(1e-3), params) == {"0/mu/w", "0/nu/w", "0/nu/z"}
    real = {"w": params["w"]}
    assert coded_paths(gradtx.lookahead_wrapper(gradtx.sgd(0.1, 0.9)), real) == {"fast_state/0/trace/w"}
    assert coded_paths(gradtx.schedule_free_adamw(0.1), real) == {"base_optimizer_state/0/nu/w"}
    for tx in (
        gradtx.adagrad(0.1),
        gradtx.rmsprop(0.1, centered=True),
        gradtx.lbfgs(),
        optax.adam(0.1),
        gradtx.swa(gradtx.sgd(0.1)),
    ):
        assert coded_paths(tx, real) == set()


def test_states_of_other_libraries_are_named_by_path() -> None:
    rule = gradtx.by_path({r".*mu/.*": "moment", r".*nu/.*": "squares"}, default="keep")
    params = some()
    ours, _ = run(gradtx.quantize_state(gradtx.adam(1e-2), 4), params, 50)
    theirs, state = run(gradtx.quantize_state(optax.adam(1e-2), 4, codes=rule), params, 50)
    assert state.inner_state[0].mu["a"].dtype == jnp.uint8
    np.testing.assert_allclose(theirs["a"], ours["a"], atol=1e-3)


@pytest.mark.parametrize(("bits", "most"), [(8, 2.1), (4, 1.1)])
def test_bytes_a_parameter(bits: int, most: float) -> None:
    block = dict.fromkeys(("query", "key", "value", "out"), (768, 768)) | {"up": (768, 3072), "down": (3072, 768), "norm": (768,)}
    shapes = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s, jnp.float32),
        {"layer": block, "embed": (5000, 768)},
        is_leaf=lambda x: isinstance(x, tuple),
    )
    tx = gradtx.quantize_state(gradtx.adamw(1e-3), bits)
    assert gradtx.summary(tx, shapes).state_bytes_per_parameter < most
    state = jax.eval_shape(tx.init, shapes)
    size = sum(x.size for x in jax.tree.leaves(shapes))
    assert sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) / size < most


@pytest.mark.parametrize("bits", [8, 4])
def test_no_moment_is_stored_in_float32_while_a_step_runs(bits: int) -> None:
    """On CPU too, where XLA stores what a reduction reads: 8 bytes a parameter."""
    params = {"a": jnp.ones((256, 256)), "b": jnp.ones((256, 320))}
    tx = gradtx.quantize_state(gradtx.adamw(1e-3), bits)

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params).compile()
    memory: Any = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 2.5 * sum(x.size for x in params.values())


@pytest.mark.parametrize("bits", [8, 4])
def test_codes_lie_as_the_parameters_and_blocks_on_one_device(bits: int) -> None:
    mesh = jax.sharding.AbstractMesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    lies = {"rows": P("x", None), "columns": P(None, "x"), "both": P("y", "x"), "conv": P(None, None, "x")}
    shapes = {"rows": (8, 64), "columns": (8, 64), "both": (8, 64), "conv": (3, 4, 16)}
    params = {k: jax.ShapeDtypeStruct(shapes[k], jnp.float32, sharding=NamedSharding(mesh, lies[k])) for k in lies}
    tx, seen = gradtx.quantize_state(gradtx.adamw(1e-3), bits, min_size=1), []

    def step(params: Any) -> None:
        state = tx.init(params)
        updates, after = tx.update(params, state, params)
        seen.extend([jax.tree.map(jax.typeof, (state, after, updates)), params])

    with jax.sharding.use_abstract_mesh(mesh):
        jax.eval_shape(step, params)
    state, after, updates = seen[0]
    assert jax.tree.map(str, state) == jax.tree.map(str, after)
    for name, spec in lies.items():
        whole = (*spec, *[None] * (len(shapes[name]) - len(spec)))
        assert tuple(updates[name].sharding.spec) == whole
        assert tuple(state.inner_state[0].mu[name].sharding.spec) == whole
        own = state.scales["0"]["mu"][name]
        assert own.shape == (*shapes[name][:-1], 4 if whole[-1] == "x" else 1)
        assert tuple(own.sharding.spec) == (*whole[:-1], whole[-1])


ON_EIGHT_DEVICES = """
import jax, jax.numpy as jnp, gradtx
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
p = jax.device_put(jnp.ones((32, 64)), NamedSharding(mesh, P("x", "y")))
for bits in (8, 4):
    tx = gradtx.quantize_state(gradtx.adamw(1e-3), bits, min_size=1)
    state = tx.init(p)
    assert state.scales["0"]["mu"].sharding.spec == state.inner_state[0].mu.sharding.spec == P("x", "y")
    text = jax.jit(tx.update).lower(p, state, p).compile().as_text()
    print([text.count(f"{kind}(") for kind in ("all-gather", "all-reduce", "all-to-all", "collective-permute")])
"""


def test_placed_parameters_send_nothing() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    done = subprocess.run([sys.executable, "-c", ON_EIGHT_DEVICES], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split("\n")[:2] == ["[0, 0, 0, 0]"] * 2, done.stderr[-2000:]


@pytest.mark.parametrize("bits", [8, 4])
def test_restored_bit_for_bit(bits: int) -> None:
    params = some()
    tx = gradtx.quantize_state(gradtx.adamw(1e-2), bits, rounding="stochastic", key=5)
    end, state = run(tx, params, 5)
    leaves, treedef = jax.tree.flatten(state)
    stored = pickle.dumps([np.asarray(jax.random.key_data(x) if x.dtype == jax.random.key(0).dtype else x) for x in leaves])
    back = [
        jax.random.wrap_key_data(jnp.asarray(x)) if y.dtype == jax.random.key(0).dtype else jnp.asarray(x)
        for x, y in zip(pickle.loads(stored), leaves, strict=True)
    ]
    grads = jax.tree.map(jnp.cos, params)
    first, second = (tx.update(grads, s, end)[0] for s in (state, treedef.unflatten(back)))
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("bits", [8, 4])
def test_vmap_donation_and_a_skipped_step(bits: int) -> None:
    tx = gradtx.skip_nonfinite(gradtx.quantize_state(gradtx.adamw(1e-2), bits, min_size=1))
    params = some()
    minus = jax.tree.map(jnp.negative, params)
    lanes = jax.tree.map(lambda x, y: jnp.stack([x, y]), params, minus)
    together = jax.jit(jax.vmap(lambda p: tx.update(p, tx.init(p), p)[0]))(lanes)
    np.testing.assert_allclose(together["a"][1], tx.update(minus, tx.init(minus), minus)[0]["a"], rtol=1e-6)
    step = jax.jit(lambda p, s, g: tx.update(g, s, p), donate_argnums=(0, 1))
    state = tx.init(params)
    before = jax.tree.map(np.asarray, state.inner_state._replace(rng_key=None))
    bad = jax.tree.map(lambda x: x * jnp.nan, params)
    _, after = step(jax.tree.map(jnp.copy, params), state, bad)
    for x, y in zip(jax.tree.leaves(after.inner_state._replace(rng_key=None)), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(x, y)


def test_nnx_optimizer() -> None:
    model = nnx.Linear(64, 64, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, gradtx.quantize_state(gradtx.adamw(1e-3), 4), wrt=nnx.Param)
    before = np.asarray(model.kernel[...])
    for _ in range(3):
        optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    np.testing.assert_allclose(model.kernel[...], before - 3e-3, atol=2e-4)


def test_around_masters_of_half_precision() -> None:
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), some())
    tx = gradtx.master_weights(gradtx.quantize_state(gradtx.adamw(1e-3)), "int8")
    end, state = run(tx, params, 100)
    expected, _ = run(gradtx.adamw(1e-3), jax.tree.map(lambda x: x.astype(jnp.float32), params), 100)
    assert sum(x.nbytes for x in jax.tree.leaves((end, state))) < 5.3 * params["a"].size
    np.testing.assert_allclose(end["a"].astype(jnp.float32), expected["a"], atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"codes": gradtx.by_path({"mu": "signed"}, default="keep")},
            "quantize_state: codes for `mu` is 'signed' (str), expected one of",
        ),
        (
            {"codes": gradtx.by_path({"m": "moment"}, default="keep")},
            "quantize_state > by_path: the pattern 'm' matches no parameter",
        ),
    ],
)
def test_wrong_rules(arguments: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(text)):
        gradtx.quantize_state(gradtx.scale_by_adam(), **arguments).init(jnp.ones(5000))
