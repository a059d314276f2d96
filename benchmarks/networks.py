"""How well do the networks of the examples train? Their numbers and their pictures, as the README and the pages show them.

    python -m benchmarks.networks train_lm        # one to three minutes on 2 cores
    python -m benchmarks.networks sam_flatness    # two to three minutes

Both write `benchmarks/results/NAME.json` and `NAME.png`.
"""

import argparse
import importlib
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.theory import harness
from benchmarks.theory.harness import Number

RESULTS = harness.RESULTS.parent
EXAMPLES = ("train_lm", "sam_flatness")


def of_train_lm(results: dict[str, dict[str, Any]]) -> dict[str, Number]:
    """Held-out loss and bytes of state, for each optimizer."""
    keys = {"loss": "heldout_loss", "state_bytes": "state_bytes"}
    return {f"{key}_{name}": Number(float(row[found])) for name, row in results.items() for key, found in keys.items()}


def of_sam_flatness(results: dict[str, dict[str, Any]]) -> dict[str, Number]:
    """Largest eigenvalue, trace, average flatness and test accuracy, for each method with and without skip connections."""
    numbers = {}
    for title, row in results.items():
        name = title.lower().replace(", ", "_").replace(" skip connections", "").replace(" ", "_")  # plain_with, sam_without
        numbers[f"lambda_max_{name}"] = Number(row["largest"])
        numbers[f"trace_{name}"] = Number(float(row["trace"][0]), spread=float(row["trace"][1]))
        numbers[f"flatness_{name}"] = Number(float(row["flatness"].loss), spread=float(row["flatness"].standard_error))
        numbers[f"accuracy_{name}"] = Number(row["accuracy"])
    return numbers


def main(argv: list[str] | None = None, folder: Path = RESULTS) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", choices=EXAMPLES)
    name = parser.parse_args(argv).example
    sys.path.insert(0, str(RESULTS.parent.parent / "examples"))
    script = importlib.import_module(name)
    start = time.perf_counter()
    picture = folder / f"{name}.png"
    results = script.main(["--plot", str(picture)])
    harness.shrink(picture, picture)
    numbers = {"train_lm": of_train_lm, "sam_flatness": of_sam_flatness}[name](results)
    claim = (__doc__ or "").split("\n")[0]
    (folder / f"{name}.json").write_text(harness.as_json("benchmarks.networks", claim, numbers, time.perf_counter() - start))


if __name__ == "__main__":
    main()
