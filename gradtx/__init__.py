"""gradtx: composable gradient transformations for JAX."""

from gradtx.compose.chain import chain, named_chain
from gradtx.compose.conditional import (
    ConditionallyMaskState,
    ConditionallyTransformState,
    conditionally_mask,
    conditionally_transform,
)
from gradtx.compose.inject import InjectHyperparamsState, inject_hyperparams
from gradtx.compose.labels import by_path
from gradtx.compose.masking import MaskedState, freeze, masked
from gradtx.compose.partition import PartitionState, multi_transform, partition, selective_transform
from gradtx.core import tree
from gradtx.core.apply import apply_updates, incremental_update, periodic_update
from gradtx.core.base import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    identity,
    init_empty_state,
    set_to_zero,
    stateless,
    stateless_with_tree_map,
    to_optax,
    with_extra_args_support,
)
from gradtx.core.config import from_config, to_config
from gradtx.core.leaves import MaskedNode
from gradtx.core.paths import path_str
from gradtx.core.tree import global_norm
from gradtx.core.values import factory
from gradtx.diagnostics.metrics import MonitorState, metrics, monitor
from gradtx.optimizers.adagrad import ScaleByRssState, adagrad, scale_by_rss
from gradtx.optimizers.adam import ScaleByAdamState, adam, adamw, nadam, nadamw, scale_by_adam
from gradtx.optimizers.adamax import adamax, adamaxw, scale_by_adamax
from gradtx.optimizers.amsgrad import ScaleByAmsgradState, amsgrad, scale_by_amsgrad
from gradtx.optimizers.lion import ScaleByLionState, lion, scale_by_lion
from gradtx.optimizers.rmsprop import ScaleByRmsState, ScaleByRStdDevState, rmsprop, scale_by_rms, scale_by_stddev
from gradtx.optimizers.sgd import noisy_sgd, sgd, sgdw
from gradtx.optimizers.sign import sign_sgd, signum
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
from gradtx.transforms.decay import WeightDecayScheduleState, add_decayed_weights
from gradtx.transforms.momentum import EmaState, ScheduledTraceState, TraceState, ema, trace
from gradtx.transforms.noise import AddNoiseState, add_noise
from gradtx.transforms.normalization import NormalizeByUpdateNormState, centralize, normalize_by_update_norm
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
