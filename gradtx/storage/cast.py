"""States in another dtype, by kind or by path."""

from collections.abc import Iterator
from dataclasses import KW_ONLY
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.labels import spread
from gradtx.core import checks
from gradtx.core.composites import Wrapper
from gradtx.core.domains import Domain, FloatDType, SecondMomentDType, check_argument, domain_of
from gradtx.core.leaves import widen
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.types import DType, ExtraArg, Params, State, Tree, Updates
from gradtx.core.value import is_dtype
from gradtx.storage.kinds import kinds_in
from gradtx.storage.precision import Rounding, rounded_at_random
from gradtx.transforms.noise import Key, as_key

KEEP = "keep"
"""The label of arrays that stay as they are."""


def _is_dtype_or_rule(value: Tree) -> bool:
    try:
        return bool(jnp.issubdtype(np.dtype(value), jnp.floating))
    except TypeError:
        return callable(value) and not checks.is_factory(value)


StateDType = Annotated[
    DType,
    Domain("a floating dtype, such as 'bfloat16', or a function from the state to dtypes, such as by_path", _is_dtype_or_rule),
]


def _domain(annotation: object) -> Domain:
    domain = domain_of(annotation)
    assert domain is not None
    return domain


SQUARES, MOMENT = _domain(SecondMomentDType), _domain(FloatDType)
"""What squares may be stored in, and what all else."""


class CastState(NamedTuple):
    """The wrapped transformation's state in the dtypes asked for; the key of random rounding."""

    inner_state: State
    rng_key: jax.Array | None


class cast_state(Wrapper, keeps_zero=True):
    """Stores the moments of any optimizer in another dtype; steps are made in float32.

    Moments are what states declare as such: fields of a named tuple annotated `Moment` or
    `Squares`. Weights (averages, slow weights), sums that never decay, counts and rates stay as
    they are, unless a rule says otherwise.

    Args:
      inner: the transformation to wrap.
      dtype: a floating dtype for all moments, or a rule by the paths of the state:
        `by_path({".*mu/.*": "bfloat16"}, default="keep")`, or another function from the state to a
        tree of dtypes and 'keep'. Squares take dtypes with the range of float32 alone.
      rounding: 'nearest', or 'stochastic': one of the two numbers around a value, so that the mean
        is the value. A mean of squares in bfloat16 stalls when it is rounded to the nearest.
      key: random key of 'stochastic', or a whole number to seed one.

    State: `CastState(inner_state, rng_key)`; a key with 'stochastic' alone.

    Raises:
      ValueError: squares would get fewer bits of range than float32 has, or the rule has a path
        that the state has not.

    Example:
      >>> import jax, jax.numpy as jnp, gradtx
      >>> tx = gradtx.cast_state(gradtx.adam(1e-3), "bfloat16", rounding="stochastic")
      >>> state = tx.init(jnp.zeros(3))
      >>> state.inner_state[0].mu.dtype, state.inner_state[0].nu.dtype
      (dtype(bfloat16), dtype(bfloat16))

    Source: Zamirai et al. 2020, arXiv:2010.06192, for rounding at random.
    """

    dtype: StateDType = "bfloat16"
    _: KW_ONLY
    rounding: Rounding = "nearest"
    key: Key = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.dtype) or isinstance(self.dtype, type):
            object.__setattr__(self, "dtype", np.dtype(self.dtype))

    def init(self, params: Params) -> CastState:
        state = self.inner.init(params)
        leaves, treedef = jax.tree.flatten(state)
        cast = [x if dtype is None else x.astype(dtype) for x, dtype in zip(leaves, self.dtypes(state), strict=True)]
        return CastState(treedef.unflatten(cast), as_key(self.key) if self.rounding == "stochastic" else None)

    def step(
        self, updates: Updates, state: CastState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, CastState]:
        updates, inner_state = self.inner.advance(updates, widen(state.inner_state), params, extra_args)
        if state.rng_key is None:  # the boundary of `update` rounds to the nearest
            return updates, CastState(inner_state, None)
        key, now = jax.random.split(state.rng_key)
        dtypes = [None if dtype is None or dtype.itemsize >= 4 else dtype for dtype in self.dtypes(inner_state)]
        return updates, CastState(widen(rounded_at_random(inner_state, dtypes, now)), key)

    def dtypes(self, state: State) -> list[np.dtype | None]:
        """The dtype to store each leaf of a state in; None for those that stay."""
        return list(self._dtypes(state))

    def _dtypes(self, state: State) -> Iterator[np.dtype | None]:
        labels = spread("dtype", self.dtype, state) if callable(self.dtype) else None
        paths = list(leaves_by_path(state))
        for i, (x, kind) in enumerate(zip(jax.tree.leaves(state), kinds_in(state), strict=True)):
            wanted: DType = self.dtype if labels is None else labels[i]
            if (kind is None and labels is None) or (isinstance(wanted, str) and wanted == KEEP):
                yield None
                continue
            name = "/".join(paths[i]) or ROOT
            wanted = np.dtype(wanted).name if is_dtype(wanted) else wanted
            check_argument("", f"dtype for `{name}`", wanted, SQUARES if kind == "squares" else MOMENT)
            yield np.dtype(wanted) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else None
