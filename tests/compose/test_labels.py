"""Labels by path, and trees of labels spread over parameters."""

import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flax.core import freeze
from hypothesis import given, settings
from hypothesis import strategies as st

import gradtx
from gradtx.compose.labels import resolve, spread, spread_mask
from gradtx.core.paths import leaves_by_path

PARAMS = {"embed": {"table": 1.0}, "layers": [{"bias": 2.0, "kernel": 3.0}, {"bias": 4.0, "kernel": 5.0}]}


class Layer(eqx.Module):
    kernel: Any
    bias: Any

    def __call__(self, x: Any) -> Any:
        raise AssertionError("a tree of labels was called")


class Linear(nnx.Module):
    def __init__(self) -> None:
        self.dense = nnx.Linear(2, 1, rngs=nnx.Rngs(0))


# by_path --------------------------------------------------------------------------------------------------


def test_the_first_pattern_that_matches_decides() -> None:
    rule = gradtx.by_path({r"layers/0/.*": "first", r".*/bias": "bias", r".*": "rest"})
    assert rule(PARAMS) == {
        "embed": {"table": "rest"},
        "layers": [{"bias": "first", "kernel": "first"}, {"bias": "bias", "kernel": "rest"}],
    }


def test_the_whole_path_must_match() -> None:
    rule = gradtx.by_path({r".*kernel": True}, default=False)
    assert rule({"kernel": 1.0, "kernel_norm": 2.0}) == {"kernel": True, "kernel_norm": False}


def test_labels_may_be_anything_but_none() -> None:
    label = ("tuple", 3)
    assert gradtx.by_path({"a": 0, "b": label}, default=False)({"a": 1.0, "b": 2.0, "c": 3.0}) == {"a": 0, "b": label, "c": False}
    with pytest.raises(ValueError, match=r"^by_path: no pattern matches the parameter `b`, and there is no default\.$"):
        gradtx.by_path({"a": 0})({"a": 1.0, "b": 2.0})


def test_nodes_that_are_not_there_stay_and_count_as_matched() -> None:
    tree = {"a": gradtx.MaskedNode(), "b": None, "c": 1.0}
    assert gradtx.by_path({"a": "x", "b": "y"}, default="z")(tree) == {"a": gradtx.MaskedNode(), "b": None, "c": "z"}


def test_a_single_leaf_and_an_empty_tree() -> None:
    assert gradtx.by_path({re.escape("(root)"): "all"})(1.0) == "all"
    assert gradtx.by_path({"nothing": 1})({}) == {}


@pytest.mark.parametrize(
    "params",
    [
        freeze(PARAMS["layers"][0]),
        Layer(1.0, 2.0),
        nnx.state(Linear(), nnx.Param)["dense"],
        nnx.to_pure_dict(nnx.state(Linear(), nnx.Param))["dense"],
    ],
)
def test_every_kind_of_tree(params: Any) -> None:
    labels = gradtx.by_path({"bias": "b"}, default="k")(params)
    assert jax.tree.structure(labels) == jax.tree.structure(params)
    assert {path[-1]: label for path, label in leaves_by_path(labels).items()} == {"bias": "b", "kernel": "k"}


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: gradtx.by_path({r".*/kernl": 1}, default=0)(PARAMS),
            ValueError,
            "by_path: the pattern '.*/kernl' matches no parameter (the whole path must match); paths are `embed/table`, "
            "`layers/0/bias`, `layers/0/kernel`, `layers/1/bias`, `layers/1/kernel`. Did you mean 'kernel' for 'kernl'?",
        ),
        (
            lambda: gradtx.by_path({"kernel": 1}, default=0)(PARAMS),
            ValueError,
            "by_path: the pattern 'kernel' matches no parameter (the whole path must match); paths are `embed/table`, "
            "`layers/0/bias`, `layers/0/kernel`, `layers/1/bias`, `layers/1/kernel`. To match it anywhere write '(.*/)?kernel'.",
        ),
        (
            lambda: gradtx.by_path({".*": 1, ".*/bias": 0})(PARAMS),
            ValueError,
            "by_path: the pattern '.*/bias' decides no parameter: patterns before it, such as '.*', match all that it matches. "
            "Put it first.",
        ),
        (
            lambda: gradtx.by_path({r"embed/tabel": 1}, default=0)(PARAMS),
            ValueError,
            "by_path: the pattern 'embed/tabel' matches no parameter (the whole path must match); paths are `embed/table`, "
            "`layers/0/bias`, `layers/0/kernel`, `layers/1/bias`, `layers/1/kernel`. Did you mean 'table' for 'tabel'?",
        ),
        (
            lambda: gradtx.by_path({r".*/(biass|kernel)": 1}, default=0)(PARAMS),
            ValueError,
            "by_path: in the pattern '.*/(biass|kernel)' the alternative 'biass' matches no parameter; paths are `embed/table`, "
            "`layers/0/bias`, `layers/0/kernel`, `layers/1/bias`, `layers/1/kernel`. Did you mean 'bias' for 'biass'?",
        ),
        (
            lambda: gradtx.by_path({r"embed/.*|head/.*": 1}, default=0)(PARAMS),
            ValueError,
            "by_path: in the pattern 'embed/.*|head/.*' the alternative 'head/.*' matches no parameter; paths are `embed/table`, "
            "`layers/0/bias`, `layers/0/kernel`, `layers/1/bias`, `layers/1/kernel`.",
        ),
        (
            lambda: gradtx.by_path({"x": 1}, default=0)(list(range(9))),
            ValueError,
            "by_path: the pattern 'x' matches no parameter (the whole path must match); paths are "
            "`0`, `1`, `2`, `3`, `4`, `5`, ....",
        ),
        (
            lambda: gradtx.by_path({r"(": 1}),
            ValueError,
            "by_path: rules has the pattern '(', expected a regular expression (missing ), unterminated subpattern at position 0).",
        ),
        (
            lambda: gradtx.by_path([(".*", 1)]),
            TypeError,
            "by_path: rules is a list of 1, expected a dict from regular expressions to labels.",
        ),
        (
            lambda: gradtx.by_path({re.compile(".*"): 1}),
            TypeError,
            "by_path: rules is a dict with keys re.compile('.*'), expected a dict from regular expressions to labels.",
        ),
        (
            lambda: gradtx.by_path({".*/kernel": 1})(PARAMS),
            ValueError,
            "by_path: no pattern matches the parameter `embed/table`, and there is no default.",
        ),
    ],
)
def test_errors_of_by_path(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == text


# Spreading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"embed": {"table": 0}, "layers": [{"bias": 1, "kernel": 2}, {"bias": 3, "kernel": 4}]}, [0, 1, 2, 3, 4]),
        ({"embed": 0, "layers": 1}, [0, 1, 1, 1, 1]),
        ({"layers": [1, {"kernel": 2, "bias": 3}], "embed": 0}, [0, 1, 1, 3, 2]),
        ("all", ["all"] * 5),
        (lambda params: jax.tree.map(lambda p: p > 2, params), [False, False, True, True, True]),
        (gradtx.by_path({".*bias": "b"}, default="k"), ["k", "b", "k", "b", "k"]),
    ],
)
def test_a_label_stands_for_all_below_it(labels: Any, expected: list[Any]) -> None:
    assert spread("labels", labels, PARAMS) == expected


def test_nodes_that_are_not_there_need_no_label_but_may_have_one() -> None:
    params = {"a": gradtx.MaskedNode(), "b": None, "c": 1.0}
    assert spread("labels", {"c": "x"}, params) == ["x"]
    assert spread("labels", {"a": "y", "b": "z", "c": "x"}, params) == ["x"]


@pytest.mark.parametrize("params", [freeze({"bias": 1.0, "kernel": 2.0}), Layer(2.0, 1.0), nnx.state(Linear(), nnx.Param)["dense"]])
def test_labels_in_a_dict_fit_other_containers(params: Any) -> None:
    by_key = {
        path[-1]: label
        for path, label in zip(leaves_by_path(params), spread("labels", {"kernel": 1, "bias": 2}, params), strict=True)
    }
    assert by_key == {"kernel": 1, "bias": 2}


def test_a_tree_of_labels_that_can_be_called_is_not_called() -> None:
    labels = Layer(True, False)
    assert resolve("mask", labels, None) is labels
    assert spread_mask("mask", labels, Layer(1.0, 2.0)) == [True, False]
    assert resolve("mask", len, [1, 2]) == 2


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({"embed": 0}, "labels has nothing for the parameter `layers/0/bias`; its paths are `embed`."),
        ({}, "labels has nothing for the parameter `embed/table`; its paths are none."),
        (
            {"embed": 0, "layers": [1, {"bias": 1}]},
            "labels has nothing for the parameter `layers/1/kernel`; its paths are `embed`, `layers/0`, `layers/1/bias`.",
        ),
        ({"embed": 0, "layers": 1, "head": 2}, "labels has the path `head`, which no parameter has."),
        (
            {"embed": {"table": {"x": 0}}, "layers": 1},
            "labels has nothing for the parameter `embed/table`; its paths are `embed/table/x`, `layers`.",
        ),
        ({"embed": 0, "layers": [1, 1, 1]}, "labels has the path `layers/2`, which no parameter has."),
        (lambda params: {"embed": 0}, "labels has nothing for the parameter `layers/0/bias`; its paths are `embed`."),
    ],
)
def test_labels_of_another_tree(labels: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"^labels has") as error:
        spread("labels", labels, PARAMS)
    assert str(error.value) == text


@pytest.mark.parametrize(("entry", "found"), [("no", "'no' (str)"), (1, "1 (int)"), (0.0, "0.0 (float)")])
def test_masks_hold_booleans(entry: Any, found: str) -> None:
    with pytest.raises(TypeError) as error:
        spread_mask("mask", lambda params: {"a": True, "b": entry}, {"a": 1.0, "b": 2.0})
    assert str(error.value) == f"mask for `b` is {found}, expected True or False."


NAMES = st.text("ab/$.0", min_size=1, max_size=2)
TREES = st.recursive(
    st.sampled_from([1.0, None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(TREES, st.data())
def test_labels_come_back_from_any_tree(params: Any, data: Any) -> None:
    """Labels of the same structure come back leaf by leaf; a rule for each path does what the tree of labels does."""
    leaves, treedef = jax.tree.flatten(params)
    labels = data.draw(st.lists(st.sampled_from(["x", "y"]), min_size=len(leaves), max_size=len(leaves)))
    assert spread("labels", treedef.unflatten(labels), params) == labels
    paths = ["/".join(parts) or "(root)" for parts in leaves_by_path(params)]
    if len(set(paths)) == len(paths):  # a key with a slash may spell the path of a deeper leaf
        rule = gradtx.by_path({re.escape(path): label for path, label in zip(paths, labels, strict=True)})
        assert spread("labels", rule, params) == labels


def test_arrays_are_leaves_too() -> None:
    assert spread("labels", {"a": 1}, {"a": {"b": jnp.ones(2), "c": [jnp.ones(1)]}}) == [1, 1]


@pytest.mark.parametrize(
    ("pattern", "meant"), [("unembed", "(.*/)?unembed/.*"), ("Dense_0/*", "Dense_0/.*"), ("m/unembed", "(.*/)?m/unembed/.*")]
)
def test_names_of_layers_and_globs_get_a_hint(pattern: str, meant: str) -> None:
    params = {"m": {"unembed": {"kernel": 1.0}}, "Dense_0": {"kernel": 1.0, "bias": 1.0}}
    with pytest.raises(ValueError, match=r"matches no parameter") as error:
        gradtx.by_path({pattern: "a"}, default="b")(params)
    assert str(error.value).endswith(f" Did you mean {meant!r}?")


def test_one_label_fits_a_tree_without_leaves():
    assert spread_mask("mask", True, {}) == []
    assert spread_mask("mask", True, {"a": None}) == []
