"""Schedule-free learning: the paper's three sequences in float64, Optax, warm-ups, half precision, errors."""

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from problems import Arrays, distance, tanh_regression, trajectories

import gradtx
from gradtx.wrappers.schedule_free import schedule_free_eval_params

TANH = tanh_regression()


def averages(tx: Any, steps: int, dtype: Any = np.float64, read: Any = gradtx.eval_params) -> tuple[Arrays, Arrays]:
    """The parameters and the averages after each step."""

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(TANH.loss)(params), state, params)
        params = gradtx.apply_updates(params, updates)
        return (params, state), (params, read(state, params))

    with jax.enable_x64(np.dtype(dtype) == np.float64):
        start = jax.tree.map(lambda p: jnp.asarray(p, dtype), TANH.params)
        return jax.tree.map(np.asarray, jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=steps)[1])(start))


def oracle(
    steps: int, lr: Any, b1: float, power: float = 2.0, b2: float | None = None, weight_decay: float = 0.0
) -> tuple[Arrays, Arrays]:
    """Defazio et al. 2024, equations 3 to 5, with `x`, `y`, `z` kept; with `b2`, algorithm 1 (AdamW)."""
    x, y, z = (dict(TANH.params) for _ in range(3))
    v, total, largest, points, means = dict.fromkeys(x, 0.0), 0.0, 0.0, [], []
    for t in range(1, steps + 1):
        g = TANH.gradient(y)
        rate = lr(t - 1) if callable(lr) else lr
        largest = max(largest, rate)
        total += largest**power
        c = largest**power / total if total > 0 else 0.0
        for k in x:
            u = g[k]
            if b2 is not None:
                v[k] = b2 * v[k] + (1 - b2) * g[k] ** 2
                u = g[k] / (np.sqrt(v[k] / (1 - b2**t)) + 1e-8)
            z[k] = z[k] - rate * (u + weight_decay * y[k])
            x[k] = (1 - c) * x[k] + c * z[k]
            y[k] = (1 - b1) * z[k] + b1 * x[k]
        points.append(dict(y))
        means.append(dict(x))
    return tuple({k: np.stack([p[k] for p in path]) for k in x} for path in (points, means))  # type: ignore[return-value]


def warm_and_fall(count: Any) -> Any:
    """Zero at first, at most 0.3, then falling: the weights keep the largest rate."""
    return 0.1 * count * (count < 4) + 0.3 / (1 + 0.2 * count) * (count >= 4)


def warm(count: Any) -> Any:
    """What `warmup_steps=6` makes."""
    return 0.05 * (count * (1.0 / 6) * (count < 6) + (count >= 6))


@pytest.mark.parametrize(
    ("tx", "options"),
    [
        (lambda: gradtx.schedule_free_sgd(0.3), {"lr": 0.3, "b1": 0.9}),
        (lambda: gradtx.schedule_free_sgd(0.3, b1=0.5, weight_decay=0.1), {"lr": 0.3, "b1": 0.5, "weight_decay": 0.1}),
        (lambda: gradtx.schedule_free_sgd(0.3, b1=1.0), {"lr": 0.3, "b1": 1.0}),
        (lambda: gradtx.schedule_free_sgd(warm_and_fall, weight_lr_power=1.0), {"lr": warm_and_fall, "b1": 0.9, "power": 1.0}),
        (lambda: gradtx.schedule_free(gradtx.sgd(warm), warm, 0.8, 0.0), {"lr": warm, "b1": 0.8, "power": 0.0}),
        (
            lambda: gradtx.schedule_free_adamw(0.05, 6, 0.95, 0.99, weight_decay=0.1),
            {"lr": warm, "b1": 0.95, "b2": 0.99, "weight_decay": 0.1},
        ),
    ],
)
def test_oracle(tx: Any, options: Any) -> None:
    found, expected = averages(tx(), 30), oracle(30, **options)
    for ours, theirs in zip(found, expected, strict=True):
        assert distance(ours, theirs) < 1e-10


@pytest.mark.parametrize("name", ["schedule_free", "schedule_free_sgd", "schedule_free_adamw"])
def test_the_signature_is_that_of_optax(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(lib, name)).parameters.values() for lib in (gradtx, optax.contrib))
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


def test_the_average_equals_optax() -> None:
    ours = averages(gradtx.schedule_free_adamw(0.02, b2=0.95), 50, np.float32, schedule_free_eval_params)[1]
    theirs = averages(optax.contrib.schedule_free_adamw(0.02, b2=0.95), 50, np.float32, optax.contrib.schedule_free_eval_params)[1]
    assert distance(ours, theirs) < 1e-5  # two recoveries of `x` from float32 `y` and `z`


def test_schedules_are_read_at_the_steps_taken() -> None:
    """Optax gives step `t` the weight of step `t + 1`: with its schedule one late, it agrees."""

    def one_late(count: Any) -> Any:
        return warm_and_fall(count - 1)

    ours = gradtx.schedule_free_sgd(warm_and_fall)
    late = optax.contrib.schedule_free(optax.sgd(warm_and_fall), one_late)
    early = optax.contrib.schedule_free(optax.sgd(warm_and_fall), warm_and_fall)
    ours, late, early = trajectories([ours, late, early], TANH, 100, np.float32)
    assert distance(ours, late) < 1e-6
    assert distance(ours, early) > 1e-3


def test_a_rate_of_zero_moves_nothing() -> None:
    tx, p = gradtx.schedule_free_sgd(1.0, warmup_steps=10), jnp.asarray(2.0)
    updates, state = tx.update(jnp.asarray(1.0), tx.init(p), p)
    assert float(updates) == 0.0
    assert float(state.weight_sum) == 0.0
    assert float(gradtx.eval_params(state, p)) == 2.0


def test_state_of_half_precision_parameters() -> None:
    """Weights of 1e-4 add up to 0.2; in bfloat16 the sum would stop at 256 of them. `z` follows updates too small for it."""
    tx = gradtx.schedule_free_sgd(0.01)
    params = jnp.ones((), jnp.bfloat16)

    def step(carry: Any, _: Any) -> Any:
        p, state = carry
        updates, state = tx.update(jnp.asarray(0.01, p.dtype), state, p)
        return (gradtx.apply_updates(p, updates), state), None

    (_, state), _ = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=2000))(params)
    assert {x.dtype.name for x in jax.tree.leaves(state)} == {"float32", "int32"}
    assert float(state.weight_sum) == pytest.approx(0.2, rel=1e-3)
    assert float(state.z) == pytest.approx(1 - 2000 * 0.01 * float(jnp.asarray(0.01, jnp.bfloat16)), rel=1e-3)
    assert float(state.b1) == np.float32(0.9)


def test_the_average_of_half_precision_parameters_gathers_no_rounding_errors() -> None:
    """Recovered from bfloat16 parameters at every step, as Optax does it, it ends elsewhere."""
    exact = averages(gradtx.schedule_free_adamw(0.02), 300, np.float32)[1]
    ours = averages(gradtx.schedule_free_adamw(0.02), 300, jnp.bfloat16)[1]
    theirs = averages(optax.contrib.schedule_free_adamw(0.02), 300, jnp.bfloat16, optax.contrib.schedule_free_eval_params)[1]
    ours, theirs, exact = (float(TANH.loss({k: np.float32(v[-1]) for k, v in path.items()})) for path in (ours, theirs, exact))
    assert ours == pytest.approx(exact, rel=0.01)
    assert theirs > 1.1 * exact


def test_only_where_it_must_is_the_average_stored() -> None:
    params = {"half": jnp.ones((2, 3), jnp.float16), "wide": jnp.ones((2, 3)), "scalar": jnp.ones(())}
    state = gradtx.schedule_free_sgd(0.1).init(params)
    assert {name: (x.shape, x.dtype.name, float(jnp.max(x))) for name, x in state.x.items()} == {
        "half": ((2, 3), "float32", 1.0),
        "wide": ((), "float32", 0.0),
        "scalar": ((), "float32", 1.0),
    }


def test_state_dtype() -> None:
    params = {"w": jnp.ones(2), "c": jnp.ones(2, jnp.complex64)}
    state = gradtx.schedule_free_sgd(0.1, state_dtype=jnp.bfloat16).init(params)
    assert (state.z["w"].dtype, state.z["c"].dtype) == (jnp.bfloat16, jnp.complex64)


def test_the_average_of_a_narrow_z_gathers_no_rounding_errors() -> None:
    """With one weight for all steps it is the mean of `z` as it is stored, over a thousand steps too."""
    tx = gradtx.schedule_free_sgd(0.01, weight_lr_power=0.0, state_dtype=jnp.bfloat16)
    params = jnp.linspace(0.5, 1.5, 7)

    def step(carry: Any, i: Any) -> Any:
        p, state = carry
        updates, state = tx.update(p + jnp.sin(i), state, p)
        return (gradtx.apply_updates(p, updates), state), state.z

    (p, state), z = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), jnp.arange(1000.0)))(params)
    assert z.dtype == jnp.bfloat16
    np.testing.assert_allclose(gradtx.eval_params(state, p), np.mean(np.asarray(z, np.float64), 0), atol=3e-6)


def test_b1_may_change_between_steps() -> None:
    """The average is recovered with the `b1` that made the parameters, and stays where it was."""
    tx, p = gradtx.inject_hyperparams(gradtx.schedule_free_sgd)(0.0, b1=0.5, weight_lr_power=0.0), jnp.full(1, 2.0)
    state = tx.init(p)
    state = gradtx.tree.set(state, z=jnp.full(1, 4.0), weight_sum=jnp.asarray(1e9))  # so x = 0, and no share for z
    before = gradtx.eval_params(state, p)
    state.hyperparams["b1"] = jnp.asarray(0.75)
    updates, state = tx.update(jnp.zeros(1), state, p)
    p = gradtx.apply_updates(p, updates)
    assert float(before[0]) == 0.0
    assert float(p[0]) == pytest.approx(1.0)  # 0.25 * 4
    assert float(gradtx.eval_params(state, p)[0]) == pytest.approx(0.0, abs=1e-6)


def test_parts_of_a_tree_and_nnx() -> None:
    params = {"w": jnp.ones(2), "b": jnp.ones(()), "none": None}
    tx = gradtx.masked(gradtx.schedule_free_sgd(0.5), {"w": True, "b": False, "none": None})
    updates, state = tx.update(params, tx.init(params), params)
    params = gradtx.apply_updates(params, updates)
    found = gradtx.eval_params(state, params)
    np.testing.assert_allclose(found["w"], 0.5, rtol=1e-6)
    assert found["b"] is params["b"]

    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, gradtx.schedule_free_sgd(0.5), wrt=nnx.Param)
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    found = nnx.to_pure_dict(gradtx.eval_params(optimizer.opt_state, nnx.state(model, nnx.Param)))
    jax.tree.map(lambda x, p: np.testing.assert_allclose(x, p - 0.5, atol=1e-6), found, before)


def test_errors() -> None:
    tx, p = gradtx.schedule_free_sgd(0.5), jnp.ones(2)
    state = tx.init(p)
    text = "schedule_free_sgd: needs the parameters; call tx.update(updates, state, params)."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        tx.update(p, state)
    text = (
        "schedule_free_eval_params: state is a tuple of 1, expected a ScheduleFreeState; "
        "gradtx.eval_params(state, params) finds one inside other states."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        schedule_free_eval_params((state,), p)
    text = "eval_params: params and the average of ScheduleFreeState at the top of the state differ in structure"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        gradtx.eval_params(state, {"w": p, "b": p})
    text = "schedule_free_sgd: the schedule learning_rate gave None, expected a scalar."
    with pytest.raises(TypeError, match=re.escape("the schedule learning_rate gave None, expected a scalar.")):
        gradtx.schedule_free(gradtx.sgd(0.1), lambda count: None).update(p, state, p)
