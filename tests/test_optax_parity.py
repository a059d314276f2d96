"""A name that Optax has means the same here: float32 trajectories of 100 steps against Optax 0.2.8, option by option.

Optax computes `1 - b2**t` in float32 from a rounded `b2`: at b2 = 0.999 its bias correction is off by 1.3e-5 at every step, and a
step of Adam by half as much. Rows with that `b2` have a rate of 3e-4, which keeps the sum over 100 steps below the tolerance;
`test_nearer_to_float64` shows at a larger rate which library is right. Rates and `eps` elsewhere are such that rounding does not
grow: Adam at a large rate near its minimum multiplies a difference of 1e-7 by 10^4, between two runs of one library too.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import MANY_SHAPES, distance, quadratic, tanh_regression, trajectories, trajectory

import gradtx
from gradtx.core.value import ValueType

SMALL, TANH = quadratic({"w": (5, 3), "b": (3,)}), tanh_regression()
LARGE = quadratic({name: shape for name, shape in MANY_SHAPES.items() if shape})
LIBRARIES = (gradtx, optax)
TOLERANCE = 1e-6
MASK = {"w": True, "b": False}
Row = Callable[[Any], Any]


def contrib(lib: Any) -> Any:
    """Where Optax has it."""
    return getattr(lib, "contrib", lib)


def falling(count: Any) -> Any:
    return 0.05 / (1.0 + 0.1 * count)


def weights_only(params: Any) -> Any:
    return {name: p.ndim > 1 for name, p in params.items()}


def large_to_nan(updates: Any, params: Any) -> Any:
    return jax.tree.map(lambda u: jnp.where(jnp.abs(u) > 0.3, jnp.nan, u), updates)


ROWS: dict[str, Row] = {
    "sgd": lambda lib: lib.sgd(0.1),
    "sgd, momentum": lambda lib: lib.sgd(0.05, momentum=0.9),
    "sgd, nesterov": lambda lib: lib.sgd(falling, 0.9, True),
    "sign_sgd": lambda lib: lib.sign_sgd(falling),
    "signum": lambda lib: lib.signum(0.01, beta=0.8),
    "adam": lambda lib: lib.adam(3e-4),
    "adam, options": lambda lib: lib.adam(falling, 0.8, 0.95, eps=1e-3, eps_root=1e-4),
    "adamw": lambda lib: lib.adamw(3e-4, weight_decay=0.1),
    "adamw, mask": lambda lib: lib.adamw(0.02, b2=0.95, weight_decay=0.1, mask=MASK),
    "adamw, mask function": lambda lib: lib.adamw(falling, b2=0.95, weight_decay=0.1, mask=weights_only),
    "nadam": lambda lib: lib.nadam(3e-4, 0.8),
    "nadamw": lambda lib: lib.nadamw(0.02, 0.8, 0.95, weight_decay=0.1, mask=MASK),
    "adamaxw": lambda lib: lib.adamaxw(0.01, 0.8, 0.95, 1e-3, 0.1, MASK),
    "amsgrad": lambda lib: lib.amsgrad(3e-4),
    "rmsprop": lambda lib: lib.rmsprop(0.005, eps=1e-4),
    "rmsprop, eps outside": lambda lib: lib.rmsprop(0.005, 0.8, 1e-3, 0.5, eps_in_sqrt=False),
    # eps under the root here: outside it, the root of a variance near 0 makes 1e-4 of a rounding error of 1e-8
    "rmsprop, centered, all else": lambda lib: lib.rmsprop(0.002, 0.8, 1e-1, 0.5, True, True, 0.8, True, True),
    "rmsprop, momentum after the rate": lambda lib: lib.rmsprop(falling, eps=0.1, momentum=0.9),
    "rmsprop, nesterov": lambda lib: lib.rmsprop(0.001, eps=1e-3, momentum=0.9, nesterov=True),
    "adagrad": lambda lib: lib.adagrad(0.1),
    "radam": lambda lib: lib.radam(1e-4),
    "radam, options": lambda lib: lib.radam(falling, 0.8, 0.95, 1e-3, 1e-4, 4.5, nesterov=True),
    "scale_by_radam": lambda lib: lib.chain(lib.scale_by_radam(b2=0.5), lib.scale(-0.02)),
    "novograd": lambda lib: lib.novograd(1e-3),
    "novograd, options": lambda lib: lib.novograd(falling, 0.8, 0.9, 1e-3, 1e-4, 0.1),
    "scale_by_novograd": lambda lib: lib.chain(lib.scale_by_novograd(0.5, 0.98, weight_decay=0.01), lib.scale(-0.005)),
    "lion, options": lambda lib: lib.lion(falling, 0.8, 0.9, None, 0.1, MASK),
    "trace, nesterov": lambda lib: lib.chain(lib.trace(0.8, nesterov=True), lib.scale_by_schedule(lambda t: -falling(t))),
    "ema": lambda lib: lib.chain(lib.ema(0.9), lib.scale(-0.1)),
    "add_decayed_weights": lambda lib: lib.chain(lib.add_decayed_weights(0.1), lib.sgd(0.1, 0.9)),
    "add_decayed_weights, mask": lambda lib: lib.chain(lib.add_decayed_weights(falling, MASK), lib.sgd(0.1)),
    "scale_by_adam": lambda lib: lib.chain(lib.scale_by_adam(0.9, 0.95), lib.scale_by_learning_rate(falling)),
    "scale_by_lion": lambda lib: lib.chain(lib.scale_by_lion(0.8, 0.9), lib.scale(-0.01)),
    "scale_by_lion, smooth": lambda lib: lib.chain(lib.scale_by_lion(mode="smooth", smooth_beta=3.0), lib.scale(-0.01)),
    "scale_by_lion, refined": lambda lib: lib.chain(lib.scale(30.0), lib.scale_by_lion(mode="refined"), lib.scale(-0.01)),
    "noisy_sgd, add_noise": lambda lib: lib.chain(lib.add_noise(0.01, 0.5, jax.random.key(7)), lib.noisy_sgd(0.1, 0.01, 0.55, 3)),
    "adamw, decay schedule": lambda lib: lib.adamw(0.02, 0.9, 0.95, 1e-3, 1e-8, None, falling, nesterov=True),
    "adamax": lambda lib: lib.adamax(falling, 0.8),
    "scale_by_adamax": lambda lib: lib.chain(lib.scale_by_adamax(0.9, 0.95, 1e-3), lib.scale(-0.01)),
    "scale_by_amsgrad": lambda lib: lib.chain(lib.scale_by_amsgrad(0.8, 0.95, 1e-6, 1e-7), lib.scale(-0.02)),
    "scale_by_amsgrad, as the paper": lambda lib: lib.chain(
        lib.scale_by_amsgrad(0.9, 0.99, 1e-8, 0.0, None, False, False), lib.scale(-0.02)
    ),
    "scale_by_rms, bias correction": lambda lib: lib.chain(lib.scale_by_rms(eps=1e-4, bias_correction=True), lib.scale(-0.005)),
    "scale_by_stddev": lambda lib: lib.chain(lib.scale_by_stddev(0.9, 0.1), lib.scale(-0.01)),
    "scale_by_rss": lambda lib: lib.chain(lib.scale_by_rss(0.0, 1e-6), lib.scale(-0.1)),
    "ema, no debias; scale_by_sign": lambda lib: lib.chain(
        lib.ema(0.9, False), lib.scale_by_sign(), lib.scale_by_learning_rate(0.01)
    ),
    "clip": lambda lib: lib.chain(lib.clip(0.03), lib.sgd(0.1)),
    "clip_by_global_norm": lambda lib: lib.chain(lib.clip_by_global_norm(0.1), lib.sgd(0.1)),
    "normalize_by_update_norm": lambda lib: lib.chain(lib.normalize_by_update_norm(0.5, eps=1e-2), lib.sgd(0.05)),
    "keep_params_nonnegative": lambda lib: lib.chain(lib.sgd(0.3), lib.keep_params_nonnegative()),
    "clip_by_block_rms": lambda lib: lib.chain(lib.clip_by_block_rms(0.1), lib.sgd(0.1)),
    "scale_by_trust_ratio": lambda lib: lib.chain(lib.scale_by_trust_ratio(1.0, 0.5, 1e-2), lib.sgd(0.02)),
    "scale_by_param_block_norm": lambda lib: lib.chain(lib.scale_by_param_block_norm(1.0), lib.sgd(0.1)),
    "scale_by_param_block_rms": lambda lib: lib.chain(lib.scale_by_param_block_rms(0.6), lib.sgd(0.1)),
    "adabelief": lambda lib: lib.adabelief(3e-4, eps_root=1e-6),
    "adabelief, options": lambda lib: lib.adabelief(falling, 0.8, 0.95, 1e-3, 1e-4, nesterov=True),
    "scale_by_belief": lambda lib: lib.chain(lib.scale_by_belief(0.8, 0.9, 1e-2, 1e-4), lib.scale(-0.01)),
    "yogi": lambda lib: lib.yogi(3e-4),
    "scale_by_yogi": lambda lib: lib.chain(lib.scale_by_yogi(0.8, 0.95, 1e-2, 1e-4, 0.01), lib.scale(-0.01)),
    "adadelta": lambda lib: lib.adadelta(0.5, 0.8, 1e-4, falling, MASK),
    "scale_by_adadelta": lambda lib: lib.chain(lib.scale_by_adadelta(0.9, 1e-3), lib.scale(-0.3)),
    "adan": lambda lib: lib.adan(3e-3, weight_decay=0.1, mask=MASK),
    "adafactor": lambda lib: lib.adafactor(0.03, 2),
    "adafactor, options": lambda lib: lib.adafactor(falling, 3, 0.6, -2, False, 0.3, 0.8, "float32", 0.01, 1e-3, True, MASK),
    "adafactor, defaults": lambda lib: lib.chain(lib.adafactor(), lib.scale(0.01)),
    "scale_by_factored_rms": lambda lib: lib.chain(lib.scale_by_factored_rms(False, epsilon=1e-2), lib.scale(-0.01)),
    "sm3": lambda lib: lib.sm3(0.05),
    "scale_by_sm3": lambda lib: lib.chain(lib.scale_by_sm3(0.8, 0.9, 1e-3), lib.scale(-0.01)),
    "scale_by_adan": lambda lib: lib.chain(lib.scale_by_adan(0.9, 0.8, 0.95, 1e-2, 1e-4), lib.scale(-0.01)),
    "scale_by_distance_over_gradients": lambda lib: lib.scale_by_distance_over_gradients(0.01, 1e-4, global_scale=-1.0),
    "optimistic_gradient_descent": lambda lib: lib.optimistic_gradient_descent(falling, 0.5, 0.7),
    "scale_by_optimistic_gradient": lambda lib: lib.chain(lib.scale_by_optimistic_gradient(), lib.scale(-0.05)),
    "optimistic_adam_v2": lambda lib: lib.optimistic_adam_v2(falling, alpha=0.9, beta=0.5, b1=0.8, b2=0.95, eps=1e-3),
    "lamb": lambda lib: lib.lamb(falling, b2=0.95, eps=1e-3, weight_decay=0.1, mask=MASK),
    "lars": lambda lib: lib.lars(falling, 0.1, MASK, 0.1, 1e-3, MASK, 0.8, True),
    "fromage": lambda lib: lib.fromage(2e-3, 1e-3),
    "fromage, schedule": lambda lib: lib.fromage(falling),
    "zero_nans": lambda lib: lib.chain(lib.stateless(large_to_nan), lib.zero_nans(), lib.sgd(0.1)),
}
ROWS |= {  # from `optax.contrib`, and with arguments beside the updates
    "measure_with_ema": lambda lib: lib.chain(lib.measure_with_ema(lambda updates: updates, 0.9), lib.sgd(0.1)),
    "ademamix": lambda lib: contrib(lib).ademamix(3e-4, 0.8, 0.95, falling, 3.0, 1e-3, 1e-4, None, 0.1, MASK),
    "scale_by_ademamix": lambda lib: lib.chain(contrib(lib).scale_by_ademamix(b2=0.95, b3=0.9, alpha=falling), lib.scale(-0.01)),
    "simplified_ademamix": lambda lib: contrib(lib).simplified_ademamix(1e-3, 0.9, 0.95, falling, 1e-3, 1e-4, 0.1, MASK),
    "scale_by_simplified_ademamix": lambda lib: lib.chain(
        contrib(lib).scale_by_simplified_ademamix(0.9, 0.9, 2.0, 1e-2), lib.scale(-1e-3)
    ),
    "adopt": lambda lib: contrib(lib).adopt(falling, 0.8, 0.95, 1e-3, nesterov=True),
    "scale_by_adopt": lambda lib: lib.chain(contrib(lib).scale_by_adopt(use_clipping=False, b2=0.9, eps=1e-2), lib.scale(-0.01)),
    "acprop": lambda lib: contrib(lib).acprop(falling, 0.8, 0.95, 1e-2, 1e-4, 0.1, MASK),
    "scale_by_acprop": lambda lib: lib.chain(contrib(lib).scale_by_acprop(0.8, 0.9, 1e-2, 1e-4), lib.scale(-0.01)),
    "dog": lambda lib: contrib(lib).dog(falling, ("distance", 0.1), weight_decay=0.1, mask=MASK),
    "dowg": lambda lib: contrib(lib).dowg(falling, 0.1, weight_decay=0.1, mask=MASK),
    "madgrad": lambda lib: contrib(lib).madgrad(falling, 0.8, 0.1, 1e-4),
    "scale_by_madgrad": lambda lib: contrib(lib).scale_by_madgrad(0.01),
    # a large eps: below it, two roundings of one run of Mechanic part within 60 steps
    "mechanize": lambda lib: contrib(lib).mechanize(lib.sgd(falling), 0.01, 1e-1, 1.0, 2),
    "cocob": lambda lib: contrib(lib).cocob(falling, 20.0, 1e-3, 0.1, MASK),
    "scale_by_cocob": lambda lib: contrib(lib).scale_by_cocob(),
    "dadapt_adamw": lambda lib: contrib(lib).dadapt_adamw(falling, (0.8, 0.95), 1e-2, 1e-2, 0.1),
    "prodigy": lambda lib: contrib(lib).prodigy(falling, (0.8, 0.95), 0.9, 1e-2, 1e-2, 0.7, 0.1, True),
    "schedule_free": lambda lib: contrib(lib).schedule_free(lib.adam(0.01, b1=0.0, b2=0.95, eps=1e-2), 0.01, 0.8, 1.0),
    "schedule_free_sgd": lambda lib: contrib(lib).schedule_free_sgd(0.1, weight_decay=0.1),
    "schedule_free_adamw": lambda lib: contrib(lib).schedule_free_adamw(0.01, b2=0.95, eps=1e-3, weight_decay=0.1),
}
ROWS_BY_SHAPE: dict[str, Row] = {  # the rule depends on a leaf's number of axes
    "adaptive_grad_clip": lambda lib: lib.chain(lib.adaptive_grad_clip(0.05, eps=0.7), lib.sgd(0.1)),
    "adaptive_grad_clip, axis": lambda lib: lib.chain(lib.adaptive_grad_clip(0.05, axis=-1), lib.sgd(0.1)),
    "centralize": lambda lib: lib.chain(lib.centralize(), lib.sgd(0.1)),
}
ROWS_WITH_OBJECTIVE: dict[str, Row] = {
    "polyak_sgd": lambda lib: lib.polyak_sgd(0.7, falling, -0.1, 1e-2),
    "scale_by_polyak": lambda lib: lib.chain(lib.scale_by_polyak(variant="sps+"), lib.scale(-0.3)),
    "momo": lambda lib: contrib(lib).momo(0.5),
    "momo, options": lambda lib: contrib(lib).momo(falling, 0.8, -0.1, 0.1, True),
    "momo_adam": lambda lib: contrib(lib).momo_adam(3e-3, eps=1e-3),
    "momo_adam, options": lambda lib: contrib(lib).momo_adam(falling, 0.8, 0.95, 1e-2, -0.1, 0.1, True),
    "reduce_on_plateau": lambda lib: lib.chain(lib.sgd(0.3), contrib(lib).reduce_on_plateau(0.5, 2, 0.1, 0.01, 1, 2, 0.2)),
    "lbfgs": lambda lib: lib.lbfgs(),
    "lbfgs, no line search": lambda lib: lib.lbfgs(falling, 4, linesearch=None),
    "lbfgs, unscaled": lambda lib: lib.lbfgs(0.5, 5, False, lib.scale_by_zoom_linesearch(10)),
    "scale_by_lbfgs": lambda lib: lib.chain(
        lib.scale_by_lbfgs(3), lib.scale(-1.0), lib.scale_by_backtracking_linesearch(15, store_grad=True)
    ),
    "scale_by_zoom_linesearch": lambda lib: lib.chain(lib.sgd(1.0), lib.scale_by_zoom_linesearch(15, curv_rtol=0.3)),
    "scale_by_zoom_linesearch, options": lambda lib: lib.chain(
        lib.sgd(0.1), lib.scale_by_zoom_linesearch(20, 30.0, 1e-6, 3.0, 1e-3, 0.1, None, 1e-4, "one")
    ),
    "scale_by_backtracking_linesearch": lambda lib: lib.chain(
        lib.sgd(3.0), lib.scale_by_backtracking_linesearch(20, 0.3, 0.7, 1.2, 2.0, 1e-7, 1e-6)
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_parity(name: str):
    assert distance(*trajectories(map(ROWS[name], LIBRARIES), SMALL, 100, np.float32)) < TOLERANCE


@pytest.mark.parametrize("name", ROWS_BY_SHAPE)
def test_parity_on_many_shapes(name: str):
    assert distance(*trajectories(map(ROWS_BY_SHAPE[name], LIBRARIES), LARGE, 100, np.float32)) < TOLERANCE


@pytest.mark.parametrize("name", ROWS_WITH_OBJECTIVE)
def test_parity_of_line_searches(name: str):
    """Fewer steps and a wider tolerance: quasi-Newton steps divide by differences of gradients, which keep fewer digits."""
    rows, steps = map(ROWS_WITH_OBJECTIVE[name], LIBRARIES), 100 if name.startswith("momo") else 20
    assert distance(*trajectories(rows, SMALL, steps, np.float32, objective=True)) < 1e-5


def test_the_mask_masks():
    """The rows with a mask agree with Optax, and are not those without one."""
    free = gradtx.adamw(0.02, b2=0.95, weight_decay=0.1)
    masked, unmasked = trajectories([ROWS["adamw, mask"](gradtx), free], SMALL, 100, np.float32)
    assert np.array_equal(masked["w"], unmasked["w"])
    assert np.max(np.abs(masked["b"] - unmasked["b"])) > 0.01


# Half-precision moments: Optax multiplies `decay * m` in bfloat16; gradtx computes in float32 and rounds once, to store ----------


def stored_in_bfloat16(tx: Any, field: str) -> Any:
    """Optax's float32 rule with one field of its state rounded to bfloat16 between steps."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        updates, state = tx.update(updates, state, params)
        rounded = jax.tree.map(lambda m: jax.lax.reduce_precision(m, exponent_bits=8, mantissa_bits=7), getattr(state, field))
        return updates, state._replace(**{field: rounded})

    return optax.GradientTransformation(tx.init, update)


HALF_ROWS: dict[str, tuple[Row, Any, str, tuple[Any, ...]]] = {  # both libraries; Optax's rule, its field and what follows
    "trace": (lambda lib: lib.sgd(0.05, 0.9, accumulator_dtype=jnp.bfloat16), optax.trace(0.9), "trace", (optax.scale(-0.05),)),
    "ema": (
        lambda lib: lib.chain(lib.ema(0.9, accumulator_dtype="bfloat16"), lib.scale(-0.1)),
        optax.ema(0.9),
        "ema",
        (optax.scale(-0.1),),
    ),
    "adam": (
        lambda lib: lib.adam(0.01, b2=0.95, mu_dtype=jnp.bfloat16, nesterov=True),
        optax.scale_by_adam(b2=0.95, nesterov=True),
        "mu",
        (optax.scale(-0.01),),
    ),
    "amsgrad": (
        lambda lib: lib.amsgrad(0.01, b2=0.95, mu_dtype=jnp.bfloat16),
        optax.scale_by_amsgrad(b2=0.95),
        "mu",
        (optax.scale(-0.01),),
    ),
    "lion": (
        lambda lib: lib.lion(0.01, mu_dtype=jnp.bfloat16, weight_decay=0.0),
        optax.scale_by_lion(),
        "mu",
        (optax.scale(-0.01),),
    ),
}


@pytest.mark.parametrize("name", HALF_ROWS)
def test_moments_stored_in_bfloat16(name: str):
    """Fewer steps here: where float32 values differ in their last bit, one in 10^5 rounds to another bfloat16."""
    make, rule, field, rest = HALF_ROWS[name]
    reference = optax.chain(stored_in_bfloat16(rule, field), *rest)
    assert distance(*trajectories([make(gradtx), reference], SMALL, 30, np.float32)) < TOLERANCE


@pytest.mark.parametrize("name", ["trace", "ema"])
def test_rounding_moments_once_is_nearer_to_float64(name: str):
    make, rule, _, rest = HALF_ROWS[name]
    ours, theirs = trajectories(map(make, LIBRARIES), SMALL, 30, np.float32)
    exact = trajectory(optax.chain(rule, *rest), SMALL, 30)
    assert 1e-4 < distance(ours, exact) < distance(theirs, exact) / 2


# Where the two differ on purpose ------------------------------------------------------------------------------------------------

NEARER: dict[str, Row] = {
    "adam": lambda lib: lib.adam(0.05, b2=0.9999),
    "ema": lambda lib: lib.chain(lib.ema(0.999), lib.scale(-0.3)),
}


@pytest.mark.parametrize("name", NEARER)
def test_nearer_to_float64(name: str):
    """Bias corrections of slow averages: gradtx in float32 stays within rounding of float64, Optax is an order away."""
    ours, theirs = trajectories(map(NEARER[name], LIBRARIES), TANH, 100, np.float32)
    exact = trajectory(NEARER[name](optax), TANH, 100)
    assert distance(ours, exact) < TOLERANCE
    assert distance(theirs, exact) > 5 * distance(ours, exact)


LATE: dict[str, Row] = {
    "rprop": lambda lib: lib.rprop(0.01, 0.4, 1.5, 1e-3, 0.05),
    "scale_by_rprop": lambda lib: lib.scale_by_rprop(0.01),
}


@pytest.mark.parametrize("name", LATE)
def test_optax_gives_the_steps_of_rprop_one_call_late(name: str):
    """Its first update is 0; then it gives the last one, or 0 where the sign turns."""
    txs = [LATE[name](lib) for lib in LIBRARIES]
    states, before, turns = [tx.init(jnp.zeros(4)) for tx in txs], jnp.zeros(4), 0
    for t in range(20):
        grads = jnp.sin(jnp.array([0.1, 0.5, 0.9, 1.7]) * t + 0.3)
        (u, states[0]), (v, states[1]) = (tx.update(grads, state) for tx, state in zip(txs, states, strict=True))
        turned = (u == 0) & (before != 0)
        np.testing.assert_allclose(v, jnp.where(turned, 0, before), rtol=1e-6)
        before, turns = u, turns + int(jnp.sum(turned))
    assert turns > 5


# Names --------------------------------------------------------------------------------------------------------------------------


def shared_names() -> set[str]:
    """Factories of transformations that both libraries have, from the folders whose algorithms are compared here."""
    folders = ("gradtx.transforms.", "gradtx.optimizers.")
    declared = {name for name, value in vars(gradtx).items() if isinstance(value, ValueType)}
    return {name for name in declared if name in vars(optax) and getattr(gradtx, name).__module__.startswith(folders)}


def test_every_shared_name_has_a_row():
    calls = " ".join(
        repr(row(gradtx)) for row in [*ROWS.values(), *LATE.values(), *ROWS_BY_SHAPE.values(), *ROWS_WITH_OBJECTIVE.values()]
    )
    assert shared_names() - set(re.findall(r"(\w+)\(", calls)) == set()


SIGNATURES_DIFFER = {
    "noisy_sgd": "Optax's deprecated `seed` is gone, and its default key None, which warns, is 0",
    "add_noise": "Optax's deprecated `seed` is gone, and the key is required",
    "lbfgs": "the default line search is the same call in either library",
    "scale_by_factored_rms": "the default `decay_rate_fn` is the same function, with a name",
}


@pytest.mark.parametrize("name", sorted(shared_names() - SIGNATURES_DIFFER.keys()))
def test_same_arguments_in_the_same_order(name: str):
    """Optax's positional arguments come first, its keyword arguments are there, with the same defaults."""
    ours, theirs = (inspect.signature(getattr(lib, name)).parameters for lib in (gradtx, optax))
    positional = [p.name for p in theirs.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD][: len(positional)] == positional
    assert theirs.keys() <= ours.keys()
    assert {k: p.default for k, p in theirs.items()} == {k: ours[k].default for k in theirs}
