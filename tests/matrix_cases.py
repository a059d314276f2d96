"""Rows of the methods that see matrices; `cases.CASES` holds them with all others."""

from case import BETA, EPS, Case, with_rate

import gradtx

MATRIX: dict[str, Case] = {
    "scale_by_lmo": Case(
        lambda: gradtx.scale_by_lmo(gradtx.norm_balls({r"(.*/)?kernel": gradtx.NormBall("column", 2.0)})),
        (EPS, ({"spectral": "jordan"}, r"spectral is 'jordan' \(str\), expected gradtx.orthogonalize\(\.\.\.\)")),
    ),
    "scion": Case(
        lambda: gradtx.scion(0.1),
        with_rate(BETA, EPS, ({"constrained": 1}, r"constrained is 1 \(int\), expected True or False")),
    ),
}
