"""How batches are taken: one, many, cut; each by its size; and what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.diagnostics import hvp
from gradtx.diagnostics.batches import gather, mean_over

X = np.arange(10.0, dtype=np.float32)


def mean(batches: Any, batch_size: int | None = None) -> float:
    return float(mean_over(gather(print, batches, batch_size), lambda x, *rest: jnp.mean(x)))


@pytest.mark.parametrize(
    "batches",
    [(X,), [(X[:3],), (X[3:],)], [[X[:4]], [X[4:8]], [X[8:]]], ((x,) for x in (X[:9], X[9:])), [(X[:2], X[2:4])] * 0 + [(X,)]],
)
def test_every_example_counts_once(batches: Any) -> None:
    assert mean(batches) == pytest.approx(4.5)


@pytest.mark.parametrize("size", [1, 3, 5, 10, 99])
def test_a_batch_is_cut(size: int) -> None:
    assert mean((X, {"y": X}, 2.0), size) == pytest.approx(4.5)


def test_shares_are_sizes() -> None:
    data = gather(print, (X, jax.random.key(0)), 4)
    assert [batch[0].shape for batch, _ in data] == [(4,), (4,), (2,)]
    assert [share for _, share in data] == [0.4, 0.4, 0.2]


def test_trees_are_averaged() -> None:
    out = mean_over(gather(print, (X,), 4), lambda x: {"sum": x.sum(), "first": x[:1]})
    np.testing.assert_allclose(
        [out["sum"], out["first"][0]], [0.4 * 6 + 0.4 * 22 + 0.2 * 17, 0.4 * 0 + 0.4 * 4 + 0.2 * 8], rtol=1e-6
    )


BAD: list[tuple[Any, int | None, type[Exception], str]] = [
    (X, None, TypeError, r"hvp: batches is an array of shape \(10,\) and dtype float32, expected a tuple of the arguments of loss_fn after"),
    ({"x": X}, None, TypeError, r"batches is a dict with keys 'x', expected a tuple"),
    ([X, X], None, TypeError, r"batches\[0\] is an array of shape \(10,\) .* One batch alone is a tuple, not a list: \(x, y\)"),
    ([], None, ValueError, r"batches is empty, expected at least one batch\."),
    ([(X,)], 2, ValueError, r"batch_size is 2, but batches is a list of 1, cut already\."),
    ((X, X[:3]), 2, ValueError, r"batches has 10 in `0`, 3 in `1`, expected arrays whose leading axes are equally long"),
    ([(X,), (1.0,)], None, ValueError, r"batches\[1\] has no array with an axis, expected arrays"),
    ((X[:0],), None, ValueError, r"batches is a batch without examples: an array has a leading axis of 0\."),
    ((X, X), None, TypeError, r"hvp: loss_fn cannot be called with the parameters and the 2 arguments of a batch: too many positional .* \(batch,\) for loss_fn\(params, batch\)"),
    ((), None, TypeError, r"hvp: loss_fn cannot be called with the parameters and the 0 arguments of a batch: missing a required argument: 'x'\."),
    ((X,), 0, ValueError, r"batch_size is 0 \(int\), expected a whole number >= 1, or None"),
]  # fmt: skip


@pytest.mark.parametrize(("batches", "size", "error", "text"), BAD)
def test_what_is_no_batch_is_named(batches: Any, size: int | None, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        hvp(lambda w, x: jnp.mean(w * x), jnp.ones(()), jnp.ones(()), batches, batch_size=size)
