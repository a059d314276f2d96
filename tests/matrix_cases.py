"""Rows of the methods that see matrices; `cases.CASES` holds them with all others."""

from case import B1, BETA, DECAY, EPS, MASK, STEPS, Case, with_rate

import gradtx

RMS = ({"rms": -1.0}, r"rms is -1.0 \(float\), expected a finite number >= 0")
SLICES = ({"fraction": 0.0}, r"fraction is 0.0 \(float\), expected a number in \(0, 1\]")
SHRINK = ({"decay": 1.0}, r"decay is 1.0 \(float\), expected a number in \[0, 1\)")
SHARES = {"sharding": "its matrices lie as stacks, which devices share by blocks"}
STACKS = {"rounding": "inverse roots multiply rounding errors where gradients are small, by a root of 1/eps", **SHARES}

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
    "dion2": Case(lambda: gradtx.dion2(0.1, 0.5), with_rate(SLICES, SHRINK, DECAY)),
    "scale_by_dion2": Case(
        gradtx.scale_by_dion2,
        (SLICES, SHRINK, ({"signs": "jordan"}, r"signs is 'jordan' \(str\), expected gradtx.orthogonalize\(\.\.\.\)")),
    ),
    "kron": Case(lambda: gradtx.kron(0.1, weight_decay=0.1, key=3), with_rate(B1, DECAY, MASK), exceptions=SHARES),
    "scale_by_kron": Case(
        lambda: gradtx.scale_by_kron(preconditioner_update_probability=0.6, memory_save_mode="one_diag"),
        (
            B1,
            (
                {"preconditioner_update_probability": 0.0},
                r"preconditioner_update_probability is 0.0 \(float\), expected a number in \(0, 1\]",
            ),
            ({"memory_save_mode": "one"}, r"memory_save_mode is 'one' \(str\), expected one of 'one_diag', 'all_diag', or None"),
            ({"max_size_triangular": 0}, r"max_size_triangular is 0 \(int\), expected a whole number >= 1"),
            ({"min_ndim_triangular": 0}, r"min_ndim_triangular is 0 \(int\), expected a whole number >= 1"),
            ({"preconditioner_lr": 2.0}, r"preconditioner_lr is 2.0 \(float\), expected a number in \[0, 1\]"),
            ({"key": 0.5}, r"key is 0.5 \(float\), expected a random key of jax.random, or a whole number to seed one"),
        ),
        exceptions=SHARES,
    ),
    "scale_by_lmo": Case(
        lambda: gradtx.scale_by_lmo(gradtx.norm_balls({r"(.*/)?kernel": gradtx.NormBall("column", 2.0)})),
        (EPS, ({"spectral": "jordan"}, r"spectral is 'jordan' \(str\), expected gradtx.orthogonalize\(\.\.\.\)")),
    ),
    "scion": Case(
        lambda: gradtx.scion(0.1),
        with_rate(BETA, EPS, ({"constrained": 1}, r"constrained is 1 \(int\), expected True or False")),
    ),
    "scale_by_shampoo": Case(
        lambda: gradtx.scale_by_shampoo(b2=0.9, eps=0.3, frequency=2, start=1),
        (
            B1,
            EPS,
            ({"b2": 1.5}, r"b2 is 1.5 \(float\), expected a number in \[0, 1\]"),
            ({"frequency": 0}, r"frequency is 0 \(int\), expected a whole number >= 1"),
            ({"start": 0}, r"start is 0 \(int\), expected a whole number >= 1, or None"),
            ({"block_size": 0}, r"block_size is 0 \(int\), expected a whole number >= 1"),
            (
                {"graft": gradtx.Graft("adm")},
                r"graft is .*, expected Graft\(method, b2 in \[0, 1\), eps >= 0\) with a method among 'adam', 'rmsprop', 'sgd'",
            ),
        ),
        exceptions=STACKS,
    ),
    "shampoo": Case(
        lambda: gradtx.shampoo(0.1, eps=0.01, weight_decay=0.1, block_size=2),
        with_rate(B1, EPS, DECAY, MASK),
        exceptions=STACKS,
    ),
}
