"""What an optimizer does with every parameter, as a table; nothing is allocated."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.checked import checked
from gradtx.core.pairs import Inner, as_transformation
from gradtx.core.paths import ROOT, leaves_by_path
from gradtx.core.trees import check_leaves, check_no_module, is_inexact
from gradtx.core.types import Json, Params, Tree
from gradtx.diagnostics.ownership import foreign_name, is_frozen, nbytes, node_of, owners

if TYPE_CHECKING:
    from rich.console import Group

_NUMBERS = (3, 4)
"""The columns of the table that hold numbers."""


class ParameterSummary(NamedTuple):
    """One parameter.

    Attributes:
      path: such as `layers/0/kernel`.
      shape, dtype: its own.
      transformations: what touches it, in order, each with what it is made of:
        `adam(scale_by_adam, scale_by_learning_rate)`.
      nbytes: of the parameter itself.
      state_bytes: of the state kept for it alone.
      frozen: whether its update is always zero: `set_to_zero` reaches it, and nothing that follows
        in a chain can add to its update.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    transformations: tuple[str, ...]
    nbytes: int
    state_bytes: int
    frozen: bool

    @property
    def size(self) -> int:
        """Its number of elements."""
        return math.prod(self.shape)


class Summary(NamedTuple):
    """What an optimizer does with every parameter. Prints as a table.

    Attributes:
      rows: one `ParameterSummary` for each parameter, in the order of the tree.
      shared_bytes: of the state that belongs to no single parameter: counts, rates, norms, matrices
        over all parameters.
      notes: what needs attention: labels and masks that no parameter has, parameters that nothing
        touches, half-precision ones that nothing guards, unknown parts.
    """

    rows: tuple[ParameterSummary, ...]
    shared_bytes: int
    notes: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """How many numbers the parameters have in all."""
        return sum(row.size for row in self.rows)

    @property
    def parameter_bytes(self) -> int:
        """The bytes of the parameters."""
        return sum(row.nbytes for row in self.rows)

    @property
    def state_bytes(self) -> int:
        """The bytes of the whole state, the shared ones too: those of `tx.init(params)`."""
        return sum(row.state_bytes for row in self.rows) + self.shared_bytes

    @property
    def state_bytes_per_parameter(self) -> float:
        """`state_bytes / parameters`; 8 for Adam in float32, and a little for its counts."""
        return self.state_bytes / max(1, self.parameters)

    @property
    def frozen(self) -> int:
        """How many of the numbers never change."""
        return sum(row.size for row in self.rows if row.frozen)

    def as_dict(self) -> dict[str, Json]:
        """The rows and totals for JSON."""
        rows = [row._asdict() | {"shape": list(row.shape), "transformations": list(row.transformations)} for row in self.rows]
        totals = ("parameters", "parameter_bytes", "state_bytes", "state_bytes_per_parameter", "shared_bytes", "frozen")
        return {"rows": rows, **{name: getattr(self, name) for name in totals}, "notes": list(self.notes)}

    def __str__(self) -> str:
        header, *body = self._cells()
        widths = [max(len(row[i]) for row in (header, *body)) for i in range(len(header))]
        lines = []
        for row in (header, *body):
            cells = (cell.rjust(w) if i in _NUMBERS else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
            lines.append("  ".join(cells).rstrip())
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:], rule, *self._below()])

    __repr__ = __str__

    def __rich__(self) -> "Group":
        """The table for `rich.print`."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        header, *body = self._cells()
        table = Table()
        for i, name in enumerate(header):
            table.add_column(name, justify="right" if i in _NUMBERS else "left")
        for i, row in enumerate(body):
            table.add_row(*map(Text, row), end_section=i == len(self.rows) - 1)
        return Group(table, *map(Text, self._below()))

    def _groups(self) -> dict[tuple[tuple[str, ...], bool], int]:
        """Numbers for the different ways in which parameters are treated."""
        groups: dict[tuple[tuple[str, ...], bool], int] = {}
        for row in self.rows:
            groups.setdefault((row.transformations, row.frozen), len(groups) + 1)
        return groups

    def _cells(self) -> Iterator[tuple[str, ...]]:
        groups = self._groups()
        yield "parameter", "shape", "dtype", "elements", "state bytes", "by"
        for row in self.rows:
            group = groups[row.transformations, row.frozen]
            yield row.path, str(row.shape), row.dtype, f"{row.size:,}", f"{row.state_bytes:,}", f"[{group}]"
        yield "shared", "", "", "", f"{self.shared_bytes:,}", ""
        yield "total", "", "", f"{self.parameters:,}", f"{self.state_bytes:,}", ""

    def _below(self) -> list[str]:
        lines = []
        for (transformations, frozen), group in self._groups().items():
            lines.append(f"[{group}] {', '.join(transformations) or 'nothing declared'}{': frozen' if frozen else ''}")
        lines.append(
            f"{self.parameters:,} parameters, {self.frozen:,} of them frozen, in {self.parameter_bytes:,} bytes; "
            f"{self.state_bytes:,} bytes of state, {self.state_bytes_per_parameter:.4g} a parameter"
        )
        return lines + [f"Note: {note}" for note in self.notes]


def _stalls(rows: list[ParameterSummary]) -> Iterator[str]:
    """A note for each dtype of half precision among parameters that nothing guards."""
    for dtype in dict.fromkeys(row.dtype for row in rows):
        if not (jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize < 4):
            continue
        paths = [row.path for row in rows if row.dtype == dtype]
        which = f"`{paths[0]}` is" if len(paths) == 1 else f"`{paths[0]}` and {len(paths) - 1} more are"
        loses = "loses" if len(paths) == 1 else "lose"
        yield f"{which} {dtype} and {loses} small updates: see master_weights, kahan, rounded_away."


@checked
def summary(tx: Inner, params: Params) -> Summary:
    """A table of every parameter: what touches it, its state, and whether it is frozen.

    `tx.init` is traced, not run: nothing is allocated, and `params` may be shapes alone.

    Args:
      tx: any transformation. Those of other libraries take part in the bytes, not in the names.
      params: the parameters, or `jax.eval_shape` of what makes them.

    Returns:
      A `Summary`: a table as text (`str`, `print`), also for `rich.print`; `as_dict()` for JSON;
      and the numbers themselves. State belongs to a parameter where it lies in a tree like the
      parameters'. Its bytes add up to those of `tx.init(params)`.

    Raises:
      TypeError: `tx` is no transformation, or a leaf of `params` is no array.
      ValueError: as `tx.init`: a pattern of `by_path` that matches no parameter, say.

    Example:
      >>> import jax.numpy as jnp, gradtx
      >>> tx = gradtx.adamw(1e-3, mask=gradtx.by_path({".*bias": False}, default=True))
      >>> print(gradtx.summary(tx, {"bias": jnp.zeros(16), "kernel": jnp.zeros((8, 16))}))
      parameter  shape    dtype    elements  state bytes  by
      -------------------------------------------------------
      bias       (16,)    float32        16          128  [1]
      kernel     (8, 16)  float32       128        1,024  [2]
      shared                                           8
      total                             144        1,160
      -------------------------------------------------------
      [1] adamw(scale_by_adam, scale_by_learning_rate)
      [2] adamw(scale_by_adam, add_decayed_weights, scale_by_learning_rate)
      144 parameters, 0 of them frozen, in 576 bytes; 1,160 bytes of state, 8.056 a parameter
    """
    tx = as_transformation(tx)
    check_no_module(params)
    if not all(hasattr(x, "dtype") or is_inexact(x) for x in jax.tree.leaves(params)):
        check_leaves("params", params)
    rows: list[ParameterSummary] = []
    notes: list[str] = []
    belongs: list[int | None] = []

    def init(params: Params) -> Tree:
        """Makes the state, and reads it while tracers tell which parameter each part came from."""
        state = tx.init(params)
        roots = [node_of(tx, params, state)]
        belongs.extend(owners(state, params, roots))
        for i, (path, leaf) in enumerate(leaves_by_path(params).items()):
            texts = tuple(text for node in roots for text in node.texts(i))
            rules = [call for node in roots for call in node.rules(i)]
            dtype = str(jnp.result_type(leaf))
            rows.append(ParameterSummary("/".join(path) or ROOT, np.shape(leaf), dtype, texts, nbytes(leaf), 0, is_frozen(rules)))
        if (name := foreign_name(tx)) is not None:
            notes.append(f"tx is {name}, which is no transformation of gradtx: which parameters it touches is not known.")
        notes.extend(text for node in roots for text in node.foreign())
        if not notes:
            alone = [row.path for row in rows if not row.transformations]
            notes.extend(f"nothing touches `{path}`: its gradient passes as its update, uphill." for path in alone)
        notes.extend(text for node in roots for text in node.idle())
        guarded = frozenset[int]().union(*(node.guarded() for node in roots))
        notes.extend(_stalls([row for i, row in enumerate(rows) if i not in guarded and not row.frozen]))
        return state

    state = jax.tree.leaves(jax.eval_shape(init, params))
    sizes = dict.fromkeys([None, *range(len(rows))], 0)
    for leaf, owner in zip(state, belongs, strict=True):
        sizes[owner] += nbytes(leaf)
    return Summary(tuple(row._replace(state_bytes=sizes[i]) for i, row in enumerate(rows)), sizes[None], tuple(notes))
