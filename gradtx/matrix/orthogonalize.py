"""The link at the heart of Muon: the matrix sign of every matrix of a tree."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike
from jax.sharding import AxisType

from gradtx.core.composites import Wrapper
from gradtx.core.domains import FloatDType, NonNegative, PositiveInt, one_of
from gradtx.core.leaves import each_leaf
from gradtx.core.paths import leaves_by_path
from gradtx.core.sharding import gathered, placed_like
from gradtx.core.transformation import EmptyState, Transformation
from gradtx.core.types import ExtraArg, Params, State, Updates
from gradtx.core.walk import check_not_final
from gradtx.linalg.coefficients import Coefficients, newton_schulz_table
from gradtx.linalg.msign import METHODS, Recipe, make_recipe, unit_vector
from gradtx.linalg.msign_many import msign_many
from gradtx.linalg.newton_schulz import NORMALIZATIONS
from gradtx.matrix.automatic import shared_msign
from gradtx.matrix.dimensions import MatrixRule, MuonDimensionNumbers, Numbers, from_matrices, numbers_once, to_matrices
from gradtx.matrix.distribute import Sharing, distributed_msign
from gradtx.matrix.parts import all_joined, all_parts

Normalization = Annotated[str, one_of(*NORMALIZATIONS)]
Method = Annotated[str, one_of(*METHODS)]


class orthogonalize(Transformation, keeps_zero=True):
    """The matrix sign of every matrix: `U V^T` for `M = U S V^T`; singular values near 1.

    The direction of steepest descent in the spectral norm, whatever the scale of `M`. Vectors are
    divided by their norms, numbers give their signs. After a momentum it is Muon's direction:
    `chain(trace(0.95, nesterov=True), orthogonalize())`.

    Args:
      coefficients: of the Newton-Schulz steps: 'polar_express' (minimax), 'jordan', 'dion',
        'quintic', one row of three numbers, or a table of rows; see `gradtx.linalg.msign`.
      steps: number of steps, >= 1; None is 4 for 'polar_express', 5 for the other names and for one
        row, or the rows of a table.
      normalization: what a matrix is divided by first: 'schatten8', 'frobenius', 'schatten4',
        'spectral', or 'aol' (by rows).
      method: 'newton_schulz', 'gram' (the same steps on the Gram matrix), 'auto' (the cheaper of
        the two), or 'svd' (exact).
      dtype: in which products take their factors: 'bfloat16' is faster where hardware has it. None
        is at least float32.
      precision: of products, as in `jax.lax.dot`.
      eps: added to the norm, where the largest entry of a matrix is about 1; >= 0. Zero matrices
        need none.
      weight_dimension_numbers: which axes make a matrix: a tree of `MuonDimensionNumbers` (None
        where a leaf is no matrix), or a function from the parameters to one, such as `matrix_axes`.
        None takes leaves of two axes as matrices (in, out) and refuses those of more.
      distribute: None, or the mesh axes along which devices share the work: a name, several, or a
        `Distribution`. None is all axes of the mesh on which matrices lie; each device then signs
        its share of whole matrices. Inside `shard_map`, None shares nothing.

    State: `EmptyState()`, 0 bytes.

    Raises:
      ValueError: a leaf of three or more axes without dimension numbers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.orthogonalize(method="svd")
      >>> updates = jnp.array([[3.0, 0.0], [0.0, -0.1]])
      >>> tx.update(updates, tx.init(updates))[0].round(3) + 0.0
      Array([[ 1.,  0.],
             [ 0., -1.]], dtype=float32)

    Source: Bernstein and Newhouse 2024, arXiv:2409.20325; Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon/.
    """

    coefficients: Coefficients = "polar_express"
    steps: PositiveInt | None = None
    _: KW_ONLY
    normalization: Normalization = "schatten8"
    method: Method = "auto"
    dtype: FloatDType | None = None
    precision: PrecisionLike = None
    eps: NonNegative = 0.0
    weight_dimension_numbers: MatrixRule | None = None
    distribute: Sharing | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.recipe  # noqa: B018  # wrong coefficients fail here, not at the first step

    @functools.cached_property
    def recipe(self) -> Recipe:
        """How a matrix sign is computed, before shapes and the platform are known."""
        table = newton_schulz_table("orthogonalize", self.coefficients, self.steps)
        return make_recipe(table, self.normalization, self.method, self.dtype, self.precision)

    @functools.cached_property
    def numbers(self) -> Callable[[Params], Numbers]:
        """The dimension numbers of each leaf."""
        return numbers_once("weight_dimension_numbers", self.weight_dimension_numbers)

    def init(self, params: Params) -> EmptyState:
        self.numbers(params)  # a leaf without dimension numbers fails here, not at the first step
        return EmptyState()

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        leaves, treedef = jax.tree.flatten(updates)
        matrices: dict[int, MuonDimensionNumbers] = {}
        for i, entry in enumerate(self.numbers(updates)):
            if entry is not None:
                matrices[i] = entry
            elif leaves[i].size:
                leaves[i] = unit_vector(leaves[i])
        signs = self.signs([leaves[i] for i in matrices], list(matrices.values()), updates, list(matrices))
        for i, sign in zip(matrices, signs, strict=True):
            leaves[i] = sign
        return treedef.unflatten(leaves), state

    def signs(
        self, leaves: Sequence[jax.Array], numbers: Sequence[MuonDimensionNumbers], updates: Updates, places: Sequence[int]
    ) -> list[jax.Array]:
        """The signs of the leaves at `places`, all at once, so equal shapes share a program."""
        if not leaves:
            return []
        for entry in numbers:
            if entry.input_blocks != 1 or not isinstance(entry.output_blocks, int):
                return self.signs_of_parts(leaves, numbers, updates, places)
        if self.distribute is not None:
            return distributed_msign(leaves, numbers, self.recipe, self.eps, self.distribute)
        mesh = jax.sharding.get_abstract_mesh()
        for leaf in leaves:
            own = jax.typeof(leaf).sharding.mesh
            mesh = mesh if own.empty else own
        kinds = set(mesh.axis_types) if math.prod(mesh.axis_sizes) > 1 else set()
        if kinds == {AxisType.Explicit}:
            return distributed_msign(leaves, numbers, self.recipe, self.eps, mesh.axis_names)
        if kinds == {AxisType.Auto}:
            paths = list(leaves_by_path(updates))
            return shared_msign(leaves, numbers, [paths[i] for i in places], self.recipe, self.eps, mesh)
        matrices = [to_matrices(gathered(leaf), entry) for leaf, entry in zip(leaves, numbers, strict=True)]
        signs = zip(msign_many(matrices, self.recipe, self.eps), numbers, leaves, strict=True)
        return [placed_like(from_matrices(x, entry, leaf.shape), leaf) for x, entry, leaf in signs]

    def signs_of_parts(
        self, leaves: Sequence[jax.Array], numbers: Sequence[MuonDimensionNumbers], updates: Updates, places: Sequence[int]
    ) -> list[jax.Array]:
        """`signs` of leaves of which some have blocks of unequal widths, or blocks of inputs."""
        parts, counts = all_parts(leaves, numbers)
        owners = [place for place, count in zip(places, counts, strict=True) for _ in range(count)]
        signs = self.signs([x for x, _ in parts], [plain for _, plain in parts], updates, owners)
        return all_joined(signs, counts, numbers, leaves)


class ScaleByDualNormState(NamedTuple):
    """The state of the transformation that makes the direction."""

    inner_state: State


class scale_by_dual_norm(Wrapper, keeps_zero=True):
    """A direction times the dual norm of its update: `<u, d> * d`, `d = inner(u)`, leaf by leaf.

    Steepest descent in the norm whose steepest direction `inner` gives: small gradients make small
    steps again. `scale_by_dual_norm(orthogonalize())` multiplies by the sum of singular values.

    Args:
      inner: transformation from `u` to a direction, such as `orthogonalize` or `scale_by_sign`.

    State: `ScaleByDualNormState(inner_state)`, 0 bytes of its own.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_dual_norm(gradtx.scale_by_sign())
      >>> updates = jnp.array([3.0, -0.5])
      >>> tx.update(updates, tx.init(updates))[0]
      Array([ 3.5, -3.5], dtype=float32)

    Source: Bernstein and Newhouse 2024, arXiv:2409.20325; `adaptive` of Optax's `contrib.muon`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_final("scale_by_dual_norm", "inner", self.inner)

    def init(self, params: Params) -> ScaleByDualNormState:
        return ScaleByDualNormState(self.inner.init(params))

    def step(
        self, updates: Updates, state: ScaleByDualNormState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, ScaleByDualNormState]:
        directions, inner_state = self.inner.advance(updates, state.inner_state, params, extra_args)

        @each_leaf
        def rule(d: jax.Array, u: jax.Array) -> jax.Array:
            return jnp.sum(u.conj() * d) * d

        return rule(directions, updates), ScaleByDualNormState(inner_state)
