"""Domains of arguments: what each takes, and the whole text of each refusal."""

from typing import Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core import checks
from gradtx.core.transformation import Inner
from gradtx.transforms.noise import Key

NAN, INF = float("nan"), float("inf")
PATTERNS = " Patterns of paths go through by_path({pattern: True}, default=False)."
CALL_ADAM = " This is the factory itself: call it, adam(...)."
TEXT_HINT = " A number is wanted, not text."
SCHEDULE = ", or a schedule (a function of the step count)"
TRANSFORMATION = "a gradient transformation (a pair of init and update)"
CHOICE = Annotated[str, checks.one_of("hard", "soft")]
SQUARES = "a floating dtype with the range of float32: 'float32', 'float64' or 'bfloat16'"
FEW_BITS = " Squares overflow or vanish in fewer bits, and averages of them stall."
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
    (checks.Number, [0, -1.5, np.float32(1e30), np.int64(3), jnp.asarray(2.0), jnp.asarray(2)]),
    (checks.NonNegative, [0, 0.0, 3, jnp.asarray(0.0)]),
    (checks.Positive, [1e-30, 1, np.float16(1.0)]),
    (checks.Decay, [0, 0.0, 0.999, np.float32(0.9), jnp.asarray(0.5)]),
    (checks.Fraction, [0, 1, 0.5]),
    (checks.Rate, [0, 0.1, function, Callable(), gradtx.constant_schedule(0.1), lambda c: c]),
    (checks.DecayOrSchedule, [0.0, function]),
    (checks.PositiveInt, [1, np.int32(7)]),
    (checks.NonNegativeInt, [0, 5]),
    (checks.Flag, [True, False, np.True_]),
    (checks.FloatDType, ["float32", "bfloat16", jnp.bfloat16, np.float16, np.dtype("float64"), float, "float8_e4m3fn"]),
    (checks.SecondMomentDType, ["float32", "bfloat16", jnp.bfloat16, np.dtype("float64"), float]),
    (checks.ScheduleArg, [function, Callable(), gradtx.constant_schedule(1.0)]),
    (Inner, [gradtx.sgd(0.1), gradtx.GradientTransformation(function, function)]),
    (checks.Mask, [True, {"a": False, "b": [np.True_]}, {}, function, gradtx.by_path({}, True), Flags(True, {"x": False})]),
    (checks.Function, [function, Callable(), len, dict]),
    (Key, [0, jax.random.key(1), jnp.zeros(2, jnp.uint32)]),
    (checks.Decay | None, [None, 0.5]),
]  # fmt: skip

REFUSED = [
    (checks.Number, INF, ValueError, "inf (float)", "a finite number", ""),
    (checks.Number, NAN, ValueError, "nan (float)", "a finite number", ""),
    (checks.Number, "0.1", TypeError, "'0.1' (str)", "a finite number", TEXT_HINT),
    (checks.Number, True, TypeError, "True (bool)", "a finite number", ""),
    (checks.Number, None, TypeError, "None", "a finite number", ""),
    (checks.Number, 1j, TypeError, "1j (complex)", "a finite number", ""),
    (checks.Number, jnp.ones(2), TypeError, "an array of shape (2,) and dtype float32", "a finite number", ""),
    (checks.Number, jnp.asarray(True), TypeError, "an array of shape () and dtype bool", "a finite number", ""),
    (checks.NonNegative, -1e-9, ValueError, "-1e-09 (float)", "a finite number >= 0", ""),
    (checks.NonNegative, NAN, ValueError, "nan (float)", "a finite number >= 0", ""),
    (checks.NonNegative, np.float32(-0.5), ValueError, "np.float32(-0.5)", "a finite number >= 0", ""),
    (checks.NonNegative, jnp.asarray(-0.5, jnp.float32), ValueError, "Array(-0.5, dtype=float32)", "a finite number >= 0", ""),
    (checks.Positive, 0, ValueError, "0 (int)", "a finite number > 0", ""),
    (checks.Positive, [1.0], TypeError, "a list of 1", "a finite number > 0", ""),
    (checks.Decay, 1, ValueError, "1 (int)", "a number in [0, 1)", ""),
    (checks.Decay, -0.1, ValueError, "-0.1 (float)", "a number in [0, 1)", ""),
    (checks.Decay, gradtx.adam, TypeError, "the class adam", "a number in [0, 1)", CALL_ADAM),
    (checks.Fraction, 1.1, ValueError, "1.1 (float)", "a number in [0, 1]", ""),
    (checks.Rate, -0.1, ValueError, "-0.1 (float)", f"a finite number >= 0{SCHEDULE}", ""),
    (checks.Rate, INF, ValueError, "inf (float)", f"a finite number >= 0{SCHEDULE}", ""),
    (checks.Rate, "1e-3", TypeError, "'1e-3' (str)", f"a finite number >= 0{SCHEDULE}", TEXT_HINT),
    (checks.Rate, gradtx.adam, TypeError, "the class adam", f"a finite number >= 0{SCHEDULE}", CALL_ADAM),
    (checks.Rate, gradtx.sgd(0.1), TypeError, "sgd(learning_rate=0.1)", f"a finite number >= 0{SCHEDULE}", ""),
    (checks.Rate, float, TypeError, "the class float", f"a finite number >= 0{SCHEDULE}", ""),
    (checks.DecayOrSchedule, 1.0, ValueError, "1.0 (float)", f"a number in [0, 1){SCHEDULE}", ""),
    (checks.PositiveInt, 0, ValueError, "0 (int)", "a whole number >= 1", ""),
    (checks.PositiveInt, 2.0, ValueError, "2.0 (float)", "a whole number >= 1", ""),
    (checks.PositiveInt, True, TypeError, "True (bool)", "a whole number >= 1", ""),
    (checks.NonNegativeInt, -1, ValueError, "-1 (int)", "a whole number >= 0", ""),
    (checks.Flag, 1, TypeError, "1 (int)", "True or False", ""),
    (checks.Flag, None, TypeError, "None", "True or False", ""),
    (checks.FloatDType, "int8", TypeError, "'int8' (str)", "a floating dtype, such as 'float32' or jnp.bfloat16", ""),
    (checks.FloatDType, "float31", TypeError, "'float31' (str)", "a floating dtype, such as 'float32' or jnp.bfloat16", ""),
    (checks.FloatDType, jnp.int32, TypeError, "the class int32", "a floating dtype, such as 'float32' or jnp.bfloat16", ""),
    (checks.SecondMomentDType, "float8_e4m3fn", TypeError, "'float8_e4m3fn' (str)", SQUARES, FEW_BITS),
    (checks.SecondMomentDType, "float8_e8m0fnu", TypeError, "'float8_e8m0fnu' (str)", SQUARES, FEW_BITS),
    (checks.SecondMomentDType, jnp.float16, TypeError, "the class float16", SQUARES, FEW_BITS),
    (checks.SecondMomentDType, "int8", TypeError, "'int8' (str)", SQUARES, ""),
    (checks.ScheduleArg, 0.1, TypeError, "0.1 (float)", "a schedule (a function of the step count)", ""),
    (checks.ScheduleArg, gradtx.adam, TypeError, "the class adam", "a schedule (a function of the step count)", CALL_ADAM),
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
    (checks.Mask, "kernel", TypeError, "'kernel' (str)", MASK, PATTERNS),
    (checks.Mask, 1, TypeError, "1 (int)", MASK, ""),
    (checks.Mask, gradtx.adam, TypeError, "the class adam", MASK, CALL_ADAM),
    (checks.Function, 3, TypeError, "3 (int)", "a function", ""),
    (checks.Function, gradtx.adam, TypeError, "the class adam", "a function", CALL_ADAM),
    (Key, 1.5, TypeError, "1.5 (float)", "a random key of jax.random, or a whole number to seed one", ""),
    (Key, True, TypeError, "True (bool)", "a random key of jax.random, or a whole number to seed one", ""),
    (checks.Decay | None, 2.0, ValueError, "2.0 (float)", "a number in [0, 1), or None", ""),
    (CHOICE, "sotf", TypeError, "'sotf' (str)", "one of 'hard', 'soft'", " Did you mean 'soft'?"),
    (CHOICE, 3, TypeError, "3 (int)", "one of 'hard', 'soft'", ""),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value"), [(annotation, value) for annotation, values in TAKEN for value in values])
def test_what_a_domain_takes(annotation: Any, value: Any) -> None:
    domain = checks.domain_of(annotation)
    assert domain is not None
    checks.check_argument("name", "argument", value, domain)


@pytest.mark.parametrize(("annotation", "value", "error", "found", "expected", "hint"), REFUSED)
def test_what_a_domain_refuses(annotation: Any, value: Any, error: Any, found: str, expected: str, hint: str) -> None:
    domain = checks.domain_of(annotation)
    assert domain is not None
    with pytest.raises(error) as raised:
        checks.check_argument("adam", "b1", value, domain)
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
@pytest.mark.parametrize("annotation", [checks.Mask, checks.Mask | None])
def test_the_leaf_of_a_mask_that_is_no_boolean(annotation: Any, mask: Any, path: str, found: str, hint: str) -> None:
    domain = checks.domain_of(annotation)
    assert domain is not None
    with pytest.raises(TypeError) as raised:
        checks.check_argument("masked", "mask", mask, domain)
    assert str(raised.value) == f"masked: mask leaf `{path}` is {found}, expected True or False.{hint}"


@pytest.mark.parametrize("annotation", [checks.Number, checks.NonNegative, checks.Positive, checks.Decay, checks.Rate])
def test_traced_numbers_pass(annotation: Any) -> None:
    domain = checks.domain_of(annotation)
    assert domain is not None
    jax.jit(lambda x: checks.check_argument("name", "argument", x, domain))(-5.0)
    with pytest.raises(TypeError, match=r"^name: argument is an array of shape \(2,\) and dtype float32, expected a "):
        jax.jit(lambda x: checks.check_argument("name", "argument", x, domain))(jnp.ones(2))


@pytest.mark.parametrize("annotation", [int, None, int | None, Annotated[int, "text"], "Decay", list[int]])
def test_annotations_without_a_domain(annotation: Any) -> None:
    assert checks.domain_of(annotation) is None


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


@pytest.mark.parametrize("word", ["adafactor", "numerics", "scale_by_sm3", "ScaleByBeliefState", "tree_map_params", "rprop"])
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
