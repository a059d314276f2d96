"""Makes `cases`, `oracles` and `problems` importable by the tests beside them, and compiling quick; and keeps the collector of garbage at bay."""

import gc
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parent))
jax.config.update("jax_disable_most_optimizations", True)  # the tests compile much and compute little
gc.set_threshold(100_000, 20, 100)  # JAX's caches grow to a heap that is slow to walk
