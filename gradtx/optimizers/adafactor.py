"""Adafactor: second moments of matrices kept as the means of their rows and columns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Flag, FloatDType, Function, Mask, NonNegative, Number, Positive, PositiveInt, Rate
from gradtx.core.numerics import abs_sq, default_float, guarded_ratio, promote, running_mean, safe_increment, zero_count
from gradtx.core.transformation import Transformation
from gradtx.core.trees import raise_unlike
from gradtx.core.types import ExtraArg, Params, Scalar, Tree, Updates
from gradtx.core.value import Value
from gradtx.transforms.clipping import clip_by_block_rms
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import ema
from gradtx.transforms.scaling import scale, scale_by_learning_rate, scale_by_param_block_rms


class _growing_decay(Value):
    """The paper's decay at a step: `1 - t^(-rate)`, `t = 1, 2, ...`, so 0 at the first."""

    def __call__(self, step: Scalar, rate: Scalar) -> jax.Array:
        return 1 - (jnp.asarray(step).astype(default_float()) + 1) ** -rate


class FactoredState(NamedTuple):
    """Steps taken; of factored leaves the means of rows and columns, of others the whole moment.

    What a leaf does not have is one zero, as in Optax.
    """

    count: jax.Array
    v_row: Tree
    v_col: Tree
    v: Tree


class scale_by_factored_rms(Transformation, keeps_zero=True):
    """Adafactor's direction: `g / sqrt(v)`, with `v_ij = r_i * c_j / mean(r)` for large matrices.

    `r` and `c` are the means over columns and rows of `w = d*w + (1-d)*(|g|^2 + epsilon)`, so that
    a matrix of `n` times `m` costs `n + m` numbers. The decay is `d = 1 - t^(-decay_rate)`,
    `t = 1, 2, ...`. Of a leaf of more axes the two largest make the matrix. Vectors, and leaves
    whose second largest axis is short, keep `v` whole.

    Args:
      factored: whether matrices are factored at all.
      decay_rate: how fast the decay grows, > 0.
      step_offset: steps before the decay starts to grow: the step at which fine-tuning begins,
        where the count goes on from an earlier run. Until then the decay is 0.
      min_dim_size_to_factor: least size of the second largest axis of a factored leaf, >= 1.
      epsilon: added to squared gradients, >= 0.
      decay_rate_fn: the decay as a function of the steps taken since `step_offset`, and of
        `decay_rate`; one with a bound keeps the moment from freezing.

    State: `FactoredState(count int32, v_row, v_col, v)`; 4 bytes a row and a column of factored
      leaves, 4 bytes a parameter of others.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_factored_rms(min_dim_size_to_factor=2)
      >>> params = jnp.zeros((2, 3))
      >>> updates, state = tx.update(jnp.full((2, 3), 0.5), tx.init(params))
      >>> round(float(updates[0, 0]), 3), state.v_row.shape, state.v_col.shape
      (1.0, (2,), (3,))

    Source: Shazeer and Stern 2018, arXiv:1804.04235, algorithms 4 and 5; a bounded decay: Zhai et
    al. 2021, arXiv:2106.04560, section 3.4.

    **Differs:** Optax needs `params`, gives NaN before `step_offset`, and keeps states of
    half-precision parameters in half precision.
    """

    factored: Flag = True
    decay_rate: Positive = 0.8
    step_offset: Number = 0
    min_dim_size_to_factor: PositiveInt = 128
    epsilon: NonNegative = 1e-30
    decay_rate_fn: Function = _growing_decay()

    def init(self, params: Params) -> FactoredState:
        leaves, treedef = jax.tree.flatten(params)
        states = zip(*map(self.of_new_leaf, leaves), strict=True) if leaves else [()] * 3
        return FactoredState(zero_count(), *map(treedef.unflatten, states))

    def axes(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """The two largest axes of a leaf, the largest last; None where it is kept whole."""
        if not self.factored or len(shape) < 2:
            return None
        short, long = (int(axis) for axis in np.argsort(shape)[-2:])
        return (short, long) if shape[short] >= self.min_dim_size_to_factor else None

    def of_new_leaf(self, p: jax.Array) -> tuple[jax.Array, ...]:
        """Zeros for the means of rows, of columns, and for the whole moment."""
        square = jnp.zeros_like(abs_sq(promote(p)))
        none = jnp.zeros((1,), square.dtype)
        if (axes := self.axes(square.shape)) is None:
            return none, none, square
        short, long = axes
        return jnp.sum(square, axis=long), jnp.sum(square, axis=short), none

    def step(
        self, updates: Updates, state: FactoredState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, FactoredState]:
        d = self.decay_rate_fn(jnp.maximum(state.count - self.step_offset, 0), self.decay_rate)
        leaves, treedef = jax.tree.flatten(updates)
        rows, cols, whole = (self.leaves_of(tree, updates) for tree in state[1:])
        results = [self.of_leaf(*each, d) for each in zip(leaves, rows, cols, whole, strict=True)]
        updates, *moments = (treedef.unflatten(column) for column in (zip(*results, strict=True) if results else [()] * 4))
        return updates, FactoredState(safe_increment(state.count), *moments)

    def leaves_of(self, tree: Tree, updates: Updates) -> list[jax.Array]:
        """The leaves of a part of the state, which has the structure of the updates."""
        leaves, treedef = jax.tree.flatten(tree)
        if treedef != jax.tree.structure(updates):
            raise_unlike(updates, tree)
        return leaves

    def of_leaf(self, g: jax.Array, row: jax.Array, col: jax.Array, v: jax.Array, d: Scalar) -> tuple[jax.Array, ...]:
        """The rule for one leaf."""
        g, square = promote(g), abs_sq(promote(g)) + self.epsilon
        d = jnp.asarray(d).astype(square.dtype)
        if (axes := self.axes(g.shape)) is None:
            v = running_mean(v, square, d)
            return guarded_ratio(g, jnp.sqrt(v)), row, col, v
        short, long = axes
        row, col = running_mean(row, jnp.mean(square, axis=long), d), running_mean(col, jnp.mean(square, axis=short), d)
        mean = jnp.mean(row, axis=short - (short > long), keepdims=True)
        r, c = jnp.sqrt(guarded_ratio(row, mean)), jnp.sqrt(col)
        u = guarded_ratio(guarded_ratio(g, jnp.expand_dims(r, long)), jnp.expand_dims(c, short))
        return u, row, col, v


class adafactor(Preset):
    """Adafactor: `-(learning_rate * max(rms(p), 1e-3) * clipped(u) + weight_decay_rate * p)`.

    `u = g / sqrt(v)` is the direction of `scale_by_factored_rms`, and `clipped` divides a leaf by
    its root mean square where that is larger than `clipping_threshold`. Its update needs `params`
    with `multiply_by_parameter_scale`, and with a weight decay.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each leaf by about its own size a step.
        Often 1e-2, or `1/sqrt(t)`. None is 1.
      min_dim_size_to_factor: least size of the second largest axis of a factored leaf, >= 1.
      decay_rate: how fast the decay grows, > 0.
      decay_offset: steps before the decay starts to grow; see `step_offset` of
        `scale_by_factored_rms`.
      multiply_by_parameter_scale: whether steps are in units of each leaf's root mean square.
      clipping_threshold: largest root mean square of a leaf's direction, > 0; None does
        not clip.
      momentum: decay of the average of the steps, in [0, 1); None keeps none.
      dtype_momentum: dtype in which that average is stored.
      weight_decay_rate: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - weight_decay_rate`, whatever the learning rate. None is 0.
      eps: added to squared gradients, >= 0.
      factored: whether matrices are factored at all.
      weight_decay_mask: which parameters decay: a tree of booleans (or a prefix of one), or a
        function from the parameters to one, such as `by_path({...: False}, default=True)`. None is
        all.

    State: that of its links; 4 bytes a row and a column of factored leaves, 4 bytes a parameter of
      others; 4 more a parameter with a momentum.

    Example:
      >>> import gradtx
      >>> gradtx.adafactor(1e-2, momentum=0.9)
      adafactor(learning_rate=0.01, momentum=0.9)

    Source: Shazeer and Stern 2018, arXiv:1804.04235, algorithms 4 and 5, section 8; momentum: Zhai
    et al. 2021, arXiv:2106.04560, section 3.4.
    """

    learning_rate: Rate | None = None
    min_dim_size_to_factor: PositiveInt = 128
    decay_rate: Positive = 0.8
    decay_offset: Number = 0
    multiply_by_parameter_scale: Flag = True
    clipping_threshold: Positive | None = 1.0
    momentum: Decay | None = None
    dtype_momentum: FloatDType = np.dtype("float32")
    weight_decay_rate: Rate | None = None
    eps: NonNegative = 1e-30
    factored: Flag = True
    weight_decay_mask: Mask | None = None

    def chain(self) -> Transformation:
        kernel = scale_by_factored_rms(self.factored, self.decay_rate, self.decay_offset, self.min_dim_size_to_factor, self.eps)
        links: list[Transformation] = [kernel]
        if self.clipping_threshold is not None:
            links.append(clip_by_block_rms(self.clipping_threshold))
        if self.learning_rate is not None:
            links.append(scale_by_learning_rate(self.learning_rate, flip_sign=False))
        if self.multiply_by_parameter_scale:
            links.append(scale_by_param_block_rms())
        if self.momentum is not None:
            links.append(ema(self.momentum, debias=False, accumulator_dtype=self.dtype_momentum))
        if self.weight_decay_rate is not None:
            links.append(add_decayed_weights(self.weight_decay_rate, self.weight_decay_mask))
        return chain(*links, scale(-1.0))
