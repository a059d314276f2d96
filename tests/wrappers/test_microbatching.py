"""Microbatches in Optax's form give what Optax gives, and what the whole batch gives."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

import gradtx.optax as ours

KINDS = ("MEAN", "SUM", "RUNNING_MEAN", "CONCAT")
BATCH = jnp.sin(jnp.arange(24.0)).reshape(8, 3)
WEIGHTS = jnp.array([0.5, -1.0, 2.0])


def close(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), tuple(a), tuple(b))


def sums_and_rows(x: Any, *, y: Any) -> Any:
    return {"rows": x + 1, "sum": jnp.sum(x * y)}


@pytest.mark.parametrize("size", [1, 2, 8, None])
def test_outputs_summed_and_joined(size: int | None) -> None:
    found = []
    for lib in (ours, optax):
        kinds = lib.microbatching.AccumulationType
        split = lib.microbatch(sums_and_rows, 0, size, {"sum": kinds.SUM, "rows": kinds.CONCAT}, argnames="y")
        found.append(jax.jit(split)(BATCH, y=2 * BATCH))
    close(found[0].values(), found[1].values())
    close(found[0].values(), sums_and_rows(BATCH, y=2 * BATCH).values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("real", [None, 2])
def test_every_accumulator(kind: str, real: int | None) -> None:
    found = [
        lib.microbatch(
            lambda x: (x.mean(axis=0), x[0]), 0, 2, getattr(lib.microbatching.AccumulationType, kind), num_real_microbatches=real
        )(BATCH)
        for lib in (ours, optax)
    ]
    close(*found)


def test_an_axis_of_ones_own_and_an_accumulator_of_ones_own() -> None:
    found = []
    for lib in (ours, optax):
        largest = lib.microbatching.Accumulator(
            lambda s: jnp.full(s.shape, -jnp.inf), lambda c, v, i: jnp.maximum(c, v), lambda c: 2 * c, lambda v: v.max(axis=0)
        )
        found.append(lib.microbatch(jnp.max, 0, 4, largest, in_axes=1)(BATCH.T))
    close(found[:1], found[1:])
    np.testing.assert_allclose(found[0], 2 * BATCH.max())


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_vmap(kind: str, size: int | None) -> None:
    found = []
    for lib in (ours, optax):
        rule = getattr(lib.microbatching.AccumulationType, kind)
        found.append(
            lib.microbatching.micro_vmap(lambda w, x, *, k: (w @ x * k).sum(), (None, 0), microbatch_size=size, accumulator=rule)(
                WEIGHTS, BATCH, k=jnp.arange(8.0)
            )
        )
    close(found[:1], found[1:])


@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("keep", [True, False])
def test_gradients_of_examples(size: int | None, keep: bool) -> None:
    def loss(w: Any, x: Any, y: Any) -> Any:
        return jnp.mean((x @ w - y) ** 2), {"fit": jnp.sum(x @ w)}

    found = []
    for lib in (ours, optax):
        grads, each = lib.microbatching.micro_grad(
            loss,
            has_aux=True,
            batch_argnums=(1, 2),
            keep_batch_dim=keep,
            microbatch_size=size,
            accumulator=lib.microbatching.AccumulationType.MEAN,
            transform_fn=lambda g: (g, g**2),
            metrics_fn=jnp.linalg.norm,
        )(WEIGHTS, BATCH, jnp.arange(8.0))
        found.append([*grads, each.values, each.metrics, each.aux["fit"]])
    close(*found)
    assert found[0][2].shape == (8,)


def test_reshaped_as_in_optax() -> None:
    for axis, size in ((0, 2), (1, 3)):
        np.testing.assert_array_equal(*[lib.microbatching.reshape_batch_axis(BATCH, size, axis) for lib in (ours, optax)])


def test_a_sharded_batch_stays_where_it_lies() -> None:
    """Each device has as many examples of every microbatch. Types say so, on a mesh without devices."""
    mesh = AbstractMesh((4,), ("x",), axis_types=(AxisType.Explicit,))
    batch = jax.ShapeDtypeStruct((16, 3), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("x", None)))
    joined = ours.microbatch(lambda x: 2 * x, 0, 8, ours.microbatching.AccumulationType.CONCAT)
    seen = []

    def run(x: Any) -> Any:
        seen.extend(jax.typeof(y).sharding.spec for y in (ours.microbatching.reshape_batch_axis(x, 8), joined(x)))
        return x

    with jax.sharding.use_abstract_mesh(mesh):
        jax.eval_shape(run, batch)
    assert [tuple(spec) for spec in seen] == [(None, "x", None), ("x", None)]


def test_half_precision_is_summed_in_float32() -> None:
    ones = jnp.ones(1024, jnp.bfloat16)
    assert float(ours.microbatch(jnp.sum, 0, 1)(ones)) == 1024
    assert float(optax.microbatch(jnp.sum, 0, 1)(ones)) == 256


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: ours.microbatch(jnp.sum, 0, 3)(BATCH),
            ValueError,
            "microbatch_size is 3, expected a divisor of the batch's 8 examples",
        ),
        (
            lambda: ours.microbatch(lambda x, y: 0.0, (0, 1), 2)(BATCH, BATCH[:4]),
            ValueError,
            r"batch axes have the sizes \[4, 8\], expected one size",
        ),
        (
            lambda: ours.microbatch(jnp.sum, 0, 2, ours.microbatching.AccumulationType.MEAN)(jnp.arange(4)),
            TypeError,
            "the accumulator is MEAN, but an output is no floating array",
        ),
        (lambda: ours.microbatch(jnp.sum, 0, 2, "sum")(BATCH), TypeError, "accumulator is 'sum' .*, expected an Accumulator"),
    ],
)
def test_errors(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
