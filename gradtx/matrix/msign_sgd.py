"""Steepest descent in the spectral norm, with momentum: Muon in its plainest form."""

from dataclasses import KW_ONLY

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Mask, PositiveInt, Rate
from gradtx.core.transformation import Transformation
from gradtx.linalg.coefficients import Coefficients
from gradtx.matrix.dimensions import MatrixRule
from gradtx.matrix.orthogonalize import orthogonalize
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate


class msign_sgd(Preset):
    """The matrix sign of a momentum: `-learning_rate * (msign(m) + weight_decay * p)`.

    With `m = beta*m + g`. Every matrix moves by `learning_rate` in spectral norm; vectors by as
    much along `m`, and numbers by its sign: it is to matrices what `signum` is to elements. No
    scale by shape, no Nesterov momentum, no AdamW beside it: `muon` has these. Its update needs
    `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each matrix by 1 in spectral norm.
      beta: decay of the momentum, in [0, 1).
      weight_decay: number >= 0 or schedule; each step shrinks parameters by the factor
        `1 - learning_rate * weight_decay`.
      mask: which parameters decay: a tree of booleans (or a prefix of one), or a function from the
        parameters to one, such as `by_path({...: False}, default=True)`. None is all.
      coefficients: of the Newton-Schulz steps: 'polar_express' (minimax), 'jordan', 'dion',
        'quintic', one row of three numbers, or a table of rows; see `gradtx.linalg.msign`.
      steps: number of steps, >= 1; None is 4 for 'polar_express', 5 for the other names and for one
        row, or the rows of a table.
      weight_dimension_numbers: which axes make a matrix: a tree of `MuonDimensionNumbers` (None
        where a leaf is no matrix), or a function from the parameters to one, such as `matrix_axes`.
        None takes leaves of two axes as matrices (in, out) and refuses those of more.

    State: `(TraceState, EmptyState, WeightDecayState, ScaleByLearningRateState)`; 4 bytes a
      parameter.

    Raises:
      ValueError: a leaf of three or more axes without dimension numbers.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.msign_sgd(0.1), jnp.zeros((2, 2))
      >>> updates, _ = tx.update(jnp.array([[3.0, 0.0], [0.0, -0.5]]), tx.init(params), params)
      >>> [round(float(u), 3) for u in jnp.diag(updates)]
      [-0.1, 0.1]

    Source: Bernstein and Newhouse 2024, arXiv:2409.20325, proposition 5.
    """

    learning_rate: Rate
    beta: Decay = 0.95
    weight_decay: Rate = 0.0
    mask: Mask | None = None
    _: KW_ONLY
    coefficients: Coefficients = "polar_express"
    steps: PositiveInt | None = None
    weight_dimension_numbers: MatrixRule | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stands_for  # noqa: B018  # wrong coefficients fail here, not at the first step

    def chain(self) -> Transformation:
        return chain(
            trace(self.beta),
            orthogonalize(self.coefficients, self.steps, weight_dimension_numbers=self.weight_dimension_numbers),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )
