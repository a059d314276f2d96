"""`import gradtx.optax as optax` does what `import optax` does, with gradtx's twins where it has them."""

import inspect
import re
import subprocess
import sys
from contextlib import nullcontext
from importlib import import_module
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
import gradtx.optax as ours
from gradtx.matrix import as_optax
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.wrappers.adversarial import sam

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.1, -0.2])}
MODULES = [name for name, value in vars(optax).items() if isinstance(value, ModuleType) and not name.startswith("_")]
NATIVE = [(part, name) for part, places in ours.NATIVE.items() for name in places]
OWN = {  # names that `gradtx.optax` has and Optax has not: these rooms are taken whole
    ("projections", "projection_affine_set"),
    ("projections", "projection_linf_sphere"),
    ("tree", "NamedTupleKey"),
    ("tree", "global_norm"),
    ("tree_utils", "tree_global_norm"),
}
TWINS = sorted(set(NATIVE) - OWN)


def part_of(library: Any, part: str) -> Any:
    return getattr(library, part) if part else library


def place(path: str) -> Any:
    module, _, attribute = path.rpartition(".")
    return getattr(import_module(module), attribute)


def names(part: str) -> list[str]:
    """Optax's public names, other libraries' modules left out."""
    found = vars(part_of(optax, part)).items()
    return [n for n, v in found if not n.startswith("_") and (not isinstance(v, ModuleType) or v.__name__.startswith("optax."))]


# Every name resolves ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["", *MODULES])
def test_every_public_name_of_optax_resolves(part: str) -> None:
    for name in names(part):
        found = getattr(part_of(ours, part), name)
        if name in ours.NATIVE.get(part, {}):
            assert found is place(ours.NATIVE[part][name]), name
        elif not isinstance(found, ours.Part):
            assert found is getattr(part_of(optax, part), name), name
    assert set(names(part)) <= set(dir(part_of(ours, part)))


@pytest.mark.parametrize("part", sorted(name for name, value in vars(optax).items() if isinstance(value, ModuleType))[1:])
def test_modules_can_be_imported_as_optax_has_them(part: str) -> None:
    """`from gradtx.optax.losses import huber_loss`, as scripts have it."""
    assert import_module(f"gradtx.optax.{part}") is getattr(ours, part)


def test_deprecated_names_warn_as_in_optax() -> None:
    deprecated = set(optax.__all__) - set(dir(ours))
    assert "dpsgd" in deprecated
    for name in deprecated:
        with pytest.warns(DeprecationWarning, match=f"optax.{name} is deprecated"):
            assert getattr(ours, name) is getattr(ours.contrib, name)
    with pytest.warns(DeprecationWarning, match="tree_l2_norm"):
        assert ours.tree_utils.tree_l2_norm(PARAMS) == optax.tree_utils.tree_norm(PARAMS)


def test_native_names_are_those_of_the_index() -> None:
    assert ours.adam is gradtx.adam
    assert ours.contrib.muon is as_optax.muon
    assert ours.contrib.schedule_free_adamw is gradtx.schedule_free_adamw
    assert ours.contrib.sam is sam
    assert ours.tree_utils.tree_add is gradtx.tree.add
    assert ours.tree.scale is gradtx.tree.scale
    assert ours.scale is gradtx.scale
    assert ours.transforms.chain is gradtx.chain
    assert ours.schedules.cosine_decay_schedule is gradtx.cosine_decay_schedule
    assert ours.projections.projection_simplex is gradtx.projections.projection_simplex
    assert ours.ScaleByAdamState is ScaleByAdamState
    assert ours.losses.l2_loss is optax.losses.l2_loss
    assert ours.__version__ == optax.__version__


def test_what_both_have_is_native() -> None:
    """A new twin in the index belongs into the table, or into a reason why it is none."""
    for part in ("", "contrib", "schedules", "transforms"):
        assert set(gradtx.__all__) & set(names(part)) - set(MODULES) <= set(ours.NATIVE[part]), part


def test_native_names_are_optax_names() -> None:
    assert {(part, name) for part, name in NATIVE if name not in names(part)} == OWN


def test_modules_are_attributes() -> None:
    from gradtx.optax import contrib, tree_utils

    assert contrib.muon is as_optax.muon
    assert contrib is ours.contrib
    assert repr(tree_utils) == "<module 'gradtx.optax.tree_utils'>"
    assert contrib.__doc__ == "The names of `optax.contrib`: gradtx's twins, else Optax's own."


# A name means the same ----------------------------------------------------------------------------------------------------------

SIGNATURES_DIFFER = {
    "noisy_sgd": "Optax's deprecated `seed` is gone, and its default key None, which warns, is 0",
    "add_noise": "Optax's deprecated `seed` is gone, and the key is required",
    "lbfgs": "the default line search is the same call in either library",
    "scale_by_factored_rms": "the default `decay_rate_fn` is the same function, with a name",
    "differentially_private_aggregate": "Optax's deprecated `seed` is gone, and the key is required",
    "optimistic_adam": "it has the types of its arguments beside them",
    "aggregating": "a module, whose mirror test compares its names",
    **dict.fromkeys(("microbatch", "micro_grad", "micro_vmap"), "the default accumulator is a member of gradtx's own enumeration"),
    "sophia": "the default estimator is the same call in either library",
    "adopt": "the default `clip_value_fn` is the same function, with a name",
    "scale_by_adopt": "the same",
    "Schedule": "a type",
}
FIELDS_DIFFER = {
    "GradientTransformation": "it unpacks as a pair, but is none",
    "GradientTransformationExtraArgs": "the same",
    "ScaleByRmsState": "the count of `bias_correction` is a field here, and another state class in Optax",
    "ScaleByRStdDevState": "the same",
    "MuonState": "the momentum is a link, `ema`; the coefficients are constants of the transformation, no state",
}


def parameters(value: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(value).parameters.values())


def positional(value: Any) -> list[str]:
    return [p.name for p in parameters(value) if p.kind is p.POSITIONAL_OR_KEYWORD]


FUNCTIONS = [(part, name) for part, name in TWINS if not inspect.isclass(getattr(part_of(optax, part), name))]
TYPES = {"MaskOrFn", "OptState", "Params", "ScalarOrSchedule", "Updates"}


@pytest.mark.parametrize("part", ours.NATIVE)
def test_arguments_are_those_of_optax(part: str) -> None:
    """Positional arguments in one order, each other one by its name, with one default."""
    for name in [name for its, name in FUNCTIONS if its == part and name not in SIGNATURES_DIFFER.keys() | TYPES]:
        ours_, theirs = getattr(part_of(ours, part), name), getattr(part_of(optax, part), name)
        order = positional(theirs)
        assert positional(ours_)[: len(order)] == order, name
        defaults = {p.name: p.default for p in parameters(ours_)}
        assert {p.name: p.default for p in parameters(theirs)}.items() <= defaults.items(), name


@pytest.mark.parametrize("part", ours.NATIVE)
def test_fields_of_states_are_those_of_optax(part: str) -> None:
    states = [name for its, name in TWINS if its == part and hasattr(getattr(part_of(optax, part), name), "_fields")]
    for name in set(states) - FIELDS_DIFFER.keys():
        theirs = getattr(part_of(optax, part), name)._fields
        assert getattr(part_of(ours, part), name)._fields[: len(theirs)] == theirs, name


def test_names_of_one_thing_are_names_of_one_thing() -> None:
    """`optax.ScaleState` is `optax.EmptyState`: so it is here. Only one state has more than Optax's."""
    things: dict[int, set[Any]] = {}
    for part in ["", *MODULES]:
        for name in set(names(part)) - TYPES - {"ClipByGlobalNormState", *MODULES}:
            thing = getattr(part_of(optax, part), name)
            things.setdefault(id(thing), set()).add(id(getattr(part_of(ours, part), name)))
    assert {len(twins) for twins in things.values()} == {1}


# A script -----------------------------------------------------------------------------------------------------------------------


def script(lib: Any) -> Any:
    """As users of Optax write it; what it computes."""
    rate = lib.schedules.warmup_cosine_decay_schedule(0.0, 0.1, 2, 10)
    tx = lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(rate, b2=0.95, weight_decay=0.1, mask={"w": True, "b": False}))
    targets = jnp.array([0.0, 1.0])

    def loss(params: Any) -> Any:
        return lib.losses.huber_loss(jnp.tanh(params["w"] @ targets + params["b"]), targets).mean()

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = lib.apply_updates(params, updates)
        change = lib.tree_utils.tree_sub(params, PARAMS)
        return params, state, (lib.global_norm(change), lib.tree_utils.tree_sum(change), lib.l2_loss(params["b"]))

    params, state, seen = PARAMS, tx.init(PARAMS), []
    for _ in range(4):
        params, state, measured = step(params, state)
        seen.append(measured)
    assert isinstance(state[1][0], lib.ScaleByAdamState)
    assert lib.tree_utils.tree_get(state, "mu").keys() == PARAMS.keys()
    return params, seen


@pytest.mark.filterwarnings("ignore:optax.global_norm is deprecated")
def test_a_script_computes_the_same() -> None:
    for a, b in zip(jax.tree.leaves(script(ours)), jax.tree.leaves(script(optax)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)


def test_links_of_optax_in_a_native_chain() -> None:
    tx = ours.chain(ours.clip(1.0), optax.scale_by_sm3(), ours.scale(-0.1))
    theirs = optax.chain(optax.clip(1.0), optax.scale_by_sm3(), optax.scale(-0.1))
    a, b = (each.update(PARAMS, each.init(PARAMS), PARAMS)[0] for each in (tx, theirs))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


def test_native_transformations_in_a_combinator_of_optax() -> None:
    a, b = (optax.contrib.split_real_and_imaginary(lib.adam(0.1)) for lib in (ours, optax))
    a, b = (each.update(PARAMS, each.init(PARAMS), PARAMS)[0] for each in (a, b))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a, b)


def test_extra_arguments_through_a_combinator_of_optax() -> None:
    """Optax drops them before a pair that is not of its class; `to_optax` makes it one."""
    plateau = gradtx.reduce_on_plateau()
    for inner, reached in ((plateau, False), (gradtx.to_optax(plateau), True)):
        tx = optax.flatten(inner)
        state = jax.eval_shape(tx.init, PARAMS)
        with nullcontext() if reached else pytest.raises(TypeError, match="value"):
            jax.eval_shape(lambda g, s, tx=tx: tx.update(g, s, g, value=jnp.ones(())), PARAMS, state)


# Without Optax ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def without_optax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optax", None)


@pytest.mark.usefixtures("without_optax")
def test_twins_need_no_optax() -> None:
    assert ours.contrib.muon is as_optax.muon
    assert ours.adam(1e-3) == gradtx.adam(1e-3)
    assert "adam" in dir(ours)
    assert "huber_loss" not in dir(ours)
    assert dir(ours.contrib) == sorted(ours.NATIVE["contrib"])


@pytest.mark.usefixtures("without_optax")
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ours.huber_loss, "gradtx has no twin of optax.huber_loss, and Optax is not installed: pip install optax."),
        (lambda: ours.losses.l2_loss, "gradtx has no twin of optax.losses.l2_loss, and Optax is not installed: pip install optax."),
        (
            lambda: ours.assignment.hungarian_algorithm,
            "gradtx has no twin of optax.assignment.hungarian_algorithm, and Optax is not installed: pip install optax.",
        ),
        (
            lambda: ours.adamww,
            "gradtx has no twin of optax.adamww, and Optax is not installed: pip install optax. Did you mean 'adamw'?",
        ),
    ],
)
def test_borrowed_names_say_what_to_install(make: Any, text: str) -> None:
    with pytest.raises(ImportError, match=f"^{re.escape(text)}$"):
        make()


@pytest.mark.usefixtures("without_optax")
def test_the_error_reaches_an_import() -> None:
    with pytest.raises(ImportError, match=r"pip install optax\.$"):
        from gradtx.optax.losses import huber_loss  # noqa: F401


@pytest.mark.usefixtures("without_optax")
def test_python_asks_for_dunder_names() -> None:
    assert not hasattr(ours, "__path__")
    assert not hasattr(ours.contrib, "__wrapped__")


def test_an_optax_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'absl'", name="absl")

    monkeypatch.setattr(ours, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="absl"):
        _ = ours.huber_loss
    with pytest.raises(AttributeError, match=r"module 'gradtx' has no attribute 'adamww'\. Did you mean 'adamw'\?"):
        _ = gradtx.adamww


def test_names_that_nobody_has() -> None:
    text = "module 'gradtx.optax.contrib' has no attribute 'mechanizey', nor has Optax. Did you mean 'mechanize'?"
    with pytest.raises(AttributeError, match=f"^{re.escape(text)}$"):
        _ = ours.contrib.mechanizey
    assert not hasattr(ours, "adamww")


# The table and the hints --------------------------------------------------------------------------------------------------------


def test_the_table() -> None:
    *lines, end = ours.table().splitlines()
    assert lines[-len(ours.BORROWED) :] == [f"{part}: {reason}." for part, reason in ours.BORROWED.items()]
    lines = lines[: -len(ours.BORROWED)]
    rows = dict(line.split() for line in lines)
    assert rows["adam"] == "gradtx.optimizers.adam.adam"
    assert rows["contrib.muon"] == "gradtx.matrix.as_optax.muon"
    assert rows["tree_utils.tree_add"] == "gradtx.tree.add"
    assert rows["projections.projection_simplex"] == "gradtx.projections.projection_simplex"
    assert rows["losses.huber_loss"] == rows["l2_loss"] == rows["assignment.hungarian_algorithm"] == "borrowed"
    assert len(rows) == len(lines) == sum(len(names(part)) for part in ["", *MODULES]) - len(MODULES)
    assert {path for path, where in rows.items() if where != "borrowed"} == {
        f"{part}.{name}" if part else name for part, name in TWINS
    }
    borrowed = list(rows.values()).count("borrowed")
    assert end == f"{len(rows)} names of Optax: {len(rows) - borrowed} native, {borrowed} borrowed."


def test_only_what_has_a_reason_is_borrowed() -> None:
    """Losses stand at Optax's top level, too; what is deprecated there says so when it is called."""
    borrowed = [path for path, where in ours.rows() if where == "borrowed"]
    for path in borrowed:
        part, _, name = path.rpartition(".")
        assert part in ours.BORROWED or (not part and getattr(optax, name) is getattr(optax.losses, name)), path
    assert set(ours.BORROWED) == {path.rpartition(".")[0] for path in borrowed} - {""}
    with pytest.warns(DeprecationWarning, match="hvp is deprecated"):
        optax.second_order.hvp(lambda p, x, y: jnp.sum(p**2), jnp.ones(1), jnp.ones(1), None, None)


def test_gradtx_imports_neither_module_and_the_table_is_printed() -> None:
    code = """
import runpy, sys, gradtx
assert not {"optax", "gradtx.optax"} & set(sys.modules)
runpy.run_module("gradtx.optax", run_name="__main__")
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed == ours.table() + "\n"


@pytest.mark.usefixtures("without_optax")
def test_the_table_without_optax() -> None:
    lines = ours.table().splitlines()
    assert len(lines) == len(NATIVE) + 1
    assert lines[-1] == f"{len(NATIVE)} names that gradtx has. Optax is not installed: its other names need pip install optax."


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("contrib", "gradtx.muon is optax.contrib.muon"),
        ("tree_utils", "gradtx.tree.add is optax.tree_utils.tree_add"),
        ("tree_add", "gradtx.tree.add is optax.tree_utils.tree_add"),
        ("safe_int32_increment", "gradtx.safe_increment is optax.safe_int32_increment"),
        ("hungarian_algorithm", "optax.assignment.hungarian_algorithm has no twin here"),
        ("losses", "optax.losses has no twin here"),
        ("poly_loss_cross_entropy", "optax.losses.poly_loss_cross_entropy has no twin here"),
    ],
)
def test_gradtx_says_where_a_name_of_optax_is(name: str, text: str) -> None:
    with pytest.raises(AttributeError) as error:
        getattr(gradtx, name)
    assert str(error.value) == f"module 'gradtx' has no attribute {name!r}. {text}; gradtx.optax has all of Optax's names."


def test_hints_name_places_that_are_there() -> None:
    for path, where in {(path, where) for path, where in ours.rows() if where != "borrowed"}:
        module, _, name = ours._public(where, path).rpartition(".")
        found = getattr(import_module(module), name)
        assert found is place(where) or found in (gradtx.muon, gradtx.sophia)  # presets, without the rarer arguments
