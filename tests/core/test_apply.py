"""From updates to parameters: sums in float32, stored as the parameters are; nothing broadcasts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def test_sums() -> None:
    params = {"w": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0), "n": None}
    new = gradtx.apply_updates(params, {"w": jnp.asarray([0.5, -0.5]), "b": np.float32(1.0), "n": None})
    np.testing.assert_array_equal(new["w"], [1.5, 1.5])
    assert float(new["b"]) == 4.0
    assert new["n"] is None


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("update_dtype", [jnp.float32, jnp.bfloat16])
def test_narrow_parameters_are_rounded_once(dtype: Any, update_dtype: Any) -> None:
    p, u = jnp.asarray([1.0, 3.0, -0.3], dtype), jnp.asarray([3e-3, 0.011, 1e-4], update_dtype)
    new = gradtx.apply_updates({"w": p}, {"w": u})["w"]
    assert new.dtype == dtype
    np.testing.assert_array_equal(new, (p.astype(jnp.float32) + u.astype(jnp.float32)).astype(dtype))


def test_parameters_keep_their_dtype() -> None:
    params = {"h": jnp.ones(1, jnp.bfloat16), "f": jnp.ones(1), "c": jnp.ones(1, jnp.complex64)}
    new = gradtx.apply_updates(params, {"h": jnp.ones(1), "f": jnp.ones(1, jnp.float16), "c": 1j * jnp.ones(1)})
    assert {k: x.dtype.name for k, x in new.items()} == {"h": "bfloat16", "f": "float32", "c": "complex64"}
    assert complex(new["c"][0]) == 1 + 1j


def test_nothing_to_add_leaves_the_parameter_itself() -> None:
    """None is an update of a frozen leaf, float0 the gradient of an integer one."""
    params = {"w": jnp.ones(2), "n": jnp.asarray(3)}
    assert gradtx.apply_updates(params, {"w": None, "n": None}) == params
    grads = jax.grad(lambda p: jnp.sum(p["w"] ** 2), allow_int=True)(params)
    new = gradtx.apply_updates(params, grads)
    assert new["n"] is params["n"]
    np.testing.assert_array_equal(new["w"], [3.0, 3.0])


def test_under_jit_and_vmap() -> None:
    params, updates = jnp.arange(6.0).reshape(3, 2), jnp.ones((3, 2))
    np.testing.assert_array_equal(jax.jit(gradtx.apply_updates)(params, updates), params + 1)
    np.testing.assert_array_equal(jax.vmap(gradtx.apply_updates)(params, updates), params + 1)


@pytest.mark.parametrize("apply", [gradtx.apply_updates, lambda p, u: gradtx.incremental_update(p, u, 0.5)], ids=["add", "mix"])
@pytest.mark.parametrize(
    ("params", "updates", "text"),
    [
        (
            {"w": jnp.ones(2)},
            {"w": jnp.ones((3, 2))},
            "{updates} leaf `w` has shape (3, 2), but {params} has (2,) there; shapes must be equal, nothing is broadcast.",
        ),
        (
            {"w": jnp.ones((3, 2))},
            {"w": jnp.ones(2)},
            "{updates} leaf `w` has shape (2,), but {params} has (3, 2) there; shapes must be equal, nothing is broadcast.",
        ),
        (
            {"w": jnp.ones(2), "v": jnp.ones(2)},
            {"w": jnp.ones(()), "v": jnp.ones(2)},
            "{updates} leaf `w` has shape (), but {params} has (2,) there; shapes must be equal, nothing is broadcast.",
        ),
        (
            {"w": jnp.ones(2)},
            {"w": jnp.ones(2), "v": jnp.ones(2)},
            "{updates} and {params} differ in structure: `v` is only in {updates}.",
        ),
        (
            {"w": jnp.ones(2), "v": [jnp.ones(2)]},
            {"w": jnp.ones(2)},
            "{updates} and {params} differ in structure: `v/0` is only in {params}.",
        ),
        (
            [jnp.ones(2)],
            (jnp.ones(2),),
            "{updates} and {params} differ in structure: `(root)` is a tuple in one, a list in the other.",
        ),
    ],
)  # fmt: skip
def test_trees_that_differ(apply: Any, params: Any, updates: Any, text: str) -> None:
    name, *names = ("apply_updates", "params", "updates")
    if apply is not gradtx.apply_updates:
        name, *names = ("incremental_update", "new_tensors", "old_tensors")
    with pytest.raises(ValueError, match=r"differ in structure|nothing is broadcast") as error:
        apply(params, updates)
    assert str(error.value) == f"{name}: {text}".format(params=names[0], updates=names[1])


@pytest.mark.parametrize("step_size", [0.25, jnp.asarray(0.25), np.float64(0.25)])
def test_polyak_average(step_size: Any) -> None:
    new, old = {"w": jnp.asarray([4.0, 8.0], jnp.bfloat16)}, {"w": jnp.asarray([0.0, 4.0])}
    out = gradtx.incremental_update(new, old, step_size)
    assert out["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(out["w"].astype(jnp.float32), [1.0, 5.0])


def test_polyak_average_at_its_ends() -> None:
    new, old = jnp.asarray([4.0]), jnp.asarray([0.1])
    assert float(gradtx.incremental_update(new, old, 1.0)[0]) == 4.0
    assert gradtx.incremental_update(new, old, 0.0)[0] == old[0]


def test_periodic_update_under_jit() -> None:
    new, old = {"w": jnp.ones(2)}, {"w": jnp.zeros(2)}
    update = jax.jit(gradtx.periodic_update)
    assert [float(update(new, old, step, 3)["w"][0]) for step in range(7)] == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
