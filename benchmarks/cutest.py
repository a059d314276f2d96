"""Which minimizer solves problems that nobody here wrote, and with how many evaluations?

    pip install -e ".[benchmarks]"
    python benchmarks/cutest.py [--only ROSENBR,CUBE] [--write]

All unconstrained problems of CUTEst with at most 100 variables, as `sif2jax` has them, in float64. Every solver gets the same
start and the same test: no component of the gradient above 1e-6 times the start's largest, or 1e-6 if that is less than one. It
is made here, on the point that a solver returns. An evaluation is one of the function with its gradient; optimistix and Optax
do not count theirs, so the function does, on the host. A run ends after 10,000 steps or 20,000 evaluations.

Runs are kept in `benchmarks/results/cutest.json` as they end, and a second call goes on from there; `--write` writes the table
and the performance profile (Dolan and Moré, Mathematical Programming 91, 2002).
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

import gradtx

RESULTS = Path(__file__).parent / "results"
RUNS = RESULTS / "cutest.json"
LARGEST, TOL, STEPS, EVALUATIONS = 100, 1e-6, 10_000, 20_000

Objective = Callable[[Any], jax.Array]
Solution = tuple[Any, int, str]
"""The point, the evaluations that it took, and what the solver says."""


def by_gradtx(tx: gradtx.Transformation) -> Callable[[Objective, Any, float], Solution]:
    def solve(fn: Objective, start: Any, tol: float) -> Solution:
        run = jax.jit(lambda x: gradtx.minimize(fn, x, tx, max_steps=STEPS, tol=tol, patience=1000))
        point, result = run(start)
        return point, int(result.evaluations), result.message()

    return solve


def by_scipy(method: str, **options: float) -> Callable[[Objective, Any, float], Solution]:
    def solve(fn: Objective, start: Any, tol: float) -> Solution:
        from scipy.optimize import minimize

        flat, unflatten = jax.flatten_util.ravel_pytree(start)
        both = jax.jit(jax.value_and_grad(lambda x: fn(unflatten(x))))

        def value_and_grad(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, grad = both(x)
            return float(value), np.asarray(grad)

        limits = {"gtol": tol, "maxiter": STEPS, **options}
        with np.errstate(all="ignore"):
            result = minimize(value_and_grad, np.asarray(flat), method=method, jac=True, options=limits)
        return unflatten(jnp.asarray(result.x)), int(result.nfev), str(result.message)

    return solve


class Counted:
    """A function that counts on the host how often it is evaluated where it runs compiled."""

    def __init__(self, fn: Objective):
        self.fn, self.count = fn, 0

    def __call__(self, x: Any) -> jax.Array:
        @jax.custom_jvp
        def counted(value: jax.Array) -> jax.Array:
            jax.debug.callback(self._add)
            return value

        counted.defjvps(lambda tangent, value, x: tangent)
        return counted(self.fn(x))

    def _add(self) -> None:
        self.count += 1


def by_optax(fn: Objective, start: Any, tol: float) -> Solution:
    import optax

    solver = optax.lbfgs(memory_size=10)
    value_and_grad = optax.value_and_grad_from_state(fn)

    def step(carry: Any) -> Any:
        params, state, count = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = solver.update(grad, state, params, value=value, grad=grad, value_fn=fn)
        searched = optax.tree.get(state, "info").num_linesearch_steps
        return optax.apply_updates(params, updates), state, count + jnp.asarray(searched, jnp.int32)

    def goes_on(carry: Any) -> jax.Array:
        _, state, count = carry
        grad = optax.tree.get(state, "grad")
        steps = optax.tree.get(state, "count")
        return (steps == 0) | ((steps < STEPS) & (count < EVALUATIONS) & (largest(grad) > tol))

    zero = jnp.asarray(1, jnp.int32)
    point, _, count = jax.jit(lambda x: jax.lax.while_loop(goes_on, step, (x, solver.init(x), zero)))(start)
    return point, int(count), ""


def by_optimistix(fn: Objective, start: Any, tol: float) -> Solution:
    import optimistix  # type: ignore[import-not-found]

    counted = Counted(fn)
    # Its BFGS stops by the changes of point and value; small ones leave the judgement to the gradient.
    solver = optimistix.BFGS(rtol=1e-10, atol=1e-12)
    solution = optimistix.minimise(lambda x, _: counted(x), solver, start, max_steps=STEPS, throw=False)
    jax.block_until_ready(solution.value)
    jax.effects_barrier()
    return solution.value, counted.count, str(solution.result)


SOLVERS = {
    "gradtx lbfgs": by_gradtx(gradtx.lbfgs(memory_size=10)),
    "gradtx bfgs": by_gradtx(gradtx.bfgs()),
    "gradtx newton": by_gradtx(gradtx.chain(gradtx.scale_by_newton(), gradtx.scale(-1.0), gradtx.scale_by_zoom_linesearch(30))),
    "scipy L-BFGS-B": by_scipy("L-BFGS-B", ftol=0.0, maxfun=EVALUATIONS, maxcor=10),
    "scipy BFGS": by_scipy("BFGS"),
    "optax lbfgs": by_optax,
    "optimistix BFGS": by_optimistix,
}


def largest(tree: Any) -> jax.Array:
    """The largest magnitude of an element; NaN where there is one."""
    return jnp.max(jnp.asarray([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(tree)]))


def problems(only: set[str]) -> Iterator[tuple[str, Objective, Any]]:
    """Names, functions and starts."""
    import sif2jax  # type: ignore[import-not-found]

    for problem in sif2jax.unconstrained_minimisation_problems:
        start = jax.tree.map(jnp.asarray, problem.y0)
        small = sum(x.size for x in jax.tree.leaves(start)) <= LARGEST
        if small and (not only or problem.name in only):
            yield problem.name, lambda y, problem=problem: problem.objective(y, problem.args), start


def run(name: str, fn: Objective, start: Any) -> dict[str, dict[str, Any]]:
    """What each solver reached."""
    value_and_grad = jax.jit(jax.value_and_grad(fn))
    tol = TOL * max(1.0, float(largest(value_and_grad(start)[1])))
    rows = {}
    for solver, solve in SOLVERS.items():
        try:
            point, evaluations, says = solve(fn, start, tol)
            value, grad = value_and_grad(point)
            reached = float(largest(grad))
        except Exception as error:  # a solver that raises has failed; the next ones run
            value, reached, evaluations, says = np.nan, np.nan, 0, f"{type(error).__name__}: {str(error)[:200]}"
        solved = bool(reached <= tol and np.isfinite(value))
        rows[solver] = {"solved": solved, "evaluations": evaluations, "value": float(value), "gradient": reached, "says": says}
    print(name, *(f"{s}: {r['evaluations'] if r['solved'] else '-'}" for s, r in rows.items()), sep=" | ", flush=True)
    return rows


def table(runs: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Solved problems, and evaluations against SciPy's L-BFGS-B where both solve."""
    peer = "scipy L-BFGS-B"
    lines = ["| solver | solved | median evaluations / L-BFGS-B's, where both solve |", "|---|---|---|"]
    for solver in SOLVERS:
        rows = [(r[solver], r[peer]) for r in runs.values() if r[solver]["solved"]]
        both = [own["evaluations"] / other["evaluations"] for own, other in rows if other["solved"]]
        lines.append(f"| {solver} | {len(rows)} of {len(runs)} | {np.median(both):.2f} |")
    lines += ["", "Not solved:", ""]
    for solver in SOLVERS:
        failed = {name: r[solver]["says"].partition(":")[0] for name, r in runs.items() if not r[solver]["solved"]}
        lines.append(f"- {solver}: {', '.join(f'{name} ({why})' if why else name for name, why in failed.items()) or 'none'}.")
    return "\n".join(lines)


def profile(runs: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """Draws the share of problems that a solver solves within so many times the fewest evaluations."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    fewest = {n: min((r["evaluations"] for r in rows.values() if r["solved"]), default=np.inf) for n, rows in runs.items()}
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for solver in SOLVERS:
        ratios = sorted(r[solver]["evaluations"] / fewest[n] for n, r in runs.items() if r[solver]["solved"])
        shares = np.arange(1, len(ratios) + 1) / len(runs)
        axes.step([*ratios, 32], [*shares, shares[-1]], where="post", label=solver)
    axes.set(xscale="log", xlim=(1, 32), ylim=(0, 1), xlabel="evaluations / fewest of any solver", ylabel="problems solved")
    axes.legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs what is missing; writes what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names, by commas; they run again")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    runs = json.loads(RUNS.read_text()) if RUNS.exists() else {}
    only = set(filter(None, options.only.split(",")))
    for name, fn, start in problems(only):
        if name not in runs or name in only:
            runs[name] = run(name, fn, start)
            RUNS.write_text(json.dumps(dict(sorted(runs.items())), indent=1) + "\n")
            jax.clear_caches()
    print(table(runs))
    if options.write:
        (RESULTS / "cutest.md").write_text(f"# CUTEst\n\n{table(runs)}\n")
        profile(runs, RESULTS / "cutest.png")


if __name__ == "__main__":
    main()
