"""Programs that depend on where they run, not on the process that makes them."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax

from gradtx.core.numerics import is_tracer
from gradtx.core.types import Tree

T = TypeVar("T")


def on_platform(run: Callable[[str, Tree], T], arrays: Tree) -> T:
    """`run(platform, arrays)` for the platform that runs it: 'cpu', 'tpu', or 'gpu' for others.

    The devices of the mesh say it, if one is set, or those that hold the arrays, if they are known.
    Else all programs are traced, and the one that is lowered is that of the platform that it is
    lowered for. `run` is a function of arrays that gives arrays.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is not None:
        return run(_known(device.platform), arrays)
    leaves = [x for x in jax.tree.leaves(arrays) if isinstance(x, jax.Array)]
    if leaves and not any(map(is_tracer, leaves)):
        return run(_known(next(iter(leaves[0].devices())).platform), arrays)
    cpu, tpu, other = (functools.partial(run, platform) for platform in ("cpu", "tpu", "gpu"))
    return jax.lax.platform_dependent(arrays, cpu=cpu, tpu=tpu, default=other)


def _known(platform: str) -> str:
    return platform if platform in ("cpu", "tpu") else "gpu"
