"""AdaGrad with the full matrix of second moments."""

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.chain import chain
from gradtx.core import checks
from gradtx.core.composites import Preset
from gradtx.core.domains import Flag, NonNegative, PositiveInt, Rate
from gradtx.core.numerics import common_dtype, compute_dtype
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.sharding import gathered, placed_like
from gradtx.core.transformation import Transformation
from gradtx.core.trees import raise_unlike
from gradtx.core.types import DType, ExtraArg, Leaf, Params, Scalar, Tree, Updates
from gradtx.linalg.roots import apply_inverse_sqrt
from gradtx.transforms.scaling import scale_by_learning_rate


class ScaleByFullMatrixAdagradState(NamedTuple):
    """The sum of outer products: a matrix for each leaf, or one for the whole tree."""

    sum_of_outer_products: Updates


class scale_by_full_matrix_adagrad(Transformation):
    """Divides by the root of the sum of outer products: `Q (sqrt(lambda) + eps)^-1 Q^T g`.

    `S = S + g g^T = Q lambda Q^T`. Each leaf is one vector `g` with its own `S`, or all leaves
    together are. Where `S` and `g` are zero, the output is zero. At constant gradients the output
    falls as `1/sqrt(t)`. A rotation of the parameters rotates the updates, which the diagonal form
    (`scale_by_rss`) does not. A step costs one symmetric eigendecomposition for each leaf, some
    `10 n^3` operations for `n` elements.

    Args:
      initial_accumulator_value: `S` at the start is this times the identity, >= 0.
      eps: added outside the root, >= 0; in units of the gradient.
      whole_tree: whether all leaves are one vector, with one `S`; all are real then, or all
        complex.
      max_size: largest number of elements of a vector, >= 1; `init` refuses more.

    State: `ScaleByFullMatrixAdagradState(sum_of_outer_products)`; `n` by `n` for each vector, so
      `4n` bytes a parameter. For complex leaves `S` is Hermitian, `g g^H`. Every device has `S`
      whole, also where parameters are sharded explicitly.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_full_matrix_adagrad(initial_accumulator_value=0.0)
      >>> updates, state = tx.update(jnp.array([3.0, -4.0]), tx.init(jnp.zeros(2)))
      >>> [round(float(u), 4) for u in updates], state.sum_of_outer_products.shape
      ([0.6, -0.8], (2, 2))

    Source: Duchi et al. 2011, "Adaptive Subgradient Methods", the full-matrix form.
    """

    initial_accumulator_value: NonNegative = 0.1
    eps: NonNegative = 1e-7
    _: KW_ONLY
    whole_tree: Flag = False
    max_size: PositiveInt = 1024

    def init(self, params: Params) -> ScaleByFullMatrixAdagradState:
        leaves = jax.tree.leaves(params)
        if self.whole_tree:
            size, dtype = sum(map(np.size, leaves)), _common_dtype(params)
            _check_size("params have", size, dtype, self.max_size)
            return ScaleByFullMatrixAdagradState(self.start_of(size, dtype))
        for parts, leaf in leaves_by_path(params).items():
            _check_size(f"params leaf `{'/'.join(parts) or ROOT}` has", np.size(leaf), _dtype(leaf), self.max_size)
        return ScaleByFullMatrixAdagradState(jax.tree.map(lambda p: self.start_of(np.size(p), _dtype(p)), params))

    def start_of(self, size: int, dtype: DType) -> jax.Array:
        """`S` before any step."""
        return jnp.asarray(self.initial_accumulator_value, dtype) * jnp.eye(size, dtype=dtype)

    def step(
        self, updates: Updates, state: ScaleByFullMatrixAdagradState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByFullMatrixAdagradState]:
        matrices = state.sum_of_outer_products
        if self.whole_tree:
            vector = _joined(updates)
            _check_matrices(updates, [vector], [matrices])
            vector, matrix = _divided(vector, matrices, self.eps)
            return _parted(vector, updates), ScaleByFullMatrixAdagradState(matrix)
        leaves, treedef = jax.tree.flatten(updates)
        sums, other = jax.tree.flatten(matrices)
        if treedef != other:
            raise_unlike(updates, matrices)
        _check_matrices(updates, leaves, sums)
        pairs = [_divided(g, s, self.eps) for g, s in zip(leaves, sums, strict=True)]
        new, sums = ([pair[k] for pair in pairs] for k in (0, 1))
        return treedef.unflatten(new), ScaleByFullMatrixAdagradState(treedef.unflatten(sums))


@jax.jit  # leaves of one size share one trace
def _divided(g: jax.Array, s: jax.Array, eps: Scalar) -> tuple[jax.Array, jax.Array]:
    """The rule, for one vector or a leaf as one."""
    flat = gathered(g).ravel().astype(s.dtype)
    s = s + flat[:, None] * flat.conj()[None, :]
    direction = apply_inverse_sqrt(s, flat, jnp.asarray(eps, s.real.dtype))
    return placed_like(direction.reshape(g.shape).astype(g.dtype), g), s


def _joined(updates: Updates) -> jax.Array:
    """All leaves as one vector."""
    dtype = _common_dtype(updates)
    parts = [gathered(jnp.asarray(leaf)).ravel().astype(dtype) for leaf in jax.tree.leaves(updates)]
    return jnp.concatenate([jnp.zeros(0, dtype), *parts])


def _parted(vector: jax.Array, like: Updates) -> Updates:
    """The tree of `_joined`."""
    leaves, treedef = jax.tree.flatten(like)
    parts = jnp.split(vector, np.cumsum([np.size(leaf) for leaf in leaves], dtype=int)[:-1])
    new = zip(parts, map(jnp.asarray, leaves), strict=False)  # an empty tree has one part, no leaf
    return treedef.unflatten([placed_like(part.reshape(leaf.shape).astype(leaf.dtype), leaf) for part, leaf in new])


def _dtype(leaf: Leaf) -> DType:
    return compute_dtype(jnp.result_type(leaf))


def _common_dtype(tree: Tree) -> Tree:
    """The dtype of all leaves as one vector."""
    dtypes = [_dtype(leaf) for leaf in jax.tree.leaves(tree)]
    if len({jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes}) > 1:
        raise checks.WrongValue(
            "whole_tree is True and the tree has complex and real leaves, expected leaves of one kind. "
            "Use whole_tree=False, or gradtx.partition for the two kinds."
        )
    return common_dtype(*dtypes) if dtypes else np.dtype(np.float32)


def _check_size(what: str, size: int, dtype: DType, max_size: int) -> None:
    if size > max_size:
        raise checks.WrongValue(
            f"{what} {size} elements, whose matrix takes {size * size * dtype.itemsize} bytes, expected at most "
            f"max_size={max_size} elements. Use the diagonal gradtx.adagrad for large leaves (with gradtx.partition), "
            "or raise max_size."
        )


def _check_matrices(updates: Updates, vectors: Sequence[Leaf], matrices: Sequence[Leaf]) -> None:
    for i, (vector, matrix) in enumerate(zip(vectors, matrices, strict=True)):
        size = np.size(vector)
        if matrix.shape != (size, size):
            paths = ["/".join(parts) or ROOT for parts in leaves_by_path(updates)]
            what = f"updates leaf `{paths[i]}` has" if len(vectors) == len(paths) else "updates have"
            raise checks.WrongValue(
                f"{what} {size} elements, but the matrix in the state has shape {matrix.shape}, expected "
                f"{(size, size)}. Was the state made from other parameters, or with another whole_tree?"
            )


class adagrad_full_matrix(Preset):
    """AdaGrad with the full matrix: `-learning_rate * (S^(1/2) + eps)^-1 g`, `S = S + g g^T`.

    See `scale_by_full_matrix_adagrad`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each vector by about `1/sqrt(t)` along
        each axis seen, at step `t`.
      initial_accumulator_value, eps, whole_tree, max_size: as in `scale_by_full_matrix_adagrad`.

    State: `(ScaleByFullMatrixAdagradState, ScaleByLearningRateState)`; `4n` bytes a parameter for a
      leaf of `n` elements.

    Example:
      >>> import gradtx
      >>> gradtx.adagrad_full_matrix(0.1, whole_tree=True)
      adagrad_full_matrix(learning_rate=0.1, whole_tree=True)

    Source: Duchi et al. 2011, "Adaptive Subgradient Methods".
    """

    learning_rate: Rate
    initial_accumulator_value: NonNegative = 0.1
    eps: NonNegative = 1e-7
    _: KW_ONLY
    whole_tree: Flag = False
    max_size: PositiveInt = 1024

    def chain(self) -> Transformation:
        kernel = scale_by_full_matrix_adagrad(
            self.initial_accumulator_value, self.eps, whole_tree=self.whole_tree, max_size=self.max_size
        )
        return chain(kernel, scale_by_learning_rate(self.learning_rate))
