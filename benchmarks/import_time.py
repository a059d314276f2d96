"""How long does `import gradtx` take, against `import jax` and Optax?

    python benchmarks/import_time.py [--rounds 11]

Fresh processes in turn, by their processor time, so that other work on the machine counts little. A part of what comes after
`import jax` is one full garbage collection, which falls into whatever import makes its 17,000th object.
"""

import argparse
import resource
import statistics
import subprocess
import sys

MODULES = ("jax", "gradtx", "optax")


def seconds(module: str) -> float:
    """Processor time of a process that imports the module."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return used() - before


def main() -> None:
    """Prints medians, and their ratios to JAX's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    times = [[seconds(module) for module in MODULES] for _ in range(rounds + 1)][1:]  # the first reads from disk
    medians = dict(zip(MODULES, map(statistics.median, zip(*times, strict=True)), strict=True))
    for module, median in medians.items():
        print(f"import {module:6} {1e3 * median:5.0f} ms, {median / medians['jax']:.2f} of jax")


if __name__ == "__main__":
    main()
