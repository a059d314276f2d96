"""Arrays of a state in the memory of the host, for as long as no update needs them."""

import jax

from gradtx.core import checks
from gradtx.core.composites import Wrapper
from gradtx.core.transformation import Part
from gradtx.core.trees import is_inexact
from gradtx.core.types import ExtraArg, Leaf, Params, State, Updates
from gradtx.core.walk import rests
from gradtx.storage.matching import pattern_of, some
from gradtx.storage.names import entries_of, names_of

DEVICE, HOST = jax.memory.Space.Device, jax.memory.Space.Host


class offload(Wrapper, transparent=True, keeps_zero=True):
    """Keeps moments in the memory of the host; each update brings them to the device and back.

    It saves the device's memory and costs the way through the bus. `state_sharding` gives the
    arrays the memory kind `pinned_host`. A step that donates the state has to name its
    `out_shardings`: without them JAX pairs donated arrays with results of either memory.

    Args:
      inner: the transformation.
      path: regular expression that matches the whole names of the arrays, as `state_dict` names
        them: `"(mu|nu)/.*"`. Numbers stay on the device.

    State: that of `inner`.

    Raises:
      ValueError: no array of the state has such a name.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.offload(gradtx.adam(0.1), "(mu|nu)/.*"), {"w": jnp.ones(4)}
      >>> _, state = jax.jit(tx.update)(params, tx.init(params), params)
      >>> state[0].mu["w"].sharding.memory_kind, state[0].count.sharding.memory_kind
      ('pinned_host', 'device')
    """

    path: str = ".*"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.path, str):
            raise TypeError(f"offload: path is {checks.kind(self.path)}, expected a regular expression for names, as text.")
        with checks.calling("offload"):
            pattern_of("path", self.path)

    def init(self, params: Params) -> State:
        state = self.inner.init(params)
        names = names_of(entries_of(self.inner, state))
        leaves, treedef = jax.tree.flatten(state)
        chosen = [bool(pattern_of("path", self.path).fullmatch(name)) for name in names]
        if jax.tree.leaves(params) and not any(chosen):
            raise checks.WrongValue(f"path is {self.path!r}, which matches no name of the state: {some(names)}.")
        return treedef.unflatten(
            jax.device_put(x, HOST) if own and _is_large(x) else x for x, own in zip(leaves, chosen, strict=True)
        )

    def step(self, updates: Updates, state: State, params: Params | None = None, **extra_args: ExtraArg) -> tuple[Updates, State]:
        here = jax.tree.map(lambda x: jax.device_put(x, DEVICE) if _is_on_host(x) else x, state)
        updates, after = self.inner.advance(updates, here, params, extra_args)
        return updates, jax.tree.map(lambda x, before: jax.device_put(x, HOST) if _is_on_host(before) else x, after, state)

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


def _is_large(x: Leaf) -> bool:
    return is_inexact(x) and x.ndim > 0


def _is_on_host(x: Leaf) -> bool:
    return jax.typeof(x).memory_space == HOST
