"""Seeing what an optimizer does: curvature, flatness, landscapes, summaries, pictures.

Functions of a `loss_fn(params, *batch)`, a mean over its batch, and of any tree of parameters.
Where `batches` is taken, it is `()` for a `loss_fn` of the parameters alone; a tuple, one batch,
`(x, y)`, which `batch_size` cuts to save memory; or any other iterable of such tuples. Batches
count by their sizes. Results are named tuples of arrays; `gradtx.diagnostics.plots` draws them.
"""

from gradtx.diagnostics.cost import Collective, StepCost, step_cost
from gradtx.diagnostics.curvature import (
    Eigenpairs,
    Estimate,
    SpectralDensity,
    gauss_newton_vp,
    hessian_trace,
    hvp,
    spectral_density,
    top_eigenvalues,
)
from gradtx.diagnostics.flatness import Flatness, average_flatness, sam_sharpness
from gradtx.diagnostics.landscape import (
    Landscape1D,
    Landscape2D,
    Plane,
    landscape_1d,
    landscape_2d,
    random_direction,
    trajectory_plane,
)
from gradtx.diagnostics.lr_range import LearningRates, lr_range_test
from gradtx.diagnostics.noise_scale import GradientNoise, gradient_noise, with_noise_scale
from gradtx.diagnostics.summary import ParameterSummary, Summary, summary
from gradtx.diagnostics.widths import CoordinateCheck, coordinate_check
from gradtx.linalg.eigen import Ritz, Tridiagonal, lanczos, ritz

__all__ = [
    "Collective",
    "CoordinateCheck",
    "Eigenpairs",
    "Estimate",
    "Flatness",
    "GradientNoise",
    "Landscape1D",
    "Landscape2D",
    "LearningRates",
    "ParameterSummary",
    "Plane",
    "Ritz",
    "SpectralDensity",
    "StepCost",
    "Summary",
    "Tridiagonal",
    "average_flatness",
    "coordinate_check",
    "gauss_newton_vp",
    "gradient_noise",
    "hessian_trace",
    "hvp",
    "lanczos",
    "landscape_1d",
    "landscape_2d",
    "lr_range_test",
    "random_direction",
    "ritz",
    "sam_sharpness",
    "spectral_density",
    "step_cost",
    "summary",
    "top_eigenvalues",
    "trajectory_plane",
    "with_noise_scale",
]
