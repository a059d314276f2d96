"""SM3: AdaGrad whose sums are kept for each row, column, ... of a leaf alone."""

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Fraction, NonNegative, Rate
from gradtx.core.leaves import zeros_like
from gradtx.core.numerics import abs_sq, promote, running_mean
from gradtx.core.transformation import Transformation
from gradtx.core.trees import raise_unlike
from gradtx.core.types import ExtraArg, Moment, Params, Tree, Updates
from gradtx.transforms.scaling import scale_by_learning_rate


class ScaleBySM3State(NamedTuple):
    """For each leaf a list of sums, one array an axis; and the momentum."""

    mu: Tree
    nu: Moment


def _others(ndim: int, axis: int) -> tuple[int, ...]:
    """All axes but one; none of a vector, whose sums are its elements' own."""
    return tuple(i for i in range(ndim) if i != axis)


def _axes(x: jax.Array) -> range:
    """The axes with sums; a scalar has one sum too."""
    return range(max(x.ndim, 1))


class scale_by_sm3(Transformation, keeps_zero=True):
    """SM3-II's direction: `m = b1*m + (1-b1) * g / sqrt(v + eps)`, 0 where `v` is 0.

    `v = |g|^2 + min(sums of its row, of its column, ...)`, and the new sum of a row is the largest
    `v` in it: no smaller than the row's largest sum of squares. A matrix of `n` times `m` costs
    `n + m` numbers beside the momentum.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: weight of the sums, in [0, 1]; below 1 they are running means, and `|g|^2` has the weight
        `1 - b2`.
      eps: added inside the root, >= 0; in units of the gradient squared.

    State: `ScaleBySM3State(mu, nu)`; 4 bytes a parameter, and 4 a row, a column, ...

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_sm3(b1=0.0)
      >>> grads = jnp.array([[0.0, 3.0], [4.0, 0.0]])
      >>> updates, state = tx.update(grads, tx.init(grads))
      >>> updates.round(3).tolist(), [sums.tolist() for sums in state.mu]
      ([[0.0, 1.0], [1.0, 0.0]], [[9.0, 16.0], [16.0, 9.0]])

    Source: Anil et al. 2019, arXiv:1901.11150, algorithm SM3-II; momentum and `eps` as in Optax.

    **Differs:** Optax has no scalars and no complex parameters here, and keeps states of
    half-precision parameters in half precision.
    """

    b1: Decay = 0.9
    b2: Fraction = 1.0
    eps: NonNegative = 1e-8

    def init(self, params: Params) -> ScaleBySM3State:
        def sums(p: jax.Array) -> list[jax.Array]:
            square = jnp.zeros_like(abs_sq(promote(p)))
            return [jnp.sum(square, axis=_others(square.ndim, axis)) for axis in _axes(square)]

        return ScaleBySM3State(jax.tree.map(sums, params), zeros_like(params))

    def step(
        self, updates: Updates, state: ScaleBySM3State, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleBySM3State]:
        leaves, treedef = jax.tree.flatten(updates)
        if treedef != jax.tree.structure(state.nu):
            raise_unlike(updates, state.nu)
        rows = zip(leaves, treedef.flatten_up_to(state.mu), jax.tree.leaves(state.nu), strict=True)
        results = [self.of_leaf(*row) for row in rows]
        sums, momenta = (treedef.unflatten(column) for column in (zip(*results, strict=True) if results else [()] * 2))
        return momenta, ScaleBySM3State(sums, momenta)

    def of_leaf(self, g: jax.Array, sums: list[jax.Array], m: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        """The rule for one leaf: new sums, and the new momentum."""
        g = promote(g)
        wide = [jnp.expand_dims(s, _others(g.ndim, axis)) for axis, s in enumerate(sums)]
        v = self.weight_of_new() * abs_sq(g) + self.b2 * reduce(jnp.minimum, wide)
        zero = v == 0  # not `> 0`, which would turn a NaN into a silent 0
        u = jnp.where(zero, 0, g / jnp.sqrt(jnp.where(zero, 1, v) + self.eps))
        m = running_mean(m.astype(g.dtype), u, self.b1)
        return [jnp.max(v, axis=_others(g.ndim, axis), initial=0) for axis in _axes(g)], m

    def weight_of_new(self) -> jax.Array | float:
        """The weight of `|g|^2`: 1 in a sum, the rest in a mean."""
        if isinstance(self.b2, (int, float)):
            return 1.0 if self.b2 == 1 else 1 - self.b2
        return jnp.where(jnp.asarray(self.b2) == 1, 1, 1 - self.b2)


class sm3(Preset):
    """SM3: `-learning_rate * m`; see `scale_by_sm3`.

    With `m = momentum*m + (1-momentum) * g / sqrt(v + 1e-8)`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter by about 1 at the first
        step, less and less after. Often 0.1.
      momentum: decay of the momentum, in [0, 1).

    State: `(ScaleBySM3State, ScaleByLearningRateState)`; 4 bytes a parameter, and 4 a row, a
      column, ...

    Example:
      >>> import gradtx
      >>> gradtx.sm3(0.1)
      sm3(learning_rate=0.1)

    Source: Anil et al. 2019, arXiv:1901.11150.
    """

    learning_rate: Rate
    momentum: Decay = 0.9

    def chain(self) -> Transformation:
        return chain(scale_by_sm3(self.momentum), scale_by_learning_rate(self.learning_rate))
