"""The sweep: each of its runs is the run that its setting makes alone, and the best of them reads digits."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

PATH = Path(__file__).parents[2] / "examples" / "sweep.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sweep", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_best_setting_reads_digits(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    results = script.main(["--epochs", "8", "--width", "32"])
    accuracies = results["accuracies"]
    assert accuracies.shape == (16, 2)
    assert accuracies.max() >= 0.95
    assert accuracies.min() < 0.3  # the largest rate
    rate, decay = results["best"]
    assert accuracies[script.RATES.tolist().index(rate), script.DECAYS.tolist().index(decay)] == accuracies.max()
    printed = capsys.readouterr().out
    assert f"best: rate {rate:.2g}, decay {decay:g}" in printed
    assert f"{accuracies.max():.1%}" in printed


def test_a_run_of_the_sweep_is_a_run_alone(script: ModuleType) -> None:
    """Against Optax, whose hyperparameters are numbers, step by step."""
    data, _ = script.load_data(0)
    params = script.init(jax.random.key(1), [64, 8, 10])
    rows = np.random.default_rng(0).integers(0, len(data["x"]), (20, 16))
    rates = jnp.array([0.003, 0.03])
    together = jax.jit(jax.vmap(script.train, (0, None, None, None, None)))(rates, jnp.array(0.5), params, data, rows)
    mask = jax.tree.map(lambda p: p.ndim == 2, params)
    for i, rate in enumerate(rates.tolist()):
        tx = optax.adamw(rate, weight_decay=0.5, mask=mask)

        @jax.jit
        def step(params: Any, state: Any, row: Any, tx: Any = tx) -> Any:
            grads = jax.grad(script.cross_entropy)(params, {"x": data["x"][row], "y": data["y"][row]})
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        alone, state = params, tx.init(params)
        for row in rows:
            alone, state = step(alone, state, row)
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-4)


def test_counts_below_one_are_refused(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--epochs", "0"], ["--width", "0"]):
        with pytest.raises(SystemExit):
            script.main(options)
        assert "--epochs and --width must be at least 1" in capsys.readouterr().err
