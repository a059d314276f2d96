"""Rows of methods that precondition matrices in eigenbases; `cases.CASES` holds them with all others."""

from case import B1, B2, BETA, DECAY, EPS, MASK, Case, with_rate

import gradtx

FREQUENCY = ({"precondition_frequency": 0}, r"precondition_frequency is 0 \(int\), expected a whole number >= 1")
LONGEST = ({"max_precond_dim": 0}, r"max_precond_dim is 0 \(int\), expected a whole number >= 1")
SHAMPOO = ({"shampoo_beta": 1.0}, r"shampoo_beta is 1.0 \(float\), expected a number in \[0, 1\), or None")
APART = {"sharding": "matrices of one shape are one stack, whose parts lie apart on all devices"}

SECOND_ORDER: dict[str, Case] = {
    "soap": Case(
        lambda: gradtx.soap(0.1, precondition_frequency=1),
        with_rate(B1, B2, SHAMPOO, EPS, FREQUENCY, LONGEST, DECAY, MASK),
        exceptions=APART,
    ),
    "scale_by_soap": Case(
        lambda: gradtx.scale_by_soap(one_sided=True, precondition_1d=True, normalize=True),
        (B1, B2, SHAMPOO, EPS, FREQUENCY, LONGEST, ({"one_sided": 1}, r"one_sided is 1 \(int\), expected True or False")),
        exceptions=APART,
    ),
    "kl_soap": Case(
        lambda: gradtx.kl_soap(0.1, precondition_frequency=1),
        with_rate(B1, B2, SHAMPOO, EPS, FREQUENCY, LONGEST, DECAY, MASK),
        exceptions=APART,
    ),
    "scale_by_kl_soap": Case(
        lambda: gradtx.scale_by_kl_soap(one_sided=True), (B1, B2, SHAMPOO, EPS, FREQUENCY, LONGEST), exceptions=APART
    ),
    "soap_muon": Case(
        lambda: gradtx.soap_muon(0.1, weight_decay=0.01),
        with_rate(
            BETA,
            B2,
            SHAMPOO,
            EPS,
            FREQUENCY,
            LONGEST,
            DECAY,
            ({"adam_learning_rate": -1.0}, r"adam_learning_rate is -1.0 \(float\), expected a finite number >= 0, or a schedule"),
        ),
        exceptions=APART,
    ),
    "scale_by_soap_muon": Case(
        lambda: gradtx.scale_by_soap_muon(precondition_1d=True), (BETA, B2, SHAMPOO, EPS, FREQUENCY, LONGEST), exceptions=APART
    ),
}
