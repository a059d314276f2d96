"""A whole optimizer rounds half precision once, at its end: updates are the nearest numbers to those of float32."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

KERNELS = gradtx.by_path({"w": True}, default=False)
OPTIMIZERS = {
    "preset": gradtx.adamw(1e-3, weight_decay=0.1),
    "chain": gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.scale_by_adam(), gradtx.trace(0.9), gradtx.sgd(0.1)),
    "masked": gradtx.chain(gradtx.masked(gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(0.3)), KERNELS), gradtx.scale(-0.07)),
    "partition": gradtx.chain(gradtx.partition({True: gradtx.adam(0.1), False: gradtx.sgd(0.3, 0.9)}, KERNELS), gradtx.scale(0.7)),
    "conditional": gradtx.chain(gradtx.conditionally_transform(gradtx.scale(0.3), lambda step: step >= 0), gradtx.adam(0.1)),
    "guarded": gradtx.skip_nonfinite(gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(0.3), gradtx.scale(-0.07))),
    "cautious": gradtx.cautious(gradtx.chain(gradtx.scale_by_adam(), gradtx.scale(0.3), gradtx.scale(-0.07))),
}


@pytest.mark.parametrize(("name", "dtype"), [*((name, jnp.bfloat16) for name in OPTIMIZERS), ("preset", jnp.float16)])
def test_updates_are_rounded_once(name: str, dtype: Any) -> None:
    tx, keys = OPTIMIZERS[name], jax.random.split(jax.random.key(0), 6)
    params = {"w": jax.random.normal(keys[0], (40, 30)), "b": jax.random.normal(keys[1], (50,))}
    half = jax.tree.map(lambda x: x.astype(dtype), params)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    states = [tx.init(half), tx.init(wide)]
    for key in keys[2:]:
        grads = jax.tree.map(lambda x, key=key: jax.random.normal(key, x.shape).astype(dtype), params)
        rounded, states[0] = jax.jit(tx.update)(grads, states[0], half)
        exact, states[1] = jax.jit(tx.update)(jax.tree.map(lambda g: g.astype(jnp.float32), grads), states[1], wide)
        for ours, expected in zip(jax.tree.leaves(rounded), jax.tree.leaves(exact), strict=True):
            assert ours.dtype == dtype
            nearest = expected.astype(dtype)
            share = float(np.mean(np.asarray(ours == nearest)))  # sums in another order may tip a tie over
            assert share > 0.99, (name, share)
            np.testing.assert_allclose(ours.astype(jnp.float32), expected, rtol=float(jnp.finfo(dtype).eps), atol=1e-6)
