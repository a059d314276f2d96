"""Names for what passes through gradtx: they say what is meant where no type can be checked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

Tree = Any
"""Any tree of arrays."""
Params = Any
"""A tree of parameters, as Optax names its type."""
Updates = Any
"""A tree of updates, gradients or moments, like the parameters."""
Moment = Annotated[Any, "moment"]
"""A tree of running means of gradients, as a field of a state: it may be stored in fewer bits."""
Squares = Annotated[Any, "squares"]
"""A tree of running means of squares, of which none is negative and small ones matter: the same."""
State = Any
"""An optimizer's state: a tree of arrays."""
OptState = State
"""Optax's name for `State`."""
ExtraArg = Any
"""An extra argument of `update`."""
Extra = Mapping[str, Any]
"""Extra arguments of `update` by name."""
Argument = Any
"""What a value is made with: a number, a schedule, a mask, another value."""
DType = Any
"""A dtype, or what NumPy takes for one."""
Scalar = Any
"""A number, or an array without axes."""
TreeDef = Any
"""The structure of a tree."""
Leaf = Any
"""A leaf of a tree: an array or a number."""
LeafRule = Callable[..., Leaf]
"""A rule for one array: a function of one leaf of each tree, and of scalars by name."""
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
"""What JSON can hold."""
