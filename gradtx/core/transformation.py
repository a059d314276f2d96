"""The transformation: a value with `init` and `step`, and `update`, the one boundary."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, ParamSpec, Self, TypeVar

import jax
import numpy as np
from jax.core import Tracer

from gradtx.core import checks, leaves, trees
from gradtx.core.types import Extra, ExtraArg, Params, State, Tree, Updates
from gradtx.core.value import Value, ValueType, arrays_in, hints_of, registry

if TYPE_CHECKING:  # so that type checkers accept gradtx where flax.nnx asks for Optax's class
    from optax import GradientTransformationExtraArgs as _Pair
else:

    class _Pair:
        pass


P = ParamSpec("P")
R = TypeVar("R")


class EmptyState(NamedTuple):
    """The state of a transformation that keeps none."""


class Part(NamedTuple):
    """A transformation inside another one, with the parameters that it sees and its own state."""

    tx: "Transformation"
    params: Params
    state: State


def _called_as(call: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Methods whose errors for missing arguments, or for too many, show the right call."""

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(method)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return method(*args, **kwargs)
            except TypeError:
                if why := checks.misfit(method, *args, **kwargs):
                    raise TypeError(f"{args[0].called}: {why}; the call is {call}.") from None  # type: ignore[attr-defined]
                raise

        return called

    return decorate


def _checked(init: Callable[[Any, Params], State]) -> Callable[[Any, Params], State]:
    """An `init` after a check of the parameters, which gives a state in arrays of its own."""

    @functools.wraps(init)
    def checked(self: Any, params: Params) -> State:
        try:
            trees.check_no_module(params)
            if not self.any_leaves:
                trees.check_leaves("params", params)
            return leaves.own(init(self, params), [*jax.tree.leaves(params), *arrays_in(self)])
        except checks.Refusal as refusal:
            refusal.by(self.called)
            raise

    return checked


def state_types() -> tuple[type, ...]:
    """The named tuples that transformations declare as their states, a user's own too."""
    declared = (vars(cls).get("state_type") for cls in registry.values() if issubclass(cls, Transformation))
    return tuple(kind for kind in declared if isinstance(kind, type) and hasattr(kind, "_fields"))


class TransformationType(ValueType):
    """The class of classes of transformations.

    It puts checks around `init`, and lets a class that nobody called say so where it is used as a
    transformation.
    """

    if not TYPE_CHECKING:

        def __new__(mcs, name, bases, namespace, **traits):
            """Makes a class."""
            if "update" in namespace and any(isinstance(base, TransformationType) for base in bases):
                raise TypeError(f"{name}: define step, never update: update is step with the checks around it.")
            if "init" in namespace:
                namespace = {
                    **namespace,
                    "unchecked_init": namespace["init"],
                    "init": _called_as("tx.init(params)")(_checked(namespace["init"])),
                }
            return super().__new__(mcs, name, bases, namespace, **traits)

        @property
        def init(cls):
            """Refuses."""
            return _not_called(cls.__name__)

        @property
        def update(cls):
            """Refuses."""
            return _not_called(cls.__name__)


def _not_called(name: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{name} is a class of transformations: call it first, {name}(...).")

    return refuse


class Transformation(_Pair, Value, metaclass=TransformationType):
    """A gradient transformation: a value with two methods, `init(params)`, which gives the state,
    and `update(updates, state, params)`, which gives new updates and the new state.

    `updates` are the gradients at the head of a chain and the additive change of the parameters at
    its end. To write your own, annotate its hyperparameters as fields and define `step`, the rule
    of the paper; define `init` if it keeps a state:

      >>> import collections, jax.numpy as jnp, gradtx
      >>> MomentumState = collections.namedtuple("MomentumState", "m")
      >>> class momentum(gradtx.Transformation):
      ...     decay: gradtx.domains.Decay = 0.9
      ...     def init(self, params):
      ...         return MomentumState(gradtx.zeros_like(params))
      ...     def step(self, updates, state: MomentumState, params=None, **extra_args):
      ...         @gradtx.each_leaf
      ...         def rule(g, m):
      ...             m = self.decay * m + g
      ...             return m, m
      ...         updates, m = rule(updates, state.m)
      ...         return updates, MomentumState(m)
      >>> tx = gradtx.chain(momentum(0.5), gradtx.scale(-1.0))
      >>> tx
      chain(momentum(decay=0.5), scale(step_size=-1.0))
      >>> params = jnp.zeros(2)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(params), params)
      >>> updates, state = tx.update(jnp.ones(2), state, params)
      >>> updates
      Array([-1.5, -1.5], dtype=float32)

    A class defines `step` and, if it keeps a state, `init`; never `update`, which is `step` with
    the checks around it. The caller's `update` checks trees, state and extra arguments, hands
    `step` half-precision updates and states as float32, and casts the results back: updates to the
    gradients' dtypes, the state to the dtypes that it had. So `init` keeps moments in float32
    (`zeros_like` does), and a chain, which runs the `step` of its members, rounds once.

    `step` ends with `**extra_args`, since a chain hands all extra arguments to all its members. Its
    keyword-only parameters are those that it uses (`*, value`); one without a default has to be
    passed. The annotation of `state` is checked. A count of steps is `jnp.zeros((), jnp.int32)` in
    `init` and `gradtx.safe_increment(state.count)` in `step`: 1 at the first step. A rule takes one
    leaf of each tree, gives as many as it returns, and may use all that `step` has, such as
    `1 - self.decay**count` (`-jnp.expm1(count * jnp.log(self.decay))` rounds less). A chain that
    trains ends with `gradtx.scale_by_learning_rate(rate)`, which turns the sign and takes
    schedules. An optimizer with a name is a function that returns the chain, or a subclass of
    `gradtx.Preset`, which prints as itself.

    A field is checked if its annotation is one of `gradtx.domains`: `Number`, `Positive`,
    `NonNegative`, `Fraction` (in [0, 1]), `Decay` (in [0, 1)), `Rate` (a number >= 0 or a
    schedule), `PositiveInt`, `Flag`, `FloatDType`, `Mask`, `Function`, ...; `float` alone is not.

    Class keywords say what a transformation is, as in `class look(Transformation, observes=True)`.
    All are False by default:

    - `needs_params`: its `update` has to get the parameters.
    - `observes`: it changes no update, so it may come after an average in a chain.
    - `keeps_zero`: a parameter whose gradients have been zero from `init` on has zero updates,
      whatever those of the others, as Adam's are. `summary` then knows that it is frozen after
      `freeze`.
    - `final`: its updates must be applied as they are, since its state holds points that follow
      from them.
    - `guards`: what half-precision parameters lose when they are rounded, its next updates make up
      for.
    - `gathers`: it gathers updates over several calls and gives zeros between.
    - `rests`: updates of zero move nothing, and change nothing of the updates that it gives later.
      A momentum does not rest. What keeps zero and has no state rests without saying so.
    - `narrows`: what is inside it sees some of the parameters alone.
    - `measuring`: it returns a measurement, of any tree, in the place of updates, or takes any tree
      in their place, such as gradients of single examples.
    - `any_leaves`: it takes leaves of any kind, integers too, as those do that only hand leaves on
      to others.
    - `transparent`: it only hands updates on, so that `summary` shows what is inside in its place.

    A property of the same name says so for some values of the class only.
    """

    observes: ClassVar[bool] = False
    keeps_zero: ClassVar[bool] = False
    final: ClassVar[bool] = False
    guards: ClassVar[bool] = False
    gathers: ClassVar[bool] = False
    rests: ClassVar[bool] = False
    narrows: ClassVar[bool] = False
    measuring: ClassVar[bool] = False
    any_leaves: ClassVar[bool] = False
    needs_params: ClassVar[bool] = False
    transparent: ClassVar[bool] = False
    takes: ClassVar[Mapping[str, bool]] = {}
    """The extra arguments that `step` declares, and whether it needs them."""
    keeps_form: ClassVar[bool] = True
    """Whether the state has one form for good; of other libraries' pairs nobody knows."""
    state_type: ClassVar[type] = object
    """What the state must be, by the annotation in `step`."""

    if TYPE_CHECKING:

        def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...

        def unchecked_init(self, params: Params) -> State:
            """`init` as the class has it, without the checks around it."""

    def __init_subclass__(cls, **traits: bool):
        super().__init_subclass__(**traits)
        own = vars(cls)
        if "step" in own:
            if not inspect.unwrap(own["step"]).__code__.co_flags & inspect.CO_VARKEYWORDS:
                raise TypeError(f"{cls.__name__}: step has to take **extra_args, since a chain hands all of them to every member.")
            takes, state_type = declared(own["step"])
            cls.takes, cls.state_type = own.get("takes", takes), own.get("state_type", state_type)

    def init(self, params: Params) -> State:  # type: ignore[override]
        """Makes the state from the parameters; by default there is none."""
        del params
        return EmptyState()

    def step(self, updates: Updates, state: State, params: Params | None = None, **extra_args: ExtraArg) -> tuple[Updates, State]:
        """The rule: new updates and the new state. Half-precision input arrives as float32."""
        raise NotImplementedError(f"{type(self).__name__}: step is missing; it is the rule of a transformation.")

    @_called_as("tx.update(updates, state, params)")
    def update(  # type: ignore[override]
        self, updates: Updates, state: State, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, State]:
        """Transforms updates, as a training loop calls it.

        Outside `jit` it runs as one compiled program, which equal transformations share; operation
        by operation where a hyperparameter is an array or a plain function, or an extra argument is
        no array.
        """
        try:
            _check(self, updates, state, params, extra_args)
        except checks.Refusal as refusal:
            refusal.by(self.called)
            raise
        arguments = (updates, state, params, extra_args)
        for x in jax.tree.leaves(arguments):
            if isinstance(x, Tracer) or not isinstance(x, _ARRAYS):
                return _bounded(self, *arguments)
        if self.is_data:
            try:
                return _compiled(self, *arguments)
            except checks.Refusal:
                pass  # raised again below, where the text shows values instead of tracers
        return _bounded(self, *arguments)

    def advance(self, updates: Updates, state: State, params: Params | None, extra_args: Extra) -> tuple[Updates, State]:
        """`step` for the transformations around this one, with checks of what goes in and out."""
        try:
            return self.checked_step(updates, state, params, extra_args)
        except checks.Refusal as refusal:
            refusal.by(self.called)
            raise

    def checked_step(self, updates: Updates, state: State, params: Params | None, extra_args: Extra) -> tuple[Updates, State]:
        """`advance` without the name in errors."""
        if not isinstance(state, self.state_type):
            trees.raise_wrong_state(state, self.state_type)
        if self.needs_params and params is None:
            trees.require_params(params)
        for name, required in self.takes.items():
            if required and name not in extra_args:
                call = f"tx.update(updates, state, params, {name}=...)"
                raise checks.WrongType(f"missing extra argument `{name}`; call {call}.")
        if not (self.any_leaves or _are_inexact(updates)):
            trees.check_leaves("updates", updates)
        result = self.step(updates, state, params, **extra_args)
        if type(result) is not tuple or len(result) != 2:
            raise checks.WrongType(f"step returned {checks.kind(result)}, expected a pair (updates, state).")
        if not (self.transparent or _are_alike(result, (updates, state))):  # members check for themselves
            trees.check_returned(result, (updates, state), params, measures=self.measuring, keeps_form=self.keeps_form)
        return result

    @property
    def inside(self) -> tuple["Transformation", ...]:
        """The transformations that this one runs."""
        return ()

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        """Those inside with what they see of the parameters and of the state.

        `params` may be None, where states alone are wanted.
        """
        return tuple(Part(tx, params, state) for tx in self.inside)

    def undone(self, before: State, after: State) -> State:
        """What is left of a step that is refused from outside: the state before it.

        A transformation that gathers updates drops them where the step was to use them up, so that
        what was refused does not come back. One with others inside hands them their states. Of a
        call that left the state as it was, that state is left.
        """
        del after
        return before

    def touches(self, params: Params) -> list[bool]:
        """For each leaf of the parameters whether this, apart from what is inside, acts on it."""
        return [not self.inside] * len(jax.tree.leaves(params))

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.update))

    def __len__(self) -> int:
        return 2


def _are_inexact(tree: Updates) -> bool:
    """Whether all leaves are floating or complex arrays, or Python numbers of these kinds."""
    for x in jax.tree.leaves(tree):
        dtype = getattr(x, "dtype", None)
        if not (isinstance(x, (float, complex)) if dtype is None else trees.is_inexact_dtype(dtype)):
            return False
    return True


def _are_alike(returned: Tree, given: Tree) -> bool:
    """Whether trees of arrays have one structure, and the same shapes and dtypes."""
    found, treedef = jax.tree.flatten(returned)
    expected, other = jax.tree.flatten(given)
    if treedef != other:
        return False
    for x, y in zip(found, expected, strict=True):
        if x is not y and (getattr(x, "shape", ()), getattr(x, "dtype", x)) != (getattr(y, "shape", ()), getattr(y, "dtype", None)):
            return False
    return True


def _bounded(tx: Transformation, updates: Updates, state: State, params: Params | None, extra_args: Extra) -> tuple[Updates, State]:
    wide, wide_state = leaves.widen((updates, state))
    new, after = tx.advance(wide, wide_state, params, extra_args)
    return leaves.in_dtypes_of(new, updates), leaves.in_dtypes_of(after, state)


_compiled = jax.jit(_bounded, static_argnums=0)
_ARRAYS = (jax.Array, np.ndarray, np.generic, float, complex)


def _check(tx: Transformation, updates: Updates, state: State, params: Params | None, extra_args: Extra) -> None:
    if extra_args:
        _check_spelling(wants(tx), extra_args)
    if params is None or tx.measuring:
        return
    point = getattr(type(params), "gradient_point", None)  # of parameters in two versions, as LookaheadParams
    like = params if point is None else point(params)
    if not _are_alike(updates, like):
        if not isinstance(state, tx.state_type):  # it may have changed places with the parameters
            trees.raise_wrong_state(state, tx.state_type)
        trees.check_same_shapes(updates, like)


def _check_spelling(known: frozenset[str], extra_args: Extra) -> None:
    for key in extra_args:
        if key not in known and (hint := checks.did_you_mean(key, known - extra_args.keys())):
            raise checks.WrongType(f"unknown extra argument `{key}`.{hint}")


def wants(tx: Transformation) -> frozenset[str]:
    """The extra arguments that a transformation, or one inside it, takes."""
    return frozenset(name for one in [tx, *tx.inside] for name in (one.takes if one is tx else wants(one)))


def declared(step: Callable[..., Any]) -> tuple[dict[str, bool], type]:
    """The extra arguments that a rule declares, whether it needs them, and its type of state."""
    parameters = inspect.signature(step).parameters
    takes = {p.name: p.default is p.empty for p in parameters.values() if p.kind is p.KEYWORD_ONLY}
    state = hints_of(step).get("state")
    return takes, state if isinstance(state, type) and state is not Any else object
