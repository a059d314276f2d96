"""Names for what passes through gradtx: they say what is meant where no type can be checked."""

from collections.abc import Mapping
from typing import Any

Tree = Any
"""Any tree of arrays."""
Params = Any
"""A tree of parameters, as Optax names its type."""
Updates = Any
"""A tree of updates, gradients or moments, like the parameters."""
State = Any
"""An optimizer's state: a tree of arrays."""
OptState = State
"""Optax's name for `State`."""
ExtraArg = Any
"""An extra argument of `update`."""
Extra = Mapping[str, Any]
"""Extra arguments of `update` by name."""
DType = Any
"""A dtype, or what NumPy takes for one."""
Scalar = Any
"""A number, or an array without axes."""
Leaf = Any
"""A leaf of a tree: an array or a number."""
