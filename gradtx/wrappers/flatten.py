"""All leaves as one vector, or complex leaves as pairs of real ones, for the optimizer inside."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.numerics import common_dtype, promote
from gradtx.core.pairs import Inner
from gradtx.core.sharding import gathered, placed_like
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import ExtraArg, Leaf, Params, State, Tree, Updates


def _vector(tree: Tree) -> jax.Array:
    """All elements side by side, in at least float32, whole on every device."""
    leaves = [gathered(promote(x)).reshape(-1) for x in jax.tree.leaves(tree)]
    if not leaves:
        return jnp.zeros((0,))
    dtype = common_dtype(*leaves)
    return jnp.concatenate([x.astype(dtype) for x in leaves])


def _leaves_of(vector: jax.Array, like: Tree) -> Tree:
    """The tree whose elements these are."""
    leaves, treedef = jax.tree.flatten(like)
    ends = np.cumsum([math.prod(np.shape(x)) for x in leaves])
    parts = jnp.split(vector, ends[:-1]) if leaves else []

    def shaped(part: jax.Array, leaf: Leaf) -> jax.Array:
        part = part if jnp.iscomplexobj(leaf) else part.real
        return placed_like(part.reshape(np.shape(leaf)), leaf)

    return treedef.unflatten(map(shaped, parts, leaves))


class flatten(Transformation):
    """Hands all leaves to the optimizer inside as one vector.

    With many small leaves a step is then a few long loops; on a mesh the vector lies whole on every
    device. The optimizer inside sees one leaf: no names, no matrices. Every extra argument reaches
    it as it is.

    Args:
      inner: the transformation to wrap.

    State: that of `inner` for one vector.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> tx, params = optax.flatten(optax.adam(0.1)), {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
      >>> tx.init(params)[0].mu.shape
      (9,)

    **Differs:** Optax has no empty trees here, and hands half-precision parameters on as they are.
    """

    inner: Inner

    @property
    def inside(self) -> tuple[Transformation, ...]:
        return (self.inner,)

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        return (Part(self.inner, _seen(_vector, params), state),)

    def undone(self, before: State, after: State) -> State:
        return self.inner.undone(before, after)

    def init(self, params: Params) -> State:
        return self.inner.init(_vector(params))

    def step(self, updates: Updates, state: State, params: Params | None = None, **extra_args: ExtraArg) -> tuple[Updates, State]:
        vector = None if params is None else _vector(params)
        moves, after = self.inner.advance(_vector(updates), state, vector, extra_args)
        return _leaves_of(moves, updates), after


class SplitRealAndImaginaryArrays(NamedTuple):
    """What stands in the place of a complex leaf."""

    real: jax.Array
    imaginary: jax.Array


class SplitRealAndImaginaryState(NamedTuple):
    """The wrapped transformation's state."""

    inner_state: State


def _split(tree: Tree) -> Tree:
    """Complex leaves as pairs."""
    return jax.tree.map(lambda x: SplitRealAndImaginaryArrays(jnp.real(x), jnp.imag(x)) if jnp.iscomplexobj(x) else x, tree)


def _is_pair(x: Tree) -> bool:
    return isinstance(x, SplitRealAndImaginaryArrays)


def _merged(tree: Tree) -> Tree:
    """Pairs as complex leaves."""
    return jax.tree.map(lambda x: jax.lax.complex(*x) if _is_pair(x) else x, tree, is_leaf=_is_pair)


class split_real_and_imaginary(Transformation):
    """Hands real and imaginary parts of complex leaves to the optimizer inside as leaves apart.

    So Adam, which scales a complex parameter by one root of `v = E|g|^2`, scales each part by its
    own. Real leaves pass unchanged. In a training loop, conjugate the gradients of `jax.grad`:
    those are `dL/dx - i dL/dy` for `z = x + iy`.

    Args:
      inner: the transformation to wrap.

    State: `SplitRealAndImaginaryState(inner_state)`, that of `inner` for pairs of real leaves.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> tx = optax.contrib.split_real_and_imaginary(optax.scale_by_sign())
      >>> tx.update(jnp.array([3 - 4j]), tx.init(jnp.array([0j])))[0]
      Array([1.-1.j], dtype=complex64)

    **Differs:** Optax drops extra arguments.
    """

    inner: Inner

    @property
    def inside(self) -> tuple[Transformation, ...]:
        return (self.inner,)

    def parts(self, params: Params, state: SplitRealAndImaginaryState) -> tuple[Part, ...]:
        return (Part(self.inner, _seen(_split, params), state.inner_state),)

    def undone(self, before: SplitRealAndImaginaryState, after: SplitRealAndImaginaryState) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(self.inner.undone(before.inner_state, after.inner_state))

    def init(self, params: Params) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(self.inner.init(_split(params)))

    def step(
        self, updates: Updates, state: SplitRealAndImaginaryState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, SplitRealAndImaginaryState]:
        parts = None if params is None else _split(params)
        moves, after = self.inner.advance(_split(updates), state.inner_state, parts, extra_args)
        return _merged(moves), SplitRealAndImaginaryState(after)


def _seen(function: object, params: Params) -> Params:
    """What the optimizer inside sees of parameters, which may be shapes alone."""
    return None if params is None else jax.eval_shape(function, params)  # type: ignore[arg-type]
