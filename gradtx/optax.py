"""Optax's surface: `import gradtx.optax as optax` runs code that was written for `import optax`.

A name of Optax that has a twin in gradtx, with the same meaning and the same arguments, is the
twin: `optax.adam`, `optax.contrib.muon`, `optax.tree_utils.tree_add`. All transformations have one.
The other names (losses, assignment, perturbations, and what Optax is about to remove) are borrowed:
they are the installed Optax's own, loaded when they are first asked for. Optax is an extra; without
it the twins work, and a borrowed name is an `ImportError` that says so. `python -m gradtx.optax`
prints which name is which.

>>> import jax.numpy as jnp
>>> import gradtx.optax as optax
>>> tx = optax.chain(optax.clip_by_global_norm(1.0), optax.contrib.muon(0.02))
>>> params = {"w": jnp.ones((2, 2))}
>>> updates, state = tx.update({"w": jnp.ones((2, 2))}, tx.init(params), params)
>>> optax.apply_updates(params, updates)["w"].shape
(2, 2)
>>> float(optax.losses.huber_loss(jnp.array(2.0)))  # borrowed
1.5

Transformations of either library go into the combinators of either. Optax's own hand no extra
arguments (`value=`, `grad_fn=`) on to a gradtx transformation: hand them `gradtx.to_optax(tx)`,
which they do reach.
"""

import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from gradtx.core.checks import did_you_mean
from gradtx.projections import __all__ as _of_projections
from gradtx.tree import __all__ as _of_trees

Places = dict[str, str]
"""Where gradtx has a name of Optax: the name, then module and attribute, joined by a dot."""


def _places(files: Mapping[str, str]) -> Places:
    """The places of the names that are listed by file."""
    return {name: f"gradtx.{file}.{name}" for file, names in files.items() for name in names.split()}


_SCHEDULES = _places(
    {
        "compose.inject": "InjectHyperparamsState InjectStatefulHyperparamsState WrappedSchedule inject_hyperparams "
        "inject_stateful_hyperparams",
        "core.domains": "Schedule",
        "schedules": "constant_schedule cosine_decay_schedule cosine_onecycle_schedule exponential_decay join_schedules "
        "linear_onecycle_schedule linear_schedule piecewise_constant_schedule piecewise_interpolate_schedule "
        "polynomial_schedule sgdr_schedule warmup_constant_schedule warmup_cosine_decay_schedule "
        "warmup_exponential_decay_schedule",
    }
)
_TRANSFORMS = _places(
    {
        "compose.chain": "chain named_chain",
        "compose.conditional": "ConditionallyMaskState ConditionallyTransformState conditionally_mask conditionally_transform",
        "compose.masking": "MaskedState freeze masked",
        "compose.partition": "PartitionState partition selective_transform",
        "core.leaves": "MaskedNode",
        "diagnostics.metrics": "MonitorState SnapshotState monitor snapshot",
        "transforms.clipping": "adaptive_grad_clip clip clip_by_block_rms clip_by_global_norm "
        "per_example_global_norm_clip per_example_layer_norm_clip",
        "wrappers.flatten": "flatten",
        "compose.optax_names": "ShouldSkipUpdateFunction",
        "transforms.constraints": "ZeroNansState keep_params_nonnegative zero_nans",
        "transforms.decay": "add_decayed_weights",
        "transforms.momentum": "EmaState TraceState ema measure_with_ema trace",
        "transforms.noise": "AddNoiseState add_noise",
        "wrappers.multi_steps": "MultiSteps MultiStepsState skip_large_updates skip_not_finite",
        "wrappers.nonfinite": "ApplyIfFiniteState apply_if_finite",
    }
)
_TOP = _places(
    {
        "compose.partition": "multi_transform",
        "compose.optax_names": "MaskOrFn TransformInitFn TransformUpdateExtraArgsFn TransformUpdateFn init_empty_state",
        "linalg.iterations": "matrix_inverse_pth_root nnls power_iteration",
        "linalg.norms": "safe_norm safe_root_mean_squares",
        "sampling": "multi_normal",
        "core.apply": "incremental_update periodic_update",
        "storage.precision": "apply_updates",
        "compose.plain": "GradientTransformationExtraArgs identity set_to_zero stateless stateless_with_tree_map "
        "with_extra_args_support",
        "core.pairs": "GradientTransformation",
        "core.transformation": "EmptyState",
        "core.types": "OptState Params Updates",
        "core.domains": "ScalarOrSchedule",
        "core.numerics": "safe_increment",
        "optimizers.adagrad": "ScaleByRssState adagrad scale_by_rss",
        "optimizers.adam": "ScaleByAdamState adam adamw nadam nadamw scale_by_adam",
        "optimizers.adamax": "adamax adamaxw scale_by_adamax",
        "optimizers.adabelief": "ScaleByBeliefState adabelief scale_by_belief",
        "optimizers.adadelta": "ScaleByAdaDeltaState adadelta scale_by_adadelta",
        "optimizers.adafactor": "FactoredState adafactor scale_by_factored_rms",
        "optimizers.adan": "ScaleByAdanState adan scale_by_adan",
        "optimizers.layerwise": "fromage lamb lars",
        "optimizers.optimistic": "optimistic_adam_v2 optimistic_gradient_descent scale_by_optimistic_gradient",
        "optimizers.polyak": "polyak_sgd scale_by_polyak",
        "optimizers.rprop": "ScaleByRpropState rprop scale_by_rprop",
        "optimizers.yogi": "scale_by_yogi yogi",
        "optimizers.amsgrad": "ScaleByAmsgradState amsgrad scale_by_amsgrad",
        "optimizers.lbfgs": "ScaleByLBFGSState lbfgs scale_by_lbfgs",
        "optimizers.as_optax": "optimistic_adam",
        "optimizers.ldog": "scale_by_distance_over_gradients",
        "optimizers.lion": "ScaleByLionState lion scale_by_lion",
        "optimizers.novograd": "ScaleByNovogradState novograd scale_by_novograd",
        "optimizers.radam": "radam scale_by_radam",
        "optimizers.rmsprop": "ScaleByRStdDevState ScaleByRmsState rmsprop scale_by_rms scale_by_stddev",
        "optimizers.sm3": "ScaleBySM3State scale_by_sm3 sm3",
        "optimizers.sgd": "noisy_sgd sgd",
        "optimizers.sign": "sign_sgd signum",
        "transforms.backtracking": "ScaleByBacktrackingLinesearchState scale_by_backtracking_linesearch",
        "transforms.clipping": "ClipByGlobalNormState",
        "transforms.linesearch": "value_and_grad_from_state",
        "transforms.normalization": "centralize normalize_by_update_norm",
        "transforms.scaling": "ScaleByScheduleState scale scale_gradient scale_by_learning_rate scale_by_param_block_norm "
        "scale_by_param_block_rms scale_by_schedule scale_by_sign scale_by_trust_ratio",
        "transforms.zoom": "ScaleByZoomLinesearchState ZoomLinesearchInfo scale_by_zoom_linesearch",
        "tree": "bias_correction global_norm update_infinity_moment update_moment update_moment_per_elem_norm",
        "wrappers.accumulate": "apply_every",
        "wrappers.lookahead": "LookaheadParams LookaheadState lookahead",
    }
)
_CONTRIB = _places(
    {
        "matrix.as_optax": "muon scale_by_muon",
        "matrix.dimensions": "MuonDimensionNumbers",
        "optimizers.ademamix": "ScaleByAdemamixState ScaleBySimplifiedAdEMAMixState ademamix scale_by_ademamix "
        "scale_by_simplified_ademamix simplified_ademamix",
        "optimizers.acprop": "acprop scale_by_acprop",
        "optimizers.adopt": "adopt scale_by_adopt",
        "matrix.galore": "GaLoreState galore scale_by_galore",
        "optimizers.as_optax": "sophia",
        "optimizers.dpsgd": "DifferentiallyPrivateAggregateState differentially_private_aggregate dpsgd",
        "optimizers.sophia": "HutchinsonState SophiaState hutchinson_estimator_diag_hessian",
        "optimizers.cocob": "COCOBState cocob scale_by_cocob",
        "optimizers.dadapt": "DAdaptAdamWState dadapt_adamw",
        "optimizers.momo": "MomoAdamState MomoState momo momo_adam",
        "optimizers.dog": "DoGState DoWGState dog dowg",
        "optimizers.madgrad": "MadgradState madgrad scale_by_madgrad",
        "optimizers.prodigy": "ProdigyState prodigy",
        "transforms.plateau": "ReduceLROnPlateauState reduce_on_plateau",
        "wrappers.flatten": "SplitRealAndImaginaryState split_real_and_imaginary",
        "wrappers.mechanize": "MechanicState mechanize",
        "wrappers.adversarial": "SAMState normalize sam",
        "wrappers.schedule_free": "ScheduleFreeState schedule_free schedule_free_adamw schedule_free_eval_params schedule_free_sgd",
    }
)
_TREES = {name: f"gradtx.tree.{name}" for name in _of_trees}
_MICRO = _places(
    {"wrappers.microbatching": "AccumulationType Accumulator micro_grad micro_vmap microbatch reshape_batch_axis"},
)
_EMPTY = "gradtx.core.transformation.EmptyState"
_RENAMED: Places = {
    "AdaptiveGradClipState": _EMPTY,
    "AddDecayedWeightsState": _EMPTY,
    "ApplyEvery": "gradtx.wrappers.accumulate.ApplyEveryState",
    "ClipState": _EMPTY,
    "MultiTransformState": "gradtx.compose.partition.PartitionState",
    "NonNegativeParamsState": _EMPTY,
    "ScaleByTrustRatioState": _EMPTY,
    "ScaleState": _EMPTY,
    "safe_int32_increment": "gradtx.core.numerics.safe_increment",
    "tree_map_params": "gradtx.tree.map_params",
}

NATIVE: Mapping[str, Places] = {
    "": _TOP | _TRANSFORMS | _SCHEDULES | _RENAMED | {"microbatch": _MICRO["microbatch"]},
    "contrib": _CONTRIB
    | {
        "GaLoreDimensionNumbers": "gradtx.matrix.dimensions.MuonDimensionNumbers",
        "MuonState": "gradtx.transforms.momentum.EmaState",
        "NormalizeState": _EMPTY,
    },
    "experimental": {"aggregating": "gradtx.wrappers.aggregating"},
    "microbatching": _MICRO,
    "projections": {name: f"gradtx.projections.{name}" for name in _of_projections if name.startswith("projection_")},
    "schedules": _SCHEDULES | _places({"compose.optax_names": "StatefulSchedule"}),
    "transforms": _TRANSFORMS
    | _places({"transforms.clipping": "unitwise_clip unitwise_norm", "compose.optax_names": "ConditionFn"})
    | {"NonNegativeParamsState": _EMPTY},
    "tree": _TREES,
    "tree_utils": {f"tree_{name}" if name.islower() else name: place for name, place in _TREES.items()},
}
"""The names of Optax that gradtx has, by Optax's module (`""` is Optax itself)."""

_MOVED = ("DifferentiallyPrivateAggregateState", "differentially_private_aggregate", "dpsgd")
"""Names of `contrib` that Optax still has at its top level, with a warning."""

_BORROWED = "borrowed"
BORROWED: Mapping[str, str] = {
    "losses": "functions of predictions, of which no optimizer knows; Optax's serve as they are, at its top level too",
    "assignment": "an algorithm on costs, apart from gradients",
    "perturbations": "gradients of functions that have none, before any optimizer",
    "second_order": "deprecated: Optax 0.2.9 removes it; gradtx.diagnostics has hvp and hessian_trace",
}
"""Why a module of Optax has no twin."""


class Part(ModuleType):
    """A module of Optax's surface: gradtx's twins, and Optax's own names for the rest."""

    def __init__(self, part: str) -> None:
        super().__init__(f"gradtx.optax.{part}", f"The names of `optax.{part}`: gradtx's twins, else Optax's own.")
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return _resolve(self._part, name)

    def __dir__(self) -> list[str]:
        return _names(self._part)


contrib, projections, schedules = Part("contrib"), Part("projections"), Part("schedules")
transforms, tree, tree_utils = Part("transforms"), Part("tree"), Part("tree_utils")
assignment, experimental, losses = Part("assignment"), Part("experimental"), Part("losses")
microbatching, perturbations, second_order = Part("microbatching"), Part("perturbations"), Part("second_order")
# So that `from gradtx.optax.contrib import muon` and `import gradtx.optax.tree_utils` work, too.
sys.modules.update({value.__name__: value for value in list(vars().values()) if isinstance(value, Part)})


def __getattr__(name: str) -> Any:
    """A name of Optax's top level that is no module above."""
    return _resolve("", name)


def __dir__() -> list[str]:
    return sorted({*_names(""), *_parts()})


def _resolve(part: str, name: str) -> object:
    """The twin of a name of Optax, else what Optax has under that name."""
    if name in NATIVE.get(part, {}):
        return _found(NATIVE[part][name])
    if not part and name in _MOVED:
        warnings.warn(f"optax.{name} is deprecated: use optax.contrib.{name}.", DeprecationWarning, stacklevel=3)
        return _resolve("contrib", name)
    home = _joined("gradtx.optax", part)
    # Python and its tools ask for such names; Optax's answer would be about Optax.
    if name.startswith("_") and name != "__version__":
        raise AttributeError(f"module {home!r} has no attribute {name!r}")
    source = _installed(part)
    if source is None:
        raise ImportError(
            f"gradtx has no twin of {_joined('optax', part, name)}, and Optax is not installed: pip install optax."
            f"{did_you_mean(name, NATIVE.get(part, {}))}",
            name="optax",
        )
    try:
        return getattr(source, name)
    except AttributeError as error:
        hint = did_you_mean(name, _names(part))
        raise AttributeError(f"module {home!r} has no attribute {name!r}, nor has Optax.{hint}") from error


def _found(place: str) -> object:
    """What stands at a place, which may be a module."""
    module, _, attribute = place.rpartition(".")
    owner = import_module(module)
    return getattr(owner, attribute) if hasattr(owner, attribute) else import_module(place)


def _installed(part: str) -> ModuleType | None:
    """A module of the installed Optax; None without Optax."""
    try:
        optax = import_module("optax")
    except ModuleNotFoundError as error:
        if error.name != "optax":
            raise
        return None
    return getattr(optax, part) if part else optax


def _joined(*names: str) -> str:
    return ".".join(name for name in names if name)


def _names(part: str) -> list[str]:
    """The public names of a module of Optax, modules too; without Optax those that have twins."""
    source = _installed(part)
    if source is None:
        return sorted(NATIVE.get(part, {}))
    return sorted(name for name, value in vars(source).items() if not name.startswith("_") and _is_of_optax(value))


def _is_of_optax(value: object) -> bool:
    """Whether a value is no module, or Optax's own."""
    return not isinstance(value, ModuleType) or value.__name__.startswith("optax.")


def _parts() -> list[str]:
    """The public modules of Optax; without Optax those that have twins."""
    source = _installed("")
    if source is None:
        return sorted(part for part in NATIVE if part)
    return [name for name in _names("") if isinstance(getattr(source, name), ModuleType)]


def rows() -> list[tuple[str, str]]:
    """Every public name of Optax with the place of its twin, or `borrowed`.

    Without Optax the twins alone.

    Example:
      >>> import gradtx.optax
      >>> dict(gradtx.optax.rows())["contrib.muon"]
      'gradtx.matrix.as_optax.muon'
    """
    parts = _parts()
    return [
        (_joined(part, name), NATIVE.get(part, {}).get(name, _BORROWED))
        for part in ("", *parts)
        for name in _names(part)
        if part or name not in parts
    ]


def table() -> str:
    """The rows as text, with their numbers: what `python -m gradtx.optax` prints.

    Example:
      >>> import gradtx.optax
      >>> lines = gradtx.optax.table().splitlines()
      >>> [line.split() for line in lines if line.startswith(("adamw", "hinge"))]
      [['adamw', 'gradtx.optimizers.adam.adamw'], ['hinge_loss', 'borrowed']]
    """
    found = rows()
    width = max(len(name) for name, _ in found)
    lines = [f"{name:{width}}  {place}" for name, place in found]
    borrowed = sum(place == _BORROWED for _, place in found)
    end = (
        f"{len(found)} names that gradtx has. Optax is not installed: its other names need pip install optax."
        if _installed("") is None
        else f"{len(found)} names of Optax: {len(found) - borrowed} native, {borrowed} borrowed."
    )
    why = [f"{part}: {reason}." for part, reason in BORROWED.items()] if borrowed else []
    return "\n".join([*lines, *why, end])


def hint(name: str) -> str:
    """Where to find a name of Optax that `gradtx` lacks; nothing where Optax lacks it too.

    Example:
      >>> import gradtx.optax
      >>> gradtx.optax.hint("contrib")
      "gradtx.muon is optax.contrib.muon; gradtx.optax has all of Optax's names."
      >>> gradtx.optax.hint("hinge_loss")
      "optax.hinge_loss has no twin here; gradtx.optax has all of Optax's names."
    """
    if name.startswith("_"):
        return ""
    try:
        example = next(_examples(name), None)
    except (ImportError, AttributeError):  # a broken Optax must not hide the first error
        return ""
    return f"{example}; gradtx.optax has all of Optax's names." if example else ""


def _examples(name: str) -> Iterator[str]:
    """What to say of a name of Optax, the best first: a module's first twin, or the name's own."""
    if NATIVE.get(name):
        first, place = next(item for item in NATIVE[name].items() if item[0].islower())
        yield f"{_public(place, f'{name}.{first}')} is optax.{name}.{first}"
    elif name in _parts():
        yield f"optax.{name} has no twin here"
    for path, place in rows():
        if path.rpartition(".")[2] == name:
            yield f"optax.{path} has no twin here" if place == _BORROWED else f"{_public(place, path)} is optax.{path}"


def _public(place: str, path: str) -> str:
    """The short name of a place in the index, or that of a twin which only this module has."""
    name = place.rpartition(".")[2]
    if place.count(".") == 2:
        return place
    return f"gradtx.{name}" if name in import_module("gradtx").__all__ else f"gradtx.optax.{path}"


if __name__ == "__main__":
    print(table())
