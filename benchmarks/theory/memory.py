"""What methods keep and compute: Adam two numbers a parameter, Muon and NovoGrad about one; SAM two gradients a step."""

from typing import Any

import jax
import jax.numpy as jnp

import gradtx
from benchmarks.theory import harness
from benchmarks.theory.harness import Number, near

SMALL: dict[str, Any] = {}
PARAMS = {"layer": {"kernel": jax.ShapeDtypeStruct((512, 512), jnp.float32)}}


def floats(tx: Any) -> float:
    """Numbers of state for each parameter."""
    state = jax.eval_shape(tx.init, PARAMS)
    return sum(leaf.size for leaf in jax.tree.leaves(state)) / sum(leaf.size for leaf in jax.tree.leaves(PARAMS))


def gradients(tx: Any, steps: int = 10) -> float:
    """Gradients a step, counted where they are taken."""
    params, taken = jnp.ones(2), 0

    def gradient(x: jax.Array) -> jax.Array:
        nonlocal taken
        taken += 1
        return 2 * x

    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(gradient(params), state, params, grad_fn=gradient)
        params = gradtx.apply_updates(params, updates)
    return taken / steps


def measure() -> Any:
    states = {
        "sgd": (gradtx.sgd(0.1), 0.0),
        "sgd_momentum": (gradtx.sgd(0.1, 0.9), 1.0),
        "adam": (gradtx.adam(0.1), 2.0),
        "novograd": (gradtx.novograd(0.1), 1.0),
        "muon": (gradtx.muon(0.1), 1.0),
        "lion": (gradtx.lion(0.1), 1.0),
    }
    numbers = {f"state_{name}": near(floats(tx), expected, 1e-3) for name, (tx, expected) in states.items()}
    kept = {name: n.value for name, n in numbers.items()}
    numbers["novograd_over_adam"] = near(kept["state_novograd"] / kept["state_adam"], 0.5, 1e-3)
    numbers["gradients_sgd"] = Number(gradients(gradtx.sgd(0.1)), 1, 1)
    with jax.disable_jit():  # so that each gradient taken runs the Python function
        numbers["gradients_sam"] = Number(gradients(gradtx.sam_wrapper(gradtx.sgd(0.1)), 3), 2, 2)
    return harness.Measured(numbers, {name.removeprefix("state_"): value for name, value in kept.items()})


def draw(curves: Any) -> Any:
    figure, ax = harness.picture()
    ax.barh(list(curves), list(curves.values()), color=harness.COLORS[0])
    ax.set(xlabel="numbers of state for each parameter")
    return figure


if __name__ == "__main__":
    harness.run(__file__, __doc__, measure, draw)
