"""SAM as a gradient, in place of `jax.value_and_grad`: for loops without `grad_fn`, and m-SAM."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradtx.compose.groups import cut
from gradtx.core.checked import checked
from gradtx.core.domains import Flag, Function, NonNegative, PositiveInt
from gradtx.core.leaves import cast_like, each_leaf, zeros_like
from gradtx.core.types import Params, Tree, Updates
from gradtx.core.varying import scan
from gradtx.linalg.ascent import Exponent, ascent
from gradtx.tree.arithmetic import conj
from gradtx.wrappers.ascent import moved

EPS = 1e-12
"""The largest magnitude that counts as no gradient at all."""


@checked
def sam_value_and_grad(
    loss_fn: Function,
    rho: NonNegative = 0.05,
    p: Exponent = 2.0,
    *,
    has_aux: Flag = False,
    groups: PositiveInt | None = None,
) -> Callable[..., tuple[Tree, Updates]]:
    """`jax.value_and_grad` with SAM's gradient: at `w + e`, the worst point near the parameters.

    `e` is that of `sam_wrapper`. Any optimizer takes the gradient, with no extra argument, and so
    does Linen's `TrainState`:
    `loss, grads = gradtx.sam_value_and_grad(loss_fn)(state.params, batch)`, then
    `state.apply_gradients(grads=grads)`.

    With `groups` = m the leading axis of all positional arguments after the parameters is cut into
    m parts, each part has its own `e`, and the gradient is the mean over the parts: m-SAM, which
    many find to generalize better than one `e` for a large batch.

    Args:
      loss_fn: function from the parameters and further arguments to the loss, a mean over the
        batch; with `has_aux` to a pair `(loss, aux)`. Both evaluations get the same arguments, so
        the same random key, and the same batch.
      rho: radius in the p-norm, >= 0, in units of the parameters.
      p: which norm, in [1, inf].
      has_aux: whether `loss_fn` gives a pair. Batch statistics leave through `aux`: they move once,
        at the parameters themselves.
      groups: into how many parts the batch is cut; None is one. Parts are evaluated one after
        another (`lax.scan`).

    Returns:
      A function of the parameters and the further arguments that gives `(loss, gradient)`, or
      `((loss, aux), gradient)`. `loss` and `aux` are those at the parameters, without the
      perturbation; the gradient is in the parameters' dtypes, and for complex ones that of
      `jax.grad`: conjugate it for an optimizer. Under `groups`, `loss` is the mean and `aux` has a
      leading axis of length `groups`; scalars, scalar keys and keyword arguments are not cut but go
      to every part. A call costs two gradients of the batch.

    Raises:
      ValueError: `groups` does not divide the batch.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> loss_fn = lambda w, x: jnp.mean((x @ w) ** 2) / 2
      >>> w, x = jnp.array([3.0, 4.0]), jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> gradtx.sam_value_and_grad(loss_fn, rho=0.5)(w, x)  # half of w + e: a mean of two
      (Array(6.25, dtype=float32), Array([1.65, 2.2 ], dtype=float32))
      >>> gradtx.sam_value_and_grad(loss_fn, rho=0.5, groups=2)(w, x)[1]  # an axis for each row
      Array([1.75, 2.25], dtype=float32)

    Source: Foret et al. 2020, arXiv:2010.01412, section 4.1 (m-sharpness); there m is the size of a
    part, not their number.
    """
    evaluate = jax.value_and_grad(loss_fn, has_aux=has_aux)

    def at_worst(params: Params, *args: Tree, **kwargs: Tree) -> tuple[Tree, Updates]:
        value, gradient = evaluate(params, *args, **kwargs)
        worst = cast_like(moved(ascent(conj(gradient), rho, p, EPS), params), params)
        return value, evaluate(worst, *args, **kwargs)[1]

    if groups is None:
        return at_worst

    @each_leaf
    def add_part(total: jax.Array, g: jax.Array) -> jax.Array:
        return total + g / groups

    def by_group(params: Params, *args: Tree, **kwargs: Tree) -> tuple[Tree, Updates]:
        parts, whole_again = cut("sam_value_and_grad", "groups", args, groups)

        def one(total: Updates, part: Tree) -> tuple[Tree, Tree]:
            value, gradient = at_worst(params, *whole_again(part), **kwargs)
            return add_part(total, gradient), value

        total, values = scan(one, zeros_like(params), parts)
        loss = jnp.mean(values[0] if has_aux else values)
        return ((loss, values[1]) if has_aux else loss), cast_like(total, params)

    return by_group
