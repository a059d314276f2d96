"""Numbers to log: `metrics` collects them from any state, `monitor` and `snapshot` measure more."""

import collections
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import checks, trees
from gradtx.core.domains import Function
from gradtx.core.pairs import GradientTransformation, Inner, as_transformation
from gradtx.core.paths import path_str
from gradtx.core.transformation import EmptyState, Transformation
from gradtx.core.types import ExtraArg, Params, Scalar, State, Tree, Updates

Measure = Callable[[Updates], Tree] | Inner
"""What measures updates: a function of them, or a transformation that gives a measurement."""


def metrics(state: State) -> dict[str, jax.Array]:
    """The scalars that transformations keep in their states for logging, as a flat dict.

    Its structure is fixed. `learning_rate` (in use at the last step), `grad_norm` and
    `clip_fraction` (from `clip_by_global_norm`), `update_norm` (from `normalize_by_update_norm`),
    hyperparameters under `inject_hyperparams`, and what `monitor` measures. A name that occurs more
    than once is preceded by the labels of `partition` and the names of `named_chain` that it stands
    under, as `muon/learning_rate`; only if two are still equal, by their places in chains too.
    Works inside `jit` and `lax.scan`; reading costs nothing until a value is brought to the host.

    Args:
      state: state of any transformation, or a container of such states: a TrainState,
        `optimizer.opt_state` of an `nnx.Optimizer`.

    Returns:
      A dict from names to scalar arrays, empty where nothing is measured. A transformation takes
      part if its state is a NamedTuple with a method `metrics() -> dict`.

    Raises:
      TypeError: `state` is a transformation or None.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.5))
      >>> _, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
      >>> {name: float(value) for name, value in gradtx.metrics(state).items()}
      {'grad_norm': 5.0, 'clip_fraction': 1.0, 'learning_rate': 0.5}
    """
    if checks.is_transformation(state) or state is None:
        raise TypeError(f"metrics: state is {checks.kind(state)}, expected the state that tx.init or tx.update returned.")
    found = list(_walk(state, _Place()))
    times = collections.Counter(name for _, name, _ in found)
    spellings = [[name] * (times[name] == 1) + ["/".join((*keys, name)) for keys in place] for place, name, _ in found]
    taken = collections.Counter(spelling for row in spellings for spelling in set(row))
    chosen = [next((s for s in row if taken[s] == 1), row[-1]) for row in spellings]
    return {name: jnp.asarray(value) for name, (*_, value) in zip(chosen, found, strict=True)}


class _Place(NamedTuple):
    """What leads to a node of the state.

    Keys of dicts alone; these and positions in tuples; these and fields between.
    """

    labels: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    path: tuple[str, ...] = ()

    def below(self, key: str, label: bool, position: bool) -> "_Place":
        """The place of a child."""
        labels, keys = (key,) * label, (key,) * (label or position)
        return _Place((*self.labels, *labels), (*self.keys, *keys), (*self.path, key))


def _walk(node: Tree, place: _Place) -> Iterator[tuple[_Place, str, Scalar]]:
    """Places, names and values below a node of the state."""
    if hasattr(node, "_fields"):
        own = getattr(node, "metrics", None)
        if own is not None:
            for name, value in own().items():
                yield place, name, value
        for field, child in zip(node._fields, node, strict=True):
            yield from _walk(child, place.below(field, False, False))
    elif isinstance(node, (Mapping, list, tuple)):
        named = isinstance(node, Mapping)
        for key, child in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from _walk(child, place.below(str(key), named, not named))
    else:  # another container, such as a TrainState or an nnx.Optimizer
        for key, child in jax.tree_util.tree_leaves_with_path(node, is_leaf=lambda x: x is not node):
            if key:
                yield from _walk(child, place.below(path_str(key), False, False))


class MonitorState(NamedTuple):
    """The last measurements by name, and the measuring transformations' states."""

    measurements: dict[str, Tree]
    measure_states: tuple[State, ...]

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports: the measurements that are scalars."""
        return {name: value for name, value in self.measurements.items() if hasattr(value, "dtype") and jnp.ndim(value) == 0}


class monitor(Transformation, any_leaves=True, observes=True):
    """Records measurements of updates in its state: `state.measurements[name] = f(u)`.

    The updates stay as they are.

    Args:
      measures: by name, functions of the updates' tree, or transformations whose output is the
        measurement.

    State: `MonitorState(measurements, measure_states)`, with its final structure from `init` on
      (zeros until the first update), so that it runs under `lax.scan`. `gradtx.metrics` reports the
      scalars among them.

    Raises:
      TypeError: `measures` is no mapping from names to functions or transformations.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> largest = gradtx.monitor({"largest": lambda u: jnp.max(jnp.abs(u))})
      >>> tx = gradtx.chain(largest, gradtx.sgd(0.1))
      >>> _, state = tx.update(jnp.array([1.0, -3.0]), tx.init(jnp.zeros(2)))
      >>> float(gradtx.metrics(state)["largest"])
      3.0

    The norm of the gradients before they are clipped, by `monitor` placed before the clipping
    (`clip_by_global_norm` reports its own as `grad_norm`):

      >>> norms = gradtx.monitor({"norm_before_clip": gradtx.global_norm})
      >>> tx = gradtx.chain(norms, gradtx.clip(1.0), gradtx.adamw(1e-3))
      >>> params = jnp.zeros(2)
      >>> _, state = tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)
      >>> float(gradtx.metrics(state)["norm_before_clip"])
      5.0

    **Differs:** Optax's state has no measurements before the first update.
    """

    measures: Mapping[str, Measure]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.measures, Mapping):
            raise TypeError(f"monitor: measures is {checks.kind(self.measures)}, expected a dict from names to functions.")
        self.members  # noqa: B018  # a wrong measure fails here, not at the first step

    @functools.cached_property
    def members(self) -> dict[str, Transformation]:
        """What measures, by name."""
        return {name: _measuring(name, measure) for name, measure in self.measures.items()}

    @property
    def takes(self) -> dict[str, bool]:  # type: ignore[override]
        """The extra arguments of those that measure."""
        return {name: needed for tx in self.members.values() for name, needed in tx.takes.items()}

    def run(self, updates: Updates, states: tuple[State, ...], params: Params, extra_args: ExtraArg) -> MonitorState:
        """The measurements of some updates, and the states after them."""
        results = {
            name: tx.advance(updates, inner, params, extra_args)
            for (name, tx), inner in zip(self.members.items(), states, strict=True)
        }
        values = {name: jax.tree.map(jnp.asarray, value) for name, (value, _) in results.items()}
        return MonitorState(values, tuple(inner for _, inner in results.values()))

    def init(self, params: Params) -> MonitorState:
        states = tuple(tx.init(params) for tx in self.members.values())
        measured = jax.eval_shape(lambda: self.run(params, states, params, {}).measurements)
        return MonitorState(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), measured), states)

    def step(
        self, updates: Updates, state: MonitorState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, MonitorState]:
        if set(state.measurements) != set(self.members):
            trees.raise_wrong_state(state, MonitorState, f"a MonitorState with measurements {', '.join(map(repr, self.members))}")
        new = self.run(updates, state.measure_states, params, extra_args)
        stored = jax.tree.map(lambda value, old: value.astype(old.dtype), new.measurements, state.measurements)
        return updates, MonitorState(stored, new.measure_states)


class SnapshotState(NamedTuple):
    """The last measurement, by its name."""

    measurement: dict[str, Tree]

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports: the measurement, if it is a scalar."""
        return {name: value for name, value in self.measurement.items() if hasattr(value, "dtype") and jnp.ndim(value) == 0}


class snapshot(Transformation, any_leaves=True, observes=True):
    """Records one measurement of updates: `state.measurement[measure_name] = f(u)`.

    The updates stay as they are. Where it stands in a chain decides what it sees: before clipping
    the gradients as they came, at the end the step that is made. The measurement may be a whole
    tree, such as the updates themselves; `gradtx.tree.get(state, measure_name)` finds it.

    Args:
      measure_name: the name under which it is found.
      measure: function of the updates' tree that gives an array or a tree.

    State: `SnapshotState(measurement)`, a dict with one entry: zeros until the first update.
      `gradtx.metrics` reports a scalar.

    Raises:
      TypeError: `measure_name` is no text, or `measure` is no function.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> before = gradtx.snapshot("norm_before", gradtx.global_norm)
      >>> after = gradtx.snapshot("norm_after", gradtx.global_norm)
      >>> tx = gradtx.chain(before, gradtx.clip_by_global_norm(1.0), after, gradtx.sgd(0.1))
      >>> _, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
      >>> float(gradtx.tree.get(state, "norm_before")), float(gradtx.metrics(state)["norm_after"])
      (5.0, 1.0)

    **Differs:** Optax's state holds the measurement of the parameters before the first update.
    """

    measure_name: str
    measure: Function

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.measure_name, str):
            raise TypeError(f"snapshot: measure_name is {checks.kind(self.measure_name)}, expected text.")

    def init(self, params: Params) -> SnapshotState:
        measured = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, self.measure(params)))
        return SnapshotState({self.measure_name: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), measured)})

    def step(
        self, updates: Updates, state: SnapshotState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, SnapshotState]:
        if set(state.measurement) != {self.measure_name}:
            trees.raise_wrong_state(state, SnapshotState, f"a SnapshotState with the measurement {self.measure_name!r}")
        old = state.measurement[self.measure_name]
        stored = jax.tree.map(lambda value, before: jnp.asarray(value).astype(before.dtype), self.measure(updates), old)
        return updates, SnapshotState({self.measure_name: stored})


class _Measurement(Transformation, any_leaves=True, measuring=True):
    """A function of the updates as a transformation that measures."""

    function: Callable[[Updates], Tree]

    def step(
        self, updates: Updates, state: EmptyState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Tree, EmptyState]:
        return self.function(updates), state


class _MeasuringPair(GradientTransformation, measuring=True):
    """A pair of functions whose output is a measurement."""


def _measuring(name: str, measure: Measure) -> Transformation:
    if checks.is_transformation(measure):
        tx = as_transformation(measure)
        return _MeasuringPair(tx.init_fn, tx.update_fn) if isinstance(tx, GradientTransformation) else tx
    if not callable(measure) or checks.is_factory(measure):
        raise TypeError(f"monitor: measures[{name!r}] is {checks.kind(measure)}, expected a function or a transformation.")
    return _Measurement(measure)
