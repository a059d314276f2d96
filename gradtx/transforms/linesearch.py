"""What line searches share: the objective, points on a line, reuse of what a search evaluated."""

import inspect
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.core import checks
from gradtx.core.domains import INF, interval
from gradtx.core.leaves import cast_like, each_leaf, is_masked
from gradtx.core.numerics import common_dtype, compute_dtype, cond, real_dtype
from gradtx.core.paths import leaves_by_path, structure_difference
from gradtx.core.trees import raise_other_shape, require_params
from gradtx.core.types import DType, Extra, Params, Scalar, State, Tree, Updates
from gradtx.tree.lookup import get_all_with_path
from gradtx.tree.reductions import vdot

PositiveOrInf = Annotated[ArrayLike, interval(0, INF, "(]")]


def line_dtype(params: Params) -> Tree:
    """The real dtype of values and slopes: at least float32, as wide as the widest parameter."""
    return common_dtype(jnp.float32, *(real_dtype(compute_dtype(jnp.result_type(p))) for p in jax.tree.leaves(params)))


def slope_along(grad: Updates, updates: Updates, dtype: DType) -> jax.Array:
    """The derivative along `updates`: `Re sum(conj(grad) * updates)`.

    `grad` is the direction of steepest ascent.
    """
    return jnp.real(vdot(grad, updates)).astype(dtype)


def moved(params: Params, updates: Updates, step: jax.Array) -> Params:
    """`params + step * updates` in the parameters' dtypes: it goes to the caller's `value_fn`."""

    @each_leaf
    def rule(p: jax.Array, u: jax.Array) -> jax.Array:
        return p + step.astype(u.real.dtype) * u

    return cast_like(rule(params, updates), params)


def scaled(updates: Updates, step: jax.Array) -> Updates:
    """`step * updates`."""

    @each_leaf
    def rule(u: jax.Array) -> jax.Array:
        return step.astype(u.real.dtype) * u

    return rule(updates)


def miss(error: jax.Array) -> jax.Array:
    """By how much a condition is missed: 0 where it holds, inf where it cannot be told."""
    return jnp.where(jnp.isnan(error), jnp.inf, jnp.maximum(error, 0))


def ascent(grad: Updates) -> Updates:
    """`jax.grad`'s gradient as the direction of steepest ascent: the conjugate. Its own inverse."""
    return jax.tree.map(lambda g: jnp.conj(g) if jnp.iscomplexobj(g) else g, grad)


def checked_gradient(params: Params | None, value: Scalar, grad: Updates | None, value_fn: object) -> Updates:
    """`grad` in the structure of `params`, after a check that all four are there and fit."""
    given = {"value": value, "grad": grad, "value_fn": value_fn}
    missing = [f"`{name}`" for name, argument in given.items() if argument is None]
    if missing:
        raise checks.WrongType(
            f"missing extra argument{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            "call tx.update(grad, state, params, value=value, grad=grad, value_fn=fn), "
            "with value, grad = jax.value_and_grad(fn)(params)."
        )
    require_params(params)
    if not callable(value_fn):
        raise checks.WrongType(f"value_fn is {checks.kind(value_fn)}, expected a function from parameters to a number.")
    if np.shape(value) != ():
        raise checks.WrongValue(f"value is {checks.kind(value)}, expected a scalar, value_fn(params).")
    grads, treedef = leaves_by_path(grad), jax.tree.structure(params)
    if list(grads) != list(leaves_by_path(params)):
        raise checks.WrongValue(f"{structure_difference('grad', grad, 'params', params)}.{_masked_hint(params)}")
    # Flax NNX passes pure arrays as params, but extra arguments as they are.
    grad = treedef.unflatten(grads.values())
    if any(np.shape(g) != np.shape(p) for g, p in zip(jax.tree.leaves(grad), jax.tree.leaves(params), strict=True)):
        raise_other_shape(grad, params, "params", scalars=False, own="grad")
    return grad


def _masked_hint(params: Params) -> str:
    if not any(map(is_masked, jax.tree.leaves(params, is_leaf=is_masked))):
        return ""
    return (
        " Some parameters are masked out, and value_fn needs them all: gradtx.masked and gradtx.partition hold them "
        "where they are, Optax's do not."
    )


def bind_value_fn(value_fn: Callable[..., Tree], extra_args: Extra, has_aux: bool) -> Callable[[Params], jax.Array]:
    """`value_fn` of the parameters alone; it gets the extra arguments that it takes by name."""
    named, takes_all = _parameters(value_fn)
    for name in extra_args:
        if name not in named and not takes_all and (hint := checks.did_you_mean(name, named - extra_args.keys())):
            raise checks.WrongType(f"value_fn takes no argument `{name}`.{hint}")
    arguments = {name: x for name, x in extra_args.items() if takes_all or name in named}

    def fn(params: Params) -> jax.Array:
        out = value_fn(params, **arguments)
        if has_aux and not (isinstance(out, tuple) and len(out) == 2):
            raise checks.WrongType(f"value_fn gives {checks.kind(out)}, expected (value, aux), since has_aux is set.")
        if not has_aux and isinstance(out, tuple):
            raise checks.WrongType("value_fn gives a tuple, expected a number; set has_aux=True if it is (value, aux).")
        value = jnp.asarray(out[0] if has_aux else out)
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise checks.WrongType(f"value_fn gives {checks.kind(value)}, expected a real scalar.")
        return value

    return fn


def _parameters(function: Callable[..., object]) -> tuple[set[str], bool]:
    """The arguments that a function takes by name, and whether it takes any name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin, say
        return set(), False
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}, any(
        p.kind is p.VAR_KEYWORD for p in parameters
    )


def value_and_grad_from_state(value_fn: Callable[..., Tree], *, has_aux: bool = False) -> Callable[..., tuple[Tree, Updates]]:
    """`jax.value_and_grad` that takes value and gradient from a line search's state.

    Before the first step, and where the state's value is not finite, it evaluates the function. Use
    it for one objective, with a line search that is the last link of its chain: the state keeps
    value and gradient at the point that the search chose. `scale_by_zoom_linesearch` keeps both,
    `scale_by_backtracking_linesearch` does with `store_grad`.

    Args:
      value_fn: function from parameters to a number.
      has_aux: whether it gives `(value, aux)`; `aux` then costs one evaluation without gradient.

    Returns:
      Function `(params, *args, state, **kwargs) -> (value, grad)`, or `((value, aux), grad)`; the
      other arguments go to `value_fn`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> fn = lambda x: jnp.sum((x - 1.0) ** 2)
      >>> tx, params = gradtx.lbfgs(), jnp.array([3.0, 4.0])
      >>> state, value_and_grad = tx.init(params), gradtx.value_and_grad_from_state(fn)
      >>> for _ in range(3):
      ...     value, grad = value_and_grad(params, state=state)
      ...     updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=fn)
      ...     params = gradtx.apply_updates(params, updates)
      >>> params.round(4), float(value.round(4))
      (Array([1., 1.], dtype=float32), 0.0)

    **Differs:** Optax has no `has_aux`.
    """

    def value_and_grad(params: Params, *args: Tree, state: State, **kwargs: Tree) -> tuple[Tree, Updates]:
        value, grad = (_found(state, name) for name in ("value", "grad"))

        def evaluate() -> tuple[Tree, Updates]:
            return jax.value_and_grad(value_fn, has_aux=has_aux)(params, *args, **kwargs)

        def reuse() -> tuple[Tree, Updates]:
            like_value, like_grad = jax.eval_shape(evaluate)
            known = value.astype((like_value[0] if has_aux else like_value).dtype)
            kept = jax.tree.map(lambda g, like: g.astype(like.dtype), grad, like_grad)
            return (known, value_fn(params, *args, **kwargs)[1]) if has_aux else known, kept

        return cond(jnp.isfinite(value), reuse, evaluate)

    return value_and_grad


def _found(state: State, name: str) -> Tree:
    found = [value for _, value in get_all_with_path(state, name) if value is not None]
    if len(found) != 1:
        raise ValueError(
            f"value_and_grad_from_state: `{name}` is found {len(found)} times in the state, expected once. Line searches keep it: "
            "scale_by_zoom_linesearch, and scale_by_backtracking_linesearch with store_grad=True."
        )
    return found[0]
