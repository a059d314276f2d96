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

from gradtx import diagnostics, domains, projections, sampling, schedules, tree
from gradtx.compose.chain import chain, named_chain
from gradtx.compose.conditional import conditionally_mask, conditionally_transform
from gradtx.compose.evaluation import eval_params
from gradtx.compose.inject import inject_hyperparams
from gradtx.compose.labels import by_path
from gradtx.compose.masking import freeze, masked
from gradtx.compose.partition import partition, selective_transform
from gradtx.compose.plain import identity, set_to_zero, stateless, stateless_with_tree_map, to_optax
from gradtx.core import checks as _checks
from gradtx.core.apply import incremental_update, periodic_update
from gradtx.core.composites import Preset, Wrapper
from gradtx.core.config import from_config, to_config
from gradtx.core.domains import ScalarOrSchedule, Schedule
from gradtx.core.leaves import MaskedNode, each_leaf, zeros_like
from gradtx.core.numerics import safe_increment
from gradtx.core.pairs import GradientTransformation, Inner
from gradtx.core.paths import path_str
from gradtx.core.transformation import EmptyState, Transformation
from gradtx.core.types import OptState, Params, Updates
from gradtx.core.value import Value
from gradtx.diagnostics.cost import step_cost
from gradtx.diagnostics.lr_range import lr_range_test
from gradtx.diagnostics.metrics import metrics, monitor, snapshot
from gradtx.diagnostics.ratios import update_ratios
from gradtx.diagnostics.stopping import early_stopping
from gradtx.diagnostics.summary import summary
from gradtx.linalg.coefficients import polar_express
from gradtx.linalg.msign import msign
from gradtx.matrix.adam_mini import adam_mini, scale_by_adam_mini
from gradtx.matrix.adamuon import adamuon, scale_by_adamuon
from gradtx.matrix.apollo import apollo, scale_by_apollo
from gradtx.matrix.dimensions import MuonDimensionNumbers
from gradtx.matrix.dion2 import dion2, scale_by_dion2
from gradtx.matrix.distribute import Distribution
from gradtx.matrix.explain import explain
from gradtx.matrix.galore import galore, scale_by_galore
from gradtx.matrix.kl_soap import kl_soap, scale_by_kl_soap
from gradtx.matrix.kron import kron, scale_by_kron
from gradtx.matrix.msign_sgd import msign_sgd
from gradtx.matrix.muon import muon, scale_by_shape
from gradtx.matrix.norm_balls import NormBall, norm_balls
from gradtx.matrix.normuon import scale_by_normuon
from gradtx.matrix.orthogonalize import orthogonalize, scale_by_dual_norm
from gradtx.matrix.qk_clip import HeadAxis, qk_clip
from gradtx.matrix.routing import matrix_axes, muon_labels
from gradtx.matrix.scion import scale_by_lmo, scion
from gradtx.matrix.shampoo import Graft, scale_by_shampoo, shampoo
from gradtx.matrix.soap import scale_by_soap, soap
from gradtx.matrix.soap_muon import scale_by_soap_muon, soap_muon
from gradtx.matrix.width import mup_multipliers
from gradtx.optimizers.accelegrad import accelegrad
from gradtx.optimizers.acprop import acprop, scale_by_acprop
from gradtx.optimizers.adabelief import adabelief, scale_by_belief
from gradtx.optimizers.adadelta import adadelta, scale_by_adadelta
from gradtx.optimizers.adafactor import adafactor, scale_by_factored_rms
from gradtx.optimizers.adagrad import adagrad, adagrad_norm, scale_by_adagrad_norm, scale_by_rss
from gradtx.optimizers.adagrad_full_matrix import adagrad_full_matrix, scale_by_full_matrix_adagrad
from gradtx.optimizers.adam import adam, adamw, nadam, nadamw, scale_by_adam
from gradtx.optimizers.adamax import adamax, adamaxw, scale_by_adamax
from gradtx.optimizers.adan import adan, scale_by_adan
from gradtx.optimizers.ademamix import ademamix, scale_by_ademamix, scale_by_simplified_ademamix, simplified_ademamix
from gradtx.optimizers.adopt import adopt, scale_by_adopt
from gradtx.optimizers.amsgrad import amsgrad, scale_by_amsgrad
from gradtx.optimizers.bfgs import bfgs, scale_by_bfgs
from gradtx.optimizers.cocob import cocob, scale_by_cocob
from gradtx.optimizers.dadapt import dadapt_adamw
from gradtx.optimizers.dog import dog, dowg, scale_by_dog, scale_by_dowg
from gradtx.optimizers.dpsgd import differentially_private_aggregate, dpsgd
from gradtx.optimizers.layerwise import fromage, lamb, lars
from gradtx.optimizers.lbfgs import lbfgs, scale_by_lbfgs
from gradtx.optimizers.ldog import scale_by_distance_over_gradients
from gradtx.optimizers.lion import lion, scale_by_lion
from gradtx.optimizers.madgrad import madgrad, scale_by_madgrad
from gradtx.optimizers.mars import add_gradient_correction, mars
from gradtx.optimizers.minimize import MinimizeResult, minimize
from gradtx.optimizers.momo import momo, momo_adam
from gradtx.optimizers.newton import newton, scale_by_newton
from gradtx.optimizers.newton_cg import newton_cg, scale_by_newton_cg
from gradtx.optimizers.noisy import perturbed_gd, perturbed_sgd, sgld
from gradtx.optimizers.novograd import novograd, scale_by_novograd
from gradtx.optimizers.optimistic import optimistic_adam_v2, optimistic_gradient_descent, scale_by_optimistic_gradient
from gradtx.optimizers.polyak import polyak_sgd, scale_by_polyak
from gradtx.optimizers.prodigy import prodigy
from gradtx.optimizers.projected_amsgrad import projected_amsgrad
from gradtx.optimizers.radam import radam, scale_by_radam
from gradtx.optimizers.rmsprop import rmsprop, scale_by_rms, scale_by_stddev
from gradtx.optimizers.rprop import rprop, scale_by_rprop
from gradtx.optimizers.sgd import noisy_sgd, sgd, sgdw
from gradtx.optimizers.sign import sign_sgd, signum
from gradtx.optimizers.sm3 import scale_by_sm3, sm3
from gradtx.optimizers.sophia import hutchinson_estimator_diag_hessian, scale_by_sophia, sophia
from gradtx.optimizers.storm import storm, storm_plus
from gradtx.optimizers.unixgrad import unixgrad
from gradtx.optimizers.yogi import scale_by_yogi, yogi
from gradtx.schedules import (
    constant_schedule,
    cooldown_schedule,
    cosine_annealing_schedule,
    cosine_decay_schedule,
    cosine_onecycle_schedule,
    exponential_decay,
    inverse_power_schedule,
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
from gradtx.storage.cast import cast_state
from gradtx.storage.checkpoint import LoadedState, load_state, reset, state_dict
from gradtx.storage.memory import offload
from gradtx.storage.precision import apply_updates, kahan, master_weights, rounded_away
from gradtx.storage.quantize import quantize_state
from gradtx.storage.sharding import init_sharded, state_sharding, zero1
from gradtx.transforms.adaptive_clipping import adagc, zclip
from gradtx.transforms.backtracking import scale_by_backtracking_linesearch
from gradtx.transforms.by_path import scale_by_path
from gradtx.transforms.clipping import (
    adaptive_grad_clip,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
    per_example_global_norm_clip,
    per_example_layer_norm_clip,
    unitwise_norm,
)
from gradtx.transforms.constraints import keep_params_nonnegative, zero_nans
from gradtx.transforms.decay import (
    add_cautious_decayed_weights,
    add_corrected_decayed_weights,
    add_decayed_weights,
    add_independent_decayed_weights,
)
from gradtx.transforms.linesearch import value_and_grad_from_state
from gradtx.transforms.momentum import ema, measure_with_ema, trace
from gradtx.transforms.noise import add_langevin_noise, add_noise, add_sphere_noise
from gradtx.transforms.normalization import centralize, normalize_by_update_norm
from gradtx.transforms.plateau import reduce_on_plateau
from gradtx.transforms.scaling import (
    scale,
    scale_by_learning_rate,
    scale_by_param_block_norm,
    scale_by_param_block_rms,
    scale_by_schedule,
    scale_by_sign,
    scale_by_trust_ratio,
)
from gradtx.transforms.zoom import scale_by_zoom_linesearch
from gradtx.tree import global_norm
from gradtx.wrappers.accumulate import accumulate, apply_every, microbatched
from gradtx.wrappers.adversarial import normalize
from gradtx.wrappers.averaging import ema_params, swa
from gradtx.wrappers.cautious import cautious
from gradtx.wrappers.ema_nesterov import ema_nesterov
from gradtx.wrappers.hyperball import hyperball
from gradtx.wrappers.lookahead import lookahead_wrapper
from gradtx.wrappers.mechanize import mechanize
from gradtx.wrappers.momentum_sam import momentum_sam
from gradtx.wrappers.nonfinite import skip_nonfinite, skip_spikes
from gradtx.wrappers.outer import outer
from gradtx.wrappers.outliers import skip_outliers
from gradtx.wrappers.posthoc import posthoc_average, posthoc_ema
from gradtx.wrappers.ranger import ranger
from gradtx.wrappers.sam import asam, sam_wrapper
from gradtx.wrappers.sam_gradient import sam_value_and_grad
from gradtx.wrappers.sam_variants import gsam, looksam
from gradtx.wrappers.schedule_free import schedule_free, schedule_free_adamw, schedule_free_sgd
from gradtx.wrappers.schedule_free_plus import schedule_free_plus

__version__ = "0.1.0"


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> object:
    """Says what to do where code written for Optax asks for what gradtx has not."""
    hint = "" if name.startswith("_") else _importlib.import_module("gradtx.optax").hint(name)
    hint = f" {hint}" if hint else _checks.did_you_mean(name, __all__)
    raise AttributeError(f"module 'gradtx' has no attribute {name!r}.{hint}")


__all__ = [
    "Distribution",
    "EmptyState",
    "GradientTransformation",
    "Graft",
    "HeadAxis",
    "Inner",
    "LoadedState",
    "MaskedNode",
    "MinimizeResult",
    "MuonDimensionNumbers",
    "NormBall",
    "OptState",
    "Params",
    "Preset",
    "ScalarOrSchedule",
    "Schedule",
    "Transformation",
    "Updates",
    "Value",
    "Wrapper",
    "accelegrad",
    "accumulate",
    "acprop",
    "adabelief",
    "adadelta",
    "adafactor",
    "adagc",
    "adagrad",
    "adagrad_full_matrix",
    "adagrad_norm",
    "adam",
    "adam_mini",
    "adamax",
    "adamaxw",
    "adamuon",
    "adamw",
    "adan",
    "adaptive_grad_clip",
    "add_cautious_decayed_weights",
    "add_corrected_decayed_weights",
    "add_decayed_weights",
    "add_gradient_correction",
    "add_independent_decayed_weights",
    "add_langevin_noise",
    "add_noise",
    "add_sphere_noise",
    "ademamix",
    "adopt",
    "amsgrad",
    "apollo",
    "apply_every",
    "apply_updates",
    "asam",
    "bfgs",
    "by_path",
    "cast_state",
    "cautious",
    "centralize",
    "chain",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "cocob",
    "conditionally_mask",
    "conditionally_transform",
    "constant_schedule",
    "cooldown_schedule",
    "cosine_annealing_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "dadapt_adamw",
    "diagnostics",
    "differentially_private_aggregate",
    "dion2",
    "dog",
    "domains",
    "dowg",
    "dpsgd",
    "each_leaf",
    "early_stopping",
    "ema",
    "ema_nesterov",
    "ema_params",
    "eval_params",
    "explain",
    "exponential_decay",
    "freeze",
    "from_config",
    "fromage",
    "galore",
    "global_norm",
    "gsam",
    "hutchinson_estimator_diag_hessian",
    "hyperball",
    "identity",
    "incremental_update",
    "init_sharded",
    "inject_hyperparams",
    "inverse_power_schedule",
    "inverse_sqrt_schedule",
    "join_schedules",
    "kahan",
    "keep_params_nonnegative",
    "kl_soap",
    "kron",
    "lamb",
    "lars",
    "lbfgs",
    "linear_onecycle_schedule",
    "linear_schedule",
    "lion",
    "load_state",
    "lookahead_wrapper",
    "looksam",
    "lr_range_test",
    "madgrad",
    "mars",
    "masked",
    "master_weights",
    "matrix_axes",
    "measure_with_ema",
    "mechanize",
    "metrics",
    "microbatched",
    "minimize",
    "momentum_sam",
    "momo",
    "momo_adam",
    "monitor",
    "msign",
    "msign_sgd",
    "muon",
    "muon_labels",
    "mup_multipliers",
    "nadam",
    "nadamw",
    "named_chain",
    "natural_exponential_decay",
    "newton",
    "newton_cg",
    "noisy_sgd",
    "norm_balls",
    "normalize",
    "normalize_by_update_norm",
    "novograd",
    "offload",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "orthogonalize",
    "outer",
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
    "polyak_sgd",
    "polynomial_schedule",
    "posthoc_average",
    "posthoc_ema",
    "prodigy",
    "projected_amsgrad",
    "projections",
    "qk_clip",
    "quantize_state",
    "radam",
    "ranger",
    "reduce_on_plateau",
    "reset",
    "rmsprop",
    "rounded_away",
    "rprop",
    "safe_increment",
    "sam_value_and_grad",
    "sam_wrapper",
    "sampling",
    "scale",
    "scale_by_acprop",
    "scale_by_adadelta",
    "scale_by_adagrad_norm",
    "scale_by_adam",
    "scale_by_adam_mini",
    "scale_by_adamax",
    "scale_by_adamuon",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_amsgrad",
    "scale_by_apollo",
    "scale_by_backtracking_linesearch",
    "scale_by_belief",
    "scale_by_bfgs",
    "scale_by_cocob",
    "scale_by_dion2",
    "scale_by_distance_over_gradients",
    "scale_by_dog",
    "scale_by_dowg",
    "scale_by_dual_norm",
    "scale_by_factored_rms",
    "scale_by_full_matrix_adagrad",
    "scale_by_galore",
    "scale_by_kl_soap",
    "scale_by_kron",
    "scale_by_lbfgs",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_lmo",
    "scale_by_madgrad",
    "scale_by_newton",
    "scale_by_newton_cg",
    "scale_by_normuon",
    "scale_by_novograd",
    "scale_by_optimistic_gradient",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "scale_by_path",
    "scale_by_polyak",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_rprop",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_shampoo",
    "scale_by_shape",
    "scale_by_sign",
    "scale_by_simplified_ademamix",
    "scale_by_sm3",
    "scale_by_soap",
    "scale_by_soap_muon",
    "scale_by_sophia",
    "scale_by_stddev",
    "scale_by_trust_ratio",
    "scale_by_yogi",
    "scale_by_zoom_linesearch",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_plus",
    "schedule_free_sgd",
    "schedules",
    "scion",
    "selective_transform",
    "set_to_zero",
    "sgd",
    "sgdr_schedule",
    "sgdw",
    "sgld",
    "shampoo",
    "sign_sgd",
    "signum",
    "simplified_ademamix",
    "skip_nonfinite",
    "skip_outliers",
    "skip_spikes",
    "sm3",
    "snapshot",
    "soap",
    "soap_muon",
    "sophia",
    "state_dict",
    "state_sharding",
    "stateless",
    "stateless_with_tree_map",
    "step_cost",
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
    "update_ratios",
    "value_and_grad_from_state",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "warmup_stable_decay_schedule",
    "yogi",
    "zclip",
    "zero1",
    "zero_nans",
    "zeros_like",
]
