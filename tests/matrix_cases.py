"""Rows of the methods that see matrices; `cases.CASES` holds them with all others."""

from case import BETA, DECAY, EPS, STEPS, Case, with_rate

import gradtx

RMS = ({"rms": -1.0}, r"rms is -1.0 \(float\), expected a finite number >= 0")

MATRIX: dict[str, Case] = {
    "adamuon": Case(
        lambda: gradtx.adamuon(0.1, beta=0.9),
        with_rate(
            BETA,
            EPS,
            DECAY,
            RMS,
            STEPS,
            ({"ns_coeffs": "jordn"}, r"ns_coeffs is 'jordn', expected one of .* Did you mean 'jordan'\?"),
        ),
    ),
    "scale_by_adamuon": Case(
        gradtx.scale_by_adamuon, (EPS, RMS, ({"beta2": 1.0}, r"beta2 is 1.0 \(float\), expected a number in \[0, 1\)"))
    ),
    "scale_by_lmo": Case(
        lambda: gradtx.scale_by_lmo(gradtx.norm_balls({r"(.*/)?kernel": gradtx.NormBall("column", 2.0)})),
        (EPS, ({"spectral": "jordan"}, r"spectral is 'jordan' \(str\), expected gradtx.orthogonalize\(\.\.\.\)")),
    ),
    "scion": Case(
        lambda: gradtx.scion(0.1),
        with_rate(BETA, EPS, ({"constrained": 1}, r"constrained is 1 \(int\), expected True or False")),
    ),
}
