"""Coefficients of Newton-Schulz: named tables, and minimax ones for an interval and steps."""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from gradtx.core.checks import did_you_mean, kind

Row = tuple[float, float, float]
Table = tuple[Row, ...]
Coefficients = str | Sequence[float] | Sequence[Sequence[float]] | np.ndarray | jax.Array
"""A name of coefficients, one row of three numbers, or a table of rows."""

QUINTIC: Row = (15 / 8, -5 / 4, 3 / 8)
"""The lecture notes' row, which converges of third order, but only from singular values near 1."""

TABLES: dict[str, Table] = {
    "jordan": ((3.4445, -4.7750, 2.0315),) * 5,
    "quintic": (QUINTIC,) * 5,
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}
"""Published tables: Jordan 2024 (repeated), the notes', You 2025 in Dion (arXiv:2504.05295)."""

# Of Polar Express: no row is made for an interval wider than this, which bounds its slope.
_CUSHION = 0.02407327424182761


@functools.cache
def polar_express(steps: int = 5, lower: float = 1e-3, safety: float = 1.01) -> Table:
    """Rows `(a, b, c)` whose steps `s -> a*s + b*s^3 + c*s^5` bring `[lower, 1]` closest to 1.

    Each row is the minimax odd quintic for 1 on the interval that the rows before it leave,
    `[l, 2 - l]`. An interval wider than `[0.024 u, u]` is cut there, and its row is scaled to be
    centred on 1 all the same.

    Args:
      steps: number of rows, >= 1.
      lower: smallest singular value that must come close to 1, in (0, 1); smaller ones grow, but
        stay below 1.
      safety: all rows but the last map the interval divided by this, >= 1, so that rounding above 1
        does no harm.

    Returns:
      A tuple of `steps` rows of Python floats.

    Raises:
      ValueError: an argument outside its domain.

    Example:
      >>> from gradtx.linalg.coefficients import polar_express
      >>> [round(c, 4) for c in polar_express(steps=1, lower=0.5)[0]]
      [2.6708, -3.2854, 1.6386]

    Source: Amsel et al. 2025, arXiv:2505.16932, algorithm 1 and appendix; the cushion is theirs.
    """
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"polar_express: steps is {kind(steps)}, expected a whole number >= 1.")
    if not 0 < lower < 1:
        raise ValueError(f"polar_express: lower is {kind(lower)}, expected a number in (0, 1).")
    if not safety >= 1:
        raise ValueError(f"polar_express: safety is {kind(safety)}, expected a number >= 1.")
    rows = []
    low, high = float(lower), 1.0
    for _ in range(steps):
        row = minimax_quintic(max(low, _CUSHION * high), high)
        centre = 2 / (_value(row, low) + _value(row, high))
        row = tuple(centre * c for c in row)
        low = _value(row, low)
        high = 2 - low
        rows.append(row)
    return *(_divided(row, safety) for row in rows[:-1]), rows[-1]


def minimax_quintic(low: float, high: float) -> Row:
    """The odd quintic closest to 1 on `[low, high]` in the maximum norm, by Remez exchange.

    Its error has equal size and alternating sign at `low`, two inner extrema and `high`. Where the
    interval is so short that double precision no longer resolves them, it is the quintic with a
    triple contact at 1, whose error is below 3e-15 there.
    """
    if low / high > 1 - 2e-5:
        return _divided(QUINTIC, (low + high) / 2)
    inner = np.array([0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high])
    row, error, before = np.zeros(3), 0.0, np.inf
    while abs(error - before) > 1e-15:
        before = error if error else np.inf
        nodes = np.array([low, *inner, high])
        system = np.column_stack([nodes, nodes**3, nodes**5, [1, -1, 1, -1]])
        *row, error = np.linalg.solve(system, np.ones(4))
        a, b, c = row
        root = np.sqrt(9 * b * b - 20 * a * c)
        inner = np.sqrt((-3 * b + np.array([-root, root])) / (10 * c))
    return float(row[0]), float(row[1]), float(row[2])


def _value(row: Sequence[float], s: float) -> float:
    return row[0] * s + row[1] * s**3 + row[2] * s**5


def _divided(row: Sequence[float], by: float) -> Row:
    """The row that maps `s` as the given one maps `s / by`."""
    return row[0] / by, row[1] / by**3, row[2] / by**5


def newton_schulz_table(name: str, coefficients: Coefficients, steps: int | None, argument: str = "coefficients") -> Table:
    """The rows that `steps` steps of named or given coefficients use.

    A name without a number of steps has its own: 4 for `polar_express`, 5 for the others.
    `polar_express` is made for the number of steps: from 0.005 for up to 4, from 0.001 for more. A
    table runs as it is; with fewer steps its first rows run, with more its last row repeats.

    Args:
      name: who asks, for errors.
      coefficients: a name, one row of three numbers, or a table of such rows.
      steps: number of steps, or None.
      argument: what errors call the coefficients.

    Raises:
      ValueError, TypeError: an unknown name, rows that are not three numbers, or steps below 1.
    """
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1):
        raise ValueError(f"{name}: steps is {kind(steps)}, expected a whole number >= 1, or None.")
    if isinstance(coefficients, str):
        if coefficients == "polar_express":
            steps = steps or 4
            return polar_express(int(steps), 5e-3 if steps <= 4 else 1e-3)
        if coefficients not in TABLES:
            known = ["polar_express", *TABLES]
            raise ValueError(
                f"{name}: {argument} is {coefficients!r}, expected one of {', '.join(map(repr, known))}, a row of three numbers, "
                f"or a table of such rows.{did_you_mean(coefficients, known)}"
            )
        table = TABLES[coefficients]
    else:
        try:
            rows = np.asarray(coefficients, dtype=np.float64)
        except (TypeError, ValueError):
            rows = np.asarray([], np.float64)
        if rows.shape == (3,):
            rows = np.tile(rows, (5, 1))
        if rows.ndim != 2 or rows.shape[1] != 3 or not len(rows) or not np.all(np.isfinite(rows)):
            raise TypeError(
                f"{name}: {argument} is {kind(coefficients)} of shape {np.shape(rows)}, expected a name, a row of "
                "three finite numbers, or a table of such rows."
            )
        table = tuple((float(a), float(b), float(c)) for a, b, c in rows)
    steps = len(table) if steps is None else int(steps)
    return table[:steps] + (table[-1],) * (steps - len(table))
