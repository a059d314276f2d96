"""Scion: steps to the edge of a ball, in a norm of its own for every kind of layer."""

import functools
import math
from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.core.composites import Preset
from gradtx.core.domains import Decay, Domain, Flag, NonNegative, Rate
from gradtx.core.numerics import abs_sq, guarded_ratio
from gradtx.core.transformation import EmptyState, Transformation
from gradtx.core.types import ExtraArg, Params, Updates
from gradtx.matrix.dimensions import MuonDimensionNumbers, axes_of, fan
from gradtx.matrix.norm_balls import BallRule, Balls, NormBall, balls_once, norm_balls, spatial_size
from gradtx.matrix.orthogonalize import orthogonalize
from gradtx.matrix.parts import each_part
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import ema
from gradtx.transforms.scaling import scale_by_learning_rate

ORTHOGONALIZE = Domain("gradtx.orthogonalize(...)", lambda value: isinstance(value, orthogonalize))
Orthogonalize = Annotated[orthogonalize, ORTHOGONALIZE]

JORDAN = orthogonalize("jordan", normalization="frobenius", eps=1e-7)
"""The matrix signs of the authors' code."""


class scale_by_lmo(Transformation, keeps_zero=True):
    """The point of a norm's ball furthest along the updates: `radius * argmax <u, d>, |d| <= 1`.

    For a matrix `u = U S V^T` of `in` inputs and `out` outputs the direction `d` is, by norm:

    - 'spectral': `sqrt(out/in) U V^T`, for weights inside a network.
    - 'spectral_conv': the same over the number of places that a convolution sums over, with its
      channels as `in`.
    - 'sign': `sign(u) / in`, for output heads and the embeddings that share them.
    - 'column': the outputs of each input over their root mean square, for embeddings (of one-hot
      inputs).
    - 'row': the inputs of each output over `sqrt(in)` times their norm, for output heads.
    - 'rms': for vectors, `u` over its root mean square along the last axis.

    So steps have one size in units of the layer's inputs and outputs, whatever the gradient's, and
    learning rates carry over between widths.

    Args:
      balls: the norm and radius of every parameter: a tree of `NormBall` (or one for all), or a
        function from the parameters to one, such as `norm_balls({...})` or `by_path({...})`.
      eps: added to norms and root mean squares, >= 0; in units of the update.
      spectral: how matrix signs are made: an `orthogonalize` without dimension numbers.

    State: `EmptyState()`, 0 bytes.

    Raises:
      ValueError: a ball that does not fit its leaf.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = {"head": jnp.array([[3.0, -0.5], [0.2, 0.0]]), "bias": jnp.array([3.0, -1.0])}
      >>> balls = {"head": gradtx.NormBall("sign", 10.0), "bias": gradtx.NormBall("rms")}
      >>> tx = gradtx.scale_by_lmo(balls)
      >>> updates, _ = tx.update(params, tx.init(params))
      >>> updates["head"], [round(float(u), 3) for u in updates["bias"]]
      (Array([[ 5., -5.],
             [ 5.,  0.]], dtype=float32), [1.342, -0.447])

    Source: Pethick et al. 2025, "Training Deep Learning Models with Norm-Constrained LMOs",
    arXiv:2502.07529, table 3; https://github.com/LIONS-EPFL/scion.

    **Differs:** the authors' `normalized=False` is a radius times `sqrt(in)` ('spectral', 'row') or
    `in` ('sign') here, `normalized=True` of 'column' a radius over `in`.
    """

    balls: BallRule = norm_balls()
    eps: NonNegative = 1e-8
    _: KW_ONLY
    spectral: Orthogonalize = JORDAN

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spectral.weight_dimension_numbers is not None:
            raise ValueError(
                "scale_by_lmo: spectral has weight_dimension_numbers, expected an orthogonalize(...) without: a NormBall has them."
            )

    @functools.cached_property
    def ball_of(self) -> Callable[[Params], Balls]:
        """The ball of each leaf."""
        return balls_once("balls", self.balls)

    def init(self, params: Params) -> EmptyState:
        self.ball_of(params)  # a ball that does not fit fails here, not at the first step
        return EmptyState()

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, EmptyState]:
        leaves, treedef = jax.tree.flatten(updates)
        balls = self.ball_of(updates)
        matrices = [i for i, ball in enumerate(balls) if ball is not None and ball.norm.startswith("spectral")]
        numbers = [_numbers(balls[i]) for i in matrices]
        signs = self.spectral.signs([leaves[i] for i in matrices], numbers, updates, matrices)
        for i, sign in zip(matrices, signs, strict=True):
            leaves[i] = sign
        for i, ball in enumerate(balls):
            if ball is not None:
                leaves[i] = (ball.radius * self.directed(leaves[i], ball)).astype(leaves[i].dtype)
        return treedef.unflatten(leaves), state

    def directed(self, u: jax.Array, ball: NormBall) -> jax.Array:
        """The direction `d` for one leaf; of 'spectral' norms `u` is the matrix sign already."""
        if ball.norm == "rms":
            return self.over_root_of_mean(u, (-1,)) if u.ndim else guarded_ratio(u, jnp.abs(u) + self.eps, self.eps)
        return each_part(functools.partial(self.in_unit_ball, ball.norm), u, _numbers(ball))

    def in_unit_ball(self, norm: str, u: jax.Array, numbers: MuonDimensionNumbers) -> jax.Array:
        """The direction for the matrices of one part."""
        inputs, outputs = fan(numbers, u.shape)
        _, input_axes, output_axes = axes_of(numbers, u.ndim)
        if norm == "spectral":
            return u * math.sqrt(outputs / inputs)
        if norm == "spectral_conv":
            places = spatial_size(numbers, u.shape)
            return u * (math.sqrt(outputs / (inputs // places)) / places)
        if norm == "sign":
            return jnp.sign(u) / inputs
        if norm == "column":
            return self.over_root_of_mean(u, output_axes)
        norms = jnp.sqrt(jnp.sum(abs_sq(u), axis=input_axes, keepdims=True))
        return guarded_ratio(u, math.sqrt(inputs) * norms + self.eps, self.eps)

    def over_root_of_mean(self, u: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        """`u / rms(u)` along some axes."""
        return guarded_ratio(u, jnp.sqrt(jnp.mean(abs_sq(u), axis=axes, keepdims=True)) + self.eps, self.eps)


def _numbers(ball: NormBall | None) -> MuonDimensionNumbers:
    """Those of a ball of matrices, which `balls_once` has filled in."""
    assert ball is not None
    assert ball.weight_dimension_numbers is not None
    return ball.weight_dimension_numbers


class scion(Preset):
    """Scion: `-learning_rate * (radius * lmo(m) + p)`, which stays in the ball (Frank-Wolfe).

    `m = beta*m + (1-beta)*g`, without bias correction, and `lmo(m)` is the direction of
    `scale_by_lmo` in each parameter's norm. A learning rate in [0, 1] keeps a parameter in its ball
    once it is in it, so no weight decay is needed. Without `constrained` the term `p` is missing,
    and parameters may go anywhere. Its update needs `params`.

    Args:
      learning_rate: number >= 0 or schedule; one unit moves each parameter all the way to the edge
        of its ball. The authors' for NanoGPT is `2**-12`.
      beta: decay of the momentum, in [0, 1); the authors' `momentum` is `1 - beta`.
      balls: the norm and radius of every parameter: a tree of `NormBall` (or one for all), or a
        function from the parameters to one, such as `norm_balls({...})` or `by_path({...})`.
      constrained: whether parameters shrink by the factor `1 - learning_rate` at each step.
      eps: added to norms and root mean squares, >= 0; in units of the update.
      spectral: how matrix signs are made: an `orthogonalize` without dimension numbers.

    State: `(EmaState, EmptyState, WeightDecayState, ScaleByLearningRateState)`, without the third
      where nothing is `constrained`; 4 bytes a parameter.

    Raises:
      ValueError: a ball that does not fit its leaf.

    Example:
      >>> import gradtx
      >>> balls = gradtx.norm_balls({"wte": gradtx.NormBall("column", 10.0)}, radius=30.0)
      >>> tx = gradtx.scion(gradtx.linear_schedule(2**-12, 0.0, 5000), balls=balls)

    Source: Pethick et al. 2025, "Training Deep Learning Models with Norm-Constrained LMOs",
    arXiv:2502.07529, algorithms 1 and 2; https://github.com/LIONS-EPFL/scion.

    **Differs:** the authors' code takes its matrix signs in bfloat16:
    `spectral=gradtx.orthogonalize("jordan", dtype="bfloat16")`.
    """

    learning_rate: Rate
    beta: Decay = 0.9
    balls: BallRule = norm_balls()
    _: KW_ONLY
    constrained: Flag = True
    eps: NonNegative = 1e-8
    spectral: Orthogonalize = JORDAN

    def chain(self) -> Transformation:
        shrink = [add_decayed_weights(1.0)] if self.constrained else []
        directions = scale_by_lmo(self.balls, self.eps, spectral=self.spectral)
        return chain(ema(self.beta, debias=False), directions, *shrink, scale_by_learning_rate(self.learning_rate))
