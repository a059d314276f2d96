"""Wrappers around optimizers and around each other, compiled in one scan, against their definitions in plain Python."""

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wrapper_definitions import (
    Plain,
    accumulate,
    asam,
    cautious,
    every_second,
    gsam,
    in_turns,
    lookahead,
    looksam,
    momentum_sam,
    plateau,
    sam,
    same,
    schedule_free,
    skip,
    tree,
)

import gradtx
import gradtx.optax
from gradtx.wrappers import adversarial
from gradtx.wrappers.multi_steps import MultiSteps
from gradtx.wrappers.nonfinite import apply_if_finite

STEPS = 7
START = {"w": np.array([[0.8, -1.2], [0.3, 2.0]]), "b": np.array([1.5, -0.4])}
BAD = 3  # the step whose gradient is NaN, where a wrapper skips it


WRAPPERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Plain]]] = {
    "accumulate": (lambda tx: gradtx.accumulate(tx, 2), accumulate),
    "skip_nonfinite": (gradtx.skip_nonfinite, skip),
    "skip_spikes": (lambda tx: gradtx.skip_spikes(tx, sigma=1e3), skip),
    "apply_if_finite": (lambda tx: apply_if_finite(tx, 5), skip),
    "lookahead_wrapper": (lambda tx: gradtx.lookahead_wrapper(tx, 3), lookahead),
    "cautious": (gradtx.cautious, cautious),
    "ema_params": (lambda tx: gradtx.ema_params(tx, 0.9), same),
    "swa": (lambda tx: gradtx.swa(tx, 2), same),
    "sam_wrapper": (lambda tx: gradtx.sam_wrapper(tx, 0.1), sam),
    "asam": (lambda tx: gradtx.asam(tx, 0.1), asam),
    "gsam": (lambda tx: gradtx.gsam(tx, 0.1), gsam),
    "looksam": (lambda tx: gradtx.looksam(tx, 0.1, every_k=2), looksam),
    "momentum_sam": (lambda tx: gradtx.momentum_sam(tx, 0.1), momentum_sam),
    "sam": (lambda tx: adversarial.sam(tx, gradtx.chain(gradtx.normalize(), gradtx.sgd(0.1))), in_turns),
    "schedule_free": (lambda tx: gradtx.schedule_free(tx, 0.1), schedule_free),
    "MultiSteps": (lambda tx: MultiSteps(tx, 2).gradient_transformation(), accumulate),
    "apply_every": (lambda tx: gradtx.chain(tx, gradtx.apply_every(2)), every_second),
    "reduce_on_plateau": (lambda tx: gradtx.chain(tx, gradtx.reduce_on_plateau(0.5, patience=1, rtol=0.0)), plateau),
    "snapshot": (lambda tx: gradtx.chain(tx, gradtx.snapshot("size", gradtx.tree.norm)), same),
    "masked": (lambda tx: gradtx.masked(tx, gradtx.by_path({}, default=True)), same),
}
OPTIMIZERS = {
    "sgd": gradtx.sgd(0.1, momentum=0.9, nesterov=True),
    "adamw": gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 9), weight_decay=0.1),
    "lion": gradtx.lion(0.05),
    "clipped novograd": gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.novograd(0.1)),
    "msign": gradtx.chain(gradtx.trace(0.95, nesterov=True), gradtx.orthogonalize(method="svd"), gradtx.scale(-0.1)),
}
OFTEN = ("accumulate", "ema_params", "lookahead_wrapper", "sam", "skip_nonfinite")
"""Those that people put around others most; the rest is for the slow tests."""
SOME = pytest.mark.parametrize("names", [OFTEN, pytest.param(tuple(WRAPPERS), marks=pytest.mark.slow)], ids=["often", "all"])
OUTER = pytest.mark.parametrize(
    "outer", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in WRAPPERS]
)
TWO_GRADIENTS = ("sam_wrapper", "asam", "gsam", "looksam")
REFUSED = {
    (outer, inner): "calls grad_fn"
    for outer in (*TWO_GRADIENTS, "momentum_sam", "sam", "accumulate", "MultiSteps")
    for inner in TWO_GRADIENTS
}
LAST = (
    "lookahead_wrapper",
    "ema_params",
    "swa",
    "momentum_sam",
    "sam",
    "schedule_free",
)  # their updates must be applied as they are
REFUSED |= {
    (outer, inner): "must be applied as they are"
    for outer in ("lookahead_wrapper", "cautious", "schedule_free", "apply_every", "reduce_on_plateau")
    for inner in LAST
}
REFUSED |= {
    (outer, inner): "takes every call for a step"
    for outer in ("lookahead_wrapper", "ema_params", "swa", "momentum_sam", "schedule_free", "cautious")
    for inner in ("accumulate", "MultiSteps", "apply_every")
}
PASSES = ("ema_params", "swa", "masked", "snapshot", "reduce_on_plateau")  # hand each gradient on as it is
VALUES = np.array([1.0, 0.8, 0.9, 0.7, 0.75, 0.8, 0.6])  # of the loss, step by step


def gradient(p: Any) -> Any:
    return tree(lambda x: jnp.sin(2 * x) + 0.5 * x, p)


def batches(skips: bool) -> np.ndarray:
    """A factor of each step's gradient, as of its minibatch; NaN at one step where it is skipped."""
    factors = 1 + 0.5 * np.cos(np.arange(STEPS))
    return np.where(skips & (np.arange(STEPS) == BAD), np.nan, factors)


def scanned(txs: list[Any], factors: list[np.ndarray], params: Any) -> list[Any]:
    def path(tx: Any, factors: Any) -> Any:
        def step(carry: Any, row: Any) -> Any:
            (p, s), (c, value) = carry, row
            fn = lambda q: tree(lambda x: c * x, gradient(q))  # noqa: E731
            u, s = tx.update(fn(p), s, p, grad_fn=fn, value=value)
            p = gradtx.apply_updates(p, u)
            return (p, s), p

        return jax.lax.scan(step, (params, tx.init(params)), (jnp.asarray(factors), jnp.asarray(VALUES)))[1]

    return jax.jit(lambda: [path(tx, c) for tx, c in zip(txs, factors, strict=True)])()


def by_hand(tx: Plain, factors: np.ndarray, params: Any) -> Any:
    p, s, path = params, tx.init(params), []
    for c, value in zip(factors, VALUES, strict=True):
        fn = lambda q: tree(lambda x: c * x, gradient(q))  # noqa: B023, E731
        u, s = tx.update(fn(p), s, p, grad_fn=fn, value=jnp.asarray(value))
        p = tree(jnp.add, p, u)
        path.append(p)
    return tree(lambda *xs: jnp.stack(xs), *path)


def check(outer: str, inners: dict[str, tuple[Any, Any, bool]]) -> None:
    """`outer` around each of (transformation, plain one, whether it skips), all in one program."""
    make, plain = WRAPPERS[outer]
    skips = [plain is skip or inner[2] for inner in inners.values()]
    with jax.enable_x64(True):
        params = tree(jnp.asarray, START)
        txs = [make(tx) for tx, _, _ in inners.values()]
        paths = scanned(txs, [batches(s) for s in skips], params)
        for name, path, skipping, (_, inner, _) in zip(inners, paths, skips, inners.values(), strict=True):
            expected = by_hand(plain(inner), batches(skipping), params)
            for leaf in START:
                np.testing.assert_allclose(path[leaf], expected[leaf], rtol=1e-9, atol=1e-12, err_msg=f"{outer} around {name}")
            if plain is skip:
                assert bool(jnp.all(jnp.isfinite(path["w"])))


@OUTER
def test_around_optimizers(outer: str) -> None:
    check(outer, {name: (tx, Plain(tx.init, tx.update), False) for name, tx in OPTIMIZERS.items()})


@pytest.mark.parametrize("pair", sorted(REFUSED), ids="-".join)
def test_pairs_that_are_refused(pair: tuple[str, str]) -> None:
    outer, inner = pair
    with pytest.raises(ValueError, match=REFUSED[pair]):
        WRAPPERS[outer][0](WRAPPERS[inner][0](gradtx.rmsprop(0.05, momentum=0.5)))


@OUTER
@SOME
def test_around_each_other(outer: str, names: tuple[str, ...]) -> None:
    base = gradtx.rmsprop(0.05, momentum=0.5)
    inners = {}
    for name in names:
        if (outer, name) in REFUSED:
            continue
        make, plain = WRAPPERS[name]
        # A wrapper that mixes gradients before the one that skips them hands it more than the one NaN: only NaN-free runs compare.
        inners[name] = (
            make(base),
            plain(Plain(base.init, base.update)),
            plain is skip and outer in PASSES,
        )
    check(outer, inners)


def test_in_a_chain_what_must_be_applied_as_it_is_stands_last() -> None:
    half, norm = gradtx.scale(0.5), gradtx.snapshot("size", gradtx.tree.norm)
    for name in LAST:
        tx = WRAPPERS[name][0](gradtx.sgd(0.1))
        for before in (tx, gradtx.chain(gradtx.clip(1.0), tx), gradtx.masked(tx, {"w": True})):
            text = re.escape(
                f"chain: argument 0 is {before!r}, before {half!r}, but the updates of {name} must be applied as they are. "
            )
            with pytest.raises(ValueError, match=text + "Expected it last, with what changes updates inside it"):
                gradtx.chain(before, half)
            with pytest.raises(ValueError, match=r"^named_chain: argument 0 is .*must be applied as they are"):
                gradtx.named_chain(("a", before), ("b", norm), ("c", half))
        assert gradtx.chain(half, tx, norm, gradtx.identity()).init({"w": jnp.ones(2)})
    uphill = gradtx.chain(gradtx.normalize(), gradtx.sgd(1.0))
    tx, w = gradtx.chain(adversarial.sam(gradtx.sgd(0.1), uphill, opaque_mode=True), half), jnp.array([3.0, 4.0])
    updates, _ = tx.update(w, tx.init(w), w, grad_fn=lambda w, i: w)  # of an opaque one the state holds no parameters
    np.testing.assert_allclose(updates, [-0.18, -0.24], rtol=1e-6)
    with pytest.raises(ValueError, match=r"^sam: adv_optimizer holds swa\(.* Put sam inside it\.$"):
        adversarial.sam(gradtx.sgd(0.1), gradtx.swa(uphill))


def test_what_counts_steps_stands_inside_an_accumulation() -> None:
    text = r"^ema_params: inner holds accumulate\(inner=sgd\(learning_rate=1.0\), every_k=4\), whose updates are zero between its steps, "
    text += r"but ema_params takes every call for a step\. Put it inside: accumulate\(ema_params\(inner\), every_k\)\.$"
    sgd = gradtx.sgd(1.0)
    with pytest.raises(ValueError, match=text):
        gradtx.ema_params(gradtx.masked(gradtx.accumulate(sgd, 4), True), 0.5)
    with pytest.raises(
        ValueError, match=r"^lookahead: fast_optimizer holds MultiSteps\(opt=sgd\(.*\), every_k_schedule=2\), whose"
    ):
        gradtx.optax.lookahead(gradtx.chain(MultiSteps(sgd, 2)), 2, 0.5)
    with pytest.raises(ValueError, match=r"^swa: inner holds accumulate"):
        gradtx.swa(gradtx.inject_hyperparams(gradtx.accumulate, static_args="every_k")(sgd, every_k=2))
    for held in (gradtx.accumulate(sgd, 1), MultiSteps(sgd, 1), gradtx.chain(sgd, gradtx.apply_every(1))):
        assert gradtx.ema_params(held, 0.5).init(jnp.zeros(2))  # each call is a step
    for multi in (MultiSteps(gradtx.swa(sgd), 2), MultiSteps(gradtx.swa(sgd), 2).gradient_transformation()):
        with pytest.raises(ValueError, match="the updates of swa must be applied as they are"):
            gradtx.chain(multi, gradtx.scale(0.5))


@pytest.mark.parametrize("accumulated", [lambda tx: gradtx.accumulate(tx, 4), lambda tx: MultiSteps(tx, 4)])
def test_inside_an_accumulation_averages_count_steps(accumulated: Callable[[Any], Any]) -> None:
    tx, p = accumulated(gradtx.ema_params(gradtx.sgd(1.0), 0.5)), jnp.zeros(())
    state = tx.init(p)
    for _ in range(8):
        updates, state = tx.update(jnp.ones(()), state, p)
        p = gradtx.apply_updates(p, updates)
    assert float(gradtx.eval_params(state, p)) == pytest.approx(-(0.25 * 1 + 0.5 * 2) / 0.75)  # after steps 1 and 2


def test_injected_hyperparameters_hide_nothing() -> None:
    sgd = gradtx.sgd(0.1)
    for make in (gradtx.sam_wrapper, gradtx.gsam):
        tx = gradtx.masked(gradtx.inject_hyperparams(make)(sgd, rho=0.1), True)
        with pytest.raises(ValueError, match="which calls grad_fn: it would see the last microbatch alone"):
            gradtx.accumulate(tx, 2)
        with pytest.raises(TypeError, match=r"unknown extra argument `gradfn`\. Did you mean 'grad_fn'\?"):
            tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2), gradfn=gradient)
    for tx in (gradtx.inject_hyperparams(gradtx.ema_params)(sgd, 0.9), gradtx.inject_hyperparams(gradtx.schedule_free_sgd)(0.1)):
        with pytest.raises(ValueError, match="must be applied as they are"):
            gradtx.chain(tx, gradtx.scale(0.5))
        with pytest.raises(ValueError, match="must be applied as they are"):
            gradtx.cautious(tx)


@SOME
def test_in_a_partition_and_under_vmap(names: tuple[str, ...]) -> None:
    params, rates = {"a": jnp.ones(3), "b": jnp.full((2, 2), 2.0)}, jnp.array([0.1, 0.2])

    def last(tx: Any, params: Any) -> Any:
        """The parameters after three steps."""

        def step(carry: Any, _: None) -> Any:
            p, s = carry
            u, s = tx.update(gradient(p), s, p, grad_fn=gradient, value=1.0)
            return (gradtx.apply_updates(p, u), s), None

        return jax.lax.scan(step, (params, tx.init(params)), None, length=3)[0][0]

    @jax.jit
    def run(params: Any, rates: Any) -> Any:
        sgd, found = last(gradtx.sgd(0.1), {"b": params["b"]}), {}
        for name in names:
            make, _ = WRAPPERS[name]
            tx = make(gradtx.adam(0.1))
            both = gradtx.partition({"x": tx, "y": gradtx.sgd(0.1)}, {"a": "x", "b": "y"})
            one = lambda rate, make=make: last(make(gradtx.sgd(rate)), params)  # noqa: E731
            alone = last(tx, {"a": params["a"]}) | sgd
            found[name] = last(both, params), alone, jax.vmap(one)(rates), tree(lambda *us: jnp.stack(us), *map(one, rates))
        return found

    for name, (whole, alone, together, singly) in run(params, rates).items():
        for leaf in params:
            np.testing.assert_allclose(whole[leaf], alone[leaf], rtol=1e-6, err_msg=f"{name} in a partition")
            np.testing.assert_allclose(together[leaf], singly[leaf], rtol=1e-6, err_msg=f"{name} under vmap")
            assert float(jnp.max(jnp.abs(together[leaf][0] - together[leaf][1]))) > 1e-3, name


SHARDED = """
import sys, jax, jax.numpy as jnp, numpy as np, gradtx
sys.path[:0] = [{here!r}, {tests!r}]
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from test_pairs import WRAPPERS, gradient
params = {{"w": jax.random.normal(jax.random.key(0), (8, 4)), "b": jnp.linspace(-1.0, 1.0, 8)}}
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    for name, (make, _) in WRAPPERS.items():
        tx = make(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)))
        def run(p):
            s = tx.init(p)
            for _ in range(3):
                u, s = tx.update(gradient(p), s, p, grad_fn=gradient, value=1.0)
                p = gradtx.apply_updates(p, u)
            return p
        alone = jax.jit(run)(params)
        with jax.set_mesh(mesh):
            found = jax.jit(run)(jax.device_put(params, NamedSharding(mesh, P("x"))))
        for leaf in params:
            np.testing.assert_allclose(found[leaf], alone[leaf], rtol=1e-5, atol=1e-6, err_msg=name)
            assert kind == AxisType.Auto or found[leaf].sharding.spec[0] == "x", name
print("equal")
"""


@pytest.mark.slow
def test_sharded_over_eight_devices() -> None:
    here = pathlib.Path(__file__).parent
    code = SHARDED.format(here=str(here), tests=str(here.parent))
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "equal", done.stderr[-3000:]
