"""Muon: momentum, then the matrix sign of every matrix; with the parameters that are no matrices left to AdamW."""

import functools
import math
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.matrices import MuonDimensionNumbers, fan, from_matrices, matrix_axes, numbers_for, to_matrices
from gradtx.compose.partition import partition
from gradtx.core.checks import Decay, Flag, FloatDType, Mask, NonNegative, PositiveInt, Rate, one_of
from gradtx.core.leaves import cast_like, map_leaves, widen, zeros_like
from gradtx.core.numerics import one_minus_power, safe_increment, zero_count
from gradtx.core.sharding import gathered, placed_like
from gradtx.core.transformation import EmptyState, Params, Preset, Transformation, Updates
from gradtx.linalg.coefficients import newton_schulz_table
from gradtx.linalg.msign import METHODS, make_recipe, unit_vector
from gradtx.linalg.msign_many import msign_many
from gradtx.linalg.newton_schulz import NORMALIZATIONS
from gradtx.optimizers.adam import adamw
from gradtx.optimizers.normuon import scale_by_normuon
from gradtx.storage.distribute import distributed_msign
from gradtx.transforms.decay import add_cautious_decayed_weights, add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

SCALES: dict[str, Callable[[int, int], float]] = {
    "jordan": lambda inputs, outputs: math.sqrt(max(1, outputs / inputs)),
    "rms": lambda inputs, outputs: 0.2 * math.sqrt(max(inputs, outputs)),
    "spectral": lambda inputs, outputs: math.sqrt(outputs / inputs),
}
PRECONDITIONINGS = {"schatten": "schatten4", **{name: name for name in NORMALIZATIONS}}

Normalization = Annotated[str, one_of(*NORMALIZATIONS)]
Method = Annotated[str, one_of(*METHODS)]
Preconditioning = Annotated[str, one_of(*PRECONDITIONINGS)]
UpdateScale = Annotated[str, one_of(*SCALES)]


class ScaleByMsignState(NamedTuple):
    """The momentum, one number a parameter."""

    mu: Any


class MuonState(NamedTuple):
    """Steps taken, and the momentum before bias correction."""

    count: jax.Array
    mu: Any


def _momentum(g: jax.Array, m: jax.Array, *, beta: Any, nesterov: bool) -> tuple[jax.Array, jax.Array]:
    m = beta * m + g
    return (g + beta * m if nesterov else m), m


class scale_by_msign(Transformation, keeps_zero=True):
    """Momentum, then the matrix sign: `M = beta*M + G`, gives `msign(M)`, or `msign(G + beta*M)` with `nesterov`.

    The direction of steepest descent in the spectral norm: all singular values of an update are near 1, whatever the gradient's
    scale. Vectors are divided by their norms, numbers give their signs. To send embeddings, heads and vectors elsewhere use `muon`.

    Args:
      beta: decay of the momentum, in [0, 1).
      nesterov: whether to look one step ahead.
      scale: None, or what each update is multiplied by, from its inputs and outputs: 'jordan' `sqrt(max(1, out/in))`, 'rms'
        `0.2*sqrt(max(in, out))` (updates as large as Adam's), 'spectral' `sqrt(out/in)`. 1 for vectors and numbers.
      steps, coefficients, normalization, method, precision: as in `gradtx.linalg.msign`; by default 4 steps of Polar Express.
      compute_dtype: in which products take their factors (`dtype` there): 'bfloat16' is faster where hardware has it.
      mu_dtype: dtype in which the momentum is stored; None is float32, or wider for wider parameters.
      weight_dimension_numbers: tree of `MuonDimensionNumbers` (None where a leaf is no matrix), or a function from the parameters
        to one, such as `matrix_axes`. None takes leaves of two axes as matrices (in, out) and refuses those of more.

    State: `ScaleByMsignState(mu)`, 4 bytes a parameter.

    Returns:
      The transformation. One unit of a learning rate after it moves each matrix by about 1 in spectral norm.

    Raises:
      ValueError, TypeError: an argument outside its domain, or a leaf of three or more axes without dimension numbers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_msign(method="svd")
      >>> grads = jnp.array([[3.0, 0.0], [0.0, -0.1]])
      >>> tx.update(grads, tx.init(grads))[0].round(3) + 0.0
      Array([[ 1.,  0.],
             [ 0., -1.]], dtype=float32)

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; scale 'rms': Liu et al. 2025, arXiv:2502.16982;
    'spectral': Pethick et al. 2025, arXiv:2502.07529.
    """

    beta: Decay = 0.95
    nesterov: Flag = True
    _: KW_ONLY
    scale: UpdateScale | None = None
    steps: PositiveInt | None = None
    coefficients: Any = "polar_express"
    normalization: Normalization = "schatten8"
    method: Method = "auto"
    compute_dtype: FloatDType | None = None
    precision: Any = None
    mu_dtype: FloatDType | None = None
    weight_dimension_numbers: Any = None
    distribute: Any = None

    @functools.cached_property
    def table(self) -> Any:
        return newton_schulz_table("scale_by_msign", self.coefficients, self.steps)

    @functools.cached_property
    def direction(self) -> Any:
        return _Direction(
            self.weight_dimension_numbers,
            self.table,
            self.normalization,
            self.method,
            self.compute_dtype,
            self.precision,
            self.distribute,
        )

    def init(self, params: Params) -> ScaleByMsignState:
        numbers_for("weight_dimension_numbers", self.weight_dimension_numbers, params)
        return ScaleByMsignState(zeros_like(params, self.mu_dtype))

    def step(
        self, updates: Updates, state: ScaleByMsignState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, ScaleByMsignState]:
        momenta, mu = map_leaves(_momentum, widen(updates), state.mu, beta=self.beta, nesterov=self.nesterov)
        return cast_like(self.direction(momenta, None if self.scale is None else SCALES[self.scale]), updates), ScaleByMsignState(
            mu
        )


class _Direction:
    """The matrix signs of a tree of momenta."""

    def __init__(
        self,
        numbers: Any,
        table: Any,
        normalization: str,
        method: str,
        dtype: Any,
        precision: Any,
        distribute: Any,
        eps: Any = 0.0,
    ):
        self.numbers, self.distribute, self.eps = numbers, distribute, eps
        self.recipe = make_recipe(table, normalization, method, dtype, precision)

    def __call__(self, tree: Any, scale: Callable[[int, int], float] | None = None) -> Any:
        leaves, treedef = jax.tree.flatten(tree)
        numbers = numbers_for("weight_dimension_numbers", self.numbers, tree)
        matrices = [(i, entry) for i, entry in enumerate(numbers) if entry is not None]
        signs = self.signs([leaves[i] for i, _ in matrices], [entry for _, entry in matrices])
        results = [unit_vector(leaf) if leaf.size else leaf for leaf in leaves]
        for (i, entry), sign in zip(matrices, signs, strict=True):
            results[i] = sign
            if scale is not None:
                results[i] = results[i] * jnp.asarray(scale(*fan(entry, sign.shape)), sign.dtype)
        return treedef.unflatten(results)

    def signs(self, leaves: list[jax.Array], numbers: list[MuonDimensionNumbers]) -> list[jax.Array]:
        if not leaves:
            return []
        if self.distribute is not None:
            return distributed_msign(leaves, numbers, self.recipe, self.eps, self.distribute)
        matrices = [to_matrices(gathered(leaf), entry) for leaf, entry in zip(leaves, numbers, strict=True)]
        signs = zip(msign_many(matrices, self.recipe, self.eps), numbers, leaves, strict=True)
        return [placed_like(from_matrices(x, entry, leaf.shape), leaf) for x, entry, leaf in signs]


def _muon_momentum(
    g: jax.Array, m: jax.Array, *, beta: Any, nesterov: bool, correction: Any, next_correction: Any
) -> tuple[jax.Array, jax.Array]:
    m = beta * m + (1 - beta) * g
    ahead = beta * m / next_correction + (1 - beta) * g / correction if nesterov else m / correction
    return ahead, m


def _dual_norm(m: jax.Array, o: jax.Array) -> jax.Array:
    return jnp.sum(m.conj() * o) * o


class scale_by_muon(Transformation, keeps_zero=True):
    """Muon's direction with Optax's arguments: `m = beta*m + (1-beta)*g`, bias-corrected, then Newton-Schulz.

    Args:
      ns_coeffs: one row of coefficients, run `ns_steps` times; a table of rows, which then are the steps; or a name: 'jordan' (the
        default; Optax's 'standard'), 'dion', 'quintic', 'polar_express' (made for `ns_steps`).
      ns_steps: number of steps, >= 1, where `ns_coeffs` is no table.
      beta: decay of the momentum, in [0, 1).
      eps: added to the norm, where the largest entry of a matrix is about 1; >= 0.
      mu_dtype: dtype in which the momentum is stored; None is float32, or wider for wider parameters.
      nesterov: whether to look one step ahead.
      adaptive: whether to multiply updates by the dual norm `<m, msign(m)>` of the momentum.
      preconditioning: what matrices are divided by first: 'frobenius', 'spectral', 'schatten' (4), 'schatten8', or 'aol'.
      weight_dimension_numbers: as in `scale_by_msign`.
      method, compute_dtype, precision, distribute: as in `scale_by_msign`.

    State: `MuonState(count int32, mu)`, 4 bytes a parameter.

    Returns:
      The transformation. One unit of a learning rate after it moves each matrix by about 1 in spectral norm.

    Raises:
      ValueError, TypeError: as `scale_by_msign`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_muon("polar_express", 8)
      >>> grads = jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> (updates @ updates.T).round(3)
      Array([[1., 0.],
             [0., 1.]], dtype=float32)

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; adaptive: Bernstein and Newhouse 2024, arXiv:2409.20325.

    **Differs:** the same numbers as Optax, computed on Gram matrices where that is cheaper, but free of scale: matrices are scaled
    by a power of two before `eps` matters. Vectors, single rows and columns, and matrices with orthogonal rows are exact.
    Coefficients are no part of the state. Optax's moments of half-precision parameters are in half precision.
    """

    ns_coeffs: Any = (3.4445, -4.7750, 2.0315)
    ns_steps: PositiveInt = 5
    beta: Decay = 0.95
    eps: NonNegative = 1e-8
    mu_dtype: FloatDType | None = None
    _: KW_ONLY
    nesterov: Flag = True
    adaptive: Flag = False
    preconditioning: Preconditioning = "frobenius"
    weight_dimension_numbers: Any = None
    method: Method = "auto"
    compute_dtype: FloatDType | None = None
    precision: Any = None
    distribute: Any = None

    @functools.cached_property
    def table(self) -> Any:
        return _muon_table("scale_by_muon", self.ns_coeffs, self.ns_steps)

    @functools.cached_property
    def normalization(self) -> Any:
        return PRECONDITIONINGS[self.preconditioning]

    @functools.cached_property
    def direction(self) -> Any:
        return _Direction(
            self.weight_dimension_numbers,
            self.table,
            self.normalization,
            self.method,
            self.compute_dtype,
            self.precision,
            self.distribute,
            self.eps,
        )

    def init(self, params: Params) -> MuonState:
        numbers_for("weight_dimension_numbers", self.weight_dimension_numbers, params)
        return MuonState(zero_count(), zeros_like(params, self.mu_dtype))

    def step(
        self, updates: Updates, state: MuonState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, MuonState]:
        count = safe_increment(state.count)
        corrections = {
            "correction": one_minus_power(self.beta, count),
            "next_correction": one_minus_power(self.beta, safe_increment(count)),
        }
        momenta, mu = map_leaves(_muon_momentum, widen(updates), state.mu, beta=self.beta, nesterov=self.nesterov, **corrections)
        signs = self.direction(momenta)
        signs = map_leaves(_dual_norm, momenta, signs) if self.adaptive else signs
        return cast_like(signs, updates), MuonState(count, mu)


def _muon_table(name: str, ns_coeffs: Any, ns_steps: int) -> Any:
    if isinstance(ns_coeffs, str):
        return newton_schulz_table(name, "jordan" if ns_coeffs == "standard" else ns_coeffs, ns_steps, "ns_coeffs")
    one_row = isinstance(ns_coeffs, (list, tuple)) and not any(isinstance(row, (list, tuple)) for row in ns_coeffs)
    return newton_schulz_table(name, ns_coeffs, ns_steps if one_row or getattr(ns_coeffs, "ndim", 2) == 1 else None, "ns_coeffs")


class scale_by_shape(Transformation, keeps_zero=True):
    """Multiplies each matrix by a factor of its shape: `sqrt(max(1, out/in)) * u`, or `consistent_rms * sqrt(max(in, out)) * u`.

    Args:
      weight_dimension_numbers: as in `scale_by_msign`.
      consistent_rms: None, or the root mean square that updates of `msign` shall have in every shape; 0.2 is Adam's.

    State: `EmptyState()`, 0 bytes.

    Returns:
      The transformation; vectors and numbers pass unchanged.

    Raises:
      ValueError, TypeError: as `scale_by_msign`.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.scale_by_shape()
      >>> float(tx.update(jnp.ones((2, 8)), tx.init(jnp.ones((2, 8))))[0][0, 0])
      2.0

    Source: Jordan 2024, https://github.com/KellerJordan/Muon; Liu et al. 2025, arXiv:2502.16982.
    """

    weight_dimension_numbers: Any = None
    consistent_rms: NonNegative | None = None

    def factor(self, inputs: int, outputs: int) -> Any:
        return (
            SCALES["jordan"](inputs, outputs)
            if self.consistent_rms is None
            else self.consistent_rms * math.sqrt(max(inputs, outputs))
        )

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, EmptyState]:
        leaves, treedef = jax.tree.flatten(updates)
        numbers = numbers_for("weight_dimension_numbers", self.weight_dimension_numbers, updates)
        scaled = [
            x if entry is None else (x * self.factor(*fan(entry, x.shape))).astype(x.dtype)
            for x, entry in zip(leaves, numbers, strict=True)
        ]
        return treedef.unflatten(scaled), state


class muon(Preset, keeps_zero=True):
    """Muon for the matrices inside a network, AdamW for all else: `-learning_rate * (shape * msign(m) + weight_decay * p)`.

    Routed by path and shape as `matrix_axes` says; `explain(tx, params)` shows where each parameter goes, and why.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each matrix by `sqrt(max(1, out/in))` in spectral norm. Often 0.02,
        or, with `consistent_rms=0.2`, what AdamW would have.
      ns_coeffs, ns_steps, beta, eps, mu_dtype, nesterov, adaptive, preconditioning: as in `scale_by_muon`; `eps` is Adam's too, and
        `nesterov` and `mu_dtype` as well. `ns_coeffs="polar_express", ns_steps=4, preconditioning="schatten8"` is more exact and
        faster.
      weight_decay: number >= 0 or schedule, decoupled, for the matrices.
      weight_decay_mask: which matrices decay, as in `add_decayed_weights`; None is all. It says nothing about AdamW's parameters.
      adam_b1, adam_b2, adam_eps_root: of AdamW.
      adam_weight_decay: of AdamW, for all of its parameters, biases and norms too, as in Optax; `partition` with an `adamw` of its
        own decays some of them.
      adam_learning_rate: of AdamW; None is `learning_rate`.
      muon_weight_dimension_numbers: `matrix_axes({...})` with rules of your own, or a tree of `MuonDimensionNumbers` with None for
        AdamW, or a function from the parameters to one. None is `matrix_axes()`.
      consistent_rms: as in `scale_by_shape`.
      cautious_weight_decay: whether matrices decay only where that agrees with the update, as in `add_cautious_decayed_weights`.
      neuron_beta: None, or the decay of NorMuon's running sizes of output neurons, as in `scale_by_normuon`; 0.95 there.
      method, compute_dtype, precision, distribute: as in `scale_by_msign`.

    State: `PartitionState` with labels `muon` (4 bytes a parameter) and `adam` (8).

    Returns:
      The transformation; its update needs `params`.

    Raises:
      ValueError, TypeError: an argument outside its domain, or a parameter of three or more axes that no rule names.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"dense": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}, "head": {"kernel": jnp.ones((8, 10))}}
      >>> tx = gradtx.muon(0.02, weight_decay=0.1)
      >>> print(gradtx.explain(tx, params))
      parameter     shape    to    why
      dense/bias    (8,)     adam  a vector
      dense/kernel  (4, 8)   muon  a matrix: inputs (0,), outputs (1,)
      head/kernel   (8, 10)  adam  an output head, by the name 'head'

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; consistent_rms: Liu et al. 2025, arXiv:2502.16982.

    **Differs:** Optax sends every leaf of two axes to Muon, embeddings and heads too, and every other to Adam without a word.
    """

    learning_rate: Rate
    ns_coeffs: Any = (3.4445, -4.7750, 2.0315)
    ns_steps: PositiveInt = 5
    beta: Decay = 0.95
    eps: NonNegative = 1e-8
    weight_decay: Rate = 0.0
    weight_decay_mask: Mask | None = None
    mu_dtype: FloatDType | None = None
    _: KW_ONLY
    nesterov: Flag = True
    adaptive: Flag = False
    preconditioning: Preconditioning = "frobenius"
    adam_b1: Decay = 0.9
    adam_b2: Decay = 0.999
    adam_eps_root: NonNegative = 0.0
    adam_weight_decay: Rate = 0.0
    adam_learning_rate: Rate | None = None
    muon_weight_dimension_numbers: Any = None
    consistent_rms: NonNegative | None = None
    method: Method = "auto"
    cautious_weight_decay: Flag = False
    neuron_beta: Decay | None = None
    compute_dtype: FloatDType | None = None
    precision: Any = None
    distribute: Any = None

    def chain(self) -> Any:
        numbers = matrix_axes() if self.muon_weight_dimension_numbers is None else self.muon_weight_dimension_numbers

        def labels(params: Any) -> Any:
            entries = numbers_for("muon_weight_dimension_numbers", numbers, params)
            return jax.tree.structure(params).unflatten(["adam" if entry is None else "muon" for entry in entries])

        matrices = chain(
            scale_by_muon(
                self.ns_coeffs,
                self.ns_steps,
                self.beta,
                self.eps,
                self.mu_dtype,
                nesterov=self.nesterov,
                adaptive=self.adaptive,
                preconditioning=self.preconditioning,
                weight_dimension_numbers=numbers,
                method=self.method,
                compute_dtype=self.compute_dtype,
                precision=self.precision,
                distribute=self.distribute,
            ),
            scale_by_shape(numbers, self.consistent_rms),
            *([] if self.neuron_beta is None else [scale_by_normuon(self.neuron_beta, weight_dimension_numbers=numbers)]),
            (add_cautious_decayed_weights if self.cautious_weight_decay else add_decayed_weights)(
                self.weight_decay, self.weight_decay_mask
            ),
            scale_by_learning_rate(self.learning_rate),
        )
        rest = adamw(
            self.learning_rate if self.adam_learning_rate is None else self.adam_learning_rate,
            self.adam_b1,
            self.adam_b2,
            self.eps,
            self.adam_eps_root,
            self.mu_dtype,
            self.adam_weight_decay,
            nesterov=self.nesterov,
        )
        return partition({"muon": matrices, "adam": rest}, labels)
