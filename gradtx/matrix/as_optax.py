"""`optax.contrib.muon` and `scale_by_muon` with all of Optax's arguments, as chains of links."""

import jax
import numpy as np

from gradtx.compose.chain import chain
from gradtx.compose.partition import partition
from gradtx.core.checked import checked
from gradtx.core.domains import Decay, Flag, FloatDType, Mask, NonNegative, PositiveInt, Rate
from gradtx.core.leaves import is_masked_or_none
from gradtx.core.transformation import Transformation
from gradtx.core.types import Params, Tree
from gradtx.core.value import Value
from gradtx.linalg.coefficients import Coefficients
from gradtx.matrix.dimensions import MatrixRule, MuonDimensionNumbers
from gradtx.matrix.muon import Preconditioning, scale_by_shape, with_optax_names
from gradtx.matrix.orthogonalize import scale_by_dual_norm
from gradtx.matrix.routing import muon_labels
from gradtx.optimizers.adam import adamw
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import ema
from gradtx.transforms.scaling import scale_by_learning_rate


@checked
def scale_by_muon(
    ns_coeffs: Coefficients = (3.4445, -4.7750, 2.0315),
    ns_steps: PositiveInt = 5,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    mu_dtype: FloatDType | None = None,
    *,
    nesterov: Flag = True,
    adaptive: Flag = False,
    preconditioning: Preconditioning = "frobenius",
    weight_dimension_numbers: MatrixRule | None = None,
) -> Transformation:
    """Muon's direction with Optax's arguments: an average of gradients, then Newton-Schulz.

    It is `chain(ema(beta, accumulator_dtype=mu_dtype, nesterov=nesterov), orthogonalize(...))`:
    write that where you need more.

    Args:
      ns_coeffs, ns_steps, beta, eps, preconditioning: as in `gradtx.muon`.
      mu_dtype: dtype in which the momentum is stored; None is float32, or wider for wider
        parameters.
      nesterov: whether to look one step ahead.
      adaptive: whether to multiply updates by the dual norm `<m, msign(m)>` of the momentum, as
        `scale_by_dual_norm` does.
      weight_dimension_numbers: as in `gradtx.orthogonalize`.

    Returns:
      A chain of links; its state is `(EmaState(count, ema), EmptyState())`, 4 bytes a parameter.

    Example:
      >>> import jax.numpy as jnp, gradtx.optax as optax
      >>> tx = optax.contrib.scale_by_muon("polar_express", 8)
      >>> grads = jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> (updates @ updates.T).round(3)
      Array([[1., 0.],
             [0., 1.]], dtype=float32)

    **Differs:** the same numbers as Optax, computed on Gram matrices where that is cheaper, but
    free of scale: matrices are scaled by a power of two before `eps` matters. Vectors, single rows
    and columns, and matrices with orthogonal rows are exact. Coefficients are no part of the state.
    Optax's moments of half-precision parameters are in half precision.
    """
    direction: Transformation = with_optax_names(
        "scale_by_muon", ns_coeffs, ns_steps, preconditioning, eps=eps, weight_dimension_numbers=weight_dimension_numbers
    )
    if adaptive:
        direction = scale_by_dual_norm(direction)
    return chain(ema(beta, accumulator_dtype=mu_dtype, nesterov=nesterov), direction)


class _leaves_of_two_axes(Value):
    """Optax's rule: leaves of two axes are matrices (in, out), whatever their names."""

    def __call__(self, params: Params) -> Tree:
        def numbers(leaf: Tree) -> Tree:
            return leaf if is_masked_or_none(leaf) else MuonDimensionNumbers() if np.ndim(leaf) == 2 else None

        return jax.tree.map(numbers, params, is_leaf=is_masked_or_none)


@checked
def muon(
    learning_rate: Rate,
    ns_coeffs: Coefficients = (3.4445, -4.7750, 2.0315),
    ns_steps: PositiveInt = 5,
    beta: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: Rate = 0.0,
    weight_decay_mask: Mask | None = None,
    mu_dtype: FloatDType | None = None,
    *,
    nesterov: Flag = True,
    adaptive: Flag = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: Decay = 0.9,
    adam_b2: Decay = 0.999,
    adam_eps_root: NonNegative = 0.0,
    adam_weight_decay: Rate = 0.0,
    adam_learning_rate: Rate | None = None,
    muon_weight_dimension_numbers: MatrixRule | None = None,
    consistent_rms: NonNegative | None = None,
) -> Transformation:
    """Muon with all of Optax's arguments and its rule: leaves of two axes to Muon, others to AdamW.

    Args:
      learning_rate, ns_coeffs, ns_steps, beta, eps, weight_decay, weight_decay_mask: as in
        `gradtx.muon`.
      preconditioning, adam_learning_rate, consistent_rms: as in `gradtx.muon`.
      muon_weight_dimension_numbers: as there, but None takes leaves of two axes, embeddings and
        output heads among them; `gradtx.matrix_axes()` is the rule of `gradtx.muon`.
      mu_dtype, nesterov: of the momentum of either half.
      adaptive: as in `scale_by_muon`.
      adam_b1, adam_b2, adam_eps_root: of AdamW.
      adam_weight_decay: of AdamW, for all of its parameters, biases and norms too.

    Returns:
      A partition with labels `muon` and `adam`, which `gradtx.explain` explains; its update needs
      `params`.

    Example:
      >>> import jax.numpy as jnp, gradtx, gradtx.optax as optax
      >>> tx = optax.contrib.muon(0.02, nesterov=False, adam_b1=0.8)
      >>> print(gradtx.explain(tx, {"kernel": jnp.ones((4, 8))}).splitlines()[1])
      kernel     (4, 8)  muon  given: inputs (0,), outputs (1,)

    **Differs:** as `scale_by_muon`, and the state of the matrices is that of the links, `EmaState`
    first.
    """
    given = muon_weight_dimension_numbers is not None
    labels = muon_labels(muon_weight_dimension_numbers if given else _leaves_of_two_axes())
    axes = labels.axes
    momentum = {"nesterov": nesterov, "adaptive": adaptive, "preconditioning": preconditioning}
    signs = scale_by_muon(ns_coeffs, ns_steps, beta, eps, mu_dtype, **momentum, weight_dimension_numbers=axes)
    matrices = chain(
        *signs.inside,
        scale_by_shape(weight_dimension_numbers=axes)
        if consistent_rms is None
        else scale_by_shape("rms", consistent_rms, weight_dimension_numbers=axes),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    rest = adamw(rate, adam_b1, adam_b2, eps, adam_eps_root, mu_dtype, adam_weight_decay, nesterov=nesterov)
    return partition({"muon": matrices, "adam": rest}, labels)
