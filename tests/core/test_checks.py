"""Domains of arguments: what each takes, and the whole text of each refusal."""

from typing import Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core import checks, domains
from gradtx.core.pairs import Inner
from gradtx.transforms.noise import Key

NAN, INF = float("nan"), float("inf")
PATTERNS = " Patterns of paths go through by_path({pattern: True}, default=False)."
CALL_ADAM = " This is the factory itself: call it, adam(...)."
TEXT_HINT = " A number is wanted, not text."
SCHEDULE = ", or a schedule (a function of the step count)"
TRANSFORMATION = "a gradient transformation (a pair of init and update)"
CHOICE = Annotated[str, domains.one_of("hard", "soft")]
SQUARES = "a floating dtype with the range of float32: 'float32', 'float64' or 'bfloat16'"
FEW_BITS = " Squares overflow or stall in fewer bits; quantize_state(...) stores them in 8 or 4."
MASK = "a tree of booleans shaped like the parameters (or a prefix of it), or a function from parameters to one"


class Callable:
    def __call__(self, count: Any) -> Any:
        return count


class Flags(eqx.Module):
    """A tree of booleans that can be called."""

    kernel: Any
    bias: Any

    def __call__(self, x: Any) -> Any:
        raise AssertionError("a mask was called")


def function(count: Any) -> Any:
    return count


TAKEN = [
    (domains.Number, [0, -1.5, np.float32(1e30), np.int64(3), jnp.asarray(2.0), jnp.asarray(2)]),
    (domains.NonNegative, [0, 0.0, 3, jnp.asarray(0.0)]),
    (domains.Positive, [1e-30, 1, np.float16(1.0)]),
    (domains.Decay, [0, 0.0, 0.999, np.float32(0.9), jnp.asarray(0.5)]),
    (domains.Fraction, [0, 1, 0.5]),
    (domains.Rate, [0, 0.1, function, Callable(), gradtx.constant_schedule(0.1), lambda c: c]),
    (domains.DecayOrSchedule, [0.0, function]),
    (domains.PositiveInt, [1, np.int32(7)]),
    (domains.NonNegativeInt, [0, 5]),
    (domains.Flag, [True, False, np.True_]),
    (domains.FloatDType, ["float32", "bfloat16", jnp.bfloat16, np.float16, np.dtype("float64"), float, "float8_e4m3fn"]),
    (domains.SecondMomentDType, ["float32", "bfloat16", jnp.bfloat16, np.dtype("float64"), float]),
    (domains.ScheduleArg, [function, Callable(), gradtx.constant_schedule(1.0)]),
    (Inner, [gradtx.sgd(0.1), gradtx.GradientTransformation(function, function)]),
    (domains.Mask, [True, {"a": False, "b": [np.True_]}, {}, function, gradtx.by_path({}, True), Flags(True, {"x": False})]),
    (domains.Function, [function, Callable(), len, dict]),
    (Key, [0, jax.random.key(1), jnp.zeros(2, jnp.uint32)]),
    (domains.Decay | None, [None, 0.5]),
]  # fmt: skip

REFUSED = [
    (domains.Number, INF, ValueError, "inf (float)", "a finite number", ""),
    (domains.Number, NAN, ValueError, "nan (float)", "a finite number", ""),
    (domains.Number, "0.1", TypeError, "'0.1' (str)", "a finite number", TEXT_HINT),
    (domains.Number, True, TypeError, "True (bool)", "a finite number", ""),
    (domains.Number, None, TypeError, "None", "a finite number", ""),
    (domains.Number, 1j, TypeError, "1j (complex)", "a finite number", ""),
    (domains.Number, jnp.ones(2), TypeError, "an array of shape (2,) and dtype float32", "a finite number", ""),
    (domains.Number, jnp.asarray(True), TypeError, "an array of shape () and dtype bool", "a finite number", ""),
    (domains.NonNegative, -1e-9, ValueError, "-1e-09 (float)", "a finite number >= 0", ""),
    (domains.NonNegative, NAN, ValueError, "nan (float)", "a finite number >= 0", ""),
    (domains.NonNegative, np.float32(-0.5), ValueError, "np.float32(-0.5)", "a finite number >= 0", ""),
    (domains.NonNegative, jnp.asarray(-0.5, jnp.float32), ValueError, "Array(-0.5, dtype=float32)", "a finite number >= 0", ""),
    (domains.Positive, 0, ValueError, "0 (int)", "a finite number > 0", ""),
    (domains.Positive, [1.0], TypeError, "a list of 1", "a finite number > 0", ""),
    (domains.Decay, 1, ValueError, "1 (int)", "a number in [0, 1)", ""),
    (domains.Decay, -0.1, ValueError, "-0.1 (float)", "a number in [0, 1)", ""),
    (domains.Decay, gradtx.adam, TypeError, "the class adam", "a number in [0, 1)", CALL_ADAM),
    (domains.Fraction, 1.1, ValueError, "1.1 (float)", "a number in [0, 1]", ""),
    (domains.Rate, -0.1, ValueError, "-0.1 (float)", f"a finite number >= 0{SCHEDULE}", ""),
    (domains.Rate, INF, ValueError, "inf (float)", f"a finite number >= 0{SCHEDULE}", ""),
    (domains.Rate, "1e-3", TypeError, "'1e-3' (str)", f"a finite number >= 0{SCHEDULE}", TEXT_HINT),
    (domains.Rate, gradtx.adam, TypeError, "the class adam", f"a finite number >= 0{SCHEDULE}", CALL_ADAM),
    (domains.Rate, gradtx.sgd(0.1), TypeError, "sgd(learning_rate=0.1)", f"a finite number >= 0{SCHEDULE}", ""),
    (domains.Rate, float, TypeError, "the class float", f"a finite number >= 0{SCHEDULE}", ""),
    (domains.DecayOrSchedule, 1.0, ValueError, "1.0 (float)", f"a number in [0, 1){SCHEDULE}", ""),
    (domains.PositiveInt, 0, ValueError, "0 (int)", "a whole number >= 1", ""),
    (domains.PositiveInt, 2.0, ValueError, "2.0 (float)", "a whole number >= 1", ""),
    (domains.PositiveInt, True, TypeError, "True (bool)", "a whole number >= 1", ""),
    (domains.NonNegativeInt, -1, ValueError, "-1 (int)", "a whole number >= 0", ""),
    (domains.Flag, 1, TypeError, "1 (int)", "True or False", ""),
    (domains.Flag, None, TypeError, "None", "True or False", ""),
    (domains.FloatDType, "int8", TypeError, "'int8' (str)", "a floating dtype, such as 'float32' or jnp.bfloat16", ""),
    (domains.FloatDType, "float31", TypeError, "'float31' (str)", "a floating dtype, such as 'float32' or jnp.bfloat16", ""),
    (domains.FloatDType, jnp.int32, TypeError, "the class int32", "a floating dtype, such as 'float32' or jnp.bfloat16", ""),
    (domains.SecondMomentDType, "float8_e4m3fn", TypeError, "'float8_e4m3fn' (str)", SQUARES, FEW_BITS),
    (domains.SecondMomentDType, "float8_e8m0fnu", TypeError, "'float8_e8m0fnu' (str)", SQUARES, FEW_BITS),
    (domains.SecondMomentDType, jnp.float16, TypeError, "the class float16", SQUARES, FEW_BITS),
    (domains.SecondMomentDType, "int8", TypeError, "'int8' (str)", SQUARES, ""),
    (domains.ScheduleArg, 0.1, TypeError, "0.1 (float)", "a schedule (a function of the step count)", ""),
    (domains.ScheduleArg, gradtx.adam, TypeError, "the class adam", "a schedule (a function of the step count)", CALL_ADAM),
    (Inner, gradtx.adam, TypeError, "the class adam", TRANSFORMATION, CALL_ADAM),
    (Inner, function, TypeError, "the function function", TRANSFORMATION,
     " Call it, if it makes a transformation; a schedule becomes one with scale_by_learning_rate(schedule)."),
    (Inner, gradtx.constant_schedule(0.1), TypeError, "constant_schedule(value=0.1)", TRANSFORMATION,
     " A schedule becomes a transformation with scale_by_learning_rate(schedule)."),
    (Inner, [gradtx.sgd(0.1)], TypeError, "a list of 1", TRANSFORMATION,
     " Unpack a list of transformations with a star: chain(*transformations)."),
    (Inner, 0.1, TypeError, "0.1 (float)", TRANSFORMATION,
     " Were arguments swapped? A learning rate alone becomes a transformation with scale_by_learning_rate(rate)."),
    (Inner, "adam", TypeError, "'adam' (str)", TRANSFORMATION, ""),
    (Inner, None, TypeError, "None", TRANSFORMATION, ""),
    (domains.Mask, "kernel", TypeError, "'kernel' (str)", MASK, PATTERNS),
    (domains.Mask, 1, TypeError, "1 (int)", MASK, ""),
    (domains.Mask, gradtx.adam, TypeError, "the class adam", MASK, CALL_ADAM),
    (domains.Function, 3, TypeError, "3 (int)", "a function", ""),
    (domains.Function, gradtx.adam, TypeError, "the class adam", "a function", CALL_ADAM),
    (Key, 1.5, TypeError, "1.5 (float)", "a random key of jax.random, or a whole number to seed one", ""),
    (Key, True, TypeError, "True (bool)", "a random key of jax.random, or a whole number to seed one", ""),
    (domains.Decay | None, 2.0, ValueError, "2.0 (float)", "a number in [0, 1), or None", ""),
    (CHOICE, "sotf", TypeError, "'sotf' (str)", "one of 'hard', 'soft'", " Did you mean 'soft'?"),
    (CHOICE, 3, TypeError, "3 (int)", "one of 'hard', 'soft'", ""),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value"), [(annotation, value) for annotation, values in TAKEN for value in values])
def test_what_a_domain_takes(annotation: Any, value: Any) -> None:
    domain = domains.domain_of(annotation)
    assert domain is not None
    domains.check_argument("name", "argument", value, domain)


@pytest.mark.parametrize(("annotation", "value", "error", "found", "expected", "hint"), REFUSED)
def test_what_a_domain_refuses(annotation: Any, value: Any, error: Any, found: str, expected: str, hint: str) -> None:
    domain = domains.domain_of(annotation)
    assert domain is not None
    with pytest.raises(error) as raised:
        domains.check_argument("adam", "b1", value, domain)
    assert str(raised.value) == f"adam: b1 is {found}, expected {expected}.{hint}"


@pytest.mark.parametrize(
    ("mask", "path", "found", "hint"),
    [
        ({"a": True, "b": "no"}, "b", "'no' (str)", PATTERNS),
        ({"a": True, "b": {"c": [False, 1]}}, "b/c/1", "1 (int)", ""),
        (Flags(True, 1.0), "bias", "1.0 (float)", ""),
        ([jnp.asarray(True)], "0", "an array of shape () and dtype bool", ""),
    ],
)
@pytest.mark.parametrize("annotation", [domains.Mask, domains.Mask | None])
def test_the_leaf_of_a_mask_that_is_no_boolean(annotation: Any, mask: Any, path: str, found: str, hint: str) -> None:
    domain = domains.domain_of(annotation)
    assert domain is not None
    with pytest.raises(TypeError) as raised:
        domains.check_argument("masked", "mask", mask, domain)
    assert str(raised.value) == f"masked: mask leaf `{path}` is {found}, expected True or False.{hint}"


@pytest.mark.parametrize("annotation", [domains.Number, domains.NonNegative, domains.Positive, domains.Decay, domains.Rate])
def test_traced_numbers_pass(annotation: Any) -> None:
    domain = domains.domain_of(annotation)
    assert domain is not None
    jax.jit(lambda x: domains.check_argument("name", "argument", x, domain))(-5.0)
    with pytest.raises(TypeError, match=r"^name: argument is an array of shape \(2,\) and dtype float32, expected a "):
        jax.jit(lambda x: domains.check_argument("name", "argument", x, domain))(jnp.ones(2))


@pytest.mark.parametrize("annotation", [int, None, int | None, Annotated[int, "text"], "Decay", list[int]])
def test_annotations_without_a_domain(annotation: Any) -> None:
    assert domains.domain_of(annotation) is None


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: gradtx.chain(gradtx.sgd(0.1), gradtx.adam),
            f"chain: argument 1 is the class adam, expected {TRANSFORMATION}.{CALL_ADAM}",
        ),
        (
            lambda: gradtx.chain(gradtx.constant_schedule(0.1)),
            f"chain: argument 0 is constant_schedule(value=0.1), expected {TRANSFORMATION}. "
            "A schedule becomes a transformation with scale_by_learning_rate(schedule).",
        ),
        (
            lambda: gradtx.chain([gradtx.sgd(0.1), gradtx.clip(1.0)]),
            f"chain: argument 0 is a list of 2, expected {TRANSFORMATION}. "
            "Unpack a list of transformations with a star: chain(*transformations).",
        ),
        (
            lambda: gradtx.chain(gradtx.sgd(0.1), 0.1),
            f"chain: argument 1 is 0.1 (float), expected {TRANSFORMATION}. "
            "Were arguments swapped? A learning rate alone becomes a transformation with scale_by_learning_rate(rate).",
        ),
        (
            lambda: gradtx.chain(function),
            f"chain: argument 0 is the function function, expected {TRANSFORMATION}. "
            "Call it, if it makes a transformation; a schedule becomes one with scale_by_learning_rate(schedule).",
        ),
    ],
)
def test_members_of_a_chain(call: Any, text: str) -> None:
    with pytest.raises(TypeError) as error:
        call()
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True (bool)"),
        ("a", "'a' (str)"),
        (jnp.ones((2, 3)), "an array of shape (2, 3) and dtype float32"),
        (jax.ShapeDtypeStruct((1,), jnp.int32), "an array of shape (1,) and dtype int32"),
        (jax.random.key(0), "an array of shape () and dtype key<fry>"),
        (len, "the function len"),
        (function, "the function function"),
        ({}, "an empty dict"),
        ({"a": 1, 2: 3}, "a dict with keys 'a', 2"),
        (dict.fromkeys("abcde"), "a dict with keys 'a', 'b', 'c', 'd', ..."),
        ([], "a list of 0"),
        ((1, 2), "a tuple of 2"),
        (gradtx.EmptyState(), "an EmptyState"),
        (gradtx.MaskedNode(), "a MaskedNode"),
        (int, "the class int"),
        ({1}, "a set"),
        (1 + 2j, "(1+2j) (complex)"),
    ],
)
def test_kinds(value: Any, text: str) -> None:
    assert checks.kind(value) == text


def test_suggestions_are_close() -> None:
    assert checks.did_you_mean("learning_rat", ["learning_rate", "b1"]) == " Did you mean 'learning_rate'?"
    assert checks.did_you_mean("clip_global_norm", ["clip", "clip_by_global_norm"]) == " Did you mean 'clip_by_global_norm'?"
    assert checks.did_you_mean("step", ["step_size", "b1"]) == " Did you mean 'step_size'?"
    assert checks.did_you_mean("x", ["learning_rate", "b1"]) == ""
    assert checks.did_you_mean("x", []) == ""


@pytest.mark.parametrize(
    "word", ["huber_loss", "numerics", "make_perturbed_fun", "ScaleByBeliefState", "tree_map_params", "l2_loss"]
)
def test_another_word_is_no_misspelling(word: str) -> None:
    assert checks.did_you_mean(word, gradtx.__all__) == ""


def test_names_gather_from_the_inside_out() -> None:
    def refuse(error: Any) -> None:
        with checks.calling("outer"), checks.calling("inner"):
            raise error

    with pytest.raises(ValueError, match=r"^outer > inner: no$"):
        refuse(checks.WrongValue("no"))
    with pytest.raises(TypeError, match=r"^outer > inner: no$"):
        refuse(checks.WrongType("no"))
    with pytest.raises(KeyError, match=r"^'no'$"):  # what others raise stays as it is
        refuse(KeyError("no"))
