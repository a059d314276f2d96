"""Where the arrays of a state lie on a mesh. Moving them is JAX's: `jit` with shardings."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from gradtx.compose.labels import spread
from gradtx.core import checks
from gradtx.core.checked import checked
from gradtx.core.composites import Wrapper
from gradtx.core.pairs import Inner, as_transformation
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.transformation import Part, Transformation
from gradtx.core.types import Extra, ExtraArg, Params, Scalar, State, Tree, Updates
from gradtx.core.walk import rests
from gradtx.tree.reductions import AxisNames

HOST = jax.memory.Space.Host


@checked
def state_sharding(tx: Inner, params_shape: Params, params_sharding: Tree | None = None) -> State:
    """A `NamedSharding` for every array of a state: moments lie as their parameters do.

    It is what `tx.init` itself makes of parameters whose types say how they lie (JAX's explicit
    axes), traced and not run: a row of sums lies as the rows did, a memory of gradients as each of
    them, numbers are on every device. Nothing is guessed from shapes. On automatic axes hand the
    result to `jit`, which else decides anew at every compilation how results lie.

    Args:
      tx: the transformation.
      params_shape: the parameters, or their shapes.
      params_sharding: a `NamedSharding` for each of them, or one for all below; all of one mesh.
        None: as `params_shape` says.

    Returns:
      A tree like the state.

    Raises:
      TypeError: a parameter has no `NamedSharding`.
      ValueError: two meshes; an `init` of your own does not run on explicit axes.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> from jax.sharding import NamedSharding, PartitionSpec
      >>> everywhere = NamedSharding(jax.make_mesh((1,), ("data",)), PartitionSpec("data"))
      >>> params = jax.eval_shape(lambda: {"w": jnp.zeros((8, 2))})
      >>> state = gradtx.state_sharding(gradtx.adam(0.1), params, everywhere)
      >>> tuple(state[0].mu["w"].spec), tuple(state[0].count.spec)
      (('data', None), ())
    """
    shapes = _shapes(as_transformation(tx), params_shape, *_layout(params_shape, params_sharding))
    return jax.tree.map(lambda x: x.sharding, shapes)


@checked
def init_sharded(tx: Inner, params: Params) -> State:
    """`tx.init(params)` with every array where `state_sharding` says, and never whole on a device.

    Args:
      tx: the transformation.
      params: the parameters on a mesh.

    Returns:
      The state.

    Raises:
      TypeError, ValueError: as `state_sharding`.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> from jax.sharding import NamedSharding, PartitionSpec
      >>> everywhere = NamedSharding(jax.make_mesh((1,), ("data",)), PartitionSpec("data"))
      >>> params = jax.device_put(jnp.zeros(8), everywhere)
      >>> tuple(gradtx.init_sharded(gradtx.sgd(0.1, momentum=0.9), params)[0].trace.sharding.spec)
      ('data',)
    """
    tx = as_transformation(tx)
    return init_part(tx, params, lambda state: state, _shapes(tx, params, *_layout(params, None)))


def on_a_mesh(params: Params) -> bool:
    """Whether a parameter is on a mesh."""
    return any(isinstance(getattr(x, "sharding", None), NamedSharding) for x in jax.tree.leaves(params))


def mesh_of(params: Params) -> AbstractContextManager[Any]:
    """The mesh that parameters are on, as the mesh in use; where they are on none, nothing."""
    if not on_a_mesh(params):
        return contextlib.nullcontext()
    mesh, _ = _layout(params, None)
    return jax.sharding.use_abstract_mesh(mesh if isinstance(mesh, AbstractMesh) else mesh.abstract_mesh)


def state_shapes(tx: Transformation, params: Params) -> State:
    """The shapes of a state with their shardings; None is where JAX puts it."""
    return _shapes(tx, params, *(_layout(params, None) if on_a_mesh(params) else (None, None)))


def init_part(tx: Transformation, params: Params, part: Callable[[State], Tree], shapes: State) -> Tree:
    """Some arrays of `tx.init(params)`, where their shapes say; nothing else is computed."""

    def init(params: Params) -> Tree:
        return part(tx.init(params))

    if not on_a_mesh(params):
        return jax.jit(init)(params)
    mesh, specs = _layout(params, None)
    lies = jax.tree.structure(params).unflatten(specs)
    # As the shapes were traced: what a type does not show, `init` cannot cut.
    explicit = init if _is_explicit(mesh) else jax.sharding.explicit_axes(init, in_sharding=(lies,))
    with mesh_of(params):
        return jax.jit(explicit, out_shardings=part(jax.tree.map(lambda x: x.sharding, shapes)))(params)


def _layout(params: Params, shardings: Tree | None) -> tuple[Any, list[PartitionSpec]]:
    """The mesh, and how each parameter lies on it."""
    named = leaves_by_path(params)
    if shardings is None:
        found = [getattr(x, "sharding", None) for x in named.values()]
    else:
        found = spread("params_sharding", shardings, params)
    mesh, first, specs = None, "", []
    for parts, sharding in zip(named, found, strict=True):
        path = "/".join(parts) or ROOT
        if not isinstance(sharding, NamedSharding):
            got = "no sharding" if sharding is None else checks.kind(sharding)
            raise checks.WrongType(
                f"the parameter `{path}` has {got}, expected a NamedSharding: jax.device_put(params, shardings)."
            )
        if mesh is None:
            mesh, first = sharding.mesh, path
        elif (mesh.axis_names, mesh.axis_sizes) != (sharding.mesh.axis_names, sharding.mesh.axis_sizes):
            raise checks.WrongValue(f"`{first}` is on the mesh {mesh}, but `{path}` on {sharding.mesh}; expected one mesh.")
        specs.append(sharding.spec)
    if mesh is None:
        raise checks.WrongValue("there are no parameters, so no mesh to put a state on.")
    return mesh, specs


def _shapes(tx: Transformation, params: Params, mesh: Any, specs: Sequence[PartitionSpec] | None) -> State:
    """The shapes that `tx.init` makes of parameters that lie so, with what its types say."""
    if mesh is None or specs is None:
        return _seen(tx.init, params, _on_no_mesh)
    explicit = AbstractMesh(mesh.axis_sizes, mesh.axis_names, axis_types=(AxisType.Explicit,) * len(mesh.axis_names))
    leaves, treedef = jax.tree.flatten(params)
    shown = [
        jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=NamedSharding(explicit, spec))
        for x, spec in zip(leaves, specs, strict=True)
    ]
    spelled = (lambda spec: spec) if _is_explicit(mesh) else _short  # as results have it, so that one trace is enough

    def lies(x: jax.Array) -> jax.ShapeDtypeStruct:
        aval = jax.typeof(x)
        kind = "pinned_host" if aval.memory_space == HOST else None
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spelled(aval.sharding.spec), memory_kind=kind))

    try:
        with jax.sharding.use_abstract_mesh(explicit):
            return _seen(tx.init, treedef.unflatten(shown), lies)
    except checks.Refusal:
        raise
    except Exception as error:  # whatever JAX or a user's init raises
        text = f"{tx.called}.init does not run on parameters whose types say how they lie (JAX's explicit axes)"
        raise checks.WrongValue(f"{text}, so how its state lies is not known: {error}") from error


def _seen(init: Callable[[Params], State], params: Params, look: Callable[[jax.Array], jax.ShapeDtypeStruct]) -> State:
    """What a look at each array of a state gives while `init` is traced."""
    found: list[State] = []

    def looked(params: Params) -> State:
        state = init(params)
        found.append(jax.tree.map(lambda x: look(jnp.asarray(x)), state))
        return state

    jax.eval_shape(looked, params)
    return found[0]


def _on_no_mesh(x: jax.Array) -> jax.ShapeDtypeStruct:
    on_host = jax.typeof(x).memory_space == HOST
    host = SingleDeviceSharding(jax.devices()[0], memory_kind="pinned_host") if on_host else None
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=host)


class zero1(Wrapper, transparent=True, keeps_zero=True):
    """The state of an optimizer shared by devices, while parameters lie as they did (ZeRO-1).

    Each device keeps a part of every moment, updates that part of the parameters, and gets the
    updates of the others: gradients are summed and cut, updates gathered. It computes what `inner`
    computes. Its mesh is that of `jax.set_mesh`.

    Args:
      inner: the transformation.
      axis: the mesh axis along which parameters are copies of each other, or several. An array is
        cut along its first axis that they divide; one that they do not divide, or that lies along
        them already, stays as it is.
      spec: how parameters lie on automatic axes: a `PartitionSpec`, or a tree of them, or a
        function from the parameters to one, such as `by_path`. None: every device has them whole.
        With explicit axes the parameters themselves say it.

    State: that of `inner`.

    Raises:
      ValueError: there is no mesh, or it lacks an axis.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx = gradtx.zero1(gradtx.adamw(1e-3), "data")
      >>> with jax.set_mesh(jax.make_mesh((1,), ("data",))):
      ...     state = tx.init(jnp.ones(8))
      >>> tuple(jax.typeof(state[0].mu).sharding.spec)
      ('data',)

    Source: Rajbhandari et al. 2019, arXiv:1910.02054, `P_os`.
    """

    inner: Inner
    axis: AxisNames
    _: KW_ONLY
    spec: Tree | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        """The mesh axes."""
        return (self.axis,) if isinstance(self.axis, str) else tuple(self.axis)

    def init(self, params: Params) -> State:
        return self.inner.init(self.split(params))

    def step(self, updates: Updates, state: State, params: Params | None = None, **extra_args: ExtraArg) -> tuple[Updates, State]:
        given = self.layout(updates)
        parts = self.split(updates)
        some = None if params is None else self.split(params)
        new, after = self.inner.advance(parts, state, some, self.inward(extra_args, updates))
        return _placed(new, given), self.kept(after, updates if params is None else params)

    def layout(self, tree: Tree) -> list[NamedSharding] | None:
        """How the leaves of a tree like the parameters lie; None where nothing is to be shared."""
        if not self.axes:
            return None
        mesh = _mesh(self.axes)
        if _is_explicit(mesh):
            return [jax.typeof(x).sharding for x in jax.tree.leaves(tree)]
        if self.spec is None:
            return [NamedSharding(mesh, PartitionSpec())] * len(jax.tree.leaves(tree))
        return [NamedSharding(mesh, spec) for spec in spread("spec", self.spec, tree)]

    def cut(self, tree: Tree) -> list[NamedSharding] | None:
        """The same with each leaf cut along the axes."""
        given = self.layout(tree)
        if given is None:
            return None
        leaves = jax.tree.leaves(tree)
        return [_cut(jnp.shape(x), sharding, self.axes) for x, sharding in zip(leaves, given, strict=True)]

    def split(self, tree: Tree) -> Tree:
        """A tree like the parameters, cut along the axes."""
        return _placed(tree, self.cut(tree))

    def kept(self, state: State, params: Params) -> State:
        """A state as `init` laid it; with explicit axes it lies so by its type."""
        cut = self.cut(params)
        if not cut or _is_explicit(mesh := cut[0].mesh):
            return state
        shapes = _shapes(self.inner, params, mesh, [sharding.spec for sharding in cut])
        return _placed(state, [x.sharding for x in jax.tree.leaves(shapes)])

    def inward(self, extra_args: Extra, updates: Updates) -> dict[str, ExtraArg]:
        """`grad`, `grad_fn` and `value_fn` for parameters that are cut."""
        given, inward = self.layout(updates), dict(extra_args)
        if jax.tree.structure(extra_args.get("grad")) == jax.tree.structure(updates):
            inward["grad"] = self.split(extra_args["grad"])
        if callable(value_fn := extra_args.get("value_fn")):
            call = value_fn

            @functools.wraps(call)  # its arguments are read from it
            def value_of(params: Params, *args: ExtraArg, **kwargs: ExtraArg) -> Scalar:
                return call(_placed(params, given), *args, **kwargs)

            inward["value_fn"] = value_of
        if callable(grad_fn := extra_args.get("grad_fn")):
            inward["grad_fn"] = lambda params: self.split(grad_fn(_placed(params, given)))
        return inward

    @property
    def state_type(self) -> type:  # type: ignore[override]
        """That of the wrapped transformation."""
        return self.inner.state_type

    @property
    def rests(self) -> bool:  # type: ignore[override]
        """As the wrapped transformation."""
        return rests(self.inner)

    def parts(self, params: Params, state: State) -> tuple[Part, ...]:
        """The wrapped transformation, with the same state."""
        return (Part(self.inner, params, state),)

    def undone(self, before: State, after: State) -> State:
        """What is left in the wrapped transformation."""
        return self.inner.undone(before, after)


def _mesh(axes: tuple[str, ...]) -> AbstractMesh:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        raise checks.WrongValue(f"axis is {axes!r}, but there is no mesh. Call it under jax.set_mesh(mesh).")
    for axis in axes:
        if axis not in mesh.axis_names:
            raise checks.WrongValue(f"axis has {axis!r}, expected one of the mesh's axes: {mesh.axis_names}.")
    return mesh


def _is_explicit(mesh: Any) -> bool:
    return any(kind == AxisType.Explicit for kind in mesh.axis_types)


def _placed(tree: Tree, shardings: Sequence[NamedSharding] | None) -> Tree:
    """A tree with leaves that lie so."""
    if shardings is None:
        return tree
    leaves, treedef = jax.tree.flatten(tree)
    move = jax.sharding.reshard if shardings and _is_explicit(shardings[0].mesh) else jax.lax.with_sharding_constraint
    return treedef.unflatten(move(x, sharding) for x, sharding in zip(leaves, shardings, strict=True))


def _cut(shape: tuple[int, ...], sharding: NamedSharding, axes: tuple[str, ...]) -> NamedSharding:
    """A sharding that cuts an array along more mesh axes, where they divide one of its axes."""
    sizes = sharding.mesh.shape
    names = [() if entry is None else (entry,) if isinstance(entry, str) else tuple(entry) for entry in sharding.spec]
    names += [()] * (len(shape) - len(names))
    free = [axis for axis in axes if all(axis not in entry for entry in names)]
    count = _product(sizes, free)
    for i in sorted(range(len(shape)), key=lambda i: bool(names[i])):  # whole axes first
        size = shape[i] // _product(sizes, names[i])
        if free and size and size % count == 0:
            names[i] = (*names[i], *free)
            break
    return NamedSharding(sharding.mesh, PartitionSpec(*[entry or None for entry in names]))


def _short(spec: PartitionSpec) -> PartitionSpec:
    """The same without None at its end, as compiled programs spell it."""
    entries = tuple(spec)
    while entries and entries[-1] is None:
        entries = entries[:-1]
    return PartitionSpec(*entries)


def _product(sizes: Any, names: Sequence[str]) -> int:
    total = 1
    for name in names:
        total *= sizes[name]
    return total
