"""Rows of what came to training in 2024 to 2026; `cases.CASES` holds them with all others."""

from case import Case
from wrapper_cases import around

import gradtx

RECENT: dict[str, Case] = {
    "hyperball": Case(
        lambda: gradtx.hyperball(gradtx.scale_by_adam(), 0.1),
        around(
            ({"learning_rate": -1.0}, r"learning_rate is -1.0 \(float\), expected a finite number >= 0, or a schedule"),
            learning_rate=0.1,
        ),
    ),
}
