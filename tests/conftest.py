"""Makes `cases`, `oracles` and `problems` importable by the tests beside them, and compiling quick; and keeps the collector of garbage at bay."""

import gc
import os
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parent))
# The tests compile much and compute little. XLA's older emitter of fusions compiles in half the time, and a process needs one thread
# to compile. Flags from outside come first: `XLA_FLAGS= pytest` runs the emitter that users have. XLA ends at a flag that it does not know.
if jax.__version_info__ < (0, 11):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1")
jax.config.update("jax_disable_most_optimizations", True)
gc.set_threshold(100_000, 20, 100)  # JAX's caches grow to a heap that is slow to walk
