"""Bounds on updates: by element, by norm, by block."""

import math
from dataclasses import KW_ONLY
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks
from gradtx.core.checked import checked
from gradtx.core.domains import Bound, Domain, Flag, Positive
from gradtx.core.leaves import each_leaf
from gradtx.core.numerics import abs_sq, default_float, promote, real_dtype, root_sum_squares, safe_increment, zero_count
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.transformation import EmptyState, Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, Updates
from gradtx.transforms.scaling import scaled
from gradtx.tree.reductions import AxisNames, global_norm, mean_square


def _is_axes(value: object) -> bool:
    axes = value if isinstance(value, tuple) else (value,)
    return all(isinstance(axis, int) and not isinstance(axis, bool) for axis in axes)


Axes = Annotated[int | tuple[int, ...], Domain("a whole number, or a tuple of them", _is_axes)]


class ClipByGlobalNormState(NamedTuple):
    """Steps taken, steps that clipped, and the last norm before clipping."""

    steps: jax.Array
    clipped: jax.Array
    norm: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"grad_norm": self.norm, "clip_fraction": self.clipped / jnp.maximum(self.steps, 1)}


class clip(Transformation, keeps_zero=True):
    """Clips each element: `min(max(u, -max_delta), max_delta)`; real and imaginary parts each.

    Args:
      max_delta: largest magnitude, >= 0.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.clip(1.0)
      >>> tx.update(jnp.array([-3.0, 0.5]), tx.init(jnp.zeros(2)))[0]
      Array([-1. ,  0.5], dtype=float32)
    """

    max_delta: Bound

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        bound: Scalar = self.max_delta

        @each_leaf
        def rule(u: jax.Array) -> jax.Array:
            if jnp.iscomplexobj(u):
                return jax.lax.complex(jnp.clip(u.real, -bound, bound), jnp.clip(u.imag, -bound, bound))
            return jnp.clip(u, -bound, bound)

        return rule(updates), state


class clip_by_global_norm(Transformation, keeps_zero=True, rests=True):
    """Scales all updates down together where their norm is too large: `u * min(1, max_norm / |u|)`.

    `|u|` is the Euclidean norm over the whole tree, taken in at least float32 and safe from
    overflow. Where it is inf or NaN, updates pass unchanged, so that a wrapper that skips
    non-finite steps sees them.

    Args:
      max_norm: largest norm, >= 0; inf only measures.
      axis_name: inside `jax.shard_map`, the mesh axes along which devices hold the shards of
        updates; see `global_norm`.

    State: `ClipByGlobalNormState(steps int32, clipped int32, norm float32)`, 12 bytes.
      `gradtx.metrics` reports `grad_norm` (the last norm before clipping) and `clip_fraction` (the
      share of steps that clipped).

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.clip_by_global_norm(5.0)
      >>> updates, state = tx.update(jnp.array([6.0, 8.0]), tx.init(jnp.zeros(2)))
      >>> updates, float(state.norm)
      (Array([3., 4.], dtype=float32), 10.0)

    Source: Pascanu et al. 2012, arXiv:1211.5063.

    **Differs:** in Optax the state is empty, one inf gives NaN there and 0 elsewhere, and a norm
    beyond the range of the dtype sets the update to zero.
    """

    max_norm: Bound
    _: KW_ONLY
    axis_name: AxisNames | None = None

    def init(self, params: Params) -> ClipByGlobalNormState:
        return ClipByGlobalNormState(zero_count(), zero_count(), jnp.zeros((), default_float()))

    def step(
        self, updates: Updates, state: ClipByGlobalNormState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ClipByGlobalNormState]:
        norm = global_norm(updates, axis_name=self.axis_name)
        too_large = (norm > self.max_norm) & jnp.isfinite(norm)
        ratio = jnp.where(too_large, self.max_norm / jnp.where(too_large, norm, 1), 1)
        clipped = jnp.where(too_large, safe_increment(state.clipped), state.clipped)
        state = ClipByGlobalNormState(safe_increment(state.steps), clipped, norm.astype(state.norm.dtype))
        return scaled(ratio, updates), state


class clip_by_block_rms(Transformation, keeps_zero=True):
    """Scales each leaf down to a largest root mean square: `u / max(1, rms(u) / threshold)`.

    Args:
      threshold: largest root mean square, > 0.
      axis_name: inside `jax.shard_map`, the mesh axes along which devices hold the shards of
        updates; see `global_norm`.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.clip_by_block_rms(1.0)
      >>> tx.update(jnp.array([2.0, -2.0]), tx.init(jnp.zeros(2)))[0]
      Array([ 1., -1.], dtype=float32)

    Source: Adafactor, Shazeer and Stern 2018, arXiv:1804.04235, section 6.
    """

    threshold: Positive
    _: KW_ONLY
    axis_name: AxisNames | None = None

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        @each_leaf
        def rule(u: jax.Array) -> jax.Array:
            if not u.size:
                return u
            rms = jnp.sqrt(mean_square(u, self.axis_name))
            return u / jnp.maximum(1.0, rms / self.threshold)

        return rule(updates), state


@checked
def unitwise_norm(x: jax.Array, axis: Axes | None = None) -> jax.Array:
    """Norms over the inputs of each unit, broadcast to the shape of `x`.

    A unit's inputs are the whole of a vector or scalar, else all axes but the last.

    Args:
      x: array of up to 5 axes; more with `axis`. Three axes reduce over the first alone (fused
        projections).
      axis: axes to reduce over instead.

    Raises:
      ValueError: `x` has more than 5 axes and `axis` is None.

    Example:
      >>> import jax.numpy as jnp
      >>> from gradtx.transforms.clipping import unitwise_norm
      >>> unitwise_norm(jnp.array([[3.0, 0.0], [4.0, 1.0]]))
      Array([[5., 1.],
             [5., 1.]], dtype=float32)
    """
    norms = _unit_norms(x, axis)
    return jnp.broadcast_to(norms, x.shape, out_sharding=jax.typeof(x).sharding)


def _unit_norms(x: jax.Array, axis: int | tuple[int, ...] | None) -> jax.Array:
    """`unitwise_norm` with axes of size 1 where it repeats itself."""
    if axis is None:
        if jnp.squeeze(x).ndim <= 1:
            axis = tuple(range(x.ndim))
        elif x.ndim <= 5:
            axis = (0,) if x.ndim == 3 else tuple(range(x.ndim - 1))
        else:
            raise checks.WrongValue(f"a leaf has shape {x.shape}, expected at most 5 axes; say with `axis` which to reduce.")
    return jnp.sqrt(jnp.sum(abs_sq(x), axis=axis, keepdims=True))


@checked
def unitwise_clip(g_norm: jax.Array, max_norm: jax.Array, grad: jax.Array, div_eps: Positive = 1e-6) -> jax.Array:
    """A unit's gradient, shortened to its largest norm: the rule of `adaptive_grad_clip`.

    Args:
      g_norm: norms of the units, as `unitwise_norm` gives them: of the shape of `grad`.
      max_norm: their largest, of the same shape.
      grad: the gradient.
      div_eps: floor of the norm in the division, > 0.

    Raises:
      ValueError: the shapes differ.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> norms, largest = jnp.array([5.0, 5.0]), jnp.array([1.0, 1.0])
      >>> clipped = optax.transforms.unitwise_clip(norms, largest, jnp.array([3.0, 4.0]))
      >>> [round(float(x), 2) for x in clipped]
      [0.6, 0.8]
    """
    if not g_norm.shape == max_norm.shape == grad.shape:
        found = f"g_norm, max_norm and grad have shapes {g_norm.shape}, {max_norm.shape} and {grad.shape}"
        raise checks.WrongValue(f"{found}, expected one shape.")
    return jnp.where(g_norm < max_norm, grad, grad * (max_norm / jnp.maximum(g_norm, div_eps)))


class adaptive_grad_clip(Transformation, keeps_zero=True, needs_params=True):
    """Clips each unit's gradient by its weights: `u * min(1, clipping * max(|p|, eps) / |u|)`.

    Norms are those of `unitwise_norm`. Its update needs `params`.

    Args:
      clipping: largest ratio of gradient norm to weight norm, > 0.
      eps: floor of the weight norm, > 0, so that zero weights can move; in units of the weights.
      axis: axes over which norms are taken; None chooses by the number of axes, of which there may
        be five at most.

    State: `EmptyState()`, 0 bytes.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.adaptive_grad_clip(0.1), jnp.array([3.0, 4.0])
      >>> tx.update(jnp.array([0.0, 9.0]), tx.init(params), params)[0].round(4)
      Array([0. , 0.5], dtype=float32)

    Source: Brock et al. 2021, arXiv:2102.06171, equation 3.
    """

    clipping: Positive
    eps: Positive = 1e-3
    axis: Axes | None = None

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        @each_leaf
        def rule(u: jax.Array, p: jax.Array) -> jax.Array:
            norm = _unit_norms(u, self.axis)
            largest = self.clipping * jnp.maximum(_unit_norms(p, self.axis), self.eps)
            return u * jnp.where(norm < largest, 1, largest / jnp.maximum(norm, 1e-6))

        return rule(updates, params), state


@checked
def per_example_global_norm_clip(grads: Updates, l2_norm_clip: Bound) -> tuple[Updates, jax.Array]:
    """Clips each example's gradient by its norm over the tree and sums over the batch (DP-SGD).

    Args:
      grads: tree of arrays with the examples on axis 0, as `jax.vmap(jax.grad(loss), (None, 0))`
        gives.
      l2_norm_clip: largest norm of one example's gradient, >= 0.

    Returns:
      The sum of the clipped gradients, in the dtypes of `grads`, and how many were clipped (int32).

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> gradtx.per_example_global_norm_clip(jnp.array([[3.0, 4.0], [0.0, 0.5]]), 2.5)
      (Array([1.5, 2.5], dtype=float32), Array(1, dtype=int32))

    Source: Abadi et al. 2016, arXiv:1607.00133, algorithm 1.
    """
    _check_batch(grads)
    return _clip_examples(grads, l2_norm_clip)


@checked
def per_example_layer_norm_clip(grads: Updates, global_l2_norm_clip: Bound, uniform: Flag = True) -> tuple[Updates, Updates]:
    """Clips each example's gradient leaf by leaf and sums over the batch.

    The bounds of the leaves add up to `global_l2_norm_clip`, as norms do.

    Args:
      grads: tree of arrays with the examples on axis 0.
      global_l2_norm_clip: largest norm `C` of all leaves together, >= 0. Of `n` leaves each has the
        bound `C / sqrt(n)`, or `C * sqrt(size / total size)`.
      uniform: whether all leaves have the same bound.

    Returns:
      The sum of the clipped gradients, and a tree of how many examples were clipped in each leaf
      (int32).

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> grads = {"a": jnp.array([[2.0], [0.5]]), "b": jnp.array([[1.0], [1.0]])}
      >>> clipped, counts = gradtx.per_example_layer_norm_clip(grads, 2.0**0.5)
      >>> float(clipped["a"][0]), int(counts["a"]), int(counts["b"])
      (1.5, 1, 0)

    Source: McMahan et al. 2018, arXiv:1812.06210.
    """
    _check_batch(grads)
    leaves, treedef = jax.tree.flatten(grads)
    sizes = [1 if uniform else math.prod(leaf.shape[1:]) for leaf in leaves]
    bounds = [global_l2_norm_clip * (size / max(sum(sizes), 1)) ** 0.5 for size in sizes]
    pairs = [_clip_examples(leaf, bound) for leaf, bound in zip(leaves, bounds, strict=True)]
    return treedef.unflatten([total for total, _ in pairs]), treedef.unflatten([count for _, count in pairs])


def _clip_examples(grads: Updates, bound: Scalar) -> tuple[Updates, jax.Array]:
    if not jax.tree.leaves(grads):
        return grads, zero_count()
    norms = jax.vmap(lambda g: root_sum_squares(jax.tree.leaves(g)))(grads)
    ratios = jnp.where(norms > bound, bound / jnp.where(norms > bound, norms, 1), 1)

    def total(g: jax.Array) -> jax.Array:
        wide = promote(g)
        return jnp.tensordot(ratios.astype(real_dtype(wide.dtype)), wide, axes=1, precision="highest").astype(g.dtype)

    return jax.tree.map(total, grads), jnp.sum(norms > bound).astype(jnp.int32)


def _check_batch(grads: Updates) -> None:
    sizes = {parts: leaf.shape[:1] for parts, leaf in leaves_by_path(grads).items()}
    first = next(iter(sizes.values()), ())
    for parts, size in sizes.items():
        if not size or size != first:
            raise checks.WrongValue(
                f"grads leaf `{'/'.join(parts) or ROOT}` has axis 0 of size {size[0] if size else 'none'}, "
                f"expected one gradient an example on axis 0 of every leaf{f' ({first[0]} of them)' if first else ''}."
            )
