"""Arithmetic done a second time, so that what a reduction reads need not be stored for later."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr

from gradtx.core.numerics import is_tracer
from gradtx.core.trees import is_inexact
from gradtx.core.types import Tree

if TYPE_CHECKING:  # it would import Pallas, a fifth of the time of `import gradtx`
    from jax.extend.core import JaxprEqn

ELEMENTWISE = {
    *("abs", "add", "and", "broadcast_in_dim", "complex", "conj", "convert_element_type", "copy", "div", "eq", "exp", "exp2"),
    *("expm1", "ge", "gt", "imag", "integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne"),
    *("neg", "not", "or", "pow", "real", "reduce_precision", "reshape", "rsqrt", "select_n", "sign", "sqrt", "square", "sub"),
    *("bitcast_convert_type", "shift_left", "shift_right_arithmetic", "shift_right_logical", "tanh", "xor"),
}
"""Operations that cost less than to store what they give. Every other one is done once."""


def after_check(run: Callable[..., Tree], check: Callable[[Tree], jax.Array], *args: Tree) -> tuple[Tree, jax.Array]:
    """`run(updates, ...)`, and `check` of it, a boolean that decides what becomes of it."""
    results, again = twice(run, *args)
    good = check(results)
    return again(), good


def twice(run: Callable[..., Tree], *args: Tree) -> tuple[Tree, Callable[[], Tree]]:
    """`run(updates, ...)`, and a function that gives the same once more.

    XLA stores large trees between the pass that reduces them and the one that uses the result, and
    reads and writes more than the arithmetic behind them costs. So under `jit` the second gives the
    same by elementwise arithmetic, done anew from the same arguments; reductions, products and
    loops are not.
    """
    leaves = jax.tree.leaves(args)
    if not any(map(is_tracer, leaves)):
        results = run(*args)
        return results, lambda: results
    closed, shapes = jax.make_jaxpr(run, return_shape=True)(*args)
    program, structure = closed.jaxpr, jax.tree.structure(shapes)
    kept = [x for equation in program.eqns if not _is_elementwise(equation) for x in equation.outvars]
    cheap = list(filter(_is_elementwise, program.eqns))
    first = program.replace(outvars=[*program.outvars, *kept])
    second = program.replace(invars=[*program.invars, *kept], eqns=cheap)
    results = eval_jaxpr(first, closed.consts, *leaves)
    count = len(program.outvars)

    def again() -> Tree:
        # Behind a condition that holds, which XLA cannot see, it is other arithmetic.
        holds = jax.lax.optimization_barrier(jnp.asarray(True))
        updates = [jnp.where(holds, x, jnp.zeros_like(x)) if is_inexact(x) else x for x in jax.tree.leaves(args[0])]
        others = leaves[len(updates) :]
        return structure.unflatten(eval_jaxpr(second, closed.consts, *updates, *others, *results[count:]))

    return structure.unflatten(results[:count]), again


def _is_elementwise(equation: "JaxprEqn") -> bool:
    name = equation.primitive.name
    return all(map(_is_elementwise, equation.params["jaxpr"].eqns)) if name in ("jit", "pjit") else name in ELEMENTWISE
