"""SAM and ASAM: their papers in float64, torch's trajectories, what a step costs, what they find."""

import json
import os
import pathlib
import subprocess
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles as o
import pytest
import sam_oracles as so
from problems import MANY_SHAPES, Arrays, distance, quadratic, tanh_regression

import gradtx
from gradtx.core.transformation import wants

TANH, QUADRATIC = tanh_regression(), quadratic(MANY_SHAPES)
GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "torch_trajectories.json").read_text())["table"]
HEAVY_BALL = (partial(o.heavy_ball, beta=0.9), partial(o.descend, lr=0.1))
DESCENT, ADAM = (partial(o.descend, lr=0.1),), (o.adam, partial(o.descend, lr=0.05))


def falling(count: Any) -> Any:
    return 0.3 / (1.0 + 0.2 * count)


def momentum() -> gradtx.GradientTransformation:
    return gradtx.sgd(0.1, 0.9)


ROWS = {  # gradtx, the paper, and the rules of the optimizer inside
    "sam": (gradtx.sam_wrapper(momentum()), so.sam(TANH), HEAVY_BALL),
    "p = 1": (gradtx.sam_wrapper(momentum(), 0.1, 1), so.sam(TANH, 0.1, 1), HEAVY_BALL),
    "p = 1.5": (gradtx.sam_wrapper(momentum(), 0.1, 1.5), so.sam(TANH, 0.1, 1.5), HEAVY_BALL),
    "p = inf": (gradtx.sam_wrapper(gradtx.adam(0.05), 0.02, np.inf), so.sam(TANH, 0.02, np.inf), ADAM),
    "schedule": (gradtx.sam_wrapper(gradtx.adam(0.05), falling), so.sam(TANH, falling), ADAM),
    "every third": (gradtx.sam_wrapper(momentum(), 0.2, every_k=3), so.sam(TANH, 0.2, every_k=3), HEAVY_BALL),
    "three steps": (gradtx.sam_wrapper(momentum(), 0.2, 3.0, ascent_steps=3), so.sam(TANH, 0.2, 3.0, ascent_steps=3), HEAVY_BALL),
    "adaptive": (gradtx.sam_wrapper(momentum(), 0.5, adaptive=True), so.asam(TANH, 0.5, 0.01), HEAVY_BALL),
    "asam": (gradtx.asam(momentum()), so.asam(TANH, 0.5, 0.01), HEAVY_BALL),
    "asam, p = 1.5": (gradtx.asam(gradtx.adam(0.05), 0.2, 0.1, 1.5), so.asam(TANH, 0.2, 0.1, 1.5), ADAM),
    "radius 0": (gradtx.sam_wrapper(momentum(), 0.0), lambda g, x: g, HEAVY_BALL),
}
TORCH = {
    "sam_sgd": (gradtx.sam_wrapper(momentum()), so.sam(TANH), HEAVY_BALL),
    "sam_adam": (gradtx.sam_wrapper(gradtx.adam(0.05), 0.1), so.sam(TANH, 0.1), ADAM),
    "asam_sgd": (gradtx.asam(gradtx.sgd(0.1), eta=0.0, weights=True), so.asam(TANH, 0.5, 0.0, everywhere=True), DESCENT),
}
ALL = ROWS | TORCH


@pytest.fixture(scope="module")
def paths() -> dict[str, Arrays]:
    """30 steps of all, compiled once."""
    return dict(zip(ALL, [path for path, _ in so.run([tx for tx, *_ in ALL.values()], TANH, 30)], strict=True))


@pytest.mark.parametrize("name", ALL)
def test_follows_the_paper(name: str, paths: dict[str, Arrays]) -> None:
    _, before, rules = ALL[name]
    assert distance(paths[name], o.follow(TANH.gradient, TANH.params, 30, *rules, before=before)) < 1e-10


def golden(name: str) -> Arrays:
    return {leaf: np.array([step[leaf] for step in GOLDEN[name]["steps"]]) for leaf in TANH.params}


@pytest.mark.parametrize("name", TORCH)
def test_torch(name: str, paths: dict[str, Arrays]) -> None:
    """The golden run rounded its factor `rho / |g|` to float32, as the next test shows: it cannot be followed any closer."""
    assert distance({leaf: path[:25] for leaf, path in paths[name].items()}, golden(name)) < 5e-9


@pytest.mark.parametrize(("name", "beta", "rho"), [("sam_sgd", 0.9, 0.05), ("asam_sgd", 0.0, 0.5)])
def test_torch_but_for_one_factor_a_step(name: str, beta: float, rho: float) -> None:
    """From each golden iterate one step: with the factor that fits it best the step is right to 1e-13, and that is a float32."""
    path, x, m = golden(name), TANH.params, dict.fromkeys(TANH.params, 0.0)
    for t in range(25):
        after = {k: path[k][t] for k in path}
        previous, m = m, {k: (x[k] - after[k]) / 0.1 for k in x}
        wanted, g = so.flat({k: m[k] - beta * previous[k] for k in x}), TANH.gradient(x)
        t_sq = {k: x[k] ** 2 if name == "asam_sgd" else np.ones_like(x[k]) for k in x}
        direction = {k: t_sq[k] * g[k] for k in x}
        exact = rho / np.sqrt(np.sum(so.flat(direction) * so.flat(g)))

        def error(factor: float, x: Any = x, direction: Any = direction, wanted: Any = wanted) -> np.ndarray:
            return so.flat(TANH.gradient({k: x[k] + factor * direction[k] for k in x})) - wanted

        factor = exact
        for _ in range(5):  # Gauss-Newton
            slope = (error(factor * (1 + 1e-5)) - error(factor * (1 - 1e-5))) / (2e-5 * factor)
            factor -= slope @ error(factor) / (slope @ slope)
        assert np.max(np.abs(error(factor))) < 1e-13
        assert factor == pytest.approx(exact, rel=2e-7)
        assert factor == pytest.approx(float(np.float32(factor)), rel=1e-12)
        x = after


# Cost -------------------------------------------------------------------------------------------------------------


class Counted:
    """The gradient of half the sum of squares, which counts its evaluations and keeps its points."""

    def __init__(self) -> None:
        self.points: list[Any] = []

    def __call__(self, params: Any) -> Any:
        jax.debug.callback(lambda p: self.points.append(p), params, ordered=True)
        return jax.tree.map(lambda p: 1.0 * p, params)


@pytest.mark.parametrize(
    ("make", "extra"),
    [
        (gradtx.sam_wrapper, [1] * 6),
        (gradtx.asam, [1] * 6),
        (gradtx.gsam, [1] * 6),
        (partial(gradtx.sam_wrapper, every_k=3), [1, 0, 0, 1, 0, 0]),
        (partial(gradtx.sam_wrapper, ascent_steps=2, every_k=2), [2, 0, 2, 0, 2, 0]),
        (partial(gradtx.looksam, every_k=4), [1, 0, 0, 0, 1, 0]),
    ],
)
def test_gradients_a_step(make: Any, extra: list[int]) -> None:
    """Beside the gradient that is handed in; counted when the compiled step runs."""
    gradient, tx, params = Counted(), make(gradtx.sgd(0.1)), {"w": jnp.ones(3)}

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(params, state, params, grad_fn=gradient)
        return gradtx.apply_updates(params, updates), state

    state, counts = tx.init(params), []
    for _ in extra:
        before = len(gradient.points)
        params, state = step(params, state)
        jax.effects_barrier()
        counts.append(len(gradient.points) - before)
    assert counts == extra


def test_momentum_sam_needs_no_second_gradient() -> None:
    assert "grad_fn" not in wants(gradtx.momentum_sam(gradtx.adam(0.1), 0.1))


def test_the_state_has_no_copy_of_the_parameters() -> None:
    params = {"w": jnp.ones((50, 20)), "b": jnp.ones(20)}
    for tx in (gradtx.sam_wrapper(gradtx.sgd(0.1)), gradtx.asam(gradtx.sgd(0.1)), gradtx.gsam(gradtx.sgd(0.1))):
        assert sum(leaf.size for leaf in jax.tree.leaves(tx.init(params))) == 3  # count, rho, learning rate


# In company -------------------------------------------------------------------------------------------------------


def test_half_precision_parameters() -> None:
    gradient, tx, params = Counted(), gradtx.sam_wrapper(gradtx.sgd(0.1), 1.0), {"w": jnp.asarray([3.0, 4.0], jnp.bfloat16)}
    updates, _ = tx.update(params, tx.init(params), params, grad_fn=gradient)
    jax.effects_barrier()
    assert gradient.points[0]["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(gradient.points[0]["w"]), [3.6, 4.8], rtol=2**-8)
    assert updates["w"].dtype == jnp.bfloat16


def test_only_the_leaves_at_hand_move_uphill() -> None:
    """Under `masked` and `partition` the norm is that of the group, and the others stay where they are."""
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([12.0])}
    inner, mask = gradtx.sam_wrapper(gradtx.sgd(1.0), 0.5), {"a": True, "b": False}
    for tx, b, expected in (
        (gradtx.masked(inner, mask), 12.0, [[3.3, 4.4, 12.0]]),
        (
            gradtx.partition({True: inner, False: gradtx.sam_wrapper(gradtx.sgd(1.0), 2.0)}, mask),
            -14.0,
            [[3.3, 4.4, 12.0], [3.0, 4.0, 14.0]],
        ),
    ):
        gradient = Counted()
        updates, _ = tx.update(params, tx.init(params), params, grad_fn=gradient)
        np.testing.assert_allclose(updates["a"], [-3.3, -4.4], rtol=1e-6)
        np.testing.assert_allclose(updates["b"], b, rtol=1e-6)
        jax.effects_barrier()
        np.testing.assert_allclose([so.flat(point) for point in gradient.points], expected, rtol=1e-6)


def test_clipping_inside_bounds_the_second_gradient() -> None:
    params = jnp.array([3.0, 4.0])
    for make in (gradtx.sam_wrapper, gradtx.gsam, gradtx.looksam):
        tx = make(gradtx.chain(gradtx.clip_by_global_norm(0.5), gradtx.sgd(1.0)), 0.5)
        updates, state = tx.update(params, tx.init(params), params, grad_fn=lambda p: p)
        np.testing.assert_allclose(updates, [-0.3, -0.4], rtol=1e-6)
        assert float(gradtx.metrics(state)["grad_norm"]) == pytest.approx(5.5)
        assert float(gradtx.metrics(state)["rho"]) == 0.5


def test_other_extra_arguments_reach_the_optimizer_inside() -> None:
    seen = []

    def spy(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        seen.append(extra_args)
        return updates, state

    inner = gradtx.GradientTransformation(lambda params: gradtx.EmptyState(), spy)
    params = jnp.ones(2)
    for make in (gradtx.sam_wrapper, gradtx.asam, gradtx.gsam, gradtx.looksam):
        tx = make(inner)
        tx.update(params, tx.init(params), params, grad_fn=lambda p: p, value=3.0)
    assert seen[0] == {"value": 3.0}
    assert len(seen) == 4
    assert seen.count(seen[0]) == 4


def test_a_sweep_of_radii_is_one_vmap() -> None:
    params, radii = jnp.array([3.0, 4.0]), jnp.array([0.1, 0.5, 1.0])

    def updates(rho: Any) -> Any:
        tx = gradtx.sam_wrapper(gradtx.sgd(0.1), rho)
        return tx.update(params, tx.init(params), params, grad_fn=lambda p: p**2)[0]

    expected = -0.1 * (params + radii[:, None] * params / 5) ** 2
    np.testing.assert_allclose(jax.vmap(updates)(radii), expected, rtol=1e-6)


def test_the_radius_in_the_state() -> None:
    """Injected, and changed between steps."""
    tx, w = gradtx.inject_hyperparams(gradtx.sam_wrapper)(gradtx.sgd(1.0), rho=0.5, p=2.0), jnp.array([3.0, 4.0])
    state = tx.init(w)
    for rho in (0.5, 1.0):
        state = gradtx.tree.set(state, rho=rho) if rho == 1.0 else state
        updates, state = tx.update(w, state, w, grad_fn=lambda p: p)
        np.testing.assert_allclose(updates, -w * (1 + rho / 5), rtol=1e-6)


SHARDED = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import jax, jax.numpy as jnp, gradtx
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
x, w = jax.random.normal(jax.random.key(0), (64, 4)), jnp.arange(1.0, 5.0)
txs = [make(gradtx.sgd(1.0), 0.5) for make in (gradtx.sam_wrapper, gradtx.asam, gradtx.gsam)]
@jax.jit
def updates(w, x):
    gradient = jax.grad(lambda w: jnp.mean(jnp.tanh(x @ w) ** 2))
    return [tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)[0] for tx in txs]
one = updates(w, x)
many = updates(jax.device_put(w, NamedSharding(mesh, P())), jax.device_put(x, NamedSharding(mesh, P("data"))))
assert len(jax.devices()) == 8
print(max(float(jnp.max(jnp.abs(a - jax.device_get(b)))) for a, b in zip(one, many)))
"""


@pytest.mark.slow
def test_with_sharded_data_the_perturbation_is_that_of_the_global_batch() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout) < 1e-6


def test_who_takes_second_gradients_can_be_seen() -> None:
    """What gradient accumulation asks, to refuse such an optimizer inside."""
    for tx in (
        gradtx.sam_wrapper(gradtx.sgd(0.1)),
        gradtx.chain(gradtx.clip(1.0), gradtx.asam(gradtx.sgd(0.1))),
        gradtx.masked(gradtx.gsam(gradtx.sgd(0.1)), {"w": True}),
        gradtx.partition({"a": gradtx.looksam(gradtx.sgd(0.1)), "b": gradtx.sgd(0.1)}, lambda p: "a"),
    ):
        assert "grad_fn" in wants(tx)


@pytest.mark.parametrize("make", [gradtx.sam_wrapper, gradtx.asam, gradtx.gsam, gradtx.looksam])
def test_errors(make: Any) -> None:
    tx, params, name = make(gradtx.sgd(0.1)), {"w": jnp.ones(2)}, make.__name__
    state = tx.init(params)
    missing = rf"^{name}: missing extra argument `grad_fn`; call tx.update\(updates, state, params, grad_fn=...\)\.$"
    with pytest.raises(TypeError, match=missing):
        tx.update(params, state, params)
    with pytest.raises(ValueError, match=rf"^{name}: needs the parameters; call tx.update\(updates, state, params\)\.$"):
        tx.update(params, state, grad_fn=lambda p: p)
    with pytest.raises(TypeError, match=rf"^{name}: unknown extra argument `gradfn`\. Did you mean 'grad_fn'\?$"):
        tx.update(params, state, params, gradfn=lambda p: p)
    pair = rf"^{name}: .* jax.value_and_grad gives a pair, of which the gradient is the second\."
    with pytest.raises(ValueError, match=pair):
        tx.update(params, state, params, grad_fn=jax.value_and_grad(lambda p: jnp.sum(p["w"])))
    nested = (
        rf"^{name}: inner is chain\(sam_wrapper\(inner=sgd\(learning_rate=0.1\)\)\), which calls grad_fn itself, expected an "
        r"optimizer that does not: methods of two gradients do not nest\.$"
    )
    with pytest.raises(ValueError, match=nested):
        make(gradtx.chain(gradtx.sam_wrapper(gradtx.sgd(0.1))))


def test_weights_that_do_not_fit() -> None:
    params = {"w": jnp.ones(2)}
    tx = gradtx.asam(gradtx.sgd(0.1), weights={"v": True})
    with pytest.raises(ValueError, match=r"^asam: weights has nothing for the parameter `w`; its paths are `v`"):
        tx.update(params, tx.init(params), params, grad_fn=lambda p: p)


# What SAM is for --------------------------------------------------------------------------------------------------


def descend(tx: Any, loss: Any, start: Any, steps: int) -> jax.Array:
    gradient = jax.grad(loss)

    def step(carry: Any, _: None) -> Any:
        x, state = carry
        updates, state = tx.update(gradient(x), state, x, grad_fn=gradient)
        return (x + updates, state), None

    start = jnp.asarray(start)
    return jax.jit(lambda x: jax.lax.scan(step, (x, tx.init(x)), None, length=steps)[0][0])(start)


def test_sam_finds_flatter_points_of_a_valley() -> None:
    """`(u*v - 1)^2 / 2` is 0 where `u*v = 1`; there the largest curvature is `u^2 + v^2`, 2 at the least."""

    def loss(x: Any) -> Any:
        return (x[0] * x[1] - 1) ** 2 / 2

    start = [3.0, 0.2]
    plain, sam, gsam = (
        float(jnp.sum(descend(tx, loss, start, 4000) ** 2))
        for tx in (gradtx.sgd(0.02), gradtx.sam_wrapper(gradtx.sgd(0.02), 0.2), gradtx.gsam(gradtx.sgd(0.02), 0.2))
    )
    assert plain > 7
    assert sam < 2.3
    assert gsam < 2.3


def test_on_a_quadratic() -> None:
    """SAM's gradient there is `(H + rho * H^2 / |H w|) w`: growing with the curvature, whatever the distance."""
    h = np.diag([1.0, 5.0, 20.0])
    gradient = jax.grad(lambda w: w @ jnp.asarray(h, w.dtype) @ w / 2)
    tx = gradtx.sam_wrapper(gradtx.sgd(1.0), 0.3)
    with jax.enable_x64(True):
        w = jnp.array([1.0, -2.0, 0.5])
        updates, _ = tx.update(gradient(w), tx.init(w), w, grad_fn=gradient)
    w = np.asarray(w)
    np.testing.assert_allclose(-updates, (h + 0.3 * h @ h / np.linalg.norm(h @ w)) @ w, rtol=1e-12)
