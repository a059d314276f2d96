"""Coefficients against the published rows, the definition of minimax, and the errors that they leave."""

import numpy as np
import pytest

from gradtx.linalg.coefficients import TABLES, minimax_quintic, newton_schulz_table, polar_express

PUBLISHED = [  # arXiv:2505.16932, l=1e-3, before the safety factor
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
]


def composed(table, s):
    for a, b, c in table:
        s = a * s + b * s**3 + c * s**5
    return s


def test_rows_are_the_published_ones():
    np.testing.assert_allclose(polar_express(6, 1e-3, 1.0), PUBLISHED, rtol=1e-11)


def test_safety_divides_the_argument_of_all_rows_but_the_last():
    plain, safe = polar_express(3, 1e-2, 1.0), polar_express(3, 1e-2, 1.02)
    s = np.linspace(0, 1, 50)
    for row, other in zip(plain[:-1], safe[:-1], strict=True):
        np.testing.assert_allclose(composed([other], s), composed([row], s / 1.02), rtol=1e-13)
    assert plain[-1] == safe[-1]


@pytest.mark.parametrize(("low", "high"), [(0.03, 1.0), (0.3, 1.7), (0.9, 1.1), (0.9999, 1.0001)])
def test_error_of_a_row_has_four_equal_extrema_of_alternating_sign(low, high):
    s = np.linspace(low, high, 200_001)
    error = composed([minimax_quintic(low, high)], s) - 1
    turns = [0, *(np.flatnonzero(np.diff(np.sign(np.diff(error)))) + 1), len(s) - 1]
    extrema = error[turns] if np.max(np.abs(error)) > 1e-9 else error[[0]]
    np.testing.assert_allclose(np.abs(extrema), np.max(np.abs(error)), rtol=1e-4, atol=1e-14)
    if len(extrema) > 1:
        assert len(extrema) == 4
        assert np.all(np.diff(np.sign(extrema)) != 0)


@pytest.mark.parametrize(
    ("table", "largest", "rms"),
    [
        (TABLES["quintic"], 0.977, 0.585),
        (TABLES["jordan"], 0.530, 0.211),
        (TABLES["dion"], 0.525, 0.123),
        (polar_express(5), 0.148, 0.089),
        (polar_express(6), 0.0044, 0.0009),
        (polar_express(8), 1e-14, 1e-14),
    ],
)
def test_errors_on_singular_values_from_one_thousandth_on(table, largest, rms):
    error = 1 - composed(table, np.logspace(-3, 0, 100_001))
    np.testing.assert_allclose([np.max(np.abs(error)), np.sqrt(np.mean(error**2))], [largest, rms], rtol=0.06, atol=1e-13)


@pytest.mark.parametrize("width", np.logspace(-7, -3, 9))
def test_rows_of_short_intervals_are_finite_and_close_to_one(width):
    for centre in np.linspace(0.99, 1.01, 101):
        low, high = centre * (1 - width), centre * (1 + width)
        error = composed([minimax_quintic(low, high)], np.linspace(low, high, 9)) - 1
        assert np.max(np.abs(error)) <= max(0.7 * width**3, 4e-15)


@pytest.mark.parametrize("lower", [0.159012, 0.15796566641660414, *np.linspace(0.01, 0.99, 99)])
def test_eight_steps_converge_from_any_lower_end(lower):
    table = polar_express(8, float(lower))
    assert np.all(np.isfinite(table))
    np.testing.assert_allclose(composed(table, np.linspace(lower, 1, 101)), 1, atol=1e-14)


def test_five_steps_of_the_notes_coefficients_converge_only_near_one():
    assert abs(composed(TABLES["quintic"], 0.5) - 1) < 1e-12
    assert 0.2 < composed(TABLES["quintic"], 0.01) < 0.24


@pytest.mark.parametrize(
    ("coefficients", "steps", "expected"),
    [
        ("polar_express", None, polar_express(4, 5e-3)),
        ("polar_express", 4, polar_express(4, 5e-3)),
        ("polar_express", 6, polar_express(6, 1e-3)),
        ("jordan", None, TABLES["jordan"]),
        ("dion", 2, TABLES["dion"][:2]),
        ("dion", 7, TABLES["dion"] + TABLES["dion"][-1:] * 2),
        ([2.0, -1.5, 0.5], 2, ((2.0, -1.5, 0.5),) * 2),
        (np.array([[2.0, -1.5, 0.5], [1.875, -1.25, 0.375]]), None, ((2.0, -1.5, 0.5), (1.875, -1.25, 0.375))),
    ],
)
def test_table_of_names_rows_and_steps(coefficients, steps, expected):
    assert newton_schulz_table("msign", coefficients, steps) == expected


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: polar_express(0), ValueError, r"polar_express: steps is 0 \(int\), expected a whole number >= 1\."),
        (lambda: polar_express(3, 1.5), ValueError, r"polar_express: lower is 1\.5 \(float\), expected a number in \(0, 1\)\."),
        (lambda: polar_express(3, 0.1, 0.9), ValueError, r"polar_express: safety is 0\.9 \(float\), expected a number >= 1\."),
        (
            lambda: newton_schulz_table("f", "jordan", 0),
            ValueError,
            r"f: steps is 0 \(int\), expected a whole number >= 1, or None\.",
        ),
        (
            lambda: newton_schulz_table("f", "polar_expres", None),
            ValueError,
            r"f: coefficients is 'polar_expres', expected one of 'polar_express', 'jordan', 'quintic', 'dion', a row of three numbers, "
            r"or a table of such rows\. Did you mean 'polar_express'\?",
        ),
        (
            lambda: newton_schulz_table("f", [1.0, 2.0], None),
            TypeError,
            r"f: coefficients is a list of 2 of shape \(2,\), expected a name, a row of three finite numbers, or a table of such rows\.",
        ),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=f"^{text}$"):
        call()
