"""gradtx: composable gradient transformations for JAX, in the manner of Optax.

>>> import jax.numpy as jnp, gradtx
>>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3, weight_decay=0.1))
>>> params = {"w": jnp.ones(3)}
>>> updates, state = tx.update({"w": jnp.ones(3)}, tx.init(params), params)
>>> params = gradtx.apply_updates(params, updates)
>>> sorted(gradtx.metrics(state))
['clip_fraction', 'grad_norm', 'learning_rate']
"""

import importlib as _importlib

from gradtx import diagnostics, projections, sampling, schedules, tree
from gradtx.compose.chain import chain, named_chain
from gradtx.compose.conditional import (
    ConditionallyMaskState,
    ConditionallyTransformState,
    conditionally_mask,
    conditionally_transform,
)
from gradtx.compose.evaluation import eval_params
from gradtx.compose.inject import InjectHyperparamsState, inject_hyperparams
from gradtx.compose.labels import by_path
from gradtx.compose.masking import MaskedState, freeze, masked
from gradtx.compose.partition import PartitionState, multi_transform, partition, selective_transform
from gradtx.compose.plain import (
    GradientTransformationExtraArgs,
    identity,
    set_to_zero,
    stateless,
    stateless_with_tree_map,
    to_optax,
    with_extra_args_support,
)
from gradtx.core import checks as _checks
from gradtx.core.apply import apply_updates, incremental_update, periodic_update
from gradtx.core.checks import ScalarOrSchedule, Schedule
from gradtx.core.config import from_config, to_config
from gradtx.core.leaves import MaskedNode, each_leaf, zeros_like
from gradtx.core.numerics import safe_increment
from gradtx.core.paths import path_str
from gradtx.core.transformation import (
    EmptyState,
    GradientTransformation,
    Inner,
    OptState,
    Params,
    Preset,
    Transformation,
    Updates,
    Wrapper,
)
from gradtx.core.value import Value
from gradtx.diagnostics.lr_range import lr_range_test
from gradtx.diagnostics.metrics import MonitorState, SnapshotState, metrics, monitor, snapshot
from gradtx.diagnostics.stopping import EarlyStoppingState, early_stopping
from gradtx.diagnostics.summary import summary
from gradtx.linalg.coefficients import polar_express
from gradtx.linalg.msign import msign
from gradtx.matrix.dimensions import MuonDimensionNumbers
from gradtx.matrix.distribute import Distribution
from gradtx.matrix.explain import explain
from gradtx.matrix.muon import muon, scale_by_shape
from gradtx.matrix.normuon import ScaleByNormuonState, scale_by_normuon
from gradtx.matrix.orthogonalize import ScaleByDualNormState, orthogonalize, scale_by_dual_norm
from gradtx.matrix.routing import matrix_axes, muon_labels
from gradtx.optimizers.accelegrad import AccelegradState, accelegrad
from gradtx.optimizers.adagrad import (
    ScaleByAdagradNormState,
    ScaleByRssState,
    adagrad,
    adagrad_norm,
    scale_by_adagrad_norm,
    scale_by_rss,
)
from gradtx.optimizers.adagrad_full_matrix import (
    ScaleByFullMatrixAdagradState,
    adagrad_full_matrix,
    scale_by_full_matrix_adagrad,
)
from gradtx.optimizers.adam import ScaleByAdamState, adam, adamw, nadam, nadamw, scale_by_adam
from gradtx.optimizers.adamax import adamax, adamaxw, scale_by_adamax
from gradtx.optimizers.amsgrad import ScaleByAmsgradState, amsgrad, scale_by_amsgrad
from gradtx.optimizers.bfgs import ScaleByBFGSState, bfgs, scale_by_bfgs
from gradtx.optimizers.lbfgs import ScaleByLBFGSState, lbfgs, scale_by_lbfgs
from gradtx.optimizers.lion import ScaleByLionState, lion, scale_by_lion
from gradtx.optimizers.minimize import MinimizeResult, minimize
from gradtx.optimizers.newton import newton, scale_by_newton
from gradtx.optimizers.noisy import PerturbedGdState, perturbed_gd, perturbed_sgd, sgld
from gradtx.optimizers.novograd import ScaleByNovogradState, novograd, scale_by_novograd
from gradtx.optimizers.projected_amsgrad import ProjectedAmsgradState, projected_amsgrad
from gradtx.optimizers.radam import radam, scale_by_radam
from gradtx.optimizers.ranger import ranger
from gradtx.optimizers.rmsprop import ScaleByRmsState, ScaleByRStdDevState, rmsprop, scale_by_rms, scale_by_stddev
from gradtx.optimizers.sgd import noisy_sgd, sgd, sgdw
from gradtx.optimizers.sign import sign_sgd, signum
from gradtx.optimizers.storm import StormPlusState, StormState, storm, storm_plus
from gradtx.optimizers.unixgrad import UnixgradState, unixgrad
from gradtx.schedules import (
    constant_schedule,
    cosine_annealing_schedule,
    cosine_decay_schedule,
    cosine_onecycle_schedule,
    exponential_decay,
    inverse_sqrt_schedule,
    join_schedules,
    linear_onecycle_schedule,
    linear_schedule,
    natural_exponential_decay,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
    polynomial_schedule,
    sgdr_schedule,
    step_decay_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
    warmup_stable_decay_schedule,
)
from gradtx.transforms.backtracking import (
    BacktrackingLinesearchInfo,
    ScaleByBacktrackingLinesearchState,
    scale_by_backtracking_linesearch,
)
from gradtx.transforms.clipping import (
    ClipByGlobalNormState,
    adaptive_grad_clip,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
    per_example_global_norm_clip,
    per_example_layer_norm_clip,
    unitwise_norm,
)
from gradtx.transforms.constraints import ZeroNansState, keep_params_nonnegative, zero_nans
from gradtx.transforms.decay import WeightDecayState, add_cautious_decayed_weights, add_decayed_weights
from gradtx.transforms.linesearch import value_and_grad_from_state
from gradtx.transforms.momentum import EmaState, TraceState, ema, measure_with_ema, trace
from gradtx.transforms.noise import (
    AddLangevinNoiseState,
    AddNoiseState,
    AddSphereNoiseState,
    add_langevin_noise,
    add_noise,
    add_sphere_noise,
)
from gradtx.transforms.normalization import NormalizeByUpdateNormState, centralize, normalize_by_update_norm
from gradtx.transforms.plateau import ReduceLROnPlateauState, reduce_on_plateau
from gradtx.transforms.scaling import (
    ScaleByLearningRateState,
    ScaleByScheduleState,
    scale,
    scale_by_learning_rate,
    scale_by_param_block_norm,
    scale_by_param_block_rms,
    scale_by_schedule,
    scale_by_sign,
    scale_by_trust_ratio,
)
from gradtx.transforms.zoom import ScaleByZoomLinesearchState, ZoomLinesearchInfo, scale_by_zoom_linesearch
from gradtx.tree import global_norm
from gradtx.wrappers.accumulate import AccumulateState, ApplyEveryState, accumulate, apply_every, microbatched
from gradtx.wrappers.adversarial import SAMState, normalize, sam
from gradtx.wrappers.averaging import EmaParamsState, SwaState, ema_params, swa
from gradtx.wrappers.cautious import CautiousState, cautious
from gradtx.wrappers.lookahead import LookaheadParams, LookaheadState, lookahead, lookahead_wrapper
from gradtx.wrappers.momentum_sam import MomentumSamState, momentum_sam
from gradtx.wrappers.multi_steps import MultiSteps, MultiStepsState, skip_large_updates, skip_not_finite
from gradtx.wrappers.nonfinite import (
    ApplyIfFiniteState,
    SkipNonfiniteState,
    SkipSpikesState,
    apply_if_finite,
    skip_nonfinite,
    skip_spikes,
)
from gradtx.wrappers.sam import SamWrapperState, asam, sam_wrapper
from gradtx.wrappers.sam_gradient import sam_value_and_grad
from gradtx.wrappers.sam_variants import LooksamState, gsam, looksam
from gradtx.wrappers.schedule_free import (
    ScheduleFreeState,
    schedule_free,
    schedule_free_adamw,
    schedule_free_eval_params,
    schedule_free_sgd,
)

__version__ = "0.1.0"


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> object:
    """Says what to do where code written for Optax asks for what gradtx has not."""
    hint = "" if name.startswith("_") else _importlib.import_module("gradtx.optax").hint(name)
    hint = f" {hint}" if hint else _checks.did_you_mean(name, __all__)
    raise AttributeError(f"module 'gradtx' has no attribute {name!r}.{hint}")


__all__ = [
    "AccelegradState",
    "AccumulateState",
    "AddLangevinNoiseState",
    "AddNoiseState",
    "AddSphereNoiseState",
    "ApplyEveryState",
    "ApplyIfFiniteState",
    "BacktrackingLinesearchInfo",
    "CautiousState",
    "ClipByGlobalNormState",
    "ConditionallyMaskState",
    "ConditionallyTransformState",
    "Distribution",
    "EarlyStoppingState",
    "EmaParamsState",
    "EmaState",
    "EmptyState",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "InjectHyperparamsState",
    "Inner",
    "LookaheadParams",
    "LookaheadState",
    "LooksamState",
    "MaskedNode",
    "MaskedState",
    "MinimizeResult",
    "MomentumSamState",
    "MonitorState",
    "MultiSteps",
    "MultiStepsState",
    "MuonDimensionNumbers",
    "NormalizeByUpdateNormState",
    "OptState",
    "Params",
    "PartitionState",
    "PerturbedGdState",
    "Preset",
    "ProjectedAmsgradState",
    "ReduceLROnPlateauState",
    "SAMState",
    "SamWrapperState",
    "ScalarOrSchedule",
    "ScaleByAdagradNormState",
    "ScaleByAdamState",
    "ScaleByAmsgradState",
    "ScaleByBFGSState",
    "ScaleByBacktrackingLinesearchState",
    "ScaleByDualNormState",
    "ScaleByFullMatrixAdagradState",
    "ScaleByLBFGSState",
    "ScaleByLearningRateState",
    "ScaleByLionState",
    "ScaleByNormuonState",
    "ScaleByNovogradState",
    "ScaleByRStdDevState",
    "ScaleByRmsState",
    "ScaleByRssState",
    "ScaleByScheduleState",
    "ScaleByZoomLinesearchState",
    "Schedule",
    "ScheduleFreeState",
    "SkipNonfiniteState",
    "SkipSpikesState",
    "SnapshotState",
    "StormPlusState",
    "StormState",
    "SwaState",
    "TraceState",
    "Transformation",
    "UnixgradState",
    "Updates",
    "Value",
    "WeightDecayState",
    "Wrapper",
    "ZeroNansState",
    "ZoomLinesearchInfo",
    "accelegrad",
    "accumulate",
    "adagrad",
    "adagrad_full_matrix",
    "adagrad_norm",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adaptive_grad_clip",
    "add_cautious_decayed_weights",
    "add_decayed_weights",
    "add_langevin_noise",
    "add_noise",
    "add_sphere_noise",
    "amsgrad",
    "apply_every",
    "apply_if_finite",
    "apply_updates",
    "asam",
    "bfgs",
    "by_path",
    "cautious",
    "centralize",
    "chain",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "conditionally_mask",
    "conditionally_transform",
    "constant_schedule",
    "cosine_annealing_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "diagnostics",
    "each_leaf",
    "early_stopping",
    "ema",
    "ema_params",
    "eval_params",
    "explain",
    "exponential_decay",
    "freeze",
    "from_config",
    "global_norm",
    "gsam",
    "identity",
    "incremental_update",
    "inject_hyperparams",
    "inverse_sqrt_schedule",
    "join_schedules",
    "keep_params_nonnegative",
    "lbfgs",
    "linear_onecycle_schedule",
    "linear_schedule",
    "lion",
    "lookahead",
    "lookahead_wrapper",
    "looksam",
    "lr_range_test",
    "masked",
    "matrix_axes",
    "measure_with_ema",
    "metrics",
    "microbatched",
    "minimize",
    "momentum_sam",
    "monitor",
    "msign",
    "multi_transform",
    "muon",
    "muon_labels",
    "nadam",
    "nadamw",
    "named_chain",
    "natural_exponential_decay",
    "newton",
    "noisy_sgd",
    "normalize",
    "normalize_by_update_norm",
    "novograd",
    "orthogonalize",
    "partition",
    "path_str",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
    "periodic_update",
    "perturbed_gd",
    "perturbed_sgd",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polar_express",
    "polynomial_schedule",
    "projected_amsgrad",
    "projections",
    "radam",
    "ranger",
    "reduce_on_plateau",
    "rmsprop",
    "safe_increment",
    "sam",
    "sam_value_and_grad",
    "sam_wrapper",
    "sampling",
    "scale",
    "scale_by_adagrad_norm",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_amsgrad",
    "scale_by_backtracking_linesearch",
    "scale_by_bfgs",
    "scale_by_dual_norm",
    "scale_by_full_matrix_adagrad",
    "scale_by_lbfgs",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_newton",
    "scale_by_normuon",
    "scale_by_novograd",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_shape",
    "scale_by_sign",
    "scale_by_stddev",
    "scale_by_trust_ratio",
    "scale_by_zoom_linesearch",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
    "schedules",
    "selective_transform",
    "set_to_zero",
    "sgd",
    "sgdr_schedule",
    "sgdw",
    "sgld",
    "sign_sgd",
    "signum",
    "skip_large_updates",
    "skip_nonfinite",
    "skip_not_finite",
    "skip_spikes",
    "snapshot",
    "stateless",
    "stateless_with_tree_map",
    "step_decay_schedule",
    "storm",
    "storm_plus",
    "summary",
    "swa",
    "to_config",
    "to_optax",
    "trace",
    "tree",
    "unitwise_norm",
    "unixgrad",
    "value_and_grad_from_state",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "warmup_stable_decay_schedule",
    "with_extra_args_support",
    "zero_nans",
    "zeros_like",
]
