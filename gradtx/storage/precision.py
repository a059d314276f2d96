"""Half-precision parameters that lose no step: masters, compensation, rounding at random."""

import functools
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.masking import merge, select
from gradtx.core import apply
from gradtx.core.composites import Wrapper
from gradtx.core.domains import Domain, check_argument, one_of
from gradtx.core.leaves import cast_like, widen
from gradtx.core.numerics import guarded_ratio, promote
from gradtx.core.transformation import Transformation
from gradtx.core.types import DType, Extra, ExtraArg, Leaf, LeafRule, Params, State, Tree, Updates
from gradtx.storage.rounding import joined, nearest, noise_like, rest_of, split, stochastic
from gradtx.transforms.noise import as_key

ROUNDING = one_of("nearest", "stochastic")
Rounding = Annotated[str, ROUNDING]


def is_half(x: Leaf) -> bool:
    """Whether a leaf has fewer bits than float32."""
    dtype = jnp.result_type(x)
    return bool(jnp.issubdtype(dtype, jnp.floating)) and dtype.itemsize < 4


# Rounding at random


def apply_updates(params: Params, updates: Updates, *, rounding: Rounding = "nearest", key: jax.Array | None = None) -> Tree:
    """Adds updates to parameters: `p + u`, in at least float32, stored in the dtype of `p`.

    Args:
      params: tree of arrays. Leaves that are None stay None.
      updates: tree of the same structure and shapes; where a leaf is None (or a float0, the
        gradient of an integer) its parameter stays.
      rounding: 'nearest', or 'stochastic': half-precision parameters become one of the two numbers
        around `p + u`, so that the mean is `p + u`. Updates too small to reach the next number then
        still move them on average. Hand over updates in float32 (from gradients in float32), since
        those in half precision have been rounded already.
      key: random key of 'stochastic', another one for each step.

    Returns:
      The new parameters, each with the shape and dtype it had.

    Raises:
      ValueError: structures or shapes differ; nothing is broadcast.
      TypeError: `rounding` is unknown, or 'stochastic' has no key.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> gradtx.apply_updates({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([0.5, -0.5])})
      {'w': Array([1.5, 1.5], dtype=float32)}
      >>> ones, key = jnp.ones(10_000, jnp.bfloat16), jax.random.key(0)
      >>> new = gradtx.apply_updates(ones, jnp.full(10_000, -1e-3), rounding="stochastic", key=key)
      >>> round(float(jnp.mean(new, dtype=jnp.float32)), 4)
      0.999

    Source: Gupta et al. 2015, arXiv:1502.02551, section 3; Zamirai et al. 2020, arXiv:2010.06192,
    for bfloat16 weights.

    **Differs:** Optax has no `rounding`.
    """
    check_argument("apply_updates", "rounding", rounding, ROUNDING)
    if rounding == "nearest":
        return apply.apply_updates(params, updates)
    if key is None:
        raise TypeError("apply_updates: key is None, expected a random key for rounding='stochastic', another one for each step.")
    moved = apply.apply_updates(widen(params), updates)
    return rounded_at_random(moved, [jnp.result_type(p) if is_half(p) else None for p in jax.tree.leaves(params)], as_key(key))


def rounded_at_random(tree: Tree, dtypes: Sequence[DType | None], key: jax.Array) -> Tree:
    """Float32 leaves in narrower dtypes, rounded at random; those without a dtype as they are."""
    leaves, treedef = jax.tree.flatten(tree)
    seeds = jax.random.bits(key, (len(leaves),), jnp.uint32)
    for i, dtype in enumerate(dtypes):
        if dtype is not None and leaves[i].dtype == jnp.float32:
            leaves[i] = _round(leaves[i], seeds[i], dtype)
    return treedef.unflatten(leaves)


@functools.partial(jax.jit, static_argnums=2)
def _round(x: jax.Array, seed: jax.Array, dtype: DType) -> jax.Array:
    return stochastic(x, dtype, noise_like(x, seed)).astype(dtype)


# Masters


def _is_master_dtype(value: DType) -> bool:
    try:
        return np.dtype(value).name in ("float32", "float64", "int8", "int16")
    except TypeError:
        return False


MasterDType = Annotated[DType, Domain("'float32', 'float64', 'int16' or 'int8'", _is_master_dtype, canonical=np.dtype)]


class MasterWeightsState(NamedTuple):
    """The wrapped transformation's state, and the masters, or what rounding took from them.

    `MaskedNode` for parameters that need none.
    """

    inner_state: State
    masters: Params


class master_weights(Wrapper, final=True, guards=True, keeps_zero=True, needs_params=True):
    """Masters of half-precision parameters in the state: `w += u`; the parameter is `w` rounded.

    The wrapped optimizer sees the masters in the parameters' place, so that training is that of
    float32 parameters but for gradients, which are taken at the rounded ones. Updates are what
    takes a parameter from where it is to its rounded master: parameters that were changed by hand
    go back there. Gradients of half precision give updates of half precision: one that more than
    halves a parameter, or turns its sign, is off by up to 2^-8 of itself, which the next step puts
    right with masters of 'float32'. Nothing may change the updates before they are applied: put it
    around the whole chain. `update` needs `params`.

    Args:
      inner: the transformation to wrap: a whole optimizer, with its learning rate.
      dtype: what the state keeps. 'float32' (or 'float64'): the masters, of all parameters of fewer
        bits. 'int16': the 16 bits that a bfloat16 parameter lacks, which makes the same masters in
        half the memory. 'int8': the next 8 of them, masters of 24 bits, within 2^-16 of a weight.
        float16 parameters, which lack other bits, keep float32 masters with both.

    State: `MasterWeightsState(inner_state, masters)`; for each half-precision parameter 4 bytes
      more than the wrapped one's, 2 with 'int16', 1 with 'int8'.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = jnp.ones((), jnp.bfloat16)
      >>> for tx in (gradtx.sgd(1e-3), gradtx.master_weights(gradtx.sgd(1e-3))):
      ...     moved, state = params, tx.init(params)
      ...     for _ in range(500):
      ...         updates, state = tx.update(jnp.ones((), jnp.bfloat16), state, moved)
      ...         moved = gradtx.apply_updates(moved, updates)
      ...     print(moved)
      1
      0.5

    Source: Micikevicius et al. 2017, "Mixed Precision Training", arXiv:1710.03740, section 3.1;
    'int8' and 'int16': FlashOptim, arXiv:2602.23349, section on weight splitting, with the bits
    themselves in the place of its scaled residual, as exact and cheaper.
    """

    dtype: MasterDType = "float32"

    def init(self, params: Params) -> MasterWeightsState:
        keep = [self._lacks_bits(p) for p in jax.tree.leaves(params)]
        masters = jax.tree.map(self._kept, select(params, keep))
        wide = merge(params, keep, [promote(p) for p, kept in zip(jax.tree.leaves(params), keep, strict=True) if kept])
        return MasterWeightsState(self.inner.init(wide), masters)

    def step(
        self, updates: Updates, state: MasterWeightsState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, MasterWeightsState]:
        keep = [self._lacks_bits(p) for p in jax.tree.leaves(params)]
        own = [p for p, kept in zip(jax.tree.leaves(params), keep, strict=True) if kept]
        stored, structure = jax.tree.flatten(state.masters)
        wide = merge(params, keep, [_whole(p, x) for p, x in zip(own, stored, strict=True)])
        updates, inner_state = self.inner.advance(updates, state.inner_state, wide, at_precision_of(params, extra_args))
        moves = [u for u, kept in zip(jax.tree.leaves(updates), keep, strict=True) if kept]
        moved = [_moved(p, x, u) for p, x, u in zip(own, stored, moves, strict=True)]
        updates = merge(updates, keep, [u for u, _ in moved])
        return updates, MasterWeightsState(inner_state, structure.unflatten([x for _, x in moved]))

    @functools.cached_property
    def _stored(self) -> np.dtype:
        return np.dtype(self.dtype)

    def _lacks_bits(self, p: Leaf) -> bool:
        dtype = jnp.result_type(p)
        least = 4 if self._stored.kind == "i" else self._stored.itemsize
        return bool(jnp.issubdtype(dtype, jnp.floating)) and dtype.itemsize < least

    def _kept(self, p: Leaf) -> jax.Array:
        """What the state keeps of a parameter at the start."""
        if self._stored.kind == "f":
            return jnp.array(p, self._stored)
        return jnp.zeros_like(p, self._stored) if jnp.result_type(p) == jnp.bfloat16 else jnp.array(p, jnp.float32)


@jax.jit
def _whole(p: jax.Array, stored: jax.Array) -> jax.Array:
    """The master of a parameter."""
    return joined(p, stored) if jnp.issubdtype(stored.dtype, jnp.integer) else stored


@jax.jit
def _moved(p: jax.Array, stored: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The update that takes a parameter to its rounded master after a step, and what to store."""
    w = _whole(p, stored)
    w = w + u.astype(w.dtype)
    if not jnp.issubdtype(stored.dtype, jnp.integer):
        return nearest(w, p.dtype) - p.astype(w.dtype), w
    top, _ = split(w, stored.dtype)
    move, end = _move(p, top)
    return move, rest_of(w, end, stored.dtype)


def _move(p: jax.Array, to: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The update that takes a parameter to a number of its dtype, and where it ends, in float32.

    Both in the precision of the parameter. Where it ends is the sum that `apply_updates` computes:
    XLA for TPUs then makes one pass of both, and what is stored of the rest is right where that sum
    is another number.
    """
    move = nearest(to - p.astype(to.dtype), p.dtype).astype(p.dtype).astype(to.dtype)
    end = (p.astype(to.dtype) + move).astype(p.dtype)
    return move, nearest(end.astype(to.dtype), p.dtype)


def at_precision_of(params: Params, extra_args: Extra) -> dict[str, ExtraArg]:
    """Extra arguments whose functions of parameters get them in the dtypes of `params`."""

    def narrowed(call: LeafRule) -> LeafRule:
        @functools.wraps(call)  # line searches read which arguments it takes by name
        def at(point: Params, *args: ExtraArg, **kwargs: ExtraArg) -> Tree:
            return call(cast_like(point, params), *args, **kwargs)

        return at

    named = ("value_fn", "grad_fn")
    return {name: narrowed(value) if name in named and callable(value) else value for name, value in extra_args.items()}


class KahanState(NamedTuple):
    """The wrapped transformation's state, and what rounding has taken from the parameters so far.

    `MaskedNode` for parameters of float32 or wider.
    """

    inner_state: State
    compensation: Params


class kahan(Wrapper, final=True, guards=True, keeps_zero=True, needs_params=True):
    """Compensated summation: what rounding takes from half-precision parameters is added later.

    `s = p + u + c` in float32, `p' = round(s)`, `c = s - p'`; `c` begins at 0, in the dtype of `p`.
    The wrapped optimizer sees the rounded parameters. Nothing may change the updates before they
    are applied: put it around the whole chain. `update` needs `params`.

    Args:
      inner: the transformation to wrap: a whole optimizer, with its learning rate.

    State: `KahanState(inner_state, compensation)`; 2 bytes a half-precision parameter more than the
      wrapped one's.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.kahan(gradtx.sgd(1e-3)), jnp.ones((), jnp.bfloat16)
      >>> state = tx.init(params)
      >>> for _ in range(500):
      ...     updates, state = tx.update(jnp.ones((), jnp.bfloat16), state, params)
      ...     params = gradtx.apply_updates(params, updates)
      >>> print(params)
      0.5

    Source: Kahan 1965, "Further remarks on reducing truncation errors"; Zamirai et al. 2020,
    "Revisiting BFloat16 Training", arXiv:2010.06192, algorithm 1.
    """

    def init(self, params: Params) -> KahanState:
        half = select(params, [is_half(p) for p in jax.tree.leaves(params)])
        return KahanState(self.inner.init(params), jax.tree.map(jnp.zeros_like, half))

    def step(
        self, updates: Updates, state: KahanState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, KahanState]:
        updates, inner_state = self.inner.advance(updates, state.inner_state, params, extra_args)
        leaves, keep = jax.tree.leaves(params), [is_half(p) for p in jax.tree.leaves(params)]
        rows = [row for *row, half in zip(leaves, jax.tree.leaves(updates), keep, strict=True) if half]
        lost, structure = jax.tree.flatten(state.compensation)
        moved = [_compensated(p, promote(u), c) for (p, u), c in zip(rows, lost, strict=True)]
        updates = merge(updates, keep, [u for u, _ in moved])
        return updates, KahanState(inner_state, structure.unflatten([c for _, c in moved]))


@jax.jit
def _compensated(p: jax.Array, u: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    whole = p.astype(u.dtype) + (u + c)
    move, end = _move(p, nearest(whole, p.dtype))
    return move, whole - end


# Seeing what is lost


class RoundedAwayState(NamedTuple):
    """The share at the last step."""

    rounded_away: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """What `gradtx.metrics` reports."""
        return {"rounded_away": self.rounded_away}


class rounded_away(Transformation, observes=True, keeps_zero=True, needs_params=True):
    """Measures how many updates rounding loses: the share of those that are not 0 but move nothing.

    An update moves its parameter if `p + u`, rounded to the dtype of `p`, is another number. Put it
    last; the updates stay as they are. `gradtx.metrics(state)["rounded_away"]` reads the share.
    Near 0 all is well; near 1 training has stalled: wrap the optimizer in `master_weights` or
    `kahan`, or pass `rounding="stochastic"` to `apply_updates`.

    State: `RoundedAwayState(rounded_away)`, one number.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> params = jnp.ones(4, jnp.bfloat16)
      >>> tx = gradtx.chain(gradtx.adamw(1e-3), gradtx.rounded_away())
      >>> _, state = tx.update(params, tx.init(params), params)
      >>> float(gradtx.metrics(state)["rounded_away"])
      1.0
    """

    def init(self, params: Params) -> RoundedAwayState:
        return RoundedAwayState(jnp.zeros((), jnp.float32))

    def step(
        self, updates: Updates, state: RoundedAwayState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, RoundedAwayState]:
        counts = [_lost(u, p) for u, p in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True)]
        if not counts:
            return updates, state
        lost, given = jnp.sum(jnp.stack(counts), axis=0)
        return updates, RoundedAwayState(guarded_ratio(lost, given))


@jax.jit
def _lost(u: jax.Array, p: jax.Array) -> jax.Array:
    """How many updates of a leaf are lost, and how many are not 0."""
    wide = promote(p)
    moved = wide + promote(u).astype(wide.dtype)
    moved = nearest(moved, p.dtype) if is_half(p) else moved
    given = u != 0
    return jnp.stack([jnp.sum(given & (moved == wide)), jnp.sum(given)]).astype(jnp.float32)
