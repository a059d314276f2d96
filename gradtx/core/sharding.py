"""Arrays whose types say how they lie on a mesh (JAX's explicit axes): gathered, and put back.

Where axes are automatic, or there is no mesh, types say nothing, XLA decides, and nothing happens
here.
"""

import jax
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.core.types import Leaf, Tree


def gathered(x: Leaf) -> Leaf:
    """`x`, whole on every device."""
    sharding = jax.typeof(x).sharding
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec())) if any(sharding.spec) else x


def placed_like(x: jax.Array, like: Tree) -> jax.Array:
    """`x`, which is whole on every device, as an array of its shape lies."""
    sharding = jax.typeof(like).sharding
    return jax.sharding.reshard(x, sharding) if any(sharding.spec) else x
