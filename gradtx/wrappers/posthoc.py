"""Averages of the parameters whose width is chosen after training."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.apply import apply_updates
from gradtx.core.checked import checked
from gradtx.core.composites import Wrapper
from gradtx.core.domains import Domain, PositiveInt, interval
from gradtx.core.leaves import copies, each_leaf
from gradtx.core.numerics import default_float, safe_increment, zero_count
from gradtx.core.types import ExtraArg, Params, State, Tree, Updates
from gradtx.core.walk import check_steps

_WIDTH = interval(0, 0.288, "(]")
SigmaRel = Annotated[float, _WIDTH]
"""Width of an average over its length; 1/sqrt(12) = 0.2887 is that of equal weights."""


def _are_widths(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(map(_WIDTH.contains, value))


Widths = Annotated[tuple[float, ...], Domain("a tuple of numbers in (0, 0.288]", _are_widths)]


class PosthocEmaState(NamedTuple):
    """The wrapped transformation's state, steps taken, and an average for each width."""

    inner_state: State
    count: jax.Array
    averages: tuple[Params, ...]

    def eval_params(self, params: Params) -> Params:
        """What `gradtx.eval_params` gives: the first average."""
        return self.averages[0]


class EmaSnapshot(NamedTuple):
    """An average as it was after some steps, with its width."""

    count: int
    sigma_rel: float
    average: Params


def exponent(sigma_rel: float) -> float:
    """The power `gamma` of an average `t^gamma` of relative width `sigma_rel`."""
    squared = sigma_rel**-2
    roots = np.roots([1, 7, 16 - squared, 12 - squared])
    return float(np.max(roots.real[np.abs(roots.imag) < 1e-6]))


class posthoc_ema(Wrapper, final=True, keeps_zero=True, needs_params=True):
    """Averages of the parameters with power profiles: after step `t` weights fall as `(s/t)^gamma`.

    `average = beta*average + (1-beta)*p` with `beta = (1 - 1/t)^(gamma+1)`, for each width. So an
    average spans a fixed part of the training so far, and the initial parameters have no weight.
    Keep `tx.snapshots(state)` every so often; from them `posthoc_average` rebuilds the average of
    any width afterwards. Training is the same as without it. Nothing may change the updates before
    they are applied: put it around the whole chain. An accumulation stands around it. `update`
    needs `params`.

    Args:
      inner: the transformation to wrap: a whole optimizer, with its learning rate.
      sigma_rel: the widths: standard deviation of an average's weights over its length, each in
        (0, 0.288]. Two are enough to rebuild those between, and some beside them.

    State: `PosthocEmaState(inner_state, count int32, averages)`; 4 bytes a parameter for each width
      more than the wrapped one's.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params, kept = gradtx.posthoc_ema(gradtx.sgd(0.1)), jnp.array(0.0), []
      >>> state = tx.init(params)
      >>> for step in range(64):
      ...     updates, state = tx.update(params - 1, state, params)
      ...     params = gradtx.apply_updates(params, updates)
      ...     if step % 8 == 7:
      ...         kept += tx.snapshots(state)
      >>> between = gradtx.posthoc_average(kept, sigma_rel=0.075)
      >>> narrow, wide = state.averages
      >>> bool(wide < between < narrow)
      True

    Source: Karras et al. 2023, arXiv:2312.02696, section 3 and appendix C;
    https://github.com/NVlabs/edm2, `training/phema.py`.
    """

    sigma_rel: Widths = (0.05, 0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("posthoc_ema", "inner", self.inner)

    def init(self, params: Params) -> PosthocEmaState:
        return PosthocEmaState(self.inner.init(params), zero_count(), tuple(copies(params) for _ in self.sigma_rel))

    def step(
        self, updates: Updates, state: PosthocEmaState, params: Params | None = None, **extra_args: ExtraArg
    ) -> tuple[Updates, PosthocEmaState]:
        updates, inner_state = self.inner.advance(updates, state.inner_state, params, extra_args)
        count = safe_increment(state.count)
        t, after = count.astype(default_float()), apply_updates(params, updates)
        averages = []
        for sigma, average in zip(self.sigma_rel, state.averages, strict=True):
            # 1 - (1 - 1/t)^(gamma+1), without the loss of digits at large t; 1 at the first step
            share = -jnp.expm1((exponent(sigma) + 1) * jnp.log1p(-1 / jnp.maximum(t, 2)))
            share = jnp.where(count == 1, 1, share)
            averages.append(each_leaf(lambda a, p, share=share: (1 - share) * a + share * p)(average, after))
        return updates, PosthocEmaState(inner_state, count, tuple(averages))

    def snapshots(self, state: PosthocEmaState) -> list[EmaSnapshot]:
        """The averages of a state, which is this transformation's own, to be kept."""
        count = int(state.count)
        return [EmaSnapshot(count, sigma, average) for sigma, average in zip(self.sigma_rel, state.averages, strict=True)]


def _overlaps(t: np.ndarray, gamma: np.ndarray, s: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """The inner products of profiles, each of area 1, that end at `t` and at `s`."""
    t, gamma, s, delta = t[:, None], gamma[:, None], s[None], delta[None]
    powers = (t / s) ** np.where(t < s, delta, -gamma)
    return (gamma + 1) * (delta + 1) * powers / ((gamma + delta + 1) * np.maximum(t, s))


@checked
def posthoc_average(snapshots: Sequence[EmaSnapshot], sigma_rel: SigmaRel, count: PositiveInt | None = None) -> Tree:
    """The average of another width, as a least-squares combination of snapshots of averages.

    Args:
      snapshots: what `posthoc_ema(...).snapshots(state)` gave along the training; at least one.
      sigma_rel: the width wanted, in (0, 0.288].
      count: the step at which it ends, >= 1; None is the last of the snapshots.

    Returns:
      A tree like the averages.

    Raises:
      ValueError: there are no snapshots, or two of one width and step; `count` is after the last.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx, params = gradtx.posthoc_ema(gradtx.sgd(0.1)), jnp.array(3.0)
      >>> _, state = tx.update(params, tx.init(params), params)
      >>> round(float(gradtx.posthoc_average(tx.snapshots(state), sigma_rel=0.05)), 3)
      2.7

    Source: Karras et al. 2023, arXiv:2312.02696, section 3.2 and appendix C.3.
    """
    from_, widths = [float(one.count) for one in snapshots], [one.sigma_rel for one in snapshots]
    if not from_:
        raise ValueError("posthoc_average: snapshots is empty, expected what posthoc_ema(...).snapshots(state) gave.")
    if len(set(zip(from_, widths, strict=True))) < len(from_):
        raise ValueError("posthoc_average: snapshots has two of one width and step, expected each once.")
    end = max(from_) if count is None else float(count)
    if end > max(from_):
        raise ValueError(f"posthoc_average: count is {count}, expected a step up to that of the last snapshot, {max(from_):.0f}.")
    t, gamma = np.array(from_), np.array([exponent(width) for width in widths])
    goal = _overlaps(t, gamma, np.array([end]), np.array([exponent(sigma_rel)]))[:, 0]
    shares = np.linalg.lstsq(_overlaps(t, gamma, t, gamma), goal, rcond=1e-14)[0]
    shares = (shares / np.sum(shares)).tolist()

    def combined(*leaves: jax.Array) -> jax.Array:
        wide = np.complex128 if jnp.iscomplexobj(leaves[0]) else np.float64
        terms = [share * np.asarray(leaf).astype(wide) for share, leaf in zip(shares, leaves, strict=True)]
        return jnp.asarray(np.sum(terms, axis=0), jax.dtypes.canonicalize_dtype(jnp.result_type(leaves[0])))

    return jax.tree.map(combined, *[one.average for one in snapshots])
